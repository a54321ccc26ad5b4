//! A TCP proxy that a test puts into a line to cut it in different ways.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::ReadHalf, tcp::WriteHalf},
    sync::watch,
    task::JoinSet,
};

use super::ports::Port;

/// What the proxy does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Carries everything.
    Pass,
    /// Keeps connections open and moves nothing, as a dead route does. What was sent meanwhile
    /// continues when the line passes again.
    Stall,
    /// Ends connections in order, and new ones at once.
    Close,
    /// Ends connections by a reset, and new ones at once.
    Reset,
}

/// A running proxy. Dropping it ends its connections.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    line: watch::Sender<Line>,
    _accept: JoinSet<()>,
}

impl Proxy {
    /// Listens on a port of its own and carries connections to `target`.
    pub async fn start(target: SocketAddr) -> Result<Self> {
        let port = Port::take()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).await?;
        let (line, watched) = watch::channel(Line::Pass);
        let mut accept = JoinSet::new();
        accept.spawn(accept_all(listener, target, watched));
        Ok(Self {
            port,
            line,
            _accept: accept,
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

async fn accept_all(listener: TcpListener, target: SocketAddr, line: watch::Receiver<Line>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, target, line.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn carry(mut client: TcpStream, target: SocketAddr, mut line: watch::Receiver<Line>) {
    // A new connection on a stalled line waits like the bytes of an old one.
    let mode = line
        .wait_for(|line| *line != Line::Stall)
        .await
        .map(|line| *line);
    if !matches!(mode, Ok(Line::Pass)) {
        end(&client, mode.unwrap_or(Line::Close));
        return;
    }
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let cut = {
        let (client_read, client_write) = client.split();
        let (server_read, server_write) = server.split();
        let up = pump(client_read, server_write, line.clone());
        let down = pump(server_read, client_write, line.clone());
        tokio::select! {
            ((), ()) = async { tokio::join!(up, down) } => return,
            cut = line.wait_for(|line| matches!(line, Line::Close | Line::Reset)) => {
                cut.map_or(Line::Close, |line| *line)
            }
        }
    };
    end(&client, cut);
    end(&server, cut);
}

/// Moves bytes one way while the line passes.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut line: watch::Receiver<Line>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        if line.wait_for(|line| *line == Line::Pass).await.is_err() {
            return;
        }
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = line.changed() => continue,
        };
        let Ok(count @ 1..) = read else {
            let _ = to.shutdown().await;
            return;
        };
        // Bytes that were read when the line stalled wait too.
        if line.wait_for(|line| *line == Line::Pass).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}

fn end(stream: &TcpStream, line: Line) {
    if line == Line::Reset {
        let _ = stream.set_zero_linger();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// A server that sends back what it gets, and a proxy before it.
    async fn echo() -> (Proxy, JoinSet<()>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let mut server = JoinSet::new();
        server.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                connections.spawn(async move {
                    let (mut read, mut write) = stream.split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        (Proxy::start(target).await.unwrap(), server)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))
            .await
            .unwrap()
    }

    async fn round_trip(stream: &mut TcpStream) {
        stream.write_all(b"ping").await.unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping");
    }

    #[tokio::test]
    async fn a_stalled_line_holds_bytes_and_gives_them_later() {
        let (proxy, _server) = echo().await;
        let mut stream = connect(&proxy).await;
        round_trip(&mut stream).await;
        proxy.set(Line::Stall);
        stream.write_all(b"held").await.unwrap();
        let mut answer = [0; 4];
        let held = timeout(Duration::from_millis(200), stream.read_exact(&mut answer));
        assert!(held.await.is_err());
        proxy.set(Line::Pass);
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"held");
    }

    #[tokio::test]
    async fn a_cut_line_ends_old_and_new_connections() {
        let (proxy, _server) = echo().await;
        for line in [Line::Close, Line::Reset] {
            proxy.set(Line::Pass);
            let mut stream = connect(&proxy).await;
            round_trip(&mut stream).await;
            proxy.set(line);
            let end = stream.read(&mut [0; 1]).await;
            match line {
                Line::Reset => assert!(end.is_err(), "{end:?}"),
                _ => assert_eq!(end.unwrap(), 0),
            }
            let mut new = connect(&proxy).await;
            assert!(!matches!(new.read(&mut [0; 1]).await, Ok(1..)));
        }
    }
}
