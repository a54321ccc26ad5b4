//! A fresh store a test, on either database.

use std::{future::Future, sync::Arc};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;
use tokio::sync::oneshot;
use uuid::Uuid;
use watchkeep_collector::{
    app::App,
    clock::Clock,
    config::Config,
    identity::NewToken,
    ids::RowIds,
    ingest::{Arrival, NotTaken},
    live::Live,
    notify::Delivery,
    policies::Policies,
    process::Process,
    store::{Store, fleet},
};
use watchkeep_core::{
    authority::HostTrust,
    evidence::FrameMark,
    ids::{ClientId, ContractId, SiteId},
};
use watchkeep_shared::{
    BootId, DurationMs, HostId, InstanceId, UnixMillis,
    wire::heartbeat::{Ack, Batch},
};

/// Names the server on which tests make their databases.
const POSTGRES_ENV: &str = "WATCHKEEP_TEST_POSTGRES";
/// When these tests happen: an hour begins.
pub(crate) const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Which database.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A collector's shared parts over a fresh store.
pub(crate) struct Bench {
    pub(crate) app: App,
    /// For tests that open the same store again.
    pub(crate) url: String,
    /// The clock's hand.
    pub(crate) clock: Clock,
    _dir: TempDir,
}

/// Makes two tests of one story.
macro_rules! both {
    ($($name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[test]
            fn $name() {
                crate::support::run(crate::support::Kind::Sqlite, super::$name);
            })+
        }
        mod postgres {
            $(#[test]
            fn $name() {
                crate::support::run(crate::support::Kind::Postgres, super::$name);
            })+
        }
    };
}
pub(crate) use both;

/// Runs a story on a fresh store of a kind, and drops the store after it.
pub(crate) fn run<F: Future<Output = ()>>(kind: Kind, story: impl FnOnce(Bench) -> F) {
    run_with(kind, "", story);
}

/// The same with more settings.
pub(crate) fn run_with<F: Future<Output = ()>>(
    kind: Kind,
    settings: &str,
    story: impl FnOnce(Bench) -> F,
) {
    run_upgraded(kind, settings, async |_: &str| {}, story);
}

/// The same on a store that something was done to before this program opens it.
pub(crate) fn run_upgraded<F: Future<Output = ()>>(
    kind: Kind,
    settings: &str,
    before: impl AsyncFnOnce(&str),
    story: impl FnOnce(Bench) -> F,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let (url, database) = match kind {
            Kind::Sqlite => (
                format!("sqlite:{}", dir.path().join("test.db").display()),
                None,
            ),
            Kind::Postgres => {
                let (url, database) = create_database().await;
                (url, Some(database))
            }
        };
        before(&url).await;
        let bench = bench(dir, url, settings).await;
        let store = bench.app.store.clone();
        story(bench).await;
        store.close().await;
        if let Some(database) = database {
            drop_database(&database).await;
        }
    });
}

async fn bench(dir: TempDir, url: String, settings: &str) -> Bench {
    let text = format!(
        "data_dir = \"{}\"\n[store]\nurl = \"{url}\"\n{settings}",
        dir.path().display()
    );
    let config = Config::parse("test", &text, []).unwrap();
    let clock = Clock::manual(NOW);
    let app = App {
        store: Store::open(&config.store).await.unwrap(),
        clock: clock.clone(),
        live: Arc::new(Live::default()),
        policies: Arc::new(Policies::new(config.policy.clone())),
        delivery: Arc::new(Delivery::default()),
        history: Arc::default(),
        ids: Arc::new(RowIds::new(1)),
        config: Arc::new(config),
        process: Process::new(),
    };
    Bench {
        app,
        url,
        clock,
        _dir: dir,
    }
}

fn server() -> String {
    std::env::var(POSTGRES_ENV).unwrap_or_else(|_| {
        panic!(
            "{POSTGRES_ENV} is not set: give the URL of a PostgreSQL server on which databases may \
             be made, as in postgres://postgres@127.0.0.1:5432/postgres, or run tests/run.sh"
        )
    })
}

async fn create_database() -> (String, String) {
    let server = server();
    let name = format!("wk_{}", Uuid::new_v4().simple());
    let mut connection = PgConnection::connect(&server).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut connection)
        .await
        .unwrap();
    let (base, _) = server.rsplit_once('/').unwrap();
    (format!("{base}/{name}"), name)
}

async fn drop_database(name: &str) {
    let mut connection = PgConnection::connect(&server()).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("DROP DATABASE {name} WITH (FORCE)")))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Runs SQL on a store, beside the program.
pub(crate) async fn execute(url: &str, sql: &str) {
    let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
    if let Some(path) = url.strip_prefix("sqlite:") {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        sql.execute(&mut connection).await.unwrap();
    } else {
        let mut connection = PgConnection::connect(url).await.unwrap();
        sql.execute(&mut connection).await.unwrap();
    }
}

/// Bytes as a literal of the store's SQL.
pub(crate) fn bytes_literal(url: &str, bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    let hex: String = digits
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect();
    if url.starts_with("sqlite:") {
        format!("x'{hex}'")
    } else {
        format!("'\\x{hex}'::bytea")
    }
}

/// A UUID as a literal of the store's SQL.
pub(crate) fn uuid_literal(url: &str, id: Uuid) -> String {
    if url.starts_with("sqlite:") {
        bytes_literal(url, id.as_bytes())
    } else {
        format!("'{id}'::uuid")
    }
}

/// A client with a contract, a site and one host.
pub(crate) struct Place {
    pub(crate) client: ClientId,
    pub(crate) contract: ContractId,
    pub(crate) host: HostId,
}

/// Makes a [`Place`].
pub(crate) async fn place(app: &App) -> Place {
    let mut tx = app.store.begin().await.unwrap();
    let client = fleet::ensure_client(&mut tx, "Bakery", NOW).await.unwrap();
    let contract = fleet::NewContract {
        client,
        name: "Bakery servers".to_owned(),
        kind: "managed".to_owned(),
        zone: "Europe/Paris".to_owned(),
        unknown_rule: "exclude".to_owned(),
        target_pct: 99.5,
        paging: None,
    };
    fleet::put_contract(&mut tx, &contract, NOW).await.unwrap();
    let contract = ContractId(fleet::contracts_in(&mut tx).await.unwrap()[0].id);
    fleet::put_site(&mut tx, client, Some(contract), "Oven", NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let site = fleet::sites(&app.store).await.unwrap()[0].id.into();
    let host = HostId(Uuid::new_v4());
    let mut tx = app.store.begin().await.unwrap();
    let new = fleet::NewHost {
        id: host,
        site,
        name: "web1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        enrolled_at: NOW,
    };
    fleet::insert_host(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    Place {
        client,
        contract,
        host,
    }
}

/// A mark of frame `seq` made and received at `at`.
pub(crate) fn mark(seq: u64, at: UnixMillis) -> FrameMark {
    FrameMark {
        boot: BootId(Uuid::from_u128(7)),
        instance: InstanceId(Uuid::from_u128(8)),
        seq,
        at,
        arrived_at: at,
        mono_ms: at.0 - NOW.0 + 1_000_000,
        boot_ms: at.0 - NOW.0 + 1_000_000,
    }
}

/// A token for one machine.
pub(crate) fn token_for(site: SiteId, valid_for: DurationMs) -> NewToken<'static> {
    NewToken {
        site,
        uses: 1,
        valid_for,
        by: "ada",
    }
}

/// What became of a batch, when it is known.
pub(crate) type Answer = oneshot::Receiver<Result<Ack, NotTaken>>;

/// A batch as the agents' port hands it to the pipeline, and where its answer comes.
pub(crate) fn arrival(host: HostId, at: UnixMillis, batch: Batch) -> (Arrival, Answer) {
    let (reply, answer) = oneshot::channel();
    let arrival = Arrival {
        host,
        at,
        from: "192.0.2.1".to_owned(),
        trust: HostTrust {
            holds: None,
            issued_at: NOW,
            trusts: Vec::new(),
        },
        batch,
        place: None,
        reply,
    };
    (arrival, answer)
}
