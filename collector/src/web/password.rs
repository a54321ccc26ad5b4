//! Passwords: Argon2id (RFC 9106) with the parameters that OWASP lists first for it: 19 MiB, two
//! passes, one lane. Hashing is slow and hungry on purpose, so requests do it through [`Hasher`],
//! off the async threads and a few at a time.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::sync::Semaphore;

/// Shortest password that a person may choose, in characters.
pub const MIN_PASSWORD_CHARS: usize = 12;
/// Longest, in bytes: enough for any phrase, and a bound on the work.
pub const MAX_PASSWORD_BYTES: usize = 256;
/// How many are hashed at once; each takes 19 MiB and tens of milliseconds of one core.
const HASHES_AT_ONCE: usize = 2;
/// No 0, 1, l, i, o or u: hard to misread, and no words arise.
const ONE_TIME_ALPHABET: &[u8; 30] = b"23456789abcdefghjkmnpqrstvwxyz";
/// Letters of a one-time password: 78 bits.
const ONE_TIME_CHARS: usize = 16;

/// Verified when there is no such login, so that the answer takes as long: random bytes, which no
/// known password gives.
const DECOY: &str = "$argon2id$v=19$m=19456,t=2,p=1$mPYGqpessnjEQhOYtfZZTw$FMzmXWhKkmLt4Ga+jTV+wUMYEyVVHd36zB/Ch3lNJfc";

/// The hash could not be computed.
#[derive(Debug, thiserror::Error)]
#[error("the password could not be hashed: {0}")]
pub struct HashError(String);

/// Why a password that a person chose is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Weak {
    /// Shorter than [`MIN_PASSWORD_CHARS`].
    #[error("is too short: use at least 12 characters, for example four unrelated words")]
    Short,
    /// Longer than [`MAX_PASSWORD_BYTES`].
    #[error("is too long: use at most 256 bytes")]
    Long,
    /// Few different characters, or the login.
    #[error("is too easy to guess: use unrelated words, not the login and not one repeated")]
    Guessable,
}

/// Hashes a password to a PHC string. Takes tens of milliseconds.
pub fn hash(password: &str) -> Result<String, HashError> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    hash.map(|hash| hash.to_string())
        .map_err(|error| HashError(error.to_string()))
}

/// Whether the password belongs to the hash; false for a hash that can't be read. Takes tens of
/// milliseconds.
pub fn verify(password: &str, hash: &str) -> bool {
    if password.len() > MAX_PASSWORD_BYTES {
        return false;
    }
    PasswordHash::new(hash).is_ok_and(|hash| {
        Argon2::default()
            .verify_password(password.as_bytes(), &hash)
            .is_ok()
    })
}

/// A password for one sign-in, as in `k7dm-x2pq-9rtw-h4ns`.
pub fn generate_one_time() -> String {
    let mut text = String::new();
    let mut letters = 0;
    while letters < ONE_TIME_CHARS {
        let byte = usize::from(rand::random::<u8>());
        // Bytes past the last whole multiple would favour the first letters.
        if byte >= 256 / ONE_TIME_ALPHABET.len() * ONE_TIME_ALPHABET.len() {
            continue;
        }
        if letters > 0 && letters % 4 == 0 {
            text.push('-');
        }
        text.push(char::from(
            ONE_TIME_ALPHABET[byte % ONE_TIME_ALPHABET.len()],
        ));
        letters += 1;
    }
    text
}

/// Whether a person may choose this password.
pub fn check(password: &str, login: &str) -> Result<(), Weak> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(Weak::Long);
    }
    if password.chars().count() < MIN_PASSWORD_CHARS {
        return Err(Weak::Short);
    }
    let lower = password.to_lowercase();
    let different: std::collections::HashSet<char> = lower.chars().collect();
    let without_login = lower.replace(&login.to_lowercase(), "");
    if different.len() < 5 || without_login.chars().count() < MIN_PASSWORD_CHARS / 2 {
        return Err(Weak::Guessable);
    }
    Ok(())
}

/// Hashes for requests: off the async threads, a few at a time.
#[derive(Clone, Debug)]
pub(crate) struct Hasher {
    permits: Arc<Semaphore>,
}

impl Hasher {
    pub(crate) fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(HASHES_AT_ONCE)),
        }
    }

    pub(crate) async fn hash(&self, password: String) -> Result<String, HashError> {
        self.run(move || hash(&password)).await?
    }

    /// `None` as the hash takes as long and is false.
    pub(crate) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, HashError> {
        self.run(move || {
            let right = verify(&password, hash.as_deref().unwrap_or(DECOY));
            right && hash.is_some()
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = self.permits.acquire().await;
        let done = tokio::task::spawn_blocking(work).await;
        drop(permit);
        done.map_err(|error| HashError(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_its_own_password_only() {
        let hash = hash("correct horse battery").unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(verify("correct horse battery", &hash));
        assert!(!verify("correct horse batterz", &hash));
        assert!(!verify("correct horse battery", "not a hash"));
    }

    #[test]
    fn the_decoy_costs_as_much_as_a_real_hash() {
        let cost = |hash: &str| hash.split('$').take(4).collect::<Vec<_>>().join("$");
        assert_eq!(cost(DECOY), cost(&hash("correct horse battery").unwrap()));
        assert!(PasswordHash::new(DECOY).is_ok());
    }

    #[test]
    fn one_time_passwords_are_allowed_and_differ() {
        let (a, b) = (generate_one_time(), generate_one_time());
        assert_ne!(a, b);
        assert_eq!(a.len(), 19);
        assert_eq!(check(&a, "admin"), Ok(()));
    }

    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        let cases = [
            ("short", Weak::Short),
            ("aaaaaaaaaaaaaaa", Weak::Guessable),
            ("administrator", Weak::Guessable),
            (&"x".repeat(300), Weak::Long),
        ];
        for (password, weak) in cases {
            assert_eq!(check(password, "administrator"), Err(weak), "{password}");
        }
        // Twelve characters, not bytes.
        assert_eq!(check("žluťoučký kůň", "admin"), Ok(()));
    }
}
