//! A message as a mail (RFC 5322, MIME). Pure.

use std::time::{Duration, SystemTime};

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{Header, HeaderName, HeaderValue},
    },
};

use super::Mailer;
use crate::notify::{Body, channel::Outgoing, text};

/// `Auto-Submitted: auto-generated` (RFC 3834): no auto-reply, no out-of-office note.
#[derive(Clone, Debug)]
struct AutoSubmitted;

/// The same for Exchange, which knows a header of its own.
#[derive(Clone, Debug)]
struct SuppressResponses;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Header for AutoSubmitted {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("Auto-Submitted")
    }

    fn parse(_: &str) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "auto-generated".to_owned())
    }
}

impl Header for SuppressResponses {
    fn name() -> HeaderName {
        HeaderName::new_from_ascii_str("X-Auto-Response-Suppress")
    }

    fn parse(_: &str) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn display(&self) -> HeaderValue {
        HeaderValue::new(Self::name(), "All".to_owned())
    }
}

/// The address of a recipient. The domain is written in ASCII (IDNA), so that only a local part
/// outside ASCII needs a server with SMTPUTF8.
pub(super) fn recipient(text: &str) -> Result<Address, String> {
    let address: Address = text.parse().map_err(|error| format!("{text}: {error}"))?;
    if address.domain().is_ascii() {
        return Ok(address);
    }
    let url = reqwest::Url::parse(&format!("http://{}/", address.domain()))
        .map_err(|error| format!("{text}: {error}"))?;
    let domain = url.host_str().unwrap_or_default();
    Address::new(address.user(), domain).map_err(|error| format!("{text}: {error}"))
}

/// The mail as it goes over the wire.
pub(super) fn message(
    mailer: &Mailer,
    to: &Address,
    outgoing: &Outgoing<'_>,
) -> Result<Vec<u8>, String> {
    let body = outgoing.body;
    let at = Duration::from_millis(u64::try_from(body.at_ms).unwrap_or(0));
    let own_id = message_id(body, outgoing.message, &mailer.id_domain);
    let mut builder = Message::builder()
        .from(mailer.from.clone())
        .to(Mailbox::new(None, to.clone()))
        .date(SystemTime::UNIX_EPOCH + at)
        .message_id(Some(own_id.clone()))
        .subject(text::subject(body))
        .header(AutoSubmitted)
        .header(SuppressResponses);
    // One thread a ticket: all others answer the message of its opening.
    if let Some(root) = thread_id(body, &mailer.id_domain).filter(|root| *root != own_id) {
        builder = builder.in_reply_to(root.clone()).references(root);
    }
    let content = MultiPart::alternative_plain_html(text::plain(body), text::html(body));
    let message = builder
        .multipart(content)
        .map_err(|error| error.to_string())?;
    Ok(message.formatted())
}

/// The same in every attempt and for every recipient, so that a repeat is known as one.
fn message_id(body: &Body, message: i64, domain: &str) -> String {
    match thread_id(body, domain) {
        Some(root) if body.event == "opened" => root,
        _ => format!("<{message}@{domain}>"),
    }
}

/// The identifier of the message of a ticket's opening.
fn thread_id(body: &Body, domain: &str) -> Option<String> {
    let ticket = body.ticket_id.as_ref()?;
    Some(format!("<ticket-{ticket}@{domain}>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_outside_ascii_is_written_in_ascii() {
        let address = recipient("ada@bücher.example").unwrap();
        assert_eq!(address.to_string(), "ada@xn--bcher-kva.example");
        assert_eq!(
            recipient("jürgen@bücher.example").unwrap().to_string(),
            "jürgen@xn--bcher-kva.example"
        );
        assert_eq!(
            recipient("ops@[192.0.2.1]").unwrap().to_string(),
            "ops@[192.0.2.1]"
        );
        assert!(recipient("nobody").is_err());
    }
}
