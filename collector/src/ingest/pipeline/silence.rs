//! Which hosts are silent, and whether by themselves: deadlines that have passed, in bounded pieces.

use watchkeep_core::{
    alerts::{AlertChange, Raised},
    ids::AlertId,
    incidents::{HostSignal, IncidentScope, Judgement, Status, Verdict, judge},
};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::{Pipeline, Round, collect, queue_deadline, subject_of};
use crate::{
    config::Silence,
    ingest::{
        decide::{Context, Decision, decide_deadline},
        hosts::HostEntry,
        incidents::Joined,
    },
};

/// Most deadlines in one round, and most hosts called silent: bounds the size of its transaction. The
/// rest follows in the next round, which begins at once.
const MAX_DUE: usize = 256;
/// Batches enter the queue at most this much later than others that arrived after them.
const QUEUE_DISORDER: DurationMs = DurationMs::from_secs(1);

impl Pipeline {
    /// Decides on the hosts whose deadline has passed.
    pub(super) fn judge_silence(&mut self, round: &mut Round) {
        self.has_more = false;
        let Some(until) = self.drained_until(round) else {
            return;
        };
        self.take_due(until, round);
        if self.waiting.is_empty() {
            return;
        }
        let signals: Vec<HostSignal> = self
            .hosts
            .values()
            .filter_map(|entry| signal(entry, self.app.config.silence, self.grace_until, until))
            .collect();
        let judgement = judge(&signals, &self.incidents.accepting(), until);
        // A host that sent a heartbeat meanwhile waits no longer.
        self.waiting
            .retain(|host| judgement.verdicts.contains_key(host));
        let decided: Vec<(HostId, Option<IncidentScope>)> = self
            .waiting
            .iter()
            .filter_map(|host| match judgement.verdicts.get(host)? {
                Verdict::Wait => None,
                Verdict::Alone => Some((*host, None)),
                Verdict::Join(scope) => Some((*host, Some(*scope))),
            })
            .take(MAX_DUE)
            .collect();
        self.has_more |= decided.len() == MAX_DUE;
        for (host, scope) in decided {
            self.call_silent(host, scope, &judgement, round);
        }
    }

    /// The instant up to which everything that arrived has been taken in: now if the queue is
    /// empty, else the newest arrival of this round. Deadlines are judged by it, so that they
    /// neither overtake what waits in the queue nor wait for an empty one.
    fn drained_until(&self, round: &Round) -> Option<UnixMillis> {
        if self.queue.is_empty() {
            return Some(round.now);
        }
        let newest = round.newest_arrival?;
        Some(round.now.min(newest - QUEUE_DISORDER))
    }

    /// Takes deadlines that have passed: hosts to be judged begin to wait, time-driven ends of
    /// alerts happen.
    fn take_due(&mut self, until: UnixMillis, round: &mut Round) {
        for _ in 0..MAX_DUE {
            let Some((at, host)) = self.deadlines.pop_due(until) else {
                return;
            };
            let Some(entry) = self.hosts.get_mut(&host) else {
                continue;
            };
            if entry.wake_at != Some(at) {
                continue;
            }
            entry.wake_at = None;
            if let Some(at) = self.knocks.last(host) {
                entry.note_heard(at);
            }
            let deadline = entry.silence_deadline(self.app.config.silence);
            if deadline.is_some_and(|deadline| deadline.max(self.grace_until) <= until) {
                self.waiting.insert(host);
                continue;
            }
            let decision = self.decide_due(host, false, round.now);
            self.finish_due(host, decision, round);
        }
        self.has_more = true;
    }

    /// Calls a host silent, by itself or as part of an incident.
    fn call_silent(
        &mut self,
        host: HostId,
        scope: Option<IncidentScope>,
        judgement: &Judgement,
        round: &mut Round,
    ) {
        self.waiting.remove(&host);
        let mut decision = self.decide_due(host, true, round.now);
        let Some(entry) = self.hosts.get_mut(&host) else {
            return;
        };
        entry.silent_at = Some(round.now);
        if let Some(scope) = scope
            && let Some(raised) = take_raised(&mut decision)
        {
            let tally = judgement.tallies.get(&scope).copied().unwrap_or_default();
            let joined = Joined {
                subject: subject_of(entry),
                raised,
            };
            self.incidents
                .join(scope, joined, tally, &mut round.incidents);
        }
        self.finish_due(host, decision, round);
    }

    fn decide_due(&mut self, host: HostId, silent: bool, now: UnixMillis) -> Decision {
        let app = &self.app;
        let Some(entry) = self.hosts.get_mut(&host) else {
            return Decision::default();
        };
        self.isolation.remember(entry);
        let mut context = Context {
            rules: &app.config.rules,
            is_in_incident: false,
            row_id: &mut || app.ids.next(now),
            alert_id: &mut || AlertId(app.ids.uuid(now)),
        };
        decide_deadline(entry, silent, now, &mut context)
    }

    fn finish_due(&mut self, host: HostId, decision: Decision, round: &mut Round) {
        let Some(entry) = self.hosts.get_mut(&host) else {
            return;
        };
        queue_deadline(&mut self.deadlines, entry, &self.app, self.grace_until);
        if decision.durable {
            round.live.push(host);
        }
        collect(entry, decision, &mut round.writes);
    }
}

/// The alert about the silence.
fn take_raised(decision: &mut Decision) -> Option<Raised> {
    let is_raised = |change: &AlertChange| matches!(change, AlertChange::Raised(_));
    let at = decision.changes.iter().position(is_raised)?;
    match decision.changes.remove(at) {
        AlertChange::Raised(raised) => Some(raised),
        AlertChange::Updated(_) | AlertChange::Cleared(_) => None,
    }
}

/// What a host says about the others' silence. Nothing if it is never judged, and while its
/// shutdown was announced.
fn signal(
    entry: &HostEntry,
    silence: Silence,
    grace_until: UnixMillis,
    until: UnixMillis,
) -> Option<HostSignal> {
    let last = entry.state.last?;
    let status = if entry.state.overdue {
        Status::Silent(entry.silent_at.unwrap_or(last.arrived_at))
    } else {
        let deadline = entry.silence_deadline(silence)?.max(grace_until);
        if deadline <= until {
            Status::Due(deadline)
        } else if entry.state.goodbye.is_some() {
            return None;
        } else {
            Status::Heard
        }
    };
    Some(HostSignal {
        host: entry.id,
        site: entry.site,
        heard_at: last
            .arrived_at
            .max(entry.heard_at.unwrap_or(last.arrived_at)),
        interval_ms: entry.state.interval_ms,
        status,
    })
}
