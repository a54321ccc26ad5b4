//! Whether a TCP endpoint accepts connections. Nothing is sent over them.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{net::TcpStream, sync::mpsc, time};
use tokio_util::sync::CancellationToken;
use watchkeep_shared::wire::heartbeat::ServiceStatus;

use super::{Finding, Found, ProbeResult};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Probe {
    pub(super) address: String,
    pub(super) every_ms: u64,
    pub(super) generation: u64,
    pub(super) results: mpsc::Sender<ProbeResult>,
    pub(super) stop: CancellationToken,
}

impl Probe {
    /// Probes at its interval until it is stopped; every result goes to the loop.
    pub(super) async fn run(self) {
        let mut ticks = time::interval(Duration::from_millis(self.every_ms));
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let probing = async {
            loop {
                ticks.tick().await;
                let result = ProbeResult {
                    generation: self.generation,
                    found: Found::One {
                        key: format!("tcp:{}", self.address),
                        finding: look(&self.address).await,
                    },
                };
                if self.results.send(result).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = probing => {}
        }
    }
}

async fn look(address: &str) -> Finding {
    match time::timeout(CONNECT_TIMEOUT, connect(address)).await {
        Ok(Ok(())) => Finding {
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
async fn connect(address: &str) -> io::Result<()> {
    if let Ok(address) = address.parse::<SocketAddr>() {
        return TcpStream::connect(address).await.map(drop);
    }
    if let Some(port) = address
        .strip_prefix("localhost:")
        .and_then(|port| port.parse::<u16>().ok())
    {
        if TcpStream::connect((
            "127.0.0.1".parse::<std::net::IpAddr>().expect("an address"),
            port,
        ))
        .await
        .is_ok()
        {
            return Ok(());
        }
        let v6 = SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, port));
        return TcpStream::connect(v6).await.map(drop);
    }
    TcpStream::connect(address).await.map(drop)
}

/// A local shortage says nothing about the service.
fn status_of(error: &io::Error) -> ServiceStatus {
    match error.kind() {
        io::ErrorKind::OutOfMemory | io::ErrorKind::PermissionDenied => ServiceStatus::Unknown,
        _ if error.raw_os_error().is_some_and(|code| {
            code == rustix::io::Errno::MFILE.raw_os_error()
                || code == rustix::io::Errno::NFILE.raw_os_error()
        }) =>
        {
            ServiceStatus::Unknown
        }
        _ => ServiceStatus::Stopped,
    }
}

fn text_of(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::ConnectionRefused {
        "connection refused".to_owned()
    } else {
        let mut text = error.to_string();
        text.truncate(text.floor_char_boundary(200));
        text
    }
}
