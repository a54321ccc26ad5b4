//! A receiver of webhooks for tests: keeps what it is sent and answers as the test asks.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::ServerConfig;
use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
        BufReader,
    },
    net::TcpListener,
    sync::watch,
};
use tokio_rustls::TlsAcceptor;

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) path: String,
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

/// The running receiver; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    /// Answers, each given once: status line and headers. Then all requests are taken.
    answers: Arc<Mutex<Vec<&'static str>>>,
    changed: watch::Sender<()>,
}

impl Receiver {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test without a process to track its tasks"
    )]
    pub(super) async fn start(tls: Option<Arc<ServerConfig>>, answers: &[&'static str]) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let receiver = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
            answers: Arc::new(Mutex::new(answers.to_vec())),
            changed: watch::Sender::new(()),
        };
        let here = receiver.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (here, tls) = (here.clone(), tls.clone());
                tokio::spawn(async move {
                    // A client that goes away ends its connection; nothing else matters.
                    match tls {
                        None => drop(here.serve(stream).await),
                        Some(tls) => {
                            if let Ok(stream) = TlsAcceptor::from(tls).accept(stream).await {
                                drop(here.serve(stream).await);
                            }
                        }
                    }
                });
            }
        });
        receiver
    }

    /// What came so far.
    pub(super) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until so many requests came.
    pub(super) async fn wait_for_requests(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        while self.received().len() < count {
            changed.changed().await.unwrap();
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        while let Some(received) = request(&mut stream).await? {
            self.received.lock().unwrap().push(received);
            let answer = {
                let mut answers = self.answers.lock().unwrap();
                if answers.is_empty() {
                    "200 OK"
                } else {
                    answers.remove(0)
                }
            };
            let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 9\r\n\r\nsaid so\r\n");
            stream.get_mut().write_all(answer.as_bytes()).await?;
            stream.get_mut().flush().await?;
            self.changed.send_replace(());
        }
        Ok(())
    }
}

async fn request<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
) -> std::io::Result<Option<Received>> {
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_owned();
        if line.is_empty() {
            break;
        }
        head.push(line);
    }
    let path = head[0].split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: BTreeMap<String, String> = head[1..]
        .iter()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let length = headers["content-length"].parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Received {
        path,
        headers,
        body: String::from_utf8(body).unwrap(),
    }))
}
