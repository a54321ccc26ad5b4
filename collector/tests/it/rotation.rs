//! What the store knows of hosts and certificate authorities decides which steps of a rotation are
//! taken.

use watchkeep_collector::{
    identity::{self, CA_DIR, Cas, OverviewHost, RotateError, RotateStep},
    store::{fleet, identity as rows},
};
use watchkeep_core::{
    authority::{HostTrust, PendingReason},
    ids::SiteId,
};
use watchkeep_shared::{CaId, DurationMs, HostId, UnixMillis, wire::heartbeat::ServiceStatus};

use crate::{
    pipeline::{Rig, batch, frame},
    support::{Bench, NOW, both, place, token_for},
};

both!(
    a_host_is_left_until_it_was_heard_with_what_it_was_given,
    hosts_that_can_never_connect_again_hold_nothing_up,
    tokens_that_name_the_old_authority_are_counted,
);

const YEAR: DurationMs = DurationMs::from_hours(365 * 24);
const BACKDATE: DurationMs = DurationMs::from_mins(5);

fn init(bench: &Bench) -> Cas {
    let dir = bench.app.config.data_dir.join(CA_DIR);
    std::fs::create_dir_all(&dir).unwrap();
    Cas::init(&dir, NOW).unwrap()
}

/// Writes down that a certificate was given to a host.
async fn give(bench: &Bench, host: HostId, at: UnixMillis) {
    let issued = identity::Issued {
        pem: String::new(),
        serial: format!("{:x}", at.0),
        not_before: UnixMillis(at.0 - BACKDATE.0),
        not_after: at + YEAR,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    rows::insert_certificate(&mut tx, host, &issued)
        .await
        .unwrap();
    tx.commit().await.unwrap();
}

async fn step(bench: &Bench, step: RotateStep) -> Result<Cas, RotateError> {
    identity::rotate(&bench.app, step, false).await
}

async fn only_host(bench: &Bench, cas: &Cas) -> OverviewHost {
    let overview = identity::overview(&bench.app, cas).await.unwrap();
    let mut hosts = overview.hosts;
    assert_eq!(hosts.len(), 1);
    hosts.remove(0)
}

fn holds(ca: CaId, issued_at: UnixMillis, trusts: &[CaId]) -> HostTrust {
    HostTrust {
        holds: Some(ca),
        issued_at,
        trusts: trusts.to_vec(),
    }
}

async fn a_host_is_left_until_it_was_heard_with_what_it_was_given(bench: Bench) {
    let steady = init(&bench);
    let place = place(&bench.app).await;
    give(&bench, place.host, NOW).await;
    assert_eq!(
        only_host(&bench, &steady).await.pending,
        Some(PendingReason::Unheard)
    );
    let rig = Rig::start(&bench).await;
    let old = *steady.ids().signs();
    let (at, first) = batch(vec![frame(1, ServiceStatus::Running)]);
    rig.send_as(place.host, holds(old, NOW, &[old]), at, first)
        .await;
    let reported = only_host(&bench, &steady).await;
    assert_eq!((reported.pending, reported.trust.holds), (None, Some(old)));

    let both = step(&bench, RotateStep::Begin).await.unwrap();
    assert_eq!(
        only_host(&bench, &both).await.pending,
        Some(PendingReason::OldTrust)
    );
    let reissue = step(&bench, RotateStep::Reissue).await.unwrap();
    let new = *reissue.ids().signs();
    let refused = step(&bench, RotateStep::Finish).await.unwrap_err();
    let RotateError::WouldLose { count: 1, .. } = &refused else {
        panic!("{refused}")
    };
    assert!(refused.to_string().contains(&place.host.to_string()));
    // A new certificate was given out; whether it arrived is known once the host came with it.
    let later = NOW + DurationMs::from_mins(1);
    give(&bench, place.host, later).await;
    assert_eq!(
        only_host(&bench, &reissue).await.pending,
        Some(PendingReason::Unheard)
    );
    let (at, second) = batch(vec![frame(2, ServiceStatus::Running)]);
    rig.send_as(place.host, holds(new, later, &[old, new]), at, second)
        .await;
    assert_eq!(only_host(&bench, &reissue).await.pending, None);
    let dropped = step(&bench, RotateStep::Finish).await.unwrap();
    assert_eq!(dropped.ids().trusted(), [&new]);
    // What was written is read again after a restart of the pipeline.
    rig.stop().await;
    Rig::start(&bench).await.stop().await;
    assert_eq!(only_host(&bench, &dropped).await.pending, None);
    let wrong = step(&bench, RotateStep::Finish).await.unwrap_err();
    assert!(matches!(wrong, RotateError::NoStep(_)), "{wrong}");
}

async fn hosts_that_can_never_connect_again_hold_nothing_up(bench: Bench) {
    init(&bench);
    let place = place(&bench.app).await;
    give(&bench, place.host, NOW).await;
    step(&bench, RotateStep::Begin).await.unwrap();
    step(&bench, RotateStep::Reissue).await.unwrap();
    step(&bench, RotateStep::Finish).await.unwrap_err();
    // By force, and back.
    identity::rotate(&bench.app, RotateStep::Finish, true)
        .await
        .unwrap();
    step(&bench, RotateStep::Back).await.unwrap();
    step(&bench, RotateStep::Finish).await.unwrap_err();
    // Its only certificate expires.
    bench.clock.set(NOW + YEAR);
    step(&bench, RotateStep::Finish).await.unwrap();
    step(&bench, RotateStep::Back).await.unwrap();
    // It has one again, and is retired.
    give(&bench, place.host, NOW + YEAR).await;
    step(&bench, RotateStep::Finish).await.unwrap_err();
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::retire_host(&mut tx, place.host, NOW + YEAR)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    step(&bench, RotateStep::Finish).await.unwrap();
}

async fn tokens_that_name_the_old_authority_are_counted(bench: Bench) {
    let steady = init(&bench);
    place(&bench.app).await;
    let site: SiteId = fleet::sites(&bench.app.store).await.unwrap()[0].id.into();
    let token = async |cas: &Cas| {
        let valid_for = DurationMs::from_hours(24);
        identity::create_token(&bench.app, cas, &token_for(site, valid_for))
            .await
            .unwrap()
    };
    let count = async |cas: &Cas| {
        let overview = identity::overview(&bench.app, cas).await.unwrap();
        overview.old_tokens
    };
    let old = token(&steady).await;
    assert_eq!(count(&steady).await, 0);
    bench.clock.set(NOW + DurationMs::from_mins(1));
    let both = step(&bench, RotateStep::Begin).await.unwrap();
    assert_eq!(token(&both).await.ca_key_sha256, old.ca_key_sha256);
    bench.clock.set(NOW + DurationMs::from_mins(2));
    let reissue = step(&bench, RotateStep::Reissue).await.unwrap();
    assert_ne!(token(&reissue).await.ca_key_sha256, old.ca_key_sha256);
    assert_eq!(count(&reissue).await, 2);
    bench.clock.set(NOW + DurationMs::from_hours(25));
    assert_eq!(count(&reissue).await, 0);
}
