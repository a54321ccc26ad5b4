//! The outages of a month, for people: one line for what hit several hosts at once, with the tickets
//! that were opened about it, in the contract's time zone.

use std::collections::HashMap;

use jiff::tz::TimeZone;
use watchkeep_core::ledger::{ContractClass, HostReport, MonthReport, Outage};
use watchkeep_shared::{DurationMs, HostId, UnixMillis};

use crate::{
    store::views::OutageTicket,
    web::{
        context::Ctx,
        format,
        pages::host::state_word,
        parts::{Pill, TimeText, pill},
    },
};

/// Lines that the page lists before someone asks for all.
pub(super) const LISTED: usize = 40;
/// Hosts that one line names.
const NAMED: usize = 6;
/// Tickets that one line names.
const TICKETS: usize = 4;
/// Outages of one cause that begin and end this near to each other are one event.
const TOGETHER: DurationMs = DurationMs::from_mins(2);
/// An alert raised this long before an outage's first instant, or after its end, is about it: a reboot
/// is noticed when the host is back.
const TICKET_BEFORE: DurationMs = DurationMs::from_mins(1);
const TICKET_AFTER: DurationMs = DurationMs::from_mins(5);

/// One event.
pub(super) struct OutageRow {
    pub(super) hosts: Vec<Named>,
    /// Hosts that are not named.
    pub(super) more_hosts: usize,
    pub(super) from: TimeText,
    pub(super) length: String,
    pub(super) state: Pill,
    pub(super) cause: String,
    pub(super) ongoing: bool,
    pub(super) tickets: Vec<i64>,
}

/// A host and its page.
pub(super) struct Named {
    pub(super) id: String,
    pub(super) name: String,
    /// Its site, if another host of the contract has the same name.
    pub(super) site: String,
}

/// The sites of hosts whose name another host of the contract has too.
pub(super) type Sites = HashMap<HostId, String>;

/// One outage of one host.
struct One<'a> {
    host: &'a HostReport,
    outage: &'a Outage,
}

/// All hosts' outages as events, newest first and at most so many, and how many are left out.
pub(super) fn outages(
    ctx: &Ctx,
    report: &MonthReport,
    zone: &TimeZone,
    known: (&[OutageTicket], &Sites),
    listed: usize,
) -> (Vec<OutageRow>, usize) {
    let mut events = events(report);
    events.sort_by_key(|event| std::cmp::Reverse(event[0].outage.from));
    let more = events.len().saturating_sub(listed);
    let rows = events.iter().take(listed);
    let rows = rows.map(|event| row(ctx, event, zone, known));
    (rows.collect(), more)
}

/// Outages that are one event, each with the earliest first.
fn events(report: &MonthReport) -> Vec<Vec<One<'_>>> {
    let mut all: Vec<One<'_>> = report
        .hosts
        .iter()
        .flat_map(|host| host.outages.iter().map(move |outage| One { host, outage }))
        .collect();
    all.sort_by_key(|one| one.outage.from);
    let mut events: Vec<Vec<One<'_>>> = Vec::new();
    for one in all {
        let first_near =
            events.partition_point(|event| one.outage.from.since(event[0].outage.from) > TOGETHER);
        let same = events[first_near..]
            .iter_mut()
            .find(|event| is_same(event, &one));
        match same {
            Some(event) => event.push(one),
            None => events.push(vec![one]),
        }
    }
    events
}

fn is_same(event: &[One<'_>], one: &One<'_>) -> bool {
    let (a, b) = (event[0].outage, one.outage);
    let apart = b.to.since(a.to).0.abs();
    a.class == b.class
        && a.state == b.state
        && a.ongoing == b.ongoing
        && apart <= TOGETHER.0
        && event.iter().all(|other| other.host.host != one.host.host)
}

fn row(
    ctx: &Ctx,
    event: &[One<'_>],
    zone: &TimeZone,
    (tickets, sites): (&[OutageTicket], &Sites),
) -> OutageRow {
    let outage = event[0].outage;
    let to = event.iter().map(|one| one.outage.to).max();
    let to = to.unwrap_or(outage.to);
    let (tone, icon) = match outage.class {
        ContractClass::Down => ("crit", "crit"),
        ContractClass::Unknown => ("warn", "unknown"),
        _ => ("idle", "pause"),
    };
    let state = if outage.class == ContractClass::Excluded {
        format!("Excluded: {}", state_word(outage.state).to_lowercase())
    } else {
        state_word(outage.state).to_owned()
    };
    let mut hosts: Vec<Named> = event.iter().map(|one| named(one, sites)).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.truncate(NAMED);
    OutageRow {
        hosts,
        more_hosts: event.len().saturating_sub(NAMED),
        from: ctx.time(outage.from.0).zoned(zone),
        length: format::span(to.since(outage.from)),
        state: pill(tone, icon, state),
        cause: outage.cause_text.clone(),
        ongoing: outage.ongoing,
        tickets: tickets_of(event, tickets),
    }
}

fn named(one: &One<'_>, sites: &Sites) -> Named {
    let site = sites.get(&one.host.host);
    Named {
        id: one.host.host.to_string(),
        name: one.host.name.clone(),
        site: site.cloned().unwrap_or_default(),
    }
}

fn tickets_of(event: &[One<'_>], tickets: &[OutageTicket]) -> Vec<i64> {
    let is_about = |ticket: &&OutageTicket| {
        let raised = UnixMillis(ticket.raised_at);
        event.iter().any(|one| {
            ticket.host_id == one.host.host.uuid()
                && raised >= one.outage.from - TICKET_BEFORE
                && raised < one.outage.to + TICKET_AFTER
        })
    };
    let mut numbers: Vec<i64> = tickets
        .iter()
        .filter(is_about)
        .map(|ticket| ticket.number)
        .collect();
    numbers.sort_unstable();
    numbers.dedup();
    numbers.truncate(TICKETS);
    numbers
}
