//! What people and agents say of a host: its name here, its address, notes; its system and the addresses
//! of its network interfaces.

use sqlx::query_as;
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx, fleet,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const DESCRIPTION: &str = "SELECT name, reported_name, address, notes FROM host WHERE id = $1";
const DESCRIBE: &str = "UPDATE host SET name = $2, address = $3, notes = $4 \
    WHERE id = $1 AND retired_at IS NULL";
const SET_REPORTED_NAME: &str = "UPDATE host SET reported_name = $2 WHERE id = $1";
// Facts that arrive late do not replace newer ones.
const IS_NEWS: &str = "SELECT COUNT(*) FROM host \
    WHERE id = $1 AND (system <> $2 OR addresses <> $3) AND NOT EXISTS (SELECT 1 FROM host_event e \
    WHERE e.host_id = $1 AND e.kind = 'host_facts' AND e.at > $4)";
const SET_MACHINE: &str = "UPDATE host SET system = $2, addresses = $3 WHERE id = $1";

statements! { DESCRIPTION, DESCRIBE, SET_REPORTED_NAME, IS_NEWS, SET_MACHINE }

row! {
    /// What people say of a host, beside the name that its agent gave.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Description {
        /// What pages, tickets and messages call it.
        pub name: String,
        /// The host name that its agent gave when it enrolled last.
        pub reported_name: String,
        /// Where it can be reached, for people; any text.
        pub address: String,
        /// Notes, several lines.
        pub notes: String,
    }
}

impl Description {
    /// The host name that the agent gave, if it is another one.
    pub fn other_name(&self) -> Option<&str> {
        (self.reported_name != self.name).then_some(&self.reported_name)
    }
}

/// What people say of a host, retired or not.
pub async fn of(store: &Store, host: HostId) -> Result<Option<Description>, StoreError> {
    Ok(on_read!(store, c => query_as(DESCRIPTION).bind(host.uuid()).fetch_optional(c).await)?)
}

/// Changes name, address and notes of a host that is not retired; the pipeline learns of it.
pub async fn put(tx: &mut Tx, host: HostId, new: &Description) -> Result<bool, StoreError> {
    let done = on_tx!(tx, c => sqlx::query(DESCRIBE)
        .bind(host.uuid())
        .bind(&new.name)
        .bind(&new.address)
        .bind(&new.notes)
        .execute(c).await.map(|done| done.rows_affected() > 0))?;
    if done {
        fleet::note_change(tx, host).await?;
    }
    Ok(done)
}

/// Records the name that a host's agent gave.
pub async fn set_reported_name(tx: &mut Tx, host: HostId, name: &str) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(SET_REPORTED_NAME)
        .bind(host.uuid())
        .bind(name)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// What an agent reported about its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine<'a> {
    pub host: HostId,
    /// The operating system's name.
    pub system: &'a str,
    /// Addresses of its network interfaces, separated by blanks.
    pub addresses: &'a str,
    /// When it was so.
    pub at: UnixMillis,
}

/// Records what an agent reported about its machine, after the event itself. What is the same is not
/// written: an update of a host has the list of all hosts read again.
pub async fn set_machine(tx: &mut Tx, new: &Machine<'_>) -> Result<(), StoreError> {
    let host = new.host.uuid();
    let (news,): (i64,) = on_tx!(tx, c => query_as(IS_NEWS)
        .bind(host).bind(new.system).bind(new.addresses).bind(new.at.0).fetch_one(c).await)?;
    if news > 0 {
        on_tx!(tx, c => sqlx::query(SET_MACHINE)
            .bind(host).bind(new.system).bind(new.addresses).execute(c).await.map(drop))?;
    }
    Ok(())
}
