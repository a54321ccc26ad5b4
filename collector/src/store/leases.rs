//! Partition leases and the collectors' own liveness.

use uuid::Uuid;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    Store, StoreError, Tx,
    fleet::PARTITIONS,
    statements::statements,
    tx::{on_read, on_tx},
};

/// Takes a partition that is free, expired, or this node's own from an earlier run; the epoch grows
/// with each taking, so that the previous holder can't write any more.
const CLAIM: &str = "INSERT INTO partition_lease (part, owner, epoch, expires_at) \
    VALUES ($1, $2, 1, $4) ON CONFLICT (part) DO UPDATE SET \
    owner = excluded.owner, epoch = partition_lease.epoch + 1, expires_at = excluded.expires_at \
    WHERE partition_lease.expires_at <= $3 OR partition_lease.owner = excluded.owner";
const EPOCHS: &str = "SELECT CAST(SUM(epoch) AS BIGINT) FROM partition_lease WHERE owner = $1";
/// As above; on PostgreSQL the rows stay locked, so that no take-over comes between this check and
/// the commit that rests on it. On SQLite the transaction is the lock.
const EPOCHS_LOCKED: &str = "SELECT CAST(SUM(epoch) AS BIGINT) FROM \
    (SELECT epoch FROM partition_lease WHERE owner = $1 FOR SHARE) AS held";
const OWNED: &str = "SELECT part FROM partition_lease WHERE owner = $1 ORDER BY part";
const RENEW: &str = "UPDATE partition_lease SET expires_at = $2 WHERE owner = $1";
const ALIVE: &str = "INSERT INTO collector_node (id, started_at, last_alive_at) \
    VALUES ($1, $2, $2) ON CONFLICT (id) DO UPDATE SET last_alive_at = excluded.last_alive_at";
const STARTED: &str = "UPDATE collector_node SET started_at = $2 WHERE id = $1";
const LAST_ALIVE: &str = "SELECT MAX(last_alive_at) FROM collector_node";

statements! {
    CLAIM, EPOCHS, EPOCHS_LOCKED, OWNED, RENEW, ALIVE, STARTED, LAST_ALIVE
}

/// What this collector owns, as it stood when claimed. The sum of the epochs changes when any one
/// of them does, because epochs only grow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// This node.
    pub owner: Uuid,
    /// Its partitions.
    pub parts: Vec<i32>,
    /// Sum of their epochs.
    epochs: i64,
}

/// Claims all free partitions.
pub async fn claim(
    store: &Store,
    owner: Uuid,
    now: UnixMillis,
    valid_for: DurationMs,
) -> Result<Held, StoreError> {
    let mut tx = store.begin().await?;
    for part in 0..PARTITIONS {
        on_tx!(&mut tx, c => sqlx::query(CLAIM)
            .bind(part)
            .bind(owner)
            .bind(now.0)
            .bind((now + valid_for).0)
            .execute(c).await.map(drop))?;
    }
    let epochs = sum_of_epochs(&mut tx, owner).await?;
    let parts: Vec<(i32,)> =
        on_tx!(&mut tx, c => sqlx::query_as(OWNED).bind(owner).fetch_all(c).await)?;
    tx.commit().await?;
    Ok(Held {
        owner,
        parts: parts.into_iter().map(|(part,)| part).collect(),
        epochs,
    })
}

/// Refuses to continue if any lease was lost. Part of every commit, in the same transaction.
pub async fn check(tx: &mut Tx, held: &Held) -> Result<(), StoreError> {
    if sum_of_epochs(tx, held.owner).await? == held.epochs {
        Ok(())
    } else {
        Err(StoreError::LeaseLost)
    }
}

/// Prolongs the leases and notes that this collector is alive and able to write.
pub async fn renew(
    tx: &mut Tx,
    held: &Held,
    now: UnixMillis,
    valid_for: DurationMs,
) -> Result<(), StoreError> {
    check(tx, held).await?;
    on_tx!(tx, c => sqlx::query(RENEW).bind(held.owner).bind((now + valid_for).0)
        .execute(c).await.map(drop))?;
    alive(tx, held.owner, now).await
}

/// Notes that a collector starts.
pub async fn started(tx: &mut Tx, node: Uuid, now: UnixMillis) -> Result<(), StoreError> {
    alive(tx, node, now).await?;
    on_tx!(tx, c => sqlx::query(STARTED).bind(node).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

/// When any collector was last known to be alive.
pub async fn last_alive(store: &Store) -> Result<Option<UnixMillis>, StoreError> {
    let (at,): (Option<i64>,) =
        on_read!(store, c => sqlx::query_as(LAST_ALIVE).fetch_one(c).await)?;
    Ok(at.map(UnixMillis))
}

async fn alive(tx: &mut Tx, node: Uuid, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(ALIVE).bind(node).bind(now.0).execute(c).await.map(drop))?;
    Ok(())
}

async fn sum_of_epochs(tx: &mut Tx, owner: Uuid) -> Result<i64, StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => EPOCHS,
        Tx::Postgres(_) => EPOCHS_LOCKED,
    };
    let (sum,): (Option<i64>,) =
        on_tx!(tx, c => sqlx::query_as(sql).bind(owner).fetch_one(c).await)?;
    Ok(sum.unwrap_or(0))
}
