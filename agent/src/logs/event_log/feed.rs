//! Asks the Event Log beside the loop, and hands over what it says: when nobody takes it, nothing is
//! asked. If the log can't be read it is tried again a while later.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use tokio::sync::mpsc;

use super::super::feed::{Closed, Feed, Inlet};
use crate::{
    platform::{EventLog, EventLogError, EventRecord, EventStream},
    process::Tasks,
};

/// How to read the Event Log.
#[derive(Clone, Debug)]
pub struct EventLauncher {
    /// The log.
    pub source: Arc<dyn EventLog>,
    /// Where its tasks run.
    pub tasks: Tasks,
    /// Told when there is something to take.
    pub changes: mpsc::Sender<()>,
    /// Between two looks that found nothing.
    pub poll: Duration,
    /// How long after a failure it is tried again.
    pub retry: Duration,
}

/// What comes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Item {
    /// Nothing before and at this record is of interest.
    At(String),
    Record(EventRecord),
    /// Records that were not read are gone.
    Lost,
    /// The channel can't be read; said once until it can.
    Failed,
}

impl EventLauncher {
    /// Begins behind the record at a bookmark, or with the first that comes. Ends when the feed is
    /// dropped.
    pub(super) fn start(&self, channel: &str, bookmark: Option<String>) -> Feed<Item> {
        Feed::start((&self.tasks, "eventlog"), self.changes.clone(), |items| {
            let follower = Follower {
                launcher: self.clone(),
                channel: channel.to_owned(),
                from: bookmark.map_or(From::Now, From::Behind),
                items,
            };
            follower.run()
        })
    }
}

/// Where to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Now,
    Behind(String),
    Oldest,
}

struct Follower {
    launcher: EventLauncher,
    channel: String,
    from: From,
    items: Inlet<Item>,
}

impl Follower {
    async fn run(mut self) -> Result<Infallible, Closed> {
        let mut said = false;
        loop {
            let before = self.from.clone();
            let error = self.follow().await?;
            said &= before == self.from;
            let pause = match error {
                EventLogError::Stale if self.from != From::Oldest => {
                    self.from = From::Oldest;
                    self.items.send(Item::Lost).await?;
                    self.launcher.poll
                }
                error => {
                    if !said {
                        said = true;
                        let channel = &self.channel;
                        tracing::warn!(%channel, %error, "the Event Log can't be followed; it is tried again");
                        self.items.send(Item::Failed).await?;
                    }
                    self.launcher.retry
                }
            };
            self.items.pause(pause).await?;
        }
    }

    /// Follows until something goes wrong.
    async fn follow(&mut self) -> Result<EventLogError, Closed> {
        let mut stream = match self.open().await? {
            Ok(stream) => stream,
            Err(error) => return Ok(error),
        };
        loop {
            let asked = asked(move || {
                let answer = stream.next();
                Ok((stream, answer))
            });
            let (again, answer) = match asked.await {
                Ok(both) => both,
                Err(error) => return Ok(error),
            };
            stream = again;
            match answer {
                Ok(records) if records.is_empty() => self.items.pause(self.launcher.poll).await?,
                Ok(records) => {
                    for record in records {
                        self.from = From::Behind(record.bookmark.clone());
                        self.items.send(Item::Record(record)).await?;
                    }
                }
                Err(error) => return Ok(error),
            }
        }
    }

    async fn open(&mut self) -> Result<Result<Box<dyn EventStream>, EventLogError>, Closed> {
        if self.from == From::Now {
            let (source, channel) = (self.launcher.source.clone(), self.channel.clone());
            match asked(move || source.last(&channel)).await {
                Ok(Some(last)) => {
                    self.from = From::Behind(last.clone());
                    self.items.send(Item::At(last)).await?;
                }
                Ok(None) => self.from = From::Oldest,
                Err(error) => return Ok(Err(error)),
            }
        }
        let after = match &self.from {
            From::Behind(bookmark) => Some(bookmark.clone()),
            From::Now | From::Oldest => None,
        };
        let (source, channel) = (self.launcher.source.clone(), self.channel.clone());
        Ok(asked(move || source.follow(&channel, after.as_deref())).await)
    }
}

/// Asks on a thread beside the loop, which must not wait.
async fn asked<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, EventLogError> + Send + 'static,
) -> Result<T, EventLogError> {
    tokio::task::spawn_blocking(question)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error).into()))
}
