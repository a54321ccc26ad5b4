//! The accept loop of both ports: TLS by rustls, HTTP/1.1 by hyper, the router of the port.
//!
//! Our own because a handler must know the peer's certificate, and because connections are bounded
//! before any of them can cost much. A connection goes through two stages: *pending* until its TLS
//! handshake is done, then *open*. Pending connections cost almost nothing, so they are limited by
//! disconnecting the oldest ([`addresses`]): peers that connect and send nothing are always the
//! oldest, so they never keep anyone out. Only the computation of a handshake takes a permit, never
//! the wait for the peer ([`handshake`]). A peer that fails is logged at debug level.

mod addresses;
mod handshake;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, extract::Request};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use rustls::{ServerConfig, server::ServerConnection};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tower::ServiceExt as _;

use self::addresses::{Addresses, Admitted};
use crate::process::Process;

pub use self::addresses::Limits;

/// A handshake that takes longer is disconnected.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long open requests may take after the stop signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Most that is buffered of one request before its body is read, bytes.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Connections that were closed because of a limit are logged at most this often.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How a port is served.
#[derive(Clone, Debug)]
pub struct Port {
    /// For logs.
    pub name: &'static str,
    /// TLS settings; new connections get those of the moment.
    pub tls: Arc<ArcSwap<ServerConfig>>,
    /// What answers.
    pub router: Router,
    /// Adds to each request what is known about its connection.
    pub describe: fn(&ServerConnection, SocketAddr, &mut axum::http::Extensions),
    /// How long a request's head may take to arrive, and a kept connection may be idle.
    pub idle: fn(&ServerConnection) -> Duration,
    /// Connections at once.
    pub limits: Limits,
    /// Handshakes that compute at once.
    pub max_handshakes: usize,
}

struct Shared {
    port: Port,
    handshakes: Semaphore,
    process: Process,
}

/// Accepts connections until the process stops.
pub async fn serve(
    listener: TcpListener,
    port: Port,
    process: Process,
) -> Result<(), std::io::Error> {
    let addresses = Addresses::new(port.limits);
    let mut refusals = Refusals::new(port.name);
    let shared = Arc::new(Shared {
        handshakes: Semaphore::new(port.max_handshakes),
        process: process.clone(),
        port,
    });
    loop {
        let accepted = tokio::select! {
            () = process.stop.cancelled() => return Ok(()),
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                refusals.count(&format!("failed to accept a connection: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Over a limit the connection is closed at once: the peer backs off and connects again.
        let admitted = match addresses.admit(peer.ip()) {
            Ok(admitted) => admitted,
            Err(limit) => {
                refusals.count(&format!("{limit}, closed a connection from {peer}"));
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        process.spawn(async move {
            if let Err(error) = connection(&shared, admitted, stream, peer).await {
                tracing::debug!(port = shared.port.name, %peer, "connection ended: {error}");
            }
        });
    }
}

async fn connection(
    shared: &Shared,
    mut admitted: Admitted,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let handshake = handshake::accept(stream, &shared.port.tls, &shared.handshakes);
    let tls = tokio::select! {
        tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake) => tls??,
        () = admitted.evicted() => return Err("the oldest of too many handshakes".into()),
    };
    admitted.open()?;
    let mut extensions = axum::http::Extensions::new();
    let idle = (shared.port.idle)(tls.get_ref().1);
    (shared.port.describe)(tls.get_ref().1, peer, &mut extensions);
    let router = shared.port.router.clone();
    let service = router.map_request(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().extend(extensions.clone());
        request.map(axum::body::Body::new)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(idle)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(tls), TowerToHyperService::new(service));
    tokio::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => result?,
        () = shared.process.stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(DRAIN_TIMEOUT, connection).await??;
        }
    }
    Ok(())
}

/// Counts connections that were closed at once, and logs them together.
struct Refusals {
    port: &'static str,
    count: u64,
    logged: Option<tokio::time::Instant>,
}

impl Refusals {
    const fn new(port: &'static str) -> Self {
        Self {
            port,
            count: 0,
            logged: None,
        }
    }

    fn count(&mut self, why: &str) {
        self.count += 1;
        if self.logged.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            return;
        }
        tracing::warn!(port = self.port, connections = self.count, "{why}");
        self.count = 0;
        self.logged = Some(tokio::time::Instant::now());
    }
}
