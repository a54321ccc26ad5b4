//! Calls that may block for long, or for ever: on a mount whose server is gone, on the sensor of a
//! failing disk, on a disk that no longer answers. They run on threads of their own, so that the
//! heartbeat loop never waits for them.
//!
//! [`Tasks::blocking`](crate::process::Tasks::blocking) gives the handle. In a task:
//!
//! ```ignore
//! let read = tasks.blocking().run(format!("certificate {path}"), DEADLINE, move || read(&path));
//! match read.await {
//!     Ok(result) => ...,
//!     Err(missed) => unknown(missed.to_string()), // "no answer within 5 s"
//! }
//! ```
//!
//! In the loop, which is not async: [`Blocking::call`] starts the call, [`Call::wait`] waits for it for
//! a bounded time, [`Call::poll`] asks for the answer on a later turn. [`Rounds`] asks many things in
//! order and leaves out those that hang; [`GuardedDisk`] is for the disk of the agent's own state.
//!
//! A call that misses its deadline can't be ended: its thread is left alone until the kernel returns.
//! Until then another call with the same name is refused at once, so name what is touched (a path, not
//! a kind of work). The number of threads is bounded, and [`Blocking::overdue`] lists the calls that
//! hang, which the agent reports to the collector. The closure owns what it uses: an answer that
//! arrives late is dropped.

mod disk;
mod rounds;

use std::{
    fmt,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

pub use self::{disk::GuardedDisk, rounds::Rounds};

/// Most threads, hung ones included. The packaged unit allows 32 tasks.
const MAX_THREADS: usize = 20;
/// Threads that are kept for the next call.
const MAX_IDLE: usize = 1;
/// Room for directory walks and parsers; only what is used takes memory.
const STACK_BYTES: usize = 512 << 10;

/// Runs blocking calls on a bounded number of threads. Clones share them; idle ones end with the last.
#[derive(Clone, Default)]
pub struct Blocking(Arc<Owner>);

#[derive(Default)]
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.work.notify_all();
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when a job waits for an idle thread.
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: Vec<Job>,
    idle: usize,
    threads: usize,
    /// No call will come any more.
    is_closed: bool,
    running: Vec<Running>,
    next_id: u64,
}

/// Drops what it is given once the call has returned, before it hands over the answer: whoever has
/// the answer may call again.
type Work = Box<dyn FnOnce(Returned) + Send>;

struct Job {
    id: u64,
    work: Work,
}

#[derive(Debug)]
struct Running {
    id: u64,
    /// `None` for calls whose caller reports them itself.
    name: Option<String>,
    due_at: Instant,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missed {
    /// The deadline has passed; the call still runs.
    #[error("no answer within {} s", .0.as_secs_f64())]
    Late(Duration),
    /// A call of the same name has not returned yet.
    #[error("an earlier attempt has not been answered yet")]
    StillRunning,
    /// The system gives no thread, or too many calls hang.
    #[error("too many calls to the operating system hang")]
    TooMany,
}

/// A call under way.
#[derive(Debug)]
pub struct Call<T> {
    answer: mpsc::Receiver<T>,
    due_at: Instant,
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared().lock();
        f.debug_struct("Blocking")
            .field("threads", &state.threads)
            .field("running", &state.running)
            .finish_non_exhaustive()
    }
}

impl Blocking {
    /// Runs `work` and waits for its answer, at most until `deadline` has passed.
    pub async fn run<T: Send + 'static>(
        &self,
        name: impl Into<String>,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Missed> {
        let (sender, answer) = tokio::sync::oneshot::channel();
        let work = move |returned| {
            let value = work();
            drop(returned);
            // Nobody may want the answer any more.
            drop(sender.send(value));
        };
        self.start(Some(name.into()), deadline, Box::new(work))?;
        match tokio::time::timeout(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            // The second: `work` panicked.
            Err(_) | Ok(Err(_)) => Err(Missed::Late(deadline)),
        }
    }

    /// Starts `work`. It counts as hung from `deadline` on.
    pub fn call<T: Send + 'static>(
        &self,
        name: impl Into<String>,
        deadline: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Call<T>, Missed> {
        let (sender, answer) = mpsc::sync_channel(1);
        let work = move |returned| {
            let value = work();
            drop(returned);
            drop(sender.send(value));
        };
        self.start(Some(name.into()), deadline, Box::new(work))?;
        Ok(Call {
            answer,
            due_at: Instant::now() + deadline,
        })
    }

    /// Names of the calls that have missed their deadline and still run, sorted.
    pub fn overdue(&self) -> Vec<String> {
        let now = Instant::now();
        let state = self.shared().lock();
        let overdue = state.running.iter().filter(|call| now >= call.due_at);
        let mut names: Vec<String> = overdue.filter_map(|call| call.name.clone()).collect();
        names.sort();
        names
    }

    fn start(&self, name: Option<String>, deadline: Duration, work: Work) -> Result<(), Missed> {
        let mut state = self.shared().lock();
        if name.is_some() && state.running.iter().any(|call| call.name == name) {
            return Err(Missed::StillRunning);
        }
        let has_idle = state.idle > state.jobs.len();
        if !has_idle {
            if state.threads == MAX_THREADS {
                return Err(Missed::TooMany);
            }
            let shared = Arc::clone(self.shared());
            // It waits for the lock, which is held here.
            thread::Builder::new()
                .name("blocking".to_owned())
                .stack_size(STACK_BYTES)
                .spawn(move || serve(&shared))
                .map_err(|_| Missed::TooMany)?;
            state.threads += 1;
        }
        state.next_id += 1;
        let id = state.next_id;
        state.running.push(Running {
            id,
            name,
            due_at: Instant::now() + deadline,
        });
        state.jobs.push(Job { id, work });
        drop(state);
        self.shared().work.notify_one();
        Ok(())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }
}

impl<T> Call<T> {
    /// The answer, if it comes within `patience`.
    pub fn wait(&self, patience: Duration) -> Option<T> {
        self.answer.recv_timeout(patience).ok()
    }

    /// The answer, if it has come. It is given once.
    pub fn poll(&self) -> Option<T> {
        self.answer.try_recv().ok()
    }

    /// Whether its deadline has passed.
    pub fn is_overdue(&self) -> bool {
        Instant::now() >= self.due_at
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread: runs jobs until enough others are idle.
fn serve(shared: &Arc<Shared>) {
    let _leaving = Leaving(shared);
    loop {
        let mut state = shared.lock();
        let job = loop {
            if let Some(job) = state.jobs.pop() {
                break job;
            }
            if state.is_closed || state.idle >= MAX_IDLE {
                return;
            }
            state.idle += 1;
            state = shared
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        };
        drop(state);
        (job.work)(Returned(Arc::clone(shared), job.id));
    }
}

/// Takes the thread off the count, after a panic of its work as well.
struct Leaving<'a>(&'a Shared);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.lock().threads -= 1;
    }
}

/// Takes a call off the list when it is dropped, after a panic of its work as well.
struct Returned(Arc<Shared>, u64);

impl Drop for Returned {
    fn drop(&mut self) {
        self.0.lock().running.retain(|call| call.id != self.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// Work that blocks until its end of the channel is dropped.
    fn hang() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
        let (release, blocked) = mpsc::channel();
        let work = move || {
            let _ = blocked.recv();
        };
        (release, work)
    }

    #[tokio::test]
    async fn an_answer_comes_back_and_a_call_that_hangs_is_reported_and_left_alone() {
        let blocking = Blocking::default();
        assert_eq!(blocking.run("sum", LONG, || 1 + 1).await, Ok(2));
        let (release, work) = hang();
        let (returned, has_returned) = mpsc::channel::<()>();
        let work = move || {
            work();
            drop(returned);
        };
        let soon = Duration::from_millis(1);
        let missed = blocking.run("file /mnt/a", soon, work).await;
        assert_eq!(missed, Err(Missed::Late(soon)));
        assert_eq!(blocking.overdue(), ["file /mnt/a"]);
        assert_eq!(
            blocking.run("file /mnt/a", LONG, || ()).await,
            Err(Missed::StillRunning)
        );
        // Others go on meanwhile.
        assert_eq!(blocking.run("file /mnt/b", LONG, || 3).await, Ok(3));
        drop(release);
        assert!(has_returned.recv().is_err());
        // `returned` went with the work, just before the call left the list.
        while !blocking.overdue().is_empty() {
            thread::yield_now();
        }
        assert_eq!(blocking.run("file /mnt/a", LONG, || 4).await, Ok(4));
    }

    #[test]
    fn the_number_of_threads_is_bounded_and_idle_ones_are_used_again() {
        let blocking = Blocking::default();
        let hung: Vec<_> = (0..MAX_THREADS)
            .map(|n| {
                let (release, work) = hang();
                let call = blocking.call(format!("file {n}"), LONG, work).unwrap();
                (release, call)
            })
            .collect();
        assert_eq!(
            blocking.call("one more", LONG, || ()).unwrap_err(),
            Missed::TooMany
        );
        for (release, call) in hung {
            assert_eq!(call.poll(), None);
            drop(release);
            assert_eq!(call.wait(LONG), Some(()));
        }
        while blocking.shared().lock().threads > MAX_IDLE {
            thread::yield_now();
        }
        let here = |name| {
            let call = blocking.call(name, LONG, || thread::current().id());
            call.unwrap().wait(LONG).unwrap()
        };
        let first = here("first");
        while blocking.shared().lock().idle == 0 {
            thread::yield_now();
        }
        assert_eq!(here("second"), first);
    }
}
