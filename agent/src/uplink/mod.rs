//! The way up: which frames go next, in what batch, and what follows from the answer.
//!
//! One request at a time. A small backlog goes in one batch; a large one after the newest frame
//! (the state now is worth more than the state then), oldest first, with pauses, and every new frame
//! overtakes it. Waiting after a failure follows [`backoff`]. A batch that the collector can't digest
//! is halved until the one bad frame is found and given up. Nothing here blocks the loop: a request
//! is a future that the loop polls beside everything else.

pub mod backoff;
mod failure;
pub mod http;
mod renew;
mod trust;

use std::{
    collections::{HashSet, VecDeque},
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use reqwest::Client;
use tokio::time::Instant;
use watchkeep_shared::{
    CaId,
    ids::SchemaId,
    wire::{
        self,
        heartbeat::{Ack, Batch, Clocks, Schema},
        host::Want,
        limits::MAX_SCHEMAS_PER_BATCH,
        paths,
        policy::{Policy, Refusal, Trouble},
    },
};

use self::{
    backoff::Backoff,
    http::{ClientError, Failure},
};
use crate::{
    enroll::KeyAndRequest,
    identity::Identity,
    spool::{FrameId, Run, Spool, Spooled},
    status::Connection,
    tls::{self, ClientIdentity},
};

/// Most frames that this agent puts into one batch; the protocol allows a few more.
const BATCH_FRAMES: usize = 100;
/// About the most JSON in one batch, far below what the collector takes.
const BATCH_BYTES: usize = 512 << 10;
/// Shortest pause between two batches of a backlog.
const BACKFILL_PAUSE: Duration = Duration::from_millis(100);
/// How often in a row a batch is sent again at once because the collector did not know a schema.
const SCHEMA_RETRIES: u32 = 2;
/// How long the last frame may take when the agent stops.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(3);

/// A request under way.
pub type Request = Pin<Box<dyn Future<Output = Result<Vec<u8>, Failure>> + Send>>;

/// The way up.
#[derive(Debug)]
pub struct Uplink {
    client: Client,
    identity: Identity,
    state_dir: PathBuf,
    presented: Arc<ClientIdentity>,
    proxy: Option<String>,
    encoder: wire::codec::Encoder,
    run: Run,
    backoff: Backoff,
    /// Nothing is sent before.
    retry_at: Instant,
    /// Nothing of a backlog is sent before.
    backfill_at: Instant,
    /// The newest frame that an attempt was made for since the last failure.
    attempted: Option<FrameId>,
    known_schemas: HashSet<SchemaId>,
    schema_retries: u32,
    batch_frames: usize,
    refused: Option<Vec<Refusal>>,
    troubles: Option<Vec<Trouble>>,
    renew_at_wall_ms: Option<i64>,
    /// The collector asked for a renewal, which has not succeeded yet.
    renewal_asked: bool,
    /// The CAs in the identity.
    trusts: Vec<CaId>,
    /// Why the CAs that the collector named last were not taken.
    trust_error: Option<String>,
    in_flight: Option<InFlight>,
    connection: Connection,
    last_ack_wall_ms: Option<i64>,
    last_error: Option<String>,
    /// Frames that the collector will never take, with its reason; the last few.
    given_up: VecDeque<String>,
}

#[derive(Debug)]
enum InFlight {
    Heartbeats(Sent),
    Renewal(Box<KeyAndRequest>),
}

/// A batch under way.
#[derive(Debug)]
struct Sent {
    ids: Vec<FrameId>,
    /// Who made each frame, and its number.
    seqs: Vec<(Run, u64)>,
    schemas: Vec<SchemaId>,
    refused: Option<Vec<Refusal>>,
    troubles: Option<Vec<Trouble>>,
    at: Instant,
}

/// Now, by the runtime's clock and by the machine's.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// For waiting.
    pub instant: Instant,
    /// For what is sent and shown.
    pub clocks: Clocks,
}

/// What an answer asks the loop to do.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Run this policy from now on.
    pub policy: Option<Policy>,
    /// Send these once.
    pub want: Vec<Want>,
    /// The frames could not be delivered: put them on disk.
    pub persist: bool,
    /// The collector is back after failures in a row.
    pub reconnected: bool,
}

impl Uplink {
    /// Prepares the client; sends nothing yet.
    pub fn new(
        identity: Identity,
        state_dir: &Path,
        run: Run,
        proxy: Option<String>,
    ) -> Result<Self, ClientError> {
        let key = tls::certified_key(&identity.cert_pem, &identity.key_pem)?;
        let presented = Arc::new(ClientIdentity::new(key));
        let client = http::client(&identity, presented.clone(), proxy.as_deref())?;
        let now = Instant::now();
        let mut uplink = Self {
            client,
            state_dir: state_dir.to_owned(),
            presented,
            proxy,
            encoder: wire::codec::Encoder::new().expect("zstd needs only memory"),
            run,
            backoff: Backoff::default(),
            retry_at: now,
            backfill_at: now,
            attempted: None,
            known_schemas: HashSet::new(),
            schema_retries: 0,
            batch_frames: BATCH_FRAMES,
            refused: None,
            troubles: None,
            renew_at_wall_ms: None,
            renewal_asked: false,
            trusts: trust::authorities(&identity.ca_pem)?,
            trust_error: None,
            in_flight: None,
            connection: Connection::Connecting,
            last_ack_wall_ms: None,
            last_error: None,
            given_up: VecDeque::new(),
            identity,
        };
        uplink.plan_renewal();
        Ok(uplink)
    }

    /// Who this agent is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The CAs that it trusts.
    pub fn trusts(&self) -> &[CaId] {
        &self.trusts
    }

    /// How the connection is.
    pub fn connection(&self) -> Connection {
        self.connection
    }

    /// When frames were last acknowledged, agent's wall clock.
    pub fn last_ack_wall_ms(&self) -> Option<i64> {
        self.last_ack_wall_ms
    }

    /// What went wrong last; `None` once an attempt succeeded.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Frames that were given up lately, with the reason.
    pub fn given_up(&self) -> impl Iterator<Item = &str> {
        self.given_up.iter().map(String::as_str)
    }

    /// Whether the last attempt succeeded or none was made yet.
    pub fn is_healthy(&self) -> bool {
        self.backoff.failures() == 0
    }

    /// Tells the collector with the next batch which items of the policy were refused.
    pub fn report_refused(&mut self, refused: Vec<Refusal>) {
        self.refused = Some(refused);
    }

    /// Tells the collector with the next batch what keeps the agent from doing all that it should.
    pub fn report_troubles(&mut self, troubles: Vec<Trouble>) {
        self.troubles = Some(troubles);
    }

    /// Connects by way of `proxy` from now on.
    pub fn set_proxy(&mut self, proxy: Option<String>) -> Result<(), ClientError> {
        self.client = http::client(&self.identity, self.presented.clone(), proxy.as_deref())?;
        self.proxy = proxy;
        Ok(())
    }

    /// When [`Uplink::start`] may have work; `None`: only a new frame or an answer can change that.
    pub fn next_attempt(&self, spool: &Spool) -> Option<Instant> {
        if self.in_flight.is_some() || spool.is_empty() {
            return None;
        }
        let fresh = spool.newest_id() > self.attempted;
        let at = if fresh {
            self.retry_at
        } else {
            self.retry_at.max(self.backfill_at)
        };
        Some(at)
    }

    /// Starts a request if one is due.
    pub fn start(
        &mut self,
        spool: &mut Spool,
        now: Instant,
        clocks: Clocks,
        policy_version: u64,
    ) -> Option<Request> {
        if self.in_flight.is_some() || now < self.retry_at {
            return None;
        }
        if self.renew_at_wall_ms.is_some_and(|at| clocks.wall_ms >= at)
            && let Some(request) = self.start_renewal(clocks)
        {
            return Some(request);
        }
        let frames = self.choose(spool, now);
        if frames.is_empty() {
            return None;
        }
        self.send(frames, spool, clocks, policy_version)
    }

    /// Sends what is left when the agent stops, the newest frame above all; gives up soon.
    pub async fn send_goodbye(&mut self, spool: &mut Spool, clocks: Clocks, policy_version: u64) {
        self.in_flight = None;
        let frames = if spool.len() <= self.batch_frames {
            spool.oldest(self.batch_frames, BATCH_BYTES)
        } else {
            spool.newest().into_iter().collect()
        };
        let Some(request) = self.send(frames, spool, clocks, policy_version) else {
            return;
        };
        let answer = tokio::time::timeout(GOODBYE_TIMEOUT, request)
            .await
            .unwrap_or_else(|_| Err(Failure::Unreachable("no answer in time".to_owned())));
        let now = Moment {
            instant: Instant::now(),
            clocks,
        };
        self.answered(answer, spool, now);
    }

    /// Takes the answer to the request that [`Uplink::start`] began.
    pub fn answered(
        &mut self,
        answer: Result<Vec<u8>, Failure>,
        spool: &mut Spool,
        now: Moment,
    ) -> Effects {
        match self.in_flight.take() {
            None => Effects::default(),
            Some(InFlight::Renewal(key)) => self.renewal_answered(*key, answer, now),
            Some(InFlight::Heartbeats(sent)) => {
                match answer.and_then(|body| parse_ack(&body, sent.ids.len())) {
                    Ok(ack) => self.acknowledged(sent, ack, spool, now),
                    Err(failure) => self.failed(&failure, &sent, spool, now.instant),
                }
            }
        }
    }

    fn choose(&mut self, spool: &mut Spool, now: Instant) -> Vec<Spooled> {
        let fresh = spool.newest_id() > self.attempted;
        let small = spool.len() <= self.batch_frames;
        if fresh && !small {
            return spool.newest().into_iter().collect();
        }
        if fresh || now >= self.backfill_at {
            return spool.oldest(self.batch_frames, BATCH_BYTES);
        }
        Vec::new()
    }

    fn send(
        &mut self,
        frames: Vec<Spooled>,
        spool: &Spool,
        clocks: Clocks,
        policy_version: u64,
    ) -> Option<Request> {
        let mut schemas: Vec<Schema> = Vec::new();
        let (mut ids, mut seqs, mut sent) = (Vec::new(), Vec::new(), Vec::new());
        for Spooled { id, run, mut frame } in frames {
            let known = self.known_schemas.contains(&frame.schema)
                || schemas.iter().any(|schema| schema.id == frame.schema);
            if !known {
                if schemas.len() == MAX_SCHEMAS_PER_BATCH {
                    break;
                }
                schemas.push(Schema {
                    id: frame.schema,
                    names: spool
                        .schema(frame.schema)
                        .map(|names| names.to_vec())
                        .unwrap_or_default(),
                });
            }
            frame.boot = (run.boot != self.run.boot).then_some(run.boot);
            frame.instance = (run.instance != self.run.instance).then_some(run.instance);
            ids.push(id);
            seqs.push((run, frame.seq));
            sent.push(frame);
        }
        if sent.is_empty() {
            return None;
        }
        self.attempted = self.attempted.max(spool.newest_id());
        let batch = Batch {
            v: wire::PROTOCOL_VERSION,
            agent_version: crate::VERSION.to_owned(),
            boot: self.run.boot,
            instance: self.run.instance,
            sent: clocks,
            policy_version,
            trusts: self.trusts.clone(),
            refused: self.refused.clone(),
            troubles: self.troubles.clone(),
            schemas,
            frames: sent,
        };
        let body = self
            .encoder
            .encode(&batch)
            .inspect_err(|error| tracing::error!(%error, "a batch could not be encoded"))
            .ok()?;
        self.in_flight = Some(InFlight::Heartbeats(Sent {
            ids,
            seqs,
            schemas: batch.frames.iter().map(|frame| frame.schema).collect(),
            refused: batch.refused,
            troubles: batch.troubles,
            at: Instant::now(),
        }));
        let url = format!("{}{}", self.identity.url, paths::HEARTBEATS);
        let limit = http::limit(body.len(), self.backoff.failures());
        let request = http::post(self.client.clone(), url, body, true, limit);
        Some(Box::pin(request))
    }

    fn acknowledged(&mut self, sent: Sent, ack: Ack, spool: &mut Spool, now: Moment) -> Effects {
        self.apply_ca_update(&ack, now.clocks.wall_ms);
        if !ack.unknown_schemas.is_empty() {
            return self.schemas_wanted(ack, now.instant);
        }
        for rejected in &ack.rejected {
            let instance = rejected.instance.unwrap_or(self.run.instance);
            let ours = sent
                .seqs
                .iter()
                .any(|(run, seq)| run.instance == instance && *seq == rejected.seq);
            if ours {
                self.give_up(format!(
                    "heartbeat {} was refused: {}",
                    rejected.seq,
                    rejected.reason.as_str()
                ));
            }
        }
        spool.acknowledge(&sent.ids);
        self.known_schemas.extend(sent.schemas);
        if self.refused == sent.refused {
            self.refused = None;
        }
        if self.troubles == sent.troubles {
            self.troubles = None;
        }
        let reconnected = self.backoff.failures() > 0;
        self.backoff.reset();
        self.schema_retries = 0;
        self.batch_frames = (self.batch_frames * 2).min(BATCH_FRAMES);
        self.backfill_at = now.instant + (now.instant - sent.at).max(BACKFILL_PAUSE);
        self.retry_at = now.instant;
        self.connection = Connection::Connected;
        self.last_ack_wall_ms = Some(now.clocks.wall_ms);
        self.last_error = None;
        if reconnected {
            tracing::info!(backlog = spool.len(), "the collector answers again");
        }
        Effects {
            policy: ack.policy,
            want: ack.want,
            reconnected,
            ..Effects::default()
        }
    }

    /// A collector that was restored from a backup lacks a schema: all frames go again, with them.
    fn schemas_wanted(&mut self, ack: Ack, now: Instant) -> Effects {
        for schema in &ack.unknown_schemas {
            self.known_schemas.remove(schema);
        }
        self.schema_retries += 1;
        self.attempted = None;
        self.backfill_at = now;
        if self.schema_retries > SCHEMA_RETRIES {
            self.retry_at = now + self.backoff.after_failure(rand::random());
            self.last_error = Some("the collector keeps asking for schemas".to_owned());
        }
        Effects {
            policy: ack.policy,
            ..Effects::default()
        }
    }

    fn give_up(&mut self, text: String) {
        tracing::warn!("{text}");
        if self.given_up.len() == 10 {
            self.given_up.pop_front();
        }
        self.given_up.push_back(text);
    }
}

fn parse_ack(body: &[u8], sent: usize) -> Result<Ack, Failure> {
    let ack: Ack =
        serde_json::from_slice(body).map_err(|error| Failure::BadAnswer(error.to_string()))?;
    if ack.unknown_schemas.is_empty() && ack.accepted as usize + ack.rejected.len() != sent {
        return Err(Failure::BadAnswer(format!(
            "it speaks of {} frames, {sent} were sent",
            ack.accepted as usize + ack.rejected.len()
        )));
    }
    Ok(ack)
}
