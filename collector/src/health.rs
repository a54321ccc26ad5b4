//! How a host is, in one word. The fleet, the host's page, the API and the command line all ask
//! [`Health::of`], so that they never disagree.

use serde::Serialize;

use crate::live::HostNow;

/// What the store records about a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Its record has ended.
    pub retired: bool,
    /// Two machines use its identity.
    pub quarantined: bool,
    /// All its certificates are revoked, and it has not enrolled again.
    pub revoked: bool,
}

/// What its heartbeats say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signals {
    /// Two machines use its identity; known here before it is in the store.
    pub quarantined: bool,
    /// The silence limit has passed.
    pub silent: bool,
    /// Alerts that fire.
    pub firing: u32,
}

impl From<&HostNow> for Signals {
    fn from(now: &HostNow) -> Self {
        Self {
            quarantined: now.quarantine.is_some(),
            silent: now.silent,
            firing: now.firing.len() as u32,
        }
    }
}

/// How a host is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Two machines use its identity. Heartbeats are rejected, so nothing is known about it.
    Quarantined,
    /// Its certificates are revoked. Heartbeats are rejected until it enrols again.
    Revoked,
    /// No heartbeat within the silence limit.
    Silent,
    /// Heartbeats arrive, and alerts fire.
    Alerting,
    /// No heartbeat yet.
    Waiting,
    /// Heartbeats arrive, and no alert fires.
    Up,
    /// Its record has ended.
    Retired,
}

impl Health {
    /// In order.
    pub const ALL: [Self; 7] = [
        Self::Quarantined,
        Self::Revoked,
        Self::Silent,
        Self::Alerting,
        Self::Waiting,
        Self::Up,
        Self::Retired,
    ];

    /// From what the store records and what heartbeats say; `None` before the first one.
    pub const fn of(recorded: Recorded, signals: Option<Signals>) -> Self {
        if recorded.retired {
            return Self::Retired;
        }
        if recorded.quarantined || matches!(signals, Some(one) if one.quarantined) {
            return Self::Quarantined;
        }
        if recorded.revoked {
            return Self::Revoked;
        }
        match signals {
            None => Self::Waiting,
            Some(Signals { silent: true, .. }) => Self::Silent,
            Some(Signals { firing: 0, .. }) => Self::Up,
            Some(_) => Self::Alerting,
        }
    }

    /// For filters, the API and scripts.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quarantined => "quarantined",
            Self::Revoked => "revoked",
            Self::Silent => "silent",
            Self::Alerting => "alerting",
            Self::Waiting => "waiting",
            Self::Up => "up",
            Self::Retired => "retired",
        }
    }

    /// For people.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Quarantined => "Quarantined",
            Self::Revoked => "Revoked",
            Self::Silent => "Silent",
            Self::Alerting => "Up, alerting",
            Self::Waiting => "No data yet",
            Self::Up => "Up",
            Self::Retired => "Retired",
        }
    }

    /// Whether heartbeats arrive. Only then do the newest values and services describe the present.
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Alerting)
    }

    /// Whether someone should look at it.
    pub const fn is_problem(self) -> bool {
        matches!(
            self,
            Self::Quarantined | Self::Revoked | Self::Silent | Self::Alerting
        )
    }

    /// Whether a filter of the fleet selects it: empty for all, `problem`, `up` (alerting hosts are
    /// up), `rejected` (quarantined or revoked), or one state.
    pub fn is_selected_by(self, filter: &str) -> bool {
        match filter {
            "" => true,
            "problem" => self.is_problem(),
            "up" => self.is_up(),
            "rejected" => matches!(self, Self::Quarantined | Self::Revoked),
            other => self.as_str() == other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEATING: Signals = Signals {
        quarantined: false,
        silent: false,
        firing: 0,
    };

    #[test]
    fn a_host_whose_heartbeats_are_rejected_is_never_up() {
        for signals in [
            None,
            Some(BEATING),
            Some(Signals {
                firing: 3,
                ..BEATING
            }),
            Some(Signals {
                silent: true,
                ..BEATING
            }),
        ] {
            for (recorded, health) in [
                (
                    Recorded {
                        quarantined: true,
                        ..Recorded::default()
                    },
                    Health::Quarantined,
                ),
                (
                    Recorded {
                        revoked: true,
                        ..Recorded::default()
                    },
                    Health::Revoked,
                ),
                (
                    Recorded {
                        quarantined: true,
                        revoked: true,
                        ..Recorded::default()
                    },
                    Health::Quarantined,
                ),
                (
                    Recorded {
                        retired: true,
                        quarantined: true,
                        revoked: true,
                    },
                    Health::Retired,
                ),
            ] {
                let found = Health::of(recorded, signals);
                assert_eq!(found, health, "{recorded:?} {signals:?}");
                assert!(!found.is_up(), "{found:?}");
            }
        }
        // The pipeline knows before the store does.
        let found = Signals {
            quarantined: true,
            ..BEATING
        };
        let health = Health::of(Recorded::default(), Some(found));
        assert_eq!(health, Health::Quarantined);
    }

    #[test]
    fn filters() {
        for (filter, selected) in [
            ("", Health::ALL.to_vec()),
            (
                "problem",
                vec![
                    Health::Quarantined,
                    Health::Revoked,
                    Health::Silent,
                    Health::Alerting,
                ],
            ),
            ("up", vec![Health::Alerting, Health::Up]),
            ("rejected", vec![Health::Quarantined, Health::Revoked]),
            ("silent", vec![Health::Silent]),
            ("alerting", vec![Health::Alerting]),
        ] {
            let found: Vec<Health> = Health::ALL
                .into_iter()
                .filter(|health| health.is_selected_by(filter))
                .collect();
            assert_eq!(found, selected, "{filter}");
        }
    }
}
