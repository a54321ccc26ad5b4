//! What can go wrong in the store, and what kind of failure it is: that of the values, which the
//! same statement meets again, or that of the database, which goes away when the database works
//! again.

use std::io;

use super::faults::EIO;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused, failed or could not be reached.
    #[error("{}", plain_text(.0))]
    Database(#[from] sqlx::Error),
    /// Migrations could not be applied.
    #[error("the store could not be brought up to date: {0}")]
    Migrate(sqlx::migrate::MigrateError),
    /// The store was written by a newer version of Watchkeep.
    #[error(
        "the store is of a newer Watchkeep (migration {found}) than this program (migration {known}): run the newer program, or restore the backup made before its upgrade"
    )]
    Newer {
        /// Newest migration in the store.
        found: i64,
        /// Newest migration this program knows.
        known: i64,
    },
    /// The store was written by an older version of Watchkeep, or is empty.
    #[error(
        "the store is of an older version (migration {found}, this program has {known}): run `watchkeep-collector migrate`, or start the server, which migrates it too"
    )]
    Older {
        /// Newest migration in the store; 0 if it is empty.
        found: i64,
        /// Newest migration this program knows.
        known: i64,
    },
    /// The store could not be copied before its migration.
    #[error(
        "failed to copy the store to {}: {source}; make room, or make a backup of your own and run `watchkeep-collector migrate --no-copy`",
        copy.display()
    )]
    Copy {
        /// Where the copy was to be.
        copy: std::path::PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// A stored value that the types can't express.
    #[error("corrupt value in {table}.{column}, row {id}: {detail}")]
    Corrupt {
        table: &'static str,
        column: &'static str,
        /// The row's key.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// This collector no longer holds the lease under which it wanted to write.
    #[error("the partition lease was lost: another collector decides now")]
    LeaseLost,
    /// A statement of the transaction had failed, so it can't be committed.
    #[error("a statement of the transaction failed before; nothing was written")]
    Aborted,
}

/// Kinds of failures of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No space is left.
    DiskFull,
    /// The disk reports errors, or the database's files are damaged.
    Disk,
    /// There is no connection, or the server takes none.
    Unreachable,
    /// No answer within the time limit.
    TimedOut,
    /// Another program holds a lock for too long.
    Locked,
    /// Two transactions got in each other's way; the same one succeeds when it is tried again.
    Conflict,
    /// A value that the database refuses: it breaks a constraint or has no place in its column.
    Data,
    /// The pools are closed: the program stops.
    Closing,
    /// Everything else, such as a statement that does not fit the schema.
    Other,
}

impl StoreError {
    /// A JSON column that can't be read back.
    pub(crate) fn corrupt(
        table: &'static str,
        column: &'static str,
        id: impl std::fmt::Display,
        detail: impl std::fmt::Display,
    ) -> Self {
        Self::Corrupt {
            table,
            column,
            id: id.to_string(),
            detail: detail.to_string(),
        }
    }

    /// Whether the failure is a unique constraint.
    pub fn is_unique_violation(&self) -> bool {
        matches!(self, Self::Database(sqlx::Error::Database(e)) if e.is_unique_violation())
    }

    /// Whether the values are at fault: the same write fails again, and another one succeeds.
    pub fn is_data(&self) -> bool {
        match self {
            Self::Database(error) => FailureKind::of(error) == FailureKind::Data,
            Self::Corrupt { .. } => true,
            _ => false,
        }
    }

    /// Whether the database itself fails: everything fails until it works again. Such failures are
    /// logged by the store, once an outage.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Database(error) if FailureKind::of(error).is_outage())
    }
}

impl FailureKind {
    /// Short words for people who may not see more.
    pub const fn word(self) -> &'static str {
        match self {
            Self::DiskFull => "disk full",
            Self::Disk => "disk failing",
            Self::Unreachable => "unreachable",
            Self::TimedOut => "no answer",
            Self::Locked => "locked",
            Self::Conflict | Self::Data | Self::Closing | Self::Other => "failed",
        }
    }

    /// The kind of a driver's error.
    pub(crate) fn of(error: &sqlx::Error) -> Self {
        match error {
            sqlx::Error::Io(error) if error.raw_os_error() == Some(EIO) => Self::Disk,
            sqlx::Error::Io(error) => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
                io::ErrorKind::TimedOut => Self::TimedOut,
                _ => Self::Unreachable,
            },
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                match code.parse::<i32>() {
                    // SQLSTATE has five characters, SQLite's codes have at most four.
                    Ok(code) if error.code().is_some_and(|c| c.len() < 5) => Self::of_sqlite(code),
                    _ => Self::of_sqlstate(&code),
                }
            }
            sqlx::Error::PoolTimedOut => Self::TimedOut,
            sqlx::Error::PoolClosed => Self::Closing,
            sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed => {
                Self::Unreachable
            }
            sqlx::Error::WorkerCrashed => Self::Disk,
            sqlx::Error::Encode(_) => Self::Data,
            _ => Self::Other,
        }
    }

    /// Of an extended result code: its low byte is the primary code.
    const fn of_sqlite(code: i32) -> Self {
        match code & 0xff {
            13 => Self::DiskFull,
            // IOERR, CORRUPT, CANTOPEN, READONLY, NOTADB, PROTOCOL
            10 | 11 | 14 | 8 | 26 | 15 => Self::Disk,
            // BUSY, LOCKED
            5 | 6 => Self::Locked,
            // CONSTRAINT, MISMATCH, TOOBIG, RANGE
            19 | 20 | 18 | 25 => Self::Data,
            _ => Self::Other,
        }
    }

    fn of_sqlstate(code: &str) -> Self {
        match code {
            "53100" => Self::DiskFull,
            "58030" => Self::Disk,
            // A cancelled statement, and time-outs of a session.
            "57014" | "25P03" | "25P04" => Self::TimedOut,
            "55P03" => Self::Locked,
            // Serialisation failure, deadlock.
            "40001" | "40P01" => Self::Conflict,
            // A standby that takes no writes.
            "25006" => Self::Unreachable,
            // A program limit, as of the length of an index entry.
            "54000" => Self::Data,
            _ => match code.get(..2) {
                Some("22" | "23") => Self::Data,
                // Connection, login, resources, the operator.
                Some("08" | "28" | "53" | "57") => Self::Unreachable,
                Some("XX") => Self::Disk,
                _ => Self::Other,
            },
        }
    }

    /// Whether it goes away only when the database works again.
    pub(crate) const fn is_outage(self) -> bool {
        match self {
            Self::DiskFull | Self::Disk | Self::Unreachable | Self::TimedOut | Self::Locked => true,
            Self::Conflict | Self::Data | Self::Closing | Self::Other => false,
        }
    }
}

/// A driver's error in plain words, with what to do.
pub(super) fn plain_text(error: &sqlx::Error) -> String {
    let cause = match error {
        sqlx::Error::Database(error) => error.message().to_owned(),
        sqlx::Error::Io(error) => error.to_string(),
        sqlx::Error::Tls(error) => error.to_string(),
        other => other.to_string(),
    };
    match FailureKind::of(error) {
        FailureKind::DiskFull => {
            format!("the disk of the database is full ({cause}): free space on it")
        }
        FailureKind::Disk => {
            format!("the disk or the files of the database fail ({cause}): check the disk")
        }
        FailureKind::Unreachable => format!(
            "the database can't be reached ({cause}): check that it runs and that the network is up"
        ),
        FailureKind::TimedOut => {
            format!("the database did not answer in time ({cause}): check it and the network")
        }
        FailureKind::Locked => format!(
            "the database is locked ({cause}): another program, such as a backup, holds it for long"
        ),
        FailureKind::Conflict => format!("another transaction was in the way: {cause}"),
        FailureKind::Data => format!("the database refused a value: {cause}"),
        FailureKind::Closing => "the store is closed: the collector stops".to_owned(),
        FailureKind::Other => format!("the database failed: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_sqlite_codes() {
        for (code, kind) in [
            (13, FailureKind::DiskFull),
            // IOERR_FSYNC, IOERR_WRITE
            (1_034, FailureKind::Disk),
            (778, FailureKind::Disk),
            // BUSY_SNAPSHOT
            (517, FailureKind::Locked),
            // CONSTRAINT_PRIMARYKEY, CONSTRAINT_TRIGGER
            (1_555, FailureKind::Data),
            (1_811, FailureKind::Data),
            (1, FailureKind::Other),
        ] {
            assert_eq!(FailureKind::of_sqlite(code), kind, "{code}");
        }
    }

    #[test]
    fn kinds_of_sqlstates() {
        for (code, kind) in [
            ("22021", FailureKind::Data),
            ("23505", FailureKind::Data),
            ("53100", FailureKind::DiskFull),
            ("53300", FailureKind::Unreachable),
            ("57P01", FailureKind::Unreachable),
            ("57014", FailureKind::TimedOut),
            ("08006", FailureKind::Unreachable),
            ("40P01", FailureKind::Conflict),
            ("58030", FailureKind::Disk),
            ("42P01", FailureKind::Other),
        ] {
            assert_eq!(FailureKind::of_sqlstate(code), kind, "{code}");
        }
    }

    #[test]
    fn texts_are_plain() {
        let text = StoreError::from(sqlx::Error::Io(io::ErrorKind::ConnectionRefused.into()));
        assert_eq!(
            text.to_string(),
            "the database can't be reached (connection refused): check that it runs and that the \
             network is up"
        );
        assert!(text.is_outage() && !text.is_data());
    }
}
