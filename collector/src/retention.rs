//! The record that people read is kept for a time (`[history]` in the settings): events of hosts, the
//! audit log, and parts of hosts' history that can't be read. Old rows are deleted a few at a time, so that no commit waits for long.

use watchkeep_shared::{DurationMs, UnixMillis};

use crate::{
    app::App,
    ids::RowIds,
    store::{
        StoreError,
        retention::{self as rows, Kept},
    },
};

/// Rows deleted in one transaction.
const ROWS_AT_ONCE: i64 = 1_000;
/// Transactions in one run, for each table.
const MAX_ROUNDS: usize = 50;
/// Unreadable parts of history that are kept, the newest. A systematic fault makes many that show the
/// same.
pub const MAX_SET_ASIDE: i64 = 10_000;

/// What one run deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Events of hosts.
    pub events: usize,
    /// Lines of the audit log.
    pub audit: usize,
    /// Unreadable parts of hosts' history.
    pub set_aside: usize,
}

/// Deletes what is past its retention.
///
/// # Errors
///
/// If the store fails; what was deleted before stays deleted.
pub async fn expire(app: &App, now: UnixMillis) -> Result<Expired, StoreError> {
    let history = &app.config.history;
    let since = |days: u32| RowIds::first_at(now - DurationMs::from_hours(24 * i64::from(days)));
    let newest_asides = rows::nth_newest_aside(&app.store, MAX_SET_ASIDE).await?;
    let asides_before = since(history.set_aside_days).max(newest_asides.unwrap_or_default());
    Ok(Expired {
        events: expire_kept(app, Kept::Events, since(history.events_days)).await?,
        audit: expire_kept(app, Kept::Audit, since(history.audit_days)).await?,
        set_aside: expire_kept(app, Kept::SetAside, asides_before).await?,
    })
}

async fn expire_kept(app: &App, kept: Kept, before: i64) -> Result<usize, StoreError> {
    let mut count = 0;
    let mut after = 0;
    for _ in 0..MAX_ROUNDS {
        let ids = rows::old_rows(&app.store, kept, before, (after, ROWS_AT_ONCE)).await?;
        let Some(last) = ids.last() else { break };
        after = *last;
        let mut tx = app.store.begin().await?;
        rows::drop_rows(&mut tx, kept, &ids).await?;
        tx.commit().await?;
        count += ids.len();
        if ids.len() < ROWS_AT_ONCE as usize {
            break;
        }
    }
    Ok(count)
}
