//! Two lists that the kernel gives over netlink (`netlink(7)`): the addresses of this machine's
//! interfaces (`rtnetlink(7)`) and its listening TCP sockets (`sock_diag(7)`). Each call sends one
//! request and reads the answers; an error means that the kernel or a sandbox refuses the socket.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType,
    netlink::{SOCK_DIAG, SocketAddrNetlink},
    recv, sendto, socket_with,
    sockopt::{Timeout, set_socket_timeout},
};

use super::Listener;

/// The kernel answers at once; this only bounds the wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest message of a dump, bytes.
const BUFFER_BYTES: usize = 32 * 1024;
/// Most entries of one list.
const MAX_ENTRIES: usize = 16_384;

/// `struct nlmsghdr` of `linux/netlink.h`, bytes.
const HEADER_BYTES: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_DUMP: u16 = 0x300;

/// `linux/rtnetlink.h` and `linux/if_addr.h`.
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const IFADDRMSG_BYTES: usize = 8;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_DADFAILED: u8 = 0x08;
const IFA_F_TENTATIVE: u8 = 0x40;

/// `linux/sock_diag.h` and `linux/inet_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQUEST_BYTES: usize = 56;
const INET_DIAG_BYTES: usize = 72;
const INET_DIAG_SKV6ONLY: u16 = 11;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const IPPROTO_TCP: u8 = 6;
const TCP_LISTEN: u32 = 10;

/// The addresses of this machine's interfaces that can be used now: one whose uniqueness is still
/// being checked (duplicate address detection, RFC 4862) is left out.
pub(super) fn interface_addresses() -> io::Result<Vec<IpAddr>> {
    let mut addresses = Vec::new();
    dump(
        None,
        RTM_GETADDR,
        &[0; IFADDRMSG_BYTES],
        &mut |kind, body| {
            if kind == RTM_NEWADDR && addresses.len() < MAX_ENTRIES {
                addresses.extend(address(body));
            }
        },
    )?;
    Ok(addresses)
}

/// All listening TCP sockets of this network namespace; connections are not looked at.
pub fn listening_sockets() -> io::Result<Vec<Listener>> {
    let mut listeners = Vec::new();
    for family in [AF_INET, AF_INET6] {
        let mut request = [0; INET_DIAG_REQUEST_BYTES];
        request[0] = family;
        request[1] = IPPROTO_TCP;
        request[4..8].copy_from_slice(&(1_u32 << TCP_LISTEN).to_ne_bytes());
        dump(
            Some(SOCK_DIAG),
            SOCK_DIAG_BY_FAMILY,
            &request,
            &mut |_, body| {
                if listeners.len() < MAX_ENTRIES {
                    listeners.extend(listener(body));
                }
            },
        )?;
    }
    Ok(listeners)
}

/// Sends a request for a list and shows each answer's type and body to `each`.
fn dump(
    protocol: Option<Protocol>,
    kind: u16,
    body: &[u8],
    each: &mut dyn FnMut(u16, &[u8]),
) -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        protocol,
    )?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    let length = (HEADER_BYTES + body.len()) as u32;
    let mut request = Vec::with_capacity(HEADER_BYTES + body.len());
    request.extend(length.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    // Sequence number and port: the socket asks once, and the kernel knows its port.
    request.extend([0; 8]);
    request.extend(body);
    let kernel = SocketAddrNetlink::new(0, 0);
    sendto(&socket, &request, SendFlags::empty(), &kernel)?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let (length, _) = recv(&socket, &mut *buffer, RecvFlags::empty())?;
        if read_messages(&buffer[..length], each)? {
            return Ok(());
        }
    }
}

/// Reads the messages of one datagram; whether the list is complete.
fn read_messages(mut bytes: &[u8], each: &mut dyn FnMut(u16, &[u8])) -> io::Result<bool> {
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    if bytes.is_empty() {
        return Err(malformed());
    }
    while !bytes.is_empty() {
        let length = number(bytes, 0).ok_or_else(malformed)? as usize;
        let kind = half(bytes, 4).ok_or_else(malformed)?;
        let body = bytes.get(HEADER_BYTES..length).ok_or_else(malformed)?;
        match kind {
            NLMSG_DONE => return Ok(true),
            NLMSG_ERROR => {
                let code = number(body, 0).ok_or_else(malformed)?.cast_signed();
                return match code {
                    0 => Ok(true),
                    code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
                };
            }
            _ => each(kind, body),
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The own address of a `struct ifaddrmsg` with its attributes.
fn address(body: &[u8]) -> Option<IpAddr> {
    let flags = *body.get(2)?;
    if flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) != 0 {
        return None;
    }
    let attributes = body.get(IFADDRMSG_BYTES..)?;
    // On a point-to-point link IFA_ADDRESS is the other end.
    let value = attribute(attributes, IFA_LOCAL).or_else(|| attribute(attributes, IFA_ADDRESS))?;
    match value.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

/// A `struct inet_diag_msg` with its attributes.
fn listener(body: &[u8]) -> Option<Listener> {
    let fixed = body.get(..INET_DIAG_BYTES)?;
    let port = u16::from_be_bytes([fixed[4], fixed[5]]);
    let source = &fixed[8..24];
    let ip = match fixed[0] {
        AF_INET => IpAddr::from(<[u8; 4]>::try_from(&source[..4]).ok()?),
        AF_INET6 => IpAddr::from(<[u8; 16]>::try_from(source).ok()?),
        _ => return None,
    };
    let v6_only = attribute(&body[INET_DIAG_BYTES..], INET_DIAG_SKV6ONLY);
    Some(Listener {
        address: SocketAddr::new(ip, port),
        v6_only: v6_only.is_some_and(|value| value.first() == Some(&1)),
        uid: number(fixed, 64)?,
        inode: u64::from(number(fixed, 68)?),
    })
}

/// The value of an attribute (`struct rtattr`).
fn attribute(mut bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(half(bytes, 0)?);
        let value = bytes.get(4..length)?;
        if half(bytes, 2)? == wanted {
            return Some(value);
        }
        bytes = bytes.get(length.next_multiple_of(4)..)?;
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use proptest::prelude::*;
    use rustix::net::{bind, ipproto, listen, sockopt::set_ipv6_v6only};

    use super::*;

    #[test]
    fn the_kernel_lists_own_addresses_and_listening_sockets() {
        let addresses = interface_addresses().unwrap();
        assert!(addresses.contains(&"127.0.0.1".parse().unwrap()));
        assert!(!addresses.contains(&"192.0.2.1".parse().unwrap()));

        let on_v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let listeners = listening_sockets().unwrap();
        let address = on_v4.local_addr().unwrap();
        let found = listeners.iter().find(|one| one.address == address).unwrap();
        assert_eq!(found.uid, rustix::process::geteuid().as_raw());
        let link = format!("socket:[{}]", found.inode);
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        let mut links = links.filter_map(|one| std::fs::read_link(one.ok()?.path()).ok());
        assert!(links.any(|one| one.as_os_str() == link.as_str()), "{link}");
    }

    #[test]
    fn an_ipv6_socket_says_whether_it_takes_ipv4_too() {
        let open = |v6_only: bool| {
            let socket =
                rustix::net::socket(AddressFamily::INET6, SocketType::STREAM, Some(ipproto::TCP))
                    .unwrap();
            set_ipv6_v6only(&socket, v6_only).unwrap();
            bind(&socket, &SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).unwrap();
            listen(&socket, 1).unwrap();
            TcpListener::from(socket)
        };
        for v6_only in [true, false] {
            let socket = open(v6_only);
            let address = socket.local_addr().unwrap();
            let listeners = listening_sockets().unwrap();
            let found = listeners.iter().find(|one| one.address == address);
            assert_eq!(found.map(|one| one.v6_only), Some(v6_only));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_messages(&bytes, &mut |_, _| {});
            let _ = address(&bytes);
            let _ = listener(&bytes);
        }
    }
}
