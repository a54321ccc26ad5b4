//! Runs `journalctl` and hands over what it prints: when nobody takes it, `journalctl` waits. If it
//! ends it is started again a while later.

use std::{convert::Infallible, ffi::OsString, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

use super::{
    super::feed::{Closed, Feed, Inlet},
    entry::Entry,
};
use crate::process::Tasks;

/// Longest printed entry, bytes.
const MAX_ENTRY_BYTES: usize = 256 << 10;
/// How long after its end `journalctl` is started again.
const RESTART_AFTER: Duration = Duration::from_secs(10);

/// How to run `journalctl`.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The program.
    pub program: OsString,
    /// Where its task runs.
    pub tasks: Tasks,
    /// Told when there is something to take.
    pub changes: mpsc::Sender<()>,
    /// The agent's start, microseconds since the Unix epoch: without a cursor, older entries are
    /// passed over.
    pub since_wall_us: i64,
    /// This machine's id, as entries carry it; without it those that other machines sent here are
    /// read as well.
    pub machine: Option<String>,
}

/// The machine's id (`machine-id(5)`), where it has one.
pub fn machine_id() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id = text.trim();
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

/// What comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Nothing before and at this entry is of interest.
    At(String),
    Entry(Entry),
    /// The entry at the cursor is gone.
    Lost,
    /// The journal can't be read; said once until it can.
    Failed,
    /// An entry of so many bytes was skipped.
    TooLong(u64),
}

impl Launcher {
    /// Begins behind the entry at `cursor`, or with the first after the agent's start. Ends when the
    /// feed is dropped.
    pub(super) fn start(&self, cursor: Option<String>) -> Feed<Item> {
        Feed::start((&self.tasks, "journal"), self.changes.clone(), |items| {
            let follower = Follower {
                launcher: self.clone(),
                cursor,
                items,
            };
            follower.run()
        })
    }
}

struct Follower {
    launcher: Launcher,
    cursor: Option<String>,
    items: Inlet<Item>,
}

impl Follower {
    async fn run(mut self) -> Result<Infallible, Closed> {
        let mut said = false;
        loop {
            match self.command().spawn() {
                Ok(mut child) => {
                    let before = self.cursor.clone();
                    self.read(&mut child).await?;
                    let status = child.wait().await;
                    tracing::debug!(?status, "journalctl ended");
                    said &= before == self.cursor;
                }
                Err(error) => tracing::debug!(%error, "journalctl can't be started"),
            }
            if !said {
                said = true;
                tracing::warn!("the journal can't be followed; it is tried again");
                self.items.send(Item::Failed).await?;
            }
            self.items.pause(RESTART_AFTER).await?;
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.launcher.program);
        command.args([
            "--output=json",
            "--all",
            "--quiet",
            "--no-pager",
            "--follow",
            // Alone, `--follow` means this boot: what was written before a reboot and not yet read
            // would be passed over. With systemd 252 `--boot=all` does not change that, this does.
            "--merge",
        ]);
        // Which takes in the journals of other machines.
        if let Some(machine) = &self.launcher.machine {
            command.arg(format!("_MACHINE_ID={machine}"));
        }
        match &self.cursor {
            Some(cursor) => command.arg("--no-tail").arg(format!("--cursor={cursor}")),
            None => command.arg("--lines=1"),
        };
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        command
    }

    /// Reads until the program ends.
    async fn read(&mut self, child: &mut Child) -> Result<(), Closed> {
        let Some(stdout) = child.stdout.take() else {
            return Ok(());
        };
        let mut lines = BufReader::new(stdout);
        let mut first = true;
        loop {
            let line = self.items.or_closed(line(&mut lines)).await?;
            let item = match line {
                Some(Ok(line)) => match Entry::parse(&line) {
                    Ok(entry) => self.item(entry, std::mem::take(&mut first)).await?,
                    Err(error) => {
                        tracing::debug!(%error, "journalctl printed no entry");
                        Item::TooLong(line.len() as u64)
                    }
                },
                Some(Err(bytes)) => Item::TooLong(bytes),
                None => return Ok(()),
            };
            self.items.send(item).await?;
        }
    }

    /// What an entry means; the first one should be the one at the cursor.
    async fn item(&mut self, entry: Entry, first: bool) -> Result<Item, Closed> {
        let before = self.cursor.replace(entry.cursor.clone());
        let known = match before {
            Some(before) if first && before != entry.cursor => {
                self.items.send(Item::Lost).await?;
                false
            }
            Some(_) => first,
            None => first && entry.wall_us < self.launcher.since_wall_us,
        };
        Ok(if known {
            Item::At(entry.cursor)
        } else {
            Item::Entry(entry)
        })
    }
}

/// The next line, or how long it was if that is too long; `None` at the end.
async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> Option<Result<Vec<u8>, u64>> {
    let (mut line, mut length) = (Vec::new(), 0);
    loop {
        let available = reader.fill_buf().await.ok()?;
        if available.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', available);
        let piece = &available[..end.unwrap_or(available.len())];
        length += piece.len();
        if length <= MAX_ENTRY_BYTES {
            line.extend_from_slice(piece);
        }
        let used = piece.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Some(if length <= MAX_ENTRY_BYTES {
                Ok(line)
            } else {
                Err(length as u64)
            });
        }
    }
}
