//! Listening TCP sockets and who owns them. The kernel lists them by netlink; where a sandbox
//! refuses that, the head of `/proc/net/tcp` is read, in which they come before all connections
//! (the kernel's `Documentation/networking/proc_net_tcp.rst`). Either way the number of connections
//! does not matter.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use super::{entries, file_name};
use crate::platform::Listener;

/// `TCP_LISTEN` in `/proc/net/tcp` (`proc(5)`).
const LISTEN: &str = "0A";
/// Most lines that are read of each of its two files.
const MAX_LINES: usize = 4_096;
/// Most open files that are looked at for the owners of sockets.
const MAX_LINKS: usize = 100_000;

/// Asks the kernel for all listening sockets.
pub(super) type ListListeners<'a> = &'a dyn Fn() -> io::Result<Vec<Listener>>;

/// Addresses on which something listens, as they are probed, with who owns the socket as far as
/// that can be seen.
pub(super) fn listening(root: &Path, list: ListListeners<'_>) -> BTreeMap<String, Option<String>> {
    let listeners = list().unwrap_or_else(|_| read_tables(root));
    if listeners.is_empty() {
        return BTreeMap::new();
    }
    let programs = socket_owners(root);
    let users = users(root);
    let mut found = BTreeMap::new();
    for one in listeners {
        let owner = || programs.get(&one.inode).or_else(|| users.get(&one.uid));
        found
            .entry(probed(&one).to_string())
            .or_insert_with(|| owner().cloned());
    }
    found
}

/// The address at which a socket answers on this machine.
fn probed(listener: &Listener) -> SocketAddr {
    let (ip, port) = (
        listener.address.ip().to_canonical(),
        listener.address.port(),
    );
    if !ip.is_unspecified() {
        (ip, port).into()
    } else if ip.is_ipv6() && listener.v6_only {
        (Ipv6Addr::LOCALHOST, port).into()
    } else {
        (Ipv4Addr::LOCALHOST, port).into()
    }
}

fn read_tables(root: &Path) -> Vec<Listener> {
    let mut listeners = Vec::new();
    for file in ["proc/net/tcp", "proc/net/tcp6"] {
        let Ok(file) = File::open(root.join(file)) else {
            continue;
        };
        let lines = BufReader::new(file).lines().map_while(Result::ok);
        let of_listeners = lines
            .skip(1)
            .take(MAX_LINES)
            .map_while(|line| listener(&line));
        listeners.extend(of_listeners);
    }
    listeners
}

/// What a line says of a listening socket; `None` for any other.
fn listener(line: &str) -> Option<Listener> {
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
            (Ipv6Addr::from(bytes), port).into()
        }
        _ => return None,
    };
    Some(Listener {
        address,
        // The table does not say; most sockets take both.
        v6_only: false,
        uid: uid.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

/// Names of processes by the inodes of their sockets; only those whose files this user may list.
fn socket_owners(root: &Path) -> HashMap<u64, String> {
    let mut owners = HashMap::new();
    let mut left = MAX_LINKS;
    for process in entries(&root.join("proc")) {
        if !file_name(&process)
            .bytes()
            .all(|byte| byte.is_ascii_digit())
        {
            continue;
        }
        let mut name = None;
        for file in entries(&process.join("fd")) {
            if left == 0 {
                return owners;
            }
            left -= 1;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_proposed_at_the_address_where_it_answers() {
        for (address, v6_only, expected) in [
            ("0.0.0.0:80", false, "127.0.0.1:80"),
            ("[::]:80", false, "127.0.0.1:80"),
            ("[::]:80", true, "[::1]:80"),
            ("[::ffff:192.0.2.1]:80", false, "192.0.2.1:80"),
            ("[2001:db8::1]:80", true, "[2001:db8::1]:80"),
        ] {
            let listener = Listener {
                address: address.parse().unwrap(),
                v6_only,
                uid: 0,
                inode: 1,
            };
            assert_eq!(probed(&listener).to_string(), expected, "{address}");
        }
    }

    #[test]
    fn connections_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("proc/net")).unwrap();
        let line = |port: u32, state: &str| {
            format!("0: 0100007F:{port:04X} 00000000:0000 {state} 0:0 0:0 0 0 0 {port} 1 0\n")
        };
        let connections: String = (0..100).map(|port| line(1_000 + port, "01")).collect();
        // A listener behind a connection is not where the kernel puts one.
        let table = ["head\n", &line(80, LISTEN), &connections, &line(81, LISTEN)].concat();
        fs::write(dir.path().join("proc/net/tcp"), table).unwrap();
        let found = read_tables(dir.path());
        let ports: Vec<u16> = found.iter().map(|one| one.address.port()).collect();
        assert_eq!(ports, [80]);
    }
}
