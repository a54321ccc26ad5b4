//! The agents' port: reads a request within its limits, checks what can be checked without the
//! host's state, and waits for the pipeline's answer. Every refusal is a typed problem (RFC 9457).

mod body;

use std::{
    fmt::Display,
    hash::Hash,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use rustls::server::ServerConnection;
use serde::Serialize;
use tokio::sync::{mpsc::error::TrySendError, oneshot};
use watchkeep_core::{authority::HostTrust, host::clean};
use watchkeep_shared::{
    HostId, metric,
    wire::{
        CONTENT_TYPE_JSON, CONTENT_TYPE_PROBLEM, PROTOCOL_VERSION,
        enroll::{EnrollRequest, RenewRequest},
        heartbeat::Batch,
        limits, paths,
        problem::{Problem, ProblemType},
    },
};

pub use self::body::Decoders;
use self::body::{parse, read};
use super::{Arrival, Inbox, Knocks, NotTaken, Place, Room, metrics::Metrics};
use crate::{
    app::App,
    config::Agents,
    identity::{self, Authority, CaError, EnrollError, PeerIdentity, Renewal, Revoked},
    limit::{Limiter, Rate, Verdict, source},
};

/// What a busy collector asks for, and one that was asked too often: in this time every bucket gains
/// something.
const RETRY_AFTER_S: u64 = 2;

/// What the agents' port needs.
#[derive(Clone, Debug)]
pub struct AgentPort {
    /// The collector.
    pub app: App,
    /// The CAs.
    pub authority: Arc<Authority>,
    /// Refused certificates.
    pub revoked: Arc<Revoked>,
    /// The queue.
    pub inbox: Inbox,
    /// The memory of the queue.
    pub room: Arc<Room>,
    /// Hosts that were answered "busy".
    pub knocks: Arc<Knocks>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Decompression contexts.
    pub decoders: Arc<Decoders>,
    /// Who sends too much.
    pub rates: Arc<Rates>,
}

/// Who sends too much.
#[derive(Debug)]
pub struct Rates {
    hosts: Limiter<HostId>,
    enrolments: Limiter<IpAddr>,
}

impl Rates {
    /// Nobody yet, with the limits of the settings.
    pub fn new(settings: &Agents) -> Self {
        Self {
            hosts: Limiter::new(Rate::per_second(
                settings.requests_per_s,
                settings.requests_burst,
            )),
            enrolments: Limiter::new(Rate::per_second(
                settings.enrolments_per_s,
                settings.enrolments_burst,
            )),
        }
    }
}

/// Who is at the other end of a connection, from its certificate.
#[derive(Clone, Debug)]
struct Peer {
    identity: Option<PeerIdentity>,
    from: IpAddr,
}

/// A refused request.
struct Refused(ProblemType, String);

/// Notes on each connection who its certificate names.
pub fn describe(tls: &ServerConnection, peer: SocketAddr, extensions: &mut axum::http::Extensions) {
    let leaf = tls.peer_certificates().and_then(|chain| chain.first());
    let identity = leaf.and_then(|leaf| identity::peer_identity(leaf).ok());
    extensions.insert(Peer {
        identity,
        from: peer.ip(),
    });
}

/// The router of the agents' port.
pub fn router(port: AgentPort) -> Router {
    Router::new()
        .route(paths::HEARTBEATS, post(heartbeats))
        .route(paths::ENROLL, post(enroll))
        .route(paths::RENEW, post(renew))
        .fallback(|| async {
            Refused(
                ProblemType::NotFound,
                "see docs/protocol.md for the paths".to_owned(),
            )
        })
        .method_not_allowed_fallback(|| async {
            Refused(ProblemType::NotFound, "every path takes POST".to_owned())
        })
        .with_state(port)
}

async fn heartbeats(
    State(port): State<AgentPort>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let answer = take_heartbeats(&port, &peer, &headers, body).await;
    answer.unwrap_or_else(|refused| port.refuse(&refused))
}

async fn enroll(
    State(port): State<AgentPort>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let answer = async {
        let from = source(peer.from);
        port.within(&port.rates.enrolments, from, "enrolments from")?;
        let request: EnrollRequest = parse(&read(body).await?)?;
        check_version(request.v)?;
        let enrolled = identity::enroll(&port.app, &*port.authority.refresh()?, &request).await?;
        Ok::<_, Refused>(json(&enrolled))
    };
    answer.await.unwrap_or_else(|refused| port.refuse(&refused))
}

async fn renew(
    State(port): State<AgentPort>,
    Extension(peer): Extension<Peer>,
    body: Body,
) -> Response {
    let answer = async {
        let identity = port.identity_of(&peer)?;
        port.within(&port.rates.hosts, identity.host, "requests of the host")?;
        let request: RenewRequest = parse(&read(body).await?)?;
        check_version(request.v)?;
        let renewal = Renewal {
            host: identity.host,
            serial: &identity.serial,
            csr_pem: &request.csr_pem,
        };
        let renewed = identity::renew(&port.app, &*port.authority.refresh()?, renewal).await?;
        Ok::<_, Refused>(json(&renewed))
    };
    answer.await.unwrap_or_else(|refused| port.refuse(&refused))
}

async fn take_heartbeats(
    port: &AgentPort,
    peer: &Peer,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let identity = port.identity_of(peer)?;
    let host = identity.host;
    port.within(&port.rates.hosts, host, "requests of the host")?;
    let body = read(body).await?;
    // Busy is said before the work of reading the body's content.
    let slot = port.inbox.try_reserve().map_err(|error| match error {
        TrySendError::Full(()) => {
            port.knocks.note(host, port.app.clock.now());
            Refused(ProblemType::Busy, "the queue is full".to_owned())
        }
        TrySendError::Closed(()) => Refused(ProblemType::Busy, "shutting down".to_owned()),
    })?;
    let (mut batch, place) = port.decode(headers, &body, host)?;
    check_batch(&batch)?;
    clean(&mut batch);
    let (reply, answer) = oneshot::channel();
    let at = port.app.clock.now();
    let cas = port.authority.current();
    let trust = HostTrust {
        holds: cas.issuer_of(identity),
        issued_at: identity.issued_at,
        trusts: batch.trusts.clone(),
    };
    slot.send(Arrival {
        host,
        at,
        from: peer.from.to_string(),
        trust: trust.clone(),
        batch,
        place: Some(place),
        reply,
    });
    match answer.await {
        Ok(Ok(mut ack)) => {
            let within_ms = port.app.config.agents.renew_within_s.saturating_mul(1_000);
            cas.tell(&trust, within_ms, &mut ack);
            Ok(json(&ack))
        }
        Ok(Err(NotTaken::Busy)) => Err(Refused(
            ProblemType::Busy,
            "the store can't commit now".to_owned(),
        )),
        Ok(Err(NotTaken::UnknownHost)) => Err(retired()),
        Ok(Err(NotTaken::Quarantined)) => Err(quarantined()),
        Err(_) => Err(Refused(ProblemType::Busy, "shutting down".to_owned())),
    }
}

impl AgentPort {
    /// Whom the certificate names, unless that was revoked since the handshake.
    fn identity_of<'a>(&self, peer: &'a Peer) -> Result<&'a PeerIdentity, Refused> {
        let Some(identity) = &peer.identity else {
            return Err(Refused(
                ProblemType::CertificateRequired,
                "send the client certificate given at enrolment".to_owned(),
            ));
        };
        if self.revoked.contains(&identity.serial) {
            return Err(Refused(
                ProblemType::CertificateRevoked,
                "ask your provider for a new enrolment token".to_owned(),
            ));
        }
        if self.authority.current().issuer_of(identity).is_none() {
            return Err(Refused(
                ProblemType::CertificateRevoked,
                "the authority that signed this certificate was replaced: ask your provider for a token for a new key".to_owned(),
            ));
        }
        Ok(identity)
    }

    /// Counts a request against a limit.
    fn within<K: Eq + Hash + Copy + Display>(
        &self,
        limiter: &Limiter<K>,
        key: K,
        what: &str,
    ) -> Result<(), Refused> {
        let Verdict::Refused { log, .. } = limiter.take(&key, self.app.clock.now()) else {
            return Ok(());
        };
        let limit = limiter.text();
        if log {
            tracing::warn!("too many {what} {key} (and perhaps others): {limit}");
        }
        Err(Refused(
            ProblemType::TooManyRequests,
            format!("at most {limit}"),
        ))
    }

    fn place(&self, host: HostId, bytes: usize) -> Result<Place, Refused> {
        self.room.take(host, bytes).ok_or_else(|| {
            self.knocks.note(host, self.app.clock.now());
            Refused(ProblemType::Busy, "the queue's memory is full".to_owned())
        })
    }

    fn refuse(&self, refused: &Refused) -> Response {
        self.metrics.count_problem(refused.0.urn());
        refused.to_response()
    }
}

/// Checks that need no host.
fn check_batch(batch: &Batch) -> Result<(), Refused> {
    check_version(batch.v)?;
    let over = |what: String| Err(Refused(ProblemType::OverLimit, what));
    if batch.frames.is_empty() || batch.frames.len() > limits::MAX_FRAMES_PER_BATCH {
        return over(format!(
            "frames: {} of them, 1 to {} are allowed",
            batch.frames.len(),
            limits::MAX_FRAMES_PER_BATCH
        ));
    }
    if batch.trusts.len() > limits::MAX_TRUSTED_CAS {
        return over(format!("trusts: at most {}", limits::MAX_TRUSTED_CAS));
    }
    if batch.schemas.len() > limits::MAX_SCHEMAS_PER_BATCH {
        return over(format!(
            "schemas: at most {}",
            limits::MAX_SCHEMAS_PER_BATCH
        ));
    }
    for schema in &batch.schemas {
        if schema.names.len() > limits::MAX_VALUES_PER_FRAME {
            return over(format!(
                "schemas: at most {} names",
                limits::MAX_VALUES_PER_FRAME
            ));
        }
        if metric::schema_id(&schema.names) != schema.id {
            return Err(Refused(
                ProblemType::BadBody,
                format!("schemas: {} is not the identifier of its names", schema.id),
            ));
        }
    }
    Ok(())
}

fn check_version(v: u16) -> Result<(), Refused> {
    if v == PROTOCOL_VERSION {
        return Ok(());
    }
    Err(Refused(
        ProblemType::UnsupportedVersion,
        format!("v is {v}; this collector speaks {PROTOCOL_VERSION}"),
    ))
}

fn quarantined() -> Refused {
    Refused(
        ProblemType::HostQuarantined,
        "two machines use this host's certificate: ask your provider for a token for a new key, and enrol this machine with it if it is the right one".to_owned(),
    )
}

fn retired() -> Refused {
    Refused(
        ProblemType::CertificateRevoked,
        "this host is retired or unknown".to_owned(),
    )
}

impl From<CaError> for Refused {
    fn from(error: CaError) -> Self {
        EnrollError::Ca(error).into()
    }
}

impl From<EnrollError> for Refused {
    fn from(error: EnrollError) -> Self {
        match error {
            EnrollError::TokenRefused => Self(ProblemType::TokenRefused, error.to_string()),
            EnrollError::BadRequest(detail) => Self(ProblemType::BadBody, detail),
            EnrollError::Retired => retired(),
            EnrollError::Revoked => Self(ProblemType::CertificateRevoked, error.to_string()),
            EnrollError::TooMany => Self(ProblemType::TooManyRequests, error.to_string()),
            EnrollError::Quarantined => quarantined(),
            EnrollError::Ca(CaError::BadRequest(detail)) => Self(ProblemType::BadCsr, detail),
            EnrollError::Store(error) if error.is_outage() => {
                Self(ProblemType::Busy, "the store can't commit now".to_owned())
            }
            EnrollError::Ca(_) | EnrollError::Store(_) => {
                tracing::error!("failed to enrol or renew: {error}");
                Self(ProblemType::Internal, "see the collector's log".to_owned())
            }
        }
    }
}

impl Refused {
    fn to_response(&self) -> Response {
        let problem = Problem::new(self.0, self.1.clone());
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, to_json(&problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(CONTENT_TYPE_PROBLEM),
        );
        if matches!(self.0, ProblemType::Busy | ProblemType::TooManyRequests) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER_S));
        }
        response
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.to_response()
    }
}

fn json<T: Serialize>(value: &T) -> Response {
    let content_type = [(
        header::CONTENT_TYPE,
        HeaderValue::from_static(CONTENT_TYPE_JSON),
    )];
    (content_type, to_json(value)).into_response()
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    // The protocol's types have no maps with odd keys: they always have a JSON form.
    serde_json::to_vec(value).unwrap_or_default()
}
