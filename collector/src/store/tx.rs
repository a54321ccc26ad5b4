//! Transactions and single reads on either database, and the macros that run one expression on
//! both.
//!
//! A connection returns to its pool only when everything on it succeeded: a transaction when the
//! database confirmed COMMIT or ROLLBACK, a read when its rows came. After an error, and when the
//! caller gives up in between, the connection is closed and the next one is a new one. So nothing
//! ever finds itself inside a transaction that failed before. Only after a refused value can the
//! connection be kept, by [`Tx::rollback`].

use std::{io, sync::Arc, time::Duration};

use sqlx::{Database, Postgres, Sqlite, pool::PoolConnection};

use super::{
    StoreError, connect::Shared, dialect::Placeholder, error::FailureKind, faults::Point,
    outage::Side,
};

/// How long a connection may take to return to its pool, which asks the server once more.
const RETURN_TIMEOUT: Duration = Duration::from_secs(5);

/// A write transaction. Dropping it without [`Tx::commit`] rolls it back and closes its connection.
#[derive(Debug)]
pub enum Tx {
    /// SQLite, begun IMMEDIATE on the one writer connection.
    Sqlite(Open<Sqlite>),
    /// PostgreSQL.
    Postgres(Open<Postgres>),
}

/// A connection in use.
#[derive(Debug)]
pub struct Open<DB: Database> {
    /// `None` once it was returned.
    connection: Option<PoolConnection<DB>>,
    shared: Arc<Shared>,
    side: Side,
    /// How long one statement may take.
    limit: Option<Duration>,
    /// A statement failed: nothing can be committed any more.
    has_failed: bool,
    /// More than a value was refused: the connection can't be used any more.
    is_broken: bool,
}

impl<DB: Database> Open<DB> {
    pub(super) fn new(
        connection: PoolConnection<DB>,
        shared: &Arc<Shared>,
        side: Side,
        limit: Option<Duration>,
    ) -> Self {
        Self {
            connection: Some(connection),
            shared: Arc::clone(shared),
            side,
            limit,
            has_failed: false,
            is_broken: false,
        }
    }

    /// The connection, for one statement.
    pub(super) fn for_statement(&mut self) -> Result<&mut DB::Connection, sqlx::Error> {
        let point = match self.side {
            Side::Write => Point::Statement,
            Side::Read => Point::Read,
        };
        self.shared.faults.pass(point)?;
        match &mut self.connection {
            Some(connection) => Ok(connection),
            None => Err(sqlx::Error::PoolClosed),
        }
    }

    pub(super) const fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// Notes how a statement ended.
    pub(super) fn note<T>(&mut self, outcome: Result<T, sqlx::Error>) -> Result<T, sqlx::Error> {
        if let Err(error) = &outcome {
            self.has_failed = true;
            self.is_broken |= FailureKind::of(error) != FailureKind::Data;
            self.shared.failed(self.side, error);
        }
        outcome
    }

    /// Returns the connection to its pool. Only if everything on it succeeded.
    fn give_back(mut self) {
        self.shared.outages.succeeded(self.side);
        if let Some(mut connection) = self.connection.take() {
            let returning = connection.return_to_pool();
            in_background(async move {
                // Past the limit the connection is dropped, which closes it.
                drop(tokio::time::timeout(RETURN_TIMEOUT, returning).await);
            });
        }
    }
}

impl<DB: Database> Drop for Open<DB> {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.connection {
            connection.close_on_drop();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "as sqlx does when a connection is dropped: the task ends by itself within its limit"
)]
fn in_background(task: impl Future<Output = ()> + Send + 'static) {
    tokio::spawn(task);
}

impl Tx {
    /// How this database writes the place of a parameter.
    pub(super) const fn placeholder(&self) -> Placeholder {
        match self {
            Self::Sqlite(_) => Placeholder::Plain,
            Self::Postgres(_) => Placeholder::Numbered,
        }
    }

    /// Makes everything durable. After an error the outcome is unknown: read it back.
    pub async fn commit(mut self) -> Result<(), StoreError> {
        if self.has_failed() {
            return Err(StoreError::Aborted);
        }
        self.fault(Point::Commit)?;
        on_tx!(&mut self, c => sqlx::raw_sql("COMMIT").execute(c).await.map(drop))?;
        self.fault(Point::Committed)?;
        self.give_back();
        Ok(())
    }

    /// Ends the transaction without changing anything. The same as dropping it, but the connection
    /// stays open, also after a value was refused.
    pub async fn rollback(mut self) -> Result<(), StoreError> {
        if self.is_broken() {
            return Ok(());
        }
        self.fault(Point::Rollback)?;
        on_tx!(&mut self, c => sqlx::raw_sql("ROLLBACK").execute(c).await.map(drop))?;
        self.give_back();
        Ok(())
    }

    /// Begins a transaction on a connection that was just taken from its pool.
    pub(super) async fn begun(mut self) -> Result<Self, StoreError> {
        self.fault(Point::Begin)?;
        let sql = match self {
            // A writer waits for the lock here, and not in the middle of its work.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Postgres(_) => "BEGIN",
        };
        on_tx!(&mut self, c => sqlx::raw_sql(sql).execute(c).await.map(drop))?;
        Ok(self)
    }

    /// Ends a read that began without a transaction.
    pub(crate) fn read_ended<T>(self, outcome: &Result<T, sqlx::Error>) {
        if outcome.is_ok() {
            self.give_back();
        }
    }

    const fn has_failed(&self) -> bool {
        match self {
            Self::Sqlite(open) => open.has_failed,
            Self::Postgres(open) => open.has_failed,
        }
    }

    const fn is_broken(&self) -> bool {
        match self {
            Self::Sqlite(open) => open.is_broken,
            Self::Postgres(open) => open.is_broken,
        }
    }

    /// Fails here if a test wants it.
    fn fault(&mut self, point: Point) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(open) => {
                let outcome = open.shared.faults.pass(point);
                open.note(outcome)
            }
            Self::Postgres(open) => {
                let outcome = open.shared.faults.pass(point);
                open.note(outcome)
            }
        }
        .map_err(StoreError::from)
    }

    fn give_back(self) {
        match self {
            Self::Sqlite(open) => open.give_back(),
            Self::Postgres(open) => open.give_back(),
        }
    }
}

/// Waits for a statement within its limit.
pub(crate) async fn within<T>(
    limit: Option<Duration>,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let Some(limit) = limit else {
        return statement.await;
    };
    let ended = tokio::time::timeout(limit, statement).await;
    ended.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}

/// Runs one statement on the connection of a [`Tx`]: `on_tx!(tx, c => query.execute(c).await)`.
/// The expression is a `Result<_, sqlx::Error>`, and so is the macro's value: `?` goes after it.
macro_rules! on_tx {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(open) => $crate::store::tx::on_open!(open, $conn => $body),
            $crate::store::Tx::Postgres(open) => $crate::store::tx::on_open!(open, $conn => $body),
        }
    };
}

macro_rules! on_open {
    ($open:ident, $conn:ident => $body:expr) => {{
        let limit = $open.limit();
        let outcome = match $open.for_statement() {
            Ok($conn) => $crate::store::tx::within(limit, async { $body }).await,
            Err(error) => Err(error),
        };
        $open.note(outcome)
    }};
}

/// Runs one reading statement on a connection of a [`super::Store`]:
/// `on_read!(store, c => query.fetch_all(c).await)`. As with [`on_tx`], `?` goes after it.
macro_rules! on_read {
    ($store:expr, $conn:ident => $body:expr) => {
        match $store.reading().await {
            Ok(mut reading) => {
                let outcome = $crate::store::tx::on_tx!(&mut reading, $conn => $body);
                reading.read_ended(&outcome);
                outcome
            }
            Err(error) => Err(error),
        }
    };
}

pub(crate) use {on_open, on_read, on_tx};
