//! Fills a store with the history of a large fleet, for measurements: the database makes the rows
//! itself, so that millions of them take minutes. The collector must have made the store, and must
//! not run.
//!
//! What depends on a row's number is spread by remainders of it: the same sizes give the same store.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, SqliteConnection,
    sqlite::SqliteConnectOptions,
};
use uuid::Uuid;
use watchkeep_core::series::{ChunkData, Names, Row, encode, row, to_hundredths};
use watchkeep_shared::{UnixMillis, metric};

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
/// Of row identifiers: `watchkeep_collector::ids`.
const EPOCH_MS: i64 = 1_735_689_600_000;
/// Bits of a row identifier below its milliseconds.
const ID_BITS: u32 = 21;
/// Newest heartbeats of each host that are not sealed yet, ten seconds apart.
const TAIL: i64 = 6;
/// Hosts with a long history of values; the others have the last hours alone.
const DEEP_HOSTS: i64 = 10;
const SHALLOW_HOURS: i64 = 6;
const METRICS: [&str; 8] = [
    "cpu.busy_pct",
    "cpu.iowait_pct",
    "load.1m",
    "mem.used_pct",
    "swap.used_pct",
    "disk.used_pct:/",
    "disk.used_pct:/srv",
    "net.rx_bytes_s:eth0",
];

/// How much is made.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Amount {
    /// Hosts, at 600 sites of 200 clients with a contract each.
    #[arg(long, default_value_t = 10_000)]
    pub hosts: i64,
    /// Tickets, one in a hundred open.
    #[arg(long, default_value_t = 500_000)]
    pub tickets: i64,
    /// Days of evidence.
    #[arg(long, default_value_t = 365)]
    pub days: i64,
}

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// Fills the store of a URL. Everything lies before `now`.
pub async fn seed(
    url: &str,
    amount: Amount,
    now: UnixMillis,
    tell: &mut dyn FnMut(&str),
) -> Result<()> {
    let mut database = Database::open(url).await?;
    let start = now.0 - amount.days * DAY_MS;
    tell("clients, sites, hosts");
    database.organisations(amount.hosts, start).await?;
    tell("evidence");
    database.evidence(amount, start).await?;
    tell("heartbeats and chunks");
    database.values(amount, now).await?;
    tell("tickets");
    database.tickets(amount, start, now).await?;
    tell("alerts, messages, events");
    database.around_tickets(amount, start, now).await?;
    tell("statistics");
    database.finish().await
}

/// The UUID of the row `n` of a table: 1 clients, 2 contracts, 3 sites, 4 hosts, 5 tickets.
pub fn id_of(table: u16, n: u64) -> Uuid {
    Uuid::from_u128(
        (0x0190 << 112)
            | (u128::from(table) << 96)
            | (0x7000 << 64)
            | (0x8000 << 48)
            | u128::from(n),
    )
}

/// A user who is signed in, for measurements of pages.
pub async fn sign_in(url: &str, token_sha256: &[u8], now: UnixMillis) -> Result<()> {
    let mut database = Database::open(url).await?;
    let user = database.id(9, "0");
    let token = database.bytes(&hex(token_sha256));
    database
        .run(&format!(
            "INSERT INTO app_user (id, login, name, password_hash, role, must_change, created_at) \
             VALUES ({user}, 'seed', 'Seed', '', 'admin', FALSE, {0})",
            now.0
        ))
        .await?;
    let expires = now.0 + DAY_MS;
    database
        .run(&format!(
            "INSERT INTO session (token_sha256, user_id, csrf, address, user_agent, created_at, \
             last_seen_at, expires_at) VALUES ({token}, {user}, 'x', '', '', {0}, {0}, {expires})",
            now.0
        ))
        .await
}

impl Database {
    async fn open(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let options = SqliteConnectOptions::new()
                .filename(path)
                // What breaks off is made anew.
                .pragma("synchronous", "OFF")
                .pragma("cache_size", "-400000")
                .busy_timeout(Duration::from_secs(20))
                .foreign_keys(false);
            return Ok(Self::Sqlite(options.connect().await?));
        }
        let mut connection = PgConnection::connect(url).await?;
        // No foreign keys, no triggers, no waiting for the disk.
        let sql = "SET session_replication_role = replica; SET synchronous_commit = off; \
                   SET maintenance_work_mem = '512MB'";
        sqlx::raw_sql(sql).execute(&mut connection).await?;
        Ok(Self::Postgres(connection))
    }

    async fn run(&mut self, sql: &str) -> Result<()> {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(connection) => statement.execute(connection).await.map(drop),
            Self::Postgres(connection) => statement.execute(connection).await.map(drop),
        }
        .with_context(|| format!("failed: {sql}"))
    }

    /// The UUID of the row `n` of a table, as SQL; its last byte is that of `n`.
    fn id(&self, table: u16, n: &str) -> String {
        match self {
            Self::Sqlite(_) => {
                format!("unhex('0190{table:04x}000070008000' || printf('%012x', {n}))")
            }
            Self::Postgres(_) => format!(
                "('0190{table:04x}000070008000' || lpad(to_hex(CAST({n} AS BIGINT)), 12, '0'))::uuid"
            ),
        }
    }

    fn bytes(&self, hex: &str) -> String {
        match self {
            Self::Sqlite(_) => format!("x'{hex}'"),
            Self::Postgres(_) => format!("'\\x{hex}'::bytea"),
        }
    }

    /// The numbers `0..count`, as a table `name` with the column `n`.
    fn numbers(&self, name: &str, count: i64) -> String {
        let last = count - 1;
        match self {
            Self::Sqlite(_) => format!(
                "(WITH RECURSIVE c (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM c WHERE n < {last}) \
                 SELECT n FROM c) AS {name}"
            ),
            Self::Postgres(_) => {
                format!(
                    "(SELECT n::bigint AS n FROM generate_series(0, {last}) AS c (n)) AS {name}"
                )
            }
        }
    }

    async fn organisations(&mut self, hosts: i64, start: i64) -> Result<()> {
        let client = self.id(1, "n % 200");
        let contract = self.id(2, "n % 200");
        let numbers = self.numbers("g", 200);
        self.run(&format!(
            "INSERT INTO client (id, name, created_at) SELECT {client}, 'Client ' || n, {start} FROM {numbers}"
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO contract (id, client_id, name, kind, zone, service_hours, unknown_rule, \
             target_pct, created_at) SELECT {contract}, {client}, 'Contract ' || n, 'managed', \
             'Europe/Oslo', '24x7', 'exclude', 99.5, {start} FROM {numbers}"
        ))
        .await?;
        let (site, numbers) = (self.id(3, "n % 600"), self.numbers("g", 600));
        self.run(&format!(
            "INSERT INTO site (id, client_id, contract_id, name, created_at) \
             SELECT {site}, {client}, {contract}, 'Site ' || n, {start} FROM {numbers}"
        ))
        .await?;
        let (host, numbers) = (self.id(4, "n"), self.numbers("g", hosts));
        self.run(&format!(
            "INSERT INTO host (id, client_id, site_id, contract_id, part, name, agent_version, \
             enrolled_at) SELECT {host}, {client}, {site}, {contract}, n % 64, 'srv-' || n, '0.1.0', \
             {start} FROM {numbers}"
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO certificate (serial, host_id, not_before, not_after) \
             SELECT 'seed' || n, {host}, {start}, {start} + 40000000000 FROM {numbers}"
        ))
        .await
    }

    /// A chain of frames a host and day, after the enrolment.
    async fn evidence(&mut self, amount: Amount, start: i64) -> Result<()> {
        let host = self.id(4, "h.n");
        let (hosts, days) = (
            self.numbers("h", amount.hosts),
            self.numbers("d", amount.days),
        );
        let id = row_id(&format!("({start} + d.n * {DAY_MS})"), "h.n % 1000000");
        let (boot, from) = (
            "0190aaaa-0000-7000-8000-000000000001",
            format!("({start} + d.n * {DAY_MS})"),
        );
        self.run(&format!(
            "INSERT INTO evidence (id, host_id, kind, detail, valid_from, valid_to, recorded_at) \
             SELECT {id}, {host}, 'enrolled', '{{\"kind\":\"enrolled\"}}', {from}, {from}, {from} \
             FROM {hosts}, (SELECT 0 AS n) AS d"
        ))
        .await?;
        let id = row_id(&from, "h.n % 1000000 + 1000000");
        self.run(&format!(
            "INSERT INTO evidence (id, host_id, kind, detail, valid_from, valid_to, recorded_at) \
             SELECT {id}, {host}, 'frames', '{{\"kind\":\"frames\",\"boot\":\"{boot}\",\"instance\":\"{boot}\",\
             \"seq_from\":' || (d.n * 8640) || ',\"seq_to\":' || (d.n * 8640 + 8639) || \
             ',\"late\":false,\"max_step_ms\":25000}}', {from}, {from} + 86390000, {from} + 86390000 \
             FROM {days}, {hosts}"
        ))
        .await
    }

    async fn values(&mut self, amount: Amount, now: UnixMillis) -> Result<()> {
        let schema = metric::schema_id(&METRICS);
        let names: Vec<String> = METRICS.iter().map(|name| format!("\"{name}\"")).collect();
        let names = names.join(",");
        let now = now.0;
        self.run(&format!(
            "INSERT INTO metric_schema (id, names, created_at) VALUES ({0}, '[{names}]', {now})",
            schema.0
        ))
        .await?;
        let (host, hosts) = (self.id(4, "h.n"), self.numbers("h", amount.hosts));
        self.run(&format!(
            "INSERT INTO host_schema (host_id, schema_id, since) \
             SELECT {host}, {0}, {now} FROM {hosts}",
            schema.0
        ))
        .await?;
        let (boot, beats) = (self.id(8, "1"), self.numbers("b", TAIL));
        let at = format!("({now} - ({TAIL} - b.n) * 10000)");
        let values = values_at(7);
        let vals = self.bytes(&hex(&row::encode(&values)));
        let id = |b: &str| {
            row_id(
                &format!("({now} - ({TAIL} - {b}) * 10000)"),
                "h.n % 1000000 + 1",
            )
        };
        self.run(&format!(
            "INSERT INTO heartbeat (id, prev_id, host_id, boot, instance, seq, at, recorded_at, \
             mono_ms, boot_ms, interval_ms, late, schema_id, vals, part) SELECT {0}, \
             CASE WHEN b.n = 0 THEN 0 ELSE {1} END, {host}, {boot}, {boot}, 10000000 + b.n, {at}, {at}, \
             1000000 + b.n * 10000, 1000000 + b.n * 10000, 10000, FALSE, {2}, {vals}, h.n % 64 \
             FROM {beats}, {hosts}",
            id("b.n"),
            id("(b.n - 1)"),
            schema.0,
        ))
        .await?;
        self.chunks(amount, now).await
    }

    async fn chunks(&mut self, amount: Amount, now: i64) -> Result<()> {
        let (client, host) = (self.id(1, "h.n % 200"), self.id(4, "h.n"));
        let hour = now - now % HOUR_MS;
        let body = self.bytes(&hex(&chunk(UnixMillis(hour))?));
        let shallow = (self.numbers("h", amount.hosts), SHALLOW_HOURS, 0);
        let deep_hours = (amount.days.min(30) * 24 - SHALLOW_HOURS).max(1);
        let deep = (
            self.numbers("h", DEEP_HOSTS.min(amount.hosts)),
            deep_hours,
            SHALLOW_HOURS,
        );
        for (hosts, hours, before) in [shallow, deep] {
            let numbers = self.numbers("b", hours);
            self.run(&format!(
                "INSERT INTO chunk (client_id, host_id, hour, body) SELECT {client}, {host}, \
                 {hour} - (b.n + 1 + {before}) * {HOUR_MS}, {body} FROM {hosts}, {numbers}"
            ))
            .await?;
        }
        Ok(())
    }

    async fn tickets(&mut self, amount: Amount, start: i64, now: UnixMillis) -> Result<()> {
        let numbers = self.numbers("g", amount.tickets);
        let host_number = format!("(n * 7919 % {})", amount.hosts);
        let at = opening(amount, start, now.0);
        let ticket = self.id(5, "n");
        let host = self.id(4, &host_number);
        let client = self.id(1, &format!("{host_number} % 200"));
        let contract = self.id(2, &format!("{host_number} % 200"));
        let is_open = is_open(amount);
        self.run(&format!(
            "INSERT INTO ticket (id, number, client_id, contract_id, host_id, check_key, dedup_key, \
             title, priority, severity, state, tier, touched_by_human, opened_at, episode_at, \
             acknowledged_at, first_response_at, resolved_at, updated_at, search, alert_priority, \
             firing, firing_priority, over_at) SELECT {ticket}, 1001 + n, {client}, {contract}, {host}, \
             'disk:/data' || n % 50, 'seed ' || n, 'Disk /data' || n % 50 || ' is 95 % full', \
             'P' || (1 + n % 4), 'warning', \
             CASE WHEN {is_open} THEN (CASE n % 3 WHEN 0 THEN 'new' ELSE 'open' END) \
             WHEN n % 10 = 0 THEN 'resolved' ELSE 'closed' END, 1, FALSE, {at}, {at}, \
             CASE WHEN n % 3 > 0 THEN {at} + 300000 END, CASE WHEN n % 3 > 0 THEN {at} + 300000 END, \
             CASE WHEN {is_open} THEN NULL ELSE {at} + 3600000 END, {at} + 3600000, \
             'disk /data' || n % 50 || ' is 95 % full srv-' || {host_number} || ' client ' || {host_number} % 200, \
             'P' || (1 + n % 4), CASE WHEN {is_open} THEN 1 ELSE 0 END, \
             CASE WHEN {is_open} THEN 'P' || (1 + n % 4) END, \
             CASE WHEN {is_open} THEN NULL ELSE {at} + 3600000 END FROM {numbers}"
        ))
        .await?;
        self.run(&format!(
            "UPDATE counter SET value = {} WHERE name = 'ticket'",
            1_001 + amount.tickets
        ))
        .await
    }

    /// What belongs to each ticket: an alert, two lines, a message that was sent.
    async fn around_tickets(&mut self, amount: Amount, start: i64, now: UnixMillis) -> Result<()> {
        let numbers = self.numbers("g", amount.tickets);
        let at = opening(amount, start, now.0);
        let is_open = is_open(amount);
        let (ticket, alert) = (self.id(5, "n"), self.id(6, "n"));
        let host = self.id(4, &format!("(n * 7919 % {})", amount.hosts));
        self.run(&format!(
            "INSERT INTO alert (id, host_id, rule_id, check_key, severity, priority, summary, evidence, \
             raised_at, recorded_at, cleared_at, clear_reason, ticket_id) SELECT {alert}, {host}, \
             'disk-full', 'disk:/data' || n % 50, 'warning', 'P' || (1 + n % 4), 'Disk is 95 % full', \
             '{{\"value\":95.0,\"threshold\":90.0}}', {at}, {at}, \
             CASE WHEN {is_open} THEN NULL ELSE {at} + 3600000 END, \
             CASE WHEN {is_open} THEN NULL ELSE 'recovered' END, {ticket} FROM {numbers}"
        ))
        .await?;
        for (line, kind, detail) in [
            (1, "opened", "{\"kind\":\"opened\"}"),
            (2, "acknowledged", "{\"kind\":\"acknowledged\"}"),
        ] {
            let id = row_id(&at, &format!("n % 500000 * 4 + {line}"));
            self.run(&format!(
                "INSERT INTO ticket_event (id, ticket_id, at, actor, kind, detail) SELECT {id}, \
                 {ticket}, {at}, '{{\"actor\":\"system\"}}', '{kind}', '{detail}' FROM {numbers}"
            ))
            .await?;
        }
        let id = row_id(&at, "n % 500000 * 4 + 3");
        self.run(&format!(
            "INSERT INTO outbox (id, message_id, ticket_id, channel, recipient, tier, kind, payload, \
             state, attempts, next_at, lease_until, created_at, done_at, handed_over_at, reported_at) \
             SELECT {id}, {id}, {ticket}, 'mail', 'oncall@example.org', 1, 'page', '{{}}', \
             CASE WHEN n % 1000 = 0 THEN 'dead' ELSE 'sent' END, 1, {at}, 0, {at}, {at}, {at}, {at} \
             FROM {numbers}"
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO outbox_attempt (id, outbox_id, at) SELECT {id}, {id}, {at} FROM {numbers}"
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO audit_log (id, at, actor, action, subject, detail) SELECT {id}, {at}, \
             'ada', 'ticket.acknowledge', '#' || n, '' FROM {numbers} WHERE n % 3 = 0"
        ))
        .await?;
        self.run(&format!(
            "INSERT INTO host_event (id, host_id, kind, detail, at, recorded_at) SELECT {id}, {host}, \
             CASE n % 2 WHEN 0 THEN 'processes' ELSE 'service' END, '{{}}', {at}, {at} FROM {numbers}"
        ))
        .await
    }

    /// As `ANALYZE` runs by itself on PostgreSQL, and never on SQLite.
    async fn finish(&mut self) -> Result<()> {
        match self {
            Self::Sqlite(_) => self.run("PRAGMA wal_checkpoint(TRUNCATE)").await,
            Self::Postgres(_) => self.run("VACUUM ANALYZE").await,
        }
    }
}

/// One ticket in a hundred is open: the newest ones, and some that are old.
fn is_open(amount: Amount) -> String {
    format!(
        "(n % 200 = 0 OR n >= {})",
        amount.tickets - amount.tickets / 200
    )
}

/// Tickets are spread evenly over the time.
fn opening(amount: Amount, start: i64, now: i64) -> String {
    let step = (now - start) / amount.tickets.max(1);
    format!("({start} + n * {step})")
}

/// The identifier of the row `n` that was recorded at `at`, both as SQL.
fn row_id(at: &str, n: &str) -> String {
    format!("((({at} - {EPOCH_MS}) << {ID_BITS}) + {n})")
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

fn values_at(beat: usize) -> Vec<Option<f64>> {
    let values = METRICS.iter().enumerate();
    values
        .map(|(i, _)| Some(((beat * 37 + i * 911) % 1_000) as f64 / 10.0))
        .collect()
}

/// An hour of heartbeats.
fn chunk(hour: UnixMillis) -> Result<Vec<u8>> {
    let schema = metric::schema_id(&METRICS);
    let names: Names = METRICS.iter().map(|name| (*name).into()).collect();
    let mut data = ChunkData::from_rows((0..360).map(|beat| {
        Row {
            at: UnixMillis(hour.0 + beat * 10_000),
            schema,
            values: values_at(beat as usize)
                .into_iter()
                .map(to_hundredths)
                .collect(),
        }
    }));
    data.add_names(&|_| Some(names.clone()));
    Ok(encode(&data)?)
}
