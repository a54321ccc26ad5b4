//! Reads the store past the program, so that a test does not ask the code it tests.

use sqlx::{AssertSqlSafe, Connection as _, FromRow, PgConnection, SqliteConnection};

/// A connection of the test's own.
#[derive(Debug)]
pub(crate) enum Probe {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Probe {
    pub(crate) async fn connect(url: &str) -> Self {
        match url.strip_prefix("sqlite:") {
            Some(path) => Self::Sqlite(
                SqliteConnection::connect(&format!("sqlite://{path}"))
                    .await
                    .unwrap(),
            ),
            None => Self::Postgres(PgConnection::connect(url).await.unwrap()),
        }
    }

    /// All rows of a query without parameters.
    pub(crate) async fn rows<T>(&mut self, sql: impl Into<String>) -> Vec<T>
    where
        T: for<'r> FromRow<'r, sqlx::sqlite::SqliteRow>
            + for<'r> FromRow<'r, sqlx::postgres::PgRow>
            + Send
            + Unpin,
    {
        let sql = AssertSqlSafe(sql.into());
        match self {
            Self::Sqlite(connection) => sqlx::query_as(sql).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_as(sql).fetch_all(connection).await,
        }
        .unwrap()
    }
}
