//! What is read by a task beside the loop, handed over through a short queue: when nobody takes from
//! it, its reader waits. Shared by what is no file: the journal, the Event Log.

use std::{convert::Infallible, time::Duration};

use tokio::sync::mpsc;

use crate::process::Tasks;

/// Items that wait to be taken.
const QUEUE: usize = 256;

/// The end at which items are taken.
#[derive(Debug)]
pub(super) struct Feed<T> {
    items: mpsc::Receiver<T>,
}

/// The end at which they come in.
pub(super) struct Inlet<T> {
    items: mpsc::Sender<T>,
    changes: mpsc::Sender<()>,
}

/// The other side has gone.
pub(super) struct Closed;

impl<T: Send + 'static> Feed<T> {
    /// Runs a reader until the feed is dropped or the agent stops. `changes` is notified when there is
    /// something to take.
    pub(super) fn start<F>(
        (tasks, name): (&Tasks, &'static str),
        changes: mpsc::Sender<()>,
        reader: impl FnOnce(Inlet<T>) -> F,
    ) -> Self
    where
        F: Future<Output = Result<Infallible, Closed>> + Send + 'static,
    {
        let (sender, items) = mpsc::channel(QUEUE);
        let stop = tasks.stop_token();
        let reader = reader(Inlet {
            items: sender,
            changes,
        });
        tasks.spawn(name, async move {
            tokio::select! {
                () = stop.cancelled() => {}
                _ = reader => {}
            }
        });
        Self { items }
    }

    pub(super) fn next(&mut self) -> Option<T> {
        self.items.try_recv().ok()
    }
}

impl<T> Inlet<T> {
    pub(super) async fn send(&self, item: T) -> Result<(), Closed> {
        self.items.send(item).await.map_err(|_| Closed)?;
        // A full channel already says it.
        let _ = self.changes.try_send(());
        Ok(())
    }

    /// Waits, but no longer than anyone takes items.
    pub(super) async fn or_closed<R>(&self, wait: impl Future<Output = R>) -> Result<R, Closed> {
        tokio::select! {
            result = wait => Ok(result),
            () = self.items.closed() => Err(Closed),
        }
    }

    pub(super) async fn pause(&self, pause: Duration) -> Result<(), Closed> {
        self.or_closed(tokio::time::sleep(pause)).await
    }
}
