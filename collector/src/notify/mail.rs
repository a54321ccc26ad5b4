//! E-mail over SMTP (RFC 5321).

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
    transport::smtp::authentication::Credentials,
};

use super::{Body, worker::NotifyError};
use crate::config::{Mail, MailTls};

/// A way to a mail server.
pub(super) struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer")
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

impl Mailer {
    pub(super) fn new(mail: &Mail) -> Result<Self, NotifyError> {
        let setup = |detail: String| NotifyError::Setup {
            channel: "mail",
            detail,
        };
        let host = mail.host.as_str();
        let builder = match mail.tls {
            MailTls::StartTls => AsyncSmtpTransport::<Tokio1Executor>::starttls_relay(host)
                .map_err(|error| setup(error.to_string()))?,
            MailTls::Implicit => AsyncSmtpTransport::<Tokio1Executor>::relay(host)
                .map_err(|error| setup(error.to_string()))?,
            MailTls::None => AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host),
        };
        let mut builder = builder
            .port(mail.port)
            .timeout(Some(super::worker::SEND_TIMEOUT));
        if let Some(user) = &mail.user {
            let file = mail
                .password_file
                .as_ref()
                .ok_or_else(|| setup("mail.user needs mail.password_file".to_owned()))?;
            let password = std::fs::read_to_string(file)
                .map_err(|error| setup(format!("{}: {error}", file.display())))?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            builder = builder.credentials(Credentials::new(user.clone(), password));
        }
        let mailbox = |text: &String| {
            text.parse::<Mailbox>()
                .map_err(|error| setup(format!("address {text}: {error}")))
        };
        Ok(Self {
            transport: builder.build(),
            from: mailbox(&mail.from)?,
            to: mail.to.iter().map(mailbox).collect::<Result<_, _>>()?,
        })
    }

    pub(super) async fn send(&self, body: &Body, kind: &str) -> Result<(), NotifyError> {
        let mut builder = Message::builder()
            .from(self.from.clone())
            .subject(subject(body))
            // One thread a ticket in mail programs.
            .references(format!("<ticket-{}@watchkeep>", body.ticket_id))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            builder = builder.to(to.clone());
        }
        let message = builder
            .body(text(body, kind))
            .map_err(|error| NotifyError::Final(error.to_string()))?;
        match self.transport.send(message).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_permanent() => Err(NotifyError::Final(error.to_string())),
            Err(error) => Err(NotifyError::Again(error.to_string())),
        }
    }
}

fn subject(body: &Body) -> String {
    let what = body.event.replace('_', " ");
    format!("[#{} {} {what}] {}", body.number, body.priority, body.title)
}

fn text(body: &Body, kind: &str) -> String {
    let mut text = format!(
        "{}\n\nTicket #{}, priority {}, severity {}, {}.\n",
        body.title, body.number, body.priority, body.severity, body.state
    );
    for line in &body.evidence {
        text.push_str("\n  ");
        text.push_str(line);
    }
    let ask = if kind == "page" {
        "Acknowledge it here"
    } else {
        "See"
    };
    text.push_str("\n\n");
    text.push_str(ask);
    text.push_str(": ");
    text.push_str(&body.url);
    text.push('\n');
    text
}
