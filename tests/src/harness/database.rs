//! A database for one test.
//!
//! PostgreSQL is a server named by `WATCHKEEP_TEST_POSTGRES`, a URL with the right to create
//! databases; tests/run.sh starts a private one. Without it the PostgreSQL tests fail: half of
//! what is promised would go untested.

use std::path::Path;

use anyhow::{Context, Result};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use watchkeep_shared::ids::random_uuid;

/// The variable that names the PostgreSQL server.
pub const POSTGRES_VARIABLE: &str = "WATCHKEEP_TEST_POSTGRES";

/// Which database a test runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseKind {
    /// A file.
    Sqlite,
    /// A database of its own on a server.
    Postgres,
}

/// A test's database. Dropping it drops a PostgreSQL database; a SQLite file goes with its
/// directory.
#[derive(Debug)]
pub struct Database {
    url: String,
    /// The server and the name to drop.
    created: Option<(String, String)>,
}

impl Database {
    /// An empty database; a file is in `dir`.
    pub async fn create(kind: DatabaseKind, dir: &Path) -> Result<Self> {
        if kind == DatabaseKind::Sqlite {
            let url = format!("sqlite:{}", dir.join("watchkeep.db").display());
            return Ok(Self { url, created: None });
        }
        let server = std::env::var(POSTGRES_VARIABLE).with_context(|| {
            format!(
                "{POSTGRES_VARIABLE} is not set: set it to the URL of a PostgreSQL server where databases may be created, as in postgres://postgres@127.0.0.1:5432/postgres, or run tests/run.sh, which starts one"
            )
        })?;
        let name = format!("watchkeep_test_{}", random_uuid().simple());
        execute(&server, &format!("CREATE DATABASE {name}")).await?;
        Ok(Self {
            url: with_database(&server, &name)?,
            created: Some((server, name)),
        })
    }

    /// A database that somebody else makes and drops.
    pub fn at(url: String) -> Self {
        Self { url, created: None }
    }

    /// Its URL, for the collector's settings.
    pub fn url(&self) -> &str {
        &self.url
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let Some((server, name)) = self.created.take() else {
            return;
        };
        // A runtime of its own on a thread of its own: this may run on a runtime's thread.
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
            runtime.block_on(execute(&server, &statement))
        });
        // A database that stays behind costs a little space on a test server.
        let _ = dropping.join();
    }
}

async fn execute(server: &str, statement: &str) -> Result<()> {
    let context = || format!("the server that {POSTGRES_VARIABLE} names: {statement}");
    let mut connection = PgConnection::connect(server).await.with_context(context)?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut connection)
        .await
        .with_context(context)?;
    Ok(connection.close().await?)
}

/// The URL with another database name; parameters stay.
fn with_database(server: &str, name: &str) -> Result<String> {
    let (base, parameters) = match server.split_once('?') {
        Some((base, parameters)) => (base, format!("?{parameters}")),
        None => (server, String::new()),
    };
    let (scheme, rest) = base
        .split_once("://")
        .context("a PostgreSQL URL has \"://\"")?;
    let authority = rest.split('/').next().unwrap_or_default();
    Ok(format!("{scheme}://{authority}/{name}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_a_url_is_replaced() {
        for (server, expected) in [
            (
                "postgres://u:p@127.0.0.1:5/postgres",
                "postgres://u:p@127.0.0.1:5/x",
            ),
            ("postgres://u@127.0.0.1:5", "postgres://u@127.0.0.1:5/x"),
            (
                "postgres:///postgres?host=/run/pg",
                "postgres:///x?host=/run/pg",
            ),
        ] {
            assert_eq!(with_database(server, "x").unwrap(), expected);
        }
    }
}
