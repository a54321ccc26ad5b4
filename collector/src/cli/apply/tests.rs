use std::sync::Arc;

use watchkeep_shared::{HostId, wire::policy::ServiceCheck};

use super::*;
use crate::{
    clock::Clock,
    ids::RowIds,
    live::Live,
    policies::{self, Person, Policies},
    process::Process,
    store::Store,
};

const EXAMPLE: &str = include_str!("../../../../config/fleet.example.toml");
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

async fn app(dir: &std::path::Path) -> App {
    let text = format!("data_dir = \"{}\"\n", dir.display());
    let config = Config::parse("test", &text, []).unwrap();
    App {
        store: Store::open(&config.store).await.unwrap(),
        clock: Clock::manual(NOW),
        live: Arc::new(Live::default()),
        policies: Arc::new(Policies::new(config.policy.clone())),
        delivery: Arc::default(),
        history: Arc::default(),
        ids: Arc::new(RowIds::new(1)),
        config: Arc::new(config),
        process: Process::new(),
    }
}

fn fleet(text: &str) -> Fleet {
    watchkeep_shared::settings::load("fleet.toml", text, []).unwrap()
}

async fn enrolled(app: &App) -> HostId {
    let site = fleet::sites(&app.store).await.unwrap()[0].id.into();
    let host = fleet::NewHost {
        id: HostId(uuid::Uuid::new_v4()),
        site,
        name: "web1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        enrolled_at: NOW,
    };
    let mut tx = app.store.begin().await.unwrap();
    fleet::insert_host(&mut tx, &host).await.unwrap();
    tx.commit().await.unwrap();
    host.id
}

async fn keys(app: &App, host: HostId) -> Vec<String> {
    app.policies.refresh(&app.store).await.unwrap();
    let row = fleet::host(&app.store, host).await.unwrap().unwrap();
    let policy = app.policies.of(host, (&row).into());
    let services = policy.effective.services.iter();
    services.map(|one| one.item.key()).collect()
}

#[tokio::test]
async fn the_example_is_applied_once_and_a_hosts_own_list_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path()).await;
    let dry = apply(&app, &fleet(EXAMPLE), None).await.unwrap();
    assert_eq!(dry.changes.len(), 4, "{dry:?}");
    assert!(dry.changes[0].starts_with("add client "), "{dry:?}");
    assert!(fleet::sites(&app.store).await.unwrap().is_empty());
    let plan = apply(&app, &fleet(EXAMPLE), Some("ada")).await.unwrap();
    assert_eq!(plan.changes, dry.changes);
    let audit = people::audit_log(&app.store, 100).await.unwrap();
    let logged: Vec<&str> = audit
        .iter()
        .rev()
        .map(|line| line.detail.as_str())
        .collect();
    assert_eq!(logged, plan.changes, "each change is in the audit log");
    assert!(
        audit
            .iter()
            .all(|line| line.actor == "ada" && line.action == "apply")
    );
    let host = enrolled(&app).await;
    assert_eq!(keys(&app, host).await, ["systemd:nginx.service"]);

    let unit = ServiceCheck::Systemd {
        unit: "shop.service".to_owned(),
    };
    let ada = Person {
        login: "ada",
        name: "Ada",
    };
    policies::watch(&app, host, &unit, ada).await.unwrap();
    let again = apply(&app, &fleet(EXAMPLE), Some("ada")).await.unwrap();
    assert_eq!(again.changes, [""; 0]);
    assert_eq!(
        again.kept,
        ["keep the own list of host web1: systemd:shop.service"]
    );

    let (bare, _) = EXAMPLE.split_once("[client.site.policy]").unwrap();
    let plan = apply(&app, &fleet(bare), Some("ada")).await.unwrap();
    assert_eq!(plan.changes.len(), 1, "{plan:?}");
    assert!(plan.changes[0].starts_with("remove policy of site Example Bakery, Krakow: "));
    assert_eq!(keys(&app, host).await, [unit.key()]);
}

#[tokio::test]
async fn a_policy_that_makes_no_sense_is_refused_with_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path()).await;
    let text = "[[client]]\nname = \"A\"\n[client.policy]\ninterval_ms = 5\n\
                services = [{ type = \"process\", name = \"a\" }, { type = \"process\", name = \"a\" }]\n";
    let error = apply(&app, &fleet(text), Some("ada")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "client A: policy.interval_ms: 5 is outside 200 to 600000 milliseconds; \
         policy.services[1]: process:a is listed twice"
    );
    assert!(fleet::contracts(&app.store).await.unwrap().is_empty());
}
