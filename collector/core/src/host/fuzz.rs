//! What must hold for any body of heartbeats, from its bytes to what the host's state becomes: the
//! body of the fuzz target `heartbeat` (`tests/fuzz/`), which the tests run too.

use std::sync::LazyLock;

use uuid::Uuid;
use watchkeep_shared::{
    HostId, UnixMillis,
    ids::SchemaId,
    wire::{
        codec::{DecodeError, Decoder, Encoder},
        heartbeat::{Batch, Clocks, Event, Frame, PreviousBoot},
        limits::{MAX_DECODED_BODY_BYTES, MAX_FRAMES_PER_BATCH},
    },
};

use super::{HostState, Outcome, take_batch, take_silence};

/// When the collector takes it.
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const HOST: HostId = HostId(Uuid::from_u128(1));
/// The largest claim that is not refused at once: a whole body of blanks.
static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let blanks = vec![b' '; MAX_DECODED_BODY_BYTES + 1];
    zstd::bulk::compress(&blanks, 3).expect("blanks can be compressed")
});

/// A body is decoded within its bound or refused; what was decoded is encoded as the same; each of
/// its frames ends as one of taken, repeat and rejected, and the second time none is taken; evidence
/// has a beginning before its end; the state survives being stored.
///
/// The input is a body of zstd, or, if it begins with a brace, the JSON in one.
pub fn bodies(data: &[u8]) {
    let mut decoder = Decoder::new().expect("a decoder");
    let decoded = if data.starts_with(b"{") {
        let packed = zstd::bulk::compress(data, 1).expect("bytes can be compressed");
        decoder.decode::<Batch>(&packed)
    } else {
        decoder.decode::<Batch>(data)
    };
    let bomb = decoder.decode::<Batch>(&BOMB);
    assert!(matches!(bomb, Err(DecodeError::TooLarge)), "{bomb:?}");
    let Ok(batch) = decoded else { return };
    let body = Encoder::new()
        .and_then(|mut encoder| encoder.encode(&batch))
        .expect("what was read is written");
    let again: Batch = decoder.decode(&body).expect("what was written is read");
    assert!(is_same(&again, &batch), "{again:?} was {batch:?}");
    // What the collector checks before it asks for the host's state.
    if (1..=MAX_FRAMES_PER_BATCH).contains(&batch.frames.len()) {
        take(&batch);
    }
}

/// Numbers with more digits than a double has may come back one unit in the last place off.
fn is_same(a: &Batch, b: &Batch) -> bool {
    let values = |batch: &Batch| -> Vec<Vec<Option<f64>>> {
        let frames = batch.frames.iter();
        frames.map(|frame| frame.values.clone()).collect()
    };
    let without = |batch: &Batch| {
        let mut batch = batch.clone();
        for frame in &mut batch.frames {
            frame.values.clear();
            frame
                .events
                .retain(|event| !matches!(event, Event::Processes(_)));
        }
        batch
    };
    let near = |(a, b): (&Option<f64>, &Option<f64>)| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() <= a.abs() * 1e-14,
        (a, b) => a == b,
    };
    without(a) == without(b)
        && values(a)
            .iter()
            .zip(&values(b))
            .all(|(a, b)| a.len() == b.len() && a.iter().zip(b).all(near))
}

fn take(batch: &Batch) {
    let names = |frame: &Frame| {
        frame
            .schema
            .0
            .is_multiple_of(2)
            .then_some(frame.values.len())
    };
    let mut state = HostState::default();
    for round in 0..2 {
        let taken = take_batch(&mut state, HOST, batch, NOW, &names);
        assert_eq!(taken.frames.len(), batch.frames.len());
        for (frame, end) in batch.frames.iter().zip(&taken.frames) {
            assert_eq!(end.seq, frame.seq);
            let new = matches!(end.outcome, Outcome::Taken(_));
            assert!(!new || round == 0, "{end:?} a second time");
        }
        for row in &taken.evidence {
            assert!(row.valid_from <= row.valid_to, "{row:?}");
        }
        let stored = serde_json::to_vec(&state).expect("a state is stored");
        let read: HostState = serde_json::from_slice(&stored).expect("and read");
        assert_eq!(read, state);
    }
    for row in take_silence(&mut state, HOST, UnixMillis(NOW.0 + 60_000)) {
        assert!(row.valid_from <= row.valid_to, "{row:?}");
    }
}

/// Inputs to begin with: bodies as agents send them.
pub fn seeds() -> Vec<Vec<u8>> {
    let clocks = |boot_ms: i64| Clocks {
        wall_ms: NOW.0 - 500_000 + boot_ms,
        mono_ms: boot_ms,
        boot_ms,
    };
    let frame = |seq: u64, boot_ms: i64, events: Vec<Event>| Frame {
        boot: None,
        instance: None,
        seq,
        clocks: clocks(boot_ms),
        interval_ms: 10_000,
        schema: SchemaId(2),
        values: vec![Some(1.25), None, Some(1e9)],
        services: None,
        events,
    };
    let started = Event::AgentStarted {
        clean_stop: Some(false),
        previous_boot: Some(PreviousBoot {
            boot: None,
            last_seen_wall_ms: Some(NOW.0 - 600_000),
        }),
    };
    let batch = |frames: Vec<Frame>| Batch {
        v: 1,
        agent_version: "0.1.0".to_owned(),
        boot: Uuid::from_u128(3).into(),
        instance: Uuid::from_u128(4).into(),
        sent: clocks(500_000),
        policy_version: 2,
        trusts: Vec::new(),
        refused: None,
        troubles: None,
        schemas: Vec::new(),
        frames,
    };
    let mut late = frame(7, 100_000, Vec::new());
    late.boot = Some(Uuid::from_u128(2).into());
    late.instance = Some(Uuid::from_u128(5).into());
    let batches = [
        batch(vec![frame(1, 499_000, vec![started])]),
        batch(vec![
            frame(1, 480_000, Vec::new()),
            frame(2, 490_000, Vec::new()),
        ]),
        batch(vec![late, frame(9, 500_000, Vec::new())]),
    ];
    let mut seeds: Vec<_> = batches
        .iter()
        .map(|batch| serde_json::to_vec(batch).expect("a batch has string keys only"))
        .collect();
    let mut encoder = Encoder::new().expect("an encoder");
    let packed = batches
        .iter()
        .map(|batch| encoder.encode(batch).expect("it is encoded"));
    seeds.extend(packed);
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_check::check;

    #[test]
    fn bodies_hold() {
        check("heartbeat", &seeds(), bodies);
    }
}
