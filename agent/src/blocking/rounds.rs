//! Asks a list of things in order, on one thread, and stops waiting for those that do not answer.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError, TryRecvError},
    },
    time::{Duration, Instant},
};

use super::Blocking;

/// Asks `K`s for `T`s, again and again. A thing that misses the deadline keeps the thread that asks it
/// and is left out of later rounds until it answers; the rest of its round is dropped.
pub struct Rounds<K, T> {
    blocking: Blocking,
    ask: fn(&K) -> T,
    deadline: Duration,
    current: Option<Round<K, T>>,
    hung: Vec<Round<K, T>>,
}

struct Round<K, T> {
    things: Vec<K>,
    answers: mpsc::Receiver<Answer<T>>,
    /// How many of `things` have answered; the next one is being asked.
    answered: usize,
    asked_at: Instant,
    /// The thing that misses the deadline, by its number: the last that is asked.
    last: Arc<AtomicUsize>,
}

struct Answer<T> {
    value: T,
    took: Duration,
    came_at: Instant,
}

impl<K, T> fmt::Debug for Rounds<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rounds")
            .field("is_under_way", &self.current.is_some())
            .field("hung", &self.hung.len())
            .finish_non_exhaustive()
    }
}

impl<K: Clone + Send + 'static, T: Send + 'static> Rounds<K, T> {
    /// `ask` may block; it runs on a thread.
    pub fn new(blocking: Blocking, deadline: Duration, ask: fn(&K) -> T) -> Self {
        Self {
            blocking,
            ask,
            deadline,
            current: None,
            hung: Vec::new(),
        }
    }

    /// Whether a round is under way, so that [`Rounds::start`] would do nothing.
    pub fn is_under_way(&self) -> bool {
        self.current.is_some()
    }

    /// Starts a round unless one is under way. Whoever calls leaves out what hangs. Returns whether a
    /// round is under way now; without a free thread there is none.
    pub fn start(&mut self, things: Vec<K>) -> bool {
        if self.current.is_some() {
            return true;
        }
        if things.is_empty() {
            return false;
        }
        let (sender, answers) = mpsc::sync_channel(things.len());
        let last = Arc::new(AtomicUsize::new(usize::MAX));
        let (asked, stop_at, ask) = (things.clone(), last.clone(), self.ask);
        let work = move |_| {
            for (n, thing) in asked.iter().enumerate() {
                let begun = Instant::now();
                let value = ask(thing);
                let came_at = Instant::now();
                let answer = Answer {
                    value,
                    took: came_at - begun,
                    came_at,
                };
                if sender.send(answer).is_err() || n >= stop_at.load(Ordering::Relaxed) {
                    return;
                }
            }
        };
        // Without a name: what hangs is reported by name by whoever asks.
        if let Err(missed) = self.blocking.start(None, self.deadline, Box::new(work)) {
            tracing::debug!(%missed, "nothing is asked this time");
            return false;
        }
        self.current = Some(Round {
            things,
            answers,
            answered: 0,
            asked_at: Instant::now(),
            last,
        });
        true
    }

    /// Answers that have come since the last call, with how long each took. Waits at most `patience`
    /// for the first `promised` of the round.
    pub fn take(&mut self, promised: usize, patience: Duration) -> Vec<(K, T, Duration)> {
        let mut taken = Vec::new();
        let until = Instant::now() + patience;
        if let Some(mut round) = self.current.take() {
            let is_open = loop {
                let wait = if round.answered < promised {
                    until.saturating_duration_since(Instant::now())
                } else {
                    Duration::ZERO
                };
                match round.answers.recv_timeout(wait) {
                    Ok(answer) => taken.push(round.accept(answer)),
                    Err(RecvTimeoutError::Timeout) => break true,
                    Err(RecvTimeoutError::Disconnected) => break false,
                }
                if round.answered == round.things.len() {
                    break false;
                }
            };
            if is_open && round.asked_at.elapsed() >= self.deadline {
                round.last.store(round.answered, Ordering::Relaxed);
                self.hung.push(round);
            } else if is_open {
                self.current = Some(round);
            }
        }
        self.hung
            .retain_mut(|round| match round.answers.try_recv() {
                Ok(answer) => {
                    taken.push(round.accept(answer));
                    false
                }
                Err(TryRecvError::Empty) => true,
                Err(TryRecvError::Disconnected) => false,
            });
        taken
    }

    /// Things that have missed the deadline and have not answered yet.
    pub fn hung(&self) -> impl Iterator<Item = &K> {
        self.hung.iter().map(|round| &round.things[round.answered])
    }
}

impl<K: Clone, T> Round<K, T> {
    fn accept(&mut self, answer: Answer<T>) -> (K, T, Duration) {
        let thing = self.things[self.answered].clone();
        self.answered += 1;
        self.asked_at = answer.came_at;
        (thing, answer.value, answer.took)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    /// A thing that answers when it is let go, or at once.
    #[derive(Clone)]
    struct Thing(u32, Option<Arc<Mutex<mpsc::Receiver<()>>>>);

    fn ask(thing: &Thing) -> u32 {
        if let Some(blocked) = &thing.1 {
            // Ends when the other side is dropped.
            let _ = blocked.lock().unwrap().recv();
        }
        thing.0
    }

    #[test]
    fn a_thing_that_hangs_does_not_hold_up_the_next_round() {
        let (release, blocked) = mpsc::channel();
        let hanging = Thing(2, Some(Arc::new(Mutex::new(blocked))));
        let mut rounds = Rounds::new(Blocking::default(), Duration::ZERO, ask);
        let values = |taken: Vec<(Thing, u32, Duration)>| -> Vec<u32> {
            taken.into_iter().map(|(_, value, _)| value).collect()
        };
        assert!(rounds.start(vec![Thing(1, None), hanging, Thing(3, None)]));
        // The deadline of nothing has passed once the first has answered.
        assert_eq!(values(rounds.take(1, LONG)), [1]);
        assert!(!rounds.is_under_way());
        let hung: Vec<u32> = rounds.hung().map(|thing| thing.0).collect();
        assert_eq!(hung, [2]);
        assert!(rounds.start(vec![Thing(1, None), Thing(3, None)]));
        assert_eq!(values(rounds.take(2, LONG)), [1, 3]);
        drop(release);
        let late = loop {
            let taken = values(rounds.take(0, Duration::ZERO));
            if !taken.is_empty() {
                break taken;
            }
            std::thread::yield_now();
        };
        // Its own answer and nothing after it: that was asked again meanwhile.
        assert_eq!(late, [2]);
        assert_eq!(rounds.hung().count(), 0);
    }

    #[test]
    fn a_slow_round_goes_on_until_its_deadline() {
        let (release, blocked) = mpsc::channel();
        let slow = Thing(1, Some(Arc::new(Mutex::new(blocked))));
        let mut rounds = Rounds::new(Blocking::default(), LONG, ask);
        assert!(rounds.start(vec![slow, Thing(2, None)]));
        assert!(rounds.take(0, Duration::ZERO).is_empty());
        assert!(rounds.is_under_way() && rounds.hung().count() == 0);
        drop(release);
        assert_eq!(rounds.take(2, LONG).len(), 2);
        assert!(!rounds.is_under_way());
    }
}
