//! Properties of the spool against a model, with kills and damage.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;
use watchkeep_shared::{
    metric,
    wire::heartbeat::{GoodbyeReason, Service, ServiceStatus, SpoolLossReason},
};

use super::{segment::Record, *};

pub(super) const LIMITS: SpoolLimits = SpoolLimits {
    max_bytes: 1 << 20,
    max_age_hours: 168,
    memory_frames: 1_000,
};

pub(super) fn run(n: u128) -> Run {
    Run {
        boot: BootId(uuid::Uuid::from_u128(1)),
        instance: InstanceId(uuid::Uuid::from_u128(n)),
    }
}

pub(super) fn names() -> Vec<String> {
    vec!["a".to_owned(), "b".to_owned()]
}

pub(super) fn at(seconds: i64) -> Clocks {
    Clocks {
        wall_ms: 1_000_000_000 + seconds * 1_000,
        mono_ms: seconds * 1_000,
        boot_ms: seconds * 1_000,
    }
}

fn frame(seq: u64, events: Vec<Event>) -> Frame {
    Frame {
        boot: None,
        instance: None,
        seq,
        clocks: at(seq as i64),
        interval_ms: 1_000,
        schema: metric::schema_id(&names()),
        values: vec![Some(seq as f64), None],
        services: None,
        events,
    }
}

fn seqs(batch: &[Spooled]) -> Vec<u64> {
    batch.iter().map(|spooled| spooled.frame.seq).collect()
}

pub(super) fn keep_on_disk() -> Keep {
    Keep::Disk { note: None }
}

#[test]
fn a_healthy_agent_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), LIMITS, run(1));
    for seq in 1..100 {
        let id = spool.push(frame(seq, Vec::new()), &names(), Keep::Memory);
        assert_eq!(seqs(&spool.oldest(100, 1 << 20)), [seq]);
        spool.acknowledge(&[id]);
    }
    assert_eq!(dir.path().read_dir().unwrap().count(), 0);
}

#[test]
fn what_is_on_disk_is_found_by_the_next_process_with_its_origin_and_its_note() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), LIMITS, run(1));
    let first = spool.push(frame(1, Vec::new()), &names(), Keep::Memory);
    let note = Some("positions".to_owned());
    spool.push(frame(2, Vec::new()), &names(), Keep::Disk { note });
    spool.push(frame(3, Vec::new()), &names(), Keep::Memory);
    spool.acknowledge(&[first]);
    drop(spool);
    let mut spool = Spool::open(dir.path(), LIMITS, run(2));
    assert_eq!(spool.note(), Some("positions"));
    let batch = spool.oldest(100, 1 << 20);
    assert_eq!(seqs(&batch), [2]);
    assert_eq!(batch[0].run, run(1));
    assert_eq!(**spool.schema(batch[0].frame.schema).unwrap(), names());
    assert_eq!(spool.make_room(at(5)), []);
}

#[test]
fn the_note_outlives_the_frame_that_brought_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), LIMITS, run(1));
    let note = Some("one".to_owned());
    let id = spool.push(frame(1, Vec::new()), &names(), Keep::Disk { note });
    spool.acknowledge(&[id]);
    for process in 2..5 {
        let spool = Spool::open(dir.path(), LIMITS, run(process));
        assert_eq!(spool.note(), Some("one"));
        assert!(spool.is_empty());
        assert_eq!(spool.bytes(), 0);
    }
    let mut spool = Spool::open(dir.path(), LIMITS, run(9));
    spool.save_note("two".to_owned());
    assert_eq!(Spool::open(dir.path(), LIMITS, run(10)).note(), Some("two"));
}

#[test]
fn a_disk_that_refuses_leaves_frames_in_memory_and_overflow_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("spool");
    fs::write(&place, "in the way").unwrap();
    let limits = SpoolLimits {
        memory_frames: 16,
        ..LIMITS
    };
    let mut spool = Spool::open(&place, limits, run(1));
    for seq in 1..=20 {
        spool.push(frame(seq, Vec::new()), &names(), keep_on_disk());
    }
    assert!(spool.write_error().is_some());
    assert_eq!(spool.len(), 16);
    let loss = Event::SpoolLoss {
        frames: 4,
        reason: SpoolLossReason::WriteFailed,
    };
    assert_eq!(spool.make_room(at(21)), std::slice::from_ref(&loss));
    fs::remove_file(&place).unwrap();
    spool.push(frame(21, vec![loss]), &names(), keep_on_disk());
    assert_eq!(spool.write_error(), None);
    drop(spool);
    let mut spool = Spool::open(&place, limits, run(2));
    assert_eq!(
        seqs(&spool.oldest(100, 1 << 20)),
        (5..=21).collect::<Vec<_>>()
    );
}

#[test]
fn frames_beyond_their_age_go_and_the_wall_clock_of_the_same_boot_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = Spool::open(dir.path(), LIMITS, run(1));
    spool.push(frame(1, Vec::new()), &names(), keep_on_disk());
    let mut jumped = at(60);
    jumped.wall_ms += 400 * 24 * 3_600_000;
    assert_eq!(spool.make_room(jumped), []);
    let late = at(169 * 3_600);
    let loss = Event::SpoolLoss {
        frames: 1,
        reason: SpoolLossReason::Full,
    };
    assert_eq!(spool.make_room(late), [loss]);
    assert!(spool.is_empty());
}

fn written(dir: &TempDir, frames: u64) -> PathBuf {
    let mut spool = Spool::open(dir.path(), LIMITS, run(1));
    for seq in 1..=frames {
        spool.push(frame(seq, Vec::new()), &names(), keep_on_disk());
    }
    dir.path().join("00000001.seg")
}

pub(super) fn losses(events: &[Event]) -> u64 {
    let counts = events.iter().map(|event| match event {
        Event::SpoolLoss { frames, .. } => *frames,
        _ => 0,
    });
    counts.sum()
}

#[test]
fn a_segment_cut_at_any_byte_gives_its_whole_frames_and_one_loss_for_a_torn_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, 3);
    let bytes = fs::read(&path).unwrap();
    let mut ends = Vec::new();
    for (place, record) in segment::read(dir.path(), 1).unwrap().records {
        if matches!(record, Record::Frame(_)) {
            ends.push((place.offset + place.bytes) as usize);
        }
    }
    for cut in 0..=bytes.len() {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut spool = Spool::open(dir.path(), LIMITS, run(2));
        let whole = ends.iter().filter(|end| **end <= cut).count() as u64;
        let expected: Vec<u64> = (1..=whole).collect();
        assert_eq!(seqs(&spool.oldest(100, 1 << 20)), expected, "cut at {cut}");
        let lost = losses(&spool.make_room(at(10)));
        assert!(lost <= 1, "cut at {cut}");
        let torn = cut > 16 && !ends.contains(&cut) && cut > ends[0];
        assert!(!torn || lost == 1, "cut at {cut}");
    }
}

#[test]
fn any_flipped_byte_is_noticed_and_counted_once_over_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let path = written(&dir, 4);
    let bytes = fs::read(&path).unwrap();
    for at_byte in (0..bytes.len()).step_by(7) {
        let mut damaged = bytes.clone();
        damaged[at_byte] ^= 0x55;
        for file in dir.path().read_dir().unwrap() {
            fs::remove_file(file.unwrap().path()).unwrap();
        }
        fs::write(&path, &damaged).unwrap();
        let mut got: BTreeMap<u64, Frame> = BTreeMap::new();
        let mut lost = 0;
        for process in 2..4 {
            let mut spool = Spool::open(dir.path(), LIMITS, run(process));
            let events = spool.make_room(at(10));
            lost += losses(&events);
            spool.push(frame(100, events), &names(), keep_on_disk());
            for spooled in spool.oldest(100, 1 << 20) {
                if spooled.run == run(1) {
                    got.insert(spooled.frame.seq, spooled.frame);
                }
            }
        }
        // Damage to the schema makes frames unreadable; to the file's head, all at once.
        assert!(
            got.len() as u64 + lost <= 4,
            "byte {at_byte}: {} + {lost}",
            got.len()
        );
        assert!(lost > 0 || got.len() == 4, "byte {at_byte}: silent loss");
        for (seq, found) in got {
            assert_eq!(found, frame(seq, Vec::new()), "byte {at_byte}");
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push { on_disk: bool, bulk: u8 },
    Persist,
    SendOldest { frames: u8, answered: bool },
    SendNewest,
    Kill,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (any::<bool>(), 0_u8..60).prop_map(|(on_disk, bulk)| Step::Push { on_disk, bulk }),
        2 => Just(Step::Persist),
        3 => (1_u8..20, any::<bool>())
            .prop_map(|(frames, answered)| Step::SendOldest { frames, answered }),
        2 => Just(Step::SendNewest),
        1 => Just(Step::Kill),
    ];
    prop::collection::vec(step, 1..120)
}

/// A frame of `bulk` KiB.
pub(super) fn bulky(seq: u64, bulk: u8, events: Vec<Event>) -> Frame {
    let service = Service {
        key: "x".repeat(1_024),
        status: ServiceStatus::Running,
        detail: None,
    };
    Frame {
        services: Some(vec![service; usize::from(bulk)]),
        ..frame(seq, events)
    }
}

/// What became of every frame that was ever pushed.
#[derive(Default)]
struct Model {
    in_memory: Vec<(Run2, u64)>,
    delivered: BTreeSet<(Run2, u64)>,
    pushed: u64,
    lost_in_memory: u64,
}

type Run2 = u128;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every frame is delivered or counted as lost, but for those that were only in memory at a
    /// kill; a delivered frame never comes again in the same process.
    #[test]
    fn nothing_is_lost_in_silence(steps in steps()) {
        let dir = tempfile::tempdir().unwrap();
        let mut process: Run2 = 1;
        let mut spool = Spool::open(dir.path(), LIMITS, run(process));
        let mut model = Model::default();
        let mut seq = 0;
        let mut reported = 0;
        for step in steps {
            match step {
                Step::Push { on_disk, bulk } => {
                    seq += 1;
                    let events = spool.make_room(at(seq as i64));
                    // As the loop does it: a frame with events is on disk.
                    let on_disk = on_disk || !events.is_empty();
                    let keep = if on_disk { keep_on_disk() } else { Keep::Memory };
                    spool.push(bulky(seq, bulk, events), &names(), keep);
                    model.pushed += 1;
                    model.in_memory.push((process, seq));
                    if on_disk {
                        model.in_memory.clear();
                    }
                }
                Step::Persist => {
                    spool.persist();
                    model.in_memory.clear();
                }
                Step::SendOldest { frames, answered } => {
                    let batch = spool.oldest(usize::from(frames), 1 << 20);
                    let ids: Vec<FrameId> = batch.iter().map(|s| s.id).collect();
                    prop_assert!(ids.is_sorted());
                    if answered {
                        reported += deliver(&mut model, &batch);
                        spool.acknowledge(&ids);
                    }
                }
                Step::SendNewest => {
                    if let Some(newest) = spool.newest() {
                        reported += deliver(&mut model, std::slice::from_ref(&newest));
                        spool.acknowledge(&[newest.id]);
                    }
                }
                Step::Kill => {
                    model.lost_in_memory += model
                        .in_memory
                        .drain(..)
                        .filter(|key| !model.delivered.contains(key))
                        .count() as u64;
                    process += 1;
                    seq = 0;
                    spool = Spool::open(dir.path(), LIMITS, run(process));
                }
            }
            prop_assert!(spool.bytes() <= LIMITS.max_bytes);
        }
        let events = spool.make_room(at(seq as i64));
        reported += losses(&events);
        loop {
            let batch = spool.oldest(50, 1 << 20);
            if batch.is_empty() {
                break;
            }
            reported += deliver(&mut model, &batch);
            let ids: Vec<FrameId> = batch.iter().map(|s| s.id).collect();
            spool.acknowledge(&ids);
        }
        let known = model.delivered.len() as u64 + model.lost_in_memory + reported;
        prop_assert_eq!(known, model.pushed);
    }
}

/// Books a delivery; the losses that its frames report.
fn deliver(model: &mut Model, batch: &[Spooled]) -> u64 {
    let mut reported = 0;
    for spooled in batch {
        let key = (spooled.run.instance.0.as_u128(), spooled.frame.seq);
        assert!(model.delivered.insert(key), "{key:?} came twice as new");
        assert!(!matches!(
            spooled.frame.events.first(),
            Some(Event::Goodbye {
                reason: GoodbyeReason::Upgrade
            })
        ));
        reported += losses(&spooled.frame.events);
    }
    reported
}

/// Takes everything out: sequence numbers, and the losses that their frames report.
pub(super) fn deliver_all(spool: &mut Spool) -> (Vec<u64>, u64) {
    let (mut got, mut lost) = (Vec::new(), 0);
    loop {
        let batch = spool.oldest(50, 1 << 20);
        if batch.is_empty() {
            return (got, lost);
        }
        got.extend(seqs(&batch));
        lost += batch
            .iter()
            .map(|one| losses(&one.frame.events))
            .sum::<u64>();
        let ids: Vec<FrameId> = batch.iter().map(|one| one.id).collect();
        spool.acknowledge(&ids);
    }
}
