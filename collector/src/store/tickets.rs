//! Tickets and their timelines. Decisions are made elsewhere; a ticket is read, decided upon and
//! written within one transaction.

use uuid::Uuid;
use watchkeep_core::{
    ids::{ClientId, ContractId, TicketId, UserId},
    rules::{CheckKey, Priority},
    search,
    tickets::{Episode, Firing, Phase, Ticket, TicketEvent, open_key},
};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Store, StoreError, Tx,
    row::row,
    statements::statements,
    tx::{on_read, on_tx},
};

macro_rules! ticket_columns {
    () => {
        "id, number, client_id, contract_id, host_id, check_key, title, priority, \
         alert_priority, severity, state, firing, firing_priority, opened_at, episode_at, \
         paged_at, acknowledged_at, over_at, recheck_at, first_response_at, resolved_at, \
         touched_by_human, assignee, tier, previous_id, hold_until"
    };
}

const BY_ID: &str = concat!("SELECT ", ticket_columns!(), " FROM ticket WHERE id = $1");
/// On PostgreSQL two writers could read the same ticket; on SQLite the transaction is the lock.
const BY_ID_LOCKED: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE id = $1 FOR UPDATE"
);
/// The open ticket of a key, else the one resolved last.
const BY_KEY: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE dedup_key = $1 ORDER BY \
     CASE WHEN state IN ('resolved', 'closed') THEN 1 ELSE 0 END, opened_at DESC LIMIT 1"
);
const BY_KEY_LOCKED: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE dedup_key = $1 ORDER BY \
     CASE WHEN state IN ('resolved', 'closed') THEN 1 ELSE 0 END, opened_at DESC LIMIT 1 FOR UPDATE"
);
// What is due, of each kind the longest due first. Each part has an index of its own.
const DUE: &str = "SELECT id FROM (SELECT id FROM ticket \
    WHERE escalate_at IS NOT NULL AND escalate_at <= $1 ORDER BY escalate_at, number LIMIT 100) AS a \
    UNION ALL SELECT id FROM (SELECT id FROM ticket \
    WHERE recheck_at IS NOT NULL AND recheck_at <= $1 ORDER BY recheck_at, number LIMIT 100) AS b \
    UNION ALL SELECT id FROM (SELECT id FROM ticket \
    WHERE hold_until IS NOT NULL AND hold_until <= $1 ORDER BY hold_until, number LIMIT 100) AS c";
const POSTPONE: &str = "UPDATE ticket SET \
    hold_until = CASE WHEN hold_until IS NULL THEN NULL ELSE CAST($2 AS BIGINT) END, \
    escalate_at = CASE WHEN escalate_at IS NULL THEN NULL ELSE CAST($2 AS BIGINT) END, \
    recheck_at = CASE WHEN recheck_at IS NULL THEN NULL ELSE CAST($2 AS BIGINT) END WHERE id = $1";
// Leads SQLite to the small index of open tickets, away from that of the order.
const OPEN: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE state NOT IN ('resolved', 'closed') AND priority > '' ORDER BY opened_at + 0"
);
const WITHOUT_EVIDENCE: &str = concat!(
    "SELECT ",
    ticket_columns!(),
    " FROM ticket WHERE host_id IS NOT NULL AND check_key IS NOT NULL AND opened_at >= $1 \
     AND NOT EXISTS (SELECT 1 FROM ticket_evidence WHERE ticket_evidence.ticket_id = ticket.id) \
     ORDER BY opened_at LIMIT 100"
);
const SET_ASIDE: &str = "UPDATE ticket SET dedup_key = NULL WHERE dedup_key = $1 \
    AND state NOT IN ('resolved', 'closed')";
const COUNT_OPEN_OF_HOST: &str = "SELECT COUNT(*) FROM ticket \
    WHERE host_id = $1 AND state NOT IN ('resolved', 'closed')";
/// When the ticket was opened before which the host has `$2` newer ones.
const NTH_NEWEST_OF_HOST: &str = "SELECT opened_at FROM ticket WHERE host_id = $1 \
    ORDER BY number DESC LIMIT 1 OFFSET $2";
const NEXT_NUMBER: &str =
    "UPDATE counter SET value = value + 1 WHERE name = 'ticket' RETURNING value";
const SET_FIRING: &str = "UPDATE ticket SET firing = $2, firing_priority = $3, \
    recheck_at = CASE WHEN CAST($3 AS TEXT) IS NULL THEN NULL ELSE recheck_at END WHERE id = $1";
const PUT: &str = "INSERT INTO ticket (id, number, client_id, contract_id, host_id, check_key, \
    title, priority, alert_priority, severity, state, firing, firing_priority, opened_at, \
    episode_at, paged_at, acknowledged_at, over_at, recheck_at, first_response_at, resolved_at, \
    touched_by_human, assignee, tier, previous_id, dedup_key, escalate_at, updated_at, search, \
    hold_until) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, \
    $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30) ON CONFLICT (id) DO UPDATE SET search = excluded.search, \
    title = excluded.title, priority = excluded.priority, \
    alert_priority = excluded.alert_priority, severity = excluded.severity, \
    state = excluded.state, firing = excluded.firing, \
    firing_priority = excluded.firing_priority, episode_at = excluded.episode_at, \
    paged_at = excluded.paged_at, acknowledged_at = excluded.acknowledged_at, \
    over_at = excluded.over_at, recheck_at = excluded.recheck_at, \
    first_response_at = excluded.first_response_at, resolved_at = excluded.resolved_at, \
    touched_by_human = excluded.touched_by_human, assignee = excluded.assignee, \
    hold_until = excluded.hold_until, tier = excluded.tier, escalate_at = excluded.escalate_at, updated_at = excluded.updated_at";
const TITLES: &str =
    "SELECT id, number, title FROM ticket WHERE number > $1 ORDER BY number LIMIT $2";
const SET_SEARCH: &str = "UPDATE ticket SET search = $2 WHERE id = $1";
const NAMES: &str = "SELECT c.name AS client, h.name AS host, s.name AS site, k.name AS contract \
    FROM client c LEFT JOIN host h ON h.id = $2 LEFT JOIN site s ON s.id = h.site_id \
    LEFT JOIN contract k ON k.id = $3 WHERE c.id = $1";
const INSERT_EVENT: &str = "INSERT INTO ticket_event (id, ticket_id, at, actor, kind, detail) \
    VALUES ($1, $2, $3, $4, $5, $6)";
const PUT_EVIDENCE: &str = "INSERT INTO ticket_evidence (ticket_id, body) VALUES ($1, $2) \
    ON CONFLICT (ticket_id) DO NOTHING";

statements! {
    BY_ID, BY_ID_LOCKED, BY_KEY, BY_KEY_LOCKED, DUE, POSTPONE,
    OPEN, WITHOUT_EVIDENCE, SET_ASIDE, COUNT_OPEN_OF_HOST, NTH_NEWEST_OF_HOST, NEXT_NUMBER,
    SET_FIRING, PUT, TITLES, SET_SEARCH, NAMES, INSERT_EVENT, PUT_EVIDENCE
}

row! {
    struct TicketRow {
        id: Uuid,
        number: i64,
        client_id: Uuid,
        contract_id: Option<Uuid>,
        host_id: Option<Uuid>,
        check_key: Option<String>,
        title: String,
        priority: String,
        alert_priority: String,
        severity: String,
        state: String,
        firing: i32,
        firing_priority: Option<String>,
        opened_at: i64,
        episode_at: i64,
        paged_at: Option<i64>,
        acknowledged_at: Option<i64>,
        over_at: Option<i64>,
        recheck_at: Option<i64>,
        first_response_at: Option<i64>,
        resolved_at: Option<i64>,
        touched_by_human: bool,
        assignee: Option<Uuid>,
        tier: i32,
        previous_id: Option<Uuid>,
        hold_until: Option<i64>,
    }
}

row! {
    struct NamesRow {
        client: String,
        host: Option<String>,
        site: Option<String>,
        contract: Option<String>,
    }
}

impl TryFrom<TicketRow> for Ticket {
    type Error = StoreError;

    fn try_from(row: TicketRow) -> Result<Self, StoreError> {
        let word = |column: &'static str, error: &dyn std::fmt::Display| {
            StoreError::corrupt("ticket", column, row.id, error)
        };
        let most_urgent = row.firing_priority.as_deref().map(str::parse).transpose();
        let most_urgent = most_urgent.map_err(|e| word("firing_priority", &e))?;
        let count = u32::try_from(row.firing).map_err(|e| word("firing", &e))?;
        Ok(Self {
            priority: row.priority.parse().map_err(|e| word("priority", &e))?,
            alert_priority: row
                .alert_priority
                .parse()
                .map_err(|e| word("alert_priority", &e))?,
            severity: row.severity.parse().map_err(|e| word("severity", &e))?,
            state: row.state.parse().map_err(|e| word("state", &e))?,
            tier: u8::try_from(row.tier).map_err(|e| word("tier", &e))?,
            firing: Firing::new(count, most_urgent),
            episode: Episode {
                since: UnixMillis(row.episode_at),
                phase: phase_of(&row),
            },
            id: TicketId(row.id),
            number: row.number,
            client: ClientId(row.client_id),
            contract: row.contract_id.map(ContractId),
            host: row.host_id.map(HostId),
            check: row.check_key.map(CheckKey),
            title: row.title,
            opened_at: UnixMillis(row.opened_at),
            first_response_at: row.first_response_at.map(UnixMillis),
            resolved_at: row.resolved_at.map(UnixMillis),
            touched_by_human: row.touched_by_human,
            assignee: row.assignee.map(UserId),
            previous: row.previous_id.map(TicketId),
            hold_until: row.hold_until.map(UnixMillis),
        })
    }
}

const fn instant(ms: Option<i64>) -> Option<UnixMillis> {
    match ms {
        Some(ms) => Some(UnixMillis(ms)),
        None => None,
    }
}

/// The phase as its columns say: `over_at` is set in the last, `acknowledged_at` from the second on.
const fn phase_of(row: &TicketRow) -> Phase {
    match (row.over_at, row.acknowledged_at) {
        (Some(at), taken_at) => Phase::Over {
            at: UnixMillis(at),
            taken_at: instant(taken_at),
            recheck_at: instant(row.recheck_at),
        },
        (None, Some(at)) => Phase::Taken { at: UnixMillis(at) },
        (None, None) => Phase::Unanswered {
            paged_at: instant(row.paged_at),
        },
    }
}

/// A ticket, locked against other writers where the database can.
pub async fn by_id(tx: &mut Tx, id: TicketId) -> Result<Option<Ticket>, StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => BY_ID,
        Tx::Postgres(_) => BY_ID_LOCKED,
    };
    let row: Option<TicketRow> =
        on_tx!(tx, c => sqlx::query_as(sql).bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Ticket::try_from).transpose()
}

/// A ticket, for reading.
pub async fn read(store: &Store, id: TicketId) -> Result<Option<Ticket>, StoreError> {
    let row: Option<TicketRow> =
        on_read!(store, c => sqlx::query_as(BY_ID).bind(id.uuid()).fetch_optional(c).await)?;
    row.map(Ticket::try_from).transpose()
}

/// The open ticket of a key, else the one opened last.
pub async fn by_key(tx: &mut Tx, key: &str) -> Result<Option<Ticket>, StoreError> {
    let sql = match tx {
        Tx::Sqlite(_) => BY_KEY,
        Tx::Postgres(_) => BY_KEY_LOCKED,
    };
    let row: Option<TicketRow> =
        on_tx!(tx, c => sqlx::query_as(sql).bind(key).fetch_optional(c).await)?;
    row.map(Ticket::try_from).transpose()
}

/// The same, for reading.
pub async fn newest_by_key(store: &Store, key: &str) -> Result<Option<Ticket>, StoreError> {
    let row: Option<TicketRow> =
        on_read!(store, c => sqlx::query_as(BY_KEY).bind(key).fetch_optional(c).await)?;
    row.map(Ticket::try_from).transpose()
}

/// Takes the open ticket of a key, which can't be read, out of the way of a new one.
pub async fn set_aside(tx: &mut Tx, key: &str) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(SET_ASIDE).bind(key).execute(c).await.map(drop))?;
    Ok(())
}

/// Up to 100 tickets whose escalation is due, up to 100 that are to be checked again, and up to 100
/// whose time on hold is over.
pub async fn due(store: &Store, now: UnixMillis) -> Result<Vec<TicketId>, StoreError> {
    let rows: Vec<(Uuid,)> =
        on_read!(store, c => sqlx::query_as(DUE).bind(now.0).fetch_all(c).await)?;
    Ok(rows.into_iter().map(|(id,)| TicketId(id)).collect())
}

/// Puts off what is due on a ticket, for one that can't be dealt with now.
pub async fn postpone(tx: &mut Tx, id: TicketId, until: UnixMillis) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(POSTPONE).bind(id.uuid()).bind(until.0)
        .execute(c).await.map(drop))?;
    Ok(())
}

/// All open tickets that can be read, oldest first.
pub async fn open(store: &Store) -> Result<Vec<Ticket>, StoreError> {
    let rows: Vec<TicketRow> = on_read!(store, c => sqlx::query_as(OPEN).fetch_all(c).await)?;
    let tickets = rows.into_iter().filter_map(|row| {
        Ticket::try_from(row)
            .map_err(|error| tracing::error!("a ticket is left out: {error}"))
            .ok()
    });
    Ok(tickets.collect())
}

/// Tickets opened since then whose evidence has not been kept yet, without those that can't be read:
/// this is asked often, and whoever works with such a ticket logs it.
pub async fn without_evidence(store: &Store, since: UnixMillis) -> Result<Vec<Ticket>, StoreError> {
    let rows: Vec<TicketRow> =
        on_read!(store, c => sqlx::query_as(WITHOUT_EVIDENCE).bind(since.0).fetch_all(c).await)?;
    let readable = rows
        .into_iter()
        .map(Ticket::try_from)
        .filter_map(Result::ok);
    Ok(readable.collect())
}

/// How many tickets of a host are open.
pub async fn count_open_of_host(tx: &mut Tx, host: HostId) -> Result<i64, StoreError> {
    let (count,): (i64,) = on_tx!(tx, c => sqlx::query_as(COUNT_OPEN_OF_HOST)
        .bind(host.uuid()).fetch_one(c).await)?;
    Ok(count)
}

/// When the `n`th newest ticket of a host was opened (the newest is the first); `None` if it has
/// fewer.
pub async fn nth_newest_of_host(
    tx: &mut Tx,
    host: HostId,
    n: u32,
) -> Result<Option<UnixMillis>, StoreError> {
    let skip = i64::from(n) - 1;
    let row: Option<(i64,)> = on_tx!(tx, c => sqlx::query_as(NTH_NEWEST_OF_HOST)
        .bind(host.uuid()).bind(skip.max(0)).fetch_optional(c).await)?;
    Ok(row.map(|(at,)| UnixMillis(at)))
}

/// The number of the next ticket.
pub async fn next_number(tx: &mut Tx) -> Result<i64, StoreError> {
    let (number,): (i64,) = on_tx!(tx, c => sqlx::query_as(NEXT_NUMBER).fetch_one(c).await)?;
    Ok(number)
}

/// Writes a ticket, and when it escalates. A second open automatic ticket of one key is refused by
/// the database.
pub async fn put(
    tx: &mut Tx,
    ticket: &Ticket,
    escalate_at: Option<UnixMillis>,
    now: UnixMillis,
) -> Result<(), StoreError> {
    let (paged_at, over_at, recheck_at) = match ticket.episode.phase {
        Phase::Unanswered { paged_at } => (paged_at, None, None),
        Phase::Taken { .. } => (None, None, None),
        Phase::Over { at, recheck_at, .. } => (None, Some(at), recheck_at),
    };
    let ms = |at: Option<UnixMillis>| at.map(|at| at.0);
    let key = ticket
        .check
        .as_ref()
        .map(|check| open_key(ticket.contract, ticket.host, check));
    let search = search_text(tx, ticket).await?;
    on_tx!(tx, c => sqlx::query(PUT)
        .bind(ticket.id.uuid())
        .bind(ticket.number)
        .bind(ticket.client.uuid())
        .bind(ticket.contract.map(ContractId::uuid))
        .bind(ticket.host.map(HostId::uuid))
        .bind(ticket.check.as_ref().map(CheckKey::as_str))
        .bind(&ticket.title)
        .bind(ticket.priority.as_str())
        .bind(ticket.alert_priority.as_str())
        .bind(ticket.severity.as_str())
        .bind(ticket.state.as_str())
        .bind(i32::try_from(ticket.firing.count()).unwrap_or(i32::MAX))
        .bind(ticket.firing.most_urgent().map(Priority::as_str))
        .bind(ticket.opened_at.0)
        .bind(ticket.episode.since.0)
        .bind(ms(paged_at))
        .bind(ms(ticket.episode.taken_at()))
        .bind(ms(over_at))
        .bind(ms(recheck_at))
        .bind(ms(ticket.first_response_at))
        .bind(ms(ticket.resolved_at))
        .bind(ticket.touched_by_human)
        .bind(ticket.assignee.map(UserId::uuid))
        .bind(i32::from(ticket.tier))
        .bind(ticket.previous.map(TicketId::uuid))
        .bind(key)
        .bind(ms(escalate_at))
        .bind(now.0)
        .bind(search)
        .bind(ms(ticket.hold_until))
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Notes which of a ticket's alerts fire, for alerts that are written many at a time. If none does,
/// there is nothing to check again.
pub async fn set_firing(tx: &mut Tx, id: TicketId, firing: Firing) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(SET_FIRING)
        .bind(id.uuid())
        .bind(i32::try_from(firing.count()).unwrap_or(i32::MAX))
        .bind(firing.most_urgent().map(Priority::as_str))
        .execute(c).await.map(drop))?;
    Ok(())
}

/// What a search of tickets looks at.
async fn search_text(tx: &mut Tx, ticket: &Ticket) -> Result<String, StoreError> {
    let names: Option<NamesRow> = on_tx!(tx, c => sqlx::query_as(NAMES)
        .bind(ticket.client.uuid())
        .bind(ticket.host.map(HostId::uuid))
        .bind(ticket.contract.map(ContractId::uuid))
        .fetch_optional(c).await)?;
    let mut text = ticket.title.clone();
    let check = ticket.check.as_ref().map(|check| check.as_str().to_owned());
    let names = names.map(|names| [Some(names.client), names.host, names.site, names.contract]);
    for part in names.into_iter().flatten().chain([check]).flatten() {
        text.push(' ');
        text.push_str(&part);
    }
    Ok(search::fold(&text))
}

/// Tickets whose titles are read at once.
const TITLES_AT_ONCE: i64 = 1_000;

/// Folds the titles of tickets that earlier versions opened. SQL has folded their ASCII letters;
/// databases disagree on all others.
pub(super) async fn fold_titles(store: &Store) -> Result<(), StoreError> {
    let mut after = 0;
    loop {
        let rows: Vec<(Uuid, i64, String)> = on_read!(store, c => sqlx::query_as(TITLES)
            .bind(after).bind(TITLES_AT_ONCE).fetch_all(c).await)?;
        let Some((_, last, _)) = rows.last() else {
            return Ok(());
        };
        after = *last;
        let mut tx = store.begin().await?;
        for (id, _, title) in rows.iter().filter(|(_, _, title)| !title.is_ascii()) {
            set_search(&mut tx, *id, &search::fold(title)).await?;
        }
        tx.commit().await?;
    }
}

async fn set_search(tx: &mut Tx, id: Uuid, text: &str) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(SET_SEARCH).bind(id).bind(text).execute(c).await.map(drop))?;
    Ok(())
}

/// Adds to a ticket's timeline.
pub async fn insert_event(
    tx: &mut Tx,
    id: i64,
    ticket: TicketId,
    event: &TicketEvent,
) -> Result<(), StoreError> {
    let corrupt = |error| StoreError::corrupt("ticket_event", "detail", id, error);
    let actor = serde_json::to_string(&event.actor).map_err(corrupt)?;
    let detail = serde_json::to_value(&event.kind).map_err(corrupt)?;
    let kind = detail
        .get("kind")
        .and_then(|kind| kind.as_str())
        .unwrap_or_default()
        .to_owned();
    on_tx!(tx, c => sqlx::query(INSERT_EVENT)
        .bind(id)
        .bind(ticket.uuid())
        .bind(event.at.0)
        .bind(&actor)
        .bind(&kind)
        .bind(detail.to_string())
        .execute(c).await.map(drop))?;
    Ok(())
}

/// Keeps the metric around a breach, once.
pub async fn put_evidence(tx: &mut Tx, ticket: TicketId, body: &str) -> Result<(), StoreError> {
    on_tx!(tx, c => sqlx::query(PUT_EVIDENCE).bind(ticket.uuid()).bind(body)
        .execute(c).await.map(drop))?;
    Ok(())
}
