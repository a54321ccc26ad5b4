//! What of the MSP's policy is done, and what the customer's configuration refuses. Pure but for the
//! file that keeps the last policy over a restart.

use std::{
    net::IpAddr,
    path::{Component, Path},
};

use watchkeep_shared::wire::{
    limits::{DEFAULT_INTERVAL_MS, MAX_INTERVAL_MS, MAX_SERVICES_PER_FRAME, MIN_INTERVAL_MS},
    policy::{Item, LogCheck, Policy, Refusal, ServiceCheck},
};

use crate::{
    config::Limits,
    files::{self, Durability},
};

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
        if let Err(reason) = allowed_log(&check.path, limits) {
            self.refuse(item, reason);
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
                path: check.path.clone(),
                rules,
            });
        }
    }
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
mod tests {
    use watchkeep_shared::wire::policy::LogRule;

    use super::*;
    use crate::config::AllowedPath;

    fn limits() -> Limits {
        Limits {
            log_paths: vec![AllowedPath::new("/var/log/**").unwrap()],
            min_interval_ms: 1_000,
            processes: Some(vec!["nginx".to_owned()]),
            units: Some(vec![AllowedPath::new("web-*.service").unwrap()]),
            failed_units: true,
            probe_ca: None,
            insecure_probes: Vec::new(),
            certificate_paths: vec![AllowedPath::new("/etc/ssl/**").unwrap()],
            tcp: vec!["db.example:5432".to_owned()],
        }
    }

    fn tcp(address: &str) -> Item<ServiceCheck> {
        Item::Known(ServiceCheck::Tcp {
            address: address.to_owned(),
        })
    }

    fn http(url: &str) -> Item<ServiceCheck> {
        Item::Known(ServiceCheck::Http {
            url: url.to_owned(),
            status: Vec::new(),
            contains: None,
            timeout_ms: None,
        })
    }

    fn certificate(path: &str) -> Item<ServiceCheck> {
        let path = path.to_owned();
        Item::Known(ServiceCheck::Certificate { path })
    }

    fn unit(unit: &str) -> Item<ServiceCheck> {
        let unit = unit.to_owned();
        Item::Known(ServiceCheck::Systemd { unit })
    }

    fn keys(effective: &Effective) -> Vec<String> {
        effective.services.iter().map(ServiceCheck::key).collect()
    }

    fn log(path: &str, pattern: &str) -> LogCheck {
        LogCheck {
            path: path.to_owned(),
            rules: vec![LogRule {
                name: "r".to_owned(),
                pattern: pattern.to_owned(),
            }],
        }
    }

    #[test]
    fn what_the_customer_allows_is_done_and_the_rest_is_refused_with_a_reason() {
        let process = |name: &str| Item::Known(ServiceCheck::process(name));
        let policy = Policy {
            version: 7,
            interval_ms: 200,
            services: vec![
                process("nginx"),
                process("secretd"),
                unit("web-1.service"),
                unit("sshd.service"),
                unit("web-1"),
                tcp("127.0.0.1:80"),
                tcp("[::1]:80"),
                tcp("localhost:81"),
                tcp("db.example:5432"),
                tcp("192.0.2.1:80"),
                tcp("example.com"),
                Item::Unknown(serde_json::json!({ "type": "mqtt" })),
                http("http://127.0.0.1/health"),
                http("https://db.example:5432/"),
                http("https://www.example/"),
                http("http://root:secret@127.0.0.1/"),
                http("file:///etc/shadow"),
                certificate("/etc/ssl/www.pem"),
                certificate("/etc/ssl/../shadow"),
                tcp("localhost:81"),
            ],
            logs: vec![
                log("/var/log/nginx/*.log", "error"),
                log("/etc/shadow", "root"),
                log("/var/log/../../etc/shadow", "root"),
                log("relative.log", "x"),
                log("/var/log/a", "("),
            ],
        };
        let effective = Effective::new(&policy, &limits(), &|ip| ip.is_loopback());
        assert_eq!(effective.interval_ms, 1_000);
        assert_eq!(
            keys(&effective),
            [
                "process:nginx",
                "systemd:web-1.service",
                "tcp:127.0.0.1:80",
                "tcp:[::1]:80",
                "tcp:localhost:81",
                "tcp:db.example:5432",
                "http:http://127.0.0.1/health",
                "http:https://db.example:5432/",
                "certificate:/etc/ssl/www.pem",
            ]
        );
        assert_eq!(effective.logs, [log("/var/log/nginx/*.log", "error")]);
        let refused: Vec<&str> = effective.refused.iter().map(|r| r.item.as_str()).collect();
        assert_eq!(
            refused,
            [
                "interval",
                "process:secretd",
                "systemd:sshd.service",
                "systemd:web-1",
                "tcp:192.0.2.1:80",
                "tcp:example.com",
                "services",
                "http:https://www.example/",
                "http:http://root:secret@127.0.0.1/",
                "http:file:///etc/shadow",
                "certificate:/etc/ssl/../shadow",
                "log:/etc/shadow",
                "log:/var/log/../../etc/shadow",
                "log:relative.log",
                "log:/var/log/a",
            ]
        );
    }

    #[test]
    fn any_process_and_only_own_addresses_by_default() {
        let config = crate::config::Config::parse("", "x", &|_| None).unwrap();
        let policy = Policy {
            version: 1,
            interval_ms: 10_000,
            services: vec![
                ServiceCheck::process("anything").into(),
                tcp("192.0.2.1:80"),
            ],
            logs: vec![log("/var/log/syslog", "x")],
        };
        let effective = Effective::new(&policy, &config.limits, &|_| false);
        assert_eq!(keys(&effective), ["process:anything"]);
        assert_eq!(effective.refused.len(), 1);
        assert_eq!(effective.logs.len(), 1);
        assert!(is_local("127.0.0.1".parse().unwrap()));
        assert!(!is_local("192.0.2.1".parse().unwrap()));
    }
}
