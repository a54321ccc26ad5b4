//! Read-only looks into a collector's store, for assertions and measurements. The tests' own SQL is
//! portable text; this file gives it one shape on both databases.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions as _, Row, TypeInfo as _, ValueRef as _,
    postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgRow},
    sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions, SqliteRow},
};
use uuid::Uuid;

use crate::fleet::observe::sqlite_bytes;

/// Connections of one reader.
const MAX_CONNECTIONS: u32 = 2;
/// How long a reader waits for a lock or a connection.
const WAIT: Duration = Duration::from_secs(20);

/// A store, opened for reading.
#[derive(Clone, Debug)]
pub enum Store {
    /// A SQLite file.
    Sqlite {
        /// Where it is.
        path: PathBuf,
        /// Connections that refuse writes.
        pool: SqlitePool,
    },
    /// A PostgreSQL database.
    Postgres {
        /// Connections.
        pool: PgPool,
    },
}

/// A value of a row, whatever the database calls its type.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// Integers and booleans.
    Int(i64),
    /// Floating point numbers.
    Real(f64),
    /// Text and JSON.
    Text(String),
    /// Identifiers: UUID columns, and 16-byte blobs.
    Id(Uuid),
    /// Other bytes.
    Bytes(Vec<u8>),
}

impl Store {
    /// Opens `sqlite:PATH`, a plain path of a SQLite file, or `postgres://…`. A SQLite file must
    /// exist.
    pub async fn open(url: &str) -> Result<Self> {
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let options = url.parse::<PgConnectOptions>()?.disable_statement_logging();
            let pool = PgPoolOptions::new()
                .max_connections(MAX_CONNECTIONS)
                .acquire_timeout(WAIT)
                .connect_with(options)
                .await
                .context("can't open the PostgreSQL store")?;
            return Ok(Self::Postgres { pool });
        }
        let path = PathBuf::from(url.strip_prefix("sqlite:").unwrap_or(url));
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .busy_timeout(WAIT)
            .pragma("query_only", "ON")
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(MAX_CONNECTIONS)
            .acquire_timeout(WAIT)
            .connect_with(options)
            .await
            .with_context(|| format!("can't open the SQLite store {}", path.display()))?;
        Ok(Self::Sqlite { path, pool })
    }

    /// All rows that `sql`, a text without parameters, yields.
    pub async fn rows(&self, sql: &str) -> Result<Vec<Vec<Value>>> {
        let context = || format!("the query failed: {sql}");
        let statement = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite { pool, .. } => {
                let rows = sqlx::query(statement).fetch_all(pool).await;
                rows.with_context(context)?.iter().map(sqlite_row).collect()
            }
            Self::Postgres { pool } => {
                let rows = sqlx::query(statement).fetch_all(pool).await;
                rows.with_context(context)?
                    .iter()
                    .map(postgres_row)
                    .collect()
            }
        }
    }

    /// The one integer that `sql` yields.
    pub async fn int(&self, sql: &str) -> Result<i64> {
        match self.rows(sql).await?.first().and_then(|row| row.first()) {
            Some(Value::Int(value)) => Ok(*value),
            other => anyhow::bail!("\"{sql}\" yields {other:?}, not an integer"),
        }
    }

    /// An identifier in this database's SQL.
    pub fn id(&self, id: Uuid) -> String {
        match self {
            Self::Sqlite { .. } => format!("X'{}'", id.simple()),
            Self::Postgres { .. } => format!("'{id}'"),
        }
    }

    /// The store's size on disk, bytes.
    pub async fn bytes(&self) -> Result<u64> {
        match self {
            Self::Sqlite { path, .. } => sqlite_bytes(path),
            Self::Postgres { .. } => {
                let bytes = self
                    .int("SELECT pg_database_size(current_database())")
                    .await?;
                Ok(bytes as u64)
            }
        }
    }
}

impl Value {
    /// The value as an integer.
    pub fn int(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            _ => None,
        }
    }

    /// The value as an identifier.
    pub fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(value) => Some(*value),
            _ => None,
        }
    }
}

fn sqlite_row(row: &SqliteRow) -> Result<Vec<Value>> {
    (0..row.columns().len())
        .map(|at| sqlite_value(row, at))
        .collect()
}

fn sqlite_value(row: &SqliteRow, at: usize) -> Result<Value> {
    let raw = row.try_get_raw(at)?;
    if raw.is_null() {
        return Ok(Value::Null);
    }
    let kind = raw.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" | "BOOLEAN" => Value::Int(row.try_get_unchecked(at)?),
        "REAL" => Value::Real(row.try_get_unchecked(at)?),
        "BLOB" => bytes(row.try_get_unchecked(at)?),
        _ => Value::Text(row.try_get_unchecked(at)?),
    })
}

fn postgres_row(row: &PgRow) -> Result<Vec<Value>> {
    (0..row.columns().len())
        .map(|at| postgres_value(row, at))
        .collect()
}

fn postgres_value(row: &PgRow, at: usize) -> Result<Value> {
    if row.try_get_raw(at)?.is_null() {
        return Ok(Value::Null);
    }
    let kind = row.columns()[at].type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INT8" => Value::Int(row.try_get(at)?),
        "INT4" => Value::Int(row.try_get::<i32, _>(at)?.into()),
        "INT2" => Value::Int(row.try_get::<i16, _>(at)?.into()),
        "BOOL" => Value::Int(row.try_get::<bool, _>(at)?.into()),
        "FLOAT8" => Value::Real(row.try_get(at)?),
        "UUID" => Value::Id(row.try_get(at)?),
        "BYTEA" => bytes(row.try_get(at)?),
        "JSONB" | "JSON" => {
            let raw = row.try_get_raw(at)?;
            let bytes = raw.as_bytes().map_err(|error| anyhow::anyhow!(error))?;
            // The binary form of JSONB leads with a version byte.
            let json = bytes.strip_prefix(&[1]).unwrap_or(bytes);
            Value::Text(String::from_utf8(json.to_vec())?)
        }
        _ => Value::Text(row.try_get_unchecked(at)?),
    })
}

fn bytes(bytes: Vec<u8>) -> Value {
    match Uuid::from_slice(&bytes) {
        Ok(id) => Value::Id(id),
        Err(_) => Value::Bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sqlite_values_come_out_by_type_and_writes_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true);
        let writer = SqlitePool::connect_with(options).await.unwrap();
        sqlx::query("CREATE TABLE t (a INTEGER, b TEXT, c BLOB, d BLOB, e INTEGER)")
            .execute(&writer)
            .await
            .unwrap();
        sqlx::query("INSERT INTO t VALUES (7, 'x', $1, $2, NULL)")
            .bind(Uuid::from_u128(5))
            .bind(vec![1_u8, 2])
            .execute(&writer)
            .await
            .unwrap();
        let store = Store::open(path.to_str().unwrap()).await.unwrap();
        let rows = store.rows("SELECT a, b, c, d, e FROM t").await.unwrap();
        let expected = vec![
            Value::Int(7),
            Value::Text("x".to_owned()),
            Value::Id(Uuid::from_u128(5)),
            Value::Bytes(vec![1, 2]),
            Value::Null,
        ];
        assert_eq!(rows, [expected]);
        assert_eq!(store.int("SELECT COUNT(*) FROM t").await.unwrap(), 1);
        assert!(store.rows("DELETE FROM t").await.is_err());
        assert!(store.bytes().await.unwrap() >= 4_096);
    }
}
