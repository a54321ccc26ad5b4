//! Who sent a request: the address of the client, behind trusted reverse proxies too, and whether it
//! may read what is meant for the operators of this machine (`/metrics`, details of `/readyz`).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq as _;

use crate::config;

/// Fewest characters of a token.
const MIN_TOKEN_CHARS: usize = 16;
const FORWARDED_FOR: &str = "x-forwarded-for";

/// Decides by the settings.
#[derive(Clone)]
pub(crate) struct Clients {
    proxies: Vec<IpAddr>,
    token: Option<String>,
}

/// The token file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It can't be read.
    #[error("web.metrics_token_file: failed to read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        source: std::io::Error,
    },
    /// It is too easily guessed.
    #[error("web.metrics_token_file: {0} holds fewer than {MIN_TOKEN_CHARS} characters")]
    Short(String),
}

impl Clients {
    /// Reads the token, if the settings name a file.
    pub(crate) fn new(settings: &config::Web) -> Result<Self, TokenError> {
        let token = settings.metrics_token_file.as_deref().map(|path| {
            let name = path.display().to_string();
            let text = std::fs::read_to_string(path).map_err(|source| TokenError::Read {
                path: name.clone(),
                source,
            })?;
            let token = text.trim().to_owned();
            if token.chars().count() < MIN_TOKEN_CHARS {
                return Err(TokenError::Short(name));
            }
            Ok(token)
        });
        Ok(Self {
            proxies: settings.trusted_proxies.clone(),
            token: token.transpose()?,
        })
    }

    /// The client's address: the peer's, or, if that is a trusted proxy, the last address of
    /// `X-Forwarded-For` that is none. A header from anyone else is ignored.
    pub(crate) fn address(&self, peer: SocketAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.ip().to_canonical();
        if !self.proxies.contains(&peer) {
            return peer;
        }
        let forwarded: Vec<IpAddr> = headers
            .get_all(FORWARDED_FOR)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|one| one.trim().parse::<IpAddr>().ok())
            .map(|one| one.to_canonical())
            .collect();
        let client = forwarded
            .iter()
            .rev()
            .find(|one| !self.proxies.contains(one));
        client.or(forwarded.first()).copied().unwrap_or(peer)
    }

    /// Whether a request may read what is meant for this machine's operators: it comes from this
    /// machine and through no proxy that hides who asked, or carries the token.
    pub(crate) fn is_operator(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> bool {
        let is_local = peer.is_some_and(|peer| {
            let is_forwarded = headers.contains_key(FORWARDED_FOR)
                || headers.contains_key(header::FORWARDED)
                || headers.contains_key("x-real-ip");
            let is_trusted = self.proxies.contains(&peer.ip().to_canonical());
            self.address(peer, headers).is_loopback() && (!is_forwarded || is_trusted)
        });
        is_local || self.has_token(headers)
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        let sent = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.strip_prefix("Bearer "));
        let (Some(token), Some(sent)) = (&self.token, sent) else {
            return false;
        };
        token.as_bytes().ct_eq(sent.trim().as_bytes()).into()
    }
}

/// Without the token.
impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("proxies", &self.proxies)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(proxies: &[&str]) -> Clients {
        Clients {
            proxies: proxies.iter().map(|one| one.parse().unwrap()).collect(),
            token: Some("correct-horse-battery".to_owned()),
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().unwrap(), 40_000)
    }

    #[test]
    fn only_a_trusted_proxy_names_the_client() {
        let sent = headers(&[("x-forwarded-for", "198.51.100.7, 203.0.113.9, 192.0.2.1")]);
        let address =
            |proxies: &[&str], from| clients(proxies).address(peer(from), &sent).to_string();
        assert_eq!(address(&[], "192.0.2.1"), "192.0.2.1");
        assert_eq!(address(&["192.0.2.1"], "192.0.2.1"), "203.0.113.9");
        assert_eq!(address(&["192.0.2.1"], "192.0.2.2"), "192.0.2.2");
        assert_eq!(address(&["192.0.2.1"], "::ffff:192.0.2.1"), "203.0.113.9");
    }

    #[test]
    fn metrics_are_for_this_machine_and_for_who_has_the_token() {
        let is_operator = |proxies: &[&str], from, sent: &[(&'static str, &'static str)]| {
            clients(proxies).is_operator(Some(peer(from)), &headers(sent))
        };
        let forwarded = ("x-forwarded-for", "203.0.113.9");
        assert!(is_operator(&[], "127.0.0.1", &[]));
        assert!(!is_operator(&[], "203.0.113.9", &[]));
        // A proxy on this machine that is not in `trusted_proxies`: the client is not known.
        assert!(!is_operator(&[], "127.0.0.1", &[forwarded]));
        assert!(!is_operator(&["127.0.0.1"], "127.0.0.1", &[forwarded]));
        let token = ("authorization", "Bearer correct-horse-battery");
        assert!(is_operator(&[], "203.0.113.9", &[token]));
        assert!(!is_operator(
            &[],
            "203.0.113.9",
            &[("authorization", "Bearer correct")]
        ));
    }
}
