//! What must hold for any enrolment token: the body of the fuzz target `token` (`tests/fuzz/`),
//! which the tests run too.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{CHECKSUM_BYTES, EnrolmentToken, PREFIX, ParseTokenError};

/// A token that is read is written as one that says the same; content gets past the checksum only
/// whole; and `Debug` never shows the secret. The input is a token as people paste it, or, after a
/// `{`, a token's content, which gets the right checksum.
pub fn tokens(data: &[u8]) {
    let text = if data.starts_with(b"{") {
        let sealed = sealed(data);
        bent(&sealed);
        sealed
    } else {
        String::from_utf8_lossy(data).into_owned()
    };
    let Ok(token) = text.parse::<EnrolmentToken>() else {
        return;
    };
    let written = token.to_string();
    assert_eq!(written.parse(), Ok(token.clone()), "{written}");
    let shown = format!("{token:?}");
    let hidden = token.secret.len() < 8 || token.url.contains(&token.secret);
    assert!(hidden || !shown.contains(&token.secret), "{shown}");
}

fn sealed(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let bytes = [content, &digest[..CHECKSUM_BYTES]].concat();
    format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
}

/// One character less at the end, or another one in the middle: always detected.
fn bent(token: &str) {
    let cut = &token[..token.len() - 1];
    assert_eq!(cut.parse::<EnrolmentToken>(), Err(ParseTokenError::Damaged));
    let mut other = token.as_bytes().to_vec();
    let middle = PREFIX.len() + (other.len() - PREFIX.len()) / 2;
    other[middle] = if other[middle] == b'A' { b'B' } else { b'A' };
    let other = String::from_utf8(other).expect("a token is ASCII");
    assert_eq!(
        other.parse::<EnrolmentToken>(),
        Err(ParseTokenError::Damaged)
    );
}

/// Inputs to begin with.
pub fn seeds() -> Vec<Vec<u8>> {
    let token = EnrolmentToken {
        url: "https://collector.example:7443".to_owned(),
        id: Uuid::from_u128(7),
        secret: "c2VjcmV0LXNlY3JldC1zZWNyZXQ".to_owned(),
        ca_key_sha256: "ab".repeat(32),
    };
    let content = serde_json::to_vec(&token).expect("a token has string keys only");
    vec![
        token.to_string().into_bytes(),
        format!("  {token}\n").into_bytes(),
        content,
        b"{\"u\":\"\",\"i\":\"0\"}".to_vec(),
        PREFIX.as_bytes().to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_check::check;

    #[test]
    fn tokens_hold() {
        check("token", &seeds(), tokens);
    }
}
