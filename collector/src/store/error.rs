//! What can go wrong in the store.

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or could not be reached.
    #[error("the database failed: {0}")]
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
    /// A stored value that the types can't express.
    #[error("corrupt value in {table}.{column}, row {id}: {detail}")]
    Corrupt {
        /// Table.
        table: &'static str,
        /// Column.
        column: &'static str,
        /// The row's key.
        id: String,
        /// What is wrong with it.
        detail: String,
    },
    /// This collector no longer holds the lease under which it wanted to write.
    #[error("the partition lease was lost: another collector decides now")]
    LeaseLost,
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
}
