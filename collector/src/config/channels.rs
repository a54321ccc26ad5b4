//! Settings of the channels by which messages reach people, and the checks of the values. What is in
//! the files that they name is checked by [`crate::notify::problems`].

use std::path::PathBuf;

use lettre::message::Mailbox;
use serde::{Deserialize, Serialize};

/// Most recipients of one tier.
const MAX_RECIPIENTS: usize = 50;
/// Bounds of the time-outs, milliseconds.
const TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=120_000;
/// Time-out by default, milliseconds.
const DEFAULT_TIMEOUT_MS: u64 = 15_000;

/// Mail by SMTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mail {
    /// Host name of the server.
    pub host: String,
    pub port: u16,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: MailTls,
    /// A PEM file with certificate authorities that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// Login name, if the server wants one.
    pub user: Option<String>,
    /// A file that holds the password. Read at each delivery.
    pub password_file: Option<PathBuf>,
    /// Sender.
    pub from: String,
    /// Recipients of tier 1.
    pub to: Vec<String>,
    /// Recipients of escalated messages; empty: those of tier 1 get them.
    #[serde(default)]
    pub tier2_to: Vec<String>,
    /// How long one step of a delivery may take, milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

/// How a mail connection is protected.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MailTls {
    /// STARTTLS, refused if the server has none (RFC 3207).
    #[default]
    StartTls,
    /// TLS from the first byte (RFC 8314).
    Implicit,
    /// None: only for a relay on this machine.
    None,
}

/// A signed webhook.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to `POST`.
    pub url: String,
    /// Where to `POST` escalated messages; without it they go to `url` too.
    pub tier2_url: Option<String>,
    /// A file that holds the key of the HMAC-SHA-256 signature. Read at each delivery.
    pub secret_file: PathBuf,
    /// A PEM file with certificate authorities that are trusted in addition to the system's.
    pub ca_file: Option<PathBuf>,
    /// How long a delivery may take, milliseconds.
    #[serde(default = "default_timeout_ms")]
    pub timeout_ms: u64,
}

const fn default_timeout_ms() -> u64 {
    DEFAULT_TIMEOUT_MS
}

impl Mail {
    /// Values that can't be used, one line each, with their key.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.host.trim().is_empty() {
            problems.push("mail.host: the name of a mail server".to_owned());
        }
        if self.to.is_empty() {
            problems.push("mail.to: at least one address".to_owned());
        }
        let from = std::slice::from_ref(&self.from);
        for (key, list) in [
            ("mail.from", from),
            ("mail.to", &self.to),
            ("mail.tier2_to", &self.tier2_to),
        ] {
            if list.len() > MAX_RECIPIENTS {
                problems.push(format!("{key}: at most {MAX_RECIPIENTS} addresses"));
            }
            for address in list {
                if let Err(error) = address.parse::<Mailbox>() {
                    let error = error.to_string().to_lowercase();
                    problems.push(format!("{key}: `{address}` is not a mail address: {error}"));
                }
            }
        }
        match (&self.user, &self.password_file) {
            (Some(_), None) => problems.push("mail.user needs mail.password_file".to_owned()),
            (None, Some(_)) => problems.push("mail.password_file needs mail.user".to_owned()),
            _ => {}
        }
        if self.tls == MailTls::None && self.ca_file.is_some() {
            problems.push("mail.ca_file is of no use with mail.tls = \"none\"".to_owned());
        }
        problems.extend(timeout_problem("mail", self.timeout_ms));
        problems
    }
}

impl Webhook {
    /// Values that can't be used, one line each, with their key.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let urls = [
            ("webhook.url", Some(&self.url)),
            ("webhook.tier2_url", self.tier2_url.as_ref()),
        ];
        for (key, url) in urls {
            // The address may hold a secret of the receiver's: it is not printed.
            if let Some(url) = url
                && !is_http(url)
            {
                problems.push(format!("{key}: not an address as in https://HOST/PATH"));
            }
        }
        problems.extend(timeout_problem("webhook", self.timeout_ms));
        problems
    }
}

fn is_http(url: &str) -> bool {
    reqwest::Url::parse(url)
        .is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.has_host())
}

fn timeout_problem(section: &str, ms: u64) -> Option<String> {
    let (first, last) = (TIMEOUT_MS.start(), TIMEOUT_MS.end());
    (!TIMEOUT_MS.contains(&ms))
        .then(|| format!("{section}.timeout_ms: {ms} is outside {first} to {last}"))
}
