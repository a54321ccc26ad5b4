//! What on this machine could be watched: enabled units, automatic services of Windows, listening ports,
//! certificates that can be read.
//! Only proposes: nothing is watched until the policy says so.
//!
//! Read from files alone, soon after the start and each hour. What can't be read is left out. The customer's settings limit it as they limit the policy, and
//! `limits.discovery = false` ends it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use rustls_pki_types::CertificateDer;
use tokio::{
    sync::{mpsc, watch},
    time::{self, Instant},
};
use watchkeep_shared::wire::{
    heartbeat::{Event, Proposal},
    limits::{MAX_PROPOSALS, MAX_TEXT_BYTES},
    policy::ServiceCheck,
};
use x509_parser::prelude::FromDer as _;

use super::{Found, ProbeResult};
use crate::{config::Limits, platform, policy, process::Tasks, tls};

/// What could be watched is looked for this long after the start,
const FIRST_DISCOVERY: Duration = Duration::from_secs(10);
/// and so often after that.
const DISCOVERY: Duration = Duration::from_hours(1);
/// Most entries of directories that are looked at for certificates.
const MAX_ENTRIES: usize = 2_000;
/// How deep directories are followed for certificates.
const MAX_DEPTH: u32 = 4;
/// Larger files are no certificates of a server, bytes.
const MAX_CERTIFICATE_BYTES: u64 = 128 * 1024;
/// A file with more certificates is a list of authorities.
const MAX_CHAIN: usize = 8;
/// Where certificates of servers usually lie.
const CERTIFICATE_PLACES: [&str; 7] = [
    "/etc/letsencrypt/live",
    "/etc/ssl",
    "/etc/pki/tls/certs",
    "/etc/nginx",
    "/etc/apache2",
    "/etc/httpd",
    "/etc/haproxy",
];
/// `TCP_LISTEN` in `/proc/net/tcp` (`proc(5)`).
const LISTEN: &str = "0A";

/// Looks for what could be watched, soon and then every hour. It takes some milliseconds of the loop's
/// time, which a thread for it would not be worth.
pub(super) fn start(
    tasks: &Tasks,
    limits: watch::Receiver<Limits>,
    results: mpsc::Sender<ProbeResult>,
) {
    let stop = tasks.stop_token();
    let looking = async move {
        let mut ticks = time::interval_at(Instant::now() + FIRST_DISCOVERY, DISCOVERY);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let limits = limits.borrow().clone();
            if !limits.discovery {
                continue;
            }
            let found = Found::Discovered(look(Path::new("/"), &limits));
            let result = ProbeResult {
                generation: 0,
                found,
            };
            if results.send(result).await.is_err() {
                return;
            }
        }
    };
    tasks.spawn("discovery", async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = looking => {}
        }
    });
}

/// What is found below `root`, which is `/` but in tests.
pub(super) fn look(root: &Path, limits: &Limits) -> Event {
    let mut proposals = Vec::new();
    for (unit, detail) in enabled_units(root) {
        propose(&mut proposals, ServiceCheck::Systemd { unit }, Some(detail));
    }
    for (name, shown) in platform::automatic_services() {
        let detail = match shown {
            Some(shown) => format!("starts automatically: {shown}"),
            None => "starts automatically".to_owned(),
        };
        let check = ServiceCheck::WindowsService { name };
        propose(&mut proposals, check, Some(detail));
    }
    for (address, owner) in listening(root) {
        let detail = match owner {
            Some(owner) => format!("listens, owned by {owner}"),
            None => "listens".to_owned(),
        };
        propose(&mut proposals, ServiceCheck::Tcp { address }, Some(detail));
    }
    for (path, detail) in certificates(root, limits) {
        propose(
            &mut proposals,
            ServiceCheck::Certificate { path },
            Some(detail),
        );
    }
    proposals.retain(|one: &Proposal| {
        let check = one.check.known();
        check.is_some_and(|check| {
            policy::allows(check, limits) && check.key().len() < MAX_TEXT_BYTES
        })
    });
    let left_out = proposals.len().saturating_sub(MAX_PROPOSALS) as u32;
    proposals.truncate(MAX_PROPOSALS);
    Event::Discovered {
        proposals,
        left_out,
    }
}

fn propose(proposals: &mut Vec<Proposal>, check: ServiceCheck, detail: Option<String>) {
    proposals.push(Proposal {
        check: check.into(),
        detail: detail.map(|text| super::short(&text)),
    });
}

/// Units that an administrator or a package enabled: links below `*.wants` and `*.requires`
/// (`systemctl(1)`, `enable`). With each goes the directory, which says by what it is started.
fn enabled_units(root: &Path) -> BTreeMap<String, String> {
    let mut units = BTreeMap::new();
    for target in entries(&root.join("etc/systemd/system")) {
        let name = file_name(&target);
        let Some(by) = name
            .strip_suffix(".wants")
            .or_else(|| name.strip_suffix(".requires"))
        else {
            continue;
        };
        for link in entries(&target) {
            let unit = file_name(&link);
            let is_service = [".service", ".timer", ".socket"];
            if is_service.iter().any(|end| unit.ends_with(end)) && !unit.contains("@.") {
                units.insert(unit, format!("enabled, started by {by}"));
            }
        }
    }
    units
}

/// Addresses on which something listens, with who owns the socket as far as that can be seen.
fn listening(root: &Path) -> BTreeMap<String, Option<String>> {
    let mut sockets: BTreeMap<String, (u64, u32)> = BTreeMap::new();
    for file in ["proc/net/tcp", "proc/net/tcp6"] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        for (address, uid, inode) in text.lines().skip(1).filter_map(listener) {
            sockets.entry(address).or_insert((inode, uid));
        }
    }
    if sockets.is_empty() {
        return BTreeMap::new();
    }
    let programs = socket_owners(root);
    let users = users(root);
    sockets
        .into_iter()
        .map(|(address, (inode, uid))| {
            let owner = programs.get(&inode).or_else(|| users.get(&uid)).cloned();
            (address, owner)
        })
        .collect()
}

/// Address, user and inode of a line about a listening socket.
fn listener(line: &str) -> Option<(String, u32, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, local, _, state, _, _, _, uid, _, inode, ..] = fields[..] else {
        return None;
    };
    if state != LISTEN {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // The kernel writes words of four bytes in the machine's own order.
    let words: Option<Vec<u32>> = (0..address.len())
        .step_by(8)
        .map(|at| u32::from_str_radix(address.get(at..at + 8)?, 16).ok())
        .collect();
    let address: SocketAddr = match words?[..] {
        [word] => (Ipv4Addr::from(word.to_ne_bytes()), port).into(),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            for (to, word) in bytes.chunks_exact_mut(4).zip([a, b, c, d]) {
                to.copy_from_slice(&word.to_ne_bytes());
            }
            let address = Ipv6Addr::from(bytes);
            match address.to_ipv4_mapped() {
                Some(v4) => (v4, port).into(),
                None => (address, port).into(),
            }
        }
        _ => return None,
    };
    // Whoever listens everywhere answers on the loopback; IPv6 sockets there mostly take both.
    let address = if address.ip().is_unspecified() {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    } else {
        address
    };
    Some((address.to_string(), uid.parse().ok()?, inode.parse().ok()?))
}

/// Names of processes by the inodes of their sockets; only those whose files this user may list.
fn socket_owners(root: &Path) -> HashMap<u64, String> {
    let mut owners = HashMap::new();
    for process in entries(&root.join("proc")) {
        if !file_name(&process)
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            continue;
        }
        let mut name = None;
        for file in entries(&process.join("fd")) {
            let link = fs::read_link(file).unwrap_or_default();
            let inode = link.to_str().and_then(|link| {
                link.strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .parse()
                    .ok()
            });
            if let Some(inode) = inode {
                let name = name.get_or_insert_with(|| {
                    let comm = fs::read_to_string(process.join("comm"));
                    comm.unwrap_or_default().trim_end().to_owned()
                });
                owners.insert(inode, name.clone());
            }
        }
    }
    owners
}

/// Names of users by number.
fn users(root: &Path) -> HashMap<u32, String> {
    let text = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let user = |line: &str| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = fields.nth(1)?.parse().ok()?;
        Some((uid, format!("user {name}")))
    };
    text.lines().filter_map(user).collect()
}

/// Certificates of servers in the usual places, with how long they are valid.
fn certificates(root: &Path, limits: &Limits) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut left = MAX_ENTRIES;
    let mut waiting: Vec<(PathBuf, u32)> = CERTIFICATE_PLACES
        .iter()
        .map(|place| (root.join(place.trim_start_matches('/')), 0))
        .collect();
    let mut seen = BTreeSet::new();
    while let Some((directory, depth)) = waiting.pop() {
        for entry in entries(&directory) {
            if left == 0 {
                return found;
            }
            left -= 1;
            let is_link = entry.is_symlink();
            if entry.is_dir() {
                if depth < MAX_DEPTH && !is_link {
                    waiting.push((entry, depth + 1));
                }
                continue;
            }
            // In /etc/ssl/certs the authorities are links.
            let is_authority = is_link && directory.ends_with("etc/ssl/certs");
            let Ok(shown) = entry.strip_prefix(root) else {
                continue;
            };
            let shown = Path::new("/").join(shown);
            let allowed = limits
                .certificate_paths
                .iter()
                .any(|one| one.allows(&shown));
            if !is_authority
                && allowed
                && let (Some(path), Some(detail)) = (shown.to_str(), server_certificate(&entry))
                && seen.insert(detail.clone())
            {
                found.insert(path.to_owned(), detail.1);
            }
        }
    }
    found
}

/// For a file that begins with a server's certificate: its subject and serial number, and a text.
fn server_certificate(path: &Path) -> Option<(String, String)> {
    let extension = path.extension()?.to_str()?;
    let size = fs::metadata(path).ok()?.len();
    if !["pem", "crt", "cer"].contains(&extension) || size > MAX_CERTIFICATE_BYTES {
        return None;
    }
    let chain: Vec<CertificateDer<'_>> =
        tls::certificates(&fs::read_to_string(path).ok()?, "file").ok()?;
    let leaf = chain.first().filter(|_| chain.len() <= MAX_CHAIN)?;
    let (_, leaf) = x509_parser::certificate::X509Certificate::from_der(leaf).ok()?;
    if leaf.is_ca() {
        return None;
    }
    let subject = leaf.subject().to_string();
    let until = leaf.validity().not_after.to_string();
    Some((
        leaf.raw_serial_as_string(),
        format!("{subject}, valid until {until}"),
    ))
}

/// What a directory holds, sorted; nothing if it can't be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(listing) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let mut entries: Vec<PathBuf> = listing
        .filter_map(|entry| Some(entry.ok()?.path()))
        .take(MAX_ENTRIES)
        .collect();
    entries.sort();
    entries
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::config::Config;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn certificate(is_ca: bool) -> String {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["www.example".to_owned()]).unwrap();
        if is_ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        params.self_signed(&key).unwrap().pem()
    }

    fn machine() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let wants = root.join("etc/systemd/system/multi-user.target.wants");
        fs::create_dir_all(&wants).unwrap();
        for unit in ["nginx.service", "backup.timer", "x.mount"] {
            symlink("/lib/systemd/system/x", wants.join(unit)).unwrap();
        }
        let head = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";
        let line = |local: &str, state: &str, uid: u32, inode: u32| {
            format!("0: {local} 00000000:0000 {state} 0:0 0:0 0 {uid} 0 {inode} 1 0 100 0\n")
        };
        let any = format!("{:08X}", u32::from_ne_bytes([0; 4]));
        let here = format!("{:08X}", u32::from_ne_bytes([127, 0, 0, 1]));
        let mut tcp = head.to_owned();
        tcp.push_str(&line(&format!("{any}:0016"), LISTEN, 0, 70));
        tcp.push_str(&line(&format!("{here}:1538"), LISTEN, 105, 71));
        tcp.push_str(&line(&format!("{here}:9999"), "01", 105, 72));
        write(root, "proc/net/tcp", &tcp);
        let everywhere = format!("{}:0016", "0".repeat(32));
        write(
            root,
            "proc/net/tcp6",
            &format!("{head}{}", line(&everywhere, LISTEN, 0, 73)),
        );
        write(root, "proc/12/comm", "sshd\n");
        fs::create_dir_all(root.join("proc/12/fd")).unwrap();
        symlink("socket:[70]", root.join("proc/12/fd/3")).unwrap();
        write(root, "etc/passwd", "root:x:0:0::/:\npostgres:x:105:1::/:\n");
        write(root, "etc/nginx/tls/www.crt", &certificate(false));
        write(root, "etc/nginx/nginx.conf", "nothing");
        write(root, "etc/ssl/ca.pem", &certificate(true));
        write(root, "etc/haproxy/site.pem", &certificate(false));
        dir
    }

    fn found(settings: &str) -> Vec<(String, String)> {
        let config = Config::parse(settings, "agent.toml", &|_| None).unwrap();
        let machine = machine();
        let Event::Discovered {
            proposals,
            left_out: 0,
        } = look(machine.path(), &config.limits)
        else {
            panic!("not what was asked for");
        };
        let proposals = proposals.into_iter();
        let brief = |one: Proposal| Some((one.check.known()?.key(), one.detail?));
        proposals.filter_map(brief).collect()
    }

    #[test]
    fn units_ports_and_certificates_are_proposed_with_what_is_known_of_them() {
        let found = found("");
        let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "systemd:backup.timer",
                "systemd:nginx.service",
                "tcp:127.0.0.1:22",
                "tcp:127.0.0.1:5432",
                "certificate:/etc/nginx/tls/www.crt",
            ]
        );
        assert_eq!(found[1].1, "enabled, started by multi-user.target");
        assert_eq!(found[2].1, "listens, owned by sshd");
        assert_eq!(found[3].1, "listens, owned by user postgres");
        assert!(found[4].1.contains("valid until"), "{}", found[4].1);
    }

    #[test]
    fn what_the_customer_does_not_let_be_watched_is_not_proposed() {
        let keys: Vec<String> = found("[limits]\nunits = [\"n*\"]\ncertificate_paths = []\n")
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        assert_eq!(
            keys,
            [
                "systemd:nginx.service",
                "tcp:127.0.0.1:22",
                "tcp:127.0.0.1:5432"
            ]
        );
    }
}
