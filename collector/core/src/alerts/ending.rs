//! A host that is no longer watched: its alerts end, whatever they are about.

use watchkeep_shared::UnixMillis;

use super::{AlertChange, HostAlerts, entry::EntryKind};

/// Why a host is no longer watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwatched {
    /// Its record has ended.
    Retired,
    /// Its certificates were revoked: its heartbeats are rejected until it enrols again. An alert
    /// about an identity that is used twice continues until then.
    Revoked,
}

impl Unwatched {
    const fn reason(self) -> &'static str {
        match self {
            Self::Retired => "the host was retired",
            Self::Revoked => "the host's access was revoked",
        }
    }
}

/// Ends what is pending or fires, and the silence.
pub fn end_all(host: &mut HostAlerts, why: Unwatched, at: UnixMillis) -> Vec<AlertChange> {
    let mut changes = Vec::new();
    for entry in host.metrics.iter_mut().chain(&mut host.others) {
        let is_kept = why == Unwatched::Revoked && entry.kind == EntryKind::ClonedIdentity;
        if !is_kept {
            changes.extend(entry.clear(at, None, why.reason()));
        }
    }
    host.silent_since = None;
    host.drop_ok();
    host.changed.0 = true;
    changes
}
