//! Tasks and shutdown. Every task is spawned here: named, tracked, and ended by one of two tokens.
//! A task that fails or panics stops the process with a failing exit code: a collector that lost
//! one of its workers must not look healthy.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The handle that every part of the process holds.
#[derive(Clone, Debug, Default)]
pub struct Process {
    tracker: TaskTracker,
    /// Stop taking new work, finish what is begun.
    pub stop: CancellationToken,
    failed: Arc<AtomicBool>,
}

impl Process {
    /// A process in which nothing runs yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task that must run until the process stops. Its error, its panic or its early end
    /// stops everything.
    pub fn spawn_essential<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send,
    {
        let guard = Ended {
            process: self.clone(),
            name,
        };
        self.spawn(async move {
            match task.await {
                Ok(()) if guard.process.stop.is_cancelled() => {}
                Ok(()) => guard.process.fail(name, &"it ended by itself"),
                Err(error) => guard.process.fail(name, &error),
            }
            drop(guard);
        });
    }

    /// Spawns a short-lived task, such as one connection; its end means nothing to others.
    #[expect(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        tokio::spawn(self.tracker.track_future(task));
    }

    /// Waits until every task has ended. Call after cancelling [`Process::stop`].
    pub async fn wait(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Whether an essential task failed.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    fn fail(&self, name: &'static str, error: &dyn std::fmt::Display) {
        tracing::error!(task.name = name, "task {name} failed, stopping: {error}");
        self.failed.store(true, Ordering::SeqCst);
        self.stop.cancel();
    }
}

/// Notices a panic: it is dropped while unwinding.
struct Ended {
    process: Process,
    name: &'static str,
}

impl Drop for Ended {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.process.fail(self.name, &"it panicked");
        }
    }
}
