//! The month's report of one contract: sums, bounds, outages with their causes, link incidents and
//! the uptime calendar. Pure: the same evidence, terms, cut-off and `now` give the same report.
//! Fails only on a month or zone that does not exist. How it looks as a table is in `table`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use watchkeep_shared::{HostId, UnixMillis};

use super::{
    Availability, Cause, ClassTotals, ClassedSpan, ContractClass, DayCell, HostRecord, Interval,
    LinkIncident, Month, MonthError, ObservedState, ServiceHours, Span, Terms, UnknownRule,
    classify, day_cells, link_incidents, observe, table,
};
use crate::evidence::Evidence;

/// What the report needs to know of a contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contract {
    /// The contract's name.
    pub name: String,
    /// The client's name.
    pub client: String,
    /// Its IANA time zone, as in `Europe/Paris`.
    pub zone: String,
    /// How its time counts.
    pub terms: Terms,
}

/// Everything that a report is made of.
#[derive(Clone, Copy, Debug)]
pub struct ReportInput<'a> {
    /// The contract.
    pub contract: &'a Contract,
    /// The month, `YYYY-MM`.
    pub month: &'a str,
    /// The hosts that it covers, in the order of the report.
    pub hosts: &'a [HostRecord],
    /// The collector's own `CollectorDown` rows.
    pub collector: &'a [Evidence],
    /// Rows recorded later are left out.
    pub cutoff: UnixMillis,
}

/// Milliseconds in each observed state; every state is present.
pub type StateTotals = BTreeMap<ObservedState, i64>;

/// A month of one contract.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MonthReport {
    /// The contract's name.
    pub contract: String,
    /// The client's name.
    pub client: String,
    /// The month, `YYYY-MM`.
    pub month: String,
    /// The IANA zone whose month it is.
    pub zone: String,
    /// The instant up to which time is counted, at most; also when the report was made.
    pub generated_at: UnixMillis,
    /// Evidence recorded later is not in it.
    pub cutoff: UnixMillis,
    /// The whole month.
    pub window: Interval,
    /// The part of the month that had passed.
    pub counted: Interval,
    /// When the contract counts.
    pub service_hours: ServiceHours,
    /// What the headline does with unknown time.
    pub unknown_rule: UnknownRule,
    /// The contract's figure: the mean over its hosts, each weighted by its counted time (sums of
    /// milliseconds, divided once).
    pub availability: Availability,
    /// The uptime calendar over all hosts.
    pub days: Vec<DayCell>,
    /// Each host.
    pub hosts: Vec<HostReport>,
}

/// A month of one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HostReport {
    /// The host.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Milliseconds in each observed state.
    pub states_ms: StateTotals,
    /// Its figure.
    pub availability: Availability,
    /// Counted time that was not proven up, oldest first.
    pub outages: Vec<Outage>,
    /// Times in which it ran and its frames did not arrive.
    pub link_incidents: Vec<LinkIncident>,
    /// Its uptime calendar.
    pub days: Vec<DayCell>,
}

/// A stretch that is not proven up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    /// Its first instant, or the window's.
    pub from: UnixMillis,
    /// The first instant after it, or the window's end.
    pub to: UnixMillis,
    /// `to - from`, milliseconds.
    pub duration_ms: i64,
    /// `from` as local time with offset.
    pub from_local: String,
    /// `to` as local time with offset.
    pub to_local: String,
    /// What the evidence proves.
    pub state: ObservedState,
    /// How it counts.
    pub class: ContractClass,
    /// Why, for machines.
    pub cause: Cause,
    /// Why, for people.
    pub cause_text: String,
    /// It had not ended when the report was made.
    pub ongoing: bool,
}

/// Milliseconds in each observed state.
pub fn state_totals(spans: &[Span]) -> StateTotals {
    let mut totals: StateTotals = ObservedState::ALL.map(|state| (state, 0)).into();
    for span in spans {
        *totals.entry(span.state).or_default() += Interval::new(span.from, span.to).len_ms();
    }
    totals
}

/// Makes the report as of `now`.
pub fn report(input: &ReportInput<'_>, now: UnixMillis) -> Result<MonthReport, MonthError> {
    let contract = input.contract;
    let rule = contract.terms.unknown_rule;
    let month = Month::new(input.month, &contract.zone)?;
    let window = month.window();
    let mut all = Vec::new();
    let mut totals = ClassTotals::default();
    let mut hosts = Vec::with_capacity(input.hosts.len());
    for record in input.hosts {
        let (host, spans) = host_report(input, record, &month, now);
        totals = totals.plus(host.availability.totals);
        all.extend(spans);
        hosts.push(host);
    }
    Ok(MonthReport {
        contract: contract.name.clone(),
        client: contract.client.clone(),
        month: month.text().to_owned(),
        zone: month.zone_name().to_owned(),
        generated_at: now,
        cutoff: input.cutoff,
        window,
        counted: Interval::new(window.from, window.to.min(now).max(window.from)),
        service_hours: contract.terms.service_hours,
        unknown_rule: rule,
        availability: Availability::of(totals, rule),
        days: day_cells(&all, &month, now),
        hosts,
    })
}

fn host_report(
    input: &ReportInput<'_>,
    record: &HostRecord,
    month: &Month,
    now: UnixMillis,
) -> (HostReport, Vec<ClassedSpan>) {
    let (window, terms) = (month.window(), &input.contract.terms);
    let spans = observe(record, input.collector, window, input.cutoff, now);
    let classed = classify(&spans, terms);
    let outages = classed
        .iter()
        .filter(|one| !one.state.is_up() && one.class != ContractClass::NotCounted)
        .map(|one| outage(one, month, now))
        .collect();
    let host = HostReport {
        host: record.host,
        name: record.name.clone(),
        states_ms: state_totals(&spans),
        availability: super::availability(&classed, terms.unknown_rule),
        outages,
        link_incidents: link_incidents(record, input.collector, window, input.cutoff, now),
        days: day_cells(&classed, month, now),
    };
    (host, classed)
}

fn outage(span: &ClassedSpan, month: &Month, now: UnixMillis) -> Outage {
    Outage {
        from: span.from,
        to: span.to,
        duration_ms: span.len_ms(),
        from_local: month.local(span.from),
        to_local: month.local(span.to),
        state: span.state,
        class: span.class,
        cause: span.cause,
        cause_text: span.cause.text(),
        ongoing: span.to == now,
    }
}

impl MonthReport {
    /// As indented JSON. Instants are milliseconds since the Unix epoch.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has text keys and finite numbers only")
    }

    /// As one table (RFC 4180, lines end in CR LF): a row for the contract, a row for each host,
    /// then its outages and link incidents. Columns:
    ///
    /// | column | meaning |
    /// |---|---|
    /// | `record` | `contract`, `host`, `outage` or `link_incident` |
    /// | `client`, `contract`, `month`, `host` | whose row it is; `host` is empty for the contract |
    /// | `from`, `to` | local time with offset; for figures the part of the month that had passed |
    /// | `duration_ms` | `to - from`, milliseconds |
    /// | `state`, `class`, `cause` | of an outage; `cause` is a sentence |
    /// | `up_ms` … `not_counted_ms` | of a figure: milliseconds in each class |
    /// | `a_min_percent`, `a_max_percent`, `coverage_percent`, `headline_percent` | of a figure: four decimals, rounded down; empty where no time counts |
    /// | `frames_late` | of a link incident |
    ///
    /// A text that a spreadsheet would run as a formula gets an apostrophe in front.
    pub fn to_csv(&self) -> Result<String, MonthError> {
        let month = Month::new(&self.month, &self.zone)?;
        Ok(table::csv(self, &month))
    }
}
