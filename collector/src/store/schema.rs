//! The version of the store: migrations, and the copy that is made of a SQLite store before them.

use std::path::{Path, PathBuf};

use sqlx::{
    AssertSqlSafe, SqlSafeStr,
    migrate::{Migration, MigrationType, Migrator},
};

use super::{
    Store, StoreError,
    connect::{Pools, StoreUrl},
    tickets,
};

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
    (
        "search",
        include_str!("../../migrations/sqlite/0005_search.sql"),
        include_str!("../../migrations/postgres/0005_search.sql"),
    ),
    (
        "reports",
        include_str!("../../migrations/sqlite/0006_reports.sql"),
        include_str!("../../migrations/postgres/0006_reports.sql"),
    ),
];
const MIGRATIONS_LEN: usize = 6;
/// The migration with which tickets got a text to search in.
const TICKET_SEARCH: i64 = 4;
/// The newest migration this build knows.
pub const SCHEMA_VERSION: i64 = MIGRATIONS_LEN as i64;

/// What to do before the first migration of a store that has data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BeforeMigration {
    /// Copy a SQLite store to a file beside it.
    Copy,
    /// Nothing: there is a backup.
    NoCopy,
}

/// What an upgrade did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upgraded {
    /// The version before; 0 for an empty store.
    pub from: i64,
    /// Where the copy is.
    pub copy: Option<PathBuf>,
}

impl Store {
    /// The newest migration in the store; 0 if it is empty.
    pub async fn version(&self) -> Result<i64, StoreError> {
        let newest = "SELECT MAX(version) FROM _sqlx_migrations";
        let version: Option<i64> = match self.pools() {
            Pools::Sqlite { reader, .. } => {
                let exists = "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'";
                let (count,): (i64,) = sqlx::query_as(exists).fetch_one(reader).await?;
                if count == 0 {
                    return Ok(0);
                }
                sqlx::query_scalar(newest).fetch_one(reader).await?
            }
            Pools::Postgres(server) => {
                let exists = "SELECT to_regclass('_sqlx_migrations') IS NOT NULL";
                let (is_there,): (bool,) = sqlx::query_as(exists).fetch_one(&server.reader).await?;
                if !is_there {
                    return Ok(0);
                }
                sqlx::query_scalar(newest).fetch_one(&server.reader).await?
            }
        };
        Ok(version.unwrap_or(0))
    }

    /// Refuses a store of another version than this program's.
    pub(super) async fn check_version(&self) -> Result<(), StoreError> {
        let found = self.version().await?;
        let known = SCHEMA_VERSION;
        match found.cmp(&known) {
            std::cmp::Ordering::Less => Err(StoreError::Older { found, known }),
            std::cmp::Ordering::Equal => Ok(()),
            std::cmp::Ordering::Greater => Err(StoreError::Newer { found, known }),
        }
    }

    /// Brings the store to this program's version. `None` if it has it.
    pub async fn upgrade(
        &self,
        url: &StoreUrl,
        before: BeforeMigration,
    ) -> Result<Option<Upgraded>, StoreError> {
        let from = self.version().await?;
        if from == SCHEMA_VERSION {
            return Ok(None);
        }
        let copy = match (url, before) {
            (StoreUrl::Sqlite(path), BeforeMigration::Copy)
                if (1..SCHEMA_VERSION).contains(&from) =>
            {
                Some(self.copy(path, from).await?)
            }
            _ => None,
        };
        self.migrate().await?;
        Ok(Some(Upgraded { from, copy }))
    }

    /// Copies a SQLite store to `PATH.vVERSION-DATE`, all pages rewritten.
    async fn copy(&self, path: &Path, version: i64) -> Result<PathBuf, StoreError> {
        let Pools::Sqlite { writer, .. } = self.pools() else {
            return Ok(path.to_owned());
        };
        let now = "SELECT strftime('%Y%m%dT%H%M%SZ', 'now')";
        let date: String = sqlx::query_scalar(now).fetch_one(writer).await?;
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".v{version}-{date}"));
        let copy = PathBuf::from(name);
        let file = copy.display().to_string().replace('\'', "''");
        let sql = AssertSqlSafe(format!("VACUUM INTO '{file}'"));
        let made = sqlx::query(sql).execute(writer).await;
        if let Err(source) = made {
            // What was written of it is of no use.
            drop(std::fs::remove_file(&copy));
            return Err(StoreError::Copy { copy, source });
        }
        make_private(&copy);
        Ok(copy)
    }

    pub(super) async fn migrate(&self) -> Result<(), StoreError> {
        let from = self.version().await?;
        let result = match self.pools() {
            Pools::Sqlite { writer, .. } => migrator(|m| m.1).run(writer).await,
            Pools::Postgres(server) => migrator(|m| m.2).run(&server.writer).await,
        };
        result.map_err(|error| match error {
            sqlx::migrate::MigrateError::VersionMissing(found) => StoreError::Newer {
                found,
                known: SCHEMA_VERSION,
            },
            other => StoreError::Migrate(other),
        })?;
        if (1..TICKET_SEARCH).contains(&from) {
            tickets::fold_titles(self).await?;
        }
        Ok(())
    }
}

/// The copy holds what the store holds: it is for this user alone, if the file system can say so.
fn make_private(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    if let Err(error) = std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)) {
        tracing::warn!("failed to close {} to others: {error}", path.display());
    }
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
