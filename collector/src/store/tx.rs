//! One transaction on either database, and the macros that run one expression on both.

use super::StoreError;

/// A write transaction. Dropping it without [`Tx::commit`] rolls it back.
#[derive(Debug)]
pub enum Tx {
    /// SQLite, begun IMMEDIATE on the one writer connection.
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    /// PostgreSQL.
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Tx {
    /// Makes everything durable. After an error the outcome is unknown: read it back.
    pub async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => tx.commit().await?,
            Self::Postgres(tx) => tx.commit().await?,
        }
        Ok(())
    }
}

/// Runs one expression on the connection of a [`Tx`]: `on_tx!(tx, c => query.execute(c))`.
macro_rules! on_tx {
    ($tx:expr, $conn:ident => $body:expr) => {
        match $tx {
            $crate::store::Tx::Sqlite(tx) => {
                let $conn = &mut **tx;
                $body
            }
            $crate::store::Tx::Postgres(tx) => {
                let $conn = &mut **tx;
                $body
            }
        }
    };
}

/// Runs one reading expression on the pool of a [`super::Store`]:
/// `on_read!(store, c => query.fetch_all(c))`.
macro_rules! on_read {
    ($store:expr, $pool:ident => $body:expr) => {
        match $store.pools() {
            $crate::store::connect::Pools::Sqlite { reader: $pool, .. } => $body,
            $crate::store::connect::Pools::Postgres($pool) => $body,
        }
    };
}

pub(crate) use {on_read, on_tx};
