//! A mail server for tests: speaks SMTP (RFC 5321) on the loopback, with STARTTLS, TLS from the first
//! byte, or neither; refuses, delays or forgets as the test asks; keeps what it accepted.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::aws_lc_rs};
use rustls_pki_types::PrivatePkcs8KeyDer;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::{Notify, watch},
};
use tokio_rustls::TlsAcceptor;

/// How the connection is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    None,
    StartTls,
    Implicit,
}

/// A mail that the server accepted.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) to: String,
    /// Headers and body as they came, without the final dot.
    pub(super) text: String,
    /// Whether the client had logged in.
    pub(super) is_authenticated: bool,
}

impl Accepted {
    /// A header's value, unfolded.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        let head = self.text.split("\r\n\r\n").next().unwrap();
        let unfolded = head.replace("\r\n ", " ").replace("\r\n\t", " ");
        let prefix = format!("{}:", name.to_lowercase());
        unfolded
            .split("\r\n")
            .find(|line| line.to_lowercase().starts_with(&prefix))
            .map(|line| line[prefix.len()..].trim().to_owned())
    }
}

/// How the server behaves; may change while it runs.
#[derive(Clone, Debug, Default)]
pub(super) struct Behaviour {
    /// Replies to RCPT, by recipient: each is given once, in order, the last one for ever.
    pub(super) replies: BTreeMap<String, Vec<&'static str>>,
    /// Replies to a message's content: each is given once, then all are accepted.
    pub(super) data_replies: Vec<&'static str>,
    /// Recipients after whose RCPT the server says nothing any more.
    pub(super) stalls_for: Vec<&'static str>,
    /// The server accepts connections and never greets.
    pub(super) is_mute: bool,
    /// Supports addresses outside ASCII.
    pub(super) has_smtputf8: bool,
    /// Login and password that it wants, as AUTH PLAIN in base64.
    pub(super) wants_login: Option<&'static str>,
}

#[derive(Debug, Default)]
struct State {
    behaviour: Behaviour,
    accepted: Vec<Accepted>,
    refused: Vec<Accepted>,
    /// How many connections have begun.
    connections: usize,
}

/// The running server; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) address: SocketAddr,
    /// PEM of the authority that signed its certificate.
    pub(super) ca_pem: String,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

impl Server {
    /// Starts a server whose certificate, by an authority of its own, is for `localhost`.
    #[expect(
        clippy::disallowed_methods,
        reason = "a test without a process to track its tasks"
    )]
    pub(super) async fn start(protection: Protection, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ca_pem, tls) = tls();
        let state = Arc::new(Mutex::new(State {
            behaviour,
            ..State::default()
        }));
        let server = Self {
            address,
            ca_pem,
            state,
            changed: watch::Sender::new(()),
        };
        let (here, acceptor) = (server.clone(), TlsAcceptor::from(tls));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (here, acceptor) = (here.clone(), acceptor.clone());
                tokio::spawn(async move {
                    here.state.lock().unwrap().connections += 1;
                    here.changed.send_replace(());
                    // A client that goes away ends its connection; nothing else matters.
                    drop(here.serve(stream, protection, acceptor).await);
                });
            }
        });
        server
    }

    /// Changes how it behaves from now on.
    pub(super) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.state.lock().unwrap().behaviour);
    }

    /// What was accepted so far.
    pub(super) fn accepted(&self) -> Vec<Accepted> {
        self.state.lock().unwrap().accepted.clone()
    }

    /// What came whole and was refused.
    pub(super) fn refused(&self) -> Vec<Accepted> {
        self.state.lock().unwrap().refused.clone()
    }

    /// Waits until so many mails were accepted.
    pub(super) async fn wait_for_mails(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        while self.accepted().len() < count {
            changed.changed().await.unwrap();
        }
    }

    /// Waits until so many connections have begun.
    pub(super) async fn wait_for_connections(&self, count: usize) {
        let mut changed = self.changed.subscribe();
        while self.state.lock().unwrap().connections < count {
            changed.changed().await.unwrap();
        }
    }

    fn behaviour(&self) -> Behaviour {
        self.state.lock().unwrap().behaviour.clone()
    }

    async fn serve(
        &self,
        stream: tokio::net::TcpStream,
        protection: Protection,
        acceptor: TlsAcceptor,
    ) -> std::io::Result<()> {
        if self.behaviour().is_mute {
            Notify::new().notified().await;
        }
        if protection == Protection::Implicit {
            let stream = acceptor.accept(stream).await?;
            return self.talk(Session::new(stream, false)).await.map(drop);
        }
        let offers_tls = protection == Protection::StartTls;
        let plain = self.talk(Session::new(stream, offers_tls)).await?;
        if let Some(stream) = plain {
            let stream = acceptor.accept(stream).await?;
            let mut session = Session::new(stream, false);
            session.is_greeted = true;
            self.talk(session).await?;
        }
        Ok(())
    }

    /// Talks until the client ends, or wants TLS: then the stream is given back.
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        mut session: Session<S>,
    ) -> std::io::Result<Option<S>> {
        if !session.is_greeted {
            session.say("220 sink.example ESMTP").await?;
        }
        while let Some(line) = session.line().await? {
            let verb = line.split([' ', ':']).next().unwrap().to_uppercase();
            let behaviour = self.behaviour();
            match verb.as_str() {
                "EHLO" => session.ehlo(&behaviour).await?,
                "STARTTLS" => {
                    session.say("220 go ahead").await?;
                    return Ok(Some(session.stream.into_inner()));
                }
                "AUTH" => {
                    let is_right = behaviour
                        .wants_login
                        .is_some_and(|login| line.ends_with(&format!(" {login}")));
                    session.is_authenticated = is_right;
                    session
                        .say(if is_right {
                            "235 2.7.0 welcome"
                        } else {
                            "535 5.7.8 wrong password"
                        })
                        .await?;
                }
                "MAIL" => session.say("250 2.1.0 sender ok").await?,
                "RCPT" => self.rcpt(&mut session, &line, &behaviour).await?,
                "DATA" => self.data(&mut session).await?,
                "QUIT" => {
                    session.say("221 bye").await?;
                    return Ok(None);
                }
                _ => session.say("502 5.5.1 what?").await?,
            }
        }
        Ok(None)
    }

    async fn rcpt<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        session: &mut Session<S>,
        line: &str,
        behaviour: &Behaviour,
    ) -> std::io::Result<()> {
        let to = line.split(['<', '>']).nth(1).unwrap_or_default().to_owned();
        if behaviour.stalls_for.contains(&to.as_str()) {
            Notify::new().notified().await;
        }
        let mut reply = "250 2.1.5 recipient ok";
        if let Some(replies) = self.state.lock().unwrap().behaviour.replies.get_mut(&to) {
            reply = replies[0];
            if replies.len() > 1 {
                replies.remove(0);
            }
        }
        if reply.starts_with('2') {
            session.to = to;
        }
        session.say(reply).await
    }

    async fn data<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        session: &mut Session<S>,
    ) -> std::io::Result<()> {
        session.say("354 end with a dot").await?;
        let mut text = String::new();
        while let Some(line) = session.line().await? {
            if line == "." {
                break;
            }
            text.push_str(line.strip_prefix('.').unwrap_or(&line));
            text.push_str("\r\n");
        }
        let mail = Accepted {
            to: std::mem::take(&mut session.to),
            text,
            is_authenticated: session.is_authenticated,
        };
        let reply = {
            let mut state = self.state.lock().unwrap();
            if state.behaviour.data_replies.is_empty() {
                state.accepted.push(mail);
                "250 2.0.0 queued as 4711"
            } else {
                state.refused.push(mail);
                state.behaviour.data_replies.remove(0)
            }
        };
        self.changed.send_replace(());
        session.say(reply).await
    }
}

struct Session<S> {
    stream: BufReader<S>,
    offers_tls: bool,
    is_greeted: bool,
    is_authenticated: bool,
    to: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Session<S> {
    fn new(stream: S, offers_tls: bool) -> Self {
        Self {
            stream: BufReader::new(stream),
            offers_tls,
            is_greeted: false,
            is_authenticated: false,
            to: String::new(),
        }
    }

    async fn line(&mut self) -> std::io::Result<Option<String>> {
        let mut line = String::new();
        let count = self.stream.read_line(&mut line).await?;
        Ok((count > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned()))
    }

    async fn say(&mut self, reply: &str) -> std::io::Result<()> {
        let reply = format!("{reply}\r\n");
        self.stream.get_mut().write_all(reply.as_bytes()).await?;
        self.stream.get_mut().flush().await
    }

    async fn ehlo(&mut self, behaviour: &Behaviour) -> std::io::Result<()> {
        let mut lines = vec!["sink.example"];
        if self.offers_tls {
            lines.push("STARTTLS");
        }
        if behaviour.has_smtputf8 {
            lines.extend(["8BITMIME", "SMTPUTF8"]);
        }
        if behaviour.wants_login.is_some() && !self.offers_tls {
            lines.push("AUTH PLAIN LOGIN");
        }
        let last = lines.pop().unwrap();
        for line in lines {
            self.say(&format!("250-{line}")).await?;
        }
        self.say(&format!("250 {last}")).await
    }
}

/// An authority, and TLS settings with a certificate of it for `localhost`.
pub(super) fn tls() -> (String, Arc<ServerConfig>) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority
        .distinguished_name
        .push(rcgen::DnType::CommonName, "Test authority");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let names = vec!["localhost".to_owned()];
    let certificate = CertificateParams::new(names)
        .unwrap()
        .signed_by(&key, &authority)
        .unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    (authority.pem(), Arc::new(config))
}
