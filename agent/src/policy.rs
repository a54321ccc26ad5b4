//! What of the MSP's policy is done, and what the customer's configuration refuses. Pure but for the
//! file that keeps the last policy over a restart.

mod windows;

use std::{
    net::IpAddr,
    path::{Component, Path},
};

use watchkeep_shared::wire::{
    limits::{DEFAULT_INTERVAL_MS, MAX_INTERVAL_MS, MAX_SERVICES_PER_FRAME, MIN_INTERVAL_MS},
    policy::{Item, JournalFilter, LogCheck, Policy, Refusal, ServiceCheck},
};

use crate::{
    config::Limits,
    files::{self, Durability},
};

#[cfg(any(test, fuzzing))]
pub mod fuzz;

const FILE: &str = "policy.json";
/// Most log rules of a policy; each costs memory in the automaton that looks for them all.
const MAX_LOG_RULES: usize = 256;

/// What the agent does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effective {
    /// Version of the policy it comes from; 0 without one.
    pub version: u64,
    /// Time between heartbeats, milliseconds.
    pub interval_ms: u32,
    /// Services to watch, each key once.
    pub services: Vec<ServiceCheck>,
    /// Logs to follow.
    pub logs: Vec<LogCheck>,
    /// What is not done, and why.
    pub refused: Vec<Refusal>,
}

impl Effective {
    /// Before there is a policy: heartbeats at the default interval and nothing else.
    pub fn without_policy(limits: &Limits) -> Self {
        Self {
            interval_ms: DEFAULT_INTERVAL_MS.max(limits.min_interval_ms),
            ..Self::default()
        }
    }

    /// Applies the customer's caps. `is_local` says whether an address is one of this machine's.
    pub fn new(policy: &Policy, limits: &Limits, is_local: &dyn Fn(IpAddr) -> bool) -> Self {
        let mut effective = Self {
            version: policy.version,
            ..Self::default()
        };
        effective.interval_ms = effective.interval(policy.interval_ms, limits);
        for item in &policy.services {
            match item {
                Item::Known(check) => effective.service(check, limits, is_local),
                Item::Unknown(value) => effective.unknown_service(value),
            }
        }
        for check in &policy.logs {
            effective.log(check, limits);
        }
        effective
    }

    fn refuse(&mut self, item: String, reason: impl Into<String>) {
        self.refused.push(Refusal {
            item,
            reason: reason.into(),
        });
    }

    fn interval(&mut self, asked: u32, limits: &Limits) -> u32 {
        if asked < limits.min_interval_ms {
            let floor = limits.min_interval_ms;
            self.refuse(
                "interval".to_owned(),
                format!("{asked} ms is below the local limits.min_interval_ms = {floor}"),
            );
        }
        asked
            .max(limits.min_interval_ms)
            .clamp(MIN_INTERVAL_MS, MAX_INTERVAL_MS)
    }

    fn service(
        &mut self,
        check: &ServiceCheck,
        limits: &Limits,
        is_local: &dyn Fn(IpAddr) -> bool,
    ) {
        let key = check.key();
        if self.services.iter().any(|known| known.key() == key) {
            return;
        }
        let allowed = if self.services.len() >= MAX_SERVICES_PER_FRAME {
            Err(format!("more than {MAX_SERVICES_PER_FRAME} services"))
        } else {
            allowed_service(check, limits, is_local).map_err(str::to_owned)
        };
        match allowed {
            Ok(()) => self.services.push(check.clone()),
            Err(reason) => self.refuse(key, reason),
        }
    }

    fn unknown_service(&mut self, value: &serde_json::Value) {
        let kind = value.get("type").and_then(serde_json::Value::as_str);
        let mut kind = kind.unwrap_or("without a type").to_owned();
        kind.truncate(kind.floor_char_boundary(64));
        let version = crate::VERSION;
        self.refuse(
            "services".to_owned(),
            format!(
                "this agent's version ({version}) does not know services of the kind \"{kind}\" in this form"
            ),
        );
    }

    fn log(&mut self, check: &LogCheck, limits: &Limits) {
        let item = format!("log:{}", check.path);
        let allowed = match (&check.journal, &check.event_log) {
            (Some(_), Some(_)) => Err("either \"journal\" or \"event_log\", not both".to_owned()),
            (Some(filter), None) => allowed_journal(&check.path, filter, limits),
            (None, Some(_)) => windows::allowed_event_log(&check.path, limits),
            (None, None) => allowed_log(&check.path, limits),
        };
        if let Err(reason) = allowed {
            self.refuse(item, reason);
            return;
        }
        if let Some(Err(error)) = check
            .record_start
            .as_deref()
            .map(crate::logs::check_pattern)
        {
            self.refuse(item, format!("record_start: {error}"));
            return;
        }
        let mut rules = Vec::new();
        let known: usize = self.logs.iter().map(|log| log.rules.len()).sum();
        for rule in &check.rules {
            if known + rules.len() >= MAX_LOG_RULES {
                let reason = format!("rule {}: more than {MAX_LOG_RULES} log rules", rule.name);
                self.refuse(item.clone(), reason);
                continue;
            }
            match crate::logs::check_pattern(&rule.pattern) {
                Ok(()) => rules.push(rule.clone()),
                Err(error) => {
                    self.refuse(item.clone(), format!("rule {}: {error}", rule.name));
                }
            }
        }
        if !rules.is_empty() {
            self.logs.push(LogCheck {
                rules,
                ..check.clone()
            });
        }
    }
}

/// Whether the customer would allow this service.
pub fn allows(check: &ServiceCheck, limits: &Limits) -> bool {
    allowed_service(check, limits, &is_local).is_ok()
}

/// Whether a service makes sense and the customer allows it.
fn allowed_service(
    check: &ServiceCheck,
    limits: &Limits,
    is_local: &dyn Fn(IpAddr) -> bool,
) -> Result<(), &'static str> {
    match check {
        ServiceCheck::Process { name, .. } => allowed_process(name, limits),
        ServiceCheck::Tcp { address } | ServiceCheck::Tls { address, .. } => {
            allowed_endpoint(address, limits, is_local)
        }
        ServiceCheck::Systemd { unit } => allowed_unit(unit, limits),
        ServiceCheck::WindowsService { name } => windows::allowed_service(name, limits),
        ServiceCheck::Http { url, .. } => match address_of(url) {
            Some(address) => allowed_endpoint(&address, limits, is_local),
            None => Err("not http:// or https://, a host and a path, without a password"),
        },
        ServiceCheck::Certificate { path } => allowed_certificate(path, limits),
    }
}

fn allowed_process(name: &str, limits: &Limits) -> Result<(), &'static str> {
    if name.is_empty() || name.contains('/') || name.len() > 255 {
        return Err("a process name is 1 to 255 bytes without a slash");
    }
    match &limits.processes {
        Some(allowed) if !allowed.iter().any(|a| a == name) => {
            Err("not in the local limits.processes")
        }
        _ => Ok(()),
    }
}

/// `systemd.unit(5)`, "String Escaping for Inclusion in Unit Names": letters, digits and `:-_.\@`, and a
/// known suffix.
fn allowed_unit(unit: &str, limits: &Limits) -> Result<(), &'static str> {
    const SUFFIXES: [&str; 9] = [
        "service",
        "socket",
        "timer",
        "mount",
        "path",
        "target",
        "slice",
        "swap",
        "automount",
    ];
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    let has_suffix = unit
        .rsplit_once('.')
        .is_some_and(|(name, suffix)| !name.is_empty() && SUFFIXES.contains(&suffix));
    if !has_suffix || unit.len() > 255 || !unit.chars().all(is_plain) {
        return Err("not the full name of a unit, as in nginx.service");
    }
    match &limits.units {
        Some(allowed) if !allowed.iter().any(|one| one.allows(Path::new(unit))) => {
            Err("not in the local limits.units")
        }
        _ => Ok(()),
    }
}

fn allowed_endpoint(
    address: &str,
    limits: &Limits,
    is_local: &dyn Fn(IpAddr) -> bool,
) -> Result<(), &'static str> {
    let host = host_of(address).ok_or("not HOST:PORT, as in 127.0.0.1:5432")?;
    let local = host == "localhost" || host.parse().is_ok_and(is_local);
    if local || limits.tcp.iter().any(|allowed| allowed == address) {
        Ok(())
    } else {
        Err("not an address of this machine, nor in the local limits.tcp")
    }
}

fn allowed_certificate(path: &str, limits: &Limits) -> Result<(), &'static str> {
    let path = Path::new(path);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    if !path.is_absolute() || climbs {
        return Err("not an absolute path without \"..\"");
    }
    let allowed = &limits.certificate_paths;
    if allowed.iter().any(|one| one.allows(path)) {
        Ok(())
    } else {
        Err("not within the local limits.certificate_paths")
    }
}

/// `HOST:PORT` of a URL that may be probed: HTTP or HTTPS, no user or password in it.
pub fn address_of(url: &str) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none();
    let host = url.host_str().filter(|_| plain)?;
    Some(format!("{host}:{}", url.port_or_known_default()?))
}

/// Whether the customer allows what a policy wants of the journal.
fn allowed_journal(path: &str, filter: &JournalFilter, limits: &Limits) -> Result<(), String> {
    if path != "journal" {
        return Err("the path of a log with \"journal\" is \"journal\"".to_owned());
    }
    match &limits.journal_units {
        None => Ok(()),
        Some(allowed)
            if !filter.units.is_empty()
                && filter.units.iter().all(|unit| allowed.contains(unit)) =>
        {
            Ok(())
        }
        Some(_) => Err("not only units of the local limits.journal_units".to_owned()),
    }
}

/// Whether the customer allows a policy's path or glob. A glob is allowed if its own text matches
/// an allowed one, or if everything below its fixed part is; each file that it finds is checked
/// again, after symbolic links are followed.
fn allowed_log(path: &str, limits: &Limits) -> Result<(), String> {
    let as_path = Path::new(path);
    if !as_path.is_absolute() {
        return Err("not an absolute path or glob".to_owned());
    }
    if as_path
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return Err("\"..\" is not allowed in a path".to_owned());
    }
    globset::Glob::new(path).map_err(|error| error.to_string())?;
    if limits
        .log_paths
        .iter()
        .any(|allowed| allowed.allows(as_path))
    {
        Ok(())
    } else {
        Err("not within the local limits.log_paths".to_owned())
    }
}

/// The host of `HOST:PORT`, without the brackets of an IPv6 address.
fn host_of(address: &str) -> Option<&str> {
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok().filter(|port| *port > 0)?;
    let host = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    (!host.is_empty() && host.len() <= 255).then_some(host)
}

/// Whether an address is one of this machine's own: loopback, or one that a socket can be bound to.
pub fn is_local(address: IpAddr) -> bool {
    address.is_loopback() || std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Reads the policy that was last in force.
pub fn load(state_dir: &Path) -> Option<Policy> {
    files::read_json(&state_dir.join(FILE))
        .inspect_err(|error| tracing::warn!(%error, "the stored policy can't be read"))
        .ok()
        .flatten()
}

/// Removes the stored policy.
pub fn forget(state_dir: &Path) -> std::io::Result<()> {
    std::fs::remove_file(state_dir.join(FILE))
}

/// Keeps the policy for the next start; without it the agent asks for it again.
pub fn store(state_dir: &Path, policy: &Policy) {
    if let Err(error) = files::write_json(&state_dir.join(FILE), policy, Durability::Cached) {
        tracing::warn!(%error, "the policy could not be stored");
    }
}

#[cfg(test)]
mod tests;
