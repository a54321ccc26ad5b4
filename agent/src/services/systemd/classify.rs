//! From what systemd says of a unit to how it is. Pure.
//!
//! The words are those of `org.freedesktop.systemd1(5)` and `systemd.exec(5)`. What passes within half a
//! second (a quick restart) is not reported at all: the previous state is reported until it is over.

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::super::{Finding, loop_text, restarts::Restarts};

/// A state that is on its way to another is held back so long, milliseconds.
pub(super) const GRACE_MS: i64 = 500;
/// Starting or stopping for longer than this is a fault, milliseconds. systemd's own limit is 90 s
/// unless the unit says otherwise.
pub(super) const STUCK_MS: i64 = 120_000;

/// What systemd says of a unit. Texts are empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct UnitFacts {
    /// `LoadState`.
    pub(super) load: String,
    /// `ActiveState`.
    pub(super) active: String,
    /// `SubState`.
    pub(super) sub: String,
    /// `Job`: whether one waits or runs.
    pub(super) has_job: bool,
    /// `TriggeredBy`: sockets, timers, paths that start it.
    pub(super) triggered_by: Vec<String>,
    /// `StateChangeTimestampMonotonic`, milliseconds of `CLOCK_MONOTONIC`.
    pub(super) changed_ms: i64,
    /// `InactiveExitTimestampMonotonic`, likewise: when it began to start.
    pub(super) left_inactive_ms: i64,
    /// `Type` of a service.
    pub(super) kind: String,
    /// `Result`.
    pub(super) result: String,
    /// `RemainAfterExit`.
    pub(super) remain_after_exit: bool,
    /// `ExecMainCode`: how the main process ended (`CLD_…`, `waitid(2)`).
    pub(super) exit_code: i64,
    /// `ExecMainStatus`: its exit status or the signal.
    pub(super) exit_status: i64,
}

/// What follows from the facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It is so.
    Is(Finding),
    /// It is on its way and will be looked at again soon.
    Settling,
}

/// How the unit is at `now_ms` of `CLOCK_MONOTONIC`.
pub(super) fn classify(facts: &UnitFacts, restarts: &Restarts, now_ms: i64) -> Look {
    let in_grace = now_ms - facts.changed_ms < GRACE_MS;
    let is_down = matches!(facts.active.as_str(), "inactive" | "failed");
    match facts.load.as_str() {
        "not-found" if is_down => return is(ServiceStatus::NotFound, "systemd knows no such unit"),
        "masked" if is_down => return is(ServiceStatus::Masked, "it can't be started"),
        load @ ("error" | "bad-setting") if is_down => {
            let text = format!("its unit file is wrong ({load})");
            return is(ServiceStatus::Failed, text);
        }
        _ => {}
    }
    if restarts.is_loop(now_ms) {
        let text = format!("{}{}", loop_text(restarts.recent(now_ms)), after(facts));
        return is(ServiceStatus::RestartLoop, text);
    }
    let is_oneshot = facts.kind == "oneshot";
    match facts.active.as_str() {
        "active" | "reloading" | "refreshing" | "maintenance" => running(facts, restarts, now_ms),
        "failed" | "inactive" if facts.has_job && in_grace => Look::Settling,
        "failed" => is(ServiceStatus::Failed, exit_text(facts)),
        "activating" if facts.sub.starts_with("auto-restart") && in_grace => Look::Settling,
        "activating" if facts.sub.starts_with("auto-restart") => {
            let text = format!("down, waits to be started again{}", after(facts));
            is(ServiceStatus::Failed, text)
        }
        // A job may take hours.
        "activating" if is_oneshot => is(ServiceStatus::Running, "runs now"),
        "activating" => changing("starting", now_ms - facts.left_inactive_ms),
        "deactivating" => changing("stopping", now_ms - facts.changed_ms),
        "inactive" if facts.has_job => changing("starting", now_ms - facts.changed_ms),
        "inactive" => inactive(facts, is_oneshot),
        other => is(ServiceStatus::Unknown, format!("systemd says \"{other}\"")),
    }
}

fn running(facts: &UnitFacts, restarts: &Restarts, now_ms: i64) -> Look {
    let detail = match (facts.sub.as_str(), restarts.recent(now_ms)) {
        ("exited", _) => Some("has done its work".to_owned()),
        (_, 0) => None,
        (_, 1) => Some("restarted once in the last minutes".to_owned()),
        (_, times) => Some(format!("restarted {times} times in the last minutes")),
    };
    Look::Is(Finding {
        status: ServiceStatus::Running,
        detail,
    })
}

fn inactive(facts: &UnitFacts, is_oneshot: bool) -> Look {
    if is_oneshot && !facts.remain_after_exit {
        return is(ServiceStatus::Running, "ended well; it runs when called");
    }
    if let Some(trigger) = facts.triggered_by.first() {
        let text = format!("started by {trigger} when needed");
        return is(ServiceStatus::Running, text);
    }
    is(ServiceStatus::Stopped, "it ended or was stopped")
}

fn changing(what: &str, for_ms: i64) -> Look {
    if for_ms >= STUCK_MS {
        let text = format!("{what} for more than {} min", STUCK_MS / 60_000);
        return is(ServiceStatus::Stuck, text);
    }
    is(ServiceStatus::Changing, what)
}

fn is(status: ServiceStatus, detail: impl Into<String>) -> Look {
    let detail = Some(detail.into()).filter(|text: &String| !text.is_empty());
    Look::Is(Finding { status, detail })
}

fn after(facts: &UnitFacts) -> String {
    match exit_text(facts).as_str() {
        "" => String::new(),
        text => format!("; {text}"),
    }
}

/// How the main process ended, or else the `Result` of the unit.
fn exit_text(facts: &UnitFacts) -> String {
    match (facts.result.as_str(), facts.exit_code) {
        ("exit-code", 1) => format!("exit status {}", facts.exit_status),
        ("signal", 2) => format!("killed by signal {}", facts.exit_status),
        ("core-dump", 3) => format!("crashed with signal {}", facts.exit_status),
        ("oom-kill", _) => "killed because memory ran out".to_owned(),
        ("watchdog", _) => "its watchdog heard nothing".to_owned(),
        ("timeout", _) => "did not start or stop in time".to_owned(),
        ("start-limit-hit", _) => "started too often; systemd gave up".to_owned(),
        ("success", _) => String::new(),
        (result, _) => result.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn facts(active: &str, sub: &str) -> UnitFacts {
        UnitFacts {
            load: "loaded".to_owned(),
            active: active.to_owned(),
            sub: sub.to_owned(),
            changed_ms: NOW - 60_000,
            left_inactive_ms: NOW - 60_000,
            kind: "simple".to_owned(),
            result: "success".to_owned(),
            ..UnitFacts::default()
        }
    }

    fn with(mut facts: UnitFacts, change: fn(&mut UnitFacts)) -> UnitFacts {
        change(&mut facts);
        facts
    }

    fn just_now(facts: &mut UnitFacts) {
        facts.changed_ms = NOW - 100;
    }

    fn job_just_now(facts: &mut UnitFacts) {
        just_now(facts);
        facts.has_job = true;
    }

    fn oneshot(facts: &mut UnitFacts) {
        facts.kind = "oneshot".to_owned();
        facts.left_inactive_ms = NOW - STUCK_MS;
    }

    fn status(facts: &UnitFacts) -> Option<ServiceStatus> {
        match classify(facts, &Restarts::default(), NOW) {
            Look::Is(finding) => Some(finding.status),
            Look::Settling => None,
        }
    }

    #[test]
    fn each_state_of_systemd_has_its_own() {
        use ServiceStatus::{Changing, Failed, Masked, NotFound, Running, Stopped, Stuck, Unknown};
        let loaded = |load: &str, facts: UnitFacts| UnitFacts {
            load: load.to_owned(),
            ..facts
        };
        let dead = || facts("inactive", "dead");
        let start = || facts("activating", "start");
        let failed = || facts("failed", "failed");
        let long_ago = |f: &mut UnitFacts| f.left_inactive_ms = NOW - STUCK_MS;
        let auto = || facts("activating", "auto-restart");
        let cases = [
            (facts("active", "running"), Some(Running)),
            (facts("active", "waiting"), Some(Running)),
            (facts("reloading", "reload"), Some(Running)),
            (failed(), Some(Failed)),
            (with(failed(), just_now), Some(Failed)),
            (with(failed(), job_just_now), None),
            (with(auto(), just_now), None),
            (auto(), Some(Failed)),
            (start(), Some(Changing)),
            (with(start(), long_ago), Some(Stuck)),
            (with(start(), oneshot), Some(Running)),
            (facts("deactivating", "stop-sigterm"), Some(Changing)),
            (dead(), Some(Stopped)),
            (with(dead(), just_now), Some(Stopped)),
            (with(dead(), job_just_now), None),
            (with(dead(), |f| f.has_job = true), Some(Changing)),
            (with(dead(), oneshot), Some(Running)),
            (
                with(with(dead(), oneshot), |f| f.remain_after_exit = true),
                Some(Stopped),
            ),
            (
                with(dead(), |f| f.triggered_by = vec!["x.socket".to_owned()]),
                Some(Running),
            ),
            (loaded("masked", dead()), Some(Masked)),
            (loaded("not-found", dead()), Some(NotFound)),
            (loaded("bad-setting", dead()), Some(Failed)),
            (loaded("masked", facts("active", "running")), Some(Running)),
            (facts("levitating", ""), Some(Unknown)),
        ];
        for (facts, expected) in cases {
            assert_eq!(status(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn a_loop_is_told_with_the_way_the_process_ended() {
        let mut restarts = Restarts::default();
        restarts.note(NOW - 1_000, 3);
        let facts = UnitFacts {
            result: "exit-code".to_owned(),
            exit_code: 1,
            exit_status: 203,
            ..facts("active", "running")
        };
        let expected = Look::Is(Finding {
            status: ServiceStatus::RestartLoop,
            detail: Some("3 or more restarts within 2 min; exit status 203".to_owned()),
        });
        assert_eq!(classify(&facts, &restarts, NOW), expected);
    }

    proptest! {
        /// No state is held back for ever.
        #[test]
        fn whatever_systemd_says_is_settled_after_the_grace(
            active in "active|inactive|failed|activating|deactivating|reloading|x",
            sub in "running|dead|auto-restart|auto-restart-queued|start",
            load in "loaded|masked|not-found|error",
            kind in "simple|oneshot|notify|",
            has_job: bool,
            age in 0_i64..300_000,
        ) {
            let facts = UnitFacts {
                load, kind, has_job,
                changed_ms: NOW - age,
                left_inactive_ms: NOW - age,
                ..facts(&active, &sub)
            };
            let look = classify(&facts, &Restarts::default(), NOW);
            prop_assert!(age < GRACE_MS || look != Look::Settling);
        }
    }
}
