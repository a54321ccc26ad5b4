//! The accept loop of both ports: TLS by rustls, HTTP/1.1 by hyper, the router of the port.
//!
//! Our own because a handler must know the peer's certificate, and because handshakes and
//! connections are bounded before any of them can cost much. A peer that stalls in the handshake or
//! between requests is cut off; one that fails is logged at debug level and forgotten.

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
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::process::Process;

/// A handshake that takes longer is cut off.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A request whose head takes longer to arrive, or a kept connection that is idle for longer, is
/// cut off. Agents that beat every ten minutes reconnect.
const HEADER_TIMEOUT: Duration = Duration::from_mins(2);
/// How long open requests may take after the stop signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Most that is buffered of one request before its body is read, bytes.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a port is served.
#[derive(Clone, Debug)]
pub struct Port {
    /// For logs.
    pub name: &'static str,
    /// TLS settings; new connections get those of the moment.
    pub tls: Arc<ArcSwap<ServerConfig>>,
    /// What answers.
    pub router: Router,
    /// What a handler is told about the connection.
    pub describe: fn(&ServerConnection, SocketAddr, &mut axum::http::Extensions),
    /// Connections open at once.
    pub max_connections: usize,
    /// Handshakes under way at once.
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
    let connections = Arc::new(Semaphore::new(port.max_connections));
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
                tracing::warn!(
                    port = shared.port.name,
                    "failed to accept a connection: {error}"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Over the limit the connection is closed at once: the peer backs off and comes again.
        let Ok(permit) = Arc::clone(&connections).try_acquire_owned() else {
            tracing::warn!(
                port = shared.port.name,
                "connection limit reached, {peer} was sent away"
            );
            continue;
        };
        let shared_here = Arc::clone(&shared);
        process.spawn(async move {
            if let Err(error) = connection(&shared_here, stream, peer).await {
                tracing::debug!(port = shared_here.port.name, %peer, "connection ended: {error}");
            }
            drop(permit);
        });
    }
}

async fn connection(
    shared: &Shared,
    stream: TcpStream,
    peer: SocketAddr,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let permit = shared.handshakes.acquire().await?;
    let acceptor = TlsAcceptor::from(shared.port.tls.load_full());
    let tls = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await??;
    drop(permit);
    let mut extensions = axum::http::Extensions::new();
    (shared.port.describe)(tls.get_ref().1, peer, &mut extensions);
    let router = shared.port.router.clone();
    let service = router.map_request(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().extend(extensions.clone());
        request.map(axum::body::Body::new)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
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
