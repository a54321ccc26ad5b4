//! No statement reads a large table from end to end. Each one's plan is looked at on both databases;
//! what may read a whole table is listed below, with the reason.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};
use watchkeep_collector::store::statements::{self, Statement};

use crate::support::{Bench, Kind, run};

/// Tables that grow with hosts or with time.
const LARGE: [&str; 16] = [
    "alert",
    "audit_log",
    "certificate",
    "chunk",
    "evidence",
    "heartbeat",
    "host",
    "host_event",
    "host_schema",
    "host_state",
    "host_watch",
    "metric_schema",
    "outbox",
    "outbox_attempt",
    "ticket",
    "ticket_event",
];

/// Statements that may read a whole table.
const ALLOWED: [(&str, &str); 9] = [
    (
        "fleet HOSTS",
        "at the start, when the sealer has an hour to seal, and on the command line",
    ),
    ("heartbeats HOST_SCHEMAS", "at the start"),
    (
        "heartbeats NEWEST",
        "stops after one row, in the order of the key",
    ),
    ("heartbeats SCHEMAS", "at the start"),
    ("heartbeats STATES", "at the start, and on the command line"),
    (
        "identity NEWEST",
        "on the command line, while the CA is replaced",
    ),
    (
        "people AUDIT_LOG",
        "stops after its limit, in the order of the key",
    ),
    (
        "policy WATCHED",
        "when people changed what hosts are asked for",
    ),
    (
        "views HOSTS",
        "when a client, contract, site or host changed",
    ),
];

/// Parameters whose types PostgreSQL can't infer; the program sends them.
const TYPES: [(&str, &str); 2] = [
    ("tickets POSTPONE", "uuid, bigint"),
    ("tickets SET_FIRING", "uuid, integer, text"),
];

/// Rows of each large table on PostgreSQL, whose plans depend on them.
const ROWS: u32 = 5_000;

/// Columns whose values decide plans: most tickets are closed, most alerts cleared, most messages
/// sent. The other columns that may be NULL mostly are.
const SPREAD: [(&str, &str); 14] = [
    (
        "ticket.state",
        "CASE WHEN g % 100 = 0 THEN 'open' ELSE 'closed' END",
    ),
    ("ticket.priority", "'P' || (1 + g % 4)"),
    ("ticket.host_id", "gen_random_uuid()"),
    ("ticket.contract_id", "gen_random_uuid()"),
    ("ticket.check_key", "'disk:/' || g % 9"),
    ("ticket.dedup_key", "'key' || g"),
    ("alert.cleared_at", "CASE WHEN g % 100 > 0 THEN g END"),
    ("alert.ticket_id", "gen_random_uuid()"),
    (
        "evidence.host_id",
        "CASE WHEN g % 1000 > 0 THEN gen_random_uuid() END",
    ),
    (
        "outbox.state",
        "CASE g % 100 WHEN 0 THEN 'pending' WHEN 1 THEN 'dead' ELSE 'sent' END",
    ),
    (
        "outbox.kind",
        "CASE WHEN g % 2 = 0 THEN 'page' ELSE 'notice' END",
    ),
    ("outbox.ticket_id", "gen_random_uuid()"),
    ("outbox.message_id", "g"),
    ("host.contract_id", "gen_random_uuid()"),
];

#[test]
fn no_statement_scans_a_large_table() {
    let found = Mutex::new(BTreeMap::new());
    run(Kind::Sqlite, async |bench: Bench| {
        let path = bench.url.strip_prefix("sqlite:").unwrap();
        let mut connection = SqliteConnection::connect(path).await.unwrap();
        for statement in statements::all() {
            if statement.is_for_sqlite() {
                note(
                    &found,
                    &statement,
                    on_sqlite(&mut connection, &statement).await,
                );
            }
        }
    });
    run(Kind::Postgres, async |bench: Bench| {
        let mut connection = PgConnection::connect(&bench.url).await.unwrap();
        fill(&mut connection).await;
        for statement in statements::all() {
            note(
                &found,
                &statement,
                on_postgres(&mut connection, &statement).await,
            );
        }
    });
    let found = found.into_inner().unwrap();
    let allowed: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    let bad: Vec<String> = found
        .iter()
        .filter(|(name, _)| !allowed.contains(name.as_str()))
        .map(|(name, scans)| format!("{name}: {}", scans.join("; ")))
        .collect();
    assert!(
        bad.is_empty(),
        "{} statements scan:\n{}",
        bad.len(),
        bad.join("\n")
    );
    let unneeded: Vec<_> = allowed
        .iter()
        .filter(|name| !found.contains_key(**name))
        .collect();
    assert!(
        unneeded.is_empty(),
        "allowed, but do not scan: {unneeded:?}"
    );
}

fn note(found: &Mutex<BTreeMap<String, Vec<String>>>, statement: &Statement, scans: Vec<String>) {
    if !scans.is_empty() {
        let name = format!("{} {}", statement.module, statement.name);
        found.lock().unwrap().entry(name).or_default().extend(scans);
    }
}

async fn on_sqlite(connection: &mut SqliteConnection, statement: &Statement) -> Vec<String> {
    let partial: Vec<(String,)> = sqlx::query_as(
        "SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let names = aliases(&statement.sql);
    let sql = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {}", statement.sql));
    let rows = sqlx::query(sql).fetch_all(&mut *connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("{statement:?}: {error}"));
    let steps = rows.iter().map(|row| row.get::<String, _>(3));
    steps
        .filter(|step| {
            let Some(rest) = step.strip_prefix("SCAN ") else {
                return false;
            };
            let table = rest.split(' ').next().unwrap_or_default();
            let is_partial = partial.iter().any(|(name,)| rest.ends_with(name.as_str()));
            names.contains(table) && !is_partial
        })
        .map(|step| format!("SQLite: {step}"))
        .collect()
}

/// The names by which a statement calls large tables.
fn aliases(sql: &str) -> BTreeSet<String> {
    let words: Vec<&str> = sql
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .collect();
    let mut names = BTreeSet::new();
    for (i, word) in words.iter().enumerate() {
        if LARGE.contains(word) {
            names.insert((*word).to_owned());
            let next = words[i + 1..].iter().find(|word| **word != "AS");
            names.extend(
                next.filter(|next| !LARGE.contains(*next))
                    .map(|next| (*next).to_owned()),
            );
        }
    }
    names
}

/// Puts rows into the large tables, so that the planner sees that they are large.
async fn fill(connection: &mut PgConnection) {
    let spread: BTreeMap<&str, &str> = SPREAD.into_iter().collect();
    // No foreign keys, no triggers.
    execute(connection, "SET session_replication_role = replica").await;
    for table in LARGE {
        let columns: Vec<(String, String, String)> = sqlx::query_as(
            "SELECT column_name::text, data_type::text, is_nullable::text \
             FROM information_schema.columns WHERE table_schema = 'public' AND table_name = $1",
        )
        .bind(table)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let values = columns.iter().map(|(name, kind, nullable)| {
            let value = match kind.as_str() {
                "uuid" => "gen_random_uuid()",
                "text" => "'text ' || g",
                "boolean" => "FALSE",
                "bytea" => "'\\x00'::bytea",
                "integer" => "g % 64",
                _ => "g",
            };
            match spread.get(format!("{table}.{name}").as_str()) {
                Some(value) => (*value).to_owned(),
                None if nullable == "YES" => format!("CASE WHEN g % 100 = 0 THEN {value} END"),
                None => value.to_owned(),
            }
        });
        let values: Vec<String> = values.collect();
        let names: Vec<&str> = columns.iter().map(|(name, _, _)| name.as_str()).collect();
        let sql = format!(
            "INSERT INTO {table} ({}) SELECT {} FROM generate_series(1, {ROWS}) AS g",
            names.join(", "),
            values.join(", ")
        );
        execute(connection, &sql).await;
    }
    execute(connection, "ANALYZE").await;
    // Whoever can use an index does; a plan must be good for any value.
    execute(connection, "SET enable_seqscan = off").await;
    execute(connection, "SET enable_bitmapscan = off").await;
    execute(connection, "SET plan_cache_mode = force_generic_plan").await;
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    let result = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(connection)
        .await;
    result.unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn on_postgres(connection: &mut PgConnection, statement: &Statement) -> Vec<String> {
    let partial: Vec<(String,)> = sqlx::query_as(
        "SELECT indexname::text FROM pg_indexes WHERE schemaname = 'public' \
         AND indexdef LIKE '% WHERE %'",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let name = format!("{} {}", statement.module, statement.name);
    let typed = TYPES.iter().find(|(typed, _)| *typed == name);
    let types = typed.map_or_else(String::new, |(_, types)| format!("({types})"));
    let prepare = format!("PREPARE one {types} AS {}", statement.sql);
    if let Err(error) = sqlx::raw_sql(AssertSqlSafe(prepare))
        .execute(&mut *connection)
        .await
    {
        return vec![format!("PostgreSQL: {error}")];
    }
    let parameters = (1..100)
        .take_while(|n| mentions(&statement.sql, *n))
        .count();
    let nulls = vec!["NULL"; parameters].join(", ");
    let arguments = if parameters == 0 {
        String::new()
    } else {
        format!("({nulls})")
    };
    let sql = format!("EXPLAIN (FORMAT JSON) EXECUTE one{arguments}");
    let row = sqlx::raw_sql(AssertSqlSafe(sql))
        .fetch_one(&mut *connection)
        .await;
    let row = row.unwrap_or_else(|error| panic!("{statement:?}: {error}"));
    let plan: Value = serde_json::from_str(row.try_get_raw(0).unwrap().as_str().unwrap()).unwrap();
    execute(connection, "DEALLOCATE one").await;
    let mut scans = Vec::new();
    walk(&plan[0]["Plan"], &partial, &mut scans);
    scans
}

fn mentions(sql: &str, parameter: usize) -> bool {
    let name = format!("${parameter}");
    let mut found = sql.match_indices(&name);
    found.any(|(at, _)| !sql[at + name.len()..].starts_with(|c: char| c.is_ascii_digit()))
}

fn walk(node: &Value, partial: &[(String,)], scans: &mut Vec<String>) {
    let text = |name: &str| node[name].as_str().unwrap_or_default();
    let (kind, table, index) = (text("Node Type"), text("Relation Name"), text("Index Name"));
    let is_bounded = kind.starts_with("Index")
        && (!text("Index Cond").is_empty() || partial.iter().any(|(name,)| name == index));
    if kind.ends_with("Scan") && LARGE.contains(&table) && !is_bounded {
        scans.push(format!("PostgreSQL: {kind} on {table} {index}"));
    }
    for child in node["Plans"].as_array().into_iter().flatten() {
        walk(child, partial, scans);
    }
}
