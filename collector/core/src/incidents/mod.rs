//! Incidents: many hosts that fall silent together are one piece of work, not one each. A *site
//! incident* is about most hosts of a site, a *fleet incident* about most hosts of most sites, which
//! points at the collector's own connection. The hosts' alerts stay their own and are attached to the
//! incident's ticket, which pages once.
//!
//! [`judge`] decides what a host whose silence deadline has passed belongs to; [`Incident`] is what is
//! known about an open one, and [`Incident::due`] what follows as its hosts come back. [`steps`] are what
//! that does to the ticket, [`text`] what it says.
//!
//! A single dead host is decided on at its deadline. Only if enough other hosts of its site, or of the
//! fleet, are late as well that it could be an incident is it kept waiting, for at most one of its
//! heartbeat intervals.
//!
//! When the hosts are back the incident resolves itself. If most are back and some are not, for
//! [`RETURN_WINDOW`], it says once which ones, as a new episode that pages: those are dead for a reason
//! of their own. They stay on the incident's ticket; a host that falls silent after that is judged
//! again.

pub mod steps;
mod storm;
pub mod text;

use std::fmt;

use watchkeep_shared::{DurationMs, UnixMillis};

use crate::{ids::SiteId, rules::CheckKey};

pub use self::storm::{HostSignal, Judgement, Open, Status, Tally, Verdict, judge};

/// Hosts that fell silent within this time of each other count together.
pub const STORM_WINDOW: DurationMs = DurationMs::from_mins(5);
/// When no host has come back for this long, those that are missing are reported.
pub const RETURN_WINDOW: DurationMs = DurationMs::from_mins(2);

/// What an incident is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IncidentScope {
    /// Most hosts of a site.
    Site(SiteId),
    /// Most hosts of most sites.
    Fleet,
}

/// First part of the check of a site incident's ticket.
const SITE_CHECK: &str = "site/";
/// The check of a fleet incident's ticket.
const FLEET_CHECK: &str = "fleet/silent";

impl IncidentScope {
    /// The check of the incident's ticket: at most one is open for it.
    pub fn check(self) -> CheckKey {
        CheckKey(self.to_string())
    }

    /// The scope of a ticket's check, if it is an incident's.
    pub fn of_check(check: &CheckKey) -> Option<Self> {
        let check = check.as_str();
        if check == FLEET_CHECK {
            return Some(Self::Fleet);
        }
        let site = check.strip_prefix(SITE_CHECK)?.parse().ok()?;
        Some(Self::Site(SiteId(site)))
    }
}

impl fmt::Display for IncidentScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Site(site) => write!(f, "{SITE_CHECK}{site}"),
            Self::Fleet => f.write_str(FLEET_CHECK),
        }
    }
}

/// An open incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// When it began.
    pub opened_at: UnixMillis,
    /// Hosts that are or were part of it since this episode began.
    pub total: u32,
    /// Hosts of it that are silent now.
    pub away: u32,
    /// When a host last came back; `None` before the first one.
    pub last_return_at: Option<UnixMillis>,
    /// The missing hosts were reported: the site is back, only they are not.
    pub is_reported: bool,
}

/// What is to be done about an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// All hosts are back.
    Resolve,
    /// Most hosts are back; report the others.
    ReportMissing,
}

impl Incident {
    /// Whether hosts that fall silent now belong to it.
    pub const fn takes_in(&self) -> bool {
        !self.is_reported
    }

    /// What is due at `now`.
    pub fn due(&self, now: UnixMillis) -> Option<Due> {
        if self.away == 0 {
            return Some(Due::Resolve);
        }
        let back = self.total.saturating_sub(self.away);
        let is_quiet = self
            .last_return_at
            .is_some_and(|at| now.since(at) >= RETURN_WINDOW);
        (!self.is_reported && is_quiet && back >= self.away).then_some(Due::ReportMissing)
    }
}

#[cfg(test)]
mod tests;
