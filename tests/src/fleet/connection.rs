//! One agent's connection: TCP, TLS 1.3, HTTP/1.1 with one request at a time. Every step has a
//! time limit and every answer a size limit, so a stuck collector shows up as an error of its kind.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1::{self, SendRequest},
    header,
};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};
use tokio_rustls::TlsConnector;
use watchkeep_shared::wire::{CONTENT_ENCODING_ZSTD, CONTENT_TYPE_JSON, problem::Problem};

use super::meter::{Meter, Metered, Traffic};
use crate::loopback::Target;

/// Longest wait for a TCP connection and its TLS handshake together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// An open connection. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    meter: Arc<Meter>,
    authority: String,
    /// Bytes of the handshake, as far as they are counted.
    handshake: Traffic,
    /// What the meter read when requests began to be counted.
    counted_from: Traffic,
    /// Drives the connection; the set ends it when this value is dropped.
    _driver: JoinSet<()>,
}

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyEncoding {
    /// As it is.
    Identity,
    /// zstd.
    Zstd,
}

/// An answer of any status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// `Retry-After` in its form of whole seconds.
    pub retry_after: Option<Duration>,
    /// `Content-Type`, empty where there was none.
    pub content_type: String,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No TCP connection.
    #[error("connect: {0}")]
    Connect(#[source] std::io::Error),
    /// TCP stood, TLS did not.
    #[error("TLS handshake: {0}")]
    Handshake(#[source] std::io::Error),
    /// HTTP failed: closed, reset, or not HTTP.
    #[error("connection lost: {0}")]
    Lost(#[source] hyper::Error),
    /// No answer in time.
    #[error("no answer in {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    /// The answer's body broke off or is too large.
    #[error("the answer's body can't be read: {0}")]
    Body(String),
}

impl ConnectionError {
    /// The kind, for counters.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Handshake(_) => "handshake",
            Self::Lost(_) | Self::Body(_) => "connection_lost",
            Self::Timeout => "timeout",
        }
    }
}

impl Connection {
    /// Connects and shakes hands.
    pub async fn open(target: &Target, tls: Arc<ClientConfig>) -> Result<Self, ConnectionError> {
        timeout(CONNECT_TIMEOUT, Self::open_untimed(target, tls))
            .await
            .unwrap_or(Err(ConnectionError::Timeout))
    }

    async fn open_untimed(
        target: &Target,
        tls: Arc<ClientConfig>,
    ) -> Result<Self, ConnectionError> {
        let tcp = TcpStream::connect(target.address)
            .await
            .map_err(ConnectionError::Connect)?;
        tcp.set_nodelay(true).map_err(ConnectionError::Connect)?;
        let meter = Arc::new(Meter::default());
        let stream = TlsConnector::from(tls)
            .connect(target.name.clone(), Metered::new(tcp, meter.clone()))
            .await
            .map_err(ConnectionError::Handshake)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(ConnectionError::Lost)?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // A lost connection shows up at the sender, with its reason.
            let _ = connection.await;
        });
        let handshake = meter.read();
        Ok(Self {
            sender,
            meter,
            authority: target.authority.clone(),
            handshake,
            counted_from: handshake,
            _driver: driver,
        })
    }

    /// Bytes so far, the handshake apart: `(handshake, after it)`.
    pub fn traffic(&self) -> (Traffic, Traffic) {
        (self.handshake, self.meter.read().since(self.counted_from))
    }

    /// Counts again from here, as if the connection had been made now and without a handshake.
    pub fn restart_traffic(&mut self) {
        self.handshake = Traffic::default();
        self.counted_from = self.meter.read();
    }

    /// Whether another request can be sent.
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends a POST and reads the answer whole.
    pub async fn post(
        &mut self,
        path: &str,
        encoding: BodyEncoding,
        body: Vec<u8>,
    ) -> Result<Answer, ConnectionError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, CONTENT_TYPE_JSON);
        if encoding == BodyEncoding::Zstd {
            request = request.header(header::CONTENT_ENCODING, CONTENT_ENCODING_ZSTD);
        }
        let request = request
            .body(Full::new(Bytes::from(body)))
            .expect("paths and header values are constants or were parsed from a URL");
        timeout(ANSWER_TIMEOUT, self.request(request))
            .await
            .unwrap_or(Err(ConnectionError::Timeout))
    }

    /// Sends a GET and reads the answer whole.
    pub async fn get(&mut self, path: &str) -> Result<Answer, ConnectionError> {
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, &self.authority)
            .body(Full::default())
            .expect("paths and header values are constants or were parsed from a URL");
        timeout(ANSWER_TIMEOUT, self.request(request))
            .await
            .unwrap_or(Err(ConnectionError::Timeout))
    }

    /// Sends any request and reads the answer whole, without a time limit of its own.
    pub async fn request(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, ConnectionError> {
        self.sender.ready().await.map_err(ConnectionError::Lost)?;
        let response = self
            .sender
            .send_request(request)
            .await
            .map_err(ConnectionError::Lost)?;
        let text = |name| {
            let value = response.headers().get(name)?;
            value.to_str().ok().map(str::to_owned)
        };
        let retry_after = text(header::RETRY_AFTER)
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs);
        let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(|error| ConnectionError::Body(error.to_string()))?
            .to_bytes();
        Ok(Answer {
            status,
            retry_after,
            content_type,
            body,
        })
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.body)
    }

    /// The body as problem details (RFC 9457), if that is what it is.
    pub fn problem(&self) -> Option<Problem> {
        self.json().ok()
    }
}
