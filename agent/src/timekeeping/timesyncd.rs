//! systemd-timesyncd (`systemd-timesyncd.service(8)`).
//!
//! Its directory below `/run` is there while it runs, and it touches a file in there whenever it has
//! compared the clock with its server. Only then is there news on the bus
//! (`org.freedesktop.timesync1(5)`): the four times of that comparison. The offset is therefore of the
//! last comparison, before the clock was set right by it, and up to 34 minutes old.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::time::timeout;

use super::{ClockSources, Reading, SYNCHRONISED_FOR_S};
use crate::dbus::{Bus, BusError, Call, PROPERTIES, Value};

pub(super) const NAME: &str = "org.freedesktop.timesync1";
const PATH: &str = "/org/freedesktop/timesync1";
const MANAGER: &str = "org.freedesktop.timesync1.Manager";
const MESSAGE: &str = "NTPMessage";

/// systemd-timesyncd, which may or may not run.
#[derive(Debug)]
pub(super) struct Timesyncd {
    directory: PathBuf,
    bus: PathBuf,
    pub(super) patience: Duration,
    /// When the clock was compared, and what that gave.
    answered: Option<(SystemTime, Option<f64>)>,
}

impl Timesyncd {
    pub(super) fn new(place: &ClockSources) -> Self {
        Self {
            directory: place.timesyncd.clone(),
            bus: place.bus.clone(),
            patience: place.patience,
            answered: None,
        }
    }

    /// Looks at its file, and asks if that was touched; `None` if it does not run.
    pub(super) async fn look(&mut self, wall_ms: i64) -> Option<Reading> {
        if !self.directory.is_dir() {
            self.answered = None;
            return None;
        }
        let compared = self.directory.join("synchronized").metadata();
        let compared = compared.and_then(|file| file.modified()).ok();
        let Some(compared) = compared.filter(|compared| is_fresh(*compared, wall_ms)) else {
            return Some(Reading::UNSYNCHRONISED);
        };
        let known = self.answered.filter(|(then, _)| *then == compared);
        let ahead_ms = match known {
            Some((_, ahead_ms)) => ahead_ms,
            None => self.ask(compared).await,
        };
        Some(Reading {
            synchronised: Some(true),
            ahead_ms,
        })
    }

    async fn ask(&mut self, compared: SystemTime) -> Option<f64> {
        let asked = timeout(self.patience, self.message()).await;
        match asked.unwrap_or(Err(BusError::Timeout)) {
            Ok(message) => {
                let ahead_ms = ahead_ms(&message);
                self.answered = Some((compared, ahead_ms));
                ahead_ms
            }
            Err(error) => {
                tracing::debug!(%error, "systemd-timesyncd does not tell the clock's offset");
                None
            }
        }
    }

    async fn message(&self) -> Result<Value, BusError> {
        let mut bus = Bus::connect(&self.bus).await?;
        let call = Call::method(NAME, PATH, PROPERTIES, "Get")
            .with_text(MANAGER)
            .with_text(MESSAGE)
            .starting_nothing();
        let values = bus.call(&call).await?.into_result()?;
        Ok(values.into_iter().next().unwrap_or(Value::Unsigned(0)))
    }
}

fn is_fresh(compared: SystemTime, wall_ms: i64) -> bool {
    let compared = compared.duration_since(UNIX_EPOCH).unwrap_or_default();
    wall_ms / 1_000 - (compared.as_secs() as i64) < SYNCHRONISED_FOR_S
}

/// How far the clock was ahead of the server by a message `(uuuuittayttttbtt)`: leap, version, mode,
/// stratum, precision, root delay and dispersion, reference, four times, spike, count of packets,
/// jitter. The times are microseconds since the Unix epoch: the question left and came, the answer left
/// and came (RFC 5905, section 8). `None` before the first answer, and for one so far off that
/// systemd-timesyncd itself passes over it.
fn ahead_ms(message: &Value) -> Option<f64> {
    let fields = message.list();
    let number = |at: usize| fields.get(at)?.number();
    let time = |at: usize| number(at).filter(|time| *time > 0).map(i128::from);
    if number(12)? != 0 || number(13)? == 0 {
        return None;
    }
    let (left, came) = (time(8)?, time(9)?);
    let (left_again, came_again) = (time(10)?, time(11)?);
    let server_ahead_us = (came - left) + (left_again - came_again);
    // Half of it, in milliseconds.
    Some(-server_ahead_us as f64 / 2_000.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(times: [u64; 4], spike: u64, packets: u64) -> Value {
        let mut fields = vec![Value::Unsigned(0); 15];
        fields[7] = Value::List(vec![Value::Unsigned(192)]);
        for (at, time) in times.into_iter().enumerate() {
            fields[8 + at] = Value::Unsigned(time);
        }
        fields[12] = Value::Unsigned(spike);
        fields[13] = Value::Unsigned(packets);
        Value::List(fields)
    }

    /// systemd-timesyncd 252 said so once, and in its log `offset: +0.125 sec`: of the server.
    #[test]
    fn a_message_of_a_real_timesyncd_gives_its_own_offset() {
        const S: u64 = 1_795_332_570_000_000;
        let times = [S + 280_615, S + 280_636, S + 530_736, S + 280_746];
        assert_eq!(ahead_ms(&message(times, 0, 1)), Some(-125.005_5));
    }

    proptest! {
        #[test]
        fn equal_ways_there_and_back_do_not_count(
            start in 1_u64 << 40..1 << 52,
            ahead_us in -1_000_000_000_i64..1_000_000_000,
            way_us in 0_u64..1_000_000,
            answering_us in 0_u64..1_000_000,
        ) {
            let server = |own: u64| own.checked_add_signed(-ahead_us).unwrap();
            let came = server(start + way_us);
            let back = start + 2 * way_us + answering_us;
            let times = [start, came, came + answering_us, back];
            prop_assert_eq!(ahead_ms(&message(times, 0, 1)), Some(ahead_us as f64 / 1_000.0));
            prop_assert_eq!(ahead_ms(&message(times, 1, 1)), None);
            prop_assert_eq!(ahead_ms(&message(times, 0, 0)), None);
        }

        #[test]
        fn any_times_give_a_number_or_none(times: [u64; 4]) {
            let given = ahead_ms(&message(times, 0, 1));
            let possible = times.iter().all(|time| (1..1 << 63).contains(time));
            prop_assert_eq!(given.is_some(), possible);
            prop_assert!(given.is_none_or(f64::is_finite));
        }

        #[test]
        fn other_forms_give_none(length in 0_usize..14, text_at in 8_usize..14) {
            let Value::List(fields) = message([1; 4], 0, 1) else { unreachable!() };
            prop_assert_eq!(ahead_ms(&Value::List(fields[..length].to_vec())), None);
            let mut odd = fields;
            odd[text_at] = Value::Text("x".to_owned());
            prop_assert_eq!(ahead_ms(&Value::List(odd)), None);
            prop_assert_eq!(ahead_ms(&Value::Unsigned(7)), None);
        }
    }
}
