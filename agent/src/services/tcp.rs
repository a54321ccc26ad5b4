//! Whether a TCP endpoint accepts connections. Nothing is sent over them.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, time};
use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::Finding;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) async fn probe(address: &str) -> Finding {
    match time::timeout(CONNECT_TIMEOUT, connect(address)).await {
        Ok(Ok(_)) => Finding {
            status: ServiceStatus::Running,
            detail: None,
        },
        Ok(Err(error)) => Finding {
            status: status_of(&error),
            detail: Some(text_of(&error)),
        },
        Err(_) => Finding {
            status: ServiceStatus::Stopped,
            detail: Some(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())),
        },
    }
}

/// `localhost` is taken without a name server, which would cost a thread.
pub(super) async fn connect(address: &str) -> io::Result<TcpStream> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return TcpStream::connect(address).await;
    }
    if let Some(port) = address
        .strip_prefix("localhost:")
        .and_then(|port| port.parse::<u16>().ok())
    {
        let v4 = SocketAddr::from(([127, 0, 0, 1], port));
        if let Ok(stream) = TcpStream::connect(v4).await {
            return Ok(stream);
        }
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
        return TcpStream::connect(v6).await;
    }
    TcpStream::connect(address).await
}

/// A local shortage says nothing about the service.
pub(super) fn status_of(error: &io::Error) -> ServiceStatus {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::PermissionDenied => ServiceStatus::Unknown,
        _ if crate::platform::is_out_of_handles(error) => ServiceStatus::Unknown,
        _ => ServiceStatus::Stopped,
    }
}

pub(super) fn text_of(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        "connection refused".to_owned()
    } else {
        super::short(&error.to_string())
    }
}
