//! Heartbeats of one host that were rejected since the collector started: how many, why, when last.
//! Kept in memory, one entry a reason.

use watchkeep_shared::{DurationMs, HostId, UnixMillis, wire::heartbeat::RejectReason};

use crate::live::Rejection;

/// Rejections that go on are logged this often.
const LOG_EVERY: DurationMs = DurationMs::from_hours(1);

/// The rejections of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Rejections {
    all: Vec<Rejection>,
    logged_at: Option<UnixMillis>,
    /// Since the last line in the log.
    unlogged: u64,
}

impl Rejections {
    /// Counts rejected heartbeats, and logs them: at once, then hourly.
    pub(super) fn note(
        &mut self,
        (host, name): (HostId, &str),
        reason: RejectReason,
        (count, at): (u64, UnixMillis),
    ) {
        match self.all.iter_mut().find(|one| one.reason == reason) {
            Some(one) => {
                one.count += count;
                one.last_at = at;
            }
            None => self.all.push(Rejection {
                reason,
                count,
                last_at: at,
            }),
        }
        self.unlogged += count;
        let is_due = self
            .logged_at
            .is_none_or(|last| at.since(last) >= LOG_EVERY);
        if is_due {
            self.logged_at = Some(at);
            tracing::warn!(
                host.id = %host,
                reason = reason.as_str(),
                count = std::mem::take(&mut self.unlogged),
                "heartbeats of {name} were rejected"
            );
        }
    }

    /// All of them, as pages show them.
    pub(super) fn all(&self) -> Vec<Rejection> {
        self.all.clone()
    }
}
