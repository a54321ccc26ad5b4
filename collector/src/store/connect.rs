//! Opening the store: URL, pools, migrations.

use std::{path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use sqlx::{
    PgPool, SqlSafeStr, SqlitePool,
    migrate::{Migration, MigrationType, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{StoreError, Tx, dialect::Placeholder};

/// Readers on SQLite; pages and reports are short reads.
const SQLITE_READERS: u32 = 4;
/// Connections to PostgreSQL: the pipeline's, the workers' and the readers'.
const POSTGRES_CONNECTIONS: u32 = 10;
/// How long a writer waits for a lock of another process (a backup, a command-line tool).
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);
/// Page cache of the SQLite writer, KiB.
const SQLITE_CACHE_KIB: u32 = 32 * 1024;

/// Name, then the SQL for SQLite and for PostgreSQL; the version is the position, from 1.
const MIGRATIONS: [(&str, &str, &str); MIGRATIONS_LEN] = [
    (
        "init",
        include_str!("../../migrations/sqlite/0001_init.sql"),
        include_str!("../../migrations/postgres/0001_init.sql"),
    ),
    (
        "quarantine",
        include_str!("../../migrations/sqlite/0002_quarantine.sql"),
        include_str!("../../migrations/postgres/0002_quarantine.sql"),
    ),
    (
        "policy",
        include_str!("../../migrations/sqlite/0003_policy.sql"),
        include_str!("../../migrations/postgres/0003_policy.sql"),
    ),
    (
        "trust",
        include_str!("../../migrations/sqlite/0004_trust.sql"),
        include_str!("../../migrations/postgres/0004_trust.sql"),
    ),
];
pub(super) const MIGRATIONS_LEN: usize = 4;

/// Where the store is.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A file.
    Sqlite(PathBuf),
    /// A PostgreSQL URL, with credentials.
    Postgres(String),
}

/// The text is not a store URL.
#[derive(Debug, thiserror::Error)]
#[error("a store URL is `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`")]
pub struct StoreUrlError;

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Some(path) = s.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(StoreUrlError)
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        if s.starts_with("postgres://") || s.starts_with("postgresql://") {
            return Ok(Self::Postgres(s.to_owned()));
        }
        Err(StoreUrlError)
    }
}

/// Without the credentials.
impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::Postgres(url) => {
                let host = url.rsplit_once('@').map_or("...", |(_, host)| host);
                write!(f, "postgres://{host}")
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum Pools {
    Sqlite {
        writer: SqlitePool,
        reader: SqlitePool,
    },
    Postgres(PgPool),
}

/// The open store; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pools: Arc<Pools>,
}

impl Store {
    /// Opens the store, creating the SQLite file if it is missing, and applies migrations.
    pub async fn open(url: &StoreUrl) -> Result<Self, StoreError> {
        let pools = match url {
            StoreUrl::Sqlite(path) => open_sqlite(path).await?,
            StoreUrl::Postgres(url) => {
                let options = PgConnectOptions::from_str(url)?.application_name("watchkeep");
                let pool = PgPoolOptions::new()
                    .max_connections(POSTGRES_CONNECTIONS)
                    .connect_with(options)
                    .await?;
                Pools::Postgres(pool)
            }
        };
        let store = Self {
            pools: Arc::new(pools),
        };
        store.migrate().await?;
        Ok(store)
    }

    pub(crate) fn pools(&self) -> &Pools {
        &self.pools
    }

    /// How this database writes the place of a parameter.
    pub(super) fn placeholder(&self) -> Placeholder {
        match &*self.pools {
            Pools::Sqlite { .. } => Placeholder::Plain,
            Pools::Postgres(_) => Placeholder::Numbered,
        }
    }

    /// Begins a write transaction.
    pub async fn begin(&self) -> Result<Tx, StoreError> {
        Ok(match &*self.pools {
            Pools::Sqlite { writer, .. } => Tx::Sqlite(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Closes the pools; pending statements end first.
    pub async fn close(&self) {
        match &*self.pools {
            Pools::Sqlite { writer, reader } => {
                reader.close().await;
                writer.close().await;
            }
            Pools::Postgres(pool) => pool.close().await,
        }
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        let result = match &*self.pools {
            Pools::Sqlite { writer, .. } => migrator(|m| m.1).run(writer).await,
            Pools::Postgres(pool) => migrator(|m| m.2).run(pool).await,
        };
        result.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(found) => StoreError::Newer {
                found,
                known: MIGRATIONS_LEN as i64,
            },
            other => StoreError::Migrate(other),
        })
    }
}

async fn open_sqlite(path: &std::path::Path) -> Result<Pools, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        // "Committed" means on disk: an acknowledged heartbeat survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .pragma("cache_size", format!("-{SQLITE_CACHE_KIB}"))
        .pragma("journal_size_limit", "268435456")
        .statement_cache_capacity(400);
    let writer = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .connect_with(options.clone())
        .await?;
    let reader = SqlitePoolOptions::new()
        .max_connections(SQLITE_READERS)
        .test_before_acquire(false)
        .connect_with(options.pragma("query_only", "ON"))
        .await?;
    Ok(Pools::Sqlite { writer, reader })
}

fn migrator(text: fn(&(&'static str, &'static str, &'static str)) -> &'static str) -> Migrator {
    let migrations = MIGRATIONS
        .iter()
        .zip(1_i64..)
        .map(|(migration, version)| {
            Migration::new(
                version,
                migration.0.into(),
                MigrationType::Simple,
                text(migration).into_sql_str(),
                false,
            )
        })
        .collect();
    Migrator::with_migrations(migrations)
}
