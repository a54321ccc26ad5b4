//! Deletes what is past its retention: hosts' events, the audit log, and what was set aside. What is old is found by a
//! read, so that other writers wait only for deletes by key.

use super::{
    Store, StoreError, Tx,
    dialect::{in_sql, pieces},
    statements::statements,
    tx::{on_read, on_tx},
};
/// Events that were recorded before an instant, but for the newest of those kinds of which pages
/// show the newest one however old it is.
const OLD_EVENTS: &str = "SELECT id FROM host_event WHERE id < $1 AND id > $2 \
    AND (kind NOT IN ('host_facts', 'discovered') OR EXISTS (SELECT 1 FROM host_event newer \
      WHERE newer.host_id = host_event.host_id AND newer.kind = host_event.kind \
      AND newer.at > host_event.at)) ORDER BY id LIMIT $3";
const OLD_AUDIT: &str = "SELECT id FROM audit_log WHERE id < $1 AND id > $2 ORDER BY id LIMIT $3";
const OLD_ASIDES: &str = "SELECT id FROM set_aside WHERE id < $1 AND id > $2 ORDER BY id LIMIT $3";
const NTH_NEWEST_ASIDE: &str = "SELECT id FROM set_aside ORDER BY id DESC LIMIT 1 OFFSET $1";
const DROP_EVENTS: &str = "DELETE FROM host_event WHERE id IN (";
const DROP_AUDIT: &str = "DELETE FROM audit_log WHERE id IN (";
const DROP_ASIDES: &str = "DELETE FROM set_aside WHERE id IN (";

statements! {
    OLD_EVENTS, OLD_AUDIT, OLD_ASIDES, NTH_NEWEST_ASIDE;
    lists DROP_EVENTS, DROP_AUDIT, DROP_ASIDES
}

/// A table whose rows have a retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// What happened on hosts.
    Events,
    /// Who did what.
    Audit,
    /// Parts of hosts' history that can't be read.
    SetAside,
}

impl Kept {
    const fn sql(self) -> (&'static str, &'static str) {
        match self {
            Self::Events => (OLD_EVENTS, DROP_EVENTS),
            Self::Audit => (OLD_AUDIT, DROP_AUDIT),
            Self::SetAside => (OLD_ASIDES, DROP_ASIDES),
        }
    }
}

/// Up to `limit` rows before row `before`, oldest first, after row `after`.
pub async fn old_rows(
    store: &Store,
    kept: Kept,
    before: i64,
    (after, limit): (i64, i64),
) -> Result<Vec<i64>, StoreError> {
    let (sql, _) = kept.sql();
    let rows: Vec<(i64,)> = on_read!(store, c => sqlx::query_as(sql)
        .bind(before).bind(after).bind(limit).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id,)| id).collect())
}

/// The oldest of the `count` newest parts that are set aside; `None` if there are fewer.
pub async fn nth_newest_aside(store: &Store, count: i64) -> Result<Option<i64>, StoreError> {
    let row: Option<(i64,)> = on_read!(store, c => sqlx::query_as(NTH_NEWEST_ASIDE)
        .bind(count - 1).fetch_optional(c).await)?;
    Ok(row.map(|(id,)| id))
}

/// Deletes rows by their identifiers.
pub async fn drop_rows(tx: &mut Tx, kept: Kept, ids: &[i64]) -> Result<(), StoreError> {
    let (_, prefix) = kept.sql();
    for piece in pieces(ids) {
        let sql = in_sql(prefix, piece.len(), tx.placeholder());
        on_tx!(tx, c => {
            let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
            for id in piece {
                query = query.bind(id);
            }
            query.execute(c).await.map(drop)
        })?;
    }
    Ok(())
}
