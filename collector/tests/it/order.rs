//! Lists of names are in one order, whatever database they come from: databases disagree on letters
//! beyond ASCII and on letter case.

use uuid::Uuid;
use watchkeep_collector::store::{fleet, people, views};
use watchkeep_core::ids::UserId;
use watchkeep_shared::HostId;

use crate::{
    support::{Bench, NOW, both},
    web::signed_in,
};

both!(names_are_in_the_order_of_their_letters);

/// As they are stored.
const NAMES: [&str; 6] = ["zeta", "Łódź 2", "Äpfel", "Zürich", "éclair", "Bad Ems"];
/// As lists show them.
const ORDER: [&str; 6] = ["Äpfel", "Bad Ems", "éclair", "Łódź 2", "zeta", "Zürich"];

async fn names_are_in_the_order_of_their_letters(bench: Bench) {
    let store = &bench.app.store;
    let mut tx = store.begin().await.unwrap();
    for (n, name) in (1..).zip(NAMES) {
        let client = fleet::ensure_client(&mut tx, name, NOW).await.unwrap();
        let contract = fleet::NewContract {
            client,
            name: name.to_owned(),
            kind: "managed".to_owned(),
            zone: "UTC".to_owned(),
            unknown_rule: "exclude".to_owned(),
            target_pct: 99.5,
            paging: None,
        };
        fleet::put_contract(&mut tx, &contract, NOW).await.unwrap();
        fleet::put_site(&mut tx, client, None, name, NOW)
            .await
            .unwrap();
        let site = fleet::site_in(&mut tx, name).await.unwrap().unwrap();
        let host = fleet::NewHost {
            id: HostId(Uuid::from_u128(n)),
            site,
            name: name.to_owned(),
            agent_version: "0.1.0".to_owned(),
            enrolled_at: NOW,
        };
        fleet::insert_host(&mut tx, &host).await.unwrap();
        let user = people::NewUser {
            id: UserId(Uuid::from_u128(n)),
            login: name,
            name,
            password_hash: "",
            role: "admin",
            must_change: false,
            created_at: NOW,
        };
        assert!(people::create_user(&mut tx, &user).await.unwrap());
    }
    tx.commit().await.unwrap();

    let clients = views::clients(store).await.unwrap();
    in_order(clients.into_iter().map(|row| row.name));
    let sites = fleet::sites(store).await.unwrap();
    in_order(sites.into_iter().map(|row| row.name));
    let contracts = fleet::contracts(store).await.unwrap();
    in_order(contracts.into_iter().map(|row| row.name));
    let contracts = views::contracts(store).await.unwrap();
    in_order(contracts.into_iter().map(|row| row.client));
    let users = people::users(store).await.unwrap();
    in_order(users.into_iter().map(|row| row.login));

    let browser = signed_in(&bench).await;
    let answer = browser.get("/api/v1/fleet?sort=name").await.text;
    let fleet: serde_json::Value = serde_json::from_str(&answer).unwrap();
    let hosts = fleet["hosts"].as_array().unwrap();
    let host_names: Vec<&str> = hosts
        .iter()
        .map(|host| host["name"].as_str().unwrap())
        .collect();
    assert_eq!(host_names, ORDER);
}

fn in_order(names: impl Iterator<Item = String>) {
    assert_eq!(names.collect::<Vec<_>>(), ORDER);
}
