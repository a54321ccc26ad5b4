//! The page of a contract's month, as it is shown and printed.

use uuid::Uuid;
use watchkeep_collector::store::{fleet, record, tickets as rows};
use watchkeep_core::{
    evidence::{Evidence, EvidenceKind, FrameMark},
    ids::{AlertId, TicketId},
    rules::CheckKey,
    tickets::{Episode, Firing, Phase, Ticket, TicketState},
};
use watchkeep_shared::{BootId, DurationMs, HostId, InstanceId, UnixMillis};

use super::{Browser, signed_in};
use crate::support::{Bench, NOW, Place, both, place};

both!(
    the_month_of_a_contract_reads_by_one_rule,
    targets_are_shown_as_they_were_agreed,
    every_contract_of_a_long_list_has_its_figure,
    hosts_of_one_name_are_told_apart_by_their_sites
);

/// 5 January 2027, midnight in Paris; now is the 15th, 9:00 there.
const BEGIN: UnixMillis = UnixMillis(1_799_103_600_000);
const STEP: DurationMs = DurationMs::from_secs(10);

fn after(hours: i64, minutes: i64) -> UnixMillis {
    BEGIN + DurationMs::from_mins(60 * hours + minutes)
}

/// One agent process from its first frame on.
struct Process {
    boot: u128,
    instance: u128,
    began: UnixMillis,
}

impl Process {
    fn mark(&self, at: UnixMillis) -> FrameMark {
        FrameMark {
            boot: BootId(Uuid::from_u128(self.boot)),
            instance: InstanceId(Uuid::from_u128(self.instance)),
            seq: u64::try_from(at.since(self.began).0 / STEP.0).unwrap() + 1,
            at,
            arrived_at: at,
            mono_ms: at.since(BEGIN).0,
            boot_ms: at.since(BEGIN).0,
        }
    }

    fn frames(&self, to: UnixMillis) -> (EvidenceKind, UnixMillis, UnixMillis) {
        let kind = EvidenceKind::Frames {
            boot: BootId(Uuid::from_u128(self.boot)),
            instance: InstanceId(Uuid::from_u128(self.instance)),
            seq_from: 1,
            seq_to: self.mark(to).seq,
            late: false,
            max_step_ms: 25_000,
        };
        (kind, self.began, to)
    }
}

fn resumed(
    (before, last): (&Process, UnixMillis),
    after: &Process,
    kernel_boot_at: UnixMillis,
) -> (EvidenceKind, UnixMillis, UnixMillis) {
    let kind = EvidenceKind::Resumed {
        before: before.mark(last),
        after: after.mark(after.began),
        kernel_boot_at,
        previous_boot_last_seen: (before.boot != after.boot).then_some(last),
        goodbye: None,
    };
    (kind, last, after.began)
}

/// Ten days of two hosts: a reboot on the 10th, 26 minutes, both at once; then two and a half days
/// without their agents.
async fn ten_days(bench: &Bench, place: &Place) -> HostId {
    let site = fleet::sites(&bench.app.store).await.unwrap()[0].id.into();
    let other = HostId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0002));
    let new = fleet::NewHost {
        id: other,
        site,
        name: "db1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        enrolled_at: BEGIN,
    };
    let process = |instance, boot, began| Process {
        boot,
        instance,
        began,
    };
    let first = process(1, 1, BEGIN);
    let rebooted = process(2, 2, after(129, 26));
    let again = process(3, 2, after(216, 0));
    let (crash, stop) = (after(129, 0), after(160, 0));
    let story = [
        (EvidenceKind::Enrolled, BEGIN, BEGIN),
        first.frames(crash),
        resumed((&first, crash), &rebooted, after(129, 25)),
        rebooted.frames(stop),
        resumed((&rebooted, stop), &again, after(129, 25)),
        again.frames(NOW),
    ];
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::insert_host(&mut tx, &new).await.unwrap();
    for host in [place.host, other] {
        let rows: Vec<Evidence> = story
            .iter()
            .map(|(kind, valid_from, valid_to)| Evidence {
                host: Some(host),
                kind: kind.clone(),
                valid_from: *valid_from,
                valid_to: *valid_to,
                recorded_at: *valid_to,
            })
            .collect();
        let rows: Vec<_> = rows
            .iter()
            .map(|row| (bench.app.ids.next(NOW), row))
            .collect();
        record::insert_evidence(&mut tx, &rows).await.unwrap();
    }
    tx.commit().await.unwrap();
    other
}

/// The incident of the reboot, resolved long since; of its hosts' alerts one is enough.
async fn reboot_ticket(bench: &Bench, place: &Place) -> i64 {
    super::ticket(
        bench,
        place,
        "cpu.busy_pct",
        watchkeep_core::rules::Priority::P1,
    )
    .await;
    let mut tx = bench.app.store.begin().await.unwrap();
    let opened_at = after(129, 27);
    let model = rows::by_id(&mut tx, {
        let all = rows::open(&bench.app.store).await.unwrap();
        all[0].id
    })
    .await
    .unwrap()
    .unwrap();
    let ticket = Ticket {
        id: TicketId(Uuid::from_u128(0x0199_0000_0000_7000_8000_0000_0000_0003)),
        number: rows::next_number(&mut tx).await.unwrap(),
        check: Some(CheckKey(format!("site/{}", Uuid::from_u128(7)))),
        host: None,
        contract: None,
        state: TicketState::Resolved,
        opened_at,
        firing: Firing::NONE,
        episode: Episode {
            since: opened_at,
            phase: Phase::Over {
                at: opened_at + DurationMs::from_mins(5),
                taken_at: None,
                recheck_at: None,
            },
        },
        resolved_at: Some(opened_at + DurationMs::from_mins(5)),
        ..model
    };
    rows::put(&mut tx, &ticket, None, NOW).await.unwrap();
    let alert = record::NewAlert {
        id: AlertId(Uuid::new_v4()),
        host: place.host,
        rule: "unexpected-reboot",
        check: "host",
        severity: "warning",
        priority: "P2",
        summary: "rebooted",
        evidence: "{}".to_owned(),
        raised_at: opened_at,
        recorded_at: opened_at,
        ticket: ticket.id,
    };
    record::insert_alerts(&mut tx, &[alert]).await.unwrap();
    tx.commit().await.unwrap();
    ticket.number
}

async fn page(browser: &Browser, place: &Place) -> String {
    browser
        .get(&format!("/contracts/{}?month=2027-01", place.contract))
        .await
        .text
}

/// A day's cell.
fn day(page: &str, number: u32) -> &str {
    let sign = format!("title=\"2027-01-{number:02}: ");
    let (_, rest) = page.split_once(&sign).unwrap();
    rest.split("</div></div>").next().unwrap_or(rest)
}

async fn the_month_of_a_contract_reads_by_one_rule(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    ten_days(&bench, &place).await;
    let number = reboot_ticket(&bench, &place).await;
    let text = page(&browser, &place).await;
    assert!(text.contains("<bdi>Bakery servers</bdi>, January 2027</h1>"));
    for head in [
        "Europe/Paris",
        "Provisional: the month is not over",
        "Made</dt>",
    ] {
        assert!(text.contains(head), "{head}");
    }
    // Unknown time is left out by this contract: 25 min of 192 h were down.
    let (_, headline) = text.split_once("class=\"value big\">").unwrap();
    assert!(headline.starts_with("99.7"), "{headline}");
    assert!(text.contains("On target"), "{text}");
    for (number, says) in [
        (4, "not counted"),
        (5, "up"),
        (10, "outage, 50 min"),
        (12, "no data"),
        (13, "no data"),
        (16, "not yet"),
    ] {
        let cell = day(&text, number);
        assert!(cell.contains(says), "{number}: {cell}");
    }
    assert!(
        !text.contains(">0 %<") && !text.contains(">0.0000 %"),
        "{text}"
    );
    // One line for both hosts, in the contract's zone, with its ticket.
    let (_, outages) = text.split_once("id=\"outages\"").unwrap();
    assert_eq!(outages.matches("2 hosts:").count(), 2, "{outages}");
    assert!(outages.contains("10 Jan 2027, 09:00:00 CET"), "{outages}");
    assert!(outages.contains(&format!("<a href=\"/tickets/{number}\">#{number}</a>")));
    assert!(!text.contains("Excluded time"), "nothing is excluded");
}

async fn hosts_of_one_name_are_told_apart_by_their_sites(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    let text = page(&browser, &place).await;
    assert!(
        !text.contains("<bdi>Oven</bdi>"),
        "one name, one host: {text}"
    );
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::put_site(&mut tx, place.client, Some(place.contract), "Annex", NOW)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let sites = fleet::sites(&bench.app.store).await.unwrap();
    let annex = sites.iter().find(|site| site.name == "Annex").unwrap();
    let new = fleet::NewHost {
        id: HostId(Uuid::new_v4()),
        site: annex.id.into(),
        name: "web1".to_owned(),
        agent_version: "0.1.0".to_owned(),
        enrolled_at: NOW,
    };
    let mut tx = bench.app.store.begin().await.unwrap();
    fleet::insert_host(&mut tx, &new).await.unwrap();
    tx.commit().await.unwrap();
    let text = page(&browser, &place).await;
    for site in ["Oven", "Annex"] {
        let named = format!("<bdi>web1</bdi></a><div class=\"under\"><bdi>{site}</bdi></div>");
        assert!(text.contains(&named), "{site}: {text}");
    }
}

async fn targets_are_shown_as_they_were_agreed(bench: Bench) {
    let browser = signed_in(&bench).await;
    let place = place(&bench.app).await;
    for (target_pct, shown) in [(99.99, "99.99 %"), (99.999, "99.999 %"), (99.5, "99.5 %")] {
        let terms = fleet::NewContract {
            client: place.client,
            name: "Bakery servers".to_owned(),
            kind: "managed".to_owned(),
            zone: "Europe/Paris".to_owned(),
            unknown_rule: "exclude".to_owned(),
            target_pct,
            paging: None,
        };
        let mut tx = bench.app.store.begin().await.unwrap();
        fleet::put_contract(&mut tx, &terms, NOW).await.unwrap();
        tx.commit().await.unwrap();
        let text = page(&browser, &place).await;
        assert!(text.contains(&format!("target {shown}<")), "{text}");
        let list = browser.get("/contracts").await.text;
        assert!(list.contains(&format!(">{shown}<")), "{list}");
    }
}

async fn every_contract_of_a_long_list_has_its_figure(bench: Bench) {
    const CONTRACTS: usize = 30;
    let browser = signed_in(&bench).await;
    let mut tx = bench.app.store.begin().await.unwrap();
    let client = fleet::ensure_client(&mut tx, "Bakery", NOW).await.unwrap();
    for i in 0..CONTRACTS {
        let contract = fleet::NewContract {
            client,
            name: format!("Servers {i}"),
            kind: "managed".to_owned(),
            zone: "Europe/Paris".to_owned(),
            unknown_rule: "exclude".to_owned(),
            target_pct: 99.5,
            paging: None,
        };
        fleet::put_contract(&mut tx, &contract, NOW).await.unwrap();
    }
    let contracts = fleet::contracts_in(&mut tx).await.unwrap();
    for (i, contract) in contracts.iter().enumerate() {
        let site = format!("Site {i}");
        fleet::put_site(&mut tx, client, Some(contract.id.into()), &site, NOW)
            .await
            .unwrap();
        let host = HostId(Uuid::from_u128(i as u128 + 1));
        let new = fleet::NewHost {
            id: host,
            site: fleet::site_in(&mut tx, &site).await.unwrap().unwrap(),
            name: format!("web{i}"),
            agent_version: "0.1.0".to_owned(),
            enrolled_at: BEGIN,
        };
        fleet::insert_host(&mut tx, &new).await.unwrap();
        let process = Process {
            boot: 1,
            instance: 1,
            began: BEGIN,
        };
        let story = [(EvidenceKind::Enrolled, BEGIN, BEGIN), process.frames(NOW)];
        for (kind, valid_from, valid_to) in story {
            let row = Evidence {
                host: Some(host),
                kind,
                valid_from,
                valid_to,
                recorded_at: valid_to,
            };
            record::insert_evidence(&mut tx, &[(bench.app.ids.next(NOW), &row)])
                .await
                .unwrap();
        }
    }
    tx.commit().await.unwrap();
    // A page does not wait for long; what it lacks is on the next one.
    let mut page = browser.get("/contracts").await.text;
    for _ in 0..30 {
        if !page.contains("being computed") {
            break;
        }
        page = browser.get("/contracts").await.text;
    }
    assert_eq!(
        page.matches("<strong>100.0000 %</strong>").count(),
        CONTRACTS,
        "{page}"
    );
}
