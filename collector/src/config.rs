//! The collector's settings, as written (`Raw…`) and as checked. All problems are reported at
//! once, with their key. `check-config` and `serve` use the same code.

mod channels;
mod policy;
mod record;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;
use watchkeep_core::{
    policy::Layer,
    rules::RulePack,
    tickets::{Paging, PagingSettings},
};
use watchkeep_shared::{
    DurationMs,
    settings::{self, Loaded},
};

use crate::store::StoreUrl;
pub use channels::{Mail, MailTls, Webhook};
pub use policy::PolicySection;
pub use record::{History, Tickets};

/// The rule pack that is used when the settings name none.
pub const DEFAULT_RULES: &str = include_str!("../../config/rules/default.toml");

/// Highest rate and largest burst of requests that can be set.
const MAX_RATE: u32 = 100_000;
/// Memory of the queue that can be set, MiB; a batch has at most 4.
const QUEUE_MIB: std::ops::RangeInclusive<u32> = 8..=65_536;
/// Longest time over which agents' renewals may be spread, seconds.
const MAX_RENEW_WITHIN_S: u32 = 7 * 24 * 3_600;

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The settings file, for command lines that people copy.
    pub file: String,
    /// Environment variables with our prefix that are no settings of ours.
    pub ignored_variables: Vec<String>,
    /// Keys, the CA and, unless another store is named, the SQLite store.
    pub data_dir: PathBuf,
    pub store: StoreUrl,
    /// The agents' port.
    pub agents: Agents,
    /// The web port.
    pub web: Web,
    pub rules: RulePack,
    /// When silence becomes an alert.
    pub silence: Silence,
    /// What all agents are asked to watch.
    pub policy: Layer,
    /// Who is woken for what, where no contract says otherwise.
    pub paging: Arc<Paging>,
    /// How long history is kept.
    pub history: History,
    /// Limits on tickets.
    pub tickets: Tickets,
    /// Where mail goes, if anywhere.
    pub mail: Option<Mail>,
    /// Where webhooks go, if anywhere.
    pub webhook: Option<Webhook>,
}

/// The agents' port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agents {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The URL that agents connect to; its host name must be in `names`.
    pub public_url: String,
    /// Further names and addresses in the server's certificate.
    pub names: Vec<String>,
    /// Validity of agents' certificates, seconds.
    pub certificate_s: u32,
    /// While the CA is replaced, agents renew their certificates spread over this time, seconds.
    pub renew_within_s: u32,
    /// Connections open at once.
    pub max_connections: usize,
    /// Connections open at once from one address; many hosts may share one.
    pub max_connections_per_address: usize,
    /// TLS handshakes computed at once.
    pub max_handshakes: usize,
    /// Batches waiting to be decided on; more are answered 503.
    pub queue_batches: usize,
    /// Memory of the batches that wait, MiB of JSON; more are answered 503.
    pub queue_mib: u32,
    /// Requests a second of one host; more are answered 429.
    pub requests_per_s: u32,
    /// Requests at once of a host that was quiet.
    pub requests_burst: u32,
    /// Enrolments a second from one address; more are answered 429.
    pub enrolments_per_s: u32,
    /// Enrolments at once from an address that was quiet.
    pub enrolments_burst: u32,
}

/// The web port.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// Address and port to listen on.
    pub listen: SocketAddr,
    /// The address that people type, used in links.
    pub public_url: String,
    /// A certificate chain in PEM; without it the collector's own CA signs one.
    pub certificate: Option<PathBuf>,
    /// Its key in PEM.
    pub key: Option<PathBuf>,
    /// The name of the operator of this collector, for printed reports.
    pub provider: String,
    /// Connections open at once.
    pub max_connections: usize,
    /// Connections open at once from one address; an office behind one address shares it.
    pub max_connections_per_address: usize,
    /// Oldest TLS version that is accepted. 1.2 is for reverse proxies that can't do more.
    pub min_tls: MinTls,
    /// A file that holds a token; a client that sends it as `Authorization: Bearer` may read `/metrics`
    /// and the details of `/readyz` from anywhere. Without it only this machine may.
    pub metrics_token_file: Option<PathBuf>,
    /// Addresses of reverse proxies in front of the web port: for a request from one of them the
    /// client's address is the last one in `X-Forwarded-For` that is no proxy.
    pub trusted_proxies: Vec<std::net::IpAddr>,
}

/// The oldest TLS version of the web port.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
pub enum MinTls {
    /// 1.2 (RFC 5246) and 1.3.
    #[serde(rename = "1.2")]
    V12,
    /// 1.3 (RFC 8446) only.
    #[default]
    #[serde(rename = "1.3")]
    V13,
}

/// When silence becomes an alert.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Silence {
    /// This long after the last heartbeat, milliseconds; a slow-beating host gets two and a half
    /// intervals.
    pub after_ms: i64,
    /// No host is called silent this soon after the collector's own start, or after a hold-up of the
    /// collector ended, milliseconds: agents wait up to a minute before they connect again.
    pub grace_ms: i64,
    /// After an agent's goodbye for a shutdown or an upgrade silence counts only this long after
    /// it, milliseconds: a planned reboot pages nobody if the machine comes back in time.
    pub announced_ms: i64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawConfig {
    data_dir: PathBuf,
    #[serde(default)]
    store: RawStore,
    #[serde(default)]
    agents: Agents,
    #[serde(default)]
    web: Web,
    #[serde(default)]
    rules: RawRules,
    #[serde(default)]
    silence: Silence,
    #[serde(default)]
    policy: PolicySection,
    #[serde(default)]
    paging: PagingSettings,
    #[serde(default)]
    history: History,
    #[serde(default)]
    tickets: Tickets,
    mail: Option<Mail>,
    webhook: Option<Webhook>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStore {
    url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawRules {
    pack: Option<PathBuf>,
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 7443)),
            public_url: "https://localhost:7443".to_owned(),
            names: Vec::new(),
            certificate_s: 90 * 24 * 3_600,
            renew_within_s: 600,
            max_connections: 15_000,
            max_connections_per_address: 5_000,
            max_handshakes: 16,
            queue_batches: 4_096,
            queue_mib: 256,
            requests_per_s: 20,
            requests_burst: 100,
            enrolments_per_s: 10,
            enrolments_burst: 200,
        }
    }
}

impl Default for Web {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([0, 0, 0, 0], 8443)),
            public_url: "https://localhost:8443".to_owned(),
            certificate: None,
            key: None,
            provider: String::new(),
            max_connections: 2_000,
            max_connections_per_address: 500,
            min_tls: MinTls::default(),
            metrics_token_file: None,
            trusted_proxies: Vec::new(),
        }
    }
}

impl Default for Silence {
    fn default() -> Self {
        Self {
            after_ms: 25_000,
            grace_ms: 90_000,
            announced_ms: 300_000,
        }
    }
}

/// The settings can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("failed to read the settings {path}: {source}")]
    Read {
        /// The file.
        path: String,
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error(transparent)]
    Syntax(#[from] settings::SettingsError),
    /// Values that can't be used, all of them.
    #[error("{origin} has settings that can't be used:\n  {}", problems.join("\n  "))]
    Values {
        /// The file.
        origin: String,
        /// One line a problem.
        problems: Vec<String>,
    },
}

impl Config {
    /// Reads and checks a settings file and the environment.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let origin = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: origin.clone(),
            source,
        })?;
        Self::parse(&origin, &text, std::env::vars())
    }

    /// Checks settings given as text.
    pub fn parse(
        origin: &str,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let Loaded {
            settings: mut raw,
            ignored,
        }: Loaded<RawConfig> = settings::load_reporting(origin, text, env)?;
        let mut problems = Vec::new();
        let store = check_store(&raw, &mut problems);
        let rules = check_rules(&raw, &mut problems);
        let policy = std::mem::take(&mut raw.policy).into_layer();
        let wrong = policy.problems();
        problems.extend(wrong.into_iter().map(|line| format!("policy.{line}")));
        let paging = check_paging(&raw.paging, &mut problems);
        check_ranges(&raw, &mut problems);
        match (store, rules) {
            (Some(store), Some(rules)) if problems.is_empty() => Ok(Self {
                file: origin.to_owned(),
                store,
                rules,
                paging: Arc::new(paging),
                policy,
                ignored_variables: ignored,
                data_dir: raw.data_dir,
                agents: raw.agents,
                web: raw.web,
                silence: raw.silence,
                history: raw.history,
                tickets: raw.tickets,
                mail: raw.mail,
                webhook: raw.webhook,
            }),
            _ => Err(ConfigError::Values {
                origin: origin.to_owned(),
                problems,
            }),
        }
    }
}

impl Config {
    /// Checks the files that the settings name, as `serve` will read them. All problems are reported
    /// at once.
    pub fn check_files(&self) -> Result<(), ConfigError> {
        let mut problems = crate::notify::problems(self);
        if let (Some(chain), Some(key)) = (&self.web.certificate, &self.web.key)
            && let Err(error) = crate::identity::check_certificate(chain, key)
        {
            problems.push(format!("web.certificate, web.key: {error}"));
        }
        if problems.is_empty() {
            return Ok(());
        }
        Err(ConfigError::Values {
            origin: "the configuration".to_owned(),
            problems,
        })
    }
}

fn check_store(raw: &RawConfig, problems: &mut Vec<String>) -> Option<StoreUrl> {
    match &raw.store.url {
        None => Some(StoreUrl::Sqlite(raw.data_dir.join("watchkeep.db"))),
        Some(url) => url
            .parse()
            .map_err(|error| problems.push(format!("store.url: {error}")))
            .ok(),
    }
}

fn check_rules(raw: &RawConfig, problems: &mut Vec<String>) -> Option<RulePack> {
    let (name, text) = match &raw.rules.pack {
        None => ("the default rule pack".to_owned(), DEFAULT_RULES.to_owned()),
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => (path.display().to_string(), text),
            Err(error) => {
                problems.push(format!("rules.pack: {}: {error}", path.display()));
                return None;
            }
        },
    };
    RulePack::parse(&text)
        .map_err(|error| problems.push(format!("rules.pack: {name}: {error}")))
        .ok()
}

fn check_paging(settings: &PagingSettings, problems: &mut Vec<String>) -> Paging {
    let zone = settings.zone.as_deref().unwrap_or("UTC");
    Paging::default()
        .with(settings, zone)
        .unwrap_or_else(|error| {
            problems.push(format!("paging.zone: {error}"));
            Paging::default()
        })
}

fn check_ranges(raw: &RawConfig, problems: &mut Vec<String>) {
    if raw.silence.after_ms < 1_000 {
        problems.push("silence.after_ms: at least 1000 milliseconds".to_owned());
    }
    if raw.silence.grace_ms < 0 {
        problems.push("silence.grace_ms: not negative".to_owned());
    }
    if raw.silence.announced_ms < 0 {
        problems.push("silence.announced_ms: not negative".to_owned());
    }
    if raw.agents.certificate_s < 60 {
        problems.push("agents.certificate_s: at least 60 seconds".to_owned());
    }
    if !QUEUE_MIB.contains(&raw.agents.queue_mib) {
        problems.push(format!(
            "agents.queue_mib: {} is outside {} to {}",
            raw.agents.queue_mib,
            QUEUE_MIB.start(),
            QUEUE_MIB.end()
        ));
    }
    let rates = 1..=MAX_RATE;
    for (key, value) in [
        ("requests_per_s", raw.agents.requests_per_s),
        ("requests_burst", raw.agents.requests_burst),
        ("enrolments_per_s", raw.agents.enrolments_per_s),
        ("enrolments_burst", raw.agents.enrolments_burst),
    ] {
        if !rates.contains(&value) {
            problems.push(format!("agents.{key}: {value} is outside 1 to {MAX_RATE}"));
        }
    }
    if raw.agents.renew_within_s > MAX_RENEW_WITHIN_S {
        problems.push(format!(
            "agents.renew_within_s: at most {MAX_RENEW_WITHIN_S} seconds"
        ));
    }
    for (key, url) in [
        ("agents", &raw.agents.public_url),
        ("web", &raw.web.public_url),
    ] {
        if crate::identity::host_of(url).is_none() {
            problems.push(format!(
                "{key}.public_url: `{url}` is not https://HOST:PORT"
            ));
        }
    }
    if raw.web.certificate.is_some() != raw.web.key.is_some() {
        problems.push("web.certificate and web.key: give both or neither".to_owned());
    }
    problems.extend(raw.history.problems());
    problems.extend(raw.tickets.problems());
    problems.extend(raw.mail.iter().flat_map(Mail::problems));
    problems.extend(raw.webhook.iter().flat_map(Webhook::problems));
}

impl Silence {
    /// See [`Silence::after_ms`].
    pub const fn after(&self) -> DurationMs {
        DurationMs(self.after_ms)
    }

    /// See [`Silence::grace_ms`].
    pub const fn grace(&self) -> DurationMs {
        DurationMs(self.grace_ms)
    }

    /// See [`Silence::announced_ms`].
    pub const fn announced(&self) -> DurationMs {
        DurationMs(self.announced_ms)
    }
}
