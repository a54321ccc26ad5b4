//! Where load and faults may be sent: to this machine only. A load generator with real client
//! certificates, pointed at the wrong place, would be a weapon.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use rustls_pki_types::ServerName;

/// An agent port on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where to connect.
    pub address: SocketAddr,
    /// The name that the server's certificate must carry.
    pub name: ServerName<'static>,
    /// The `Host` header.
    pub authority: String,
}

/// Why a URL is not a target.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TargetError {
    /// Not of the form `https://HOST:PORT`.
    #[error("\"{0}\" is not a target: write it as https://127.0.0.1:7443")]
    Form(String),
    /// Not this machine.
    #[error(
        "\"{0}\" is not on this machine: only loopback addresses (127.0.0.0/8, ::1, localhost) are accepted"
    )]
    NotLoopback(String),
}

impl Target {
    /// Reads `https://HOST:PORT`; `HOST` is a loopback address or `localhost`.
    pub fn parse(url: &str) -> Result<Self, TargetError> {
        let form = || TargetError::Form(url.to_owned());
        let authority = url.strip_prefix("https://").ok_or_else(form)?;
        let authority = authority.trim_end_matches('/');
        if let Ok(address) = authority.parse::<SocketAddr>() {
            if !address.ip().is_loopback() {
                return Err(TargetError::NotLoopback(url.to_owned()));
            }
            let name = ServerName::IpAddress(address.ip().into());
            return Ok(Self {
                address,
                name,
                authority: authority.to_owned(),
            });
        }
        let (host, port) = authority.rsplit_once(':').ok_or_else(form)?;
        let port = port.parse().map_err(|_| form())?;
        if host != "localhost" {
            return Err(TargetError::NotLoopback(url.to_owned()));
        }
        Ok(Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
            name: ServerName::try_from("localhost").map_err(|_| form())?,
            authority: authority.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_accepted() {
        for (url, address) in [
            ("https://127.0.0.1:7443", "127.0.0.1:7443"),
            ("https://127.3.2.1:1/", "127.3.2.1:1"),
            ("https://[::1]:7443", "[::1]:7443"),
            ("https://localhost:7443", "127.0.0.1:7443"),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.address, address.parse().unwrap(), "{url}");
        }
    }

    #[test]
    fn every_other_machine_is_refused() {
        for url in [
            "https://192.0.2.1:7443",
            "https://collector.example:7443",
            "https://localhost.example:7443",
            "https://[2001:db8::1]:7443",
            "https://0.0.0.0:7443",
        ] {
            let refused = TargetError::NotLoopback(url.to_owned());
            assert_eq!(Target::parse(url), Err(refused));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for url in [
            "http://127.0.0.1:1",
            "127.0.0.1:1",
            "https://127.0.0.1",
            "https://localhost:x",
        ] {
            let refused = TargetError::Form(url.to_owned());
            assert_eq!(Target::parse(url), Err(refused));
        }
    }
}
