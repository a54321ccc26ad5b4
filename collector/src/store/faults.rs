//! Failures that tests inject into the store, at the places where a real one comes from the
//! database. Part of every build, so that tests look at what is released; a store in which nothing
//! is armed pays one load of an atomic a statement.

use std::{
    io,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Where a failure is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// BEGIN of a transaction.
    Begin,
    /// A statement inside a transaction.
    Statement,
    /// Before COMMIT reaches the database: nothing is written.
    Commit,
    /// After the database has committed: everything is written, but the client does not know it.
    Committed,
    Rollback,
    /// A read outside transactions.
    Read,
}

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The connection to the database broke off.
    ConnectionLost,
    /// No space is left for the store.
    DiskFull,
    /// The disk of the store reports an error.
    DiskError,
}

/// The armed failures of one store.
#[derive(Debug, Default)]
pub struct Faults {
    is_armed: AtomicBool,
    armed: Mutex<Vec<Armed>>,
    fired: AtomicU64,
}

#[derive(Debug)]
struct Armed {
    point: Point,
    failure: Failure,
    /// `None` means until disarmed.
    times: Option<u32>,
}

impl Faults {
    /// The next `times` operations at this point fail.
    pub fn arm(&self, point: Point, failure: Failure, times: u32) {
        self.push(point, failure, Some(times));
    }

    /// Every operation at this point fails until [`Faults::disarm`].
    pub fn arm_always(&self, point: Point, failure: Failure) {
        self.push(point, failure, None);
    }

    /// Nothing fails any more.
    pub fn disarm(&self) {
        self.lock().clear();
        self.is_armed.store(false, Ordering::Relaxed);
    }

    /// How many operations were made to fail so far.
    pub fn fired(&self) -> u64 {
        self.fired.load(Ordering::Relaxed)
    }

    fn push(&self, point: Point, failure: Failure, times: Option<u32>) {
        self.lock().push(Armed {
            point,
            failure,
            times,
        });
        self.is_armed.store(true, Ordering::Relaxed);
    }

    /// Fails if a failure is armed at this point.
    pub(super) fn pass(&self, point: Point) -> Result<(), sqlx::Error> {
        if !self.is_armed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut armed = self.lock();
        let Some(i) = armed.iter().position(|one| one.point == point) else {
            return Ok(());
        };
        let failure = armed[i].failure;
        if let Some(times) = &mut armed[i].times {
            *times = times.saturating_sub(1);
            if *times == 0 {
                armed.remove(i);
            }
        }
        self.fired.fetch_add(1, Ordering::Relaxed);
        Err(failure.to_error())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Armed>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn to_error(self) -> sqlx::Error {
        let kind = match self {
            Self::ConnectionLost => io::ErrorKind::ConnectionReset,
            Self::DiskFull => io::ErrorKind::StorageFull,
            Self::DiskError => return sqlx::Error::Io(io::Error::from_raw_os_error(EIO)),
        };
        sqlx::Error::Io(kind.into())
    }
}

/// The system's number of "input/output error".
pub(super) const EIO: i32 = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_fires_as_often_as_it_was_armed_and_only_at_its_point() {
        let faults = Faults::default();
        faults.arm(Point::Commit, Failure::DiskFull, 2);
        faults.arm_always(Point::Read, Failure::ConnectionLost);
        let fails = |point| faults.pass(point).is_err();
        assert!(!fails(Point::Begin));
        assert!(fails(Point::Commit) && fails(Point::Commit) && !fails(Point::Commit));
        assert!((0..100).all(|_| fails(Point::Read)));
        faults.disarm();
        assert!(!fails(Point::Read));
        assert_eq!(faults.fired(), 102);
    }
}
