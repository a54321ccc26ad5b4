//! Both databases end with the same tables and columns; an older program leaves a newer store alone.

use std::{collections::BTreeSet, fs, path::Path};

use sqlx::{Connection as _, PgConnection, SqliteConnection};
use watchkeep_collector::store::{SCHEMA_VERSION, Store, StoreError, statements};

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

/// Every statement that is declared in the store's source is in its list, so that tests see it.
#[test]
fn every_statement_is_listed() {
    let listed: BTreeSet<String> = statements::all()
        .into_iter()
        .map(|one| format!("{}.rs {}", one.module, one.name))
        .collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
    let mut declared = BTreeSet::new();
    for folder in ["", "views/", "views/tickets/"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "rs") {
                continue;
            }
            let file = path.strip_prefix(&root).unwrap().display().to_string();
            for name in declared_in(&fs::read_to_string(&path).unwrap()) {
                declared.insert(format!("{file} {name}"));
            }
        }
    }
    assert!(declared.len() > 150, "{declared:?}");
    let missing: Vec<&String> = declared.difference(&listed).collect();
    assert!(missing.is_empty(), "not in `statements!`: {missing:?}");
}

/// Names of constants whose text is SQL.
fn declared_in(source: &str) -> Vec<&str> {
    let constants = source.split("const ").skip(1);
    constants
        .filter_map(|constant| {
            let (name, text) = constant.split_once(": &str =")?;
            let text = text.split(";\n").next()?;
            let is_name = name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
            let verbs = ["SELECT ", "INSERT ", "UPDATE ", "DELETE ", "!("];
            (is_name && verbs.iter().any(|verb| text.contains(verb))).then_some(name)
        })
        .collect()
}
