//! The journal through a real child process that prints what `journalctl` would: entries from a file,
//! from the asked cursor on.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, sync::Arc, time::Duration};

use tempfile::TempDir;
use tokio::sync::mpsc;
use watchkeep_shared::wire::{
    heartbeat::{Event, LogGapReason},
    policy::{JournalFilter, LogCheck, LogRule},
};

use super::*;
use crate::{
    logs::{LogWatcher, Redactor},
    process::Tasks,
};

/// Like `journalctl`: with a cursor that is there begins with its entry, with one that is not with
/// the first there is; without one with the last. Then follows.
const JOURNALCTL: &str = r#"#!/bin/sh
for arg; do case "$arg" in --cursor=*) cursor="${arg#--cursor=}" ;; esac; done
first=1
if [ -z "$cursor" ]; then
    first=$(wc -l < DIR/journal)
else
    found=$(grep -n "\"$cursor\"" DIR/journal | head -n 1)
    [ -n "$found" ] && first="${found%%:*}"
fi
[ "$first" -lt 1 ] && first=1
exec tail -f -n "+$first" DIR/journal
"#;

struct World {
    dir: TempDir,
    tasks: Tasks,
    changes: mpsc::Receiver<()>,
    watcher: LogWatcher,
    committed: Option<String>,
    events: Vec<Event>,
}

fn check(filter: JournalFilter, pattern: &str) -> LogCheck {
    LogCheck {
        path: PATH.to_owned(),
        rules: vec![LogRule {
            name: "r".to_owned(),
            pattern: pattern.to_owned(),
            lines_per_minute: None,
        }],
        record_start: None,
        journal: Some(filter),
        event_log: None,
    }
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("journalctl");
        let script = JOURNALCTL.replace("DIR", dir.path().to_str().unwrap());
        fs::write(&program, script).unwrap();
        fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("journal"), "").unwrap();
        let (_, changes) = mpsc::channel(1);
        let mut world = Self {
            watcher: LogWatcher::new(None, Vec::new(), Arc::new(Redactor::new(Vec::new()))),
            dir,
            tasks: Tasks::default(),
            changes,
            committed: None,
            events: Vec::new(),
        };
        world.write(1, r#""MESSAGE":"ERROR old","__REALTIME_TIMESTAMP":"5""#);
        world
    }

    fn write(&mut self, cursor: u32, fields: &str) {
        let path = self.dir.path().join("journal");
        let mut file = fs::File::options().append(true).open(path).unwrap();
        writeln!(file, r#"{{"__CURSOR":"c{cursor};",{fields}}}"#).unwrap();
    }

    fn start(&mut self, logs: &[LogCheck]) {
        let (changes, receiver) = mpsc::channel(1);
        self.changes = receiver;
        let redactor = Arc::new(Redactor::new(Vec::new()));
        self.watcher = LogWatcher::new(self.committed.as_deref(), Vec::new(), redactor);
        self.watcher.read_journal_with(Launcher {
            program: self.dir.path().join("journalctl").into(),
            tasks: self.tasks.clone(),
            changes,
            since_wall_us: 10,
            machine: None,
        });
        self.watcher.set(logs);
    }

    /// Reads until the last entry is `cursor`, and makes it durable if asked.
    async fn read_to(&mut self, cursor: u32, commit: bool) {
        let wanted = Some(format!("c{cursor};"));
        let deadline = Duration::from_secs(20);
        tokio::time::timeout(deadline, async {
            loop {
                self.watcher.scan(0);
                if self.watcher.journal.cursor == wanted {
                    return;
                }
                self.changes.recv().await.unwrap();
            }
        })
        .await
        .unwrap();
        if commit {
            let (events, positions) = self.watcher.take();
            self.events.extend(events);
            self.committed = positions
                .or_else(|| self.watcher.save(true))
                .or(self.committed.take());
        }
    }

    /// Path, count and lines of the matches since the last call.
    fn matches(&mut self) -> Vec<(String, u64, Vec<String>)> {
        let matches = |event| match event {
            Event::LogMatch {
                path, count, lines, ..
            } => Some((path, count, lines)),
            Event::LogGap { reason, .. } => Some((format!("{reason:?}"), 0, Vec::new())),
            _ => None,
        };
        self.events.drain(..).filter_map(matches).collect()
    }
}

#[tokio::test]
async fn entries_after_the_start_count_once_through_a_crash() {
    let mut world = World::new();
    let logs = [check(JournalFilter::default(), "ERROR")];
    world.start(&logs);
    world.read_to(1, true).await;
    assert_eq!(world.matches(), [], "older than the agent's start");
    world.write(
        2,
        r#""MESSAGE":"ERROR password=x","_SYSTEMD_UNIT":"a.service","__REALTIME_TIMESTAMP":"20""#,
    );
    world.write(
        3,
        r#""MESSAGE":[69,82,82,79,82,255],"SYSLOG_IDENTIFIER":"b""#,
    );
    world.read_to(3, true).await;
    let lines = |text: &str| vec![text.to_owned()];
    assert_eq!(
        world.matches(),
        [
            (
                "journal:a.service".to_owned(),
                1,
                lines("ERROR password=[redacted]")
            ),
            ("journal:b".to_owned(), 1, lines("ERROR\u{fffd}")),
        ]
    );
    // What was read and not committed is read again, and nothing else.
    world.write(4, r#""MESSAGE":"ERROR four""#);
    world.read_to(4, false).await;
    world.start(&logs);
    world.write(5, r#""MESSAGE":"fine""#);
    world.read_to(5, true).await;
    assert_eq!(
        world.matches(),
        [("journal".to_owned(), 1, lines("ERROR four"))]
    );
    world.start(&logs);
    world.write(6, r#""MESSAGE":"fine""#);
    world.read_to(6, true).await;
    assert_eq!(world.matches(), []);
    world.tasks.stop().await;
}

#[tokio::test]
async fn a_vacuumed_journal_is_a_gap() {
    let mut world = World::new();
    let logs = [check(JournalFilter::default(), "ERROR")];
    world.start(&logs);
    world.read_to(1, true).await;
    world.start(&[]);
    fs::write(world.dir.path().join("journal"), "").unwrap();
    world.write(9, r#""MESSAGE":"ERROR nine""#);
    world.start(&logs);
    world.read_to(9, true).await;
    let matches = world.matches();
    assert_eq!(matches[0].0, format!("{:?}", LogGapReason::RotatedAway));
    assert_eq!((matches[1].0.as_str(), matches[1].1), ("journal", 1));
    world.tasks.stop().await;
}

#[tokio::test]
async fn a_check_sees_what_it_asks_for() {
    let mut world = World::new();
    let filter = JournalFilter {
        units: vec!["a.service".to_owned()],
        identifiers: vec!["a".to_owned(), "systemd".to_owned()],
        max_priority: Some(4),
    };
    world.start(&[check(filter, ".")]);
    world.read_to(1, true).await;
    let entry = |unit: &str, id: &str, priority: &str| {
        format!(
            r#""MESSAGE":"m","_SYSTEMD_UNIT":"{unit}","SYSLOG_IDENTIFIER":"{id}","PRIORITY":"{priority}""#
        )
    };
    world.write(2, &entry("a.service", "a", "4"));
    world.write(3, &entry("b.service", "a", "4"));
    world.write(4, &entry("a.service", "b", "4"));
    world.write(5, &entry("a.service", "a", "5"));
    let about = format!(
        r#"{},"UNIT":"a.service""#,
        entry("init.scope", "systemd", "3")
    );
    world.write(6, &about);
    world.read_to(6, true).await;
    let counts: u64 = world.matches().iter().map(|found| found.1).sum();
    assert_eq!(counts, 2);
    world.tasks.stop().await;
}

#[tokio::test]
async fn a_journal_that_can_not_be_read_is_a_gap_said_once() {
    let mut world = World::new();
    fs::remove_file(world.dir.path().join("journalctl")).unwrap();
    world.start(&[check(JournalFilter::default(), ".")]);
    world.changes.recv().await.unwrap();
    world.watcher.scan(0);
    let (events, _) = world.watcher.take();
    assert!(
        matches!(
            &events[..],
            [Event::LogGap {
                reason: LogGapReason::Unreadable,
                ..
            }]
        ),
        "{events:?}"
    );
    world.tasks.stop().await;
}
