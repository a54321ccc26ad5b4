use proptest::prelude::*;
use uuid::Uuid;
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use super::{
    Due, HostSignal, Incident, IncidentScope, Judgement, Open, RETURN_WINDOW, Status, Tally,
    Verdict, judge, text,
};
use crate::ids::SiteId;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);
const AFTER: DurationMs = DurationMs::from_secs(25);

fn site(n: u128) -> SiteId {
    SiteId(Uuid::from_u128(n))
}

fn host(n: u128) -> HostId {
    HostId(Uuid::from_u128(n))
}

fn ago(secs: i64) -> UnixMillis {
    NOW - DurationMs::from_secs(secs)
}

/// A host of a site whose last heartbeat arrived so many seconds ago, at the default interval.
fn live_host(n: u128, at_site: u128, secs_ago: i64) -> HostSignal {
    let heard_at = ago(secs_ago);
    let deadline = heard_at + AFTER;
    HostSignal {
        host: host(n),
        site: site(at_site),
        heard_at,
        interval_ms: 10_000,
        status: if deadline <= NOW {
            Status::Due(deadline)
        } else {
            Status::Heard
        },
    }
}

/// One that was called silent so many seconds ago.
fn silent(n: u128, at_site: u128, secs_ago: i64) -> HostSignal {
    HostSignal {
        heard_at: ago(secs_ago + 25),
        status: Status::Silent(ago(secs_ago)),
        ..live_host(n, at_site, 0)
    }
}

fn verdicts(judgement: &Judgement) -> Vec<Verdict> {
    judgement.verdicts.values().copied().collect()
}

fn judged(signals: &[HostSignal]) -> Vec<Verdict> {
    verdicts(&judge(signals, &Open::default(), NOW))
}

const fn join(at_site: u128) -> Verdict {
    Verdict::Join(IncidentScope::Site(SiteId(Uuid::from_u128(at_site))))
}

#[test]
fn a_single_dead_host_is_decided_on_at_its_deadline() {
    let mut hosts: Vec<_> = (0..12).map(|n| live_host(n, 1, n as i64 % 10)).collect();
    hosts[3] = live_host(3, 1, 25);
    assert_eq!(judged(&hosts), [Verdict::Alone]);
    // Some others are late too, but not enough for an incident.
    for late in &mut hosts[4..8] {
        late.heard_at = ago(18);
    }
    assert_eq!(judged(&hosts), [Verdict::Alone]);
    assert_eq!(judged(&[live_host(1, 1, 25)]), [Verdict::Alone]);
}

#[test]
fn hosts_behind_a_dead_line_wait_for_each_other_and_then_join() {
    // The line died 15 s ago; the first is due, the others are late.
    let hosts: Vec<_> = (0..11)
        .map(|n| live_host(n, 1, 25 - n as i64))
        .chain([live_host(90, 2, 3), live_host(91, 2, 8)])
        .collect();
    assert_eq!(judged(&hosts), [Verdict::Wait]);
    let later: Vec<_> = (0..11)
        .map(|n| live_host(n, 1, 35 - n as i64))
        .chain([live_host(90, 2, 3), live_host(91, 2, 8)])
        .collect();
    let judgement = judge(&later, &Open::default(), NOW);
    assert_eq!(verdicts(&judgement), [join(1); 11]);
    let tally = judgement.tallies[&IncidentScope::Site(site(1))];
    assert_eq!((tally.silent, tally.late, tally.live), (11, 0, 0));
    assert_eq!(
        text::silent(IncidentScope::Site(site(1)), "Bergen", tally),
        "Site Bergen: 11 of 11 hosts silent - probably the site or its internet connection"
    );
}

#[test]
fn nobody_waits_longer_than_one_interval() {
    // Due for ten seconds; two others are still only late.
    let mut hosts = vec![
        live_host(0, 1, 35),
        live_host(1, 1, 24),
        live_host(2, 1, 24),
    ];
    assert_eq!(judged(&hosts), [Verdict::Alone]);
    hosts[0] = live_host(0, 1, 34);
    assert_eq!(judged(&hosts), [Verdict::Wait]);
}

#[test]
fn half_of_a_site_is_an_incident_and_fewer_are_not() {
    let mut hosts: Vec<_> = (0..3).map(|n| live_host(n, 1, 30)).collect();
    hosts.extend((3..6).map(|n| live_host(n, 1, 4)));
    hosts.extend((20..40).map(|n| live_host(n, 2, 4)));
    let judgement = judge(&hosts, &Open::default(), NOW);
    assert_eq!(verdicts(&judgement), [join(1); 3]);
    let tally = judgement.tallies[&IncidentScope::Site(site(1))];
    assert_eq!(
        text::silent(IncidentScope::Site(site(1)), "Bergen", tally),
        "Site Bergen: 3 of 6 hosts silent - probably something they share"
    );
    hosts.push(live_host(7, 1, 4));
    assert_eq!(judged(&hosts), [Verdict::Alone; 3]);
    // Both of a site with two hosts, and one of two.
    assert_eq!(
        judged(&[live_host(1, 1, 30), live_host(2, 1, 30), live_host(3, 2, 1)]),
        [join(1); 2]
    );
    assert_eq!(
        judged(&[live_host(1, 1, 30), live_host(2, 1, 5)]),
        [Verdict::Alone]
    );
}

#[test]
fn what_was_silent_before_counts_only_for_a_while() {
    let recent = [
        silent(1, 1, 100),
        silent(2, 1, 50),
        live_host(3, 1, 30),
        live_host(4, 1, 2),
    ];
    assert_eq!(judged(&recent), [join(1)]);
    let old = [
        silent(1, 1, 10_000),
        silent(2, 1, 10_000),
        live_host(3, 1, 30),
        live_host(4, 1, 2),
    ];
    assert_eq!(judged(&old), [Verdict::Alone]);
}

#[test]
fn a_slow_host_says_nothing_about_this_moment() {
    let slow = |n| HostSignal {
        interval_ms: 600_000,
        status: Status::Heard,
        ..live_host(n, 1, 120)
    };
    let hosts: Vec<_> = (0..3)
        .map(|n| live_host(n, 1, 30))
        .chain((3..9).map(slow))
        .chain([live_host(20, 2, 1)])
        .collect();
    assert_eq!(judged(&hosts), [join(1); 3]);
}

#[test]
fn most_of_the_fleet_is_one_incident_and_one_large_site_is_not() {
    let everywhere: Vec<_> = (0..30).map(|n| live_host(n, n % 5, 30)).collect();
    assert_eq!(
        judged(&everywhere),
        [Verdict::Join(IncidentScope::Fleet); 30]
    );
    let many_small: Vec<_> = (0..10)
        .map(|n| live_host(n, n, if n < 7 { 30 } else { 3 }))
        .collect();
    assert_eq!(
        judged(&many_small),
        [Verdict::Join(IncidentScope::Fleet); 7]
    );
    let one_large: Vec<_> = (0..30)
        .map(|n| live_host(n, 1, 30))
        .chain([
            live_host(50, 2, 30),
            live_host(51, 2, 1),
            live_host(52, 2, 2),
        ])
        .chain((60..70).map(|n| live_host(n, n, 3)))
        .collect();
    let judgement = judge(&one_large, &Open::default(), NOW);
    assert_eq!(judgement.verdicts[&host(0)], join(1));
    assert_eq!(judgement.verdicts[&host(50)], Verdict::Alone);
}

#[test]
fn an_open_incident_takes_in_what_falls_silent_at_its_site() {
    let hosts = [
        live_host(1, 1, 25),
        live_host(2, 2, 25),
        live_host(3, 1, 2),
        live_host(4, 2, 2),
    ];
    let open = Open {
        sites: [site(1)].into(),
        fleet: false,
    };
    assert_eq!(
        verdicts(&judge(&hosts, &open, NOW)),
        [join(1), Verdict::Alone]
    );
    let open = Open {
        sites: [site(1)].into(),
        fleet: true,
    };
    assert_eq!(
        verdicts(&judge(&hosts, &open, NOW)),
        [join(1), Verdict::Join(IncidentScope::Fleet)]
    );
}

#[test]
fn an_incident_ends_or_reports_who_is_missing_once() {
    let mut incident = Incident {
        opened_at: ago(600),
        total: 12,
        away: 12,
        last_return_at: None,
        is_reported: false,
    };
    assert_eq!(incident.due(NOW), None);
    assert!(incident.takes_in());
    incident.away = 7;
    incident.last_return_at = Some(NOW - RETURN_WINDOW);
    assert_eq!(incident.due(NOW), None, "most are still away");
    incident.away = 2;
    incident.last_return_at = Some(NOW - RETURN_WINDOW + DurationMs(1));
    assert_eq!(incident.due(NOW), None, "more may come back");
    incident.last_return_at = Some(NOW - RETURN_WINDOW);
    assert_eq!(incident.due(NOW), Some(Due::ReportMissing));
    let mut names = text::Names::default();
    names.add("db1");
    names.add("db2");
    assert_eq!(
        text::missing(IncidentScope::Site(site(1)), "Bergen", &incident, &names),
        "Site Bergen is back, 2 of 12 hosts are not: db1, db2"
    );
    incident.is_reported = true;
    assert_eq!(incident.due(NOW), None);
    assert!(!incident.takes_in());
    incident.away = 0;
    assert_eq!(incident.due(NOW), Some(Due::Resolve));
    assert_eq!(
        text::over(&incident, NOW),
        "all 12 hosts are back after 10 min"
    );
}

#[test]
fn a_ticket_knows_its_incident_by_its_check() {
    for scope in [IncidentScope::Fleet, IncidentScope::Site(site(77))] {
        assert_eq!(IncidentScope::of_check(&scope.check()), Some(scope));
    }
    for check in ["host", "site/", "site/x", "fleet"] {
        let check = crate::rules::CheckKey(check.to_owned());
        assert_eq!(IncidentScope::of_check(&check), None, "{check}");
    }
}

#[test]
fn texts_are_bounded() {
    let mut names = text::Names::default();
    for n in 0..10_000 {
        names.add(&format!("h{n}"));
    }
    let text = names.to_string();
    assert!(text.ends_with("h19 and 9980 more"), "{text}");
}

fn signals() -> impl Strategy<Value = Vec<HostSignal>> {
    let one = (
        0_u128..6,
        0_i64..60,
        any::<bool>(),
        prop_oneof![Just(10_000_u32), Just(60_000)],
    );
    prop::collection::vec(one, 0..40).prop_map(|hosts| {
        let signal =
            |(n, (at_site, secs, is_silent, interval_ms)): (usize, (u128, i64, bool, u32))| {
                let base = if is_silent {
                    silent(n as u128, at_site, secs * 20)
                } else {
                    live_host(n as u128, at_site, secs)
                };
                HostSignal {
                    interval_ms,
                    ..base
                }
            };
        hosts.into_iter().enumerate().map(signal).collect()
    })
}

proptest! {
    #[test]
    fn every_due_host_has_a_verdict_and_none_waits_past_one_interval(
        signals in signals(), waited_s in 0_i64..700,
    ) {
        let now = NOW + DurationMs::from_secs(waited_s);
        let judgement = judge(&signals, &Open::default(), now);
        for signal in &signals {
            let verdict = judgement.verdicts.get(&signal.host);
            match signal.status {
                Status::Due(since) => {
                    prop_assert!(verdict.is_some());
                    let waited = now.since(since).0 >= i64::from(signal.interval_ms);
                    prop_assert!(!(waited && verdict == Some(&Verdict::Wait)));
                }
                Status::Heard | Status::Silent(_) => prop_assert!(verdict.is_none()),
            }
        }
    }

    /// Hosts of one site and one interval never end as some alone and some together.
    #[test]
    fn a_site_is_judged_as_one(signals in signals()) {
        let judgement = judge(&signals, &Open::default(), NOW + DurationMs::from_mins(15));
        let mut of_site = std::collections::BTreeMap::new();
        for signal in &signals {
            if let Some(verdict) = judgement.verdicts.get(&signal.host) {
                let first = of_site.entry(signal.site).or_insert(*verdict);
                prop_assert_eq!(*first, *verdict);
            }
        }
    }

    #[test]
    fn a_tally_counts_each_host_at_most_once(signals in signals()) {
        let judgement = judge(&signals, &Open::default(), NOW);
        let all: u32 = judgement.tallies.values().map(|t: &Tally| t.silent + t.late + t.live).sum();
        prop_assert!(all as usize <= 2 * signals.len());
    }
}
