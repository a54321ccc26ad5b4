//! Connections to PostgreSQL: how long each step may take, so that a server or a network that has
//! stopped answering is detected within seconds, on both ends.

use std::{
    str::FromStr as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, Connection as _, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use tokio::time::Instant;

use super::{StoreError, connect::STATEMENT_CACHE, error::FailureKind};

/// Connections that write: the pipeline's and the workers'.
const WRITERS: u32 = 4;
/// Connections that read: pages, reports, workers.
const READERS: u32 = 8;
/// How long it may take to get a connection: a free one, or a new one from the server.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an idle connection may take to answer before it is closed.
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the search for the cause of a failed connect may take.
const CAUSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an ordinary statement may take. Also how fast a path that swallows packets is detected.
pub(super) const STATEMENT_LIMIT: Duration = Duration::from_secs(8);
/// The same for work that reads or drops much at once.
pub(super) const PATIENT_LIMIT: Duration = Duration::from_mins(10);

/// What the server is asked to do with a session whose client has gone: without it a transaction
/// that was left behind would hold its locks for two hours.
const SESSION: &str = "SET idle_in_transaction_session_timeout = '15s'; \
    SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; \
    SET tcp_user_timeout = '10s'";

/// Planned for the values of each execution: after some of them the server would go over to a plan for
/// any values, and those of lists with many optional filters are ten times as slow.
const READER_SESSION: &str = "SET plan_cache_mode = force_custom_plan";

/// The pools of one server.
#[derive(Debug)]
pub(super) struct Server {
    /// Two pools, so that pages never keep the pipeline from committing.
    pub(super) writer: PgPool,
    pub(super) reader: PgPool,
    suspects: Arc<Suspects>,
}

/// Connections made before this instant may be dead: one of them was. Each would cost the time of a
/// ping to find out.
#[derive(Debug, Default)]
struct Suspects(Mutex<Option<Instant>>);

impl Server {
    /// Connects. Fails if the server can't be reached.
    pub(super) async fn open(url: &str) -> Result<Self, StoreError> {
        let options = PgConnectOptions::from_str(url)?
            .application_name("watchkeep")
            .statement_cache_capacity(STATEMENT_CACHE)
            .disable_statement_logging();
        let suspects = Arc::default();
        let writer = pool(WRITERS, "", &suspects).connect_lazy_with(options.clone());
        let reader = pool(READERS, READER_SESSION, &suspects).connect_lazy_with(options);
        // Fails here and with the cause, if it must.
        drop(acquire(&writer).await?);
        Ok(Self {
            writer,
            reader,
            suspects,
        })
    }

    /// A statement failed.
    pub(super) fn failed(&self, error: &sqlx::Error) {
        if matches!(
            FailureKind::of(error),
            FailureKind::Unreachable | FailureKind::TimedOut
        ) {
            *self.suspects.lock() = Some(Instant::now());
        }
    }
}

impl Suspects {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn includes(&self, age: Duration) -> bool {
        let since = *self.lock();
        since.is_some_and(|since| since.elapsed() <= age)
    }
}

fn pool(connections: u32, session: &'static str, suspects: &Arc<Suspects>) -> PgPoolOptions {
    let suspects = Arc::clone(suspects);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // The driver's own check has no time limit.
        .test_before_acquire(false)
        .before_acquire(move |connection, idle| {
            let is_suspect = suspects.includes(idle.age);
            Box::pin(async move {
                if is_suspect {
                    return Err(sqlx::Error::Io(std::io::ErrorKind::NotConnected.into()));
                }
                ping(connection).await.map(|()| true)
            })
        })
        .after_connect(move |connection, _| {
            Box::pin(async move {
                sqlx::raw_sql(SESSION).execute(&mut *connection).await?;
                sqlx::raw_sql(session).execute(connection).await?;
                Ok(())
            })
        })
}

/// Fails if an idle connection does not answer; it is closed then, and a new one opened in its
/// place.
async fn ping(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    tokio::time::timeout(PING_TIMEOUT, connection.ping())
        .await
        .unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
}

/// A connection of a pool, or why there is none.
pub(super) async fn acquire(pool: &PgPool) -> Result<PoolConnection<Postgres>, sqlx::Error> {
    match pool.acquire().await {
        // The pool tries again until its time is over, and keeps the cause for itself.
        Err(sqlx::Error::PoolTimedOut) => Err(cause(pool).await),
        other => other,
    }
}

async fn cause(pool: &PgPool) -> sqlx::Error {
    let connect = pool.connect_options();
    match tokio::time::timeout(CAUSE_TIMEOUT, connect.connect()).await {
        Ok(Err(error)) => error,
        Ok(Ok(connection)) => {
            drop(connection);
            sqlx::Error::PoolTimedOut
        }
        Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_pages_read_is_planned_for_their_values() {
        let url = std::env::var("WATCHKEEP_TEST_POSTGRES").expect("the URL of a PostgreSQL server");
        let server = Server::open(&url).await.unwrap();
        let mode = async |pool| {
            let mut connection = acquire(pool).await.unwrap();
            let shown = sqlx::query_scalar::<_, String>("SHOW plan_cache_mode");
            shown.fetch_one(&mut *connection).await.unwrap()
        };
        assert_eq!(mode(&server.reader).await, "force_custom_plan");
        assert_eq!(mode(&server.writer).await, "auto");
    }
}
