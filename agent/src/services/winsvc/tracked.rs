//! What is known of one service of Windows, and what that means. Pure.

use std::io;

use watchkeep_shared::wire::heartbeat::ServiceStatus;

use crate::{
    platform::{ServiceExit, ServiceReport, ServiceRun},
    services::{Finding, loop_text, restarts::Restarts, unknown},
};

/// A start or stop that does not get on for this long is stuck, milliseconds. The manager itself waits
/// 30 s for a service to say a first word (`ServicesPipeTimeout`).
const STUCK_MS: i64 = 120_000;
/// `ERROR_SERVICE_NEVER_STARTED`.
const NEVER_STARTED: u32 = 1_077;

/// One service, over time.
#[derive(Debug, Default)]
pub(super) struct Tracked {
    restarts: Restarts,
    /// The process of the last look at which it ran.
    ran_in: Option<u32>,
    /// It was seen stopped since.
    stopped: bool,
    /// What it was seen to be in the middle of, and since when.
    pending: Option<(ServiceRun, u32, i64)>,
}

impl Tracked {
    /// Takes what a look at `now_ms` found: `None` for a service that there is not.
    pub(super) fn take(
        &mut self,
        report: io::Result<Option<ServiceReport>>,
        now_ms: i64,
    ) -> Finding {
        let report = match report {
            Ok(Some(report)) => report,
            Ok(None) => {
                *self = Self::default();
                return finding(ServiceStatus::NotFound, None);
            }
            Err(error) => return unknown(format!("the service manager: {error}")),
        };
        self.note(report, now_ms);
        if self.restarts.is_loop(now_ms) {
            let text = loop_text(self.restarts.recent(now_ms));
            return finding(ServiceStatus::RestartLoop, Some(text));
        }
        match report.run {
            ServiceRun::Running => finding(ServiceStatus::Running, None),
            ServiceRun::Paused => finding(ServiceStatus::Stopped, Some("paused".to_owned())),
            ServiceRun::Starting | ServiceRun::Stopping => self.changing(report.run, now_ms),
            ServiceRun::Stopped => stopped(report),
        }
    }

    fn note(&mut self, report: ServiceReport, now_ms: i64) {
        let is_pending = matches!(report.run, ServiceRun::Starting | ServiceRun::Stopping);
        let known = self
            .pending
            .filter(|(run, checkpoint, _)| (*run, *checkpoint) == (report.run, report.checkpoint));
        self.pending = is_pending.then(|| known.unwrap_or((report.run, report.checkpoint, now_ms)));
        match report.run {
            ServiceRun::Running => {
                let other = self.ran_in.is_some() && self.ran_in != report.pid;
                if other || self.stopped {
                    self.restarts.note(now_ms, 1);
                }
                self.ran_in = report.pid;
                self.stopped = false;
            }
            // Services that share a process keep it over a restart.
            ServiceRun::Stopped => self.stopped |= self.ran_in.take().is_some(),
            _ => {}
        }
    }

    fn changing(&self, run: ServiceRun, now_ms: i64) -> Finding {
        let verb = if run == ServiceRun::Starting {
            "starting"
        } else {
            "stopping"
        };
        let waited_ms = self.pending.map_or(0, |(_, _, since_ms)| now_ms - since_ms);
        if waited_ms < STUCK_MS {
            return finding(ServiceStatus::Changing, Some(verb.to_owned()));
        }
        let text = format!("{verb} for {} s without getting on", waited_ms / 1_000);
        finding(ServiceStatus::Stuck, Some(text))
    }
}

fn stopped(report: ServiceReport) -> Finding {
    if report.disabled {
        return finding(ServiceStatus::Masked, Some("disabled".to_owned()));
    }
    match report.exit {
        ServiceExit::System(0) => finding(ServiceStatus::Stopped, None),
        ServiceExit::System(NEVER_STARTED) => {
            let text = "not started since the boot".to_owned();
            finding(ServiceStatus::Stopped, Some(text))
        }
        ServiceExit::System(code) => {
            let text = format!("error {code} of Windows");
            finding(ServiceStatus::Failed, Some(text))
        }
        ServiceExit::Own(code) => {
            let text = format!("error {code} of its own");
            finding(ServiceStatus::Failed, Some(text))
        }
    }
}

fn finding(status: ServiceStatus, detail: Option<String>) -> Finding {
    Finding { status, detail }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(run: ServiceRun, pid: u32) -> ServiceReport {
        ServiceReport {
            run,
            disabled: false,
            exit: ServiceExit::System(0),
            pid: (pid > 0).then_some(pid),
            checkpoint: 0,
        }
    }

    fn status(service: &mut Tracked, report: ServiceReport, now_ms: i64) -> ServiceStatus {
        service.take(Ok(Some(report)), now_ms).status
    }

    #[test]
    fn an_end_says_why() {
        let mut stopped = report(ServiceRun::Stopped, 0);
        let mut seen = |exit, disabled| {
            (stopped.exit, stopped.disabled) = (exit, disabled);
            let found = Tracked::default().take(Ok(Some(stopped)), 0);
            (found.status, found.detail.unwrap_or_default())
        };
        let text = str::to_owned;
        assert_eq!(
            seen(ServiceExit::System(0), false),
            (ServiceStatus::Stopped, text(""))
        );
        assert_eq!(
            seen(ServiceExit::System(1_077), false),
            (ServiceStatus::Stopped, text("not started since the boot"))
        );
        assert_eq!(
            seen(ServiceExit::System(1_067), false),
            (ServiceStatus::Failed, text("error 1067 of Windows"))
        );
        assert_eq!(
            seen(ServiceExit::Own(3), false),
            (ServiceStatus::Failed, text("error 3 of its own"))
        );
        assert_eq!(
            seen(ServiceExit::System(0), true),
            (ServiceStatus::Masked, text("disabled"))
        );
        let mut service = Tracked::default();
        assert_eq!(service.take(Ok(None), 0).status, ServiceStatus::NotFound);
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(service.take(Err(denied), 0).status, ServiceStatus::Unknown);
    }

    #[test]
    fn restarts_are_seen_by_the_process_and_where_that_is_shared_by_the_stop_between() {
        for shared in [false, true] {
            let mut service = Tracked::default();
            let mut now_ms = 0;
            for restart in 0..3 {
                let pid = if shared { 7 } else { 100 + restart };
                let run = report(ServiceRun::Running, pid);
                assert_eq!(status(&mut service, run, now_ms), ServiceStatus::Running);
                if shared {
                    status(&mut service, report(ServiceRun::Stopped, 0), now_ms + 500);
                }
                now_ms += 1_000;
            }
            let run = report(ServiceRun::Running, if shared { 7 } else { 200 });
            assert_eq!(
                status(&mut service, run, now_ms),
                ServiceStatus::RestartLoop
            );
            assert_eq!(
                status(&mut service, run, now_ms + 200_000),
                ServiceStatus::Running
            );
        }
    }

    #[test]
    fn a_start_that_does_not_get_on_is_stuck() {
        let mut service = Tracked::default();
        let mut starting = report(ServiceRun::Starting, 5);
        let look = |service: &mut Tracked, report, at| status(service, report, at);
        assert_eq!(look(&mut service, starting, 0), ServiceStatus::Changing);
        starting.checkpoint = 1;
        assert_eq!(
            look(&mut service, starting, 119_000),
            ServiceStatus::Changing
        );
        assert_eq!(
            look(&mut service, starting, 238_000),
            ServiceStatus::Changing
        );
        assert_eq!(look(&mut service, starting, 239_000), ServiceStatus::Stuck);
        let run = report(ServiceRun::Running, 5);
        assert_eq!(look(&mut service, run, 240_000), ServiceStatus::Running);
    }
}
