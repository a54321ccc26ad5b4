//! Who is who: the collector's own CA, the certificates it gives to agents, enrolment tokens.
//! An agent's identity is its certificate; nothing in a request body can change who it is.

mod authority;
mod ca;
mod enroll;
mod port_tls;
mod revoked;
mod rotate;
#[cfg(test)]
mod tests;
mod tls;

pub use authority::{Authority, Cas};
pub use ca::{Ca, CaError, Issued, PeerIdentity, read_identity as peer_identity};
pub(crate) use ca::{hex, write as write_file};
pub use enroll::{EnrollError, NewToken, Renewal, create_token, enroll, rekey, renew};
pub use port_tls::{PortNames, PortTls, SharedTls};
pub use revoked::Revoked;
pub use rotate::{Overview, OverviewHost, RotateError, RotateStep, overview, rotate};
pub use tls::{TlsError, WebTls, agent_server, check_certificate, web_server};

/// Where the CAs lie within the data directory.
pub const CA_DIR: &str = "ca";

/// The host part of `https://HOST[:PORT]`, without brackets.
pub fn host_of(url: &str) -> Option<String> {
    let uri: axum::http::Uri = url.parse().ok()?;
    if uri.scheme_str() != Some("https") {
        return None;
    }
    uri.host()
        .map(|host| host.trim_matches(['[', ']']).to_owned())
}
