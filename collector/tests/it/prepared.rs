//! Both databases understand every statement of the store: its tables, columns and functions, also of
//! statements that no other test runs.

use sqlx::{
    AssertSqlSafe, Connection as _, Executor as _, PgConnection, SqlSafeStr as _, SqliteConnection,
};
use watchkeep_collector::store::statements;

use crate::support::{Bench, both};

both!(every_statement_can_be_prepared);

enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Database {
    async fn connect(url: &str) -> Self {
        match url.strip_prefix("sqlite:") {
            Some(path) => Self::Sqlite(SqliteConnection::connect(path).await.unwrap()),
            None => Self::Postgres(PgConnection::connect(url).await.unwrap()),
        }
    }

    async fn prepare(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned()).into_sql_str();
        match self {
            Self::Sqlite(connection) => connection.prepare(sql).await.map(drop),
            Self::Postgres(connection) => connection.prepare(sql).await.map(drop),
        }
    }
}

async fn every_statement_can_be_prepared(bench: Bench) {
    let mut database = Database::connect(&bench.url).await;
    let is_sqlite = matches!(database, Database::Sqlite(_));
    let mut wrong = Vec::new();
    let mut count = 0;
    for one in statements::all() {
        if is_sqlite && !one.is_for_sqlite() {
            continue;
        }
        count += 1;
        if let Err(error) = database.prepare(&one.sql).await {
            wrong.push(format!("{} {}: {error}", one.module, one.name));
        }
    }
    assert!(count > 150, "only {count} statements");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Preparing does look at the schema.
    for sql in ["SELECT id FROM nowhere", "SELECT nothing FROM ticket"] {
        assert!(database.prepare(sql).await.is_err(), "{sql}");
    }
}
