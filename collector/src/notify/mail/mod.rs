//! Mail over SMTP (RFC 5321): one message, one recipient, one session. A recipient that is refused
//! therefore never holds back another.

mod compose;
mod smtp;

use std::{path::Path, time::Duration};

use lettre::{
    message::Mailbox,
    transport::smtp::client::{Certificate, CertificateStore, TlsParameters},
};
use rustls_pki_types::CertificateDer;
use watchkeep_core::delivery::Failure;

use super::{
    channel::{Channel, Outgoing, SendError, Sending, Trace},
    endpoint::MAIL,
    trust,
};
use crate::{
    config::{Config, Mail, MailTls},
    identity::host_of,
};

/// Sessions at once: large providers allow a mailbox three.
const MAX_SENDS: usize = 3;

/// The way to a mail server.
pub(super) struct Mailer {
    settings: Mail,
    from: Mailbox,
    /// The right side of message identifiers.
    id_domain: String,
    protection: Protection,
    timeout: Duration,
}

/// How the connection is protected, with the settings of TLS in the form that each way needs.
enum Protection {
    None,
    StartTls(TlsParameters),
    Implicit(std::sync::Arc<rustls::ClientConfig>),
}

impl std::fmt::Debug for Mailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailer")
            .field("host", &self.settings.host)
            .finish_non_exhaustive()
    }
}

impl Mailer {
    pub(super) fn new(config: &Config, mail: &Mail) -> Result<Self, String> {
        let roots = match mail.tls {
            MailTls::None => Vec::new(),
            MailTls::StartTls | MailTls::Implicit => {
                trust::roots(mail.ca_file.as_deref()).map_err(|e| format!("mail.tls: {e}"))?
            }
        };
        let protection = match mail.tls {
            MailTls::None => Protection::None,
            MailTls::StartTls => Protection::StartTls(parameters(&mail.host, &roots)?),
            MailTls::Implicit => Protection::Implicit(trust::client(&roots)?),
        };
        let from = mail.from.parse();
        Ok(Self {
            settings: mail.clone(),
            from: from.map_err(|error| format!("mail.from: {error}"))?,
            id_domain: id_domain(&config.web.public_url),
            protection,
            timeout: Duration::from_millis(mail.timeout_ms),
        })
    }

    async fn send(&self, outgoing: &Outgoing<'_>, trace: &mut Trace) -> Result<(), SendError> {
        let to = compose::recipient(outgoing.recipient)
            .map_err(|error| SendError::failed(Failure::Final, "address", &error))?;
        let message = compose::message(self, &to, outgoing)
            .map_err(|error| SendError::failed(Failure::Final, "compose", &error))?;
        let envelope = smtp::Envelope {
            from: &self.from.email,
            to: &to,
            message: &message,
        };
        smtp::send(self, &envelope, outgoing, trace).await
    }
}

impl Channel for Mailer {
    fn name(&self) -> &'static str {
        MAIL
    }

    fn max_sends(&self) -> usize {
        MAX_SENDS
    }

    fn deliver<'a>(
        &'a self,
        outgoing: &'a Outgoing<'_>,
        trace: &'a mut Trace,
    ) -> Sending<'a, Result<(), SendError>> {
        Box::pin(self.send(outgoing, trace))
    }
}

/// TLS settings in lettre's form, for STARTTLS.
fn parameters(host: &str, roots: &[CertificateDer<'static>]) -> Result<TlsParameters, String> {
    let mut builder =
        TlsParameters::builder(host.to_owned()).certificate_store(CertificateStore::None);
    for root in roots {
        // Systems carry certificates that rustls does not read; the others count.
        if webpki_reads(root)
            && let Ok(certificate) = Certificate::from_der(root.to_vec())
        {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder
        .build()
        .map_err(|error| format!("mail.tls: {error}"))
}

fn webpki_reads(root: &CertificateDer<'static>) -> bool {
    rustls::RootCertStore::empty().add(root.clone()).is_ok()
}

/// The password in a file, without line ends behind it.
pub(super) fn password(file: &Path) -> Result<String, String> {
    let named = |detail: &dyn std::fmt::Display| format!("{}: {detail}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err(named(&"the file is empty"));
    }
    Ok(password.to_owned())
}

/// The collector's name in message identifiers (RFC 5322, 3.6.4).
fn id_domain(public_url: &str) -> String {
    let host = host_of(public_url).unwrap_or_else(|| "watchkeep.invalid".to_owned());
    if host.contains(':') {
        format!("[IPv6:{host}]")
    } else {
        host
    }
}
