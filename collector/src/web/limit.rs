//! How often someone may try to sign in. Attempts are counted for each browser that has signed in
//! before (by a device cookie), and for all others by address, by login and address, and by login.
//! So an attacker who tries a person's login from elsewhere keeps out nobody who signs in from a
//! browser that is known: the limits of strangers do not apply to it. Lost at a restart, bounded in
//! size.

use std::{net::IpAddr, time::Duration};

use watchkeep_shared::{DurationMs, UnixMillis};

use crate::limit::{Limiter, Rate, Verdict, source};

/// From one known browser.
const DEVICE: Rate = rate(30, 20);
/// From one address, whatever logins it tries.
const ADDRESS: Rate = rate(20, 30);
/// For one login from one address.
const LOGIN_AND_ADDRESS: Rate = rate(75, 8);
/// For one login from browsers that are not known, wherever they are: bounds the guesses of an
/// attacker with many addresses. While it is exceeded only known browsers get in.
const LOGIN: Rate = rate(2, 300);

const fn rate(every_s: u64, burst: u32) -> Rate {
    Rate {
        every: Duration::from_secs(every_s),
        burst,
    }
}

/// One attempt to sign in.
#[derive(Clone, Debug)]
pub(crate) struct Attempt<'a> {
    pub(crate) from: IpAddr,
    pub(crate) login: &'a str,
    /// The device cookie's digest, if it is one of this login's.
    pub(crate) device: Option<&'a [u8]>,
}

/// Attempts of the last minutes.
#[derive(Debug)]
pub(crate) struct SignInLimits {
    devices: Limiter<Vec<u8>>,
    addresses: Limiter<IpAddr>,
    logins_by_address: Limiter<(String, IpAddr)>,
    logins: Limiter<String>,
}

impl SignInLimits {
    pub(crate) fn new() -> Self {
        Self {
            devices: Limiter::new(DEVICE),
            addresses: Limiter::new(ADDRESS),
            logins_by_address: Limiter::new(LOGIN_AND_ADDRESS),
            logins: Limiter::new(LOGIN),
        }
    }

    /// Counts an attempt. Returns how long it must wait, if it must.
    pub(crate) fn take(&self, attempt: &Attempt<'_>, now: UnixMillis) -> Option<DurationMs> {
        if let Some(device) = attempt.device {
            return self.take_for(device, now);
        }
        let from = source(attempt.from);
        // A login in the store is far shorter; a long guess must not fill the memory.
        let login: String = attempt.login.chars().take(64).collect();
        let login = login.to_lowercase();
        wait(self.addresses.take(&from, now))
            .or_else(|| wait(self.logins_by_address.take(&(login.clone(), from), now)))
            .or_else(|| wait(self.logins.take(&login, now)))
    }

    /// Counts an attempt from one known browser or session.
    pub(crate) fn take_for(&self, sha256: &[u8], now: UnixMillis) -> Option<DurationMs> {
        wait(self.devices.take(&sha256.to_vec(), now))
    }
}

fn wait(verdict: Verdict) -> Option<DurationMs> {
    match verdict {
        Verdict::Allowed => None,
        Verdict::Refused { wait, .. } => Some(wait),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_000_000);

    fn from(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn attempt<'a>(address: &str, login: &'a str, device: Option<&'a [u8]>) -> Attempt<'a> {
        Attempt {
            from: from(address),
            login,
            device,
        }
    }

    #[test]
    fn eight_attempts_from_one_address_then_one_every_75_seconds() {
        let limits = SignInLimits::new();
        for i in 0..8 {
            assert_eq!(
                limits.take(&attempt("192.0.2.1", "Anna", None), NOW),
                None,
                "{i}"
            );
        }
        let wait = limits
            .take(&attempt("192.0.2.1", "anna", None), NOW)
            .unwrap();
        assert!((1..=75_001).contains(&wait.0), "{wait:?}");
        assert_eq!(
            limits.take(&attempt("192.0.2.1", "anna", None), NOW + wait),
            None
        );
        assert_eq!(limits.take(&attempt("192.0.2.1", "ben", None), NOW), None);
    }

    #[test]
    fn an_attacker_keeps_nobody_out_who_is_elsewhere_or_known() {
        let limits = SignInLimits::new();
        let device = [7_u8; 32];
        for i in 0..200 {
            limits.take(&attempt(&format!("198.51.100.{i}"), "anna", None), NOW);
            limits.take(&attempt("203.0.113.9", "anna", None), NOW);
        }
        assert_eq!(limits.take(&attempt("192.0.2.1", "anna", None), NOW), None);
        for i in 0..65_000 {
            let address = format!("2001:db8:{:x}:{:x}::1", i / 256, i % 256);
            limits.take(&attempt(&address, "anna", None), NOW);
        }
        assert!(
            limits
                .take(&attempt("192.0.2.1", "anna", None), NOW)
                .is_some()
        );
        assert_eq!(
            limits.take(&attempt("203.0.113.9", "anna", Some(&device)), NOW),
            None
        );
    }

    #[test]
    fn one_ipv6_network_is_one_address() {
        let limits = SignInLimits::new();
        for i in 0..30 {
            limits.take(
                &attempt(&format!("2001:db8::{i:x}"), &format!("u{i}"), None),
                NOW,
            );
        }
        assert!(
            limits
                .take(&attempt("2001:db8::ffff", "fresh", None), NOW)
                .is_some()
        );
        assert_eq!(
            limits.take(&attempt("2001:db8:0:1::1", "fresh", None), NOW),
            None
        );
    }
}
