//! What is said before a TLS handshake where a protocol begins without TLS: the client asks for it,
//! the server agrees. Nothing else is said, and no user is named.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use watchkeep_shared::wire::policy::StartTls;

/// Longest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// `StartTLS` of LDAP (RFC 4511, section 4.14): an `ExtendedRequest` with its name.
const LDAP_REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
/// `SSLRequest` of PostgreSQL ("Frontend/Backend Protocol", "Message Formats").
const POSTGRESQL_REQUEST: &[u8] = &[0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f];
/// `Protocol::SSLRequest` of `MySQL`: a packet of 32 bytes with the number 1. Capabilities
/// `CLIENT_PROTOCOL_41`, `CLIENT_SSL` and `CLIENT_SECURE_CONNECTION`, packets of up to 16 MiB, UTF-8.
const MYSQL_REQUEST: [u8; 36] = {
    let mut packet = [0; 36];
    packet[0] = 32;
    packet[3] = 1;
    packet[5] = 0x8a;
    packet[4] = 0;
    packet[11] = 1;
    packet[12] = 33;
    packet
};
const MYSQL_CLIENT_SSL: u8 = 0x08;

/// The protocol that a port is meant for, if that begins without TLS.
pub(super) const fn of_port(port: u16) -> StartTls {
    match port {
        25 | 587 => StartTls::Smtp,
        110 => StartTls::Pop3,
        143 => StartTls::Imap,
        389 => StartTls::Ldap,
        3306 => StartTls::Mysql,
        5432 => StartTls::Postgresql,
        _ => StartTls::None,
    }
}

/// Has the server begin TLS. The error says what it answered.
pub(super) async fn begin<S>(stream: &mut S, protocol: StartTls) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match protocol {
        StartTls::None => Ok(()),
        StartTls::Smtp => smtp(stream).await,
        StartTls::Imap => {
            lines(stream, "* ").await?.expect_prefix("* OK")?;
            stream.write_all(b"a STARTTLS\r\n").await?;
            lines(stream, "a ").await?.expect_prefix("a OK")
        }
        StartTls::Pop3 => {
            lines(stream, "").await?.expect_prefix("+OK")?;
            stream.write_all(b"STLS\r\n").await?;
            lines(stream, "").await?.expect_prefix("+OK")
        }
        StartTls::Ldap => ldap(stream).await,
        StartTls::Postgresql => {
            stream.write_all(POSTGRESQL_REQUEST).await?;
            match stream.read_u8().await? {
                b'S' => Ok(()),
                _ => Err(no_tls("PostgreSQL")),
            }
        }
        StartTls::Mysql => mysql(stream).await,
    }
}

/// RFC 3207. A reply of several lines has a hyphen after the number in all but the last.
async fn smtp<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    lines(stream, "220 ").await?.expect_prefix("220 ")?;
    stream
        .write_all(b"EHLO watchkeep-agent.invalid\r\n")
        .await?;
    lines(stream, "250 ").await?.expect_prefix("250 ")?;
    stream.write_all(b"STARTTLS\r\n").await?;
    lines(stream, "220 ").await?.expect_prefix("220 ")
}

async fn ldap<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    stream.write_all(LDAP_REQUEST).await?;
    let mut head = [0; 2];
    stream.read_exact(&mut head).await?;
    let length = match head {
        [0x30, short @ 0..=0x7f] => usize::from(short),
        [0x30, 0x81] => usize::from(stream.read_u8().await?),
        [0x30, 0x82] => usize::from(stream.read_u16().await?),
        [0x30, 0x84] => stream.read_u32().await? as usize,
        _ => return Err(io::Error::other("does not speak LDAP")),
    };
    if length > MAX_ANSWER_BYTES {
        return Err(io::Error::other("does not speak LDAP"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    // The message's number, then an ExtendedResponse, which begins with the result code.
    let has_code = |code: u8| body.windows(3).any(|three| three == [0x0a, 1, code]);
    if has_code(0) {
        Ok(())
    } else {
        Err(no_tls("LDAP"))
    }
}

/// "Connection Phase" of `MySQL`: the server greets with its version and capabilities.
async fn mysql<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let length = usize::from(head[0]) | usize::from(head[1]) << 8 | usize::from(head[2]) << 16;
    if length > MAX_ANSWER_BYTES {
        return Err(io::Error::other("does not speak MySQL's protocol"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    if body.first() != Some(&10) {
        // An error packet, as for a client that is blocked.
        let text = String::from_utf8_lossy(body.get(3..).unwrap_or_default());
        return Err(io::Error::other(format!("refuses: {text}")));
    }
    // After the version's text: thread number, 8 bytes of a challenge, a zero, capabilities.
    let version = body.iter().position(|byte| *byte == 0).unwrap_or(0);
    let capabilities = body.get(version + 1 + 4 + 8 + 1 + 1).copied().unwrap_or(0);
    if capabilities & MYSQL_CLIENT_SSL == 0 {
        return Err(no_tls("MySQL"));
    }
    stream.write_all(&MYSQL_REQUEST).await
}

fn no_tls(protocol: &str) -> io::Error {
    io::Error::other(format!("offers no TLS over {protocol}"))
}

/// The last line of an answer.
struct LastLine(String);

impl LastLine {
    fn expect_prefix(&self, prefix: &str) -> io::Result<()> {
        if self.0.starts_with(prefix) {
            Ok(())
        } else {
            let answer = super::short(&self.0);
            Err(io::Error::other(format!("offers no TLS: \"{answer}\"")))
        }
    }
}

/// Reads lines until one that ends the answer: it begins with `last`, or it is a refusal.
async fn lines<S: AsyncRead + Unpin>(stream: &mut S, last: &str) -> io::Result<LastLine> {
    let mut answer = Vec::new();
    let mut begin = 0;
    loop {
        if answer.len() > MAX_ANSWER_BYTES {
            return Err(io::Error::other("the answer is too long"));
        }
        answer.push(stream.read_u8().await?);
        if answer.last() != Some(&b'\n') {
            continue;
        }
        let line = String::from_utf8_lossy(&answer[begin..])
            .trim_end()
            .to_owned();
        begin = answer.len();
        let is_refusal = line.starts_with(['4', '5']) && line.as_bytes().get(3) == Some(&b' ');
        if line.starts_with(last) || is_refusal {
            return Ok(LastLine(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    /// What a server says, and what it then expects.
    type Step<'a> = (&'a [u8], &'a [u8]);

    /// Speaks a server's side of a dialogue.
    async fn dialogue(protocol: StartTls, steps: &[Step<'_>]) -> Result<(), String> {
        let (mut client, mut server) = duplex(1_024);
        let serve = async {
            for (says, expects) in steps {
                server.write_all(says).await.unwrap();
                let mut heard = vec![0; expects.len()];
                server.read_exact(&mut heard).await.unwrap();
                assert_eq!(heard, *expects, "{protocol:?}");
            }
            // Open until the client has read all.
            server
        };
        let (begun, _server) = tokio::join!(begin(&mut client, protocol), serve);
        begun.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn each_protocol_is_asked_for_tls_in_its_own_words() {
        let ehlo = &b"EHLO watchkeep-agent.invalid\r\n"[..];
        let greeting = b"\x36\x00\x00\x00\x0a8.0.36\x00\x01\x00\x00\x00abcdefgh\x00\xff\xff\x21\x02\x00\xff\xdf\x15\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00abcdefghijkl\x00";
        let mut mysql = greeting.to_vec();
        mysql[0] = (greeting.len() - 4) as u8;
        let cases: [(StartTls, &[Step<'_>]); 6] = [
            (
                StartTls::Smtp,
                &[
                    (b"220-mail.example\r\n220 ESMTP\r\n", ehlo),
                    (
                        b"250-mail.example\r\n250-STARTTLS\r\n250 HELP\r\n",
                        b"STARTTLS\r\n",
                    ),
                    (b"220 go ahead\r\n", b""),
                ],
            ),
            (
                StartTls::Imap,
                &[
                    (b"* OK ready\r\n", b"a STARTTLS\r\n"),
                    (b"* CAPABILITY IMAP4rev1\r\na OK begin\r\n", b""),
                ],
            ),
            (
                StartTls::Pop3,
                &[(b"+OK ready\r\n", b"STLS\r\n"), (b"+OK begin\r\n", b"")],
            ),
            (
                StartTls::Ldap,
                &[
                    (b"", LDAP_REQUEST),
                    (
                        b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
                        b"",
                    ),
                ],
            ),
            (
                StartTls::Postgresql,
                &[(b"", POSTGRESQL_REQUEST), (b"S", b"")],
            ),
            (StartTls::Mysql, &[(&mysql, &MYSQL_REQUEST)]),
        ];
        for (protocol, steps) in cases {
            assert_eq!(dialogue(protocol, steps).await, Ok(()), "{protocol:?}");
        }
    }

    #[tokio::test]
    async fn a_server_without_tls_is_quoted() {
        let ehlo = &b"EHLO watchkeep-agent.invalid\r\n"[..];
        let cases: [(StartTls, &[Step<'_>], &str); 5] = [
            (
                StartTls::Smtp,
                &[
                    (b"220 x\r\n", ehlo),
                    (b"250 x\r\n", b"STARTTLS\r\n"),
                    (b"502 not implemented\r\n", b""),
                ],
                "offers no TLS: \"502 not implemented\"",
            ),
            (
                StartTls::Pop3,
                &[(b"+OK\r\n", b"STLS\r\n"), (b"-ERR what?\r\n", b"")],
                "offers no TLS: \"-ERR what?\"",
            ),
            (
                StartTls::Ldap,
                &[
                    (b"", LDAP_REQUEST),
                    (
                        b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x02\x04\x00\x04\x00",
                        b"",
                    ),
                ],
                "offers no TLS over LDAP",
            ),
            (
                StartTls::Postgresql,
                &[(b"", POSTGRESQL_REQUEST), (b"N", b"")],
                "offers no TLS over PostgreSQL",
            ),
            (
                StartTls::Mysql,
                &[(b"\x0a\x00\x00\x00\xff\x69\x04blocked", b"")],
                "refuses: blocked",
            ),
        ];
        for (protocol, steps, expected) in cases {
            let error = dialogue(protocol, steps).await.unwrap_err();
            assert_eq!(error, expected, "{protocol:?}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_an_end_is_given_up() {
        let (mut client, mut server) = duplex(1_024);
        let flood = async move { while server.write_all(b"250-x\r\n").await.is_ok() {} };
        let ask = async move {
            let begun = begin(&mut client, StartTls::Smtp).await;
            begun.unwrap_err().to_string()
        };
        let (error, ()) = tokio::join!(ask, flood);
        assert_eq!(error, "the answer is too long");
    }
}
