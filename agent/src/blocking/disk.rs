//! The disk of the agent's own state. Whatever is written there runs on a thread; the loop waits for
//! it a short time. A disk that does not answer by then refuses everything until the call has
//! returned, as a full or a read-only disk does.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::Blocking;

/// How long the loop waits for the disk. Far below the time after which a host counts as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// Calls to one disk, one at a time. Clones stand for the same disk.
#[derive(Clone, Debug, Default)]
pub struct GuardedDisk {
    blocking: Blocking,
    /// A call has missed its time and has not returned.
    is_hung: Arc<AtomicBool>,
}

impl GuardedDisk {
    /// A disk that answers so far.
    pub fn new(blocking: Blocking) -> Self {
        Self {
            blocking,
            is_hung: Arc::default(),
        }
    }

    /// Runs `work`. [`io::ErrorKind::TimedOut`]: it has not returned in time, or an earlier one has
    /// not. When it then succeeds after all, `undo` gets its answer.
    pub fn call_or_undo<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
        undo: impl FnOnce(T) + Send + 'static,
    ) -> io::Result<T> {
        if !self.answers() {
            return Err(no_answer());
        }
        // Without room: what could be sent was received, so that no answer is lost in between.
        let (sender, answer) = mpsc::sync_channel(0);
        let is_hung = Arc::clone(&self.is_hung);
        let job = move |_| {
            if let Err(mpsc::SendError(late)) = sender.send(work()) {
                if let Ok(done) = late {
                    undo(done);
                }
                is_hung.store(false, Ordering::Release);
            }
        };
        // Without a name: the spool reports that its disk hangs.
        self.blocking
            .start(None, PATIENCE, Box::new(job))
            .map_err(io::Error::other)?;
        match answer.recv_timeout(PATIENCE) {
            Ok(answered) => answered,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                // Before the receiver goes, which lets the other side say that it has returned.
                self.is_hung.store(true, Ordering::Release);
                Err(no_answer())
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(io::Error::other("the call failed")),
        }
    }

    /// Runs `work`, as [`GuardedDisk::call_or_undo`] does; a late answer needs no undoing.
    pub fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.call_or_undo(work, drop)
    }

    /// Whether no call hangs.
    pub fn answers(&self) -> bool {
        !self.is_hung.load(Ordering::Acquire)
    }
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it does not answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_hangs_refuses_until_it_answers_and_what_came_late_is_undone() {
        let disk = GuardedDisk::default();
        assert_eq!(disk.call(|| Ok(1)).unwrap(), 1);
        let (release, blocked) = mpsc::channel::<()>();
        let (undone, was_undone) = mpsc::channel();
        let hanging = move || {
            // Ends when the other side is dropped.
            let _ = blocked.recv();
            Ok(7)
        };
        let undo = move |value| undone.send(value).unwrap();
        let late = disk.call_or_undo(hanging, undo).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        let refused = disk.call(|| Ok(2)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        drop(release);
        assert_eq!(was_undone.recv(), Ok(7));
        while !disk.answers() {
            std::thread::yield_now();
        }
        assert_eq!(disk.call(|| Ok(3)).unwrap(), 3);
    }
}
