//! Opening the store: URL and pools.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use url::Url;

use super::{
    StoreError, Tx,
    dialect::Placeholder,
    faults::Faults,
    outage::{Outages, Side, StoreOutage},
    postgres,
    tx::Open,
};

/// Readers on SQLite; pages and reports are short reads.
const SQLITE_READERS: u32 = 4;
/// Prepared statements that a connection keeps: all that there are, with the sizes of bulk inserts.
pub(super) const STATEMENT_CACHE: usize = 400;
/// How long a writer waits for a lock of another process (a backup, a command-line tool).
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Page cache of the SQLite writer, KiB.
const SQLITE_CACHE_KIB: u32 = 32 * 1024;

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL, with credentials.
    Postgres(String),
}

/// The text is not a store URL. No message holds a part of the URL, which has a password in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreUrlError {
    /// Neither of the two forms.
    #[error("a store URL is `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`")]
    Form,
    /// It can't be read, or what would be read is not what was meant.
    #[error(
        "the PostgreSQL URL can't be read: in the user and the password, percent-encode all but \
         letters, digits and `-._~`, such as `/` as %2F, `#` as %23, `?` as %3F, `@` as %40, `%` as \
         %25"
    )]
    Encoding,
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Some(path) = s.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(StoreUrlError::Form)
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        if s.starts_with("postgres://") || s.starts_with("postgresql://") {
            check_postgres(s)?;
            return Ok(Self::Postgres(s.to_owned()));
        }
        Err(StoreUrlError::Form)
    }
}

/// Refuses a URL whose password has characters that end the part it is in: sqlx would connect to
/// some other host with what is before them.
fn check_postgres(text: &str) -> Result<(), StoreUrlError> {
    let url: Url = text.parse().map_err(|_| StoreUrlError::Encoding)?;
    let cut = url.path().contains('@')
        || url.query().is_some_and(|query| query.contains('@'))
        || url.fragment().is_some();
    if cut {
        return Err(StoreUrlError::Encoding);
    }
    Ok(())
}

/// Without the credentials, which may also be among the parameters.
impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(text) => match text.parse::<Url>() {
                Ok(url) => {
                    let host = url.host_str().unwrap_or_default();
                    let port = url.port().map(|port| format!(":{port}"));
                    let port = port.unwrap_or_default();
                    write!(f, "postgres://{host}{port}{}", url.path())
                }
                Err(_) => f.write_str("postgres://..."),
            },
        }
    }
}

/// What to do if there is no SQLite file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfMissing {
    /// Make an empty one.
    Create,
    /// Refuse.
    Fail,
}

#[derive(Debug)]
pub(super) enum Pools {
    Sqlite {
        writer: SqlitePool,
        reader: SqlitePool,
    },
    Postgres(postgres::Server),
}

/// What all handles of one store share.
#[derive(Debug)]
pub(super) struct Shared {
    pools: Pools,
    pub(super) faults: Faults,
    pub(super) outages: Outages,
}

impl Shared {
    /// An operation failed.
    pub(super) fn failed(&self, side: Side, error: &sqlx::Error) {
        self.outages.failed(side, error);
        if let Pools::Postgres(server) = &self.pools {
            server.failed(error);
        }
    }
}

/// The open store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    shared: Arc<Shared>,
    /// How long one statement may take on PostgreSQL. On SQLite statements run in this process.
    limit: Duration,
}

impl Store {
    /// Opens the store, creating the SQLite file if it is missing, and migrates it without a copy.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        let store = Self::connect(url, IfMissing::Create).await?;
        store.migrate().await?;
        Ok(store)
    }

    /// Opens a store that has this program's version.
    pub async fn open_current(url: &StoreUrl) -> Result<Self, StoreError> {
        let store = Self::connect(url, IfMissing::Fail).await?;
        store.check_version().await?;
        Ok(store)
    }

    /// Opens the store whatever its version is.
    pub async fn connect(url: &StoreUrl, if_missing: IfMissing) -> Result<Self, StoreError> {
        let pools = match url {
            StoreUrl::Sqlite(path) => open_sqlite(path, if_missing).await?,
            StoreUrl::Postgres(url) => Pools::Postgres(postgres::Server::open(url).await?),
        };
        Ok(Self {
            shared: Arc::new(Shared {
                pools,
                faults: Faults::default(),
                outages: Outages::default(),
            }),
            limit: postgres::STATEMENT_LIMIT,
        })
    }

    /// The same store for work whose statements may take minutes: sealing, the start.
    #[must_use]
    pub fn patient(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            limit: postgres::PATIENT_LIMIT,
        }
    }

    /// Failures that tests inject.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// What fails now; `None` if the last read and the last write succeeded.
    pub fn outage(&self) -> Option<StoreOutage> {
        self.shared.outages.now()
    }

    /// How this database writes the place of a parameter.
    pub(super) fn placeholder(&self) -> Placeholder {
        match &self.shared.pools {
            Pools::Sqlite { .. } => Placeholder::Plain,
            Pools::Postgres(_) => Placeholder::Numbered,
        }
    }

    /// Begins a write transaction.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        self.take(Side::Write).await?.begun().await
    }

    /// A connection for one read.
    pub(crate) async fn reading(&self) -> Result<Tx, sqlx::Error> {
        self.take(Side::Read).await
    }

    async fn take(&self, side: Side) -> Result<Tx, sqlx::Error> {
        let shared = &self.shared;
        let opened = match (&shared.pools, side) {
            (Pools::Sqlite { writer: pool, .. }, Side::Write)
            | (Pools::Sqlite { reader: pool, .. }, Side::Read) => pool
                .acquire()
                .await
                .map(|connection| Tx::Sqlite(Open::new(connection, shared, side, None))),
            (Pools::Postgres(server), side) => {
                let pool = match side {
                    Side::Write => &server.writer,
                    Side::Read => &server.reader,
                };
                let limit = Some(self.limit);
                postgres::acquire(pool)
                    .await
                    .map(|connection| Tx::Postgres(Open::new(connection, shared, side, limit)))
            }
        };
        opened.inspect_err(|error| shared.failed(side, error))
    }

    /// Closes the pools; pending statements end first.
    pub async fn close(&self) {
        match &self.shared.pools {
            Pools::Sqlite { writer, reader } => {
                reader.close().await;
                writer.close().await;
            }
            Pools::Postgres(server) => {
                server.reader.close().await;
                server.writer.close().await;
            }
        }
    }

    pub(super) fn pools(&self) -> &Pools {
        &self.shared.pools
    }
}

async fn open_sqlite(path: &Path, if_missing: IfMissing) -> Result<Pools, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(if_missing == IfMissing::Create)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // "Committed" means on disk: an acknowledged heartbeat survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", format!("-{SQLITE_CACHE_KIB}"))
        .pragma("journal_size_limit", "268435456")
        .statement_cache_capacity(STATEMENT_CACHE)
        .disable_statement_logging();
    // Connections stay open for good: a new one has empty caches, and as long as a reader is open
    // nothing but a commit changes what readers see.
    let pool = SqlitePoolOptions::new()
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None);
    let writer = pool
        .clone()
        .max_connections(1)
        .connect_with(options.clone())
        .await?;
    let reader = pool
        .min_connections(1)
        .max_connections(SQLITE_READERS)
        .connect_with(options.pragma("query_only", "ON"))
        .await?;
    Ok(Pools::Sqlite { writer, reader })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_would_cut_its_url_short_is_refused_and_never_shown() {
        for (url, expected) in [
            ("sqlite:", StoreUrlError::Form),
            ("mysql://a@b/c", StoreUrlError::Form),
            ("postgres://wk:s3c/ret@db/wk", StoreUrlError::Encoding),
            ("postgres://wk:5432/s3cret@db/wk", StoreUrlError::Encoding),
            ("postgres://wk:s3c#ret@db/wk", StoreUrlError::Encoding),
            ("postgres://wk:5432?s3cret@db/wk", StoreUrlError::Encoding),
        ] {
            let error = url.parse::<StoreUrl>().unwrap_err();
            assert_eq!(error, expected, "{url}");
            assert!(!error.to_string().contains("s3c"), "{error}");
        }
        for (url, shown) in [
            (
                "postgres://wk:s3c%2Fr%23et@db:5433/wk",
                "postgres://db:5433/wk",
            ),
            ("postgres://wk:s3cr@et@db/wk", "postgres://db/wk"),
            (
                "postgresql://db/wk?user=wk&password=s3cret",
                "postgres://db/wk",
            ),
            (
                "postgres:///wk?host=/run/postgresql&password=s3cret",
                "postgres:///wk",
            ),
        ] {
            assert_eq!(format!("{:?}", url.parse::<StoreUrl>().unwrap()), shown);
        }
    }
}
