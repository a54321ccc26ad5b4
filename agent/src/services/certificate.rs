//! How long certificates are still valid: the judgement, and those in a file. Who signed them does
//! not matter.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use watchkeep_shared::wire::heartbeat::ServiceStatus;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, x509::X509Version};

use super::{Finding, probe::ProbeOutcome, tcp};
use crate::{clock, platform};

/// Largest file that is read, bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;
const DAY_S: f64 = 86_400.0;
/// Other names under which PEM files hold certificates (`x509(1)`: with settings of OpenSSL's after
/// the certificate; and the name that older programs write).
const OTHER_LABELS: [&str; 2] = ["TRUSTED CERTIFICATE", "X509 CERTIFICATE"];

/// What is read of a certificate.
struct Certificate {
    subject: String,
    /// Seconds since the Unix epoch.
    from_s: i64,
    to_s: i64,
    /// Whether it certifies others and no server.
    is_authority: bool,
}

pub(super) fn look_at_file(path: &str) -> ProbeOutcome {
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound => {
                return finding(ServiceStatus::NotFound, "there is no such file".to_owned());
            }
            io::ErrorKind::PermissionDenied => return super::no_access(&refused(path)).into(),
            _ => return finding(ServiceStatus::Unknown, tcp::text_of(&error)),
        },
    };
    match certificates(&bytes) {
        Some(certificates) => judge(&certificates),
        None => finding(
            ServiceStatus::Unknown,
            "there is no certificate in PEM form in it, nor is it one in DER form".to_owned(),
        ),
    }
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A named pipe is opened without waiting for a writer.
    let (file, _) = platform::open_to_read(Path::new(path))?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("not a file"));
    }
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Which directory keeps this process out, or that the file itself does.
fn refused(path: &str) -> String {
    let mut directories: Vec<&Path> = Path::new(path).ancestors().skip(1).collect();
    directories.reverse();
    // Looking up anything in a directory needs the right to search it, even "." (path_resolution(7)).
    let is_closed = |directory: &&&Path| {
        let inside: PathBuf = directory.join(".");
        fs::metadata(inside).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    };
    match directories.iter().find(is_closed) {
        Some(directory) => format!("the agent may not enter {}", directory.display()),
        None => "the agent may not read the file".to_owned(),
    }
}

/// The certificates of a file: in PEM form with anything in between, or one in DER form. `None` if
/// there is none, or one that can't be decoded.
pub(super) fn certificates(bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    if X509Certificate::from_der(bytes).is_ok() {
        return Some(vec![CertificateDer::from(bytes.to_vec())]);
    }
    let mut text = String::from_utf8_lossy(bytes).into_owned();
    for label in OTHER_LABELS {
        text = text.replace(
            &format!("-----BEGIN {label}-----"),
            "-----BEGIN CERTIFICATE-----",
        );
        text = text.replace(
            &format!("-----END {label}-----"),
            "-----END CERTIFICATE-----",
        );
    }
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    found.ok().filter(|found| !found.is_empty())
}

/// By the certificates of servers among these; of several the one that expires first counts. Where
/// there are only authorities, the first counts.
pub(super) fn judge(certificates: &[CertificateDer<'_>]) -> ProbeOutcome {
    let now_s = clock::now().wall_ms as f64 / 1_000.0;
    let Some(mut read) = read_all(certificates).filter(|read| !read.is_empty()) else {
        let text = "its certificate can't be read".to_owned();
        return finding(ServiceStatus::Unknown, text);
    };
    if read.iter().all(|one| one.is_authority) {
        read[0].is_authority = false;
    }
    let of_servers = || read.iter().filter(|one| !one.is_authority);
    let from_s = of_servers().map(|one| one.from_s).max().unwrap_or(0);
    let to_s = of_servers().map(|one| one.to_s).min().unwrap_or(0);
    let days = (to_s as f64 - now_s) / DAY_S;
    let (status, detail) = if days < 0.0 {
        let text = format!("expired {} days ago", (-days).ceil());
        (ServiceStatus::Failed, text)
    } else if from_s as f64 > now_s {
        (ServiceStatus::Failed, "not valid yet".to_owned())
    } else {
        let expired = |one: &&Certificate| one.is_authority && (one.to_s as f64) < now_s;
        let note = match read.iter().find(expired) {
            // Clients find another way to a root that they trust, or fail: it is theirs to say.
            Some(one) => format!("; of its chain, {} has expired", one.subject),
            None => String::new(),
        };
        let text = format!("valid for {} days{note}", days.floor());
        (ServiceStatus::Running, super::short(&text))
    };
    ProbeOutcome {
        value: Some(days),
        ..finding(status, detail)
    }
}

fn read_all(certificates: &[CertificateDer<'_>]) -> Option<Vec<Certificate>> {
    let parsed: Option<Vec<X509Certificate<'_>>> = certificates
        .iter()
        .map(|one| {
            X509Certificate::from_der(one)
                .ok()
                .map(|(_, parsed)| parsed)
        })
        .collect();
    let parsed = parsed?;
    let read = |one: &X509Certificate<'_>| Certificate {
        subject: one.subject().to_string(),
        from_s: one.validity().not_before.timestamp(),
        to_s: one.validity().not_after.timestamp(),
        // One of version 1 can't say that it is an authority; a root of old is followed by what it
        // signed or follows it.
        is_authority: one.is_ca()
            || one.version() == X509Version::V1
                && one.subject() == one.issuer()
                && parsed.iter().any(|other| {
                    other.issuer() == one.subject() && other.subject() != one.subject()
                }),
    };
    Some(parsed.iter().map(read).collect())
}

pub(super) fn finding(status: ServiceStatus, detail: String) -> ProbeOutcome {
    Finding {
        status,
        detail: Some(detail),
    }
    .into()
}
