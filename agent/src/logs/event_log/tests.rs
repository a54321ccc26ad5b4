//! Channels through a log of records in memory that does what Windows promises: bookmarks, loss of the
//! oldest records, clearing, failures.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use tokio::sync::mpsc;
use watchkeep_shared::wire::{
    heartbeat::{Event, LogGapReason},
    policy::{LogCheck, LogRule},
};

use super::*;
use crate::{
    logs::{LogWatcher, Redactor},
    platform::{EventLog, EventLogError, EventRecord, EventStream},
    process::Tasks,
};

const DEADLINE: Duration = Duration::from_secs(20);

/// One channel.
#[derive(Debug, Default)]
struct Log {
    records: VecDeque<u32>,
    failing: bool,
}

/// Waits for records, so that nobody has to poll.
#[derive(Clone, Debug, Default)]
struct Memory(Arc<(Mutex<Log>, Condvar)>);

struct Stream {
    memory: Memory,
    /// The last record that was read.
    at: u32,
}

impl Memory {
    fn change(&self, change: impl FnOnce(&mut Log)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn write(&self, number: u32) {
        self.change(|log| log.records.push_back(number));
    }
}

fn broken() -> EventLogError {
    io::Error::from(io::ErrorKind::ConnectionRefused).into()
}

impl EventLog for Memory {
    fn last(&self, channel: &str) -> Result<Option<String>, EventLogError> {
        assert_eq!(channel, "System");
        let log = self.0.0.lock().unwrap();
        if log.failing {
            return Err(broken());
        }
        Ok(log.records.back().map(u32::to_string))
    }

    fn follow(&self, _: &str, after: Option<&str>) -> Result<Box<dyn EventStream>, EventLogError> {
        let log = self.0.0.lock().unwrap();
        if log.failing {
            return Err(broken());
        }
        let at = after.map_or(0, |bookmark| bookmark.parse().unwrap());
        if after.is_some() && !log.records.contains(&at) {
            return Err(EventLogError::Stale);
        }
        let memory = self.clone();
        Ok(Box::new(Stream { memory, at }))
    }
}

impl EventStream for Stream {
    fn next(&mut self) -> Result<Vec<EventRecord>, EventLogError> {
        let (log, changed) = &*self.memory.0;
        let at = self.at;
        let wait =
            |log: &mut Log| !log.failing && log.records.back().is_none_or(|last| *last <= at);
        let log = log.lock().unwrap();
        // What the real one says at once when there is nothing, this one says a little later.
        let short = Duration::from_millis(20);
        let (log, _) = changed.wait_timeout_while(log, short, wait).unwrap();
        if log.failing {
            return Err(broken());
        }
        let new: Vec<u32> = log.records.iter().copied().filter(|n| *n > at).collect();
        // Records are numbered without holes: those between were overwritten.
        if at > 0 && new.first().is_some_and(|first| *first > at + 1) {
            return Err(EventLogError::Stale);
        }
        self.at = new.last().copied().unwrap_or(at);
        let record = |number: u32| EventRecord {
            xml: format!(
                "<Event><System><Provider Name='p'/><EventID>{number}</EventID><Level>2</Level></System>\
                <EventData><Data>ERROR {number}</Data></EventData></Event>"
            ),
            bookmark: number.to_string(),
        };
        Ok(new.into_iter().map(record).collect())
    }
}

struct World {
    memory: Memory,
    tasks: Tasks,
    changes: mpsc::Receiver<()>,
    watcher: LogWatcher,
    committed: Option<String>,
    events: Vec<Event>,
}

fn check() -> LogCheck {
    LogCheck {
        path: "eventlog:System".to_owned(),
        rules: vec![LogRule {
            name: "r".to_owned(),
            pattern: "ERROR".to_owned(),
            lines_per_minute: Some(10_000),
        }],
        record_start: None,
        journal: None,
        event_log: Some(EventLogFilter::default()),
    }
}

impl World {
    fn new() -> Self {
        let (_, changes) = mpsc::channel(1);
        let mut world = Self {
            memory: Memory::default(),
            tasks: Tasks::default(),
            changes,
            watcher: LogWatcher::new(None, Vec::new(), Arc::new(Redactor::new(Vec::new()))),
            committed: None,
            events: Vec::new(),
        };
        world.memory.write(1);
        world.start();
        world
    }

    /// A new process that knows what was committed.
    fn start(&mut self) {
        let (changes, receiver) = mpsc::channel(1);
        self.changes = receiver;
        let redactor = Arc::new(Redactor::new(Vec::new()));
        self.watcher = LogWatcher::new(self.committed.as_deref(), Vec::new(), redactor);
        self.watcher.read_event_log_with(EventLauncher {
            source: Arc::new(self.memory.clone()),
            tasks: self.tasks.clone(),
            changes,
            poll: Duration::from_millis(1),
            retry: Duration::from_millis(1),
        });
        self.watcher.set(&[check()]);
    }

    /// Reads until `done`.
    async fn read(&mut self, done: impl Fn(&LogWatcher) -> bool) {
        tokio::time::timeout(DEADLINE, async {
            loop {
                self.watcher.scan(0);
                if done(&self.watcher) {
                    return;
                }
                self.changes.recv().await.unwrap();
            }
        })
        .await
        .unwrap();
    }

    async fn read_to(&mut self, number: u32) {
        let number = number.to_string();
        self.read(|watcher| watcher.event_logs.channels[0].bookmark.as_ref() == Some(&number))
            .await;
    }

    fn commit(&mut self) {
        let (events, positions) = self.watcher.take();
        self.events.extend(events);
        self.committed = positions
            .or_else(|| self.watcher.save(true))
            .or(self.committed.take());
    }

    /// Matches, and the reasons of gaps, since the last call.
    fn reported(&mut self) -> (u64, Vec<LogGapReason>) {
        let (mut matches, mut gaps) = (0, Vec::new());
        for event in self.events.drain(..) {
            match event {
                Event::LogMatch { path, count, .. } => {
                    assert_eq!(path, "eventlog:System:p");
                    matches += count;
                }
                Event::LogGap { path, reason, .. } => {
                    assert_eq!(path, "eventlog:System");
                    gaps.push(reason);
                }
                other => panic!("{other:?}"),
            }
        }
        (matches, gaps)
    }
}

#[tokio::test]
async fn records_after_the_start_count_once_through_a_crash() {
    let mut world = World::new();
    world.read_to(1).await;
    world.commit();
    assert_eq!(
        world.reported(),
        (0, Vec::new()),
        "older than the agent's start"
    );
    world.memory.write(2);
    world.read_to(2).await;
    world.commit();
    world.memory.write(3);
    world.read_to(3).await;
    // Read, and not committed.
    world.start();
    world.memory.write(4);
    world.read_to(4).await;
    world.commit();
    assert_eq!(world.reported(), (3, Vec::new()));
    world.tasks.stop().await;
}

#[tokio::test]
async fn a_channel_that_can_not_be_read_is_a_gap_said_once_and_read_when_it_can() {
    let mut world = World::new();
    world.read_to(1).await;
    world.memory.change(|log| log.failing = true);
    world.read(LogWatcher::has_events).await;
    world.commit();
    world.memory.write(2);
    world.memory.change(|log| log.failing = false);
    world.read_to(2).await;
    world.commit();
    assert_eq!(world.reported(), (1, vec![LogGapReason::Unreadable]));
    world.tasks.stop().await;
}

#[tokio::test]
async fn a_channel_that_was_cleared_is_a_gap_and_what_follows_is_read() {
    let mut world = World::new();
    world.read_to(1).await;
    world.commit();
    world.watcher.set(&[]);
    world.memory.change(|log| log.records.clear());
    world.memory.write(9);
    world.watcher.set(&[check()]);
    world.read_to(9).await;
    world.commit();
    assert_eq!(world.reported(), (1, vec![LogGapReason::RotatedAway]));
    world.tasks.stop().await;
}

#[derive(Clone, Debug)]
enum Step {
    Write(u32),
    Read,
    Commit,
    Crash,
    Overwrite,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1_u32..40).prop_map(Step::Write),
        Just(Step::Read),
        Just(Step::Commit),
        Just(Step::Crash),
        Just(Step::Overwrite),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens: a record is reported once, or a gap is.
    #[test]
    fn nothing_is_lost_in_silence_or_told_twice(steps in prop::collection::vec(step(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new();
            world.read_to(1).await;
            world.commit();
            let (mut last, mut overwrote) = (1, false);
            for step in steps {
                match step {
                    Step::Write(count) => {
                        for _ in 0..count {
                            last += 1;
                            world.memory.write(last);
                        }
                    }
                    Step::Read => world.read_to(last).await,
                    Step::Commit => world.commit(),
                    Step::Crash => world.start(),
                    Step::Overwrite => {
                        overwrote |= last > 1;
                        world.memory.change(|log| {
                            let keep = log.records.len().div_ceil(2);
                            log.records.drain(..log.records.len() - keep);
                        });
                    }
                }
            }
            world.read_to(last).await;
            world.commit();
            let (matches, gaps) = world.reported();
            let written = u64::from(last - 1);
            if gaps.is_empty() {
                assert_eq!(matches, written);
            } else {
                assert!(overwrote && matches <= written, "{matches} of {written}");
                assert!(gaps.iter().all(|gap| *gap == LogGapReason::RotatedAway), "{gaps:?}");
            }
            world.tasks.stop().await;
        });
    }
}
