//! What an agent reported about its machine besides measurements: what it is, for the host's page; what was
//! busy when a ticket opened, for the ticket's.

use watchkeep_core::rules::CheckKey;
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    wire::{
        heartbeat::Event,
        host::{HostFacts, Process, Processes},
    },
};

use crate::{
    store::views::{self, AlertView, TicketView},
    web::{context::Ctx, error::WebError, format, parts::Time},
};

/// Agents send it once a day; older than this it is not shown.
const TOLD_WITHIN: DurationMs = DurationMs::from_mins(8 * 24 * 60);
/// Most lists of a ticket that are searched for its first one.
const LISTS: usize = 100;
/// How far a list of processes may be from the alert that asked for it.
const BUSIEST_WITHIN: DurationMs = DurationMs::from_mins(2);

/// What the machine is, as label and text.
pub(super) async fn facts(
    ctx: &Ctx,
    host: HostId,
) -> Result<Vec<(&'static str, String)>, WebError> {
    let kinds = ["host_facts", "host_facts"];
    let since = ctx.now - TOLD_WITHIN;
    let events = views::host_events(&ctx.web.app.store, host, since, kinds, 1).await?;
    let facts = events
        .first()
        .and_then(|event| serde_json::from_str(&event.detail).ok());
    Ok(match facts {
        Some(Event::HostFacts(facts)) => in_words(facts),
        _ => Vec::new(),
    })
}

fn in_words(facts: HostFacts) -> Vec<(&'static str, String)> {
    let kernel = match (facts.kernel, facts.arch) {
        (Some(kernel), Some(arch)) => Some(format!("{kernel}, {arch}")),
        (kernel, arch) => kernel.or(arch),
    };
    let size = match (facts.cpus, facts.memory_bytes) {
        (None, None) => None,
        (cpus, memory) => {
            let cpus = cpus.map(|n| format!("{n} processor{}", if n == 1 { "" } else { "s" }));
            let memory = memory.map(|bytes| format::bytes(bytes as f64));
            Some(
                cpus.into_iter()
                    .chain(memory)
                    .collect::<Vec<_>>()
                    .join(", "),
            )
        }
    };
    let platform = match (facts.container, facts.hypervisor) {
        (Some(container), _) => Some(format!("container ({container})")),
        (None, Some(hypervisor)) if hypervisor == "unknown" => Some("VM".to_owned()),
        (None, Some(hypervisor)) => Some(format!("VM ({hypervisor})")),
        (None, None) => None,
    };
    let addresses: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
    let addresses = (!addresses.is_empty()).then(|| addresses.join(", "));
    let unseen = (!facts.unseen.is_empty()).then(|| facts.unseen.join("; "));
    [
        ("System", facts.os),
        ("Kernel", kernel),
        ("Hardware", size),
        ("Platform", platform),
        ("Addresses", addresses),
        ("Not visible to the agent", unseen),
    ]
    .into_iter()
    .filter_map(|(label, text)| Some((label, text?)))
    .collect()
}

/// The busiest processes soon after a ticket opened.
pub(super) struct Busiest {
    pub(super) at: Time,
    pub(super) refused: bool,
    pub(super) lists: Vec<BusyList>,
}

pub(super) struct BusyList {
    pub(super) title: &'static str,
    pub(super) rows: Vec<BusyRow>,
}

pub(super) struct BusyRow {
    pub(super) name: String,
    pub(super) pid: u32,
    pub(super) cpu: String,
    pub(super) memory: String,
}

/// The first list from around the alert that opened the ticket, if that is about what processes use.
/// A list of another time belongs to another alert of the host.
pub(super) async fn busiest(
    ctx: &Ctx,
    ticket: &TicketView,
    opener: Option<&AlertView>,
) -> Result<Option<Busiest>, WebError> {
    let opener = opener.filter(|alert| CheckKey(alert.check_key.clone()).is_about_processes());
    let (Some(host), Some(opener)) = (ticket.host_id, opener) else {
        return Ok(None);
    };
    let kinds = ["processes", "processes"];
    let since = UnixMillis(opener.raised_at) - BUSIEST_WITHIN;
    let until = UnixMillis(opener.raised_at) + BUSIEST_WITHIN;
    let events = views::host_events(&ctx.web.app.store, HostId(host), since, kinds, LISTS).await?;
    let first = events.iter().rfind(|event| event.at <= until.0);
    Ok(
        first.and_then(|event| match serde_json::from_str(&event.detail) {
            Ok(Event::Processes(processes)) => Some(listed(processes, ctx.time(event.at))),
            _ => None,
        }),
    )
}

fn listed(processes: Processes, at: Time) -> Busiest {
    let rows = |list: Vec<Process>| list.into_iter().map(row).collect();
    Busiest {
        at,
        refused: processes.refused,
        lists: vec![
            BusyList {
                title: "By CPU",
                rows: rows(processes.by_cpu),
            },
            BusyList {
                title: "By memory",
                rows: rows(processes.by_memory),
            },
        ],
    }
}

fn row(process: Process) -> BusyRow {
    BusyRow {
        name: process.name,
        pid: process.pid,
        cpu: format!("{:.0} %", process.cpu_pct),
        memory: format::bytes(process.rss_bytes as f64),
    }
}
