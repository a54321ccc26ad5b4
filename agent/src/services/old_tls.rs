//! The certificate of a server with which the TLS library can agree on nothing: one that speaks TLS
//! 1.0 or 1.1, or TLS 1.2 with ciphers that are out of use. Up to TLS 1.2 a server shows its
//! certificate unencrypted in its first answer (RFC 5246, section 7.4.2), so a `ClientHello` that
//! offers everything of that time is enough. Nothing is verified and no key is exchanged.

use std::io;

use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Most bytes that are read until the certificate is there.
const MAX_BYTES: usize = 256 * 1024;
/// A record's longest content, bytes (RFC 5246, section 6.2.3).
const MAX_RECORD_BYTES: usize = (16 << 10) + 2_048;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const CERTIFICATE: u8 = 11;
const TLS_1_0: [u8; 2] = [3, 1];
const TLS_1_2: [u8; 2] = [3, 3];

/// ECDHE, DHE and RSA key exchange with AES, 3DES and RC4, for RSA, ECDSA and DSA certificates
/// (IANA's "TLS Cipher Suites"); at the end the sign that renegotiation is secured.
const CIPHERS: [u16; 27] = [
    0xc02b, 0xc02f, 0xc02c, 0xc030, 0xc009, 0xc013, 0xc00a, 0xc014, 0x009e, 0x009f, 0x0033, 0x0039,
    0x0067, 0x006b, 0x0016, 0x009c, 0x009d, 0x003c, 0x003d, 0x002f, 0x0035, 0x000a, 0x0005, 0x0004,
    0x0032, 0x0038, 0x00ff,
];
/// secp256r1, secp384r1, secp521r1, x25519.
const GROUPS: [u16; 4] = [23, 24, 25, 29];
/// RSA, ECDSA and DSA with SHA-2 and SHA-1, RSA-PSS.
const SIGNATURES: [u16; 12] = [
    0x0403, 0x0503, 0x0603, 0x0401, 0x0501, 0x0601, 0x0804, 0x0805, 0x0806, 0x0203, 0x0201, 0x0202,
];

/// What a server showed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// As in `TLS 1.0`.
    pub(super) version: &'static str,
    /// Whether that is older than TLS 1.2.
    pub(super) is_old: bool,
    pub(super) leaf: CertificateDer<'static>,
}

/// Asks for the certificate of `name`, which is left out if it is an address.
pub(super) async fn ask<S>(
    stream: &mut S,
    name: Option<&str>,
    random: [u8; 32],
) -> io::Result<Shown>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&hello(name, random)).await?;
    let mut handshake = Vec::new();
    let mut version = None;
    loop {
        while let Some((kind, body, length)) = message(&handshake) {
            match kind {
                SERVER_HELLO => version = Some(named(body)?),
                CERTIFICATE => {
                    let leaf = first(body).ok_or_else(malformed)?;
                    let (version, is_old) = version.ok_or_else(malformed)?;
                    let leaf = CertificateDer::from(leaf.to_vec());
                    return Ok(Shown {
                        version,
                        is_old,
                        leaf,
                    });
                }
                _ => {}
            }
            handshake.drain(..length);
        }
        if handshake.len() > MAX_BYTES {
            return Err(malformed());
        }
        let mut head = [0; 5];
        stream.read_exact(&mut head).await?;
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        if length > MAX_RECORD_BYTES {
            return Err(malformed());
        }
        let mut content = vec![0; length];
        stream.read_exact(&mut content).await?;
        match (head[0], content.get(1)) {
            (HANDSHAKE, _) => handshake.extend(content),
            (ALERT, Some(alert)) => {
                return Err(io::Error::other(format!(
                    "refuses the handshake (alert {alert})"
                )));
            }
            _ => return Err(malformed()),
        }
    }
}

fn malformed() -> io::Error {
    io::Error::other("does not speak TLS")
}

/// The first complete handshake message: its type, its body, and its length with the head.
fn message(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let length = 4 + length3(bytes.get(1..)?)?;
    Some((bytes[0], bytes.get(4..length)?, length))
}

/// The certificate of the server, the first of the list.
fn first(body: &[u8]) -> Option<&[u8]> {
    let list = body.get(3..)?;
    list.get(3..3 + length3(list)?)
}

fn length3(bytes: &[u8]) -> Option<usize> {
    let [a, b, c] = *bytes.first_chunk::<3>()?;
    Some(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c))
}

fn named(server_hello: &[u8]) -> io::Result<(&'static str, bool)> {
    match server_hello.first_chunk::<2>() {
        Some([3, 0]) => Ok(("SSL 3.0", true)),
        Some([3, 1]) => Ok(("TLS 1.0", true)),
        Some([3, 2]) => Ok(("TLS 1.1", true)),
        Some([3, 3]) => Ok(("TLS 1.2", false)),
        _ => Err(malformed()),
    }
}

/// A record with a `ClientHello` (RFC 5246, section 7.4.1.2).
fn hello(name: Option<&str>, random: [u8; 32]) -> Vec<u8> {
    let mut body = TLS_1_2.to_vec();
    body.extend(random);
    // No session to resume.
    body.push(0);
    body.extend(with_length(&words(&CIPHERS)));
    // No compression.
    body.extend([1, 0]);
    let mut extensions = Vec::new();
    if let Some(name) = name {
        let mut entry = vec![0];
        entry.extend(with_length(name.as_bytes()));
        extend(&mut extensions, 0, &with_length(&entry));
    }
    extend(&mut extensions, 10, &with_length(&words(&GROUPS)));
    extend(&mut extensions, 11, &[1, 0]);
    extend(&mut extensions, 13, &with_length(&words(&SIGNATURES)));
    body.extend(with_length(&extensions));
    let mut record = vec![HANDSHAKE];
    // The version of the record is that of the oldest server that is to understand it.
    record.extend(TLS_1_0);
    let mut message = vec![CLIENT_HELLO, 0];
    message.extend(with_length(&body));
    record.extend(with_length(&message));
    record
}

fn extend(extensions: &mut Vec<u8>, kind: u16, data: &[u8]) {
    extensions.extend(kind.to_be_bytes());
    extensions.extend(with_length(data));
}

/// With the length in two bytes before it; all lengths here are below 64 KiB.
fn with_length(data: &[u8]) -> Vec<u8> {
    let mut bytes = (data.len() as u16).to_be_bytes().to_vec();
    bytes.extend(data);
    bytes
}

fn words(words: &[u16]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::duplex;

    use super::*;

    const RANDOM: [u8; 32] = [7; 32];

    fn record(kind: u8, content: &[u8]) -> Vec<u8> {
        let mut record = vec![kind, 3, 1];
        record.extend(with_length(content));
        record
    }

    fn handshake(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut message = vec![kind, 0];
        message.extend(with_length(body));
        message
    }

    /// What is made of a server's answer.
    async fn answered(bytes: &[u8]) -> Result<Shown, String> {
        let (mut client, mut server) = duplex(1 << 20);
        server.write_all(bytes).await.unwrap();
        server.shutdown().await.unwrap();
        let shown = ask(&mut client, Some("www.example"), RANDOM).await;
        shown.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_first_certificate_and_the_version_are_read_in_any_records() {
        let mut hello = vec![3, 1];
        hello.extend([0; 36]);
        let list = [&[0, 0, 11][..], &[0, 0, 4], b"leaf", &[0, 0, 1], b"x"].concat();
        let messages = [
            handshake(SERVER_HELLO, &hello),
            handshake(CERTIFICATE, &list),
        ]
        .concat();
        for size in [1, 7, 40, messages.len()] {
            let records = messages.chunks(size).map(|some| record(HANDSHAKE, some));
            let shown = answered(&records.collect::<Vec<_>>().concat()).await;
            let expected = Shown {
                version: "TLS 1.0",
                is_old: true,
                leaf: CertificateDer::from(b"leaf".to_vec()),
            };
            assert_eq!(shown, Ok(expected), "records of {size} bytes");
        }
        let refused = answered(&record(ALERT, &[2, 70])).await;
        assert_eq!(refused, Err("refuses the handshake (alert 70)".to_owned()));
        let page = answered(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        assert_eq!(page, Err("does not speak TLS".to_owned()));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = message(&bytes);
            let _ = first(&bytes);
            let _ = named(&bytes);
        }
    }
}
