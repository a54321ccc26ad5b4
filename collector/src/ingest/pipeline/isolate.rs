//! A round that the database refuses for a value in it is committed in parts, so that only the host
//! whose value it is suffers: first what belongs to no single host, then the hosts by halves. A host
//! whose part is refused has its state put back to what it was before the round, and its batches are
//! tried again one by one, and their frames by halves, until the frame with the value is found. That
//! one is rejected with a reason of its own; the agent drops it.
//!
//! Such a host stays suspect for a while: its batches are committed apart from everyone else's, a
//! few a round, and rejected whole if they are refused. So a host that sends such values all the
//! time costs the others nothing but a small transaction a round.

use std::collections::HashMap;

use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::heartbeat::{Ack, Batch, RejectReason, Rejected},
};

use super::{Pipeline, PipelineError, Reply, Round, answer, queue_deadline};
use crate::{
    ingest::{Arrival, NotTaken, hosts::HostEntry, metrics::Reason},
    store::StoreError,
};

/// How long a host is suspect after a value of its was refused.
const SUSPICION: DurationMs = DurationMs::from_mins(1);
/// Batches of suspect hosts that are taken in one round.
const SUSPECT_BATCHES: usize = 2;
/// Most commits to find the frame of one batch that is refused: enough for one among
/// [`watchkeep_shared::wire::limits::MAX_FRAMES_PER_BATCH`].
const SEARCH_COMMITS: u32 = 24;
/// A host whose deadline can't be decided on is retried after this.
const POSTPONED: DurationMs = DurationMs::from_mins(1);

/// What is needed to undo a part of a round.
#[derive(Debug, Default)]
pub(super) struct Isolation {
    /// Hosts that the round has touched, as they were before it.
    before: HashMap<HostId, HostEntry>,
    suspects: HashMap<HostId, UnixMillis>,
}

impl Isolation {
    /// A new round begins.
    pub(super) fn forget_round(&mut self) {
        self.before.clear();
    }

    /// Keeps a host's state as it is before the round changes it.
    pub(super) fn remember(&mut self, entry: &HostEntry) {
        self.before.entry(entry.id).or_insert_with(|| entry.clone());
    }

    fn is_suspect(&self, host: HostId, now: UnixMillis) -> bool {
        self.suspects.get(&host).is_some_and(|until| now < *until)
    }
}

/// The search for the frame of a batch that is refused.
struct Search {
    commits_left: u32,
    /// Whether frames are tried apart.
    divides: bool,
}

impl Pipeline {
    /// Takes the batches of suspect hosts out of a round.
    pub(super) fn put_suspects_aside(
        &mut self,
        arrivals: Vec<Arrival>,
    ) -> (Vec<Arrival>, Vec<Arrival>) {
        if self.isolation.suspects.is_empty() {
            return (arrivals, Vec::new());
        }
        let now = self.app.clock.now();
        self.isolation.suspects.retain(|_, until| now < *until);
        arrivals
            .into_iter()
            .partition(|arrival| !self.isolation.is_suspect(arrival.host, now))
    }

    /// Takes a few batches of suspect hosts, each in a transaction of its own.
    pub(super) async fn take_suspects(
        &mut self,
        mut arrivals: Vec<Arrival>,
    ) -> Result<(), PipelineError> {
        let later = arrivals.split_off(arrivals.len().min(SUSPECT_BATCHES));
        self.refuse(later);
        for arrival in arrivals {
            self.take_alone(arrival).await?;
        }
        Ok(())
    }

    /// Commits a round in parts after the database refused a value in it.
    pub(super) async fn write_apart(
        &mut self,
        round: Round,
        replies: Vec<Reply>,
        error: StoreError,
    ) -> Result<(), PipelineError> {
        self.metrics.rounds_apart.inc();
        let mut refused = HashMap::new();
        let mut to_divide = vec![(round.writes, error)];
        while let Some((part, error)) = to_divide.pop() {
            let halves = match part.halves() {
                Ok((first, second)) => [first, second],
                Err(part) => match part.hosts().first() {
                    Some(host) if self.put_back(*host) => {
                        refused.insert(*host, error);
                        continue;
                    }
                    _ => return self.failed(&error, replies).await,
                },
            };
            for half in halves {
                match self.commit(&half, round.now).await {
                    Ok(()) => {}
                    Err(StoreError::LeaseLost) => return Err(PipelineError::LeaseLost),
                    Err(error) if error.is_data() => to_divide.push((half, error)),
                    Err(error) => return self.failed(&error, replies).await,
                }
            }
        }
        let mut gone = round.gone;
        gone.retain(|host| !refused.contains_key(host));
        self.app.live.remove(&gone);
        self.answer_apart(round.live, replies, &refused).await
    }

    /// Answers a round of which the parts of some hosts were refused: those hosts' batches are
    /// tried again one by one.
    async fn answer_apart(
        &mut self,
        mut live: Vec<HostId>,
        replies: Vec<Reply>,
        refused: &HashMap<HostId, StoreError>,
    ) -> Result<(), PipelineError> {
        let (apart, taken): (Vec<_>, Vec<_>) = replies
            .into_iter()
            .partition(|reply| refused.contains_key(&reply.arrival.host));
        answer(taken);
        live.retain(|host| !refused.contains_key(host));
        self.publish(live);
        for (host, error) in refused {
            if !apart.iter().any(|reply| reply.arrival.host == *host) {
                self.postpone(*host, error);
            }
        }
        for reply in apart {
            self.take_alone(reply.arrival).await?;
        }
        Ok(())
    }

    /// One batch in a transaction of its own; if that is refused, its frames by halves.
    async fn take_alone(&mut self, arrival: Arrival) -> Result<(), PipelineError> {
        if self.is_recovering() {
            self.refuse(vec![arrival]);
            return Ok(());
        }
        let mut search = Search {
            commits_left: SEARCH_COMMITS,
            divides: !self
                .isolation
                .is_suspect(arrival.host, self.app.clock.now()),
        };
        let taken = self
            .take_part(&arrival, &arrival.batch, &mut search)
            .await?;
        if matches!(taken, Err(NotTaken::Busy)) {
            self.refuse(vec![arrival]);
        } else {
            self.publish(vec![arrival.host]);
            // The agent may have disconnected meanwhile; it will send again.
            drop(arrival.reply.send(taken));
        }
        Ok(())
    }

    async fn take_part(
        &mut self,
        arrival: &Arrival,
        batch: &Batch,
        search: &mut Search,
    ) -> Result<Result<Ack, NotTaken>, PipelineError> {
        self.isolation.forget_round();
        let now = self.app.clock.now();
        let mut round = Round::new(now);
        let answer = self.one(arrival, batch, &mut round).await;
        round.writes.incidents = self.incidents.writes(now, false, round.incidents);
        // What belongs to no single host is kept whatever becomes of the values.
        let (shared, own) = round.writes.split(&[].into(), true);
        let mut outcome = Ok(());
        for part in [shared, own] {
            if outcome.is_ok() && !part.is_empty() {
                search.commits_left = search.commits_left.saturating_sub(1);
                outcome = self.commit(&part, now).await;
            }
        }
        let error = match outcome {
            Ok(()) => return Ok(answer),
            Err(StoreError::LeaseLost) => return Err(PipelineError::LeaseLost),
            Err(error) => error,
        };
        if !error.is_data() || !self.put_back(arrival.host) {
            self.failed(&error, Vec::new()).await?;
            return Ok(Err(NotTaken::Busy));
        }
        self.suspect(arrival.host, &error);
        if batch.frames.len() < 2 || !search.divides || search.commits_left == 0 {
            return Ok(Ok(self.reject(arrival.host, batch)));
        }
        let (first, second) = batch.frames.split_at(batch.frames.len() / 2);
        let mut merged = Ack::default();
        for frames in [first, second] {
            let half = Batch {
                frames: frames.to_vec(),
                ..batch.clone()
            };
            match Box::pin(self.take_part(arrival, &half, search)).await? {
                Ok(ack) => merge(&mut merged, ack),
                Err(refused) => return Ok(Err(refused)),
            }
        }
        Ok(Ok(merged))
    }

    /// Puts a host's state back to what it was before the round. `false` if that is not known.
    fn put_back(&mut self, host: HostId) -> bool {
        let Some(mut before) = self.isolation.before.get(&host).cloned() else {
            return false;
        };
        before.wake_at = None;
        queue_deadline(
            &mut self.deadlines,
            &mut before,
            &self.app,
            self.grace_until,
        );
        self.hosts.insert(host, before);
        true
    }

    /// From now on the host's batches are committed apart.
    fn suspect(&mut self, host: HostId, error: &StoreError) {
        let now = self.app.clock.now();
        if !self.isolation.is_suspect(host, now) {
            tracing::error!(
                host.id = %host,
                "heartbeats of the host are rejected, a value in them can't be stored: {error}"
            );
        }
        self.isolation.suspects.insert(host, now + SUSPICION);
    }

    fn reject(&mut self, host: HostId, batch: &Batch) -> Ack {
        let reason = RejectReason::Unstorable;
        let count = batch.frames.len() as u64;
        let label = Reason {
            reason: reason.as_str().to_owned(),
        };
        self.metrics.rejected.get_or_create(&label).inc_by(count);
        let now = self.app.clock.now();
        if let Some(entry) = self.hosts.get_mut(&host) {
            let host = (entry.id, entry.name.as_str());
            entry.rejected.note(host, reason, (count, now));
        }
        let rejected = batch.frames.iter().map(|frame| Rejected {
            instance: frame.instance,
            seq: frame.seq,
            reason,
        });
        Ack {
            rejected: rejected.collect(),
            ..Ack::default()
        }
    }

    /// What a host's deadline led to can't be stored: everything else continues without it.
    fn postpone(&mut self, host: HostId, error: &StoreError) {
        tracing::error!(host.id = %host, "what follows for a host can't be stored, trying again in a minute: {error}");
        let at = self.app.clock.now() + POSTPONED;
        if let Some(entry) = self.hosts.get_mut(&host) {
            entry.wake_at = None;
            self.deadlines.want(host, at, &mut entry.wake_at);
        }
    }
}

/// Adds the answer to a part of a batch to that to the part before it.
fn merge(all: &mut Ack, part: Ack) {
    all.accepted += part.accepted;
    all.rejected.extend(part.rejected);
    all.unknown_schemas.extend(part.unknown_schemas);
    all.want.extend(part.want);
    all.policy = part.policy.or(all.policy.take());
}
