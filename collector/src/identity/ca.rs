//! A certificate authority: it signs agents' certificates and, by default, the collector's own.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData,
    SanType, SerialNumber, string::Ia5String,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use watchkeep_shared::{CaId, HostId, UnixMillis};

/// Name of the first CA's files, before `.pem` and `.key.pem`.
pub(super) const FIRST: &str = "ca";
/// Common name of the first CA; later ones have their identifier after it.
const COMMON_NAME: &str = "Watchkeep CA";
/// Validity of the CA's own certificate.
const CA_DAYS: i64 = 3_650;
/// Validity of the server's certificate; a new one is made at each start.
const SERVER_DAYS: i64 = 397;
/// Agents' certificates begin this long before they are issued. The collector alone checks that, by
/// the clock that issued them.
pub(super) const BACKDATE_MS: i64 = 5 * 60_000;
/// Certificates that agents check (the CA's and the server's) begin this long before they are made:
/// an agent's clock may be behind, and the collector's own may be ahead.
const CHECKED_BACKDATE_MS: i64 = 25 * 3_600_000;
const DAY_MS: i64 = 24 * 3_600_000;
/// Prefix of the URI that names a host in its certificate.
const HOST_URI: &str = "urn:watchkeep:host:";

/// A CA: its certificate, and the key in memory.
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    stem: String,
    pem: String,
    key_sha256: String,
    id: CaId,
    facts: Facts,
}

/// The contents of a CA's certificate.
struct Facts {
    common_name: String,
    key_id: Option<Vec<u8>>,
    not_after: UnixMillis,
}

/// A certificate that the CA signed.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate, PEM.
    pub pem: String,
    /// Serial number, lowercase hexadecimal.
    pub serial: String,
    /// Begin of its validity.
    pub not_before: UnixMillis,
    /// End of its validity.
    pub not_after: UnixMillis,
}

/// What can go wrong with the CA.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// A file can't be read or written.
    #[error("failed to use {path}: {source}")]
    File {
        /// The file.
        path: String,
        source: std::io::Error,
    },
    /// The key or certificate can't be used.
    #[error("the certificate authority can't be used: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A certificate can't be read back.
    #[error("a certificate can't be read: {0}")]
    Parse(String),
    /// The certificate request is no good.
    #[error("the certificate request can't be used: {0}")]
    BadRequest(String),
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca")
            .field("key_sha256", &self.key_sha256)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// Makes the first CA in `dir`, unless there is one.
    pub fn init(dir: &Path, now: UnixMillis) -> Result<Self, CaError> {
        if !dir.join(key_file(FIRST)).exists() {
            Self::make(dir, FIRST, &KeyPair::generate()?, COMMON_NAME, now)?;
        }
        Self::open(dir, FIRST)
    }

    /// Makes a further CA in `dir`, with names of its own.
    pub fn make_next(dir: &Path, now: UnixMillis) -> Result<Self, CaError> {
        let key = KeyPair::generate()?;
        let digits = hex(&Sha256::digest(key.subject_public_key_info()));
        let id = &digits[..16];
        let stem = format!("{FIRST}-{id}");
        Self::make(dir, &stem, &key, &format!("{COMMON_NAME} {id}"), now)?;
        Self::open(dir, &stem)
    }

    fn make(
        dir: &Path,
        stem: &str,
        key: &KeyPair,
        common_name: &str,
        now: UnixMillis,
    ) -> Result<(), CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(common_name);
        // One more below it: another CA that it signs while that is being replaced.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.serial_number = Some(serial().1);
        let not_before = UnixMillis(now.0 - CHECKED_BACKDATE_MS);
        set_validity(&mut params, not_before, now.0 + CA_DAYS * DAY_MS);
        let certificate = params.self_signed(key)?;
        // The key first: a certificate without its key would be of no use.
        write(&dir.join(key_file(stem)), &key.serialize_pem(), 0o600)?;
        write(&dir.join(certificate_file(stem)), &certificate.pem(), 0o644)
    }

    /// Opens the CA in `dir` whose files begin with `stem`.
    pub fn open(dir: &Path, stem: &str) -> Result<Self, CaError> {
        let key = KeyPair::from_pem(&read(&dir.join(key_file(stem)))?)?;
        let pem = read(&dir.join(certificate_file(stem)))?;
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| CaError::Parse(error.to_string()))?;
        let key_sha256 = spki_sha256(&der)?;
        let id = CaId::of_key_sha256(&key_sha256)
            .ok_or_else(|| CaError::Parse("its key has no hash".to_owned()))?;
        let facts = read_facts(&der)?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key)?;
        Ok(Self {
            issuer,
            stem: stem.to_owned(),
            pem,
            key_sha256,
            id,
            facts,
        })
    }

    /// Name of its files within the directory, before `.pem` and `.key.pem`.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// Which CA it is: the first digits of its key's hash.
    pub fn id(&self) -> CaId {
        self.id
    }

    /// The end of its own certificate.
    pub fn not_after(&self) -> UnixMillis {
        self.facts.not_after
    }

    /// Whether it signed the certificate, by the key identifier in that.
    pub fn is_issuer_of(&self, identity: &PeerIdentity) -> bool {
        identity.issuer_key_id.is_some() && identity.issuer_key_id == self.facts.key_id
    }

    /// Vouches for another CA's key: a certificate for it, PEM, with the name that the other signs
    /// under.
    pub fn vouch_for(&self, other: &Self, now: UnixMillis) -> Result<String, CaError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&other.facts.common_name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let not_before = UnixMillis(now.0 - CHECKED_BACKDATE_MS);
        finish(&mut params, not_before, other.facts.not_after);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.signed_by(other.issuer.key(), &self.issuer)?;
        Ok(certificate.pem())
    }

    /// The CA's certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// SHA-256 of the CA's public key (`SubjectPublicKeyInfo`), lowercase hexadecimal.
    pub fn key_sha256(&self) -> &str {
        &self.key_sha256
    }

    /// Signs an agent's certificate. Only the public key is taken from the request.
    pub fn sign_agent(
        &self,
        csr_pem: &str,
        host: HostId,
        now: UnixMillis,
        validity_ms: i64,
    ) -> Result<Issued, CaError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| CaError::BadRequest(error.to_string()))?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name(&host.to_string());
        let uri = Ia5String::try_from(format!("{HOST_URI}{host}"))?;
        params.subject_alt_names = vec![SanType::URI(uri)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let not_after = UnixMillis(now.0 + validity_ms);
        let not_before = UnixMillis(now.0 - BACKDATE_MS);
        let serial = finish(&mut params, not_before, not_after);
        request.params = params;
        let certificate = request.signed_by(&self.issuer)?;
        Ok(Issued {
            pem: certificate.pem(),
            serial,
            not_before,
            not_after,
        })
    }

    /// Makes a server certificate for `names`: the certificate without its chain, and its key, PEM.
    pub fn sign_server(
        &self,
        names: &[String],
        now: UnixMillis,
    ) -> Result<(String, String), CaError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = name("watchkeep-collector");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let not_before = UnixMillis(now.0 - CHECKED_BACKDATE_MS);
        let not_after = UnixMillis(now.0 + SERVER_DAYS * DAY_MS);
        finish(&mut params, not_before, not_after);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }
}

/// Whom a certificate names.
#[derive(Clone, Debug)]
pub struct PeerIdentity {
    pub host: HostId,
    /// The certificate's serial number, lowercase hexadecimal.
    pub serial: String,
    /// When it was given out, to the second.
    pub issued_at: UnixMillis,
    /// Which key signed it (RFC 5280, section 4.2.1.1), if it says so.
    pub issuer_key_id: Option<Vec<u8>>,
}

/// Reads the host that a certificate of this CA names.
pub fn read_identity(der: &CertificateDer<'_>) -> Result<PeerIdentity, CaError> {
    use x509_parser::prelude::{FromDer, GeneralName, ParsedExtension, X509Certificate};
    let parse = |detail: &str| CaError::Parse(detail.to_owned());
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| CaError::Parse(error.to_string()))?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| CaError::Parse(error.to_string()))?
        .ok_or_else(|| parse("it names no host"))?;
    let host = names
        .value
        .general_names
        .iter()
        .find_map(|name| match name {
            GeneralName::URI(uri) => uri.strip_prefix(HOST_URI)?.parse().ok(),
            _ => None,
        });
    let begins_ms = certificate.validity().not_before.timestamp() * 1_000;
    let issuer_key_id =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(by) => {
                    Some(by.key_identifier.as_ref()?.0.to_vec())
                }
                _ => None,
            });
    Ok(PeerIdentity {
        host: host.ok_or_else(|| parse("it names no host"))?,
        serial: hex(certificate.raw_serial()),
        issued_at: UnixMillis(begins_ms + BACKDATE_MS),
        issuer_key_id,
    })
}

fn read_facts(der: &CertificateDer<'_>) -> Result<Facts, CaError> {
    use x509_parser::prelude::{FromDer, ParsedExtension, X509Certificate};
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| CaError::Parse(error.to_string()))?;
    let common_name = certificate
        .subject()
        .iter_common_name()
        .find_map(|name| name.as_str().ok())
        .ok_or_else(|| CaError::Parse("the CA's certificate has no common name".to_owned()))?;
    let key_id =
        certificate
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
    Ok(Facts {
        common_name: common_name.to_owned(),
        key_id,
        not_after: UnixMillis(certificate.validity().not_after.timestamp() * 1_000),
    })
}

/// SHA-256 of a certificate's public key, lowercase hexadecimal.
pub(super) fn spki_sha256(der: &CertificateDer<'_>) -> Result<String, CaError> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| CaError::Parse(error.to_string()))?;
    Ok(hex(&Sha256::digest(certificate.public_key().raw)))
}

/// Completes the certificate of a server or an agent. Returns its serial number.
fn finish(params: &mut CertificateParams, not_before: UnixMillis, not_after: UnixMillis) -> String {
    let (digits, serial) = serial();
    params.serial_number = Some(serial);
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    set_validity(params, not_before, not_after.0);
    digits
}

/// 127 random bits, positive as RFC 5280 section 4.1.2.2 asks.
fn serial() -> (String, SerialNumber) {
    let mut serial = rand::random::<[u8; 16]>();
    serial[0] = (serial[0] & 0x7f) | 0x40;
    (hex(&serial), SerialNumber::from_slice(&serial))
}

fn set_validity(params: &mut CertificateParams, not_before: UnixMillis, not_after_ms: i64) {
    let at = |ms: i64| {
        time::OffsetDateTime::from_unix_timestamp(ms.div_euclid(1_000))
            .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
    };
    params.not_before = at(not_before.0);
    params.not_after = at(not_after_ms);
}

/// The file of a CA's certificate.
pub(super) fn certificate_file(stem: &str) -> String {
    format!("{stem}.pem")
}

/// The file of a CA's key.
pub(super) fn key_file(stem: &str) -> String {
    format!("{stem}.key.pem")
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _: std::fmt::Result = write!(text, "{byte:02x}");
        text
    })
}

fn read(path: &Path) -> Result<String, CaError> {
    fs::read_to_string(path).map_err(|source| CaError::File {
        path: path.display().to_string(),
        source,
    })
}

/// Writes a file with the given mode by way of a temporary one, so that it is whole or absent. It
/// belongs to whom its directory belongs to: root may run the command line, and the collector that
/// runs as another user must read what that wrote.
pub(crate) fn write(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    use std::{
        io::Write,
        os::unix::fs::{MetadataExt, OpenOptionsExt, fchown},
    };
    let error = |source| CaError::File {
        path: path.display().to_string(),
        source,
    };
    let partial = path.with_extension("partial");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&partial)
        .map_err(error)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    let (owner, own) = (
        fs::metadata(dir).map_err(error)?,
        file.metadata().map_err(error)?,
    );
    if (owner.uid(), owner.gid()) != (own.uid(), own.gid()) && own.uid() == 0 {
        fchown(&file, Some(owner.uid()), Some(owner.gid())).map_err(error)?;
    }
    file.write_all(text.as_bytes()).map_err(error)?;
    file.sync_all().map_err(error)?;
    fs::rename(&partial, path).map_err(error)?;
    fs::File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(error)
}
