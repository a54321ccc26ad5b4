//! Lists of tickets by filters: the queue of open ones, the archive of all.

use sqlx::{query_as, query_scalar};
use uuid::Uuid;
use watchkeep_core::{
    ids::SiteId,
    incidents::IncidentScope,
    search::{MAX_WORDS, Words},
};
use watchkeep_shared::HostId;

use super::TicketView;
use crate::store::{Store, StoreError, statements::statements, tx::on_read};

/// Tickets that one request looks at for a filter that no index answers.
const SEARCHED: i64 = 10_000;
const ALL_STATES: usize = 7;

/// The filters of every list, as parameters 1 to 25. `COALESCE` keeps the planner from walking the
/// index of states in place of the one that gives the order. The ticket of a site's incident has no
/// host; its check names the site.
macro_rules! filters {
    ($driver:literal, $range:literal) => {
        concat!(
            "WHERE ",
            $driver,
            "COALESCE(t.state, '') IN ($1, $2, $3, $4, $5, $6, $7) AND ($8 = '' OR t.priority = $8) \
             AND ($9 = 0 OR t.client_id = $10) AND ($11 = 0 OR t.assignee = $12 \
             OR ($11 = 2 AND t.assignee IS NULL)) AND ($13 = 0 OR (t.search LIKE $14 ESCAPE '!' \
             AND t.search LIKE $15 ESCAPE '!' AND t.search LIKE $16 ESCAPE '!' \
             AND t.search LIKE $17 ESCAPE '!' AND t.search LIKE $18 ESCAPE '!' \
             AND t.search LIKE $19 ESCAPE '!')) AND ($20 = 0 OR ($20 = 1 AND t.firing > 0) \
             OR ($20 = 2 AND t.firing = 0 AND t.over_at IS NOT NULL)) \
             AND ($21 = 0 OR h.site_id = $22 OR t.check_key = $23) \
             AND ($24 = 0 OR t.host_id = $25) AND ",
            $range
        )
    };
}
macro_rules! listed {
    ($driver:literal, $range:literal) => {
        tickets!(filters!($driver, $range))
    };
}
// The queue is worked from the most urgent and oldest.
const QUEUE: &str = listed!(
    "t.state NOT IN ('resolved', 'closed') AND ",
    "(t.priority, t.number) > ($26, $27) ORDER BY t.priority, t.number LIMIT $28"
);
// That the priority is not empty leads SQLite to the small index of open tickets.
const QUEUE_COUNT: &str = joined!(
    "COUNT(*)",
    filters!(
        "t.state NOT IN ('resolved', 'closed') AND ",
        "t.priority > ''"
    )
);
// The archive is read from the newest, along the index of the narrowest filter.
macro_rules! archive {
    ($driver:literal) => {
        listed!(
            $driver,
            "t.number > $26 AND t.number < $27 ORDER BY t.number DESC LIMIT $28"
        )
    };
}
const ARCHIVE: &str = archive!("");
const ARCHIVE_OF_HOST: &str = archive!("t.host_id = $25 AND ");
const ARCHIVE_OF_CLIENT: &str = archive!("t.client_id = $10 AND ");
const ARCHIVE_OF_ASSIGNEE: &str = archive!("t.assignee = $12 AND ");
const ARCHIVE_OF_STATE: &str = archive!("t.state = $1 AND ");
// Where a search that looks at so many tickets ends.
const FLOOR: &str = "SELECT number FROM ticket WHERE number < $1 ORDER BY number DESC \
    LIMIT 1 OFFSET $2";
const FLOOR_OF_HOST: &str = "SELECT number FROM ticket WHERE host_id = $3 AND number < $1 \
    ORDER BY number DESC LIMIT 1 OFFSET $2";
const FLOOR_OF_CLIENT: &str = "SELECT number FROM ticket WHERE client_id = $3 AND number < $1 \
    ORDER BY number DESC LIMIT 1 OFFSET $2";
const FLOOR_OF_ASSIGNEE: &str = "SELECT number FROM ticket WHERE assignee = $3 AND number < $1 \
    ORDER BY number DESC LIMIT 1 OFFSET $2";
const FLOOR_OF_STATE: &str = "SELECT number FROM ticket WHERE state = $3 AND number < $1 \
    ORDER BY number DESC LIMIT 1 OFFSET $2";

statements! {
    QUEUE, QUEUE_COUNT, ARCHIVE, ARCHIVE_OF_HOST, ARCHIVE_OF_CLIENT, ARCHIVE_OF_ASSIGNEE,
    ARCHIVE_OF_STATE, FLOOR, FLOOR_OF_HOST, FLOOR_OF_CLIENT, FLOOR_OF_ASSIGNEE, FLOOR_OF_STATE
}

/// Binds a [`TicketFilter`] to the first 25 placeholders.
macro_rules! filtered {
    ($query:expr, $filter:expr) => {{
        let mut query = $query;
        for word in padded(&$filter.states) {
            query = query.bind(word);
        }
        let (assignee, who) = match $filter.assignee {
            None => (0, Uuid::nil()),
            Some(Assignee::Person(id)) => (1, id),
            Some(Assignee::Nobody) => (2, Uuid::nil()),
        };
        query = query
            .bind($filter.priority.clone())
            .bind(i32::from($filter.client.is_some()))
            .bind($filter.client.unwrap_or_default())
            .bind(assignee)
            .bind(who)
            .bind(i32::from(!$filter.words.is_empty()));
        for pattern in patterns(&$filter.words) {
            query = query.bind(pattern);
        }
        let alerts = match $filter.alerts {
            None => 0,
            Some(Alerts::Firing) => 1,
            Some(Alerts::Recovered) => 2,
        };
        query
            .bind(alerts)
            .bind(i32::from($filter.site.is_some()))
            .bind($filter.site.map_or_else(Uuid::nil, SiteId::uuid))
            .bind(
                $filter
                    .site
                    .map_or_else(String::new, |site| IncidentScope::Site(site).check().0),
            )
            .bind(i32::from($filter.host.is_some()))
            .bind($filter.host.map_or_else(Uuid::nil, HostId::uuid))
    }};
}

/// States of tickets with work left.
pub const OPEN_STATES: [&str; 5] = [
    "new",
    "open",
    "waiting_customer",
    "waiting_supplier",
    "waiting_scheduled",
];

/// Whose tickets a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assignee {
    /// One person's.
    Person(Uuid),
    /// Unassigned ones.
    Nobody,
}

/// Tickets by whether their alerts still fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alerts {
    /// Some do.
    Firing,
    /// There were some, and all have ended.
    Recovered,
}

/// Which tickets a list shows.
#[derive(Clone, Debug, Default)]
pub struct TicketFilter {
    /// Words of states, one to seven; empty finds nothing.
    pub states: Vec<&'static str>,
    /// `P1` to `P4`, or empty for all.
    pub priority: String,
    /// Tickets of one client.
    pub client: Option<Uuid>,
    /// Tickets by who works on them.
    pub assignee: Option<Assignee>,
    /// Tickets by whether their alerts still fire.
    pub alerts: Option<Alerts>,
    /// Tickets about hosts of a site, and about the site itself.
    pub site: Option<SiteId>,
    /// Tickets about one host.
    pub host: Option<HostId>,
    /// Words of title, check, host, site, client and contract.
    pub words: Words,
}

impl TicketFilter {
    /// All open tickets.
    pub fn open() -> Self {
        Self {
            states: OPEN_STATES.to_vec(),
            ..Self::default()
        }
    }

    /// Along which index the archive is read.
    fn driver(&self) -> Driver {
        match (self.client, self.assignee, self.states.as_slice()) {
            _ if self.host.is_some() => Driver::Host,
            (Some(_), _, _) => Driver::Client,
            (_, Some(Assignee::Person(_)), _) => Driver::Assignee,
            (_, _, [_]) => Driver::State,
            _ => Driver::All,
        }
    }

    /// Every ticket of the driver is shown.
    fn is_exact(&self, driver: Driver) -> bool {
        let by_state = driver != Driver::State && self.states.len() < ALL_STATES;
        let by_assignee = driver != Driver::Assignee && self.assignee.is_some();
        let by_client = driver != Driver::Client && self.client.is_some();
        let by_rest = self.alerts.is_some() || self.site.is_some();
        let by_text = !self.priority.is_empty() || !self.words.is_empty();
        !by_state && !by_assignee && !by_client && !by_rest && !by_text
    }
}

/// The index along which the archive is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Driver {
    All,
    Host,
    Client,
    Assignee,
    State,
}

/// A part of the archive.
#[derive(Clone, Debug)]
pub struct Archive {
    /// Newest first.
    pub tickets: Vec<TicketView>,
    /// Older tickets were not searched: continue before this number.
    pub continue_before: Option<i64>,
}

/// How many tickets [`queue`] lists in all.
pub async fn queue_count(store: &Store, filter: &TicketFilter) -> Result<i64, StoreError> {
    Ok(on_read!(store, c => filtered!(query_scalar(QUEUE_COUNT), filter).fetch_one(c).await)?)
}

/// The work queue: open tickets after `(priority, number)`, most urgent and oldest first.
pub async fn queue(
    store: &Store,
    filter: &TicketFilter,
    after: (&str, i64),
    limit: usize,
) -> Result<Vec<TicketView>, StoreError> {
    Ok(on_read!(store, c => {
        filtered!(query_as(QUEUE), filter)
            .bind(after.0)
            .bind(after.1)
            .bind(limit as i64)
            .fetch_all(c)
            .await
    })?)
}

/// Tickets with a number below `before`, newest first. A filter that no index answers looks at
/// 10,000 tickets at a time.
pub async fn archive(
    store: &Store,
    filter: &TicketFilter,
    before: i64,
    limit: usize,
) -> Result<Archive, StoreError> {
    let driver = filter.driver();
    let floor = if filter.is_exact(driver) {
        None
    } else {
        floor(store, filter, driver, before).await?
    };
    let sql = match driver {
        Driver::All => ARCHIVE,
        Driver::Host => ARCHIVE_OF_HOST,
        Driver::Client => ARCHIVE_OF_CLIENT,
        Driver::Assignee => ARCHIVE_OF_ASSIGNEE,
        Driver::State => ARCHIVE_OF_STATE,
    };
    let tickets: Vec<TicketView> = on_read!(store, c => {
        filtered!(query_as(sql), filter)
            .bind(floor.unwrap_or(0))
            .bind(before)
            .bind(limit as i64)
            .fetch_all(c)
            .await
    })?;
    Ok(Archive {
        continue_before: floor
            .filter(|_| tickets.len() < limit)
            .map(|floor| floor + 1),
        tickets,
    })
}

/// The number above which [`SEARCHED`] tickets below `before` lie; `None` if there are fewer.
async fn floor(
    store: &Store,
    filter: &TicketFilter,
    driver: Driver,
    before: i64,
) -> Result<Option<i64>, StoreError> {
    let sql = match driver {
        Driver::All => FLOOR,
        Driver::Host => FLOOR_OF_HOST,
        Driver::Client => FLOOR_OF_CLIENT,
        Driver::Assignee => FLOOR_OF_ASSIGNEE,
        Driver::State => FLOOR_OF_STATE,
    };
    Ok(on_read!(store, c => {
        let query = query_scalar(sql).bind(before).bind(SEARCHED);
        match (driver, filter.assignee) {
            (Driver::All, _) => query,
            (Driver::Host, _) => query.bind(filter.host.map(HostId::uuid)),
            (Driver::Client, _) => query.bind(filter.client),
            (Driver::Assignee, Some(Assignee::Person(who))) => query.bind(who),
            (Driver::Assignee, _) => query.bind(Uuid::nil()),
            (Driver::State, _) => query.bind(filter.states.first().copied().unwrap_or_default()),
        }
        .fetch_optional(c)
        .await
    })?)
}

/// Seven states: those asked for, the last repeated.
fn padded(asked: &[&'static str]) -> [&'static str; 7] {
    let last = asked.last().copied().unwrap_or_default();
    std::array::from_fn(|i| asked.get(i).copied().unwrap_or(last))
}

/// Patterns that find each word anywhere, its own wildcards taken as letters; those that are left
/// over find everything.
fn patterns(words: &Words) -> [String; MAX_WORDS] {
    std::array::from_fn(|i| {
        let word = words.words().get(i).map_or("", String::as_str);
        let word = word
            .replace('!', "!!")
            .replace('%', "!%")
            .replace('_', "!_");
        format!("%{word}%")
    })
}
