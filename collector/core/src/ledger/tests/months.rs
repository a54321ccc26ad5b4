//! Months, days, the report and its table.

use super::kit::*;
use crate::ledger::{
    Availability, ClassTotals, Contract, ContractClass, DayClass, HostRecord, Interval, Month,
    MonthError, MonthReport, ObservedState, ReportInput, Terms, UnknownRule, classify, day_cells,
    month_window, observe, report,
};

const HOUR_MS: i64 = 3_600_000;
const DAY_SECS: i64 = 86_400;

fn hours(month: &str, zone: &str) -> i64 {
    let window = month_window(month, zone).unwrap();
    assert_eq!(window.len_ms() % HOUR_MS, 0);
    window.len_ms() / HOUR_MS
}

#[test]
fn months_with_a_clock_change_have_their_own_length() {
    assert_eq!(hours("2026-03", "Europe/Paris"), 31 * 24 - 1);
    assert_eq!(hours("2026-10", "Europe/Paris"), 31 * 24 + 1);
    assert_eq!(hours("2026-11", "Europe/Paris"), 30 * 24);
    assert_eq!(hours("2026-03", "UTC"), 31 * 24);
    assert_eq!(hours("2028-02", "Europe/Warsaw"), 29 * 24);
    let paris = month_window("2026-03", "Europe/Paris").unwrap();
    assert_eq!(paris.from, at(-3_600));
    // Apia skipped 30 December 2011 altogether.
    assert_eq!(hours("2011-12", "Pacific/Apia"), 30 * 24);
}

#[test]
fn days_tile_their_month_and_know_their_length() {
    for (month, zone, day, expected) in [
        ("2026-03", "Europe/Paris", 29, 23),
        ("2026-10", "Europe/Paris", 25, 25),
        ("2026-11", "America/New_York", 1, 25),
        ("2011-12", "Pacific/Apia", 30, 0),
    ] {
        let month = Month::new(month, zone).unwrap();
        let days: Vec<Interval> = month.days().iter().map(|&(_, day)| day).collect();
        assert_eq!(days[day - 1].len_ms(), expected * HOUR_MS, "{zone}");
        assert!(days.windows(2).all(|pair| pair[0].to == pair[1].from));
        assert_eq!(days.first().map(|day| day.from), Some(month.window().from));
        assert_eq!(days.last().map(|day| day.to), Some(month.window().to));
    }
}

#[test]
fn what_is_no_month_or_zone_is_refused_with_what_would_be_right() {
    for text in [
        "2026",
        "2026-3",
        "2026-13",
        "2026-00",
        "26-03",
        "2026-03-01",
        "+026-03",
        "",
    ] {
        let error = month_window(text, "UTC").unwrap_err();
        assert!(
            matches!(error, MonthError::NotAMonth { .. }),
            "{text}: {error}"
        );
        assert!(error.to_string().contains("2026-03"));
    }
    let error = month_window("2026-03", "Europe/Pariss").unwrap_err();
    assert_eq!(
        error.to_string(),
        "time zone \"Europe/Pariss\" is not in the time zone database; write an IANA name as in \
         \"Europe/Paris\""
    );
    assert!(matches!(
        month_window("9999-12", "UTC").unwrap_err(),
        MonthError::OutOfRange { .. }
    ));
}

#[test]
fn local_times_carry_their_offset() {
    let month = Month::new("2026-03", "Europe/Paris").unwrap();
    let change = 28 * DAY_SECS + 3_600;
    assert_eq!(month.local(at(change - 1)), "2026-03-29T01:59:59+01:00");
    assert_eq!(month.local(at(change)), "2026-03-29T03:00:00+02:00");
    let absurd = watchkeep_shared::UnixMillis(i64::MAX);
    assert_eq!(month.local(absurd), i64::MAX.to_string());
}

const AGENT: Process = Process {
    boot: 10,
    instance: 20,
    started: 0,
};

/// Up for three days with a reboot of 100 s on the second, and silent since.
fn three_days() -> HostRecord {
    let rebooted = Process {
        boot: 11,
        instance: 21,
        started: DAY_SECS + 1_100,
    };
    record(&[
        enrolled(),
        AGENT.frames(0, DAY_SECS + 1_000, DAY_SECS + 1_000),
        with_last_seen(
            resumed(
                AGENT.mark(DAY_SECS + 1_000),
                rebooted.mark(DAY_SECS + 1_100),
                DAY_SECS + 1_100,
            ),
            DAY_SECS + 1_000,
        ),
        rebooted.frames(DAY_SECS + 1_100, 3 * DAY_SECS, 3 * DAY_SECS),
    ])
}

#[test]
fn the_calendar_shows_the_worst_of_each_day() {
    let now = at(4 * DAY_SECS + 3_600);
    let month = Month::new("2026-03", "UTC").unwrap();
    let spans = observe(&three_days(), &[], month.window(), now, now);
    let terms = Terms {
        excluded: vec![secs(0, DAY_SECS)],
        ..Terms::default()
    };
    let cells = day_cells(&classify(&spans, &terms), &month, now);
    let classes: Vec<_> = cells.iter().map(|cell| cell.class).collect();
    assert_eq!(
        classes[..6],
        [
            DayClass::Excluded,
            DayClass::Down,
            DayClass::Up,
            DayClass::Unknown,
            DayClass::Unknown,
            DayClass::Future
        ]
    );
    assert_eq!(cells.len(), 31);
    assert_eq!(cells[1].date, "2026-03-02");
    assert_eq!(cells[1].totals.down_ms, 100_000);
    assert_eq!(cells[1].totals.up_ms, DAY_SECS * 1_000 - 100_000);
    assert_eq!(cells[4].totals.sum_ms(), HOUR_MS);
}

#[test]
fn past_days_of_a_contract_without_hosts_do_not_count() {
    let month = Month::new("2026-03", "UTC").unwrap();
    let cells = day_cells(&[], &month, at(4 * DAY_SECS + 3_600));
    let classes: Vec<_> = cells.iter().map(|cell| cell.class).collect();
    assert_eq!(classes[..5], [DayClass::NotCounted; 5]);
    assert_eq!(classes[5..], [DayClass::Future; 26]);
}

fn contract() -> Contract {
    Contract {
        name: "Care, \"gold\"".to_owned(),
        client: "=Acme".to_owned(),
        zone: "UTC".to_owned(),
        terms: Terms {
            unknown_rule: UnknownRule::Exclude,
            ..Terms::default()
        },
    }
}

fn made() -> MonthReport {
    let mut quiet = record(&[enrolled(), AGENT.frames(0, 4 * DAY_SECS, 4 * DAY_SECS)]);
    quiet.name = "web1".to_owned();
    let now = at(4 * DAY_SECS);
    let input = ReportInput {
        contract: &contract(),
        month: "2026-03",
        hosts: &[three_days(), quiet],
        collector: &[],
        cutoff: now,
    };
    report(&input, now).unwrap()
}

#[test]
fn a_report_adds_up_and_says_why() {
    let report = made();
    let sums = report
        .hosts
        .iter()
        .map(|host| host.availability.totals)
        .fold(ClassTotals::default(), ClassTotals::plus);
    assert_eq!(report.availability.totals, sums);
    assert_eq!(sums.sum_ms(), 2 * report.counted.len_ms());
    assert_eq!(report.counted, secs(0, 4 * DAY_SECS));
    let [db1, web1] = &report.hosts[..] else {
        panic!("two hosts were given")
    };
    assert_eq!(db1.states_ms.values().sum::<i64>(), report.counted.len_ms());
    assert_eq!(db1.states_ms[&ObservedState::DownReboot], 100_000);
    assert_eq!(db1.outages.len(), 2);
    assert_eq!(db1.outages[0].class, ContractClass::Down);
    assert_eq!(db1.outages[0].duration_ms, 100_000);
    assert_eq!(db1.outages[0].from_local, "2026-03-02T00:16:40+00:00");
    assert!(
        db1.outages[0]
            .cause_text
            .contains("without a clean shutdown")
    );
    assert!(!db1.outages[0].ongoing);
    assert_eq!(db1.outages[1].state, ObservedState::Silent);
    assert!(db1.outages[1].ongoing);
    assert!(web1.outages.is_empty());
    assert_eq!(web1.availability.headline, Some(1.0));
}

#[test]
fn a_report_survives_json() {
    let report = made();
    let json = report.to_json();
    let mut back: MonthReport = serde_json::from_str(&json).unwrap();
    // A reader may lose the last bit of a fraction; the sums are exact and give it back.
    let rule = back.unknown_rule;
    back.availability = Availability::of(back.availability.totals, rule);
    for host in &mut back.hosts {
        host.availability = Availability::of(host.availability.totals, rule);
    }
    assert!(back == report, "{json}");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    let host = &value["hosts"][0];
    assert_eq!(host["states_ms"]["down_reboot"], 100_000);
    assert_eq!(host["outages"][0]["state"], "down_reboot");
    assert_eq!(host["outages"][0]["cause"]["clean"], false);
    assert_eq!(host["availability"]["totals"]["down_ms"], 100_000);
}

fn parse_csv(text: &str) -> Vec<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .from_reader(text.as_bytes());
    let rows = reader.records().map(|row| row.unwrap());
    rows.map(|row| row.iter().map(str::to_owned).collect())
        .collect()
}

#[test]
fn a_report_is_one_table_that_a_spreadsheet_reads() {
    let rows = parse_csv(&made().to_csv().unwrap());
    let columns = &rows[0];
    assert!(rows.iter().all(|row| row.len() == columns.len()));
    let cell = |row: usize, name: &str| {
        let at = columns.iter().position(|column| column == name).unwrap();
        rows[row][at].as_str()
    };
    let records: Vec<_> = (1..rows.len()).map(|row| cell(row, "record")).collect();
    assert_eq!(records, ["contract", "host", "host", "outage", "outage"]);
    assert_eq!(cell(1, "contract"), "Care, \"gold\"");
    assert_eq!(cell(1, "client"), "'=Acme");
    assert_eq!(cell(2, "host"), "db1");
    assert_eq!(cell(2, "down_ms"), "100000");
    // 259,100 s up of 345,600 s, 100 s down.
    assert_eq!(cell(2, "a_min_percent"), "74.9710");
    assert_eq!(cell(2, "a_max_percent"), "99.9710");
    assert_eq!(cell(2, "coverage_percent"), "75.0000");
    assert_eq!(cell(2, "headline_percent"), "99.9614");
    assert_eq!(cell(3, "headline_percent"), "100.0000");
    assert_eq!(cell(4, "state"), "down_reboot");
    assert_eq!(cell(4, "from"), "2026-03-02T00:16:40+00:00");
}

#[test]
fn where_nothing_counts_there_is_no_figure() {
    let now = at(-40 * DAY_SECS);
    let input = ReportInput {
        contract: &contract(),
        month: "2026-03",
        hosts: &[three_days()],
        collector: &[],
        cutoff: now,
    };
    let report = report(&input, now).unwrap();
    assert!(report.counted.is_empty());
    assert_eq!(report.availability.headline, None);
    assert_eq!(report.availability.totals, ClassTotals::default());
    assert!(report.to_csv().unwrap().lines().count() == 3);
}

#[test]
fn one_lost_millisecond_is_not_shown_as_all() {
    let totals = ClassTotals {
        up_ms: 31 * DAY_SECS * 1_000 - 1,
        down_ms: 1,
        ..ClassTotals::default()
    };
    assert_eq!(totals.a_min().unwrap().percent(), "99.9999");
}
