//! Bounds on the texts and lists of a batch, applied before anything else reads it. Free text (a
//! detail, a log line, a path) is cleaned and cut, and lists are cut, because an alarm must not be
//! lost for the length of its text. Names that are compared are left as they are: a frame with an
//! unsafe one is rejected by itself ([`RejectReason::BadText`]).
//!
//! [`RejectReason::BadText`]: watchkeep_shared::wire::heartbeat::RejectReason::BadText

use watchkeep_shared::wire::{
    heartbeat::{Batch, Event, Proposal, Service},
    host::Process,
    limits,
    policy::{Item, Refusal, ServiceCheck, Trouble},
};

use crate::text::{clean_line, clean_lines, is_safe};

/// Longest version of an agent, bytes.
pub const MAX_VERSION_BYTES: usize = 64;
/// Longest item of a refusal or an agent's problem, bytes.
const MAX_ITEM_BYTES: usize = 512;
/// Longest reason of a refusal, bytes.
const MAX_REASON_BYTES: usize = 512;
/// All refusals of a host together, bytes: they are kept in its state.
const MAX_REFUSED_BYTES: usize = 32 * 1024;
/// Longest proposal in JSON, bytes.
const MAX_PROPOSAL_BYTES: usize = 4 * 1024;
/// All keys and details of a frame's services together, bytes: they are kept in the host's state.
pub(super) const MAX_SERVICES_BYTES: usize = 128 * 1024;
/// What is left of each detail when they exceed that, bytes.
const SHORT_DETAIL_BYTES: usize = 64;

/// Cleans and cuts the texts and lists of a batch.
pub fn clean(batch: &mut Batch) {
    clean_line(&mut batch.agent_version, MAX_VERSION_BYTES);
    if let Some(refused) = &mut batch.refused {
        clean_refused(refused);
    }
    for Trouble { item, detail } in batch.troubles.iter_mut().flatten() {
        clean_line(item, MAX_ITEM_BYTES);
        clean_line(detail, limits::MAX_TEXT_BYTES);
    }
    if let Some(troubles) = &mut batch.troubles {
        troubles.truncate(limits::MAX_TROUBLES);
    }
    for frame in &mut batch.frames {
        if let Some(services) = &mut frame.services {
            clean_services(services);
        }
        for event in &mut frame.events {
            clean_event(event);
        }
    }
}

fn clean_refused(refused: &mut Vec<Refusal>) {
    let mut bytes = 0;
    refused.truncate(limits::MAX_REFUSED);
    refused.retain_mut(|one| {
        clean_line(&mut one.item, MAX_ITEM_BYTES);
        clean_line(&mut one.reason, MAX_REASON_BYTES);
        bytes += one.item.len() + one.reason.len();
        bytes <= MAX_REFUSED_BYTES
    });
}

fn clean_services(services: &mut [Service]) {
    let mut bytes = 0;
    for service in &mut *services {
        if let Some(detail) = &mut service.detail {
            clean_line(detail, limits::MAX_TEXT_BYTES);
        }
        bytes += services_bytes(service);
    }
    if bytes <= MAX_SERVICES_BYTES {
        return;
    }
    for detail in services.iter_mut().filter_map(|one| one.detail.as_mut()) {
        clean_line(detail, SHORT_DETAIL_BYTES);
    }
}

/// What a service adds to the host's state, bytes.
pub(super) fn services_bytes(service: &Service) -> usize {
    service.key.len() + service.detail.as_ref().map_or(0, String::len)
}

fn clean_event(event: &mut Event) {
    match event {
        Event::LogMatch { path, lines, .. } => {
            clean_line(path, limits::MAX_TEXT_BYTES);
            lines.truncate(limits::MAX_LINES_PER_LOG_MATCH);
            for line in lines {
                clean_lines(line, limits::MAX_TEXT_BYTES);
            }
        }
        Event::LogGap { path, .. } => clean_line(path, limits::MAX_TEXT_BYTES),
        Event::Discovered {
            proposals,
            left_out,
        } => {
            let before = proposals.len();
            proposals.truncate(limits::MAX_PROPOSALS);
            proposals.retain_mut(clean_proposal);
            let dropped = u32::try_from(before - proposals.len()).unwrap_or(u32::MAX);
            *left_out = left_out.saturating_add(dropped);
        }
        Event::HostFacts(facts) => {
            let texts = [
                &mut facts.os,
                &mut facts.kernel,
                &mut facts.arch,
                &mut facts.hypervisor,
                &mut facts.container,
            ];
            facts.unseen.truncate(limits::MAX_UNSEEN);
            let texts = texts.into_iter().flatten().chain(&mut facts.unseen);
            for text in texts {
                clean_line(text, limits::MAX_TEXT_BYTES);
            }
        }
        Event::Processes(list) => {
            clean_processes(&mut list.by_cpu);
            clean_processes(&mut list.by_memory);
        }
        Event::AgentStarted { .. }
        | Event::Goodbye { .. }
        | Event::SpoolLoss { .. }
        | Event::Other => {}
    }
}

fn clean_processes(list: &mut Vec<Process>) {
    list.truncate(limits::MAX_PROCESSES_LISTED);
    for one in list {
        clean_line(&mut one.name, limits::MAX_TEXT_BYTES);
    }
}

/// Whether a proposal can be stored. One that can't be used as it is (people add it to a policy with
/// a click) is dropped.
fn clean_proposal(proposal: &mut Proposal) -> bool {
    if let Some(detail) = &mut proposal.detail {
        clean_line(detail, limits::MAX_TEXT_BYTES);
    }
    let is_usable = match &proposal.check {
        Item::Known(check) => is_safe(&check.key()) && is_safe_check(check),
        Item::Unknown(_) => true,
    };
    // A check is made of texts and numbers: it always has a JSON form.
    let json = serde_json::to_vec(&proposal.check).unwrap_or_default();
    is_usable && json.len() <= MAX_PROPOSAL_BYTES
}

/// Whether the texts that are not in the key are safe.
fn is_safe_check(check: &ServiceCheck) -> bool {
    match check {
        ServiceCheck::Http { contains, .. } => contains.as_deref().is_none_or(is_safe),
        ServiceCheck::Tls { server_name, .. } => server_name.as_deref().is_none_or(is_safe),
        ServiceCheck::Process { .. }
        | ServiceCheck::Tcp { .. }
        | ServiceCheck::Systemd { .. }
        | ServiceCheck::WindowsService { .. }
        | ServiceCheck::Certificate { .. } => true,
    }
}
