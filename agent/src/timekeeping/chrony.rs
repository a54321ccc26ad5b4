//! chronyd: its command protocol, version 6 (chrony's `candm.h`; `chronyc tracking` asks the same).
//!
//! One datagram asks, one answers; anyone on the loopback interface may, unless `cmdport 0` forbids
//! it. All numbers are big-endian. A machine without chronyd refuses the datagram at once.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    net::UdpSocket,
    time::{Duration, timeout},
};

use super::{ClockSources, Reading, SYNCHRONISED_FOR_S};

/// While nothing answers, so many looks are left out between two questions.
const LEFT_OUT: u32 = 9;

const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// The question for the state of the clock, and the form of its answer.
const TRACKING: u16 = 33;
const TRACKING_REPLY: u16 = 5;
/// The answer's length. A question must be as long, so that nobody can have others flooded.
const TRACKING_BYTES: usize = 104;
const SEQUENCE_AT: usize = 8;

/// The leap status of a clock that has no source.
const UNSYNCHRONISED: u16 = 3;
/// The reference of a clock that is configured to trust itself (`local` in `chrony.conf(5)`): 127.127.1.1.
const LOCAL: u32 = 0x7f7f_0101;
/// Upper half of the seconds in 32 bits.
const NO_UPPER_HALF: u32 = 0x7fff_ffff;

/// chronyd, which may or may not run.
#[derive(Debug)]
pub(super) struct Chronyd {
    address: SocketAddr,
    patience: Duration,
    answered: bool,
    leave_out: u32,
}

impl Chronyd {
    pub(super) fn new(place: &ClockSources) -> Self {
        Self {
            address: place.chronyd,
            patience: place.patience,
            answered: false,
            leave_out: 0,
        }
    }

    /// Asks, unless nothing answered a while ago.
    pub(super) async fn ask(&mut self, wall_ms: i64) -> Option<Reading> {
        if self.leave_out > 0 {
            self.leave_out -= 1;
            return None;
        }
        let asking = timeout(self.patience, tracking(self.address));
        let answer = asking.await.ok().flatten();
        // One lost answer is no reason to wait longer.
        if answer.is_none() && !self.answered {
            self.leave_out = LEFT_OUT;
        }
        self.answered = answer.is_some();
        answer.map(|tracking| tracking.reading(wall_ms))
    }
}

/// Asks with a socket of its own, so that no answer to an earlier question can come.
async fn tracking(address: SocketAddr) -> Option<Tracking> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.ok()?;
    socket.connect(address).await.ok()?;
    let sequence: u32 = rand::random();
    socket.send(&question(sequence)).await.ok()?;
    // One byte more: an answer of another form may be longer.
    let mut answer = [0; TRACKING_BYTES + 1];
    let length = socket.recv(&mut answer).await.ok()?;
    Tracking::read(&answer[..length], sequence)
}

fn question(sequence: u32) -> [u8; TRACKING_BYTES] {
    let mut bytes = [0; TRACKING_BYTES];
    bytes[0] = VERSION;
    bytes[1] = REQUEST;
    bytes[4..6].copy_from_slice(&TRACKING.to_be_bytes());
    bytes[SEQUENCE_AT..SEQUENCE_AT + 4].copy_from_slice(&sequence.to_be_bytes());
    bytes
}

/// What chronyd says of the clock.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tracking {
    reference: u32,
    leap: u16,
    /// When the clock was last compared with its source, seconds since the Unix epoch.
    reference_s: i64,
    /// How far the clock is behind the right time.
    behind_s: f64,
    /// Between the last two comparisons.
    update_interval_s: f64,
}

impl Tracking {
    /// `None` if this is no answer to the question with that number.
    fn read(bytes: &[u8], sequence: u32) -> Option<Self> {
        let bytes: &[u8; TRACKING_BYTES] = bytes.try_into().ok()?;
        let long = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|n| bytes[at + n]));
        let short = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let (command, form, status) = (short(4), short(6), short(8));
        let is_it = bytes[..2] == [VERSION, REPLY]
            && (command, form, status) == (TRACKING, TRACKING_REPLY, 0)
            && long(16) == sequence;
        let upper = match long(56) {
            NO_UPPER_HALF => 0,
            upper => upper,
        };
        is_it.then(|| Self {
            reference: long(28),
            leap: short(54),
            reference_s: ((u64::from(upper) << 32) | u64::from(long(60))) as i64,
            behind_s: float(long(68)),
            update_interval_s: float(long(100)),
        })
    }

    fn reading(self, wall_ms: i64) -> Reading {
        // The time of the comparison is in right time, as far as chronyd knows it.
        let right_s = wall_ms as f64 / 1_000.0 + self.behind_s;
        let age_s = right_s - self.reference_s as f64;
        // Whoever asked for rarer looks has them.
        let fresh_for_s = (SYNCHRONISED_FOR_S as f64).max(4.0 * self.update_interval_s);
        if self.leap == UNSYNCHRONISED || self.reference == LOCAL || age_s > fresh_for_s {
            return Reading::UNSYNCHRONISED;
        }
        Reading {
            synchronised: Some(true),
            ahead_ms: Some(0.0 - self.behind_s * 1_000.0),
        }
    }
}

/// chrony's number in 32 bits: a signed exponent of 7 bits, then a signed coefficient of 25 without
/// a hidden bit; together coefficient · 2^(exponent - 25). Always finite.
fn float(bits: u32) -> f64 {
    let exponent = bits.cast_signed() >> 25;
    let coefficient = (bits << 7).cast_signed() >> 7;
    f64::from(coefficient) * f64::powi(2.0, exponent - 25)
}

/// Answers as chronyd gives them.
#[cfg(test)]
pub(super) mod fake {
    use super::{LOCAL, NO_UPPER_HALF, SEQUENCE_AT, TRACKING_BYTES, UNSYNCHRONISED};

    /// What to answer to `question` when the clock is `behind_s` behind and was compared at `at_s`.
    pub(in crate::timekeeping) fn answer(question: &[u8], at_s: i64, behind_s: f64) -> Vec<u8> {
        let mut bytes = vec![0; TRACKING_BYTES];
        bytes[..6].copy_from_slice(&[6, 2, 0, 0, 0, 33]);
        bytes[7] = 5;
        bytes[16..20].copy_from_slice(&question[SEQUENCE_AT..SEQUENCE_AT + 4]);
        bytes[28..32].copy_from_slice(&[192, 0, 2, 1]);
        bytes[53] = 3;
        bytes[56..60].copy_from_slice(&NO_UPPER_HALF.to_be_bytes());
        bytes[60..64].copy_from_slice(&(at_s as u32).to_be_bytes());
        bytes[68..72].copy_from_slice(&float(behind_s).to_be_bytes());
        bytes[100..104].copy_from_slice(&float(64.5).to_be_bytes());
        bytes
    }

    /// Of one that has found no source yet.
    pub(in crate::timekeeping) fn unsynchronised(question: &[u8]) -> Vec<u8> {
        let mut bytes = answer(question, 0, 0.0);
        bytes[28..32].fill(0);
        bytes[55] = UNSYNCHRONISED as u8;
        bytes
    }

    /// Of one that only has its own clock.
    pub(super) fn trusting_itself(question: &[u8], at_s: i64) -> Vec<u8> {
        let mut bytes = answer(question, at_s, 0.0);
        bytes[28..32].copy_from_slice(&LOCAL.to_be_bytes());
        bytes
    }

    pub(super) fn float(value: f64) -> u32 {
        let (mut coefficient, mut exponent) = (value * f64::from(1 << 25), 0_i32);
        while coefficient.abs() >= f64::from(1 << 24) {
            coefficient /= 2.0;
            exponent += 1;
        }
        while coefficient.abs() < f64::from(1 << 23) && exponent > -64 {
            coefficient *= 2.0;
            exponent -= 1;
        }
        let coefficient = (coefficient.round() as i32).cast_unsigned();
        (exponent.cast_unsigned() << 25) | (coefficient & 0x01ff_ffff)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW_S: i64 = 1_790_000_000;
    const SEQUENCE: u32 = 0x0102_0304;

    fn read(bytes: &[u8]) -> Option<Reading> {
        Tracking::read(bytes, SEQUENCE).map(|tracking| tracking.reading(NOW_S * 1_000))
    }

    fn answer(at_s: i64, behind_s: f64) -> Vec<u8> {
        fake::answer(&question(SEQUENCE), at_s, behind_s)
    }

    /// What chronyd 4.3 answered once (as hexadecimal digits), and what `chronyc tracking` said of the
    /// same moment.
    #[test]
    fn an_answer_of_a_real_chronyd_reads_as_its_own_program_reads_it() {
        const ANSWER: &str = "060200000021000500000000000000000102030400000000000000007f000001\
            7f0000010000000000000000000000000001000000060000000000006b0299a3119fcd67fcfffbd7df338739\
            decc78c707451632d76947da14bde291fefffd66ecdd7b7f0082c066";
        let bytes: Vec<u8> = (0..ANSWER.len() / 2)
            .map(|at| u8::from_str_radix(&ANSWER[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let tracking = Tracking::read(&bytes, SEQUENCE).unwrap();
        assert_eq!(tracking.reference, 0x7f00_0001);
        assert_eq!(tracking.leap, 0);
        // 07:28:35 on 22 November 2026.
        assert_eq!(tracking.reference_s, 1_795_332_515);
        assert!((0.124_991_320..0.124_992_125).contains(&tracking.behind_s));
        assert!((0.25..0.35).contains(&tracking.update_interval_s));
        let reading = tracking.reading(1_795_332_516_000);
        assert_eq!(reading.synchronised, Some(true));
        assert_eq!(reading.ahead_ms.map(f64::round), Some(-125.0));
    }

    #[test]
    fn a_clock_counts_as_synchronised_while_it_is_compared_with_a_source() {
        let synchronised = |bytes: &[u8]| read(bytes).unwrap().synchronised.unwrap();
        assert!(synchronised(&answer(NOW_S - 3 * 3_600, 0.0)));
        assert!(!synchronised(&answer(NOW_S - 3 * 3_600 - 2, 0.0)));
        assert!(!synchronised(&fake::trusting_itself(
            &question(SEQUENCE),
            NOW_S
        )));
        assert!(!synchronised(&fake::unsynchronised(&question(SEQUENCE))));
        // A wrong clock does not make the comparison look old.
        assert!(synchronised(&answer(NOW_S - 86_400, -86_400.0)));
        assert!(synchronised(&answer(NOW_S + 86_400, 86_400.0)));
        // Asked to look each two hours, it does.
        let mut rarely = answer(NOW_S - 7 * 3_600, 0.0);
        rarely[100..].copy_from_slice(&fake::float(7_200.0).to_be_bytes());
        assert!(synchronised(&rarely));
        // The seconds may use all of 64 bits.
        let mut wide = answer(NOW_S, 0.0);
        wide[56..60].fill(0);
        assert!(synchronised(&wide));
    }

    proptest! {
        #[test]
        fn an_offset_comes_out_as_it_went_in(behind_s in -1e6_f64..1e6, upper in 0..3_u32) {
            // Small ones too.
            let behind_s = behind_s / f64::from(10_u32.pow(3 * upper));
            let given = read(&answer(NOW_S, behind_s)).unwrap();
            if given.synchronised == Some(true) {
                let ahead_ms = given.ahead_ms.unwrap();
                let error = (ahead_ms + behind_s * 1_000.0).abs();
                prop_assert!(error <= 1e-9 + behind_s.abs() * 1_000.0 / f64::from(1 << 23), "{ahead_ms}");
            } else {
                // Behind by more than the answer's time is old.
                prop_assert!(behind_s > 10_799.0, "{behind_s}");
            }
        }

        #[test]
        fn every_number_is_finite(bits: u32) {
            prop_assert!(float(bits).abs() <= 2_f64.powi(62));
        }

        #[test]
        fn any_bytes_are_an_answer_or_none(
            mut bytes in prop::collection::vec(any::<u8>(), 140),
            length in prop_oneof![Just(TRACKING_BYTES), 0_usize..140],
            as_asked: bool,
        ) {
            bytes.truncate(length);
            if as_asked && bytes.len() >= 28 {
                bytes[..28].copy_from_slice(&answer(NOW_S, 0.0)[..28]);
            }
            let is_answer = as_asked && bytes.len() == TRACKING_BYTES;
            let given = read(&bytes);
            prop_assert_eq!(given.is_some(), is_answer);
            if let Some(given) = given {
                prop_assert_eq!(given.ahead_ms.is_some(), given.synchronised == Some(true));
                prop_assert!(given.ahead_ms.is_none_or(f64::is_finite));
            }
        }

        #[test]
        fn the_answer_to_something_else_is_none(
            // Version, type, command, form, status, number; the rest is padding.
            at in prop::sample::select(vec![0_usize, 1, 4, 5, 6, 7, 8, 9, 16, 17, 18, 19]),
            bit in 0..8_u32,
        ) {
            let mut bytes = answer(NOW_S, 0.1);
            prop_assert!(read(&bytes).is_some());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(read(&bytes), None);
        }
    }
}
