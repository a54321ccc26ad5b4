//! The Event Log of this machine.

use std::sync::Arc;

use watchkeep_windows::event_log::{self, LogError, Record, Subscription};

use crate::platform::{
    EventLog, EventLogError, EventRecord, EventStream,
    events::{iso_of, written_at},
};

/// Where the system writes that it started, ended or was cut off.
const SYSTEM: &str = "System";
/// The first records of a boot may carry a time of slightly before it.
const MARGIN_MS: i64 = 2_000;

#[derive(Debug)]
struct Local;

/// The Event Log.
pub fn event_log() -> Arc<dyn EventLog> {
    Arc::new(Local)
}

/// When the last record of the channel `System` before an instant was written, milliseconds since the
/// Unix epoch: before a boot that is the previous one's last sign of life, for one that was shut down
/// the record that says so (1074 or 6006).
pub fn last_record_before(wall_ms: i64) -> Option<i64> {
    let limit = iso_of(wall_ms - MARGIN_MS);
    let query = format!("*[System[TimeCreated[@SystemTime<'{limit}']]]");
    match event_log::newest(SYSTEM, &query, 1) {
        Ok(found) => written_at(&found.first()?.xml),
        Err(error) => {
            tracing::debug!(?error, "the Event Log does not tell of the boot before");
            None
        }
    }
}

impl EventLog for Local {
    fn last(&self, channel: &str) -> Result<Option<String>, EventLogError> {
        let last = event_log::last(channel).map_err(plain)?;
        Ok(last.map(|record| record.bookmark))
    }

    fn follow(
        &self,
        channel: &str,
        after: Option<&str>,
    ) -> Result<Box<dyn EventStream>, EventLogError> {
        Ok(Box::new(Stream(
            Subscription::open(channel, after).map_err(plain)?,
        )))
    }
}

struct Stream(Subscription);

impl EventStream for Stream {
    fn next(&mut self) -> Result<Vec<EventRecord>, EventLogError> {
        let plain_record = |Record { xml, bookmark }| EventRecord { xml, bookmark };
        let records = self.0.next().map_err(plain)?;
        Ok(records.into_iter().map(plain_record).collect())
    }
}

fn plain(error: LogError) -> EventLogError {
    match error {
        LogError::Stale => EventLogError::Stale,
        LogError::System(error) => EventLogError::System(error),
    }
}
