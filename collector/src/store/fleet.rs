//! Clients, contracts, sites, hosts.

use uuid::Uuid;
use watchkeep_core::{
    ids::{ClientId, ContractId, SiteId},
    search::name_order,
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};
use crate::health::Recorded;

/// Hosts hash into this many partitions.
pub const PARTITIONS: i32 = 64;

/// The client of tickets about the collector itself.
pub const OWN_CLIENT: &str = "Watchkeep";

const GENERATION: &str = "SELECT value FROM counter WHERE name = 'fleet'";
const INSERT_HOST: &str = "INSERT INTO host \
    (id, client_id, site_id, contract_id, part, name, reported_name, agent_version, \
    enrolled_at) SELECT $1, client_id, id, contract_id, $3, $4, $4, $5, $6 FROM site WHERE id = $2";
const IS_ACTIVE: &str = "SELECT id FROM host WHERE id = $1 AND retired_at IS NULL";
/// On PostgreSQL a key could be revoked while a certificate is being issued; on SQLite the
/// transaction is the lock.
const IS_ACTIVE_LOCKED: &str =
    "SELECT id FROM host WHERE id = $1 AND retired_at IS NULL FOR UPDATE";
macro_rules! select_host {
    () => {
        "SELECT host.id, client_id, site_id, contract_id, part, host.name, \
         agent_version, enrolled_at, retired_at, quarantined_at, revoked_at, client.name AS client_name, \
         (SELECT site.name FROM site WHERE site.id = host.site_id) AS site_name \
         FROM host JOIN client ON client.id = host.client_id"
    };
}
const HOSTS: &str = select_host!();
const HOST: &str = concat!(select_host!(), " WHERE host.id = $1");
const HOSTS_OF_CONTRACT: &str = concat!(select_host!(), " WHERE host.contract_id = $1");
const UPSERT_CLIENT: &str = "INSERT INTO client (id, name, created_at) VALUES ($1, $2, $3) \
    ON CONFLICT (name) DO NOTHING";
const CLIENT_BY_NAME: &str = "SELECT id FROM client WHERE name = $1";
const UPSERT_CONTRACT: &str = "INSERT INTO contract \
    (id, client_id, name, kind, zone, service_hours, unknown_rule, target_pct, paging, created_at) \
    VALUES ($1, $2, $3, $4, $5, '24x7', $6, $7, $8, $9) ON CONFLICT (name) DO UPDATE SET \
    client_id = excluded.client_id, kind = excluded.kind, zone = excluded.zone, \
    unknown_rule = excluded.unknown_rule, target_pct = excluded.target_pct, \
    paging = excluded.paging";
const CONTRACT_PAGING: &str = "SELECT zone, paging FROM contract WHERE id = $1";
macro_rules! select_contract {
    ($rest:literal) => {
        concat!(
            "SELECT contract.id, client_id, contract.name, kind, zone, unknown_rule, target_pct, \
             paging, client.name AS client_name \
             FROM contract JOIN client ON client.id = contract.client_id ",
            $rest
        )
    };
}
const CONTRACTS: &str = select_contract!("");
const CONTRACT: &str = select_contract!("WHERE contract.id = $1");
const UPSERT_SITE: &str = "INSERT INTO site (id, client_id, contract_id, name, created_at) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (name) DO UPDATE SET \
    client_id = excluded.client_id, contract_id = excluded.contract_id";
const SITES: &str = "SELECT site.id, site.client_id, site.contract_id, site.name, \
    client.name AS client_name FROM site JOIN client ON client.id = site.client_id";
const SITE_BY_NAME: &str = "SELECT id FROM site WHERE name = $1";
const SET_QUARANTINE: &str = "UPDATE host SET quarantined_at = $2 WHERE id = $1";
const SET_AGENT_VERSION: &str = "UPDATE host SET agent_version = $2 WHERE id = $1";
const NOTE_CHANGE: &str = "INSERT INTO host_change (host_id, version) VALUES ($1, 1) \
    ON CONFLICT (host_id) DO UPDATE SET version = host_change.version + 1";
const CHANGES: &str = "SELECT host_id, version FROM host_change ORDER BY host_id LIMIT $1";
const DROP_CHANGE: &str = "DELETE FROM host_change WHERE host_id = $1 AND version = $2";
const SET_REVOKED: &str = "UPDATE host SET revoked_at = $2 WHERE id = $1";
const IS_QUARANTINED: &str =
    "SELECT COUNT(*) FROM host WHERE id = $1 AND quarantined_at IS NOT NULL";
const RETIRE_HOST: &str = "UPDATE host SET retired_at = $2 WHERE id = $1 AND retired_at IS NULL";

statements! {
    GENERATION, INSERT_HOST, IS_ACTIVE, IS_ACTIVE_LOCKED, HOSTS, HOST, HOSTS_OF_CONTRACT,
    UPSERT_CLIENT,
    CLIENT_BY_NAME, UPSERT_CONTRACT, CONTRACT_PAGING, CONTRACTS, CONTRACT, UPSERT_SITE, SITES, SITE_BY_NAME,
    SET_QUARANTINE, SET_AGENT_VERSION, NOTE_CHANGE, CHANGES, DROP_CHANGE, SET_REVOKED, IS_QUARANTINED, RETIRE_HOST
}

/// A machine about to be taken in; client and contract come from its site.
#[derive(Debug)]
pub struct NewHost {
    pub id: HostId,
    /// Where it is.
    pub site: SiteId,
    /// Its host name.
    pub name: String,
    pub agent_version: String,
    /// Now.
    pub enrolled_at: UnixMillis,
}

row! {
    /// A host as stored.
    #[derive(Clone, Debug)]
    pub struct HostRow {
        pub id: Uuid,
        /// Whose it is.
        pub client_id: Uuid,
        /// Where it is.
        pub site_id: Uuid,
        /// What covers it.
        pub contract_id: Option<Uuid>,
        /// Its partition.
        pub part: i32,
        /// Its host name.
        pub name: String,
        /// Version of its agent.
        pub agent_version: String,
        /// When it was taken in.
        pub enrolled_at: i64,
        pub retired_at: Option<i64>,
        /// Since when two machines use its identity.
        pub quarantined_at: Option<i64>,
        /// Since when all its certificates are revoked.
        pub revoked_at: Option<i64>,
        /// Whose it is, by name.
        pub client_name: String,
        /// Where it is, by name.
        pub site_name: String,
    }
}

impl HostRow {
    /// What of it decides how the host is.
    pub const fn recorded(&self) -> Recorded {
        Recorded {
            retired: self.retired_at.is_some(),
            quarantined: self.quarantined_at.is_some(),
            revoked: self.revoked_at.is_some(),
        }
    }
}

row! {
    /// A contract as stored.
    #[derive(Clone, Debug)]
    pub struct ContractRow {
        pub id: Uuid,
        /// Whose it is.
        pub client_id: Uuid,
        pub name: String,
        /// `managed`, `block_hours` or `time_and_material`.
        pub kind: String,
        /// IANA time zone.
        pub zone: String,
        /// `count_as_up`, `count_as_down` or `exclude`.
        pub unknown_rule: String,
        /// Promised availability, 0 to 100.
        pub target_pct: f64,
        /// What it changes of the table of priorities, JSON.
        pub paging: Option<String>,
        /// Whose it is, by name.
        pub client_name: String,
    }
}

row! {
    /// What decides whom a contract's tickets wake.
    #[derive(Clone, Debug)]
    pub struct ContractPaging {
        /// IANA time zone.
        pub zone: String,
        /// What the contract changes of the table of priorities, JSON.
        pub paging: Option<String>,
    }
}

row! {
    /// A site as stored.
    #[derive(Clone, Debug)]
    pub struct SiteRow {
        pub id: Uuid,
        /// Whose it is.
        pub client_id: Uuid,
        /// What covers its hosts.
        pub contract_id: Option<Uuid>,
        pub name: String,
        /// Whose it is, by name.
        pub client_name: String,
    }
}

/// A contract to be made or brought up to date.
#[derive(Clone, Debug)]
pub struct NewContract {
    /// Whose it is.
    pub client: ClientId,
    /// Its name, unique.
    pub name: String,
    /// `managed`, `block_hours` or `time_and_material`.
    pub kind: String,
    /// IANA time zone.
    pub zone: String,
    /// `count_as_up`, `count_as_down` or `exclude`.
    pub unknown_rule: String,
    /// Promised availability, 0 to 100.
    pub target_pct: f64,
    /// What it changes of the table of priorities, JSON.
    pub paging: Option<String>,
}

/// A number that grows with each change of a client, contract, site or host.
pub async fn generation(store: &Store) -> Result<i64, StoreError> {
    let (value,): (i64,) = on_read!(store, c => sqlx::query_as(GENERATION).fetch_one(c).await)?;
    Ok(value)
}

/// The partition of a host.
pub fn partition_of(host: HostId) -> i32 {
    // The last byte of a version 7 UUID is random.
    i32::from(host.uuid().as_bytes()[15]) % PARTITIONS
}

/// Stores a host.
pub async fn insert_host(tx: &mut Tx, host: &NewHost) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(INSERT_HOST)
        .bind(host.id.uuid())
        .bind(host.site.uuid())
        .bind(partition_of(host.id))
        .bind(&host.name)
        .bind(&host.agent_version)
        .bind(host.enrolled_at.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Whether a host exists and is not retired. Until the end of the transaction no other one revokes
/// its certificates, retires it, or issues a certificate for it.
pub async fn is_active_host(tx: &mut Tx, host: HostId) -> Result<bool, StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => IS_ACTIVE,
        Tx::Postgres(_) => IS_ACTIVE_LOCKED,
    };
    let row: Option<(Uuid,)> =
        on_tx!(tx, c => sqlx::query_as(sql).bind(host.uuid()).fetch_optional(c).await)?;
    Ok(row.is_some())
}

/// Notes which version a host's agent has.
pub async fn set_agent_version(tx: &mut Tx, host: HostId, version: &str) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(SET_AGENT_VERSION).bind(host.uuid()).bind(version)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Notes since when two machines use a host's identity, or that this is over.
pub async fn set_quarantine(
    tx: &mut Tx,
    host: HostId,
    since: Option<UnixMillis>,
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(SET_QUARANTINE)
        .bind(host.uuid())
        .bind(since.map(|at| at.0))
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Records since when all certificates of a host are revoked, or that it has a good one again.
pub async fn set_revoked(
    tx: &mut Tx,
    host: HostId,
    since: Option<UnixMillis>,
) -> Result<(), StoreError> {
    note_change(tx, host).await?;
    on_tx!(tx, c => sqlx::query(SET_REVOKED)
        .bind(host.uuid())
        .bind(since.map(|at| at.0))
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Whether a host is in quarantine.
pub async fn is_quarantined(tx: &mut Tx, host: HostId) -> Result<bool, StoreError> {
    let (count,): (i64,) =
        on_tx!(tx, c => sqlx::query_as(IS_QUARANTINED).bind(host.uuid()).fetch_one(c).await)?;
    Ok(count > 0)
}

/// Retires a host. The pipeline ends its alerts and tickets when it looks next.
pub async fn retire_host(tx: &mut Tx, host: HostId, now: UnixMillis) -> Result<bool, StoreError> {
    note_change(tx, host).await?;
    Ok(
        on_tx!(tx, c => sqlx::query(RETIRE_HOST).bind(host.uuid()).bind(now.0)
        .execute(c).await.map(|done| done.rows_affected() > 0))?,
    )
}

/// A host that was renamed, retired, revoked or enrolled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostChange {
    pub host: HostId,
    /// Which of its changes this is.
    version: i64,
}

/// Has the pipeline look at a host.
pub(super) async fn note_change(tx: &mut Tx, host: HostId) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(NOTE_CHANGE).bind(host.uuid()).execute(c).await.map(drop))?;
    Ok(())
}

/// Hosts that the pipeline has to look at, some at a time.
pub async fn changes(store: &Store, limit: usize) -> Result<Vec<HostChange>, StoreError> {
    let rows: Vec<(Uuid, i64)> = on_read!(store, c => sqlx::query_as(CHANGES)
        .bind(limit as i64).fetch_all(c).await)?;
    Ok(rows
        .into_iter()
        .map(|(host, version)| HostChange {
            host: HostId(host),
            version,
        })
        .collect())
}

/// Removes a change that the pipeline has applied; a later change of the host stays.
pub async fn drop_change(tx: &mut Tx, change: HostChange) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(DROP_CHANGE).bind(change.host.uuid()).bind(change.version)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// All hosts, retired ones too.
pub async fn hosts(store: &Store) -> Result<Vec<HostRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(HOSTS).fetch_all(c).await)?)
}

/// One host.
pub async fn host(store: &Store, id: HostId) -> Result<Option<HostRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(HOST).bind(id.uuid()).fetch_optional(c).await)?)
}

/// Finds or makes a client by name.
pub async fn ensure_client(
    tx: &mut Tx,
    name: &str,
    now: UnixMillis,
) -> Result<ClientId, StoreError> {
    on_tx!(tx, c => sqlx::query(UPSERT_CLIENT).bind(crate::ids::uuid_at(now)).bind(name).bind(now.0)
        .execute(c).await.map(drop))?;
    let (id,): (Uuid,) =
        on_tx!(tx, c => sqlx::query_as(CLIENT_BY_NAME).bind(name).fetch_one(c).await)?;
    Ok(ClientId(id))
}

/// Makes a contract, or brings the one of that name up to date.
pub async fn put_contract(
    tx: &mut Tx,
    new: &NewContract,
    now: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(UPSERT_CONTRACT)
        .bind(crate::ids::uuid_at(now))
        .bind(new.client.uuid())
        .bind(&new.name)
        .bind(&new.kind)
        .bind(&new.zone)
        .bind(&new.unknown_rule)
        .bind(new.target_pct)
        .bind(&new.paging)
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Makes a site, or brings the one of that name up to date.
pub async fn put_site(
    tx: &mut Tx,
    client: ClientId,
    contract: Option<ContractId>,
    name: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(UPSERT_SITE)
        .bind(crate::ids::uuid_at(now))
        .bind(client.uuid())
        .bind(contract.map(ContractId::uuid))
        .bind(name)
        .bind(now.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// The site of a name, as a transaction sees it.
pub async fn site_in(tx: &mut Tx, name: &str) -> Result<Option<SiteId>, StoreError> {
    let row: Option<(Uuid,)> =
        on_tx!(tx, c => sqlx::query_as(SITE_BY_NAME).bind(name).fetch_optional(c).await)?;
    Ok(row.map(|(id,)| SiteId(id)))
}

/// What decides whom a contract's tickets wake; `None` if there is no such contract.
pub async fn contract_paging(
    tx: &mut Tx,
    contract: ContractId,
) -> Result<Option<ContractPaging>, StoreError> {
    Ok(
        on_tx!(tx, c => sqlx::query_as(CONTRACT_PAGING).bind(contract.uuid())
        .fetch_optional(c).await)?,
    )
}

/// All contracts, by name.
pub async fn contracts(store: &Store) -> Result<Vec<ContractRow>, StoreError> {
    let mut rows: Vec<ContractRow> =
        on_read!(store, c => sqlx::query_as(CONTRACTS).fetch_all(c).await)?;
    rows.sort_by_cached_key(|row| name_order(&row.name));
    Ok(rows)
}

/// One contract.
pub async fn contract(store: &Store, id: ContractId) -> Result<Option<ContractRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(CONTRACT).bind(id.uuid()).fetch_optional(c).await)?)
}

/// The hosts that a contract covers, retired ones too.
pub async fn hosts_of_contract(
    store: &Store,
    contract: ContractId,
) -> Result<Vec<HostRow>, StoreError> {
    Ok(on_read!(store, c => sqlx::query_as(HOSTS_OF_CONTRACT)
        .bind(contract.uuid()).fetch_all(c).await)?)
}

/// All contracts, as a transaction sees them, in any order.
pub async fn contracts_in(tx: &mut Tx) -> Result<Vec<ContractRow>, StoreError> {
    Ok(on_tx!(tx, c => sqlx::query_as(CONTRACTS).fetch_all(c).await)?)
}

/// All sites, by name.
pub async fn sites(store: &Store) -> Result<Vec<SiteRow>, StoreError> {
    let mut rows: Vec<SiteRow> = on_read!(store, c => sqlx::query_as(SITES).fetch_all(c).await)?;
    rows.sort_by_cached_key(|row| name_order(&row.name));
    Ok(rows)
}
