//! The TLS handshake. A permit is held only while this side computes; the wait for the peer's bytes
//! holds none. So a peer that connects and sends nothing, or half of a handshake, delays nobody.

use std::io;

use arc_swap::ArcSwap;
use rustls::{ServerConfig, server::Acceptor};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};
use tokio_rustls::{LazyConfigAcceptor, server::TlsStream};

/// Accepts one connection. The settings are those of the moment at which the peer's first message
/// is complete.
pub(super) async fn accept<IO>(
    stream: IO,
    tls: &ArcSwap<ServerConfig>,
    permits: &Semaphore,
) -> io::Result<TlsStream<IO>>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let handshake = hello.into_stream(tls.load_full());
    tokio::pin!(handshake);
    // The key exchange and the signature are computed by the first poll; after that the peer has to
    // answer.
    let permit = permits
        .acquire()
        .await
        .map_err(|error| io::Error::other(error.to_string()))?;
    let first = futures_util::poll!(handshake.as_mut());
    drop(permit);
    match first {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => handshake.await,
    }
}
