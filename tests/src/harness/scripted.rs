//! An agent that sends exactly what a test wants: frames with any clocks and sequence numbers,
//! bodies that no real agent makes.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ClientConfig;
use watchkeep_shared::{
    BootId, HostId, InstanceId,
    ids::random_uuid,
    metric::schema_id,
    token::EnrolmentToken,
    wire::{
        PROTOCOL_VERSION,
        codec::Encoder,
        heartbeat::{Ack, Batch, Clocks, Frame, Schema},
        paths,
    },
};

use crate::{
    clock,
    fleet::{
        Identities, agent_version,
        connection::{Answer, BodyEncoding, Connection},
        identity::Identity,
        tls::{Resume, Trust},
    },
    loopback::Target,
};

/// The interval that scripted frames state, milliseconds.
pub const INTERVAL_MS: u32 = 500;

/// An enrolled agent without a will of its own.
#[derive(Debug)]
pub struct Scripted {
    /// Who it is.
    pub identity: Identity,
    /// The boot of its next batch.
    pub boot: BootId,
    /// The agent process of its next batch.
    pub instance: InstanceId,
    /// The number of its next frame.
    pub seq: u64,
    target: Target,
    trust: Trust,
    tls: Arc<ClientConfig>,
    connection: Option<Connection>,
}

impl Scripted {
    /// Enrols an agent.
    pub async fn enroll(token: &EnrolmentToken) -> Result<Self> {
        let mut identities = Identities::enrol(token, 1).await?;
        let identity = identities.agents.pop().context("one agent was enrolled")?;
        let trust = Trust::new(&identities.ca_pem)?;
        let tls = trust.client(&identity.certificate_pem, &identity.key_pem, Resume::Never)?;
        Ok(Self {
            boot: identity.boot,
            identity,
            instance: InstanceId(random_uuid()),
            seq: 1,
            target: Target::parse(&identities.url)?,
            trust,
            tls,
            connection: None,
        })
    }

    /// Whom it trusts.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Where it connects.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The host that it is.
    pub fn host(&self) -> HostId {
        self.identity.host
    }

    /// The next frame, made when the clocks read `clocks`.
    pub fn frame(&mut self, clocks: Clocks) -> Frame {
        let seq = self.seq;
        self.seq += 1;
        Frame {
            boot: None,
            instance: None,
            seq,
            clocks,
            interval_ms: INTERVAL_MS,
            schema: schema().id,
            values: vec![Some(12.5)],
            services: None,
            events: Vec::new(),
        }
    }

    /// A batch that is sent when the clocks read `sent`.
    pub fn batch(&self, sent: Clocks, frames: Vec<Frame>) -> Batch {
        Batch {
            v: PROTOCOL_VERSION,
            agent_version: agent_version(),
            boot: self.boot,
            instance: self.instance,
            sent,
            policy_version: 0,
            trusts: Vec::new(),
            refused: None,
            troubles: None,
            schemas: vec![schema()],
            frames,
        }
    }

    /// Sends one plain frame of this moment.
    pub async fn beat(&mut self) -> Result<Ack> {
        let clocks = clock::clocks_now();
        let frame = self.frame(clocks);
        let batch = self.batch(clocks, vec![frame]);
        self.send_ok(&batch).await
    }

    /// Sends a batch that must be answered with an acknowledgement.
    pub async fn send_ok(&mut self, batch: &Batch) -> Result<Ack> {
        let answer = self.send(batch).await?;
        let status = answer.status;
        answer.json().with_context(|| {
            let body = String::from_utf8_lossy(&answer.body);
            format!("status {status}, not an acknowledgement: {body}")
        })
    }

    /// Sends a batch.
    pub async fn send(&mut self, batch: &Batch) -> Result<Answer> {
        let body = Encoder::new()?.encode(batch)?;
        self.post(BodyEncoding::Zstd, body).await
    }

    /// Sends any body to the heartbeat endpoint.
    pub async fn post(&mut self, encoding: BodyEncoding, body: Vec<u8>) -> Result<Answer> {
        self.connect().await?;
        let connection = self.connection.as_mut().context("it was just connected")?;
        Ok(connection.post(paths::HEARTBEATS, encoding, body).await?)
    }

    /// Connects unless it is connected.
    pub async fn connect(&mut self) -> Result<&mut Connection> {
        if !self.connection.as_ref().is_some_and(Connection::is_open) {
            let connection = Connection::open(&self.target, self.tls.clone()).await?;
            self.connection = Some(connection);
        }
        self.connection.as_mut().context("it was just connected")
    }

    /// Drops its connection.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }
}

/// The one metric that scripted frames carry.
pub fn schema() -> Schema {
    let names = vec!["cpu.busy_pct".to_owned()];
    Schema {
        id: schema_id(&names),
        names,
    }
}
