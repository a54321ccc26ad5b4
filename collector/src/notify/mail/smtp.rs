//! One SMTP session, step by step, so that an error says where it arose and whether it concerns the
//! server or this recipient alone.

use std::{io, net::SocketAddr, pin::Pin, task, time::Duration};

use lettre::{
    Address,
    transport::smtp::{
        Error,
        authentication::{Credentials, DEFAULT_MECHANISMS},
        client::{AsyncSmtpConnection, AsyncTokioStream},
        commands::{Data, Mail, Rcpt},
        extension::{ClientId, Extension, MailBodyParameter, MailParameter},
        response::Response,
    },
};
use rustls_pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use watchkeep_core::delivery::Failure;

use super::{Mailer, Protection};
use crate::notify::channel::{Fault, Outgoing, SendError, Trace, transient};

/// How long a polite end may take; the outcome is known by then.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// What goes into one session.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    pub(super) from: &'a Address,
    pub(super) to: &'a Address,
    pub(super) message: &'a [u8],
}

/// Hands a message over to the server for one recipient.
pub(super) async fn send(
    mailer: &Mailer,
    envelope: &Envelope<'_>,
    outgoing: &Outgoing<'_>,
    trace: &mut Trace,
) -> Result<(), SendError> {
    let mut connection = open(mailer, trace).await?;
    let sent = hand_over(&mut connection, mailer.timeout, envelope, outgoing, trace).await;
    // Only for the server's sake: the outcome is known, and the socket closes either way.
    drop(tokio::time::timeout(QUIT_TIMEOUT, connection.quit()).await);
    sent
}

/// Connects, begins TLS and logs in. What fails here concerns the server, so that it may pass for
/// this recipient whatever the reply's code says.
async fn open(mailer: &Mailer, trace: &mut Trace) -> Result<AsyncSmtpConnection, SendError> {
    let (settings, limit) = (&mailer.settings, mailer.timeout);
    let addresses = trace
        .step("resolve", limit, resolve(&settings.host, settings.port))
        .await?;
    let stream = trace
        .step("connect", limit, connect(&addresses, limit / 2))
        .await?;
    let hello = ClientId::default();
    let mut connection = match &mailer.protection {
        Protection::None => trace.step("greeting", limit, greet(stream, &hello)).await?,
        Protection::Implicit(config) => {
            let connector = TlsConnector::from(std::sync::Arc::clone(config));
            let begin = begin_tls(&connector, &settings.host, stream);
            let stream = trace.step("TLS", limit, begin).await?;
            trace.step("greeting", limit, greet(stream, &hello)).await?
        }
        Protection::StartTls(parameters) => {
            let mut connection = trace.step("greeting", limit, greet(stream, &hello)).await?;
            let begin = async {
                connection
                    .starttls(parameters.clone(), &hello)
                    .await
                    .map_err(|error| transient(words(&error)))?;
                Ok(((), "STARTTLS; the certificate is trusted".to_owned()))
            };
            trace.step("TLS", limit, begin).await?;
            connection
        }
    };
    if let Some((user, file)) = settings.user.as_ref().zip(settings.password_file.as_ref()) {
        let login = async {
            // Read each time: a new password counts without a restart.
            let password = super::password(file).map_err(transient)?;
            let credentials = Credentials::new(user.clone(), password);
            let answer = connection.auth(DEFAULT_MECHANISMS, &credentials).await;
            answered(answer, |error| transient(words(error)))
        };
        trace.step("login", limit, login).await?;
    }
    Ok(connection)
}

/// From the sender's address to the server's receipt.
async fn hand_over(
    connection: &mut AsyncSmtpConnection,
    limit: Duration,
    envelope: &Envelope<'_>,
    outgoing: &Outgoing<'_>,
    trace: &mut Trace,
) -> Result<(), SendError> {
    let sender = async {
        let options = mail_options(connection, envelope)?;
        let mail = Mail::new(Some(envelope.from.clone()), options);
        answered(connection.command(mail).await, refused)
    };
    trace.step("sender", limit, sender).await?;
    let recipient = async {
        let rcpt = Rcpt::new(envelope.to.clone(), Vec::new());
        answered(connection.command(rcpt).await, recipient_refused)
    };
    trace.step("recipient", limit, recipient).await?;
    // The steps so far may have taken long.
    if !(outgoing.still_wanted)().await {
        return Err(SendError::Cancelled);
    }
    let data = async {
        connection
            .command(Data)
            .await
            .map_err(|error| refused(&error))?;
        answered(connection.message(envelope.message).await, |error| {
            refused(error)
        })
    };
    trace.step("hand over", limit, data).await
}

async fn resolve(host: &str, port: u16) -> Result<(Vec<SocketAddr>, String), Fault> {
    let found = tokio::net::lookup_host((host, port))
        .await
        .map_err(|error| transient(format_args!("{host}: {error}")))?;
    let list: Vec<SocketAddr> = found.collect();
    let text: Vec<String> = list.iter().map(ToString::to_string).collect();
    if list.is_empty() {
        return Err(transient(format_args!("{host} has no address")));
    }
    Ok((list, text.join(", ")))
}

/// Connects to the first address that answers.
async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<(TcpStream, String), Fault> {
    let mut failed = Vec::new();
    for address in addresses {
        match tokio::time::timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address.to_string())),
            Ok(Err(error)) => failed.push(format!("{address}: {error}")),
            Err(_) => failed.push(format!(
                "{address}: no answer within {} ms",
                limit.as_millis()
            )),
        }
    }
    Err(transient(failed.join("; ")))
}

async fn begin_tls(
    connector: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> Result<(Encrypted, String), Fault> {
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| transient(format_args!("{host}: {error}")))?;
    let stream = connector.connect(name, stream).await.map_err(transient)?;
    Ok((Encrypted(stream), "the certificate is trusted".to_owned()))
}

/// Waits for the server's greeting and says EHLO.
async fn greet(
    stream: impl AsyncTokioStream + 'static,
    hello: &ClientId,
) -> Result<(AsyncSmtpConnection, String), Fault> {
    let connection = AsyncSmtpConnection::connect_with_transport(Box::new(stream), hello)
        .await
        .map_err(|error| transient(words(&error)))?;
    let name = connection.server_info().name().to_owned();
    Ok((connection, name))
}

/// Options of MAIL FROM. Addresses outside ASCII need a server that says it takes them (RFC 6531):
/// one that does not refuses this recipient alone.
fn mail_options(
    connection: &AsyncSmtpConnection,
    envelope: &Envelope<'_>,
) -> Result<Vec<MailParameter>, Fault> {
    let is_ascii = |address: &Address| address.to_string().is_ascii();
    let mut options = Vec::new();
    if !is_ascii(envelope.from) || !is_ascii(envelope.to) {
        if !connection
            .server_info()
            .supports_feature(Extension::SmtpUtfEight)
        {
            let text = "the server does not support addresses outside ASCII (SMTPUTF8)";
            return Err((Failure::Final, text.to_owned()));
        }
        options.push(MailParameter::SmtpUtfEight);
    }
    if !envelope.message.is_ascii() {
        options.push(MailParameter::Body(MailBodyParameter::EightBitMime));
    }
    Ok(options)
}

fn answered(
    answer: Result<Response, Error>,
    fault: impl Fn(&Error) -> Fault,
) -> Result<((), String), Fault> {
    match answer {
        Ok(response) => {
            let lines: Vec<&str> = response.message().collect();
            Ok(((), format!("{} {}", response.code(), lines.join(" "))))
        }
        Err(error) => Err(fault(&error)),
    }
}

/// A refusal of sender or content: it may be a mistake in the settings.
fn refused(error: &Error) -> Fault {
    if error.is_permanent() {
        (Failure::LooksPermanent, words(error))
    } else {
        transient(words(error))
    }
}

/// A refusal of the recipient: final if it is about the mailbox, and not about this client.
fn recipient_refused(error: &Error) -> Fault {
    let words = words(error);
    match error.status() {
        Some(code) if error.is_permanent() && is_about_mailbox(u16::from(code), &words) => {
            (Failure::Final, words)
        }
        _ => refused(error),
    }
}

/// Whether a permanent refusal says that there is no such mailbox. `words` begins with the code; an
/// enhanced code (RFC 3463) after it counts more.
fn is_about_mailbox(code: u16, words: &str) -> bool {
    let enhanced = words.split_whitespace().nth(1).unwrap_or_default();
    if let Some(detail) = enhanced.strip_prefix("5.") {
        // 5.1.7 and 5.1.8 are about the sender; 5.2.1 is a mailbox that is disabled.
        return detail.starts_with("1.") && !matches!(detail, "1.7" | "1.8") || detail == "2.1";
    }
    matches!(code, 550 | 551 | 553) && !words.to_lowercase().contains("relay")
}

/// The server's words with their code, or what else went wrong.
fn words(error: &Error) -> String {
    let mut text = error
        .status()
        .map_or_else(String::new, |code| format!("{code} "));
    let mut source = std::error::Error::source(error);
    if source.is_none() {
        text.push_str(&error.to_string());
    }
    let mut last = String::new();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Many errors repeat their cause.
        if !last.contains(&words) {
            if !last.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&words);
        }
        last = words;
        source = cause.source();
    }
    text
}

/// A connection under TLS, for lettre.
#[derive(Debug)]
struct Encrypted(TlsStream<TcpStream>);

impl AsyncTokioStream for Encrypted {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.get_ref().0.peer_addr()
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> task::Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> task::Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_missing_mailbox_is_final() {
        let cases = [
            (550, "550 5.1.1 no such user", true),
            (550, "550 5.1.10 null MX", true),
            (553, "553 5.1.3 bad syntax", true),
            (550, "550 5.2.1 mailbox disabled", true),
            (550, "550 Unknown user", true),
            (550, "550 5.7.1 client host blocked", false),
            (554, "554 5.7.1 Relay access denied", false),
            (550, "550 relay not permitted", false),
            (530, "530 5.7.0 must authenticate first", false),
            (552, "552 5.2.2 mailbox full", false),
            (550, "550 5.1.8 sender's domain not found", false),
            (554, "554 rejected", false),
        ];
        for (code, words, expected) in cases {
            assert_eq!(is_about_mailbox(code, words), expected, "{words}");
        }
    }
}
