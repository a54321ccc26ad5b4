//! Parts of hosts' history that the sealer could not read, kept for support until their retention ends.

use sqlx::{query, query_as};
use uuid::Uuid;
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

const PUT: &str = "INSERT INTO set_aside (id, at, host_id, kind, hour, reason, body) \
    VALUES ($1, $2, $3, $4, $5, $6, $7)";
const COUNTS: &str = "SELECT kind, COUNT(*) AS count FROM set_aside GROUP BY kind";
const NEWEST: &str = "SELECT at, host_id, host.name AS host, kind, hour, reason \
    FROM set_aside LEFT JOIN host ON host.id = host_id ORDER BY set_aside.id DESC LIMIT $1";

statements! { PUT, COUNTS, NEWEST }

/// What was damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The values of one heartbeat.
    Row,
    /// A sealed hour.
    Chunk,
}

impl Part {
    /// All.
    pub const ALL: [Self; 2] = [Self::Row, Self::Chunk];

    /// As stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Row => "row",
            Self::Chunk => "chunk",
        }
    }
}

/// A part of a host's history that can't be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Aside {
    pub part: Part,
    pub host: HostId,
    /// Start of its hour, milliseconds since the Unix epoch.
    pub hour: i64,
    /// Why it can't be read.
    pub reason: String,
    /// Its bytes.
    pub body: Vec<u8>,
}

row! {
    /// How many parts of one kind are set aside.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Count {
        /// As [`Part::as_str`].
        pub kind: String,
        pub count: i64,
    }
}

row! {
    /// A part that is set aside, without its bytes.
    #[derive(Clone, Debug)]
    pub struct AsideView {
        /// When it was set aside.
        pub at: i64,
        pub host_id: Uuid,
        /// The host's name; `None` if its row is gone.
        pub host: Option<String>,
        /// As [`Part::as_str`].
        pub kind: String,
        /// Start of its hour, milliseconds since the Unix epoch.
        pub hour: i64,
        /// Why it can't be read.
        pub reason: String,
    }
}

/// Sets a part aside.
pub async fn put(tx: &mut Tx, id: i64, aside: &Aside, now: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => query(PUT)
        .bind(id).bind(now.0).bind(aside.host.uuid()).bind(aside.part.as_str()).bind(aside.hour)
        .bind(&aside.reason).bind(&aside.body)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// How many parts are set aside, by kind; kinds without any are left out.
pub async fn counts(store: &Store) -> Result<Vec<Count>, StoreError> {
    Ok(on_read!(store, c => query_as(COUNTS).fetch_all(c).await)?)
}

/// The parts that were set aside last, newest first.
pub async fn newest(store: &Store, limit: usize) -> Result<Vec<AsideView>, StoreError> {
    Ok(on_read!(store, c => query_as(NEWEST).bind(limit as i64).fetch_all(c).await)?)
}
