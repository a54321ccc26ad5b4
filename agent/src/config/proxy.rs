//! The proxy for connections to the collector. Its password is never printed.

use std::fmt;

use reqwest::{Proxy, Url};

/// The URL of an HTTP proxy, as in `http://USER:PASSWORD@HOST:PORT`.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl(Url);

impl ProxyUrl {
    /// Parses and checks the URL. The error does not repeat it, since it may hold a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let form = "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT";
        let url = Url::parse(text).map_err(|error| format!("it is not {form}: {error}"))?;
        if url.scheme() != "http" || !url.has_host() {
            return Err(format!("it is not {form}"));
        }
        Ok(Self(url))
    }

    /// The proxy for a client, for every URL.
    pub fn for_all(&self) -> reqwest::Result<Proxy> {
        Proxy::all(self.0.clone())
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.0.clone();
        // Fails only for URLs without a host, which are refused.
        if shown.password().is_some() {
            let _ = shown.set_password(Some("REDACTED"));
        }
        write!(f, "{:?}", shown.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_printed() {
        let proxy = ProxyUrl::parse("http://agent:hunter2@proxy.example:3128").unwrap();
        let printed = format!("{proxy:?}");
        assert_eq!(printed, "\"http://agent:REDACTED@proxy.example:3128/\"");
        let error = ProxyUrl::parse("https://agent:hunter2@proxy.example").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
        let error = ProxyUrl::parse("http://agent:hunter2@proxy.example:99999").unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn only_http_proxies_are_taken() {
        for text in [
            "proxy.example:3128",
            "socks5://proxy.example",
            "http://",
            "",
        ] {
            assert!(ProxyUrl::parse(text).is_err(), "{text}");
        }
    }
}
