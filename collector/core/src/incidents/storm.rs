//! Whether silent hosts are silent together.

use std::collections::{BTreeMap, BTreeSet};

use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::{IncidentScope, STORM_WINDOW};
use crate::ids::SiteId;

/// What is known of one host. Hosts that are never judged (retired, revoked, in quarantine, without
/// a first heartbeat) are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostSignal {
    pub host: HostId,
    pub site: SiteId,
    /// Its last sign of life.
    pub heard_at: UnixMillis,
    /// Its heartbeat interval, milliseconds.
    pub interval_ms: u32,
    /// Whether it is silent.
    pub status: Status,
}

/// Whether a host is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its silence deadline lies ahead.
    Heard,
    /// Its silence deadline passed at this instant; it is to be decided on.
    Due(UnixMillis),
    /// It was called silent at this instant.
    Silent(UnixMillis),
}

/// Open incidents that take in further hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    pub sites: BTreeSet<SiteId>,
    pub fleet: bool,
}

/// Hosts of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Fell silent within [`STORM_WINDOW`].
    pub silent: u32,
    /// Not silent yet, but overdue by half an interval.
    pub late: u32,
    /// Heard after the silent ones should have been.
    pub live: u32,
}

/// What a due host belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can't be known yet.
    Wait,
    /// It is silent by itself.
    Alone,
    /// It belongs to this incident, which is opened if it is not open.
    Join(IncidentScope),
}

/// The result of [`judge`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    /// One for each due host, in the order of the hosts.
    pub verdicts: BTreeMap<HostId, Verdict>,
    /// How many hosts each scope has.
    pub tallies: BTreeMap<IncidentScope, Tally>,
}

/// Decides on every due host.
pub fn judge(signals: &[HostSignal], open: &Open, now: UnixMillis) -> Judgement {
    let due: Vec<(&HostSignal, UnixMillis)> = signals
        .iter()
        .filter_map(|signal| match signal.status {
            Status::Due(since) => Some((signal, since)),
            Status::Heard | Status::Silent(_) => None,
        })
        .collect();
    let missed = Missed::of(&due);
    let mut tallies: BTreeMap<IncidentScope, Tally> = BTreeMap::new();
    for signal in signals {
        for scope in [IncidentScope::Site(signal.site), IncidentScope::Fleet] {
            let tally = tallies.entry(scope).or_default();
            tally.count(signal, missed.at(scope), now);
        }
    }
    let fleet = Fleet::of(&tallies);
    let mut verdicts = BTreeMap::new();
    for (signal, since) in due {
        let may_wait = now < since + interval(signal);
        let site = tallies
            .get(&IncidentScope::Site(signal.site))
            .copied()
            .unwrap_or_default();
        let verdict = if open.sites.contains(&signal.site) {
            Verdict::Join(IncidentScope::Site(signal.site))
        } else if open.fleet {
            Verdict::Join(IncidentScope::Fleet)
        } else if may_wait && (fleet.may_become_wide || site.may_become_wide()) {
            Verdict::Wait
        } else if fleet.is_wide {
            Verdict::Join(IncidentScope::Fleet)
        } else if site.is_wide() {
            Verdict::Join(IncidentScope::Site(signal.site))
        } else {
            Verdict::Alone
        };
        verdicts.insert(signal.host, verdict);
    }
    Judgement { verdicts, tallies }
}

fn interval(signal: &HostSignal) -> DurationMs {
    DurationMs(i64::from(signal.interval_ms))
}

/// When the due hosts of each scope first missed a heartbeat. A host that sent a heartbeat after that
/// shows that the scope was connected then.
#[derive(Debug)]
struct Missed(BTreeMap<IncidentScope, UnixMillis>);

impl Missed {
    fn of(due: &[(&HostSignal, UnixMillis)]) -> Self {
        let mut first: BTreeMap<IncidentScope, UnixMillis> = BTreeMap::new();
        for (signal, _) in due {
            let missed_at = signal.heard_at + interval(signal);
            for scope in [IncidentScope::Site(signal.site), IncidentScope::Fleet] {
                let first = first.entry(scope).or_insert(missed_at);
                *first = (*first).min(missed_at);
            }
        }
        Self(first)
    }

    /// Sites without a due host go by the fleet's first one.
    fn at(&self, scope: IncidentScope) -> UnixMillis {
        let of_fleet = || self.0.get(&IncidentScope::Fleet).copied();
        let at = self.0.get(&scope).copied().or_else(of_fleet);
        at.unwrap_or(UnixMillis(i64::MIN))
    }
}

impl Tally {
    fn count(&mut self, signal: &HostSignal, missed_at: UnixMillis, now: UnixMillis) {
        match signal.status {
            Status::Due(_) => self.silent += 1,
            Status::Silent(at) if now.since(at) < STORM_WINDOW => self.silent += 1,
            // Silent for long: it says nothing about this moment.
            Status::Silent(_) => {}
            Status::Heard => {
                let overdue_ms = now.since(signal.heard_at).0 * 2;
                if overdue_ms > i64::from(signal.interval_ms) * 3 {
                    self.late += 1;
                } else if signal.heard_at > missed_at {
                    self.live += 1;
                }
                // Else it beats too slowly to say anything about this moment.
            }
        }
    }

    /// Most hosts are silent, and more than could be by chance.
    pub const fn is_wide(&self) -> bool {
        is_wide(self.silent, self.live + self.late)
    }

    /// The late hosts would make it wide, or wider.
    const fn may_become_wide(&self) -> bool {
        self.late > 0 && is_wide(self.silent + self.late, self.live)
    }
}

/// At least three hosts and at least half, or both of two.
const fn is_wide(silent: u32, live: u32) -> bool {
    silent >= live && (silent >= 3 || (silent == 2 && live == 0))
}

/// The fleet as a whole.
#[derive(Clone, Copy, Debug)]
struct Fleet {
    is_wide: bool,
    may_become_wide: bool,
}

impl Fleet {
    fn of(tallies: &BTreeMap<IncidentScope, Tally>) -> Self {
        let all = tallies
            .get(&IncidentScope::Fleet)
            .copied()
            .unwrap_or_default();
        let sites = tallies
            .iter()
            .filter(|(scope, _)| **scope != IncidentScope::Fleet)
            .map(|(_, tally)| *tally);
        let (mut known, mut silent, mut silent_or_late) = (0_u32, 0_u32, 0_u32);
        for site in sites.filter(|site| site.silent + site.late + site.live > 0) {
            known += 1;
            silent += u32::from(site.silent >= site.live + site.late);
            silent_or_late += u32::from(site.silent + site.late >= site.live);
        }
        let most = |count: u32| count >= 2 && count * 2 >= known;
        Self {
            is_wide: all.is_wide() && most(silent),
            may_become_wide: all.may_become_wide() && most(silent_or_late),
        }
    }
}
