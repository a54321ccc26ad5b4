//! Both databases end with the same tables and columns; an older program leaves a newer store alone.

use sqlx::{Connection as _, PgConnection, SqliteConnection};
use watchkeep_collector::store::{SCHEMA_VERSION, Store, StoreError};

use crate::support::{Bench, Kind, both, run};

both!(a_newer_store_is_refused);

#[test]
fn both_databases_have_the_same_tables_and_columns() {
    run(Kind::Sqlite, |sqlite| async move {
        // The whole bench, or its directory would go.
        let sqlite = sqlite;
        let path = sqlite.url.strip_prefix("sqlite:").unwrap().to_owned();
        let mut connection = SqliteConnection::connect(&path).await.unwrap();
        let sql = "SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c \
                   WHERE m.type = 'table' AND m.name NOT LIKE '\\_%' ESCAPE '\\' \
                   AND m.name NOT LIKE 'sqlite%' ORDER BY 1";
        let rows: Vec<(String,)> = sqlx::query_as(sql)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        let of_sqlite: Vec<String> = rows.into_iter().map(|(name,)| name).collect();
        assert!(of_sqlite.len() > 100, "{} columns", of_sqlite.len());
        tokio::task::spawn_blocking(move || {
            run(Kind::Postgres, |postgres| async move {
                let postgres = postgres;
                let mut connection = PgConnection::connect(&postgres.url).await.unwrap();
                let sql = "SELECT table_name || '.' || column_name FROM information_schema.columns \
                           WHERE table_schema = 'public' AND table_name NOT LIKE '\\_%'";
                let rows: Vec<(String,)> = sqlx::query_as(sql)
                    .fetch_all(&mut connection)
                    .await
                    .unwrap();
                let mut names: Vec<String> = rows.into_iter().map(|(name,)| name).collect();
                names.sort_unstable();
                assert_eq!(names, of_sqlite);
            });
        })
        .await
        .unwrap();
    });
}

async fn a_newer_store_is_refused(bench: Bench) {
    let version = SCHEMA_VERSION + 1;
    let sql = "INSERT INTO _sqlx_migrations \
               (version, description, success, checksum, execution_time) \
               VALUES ($1, 'of tomorrow', TRUE, $2, 0)";
    let checksum: &[u8] = &[1];
    if let Some(path) = bench.url.strip_prefix("sqlite:") {
        let mut connection = SqliteConnection::connect(path).await.unwrap();
        sqlx::query(sql)
            .bind(version)
            .bind(checksum)
            .execute(&mut connection)
            .await
            .unwrap();
    } else {
        let mut connection = PgConnection::connect(&bench.url).await.unwrap();
        sqlx::query(sql)
            .bind(version)
            .bind(checksum)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    let error = Store::open(&bench.url.parse().unwrap()).await.unwrap_err();
    assert!(
        matches!(error, StoreError::Newer { found, known } if found == version && known == SCHEMA_VERSION),
        "{error}"
    );
}
