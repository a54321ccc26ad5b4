//! What must hold after each step of any scenario, whatever happened. Each check reads the store
//! and compares with what the scenario itself knows to be true.

use std::collections::HashSet;

use uuid::Uuid;
use watchkeep_shared::{DurationMs, UnixMillis};

use super::{
    log::{Happened, events_after},
    operations::FIRST_ID,
    world::World,
};

/// A host is silent this long after its last heartbeat.
const SILENT_AFTER: DurationMs = DurationMs::from_secs(25);

/// Agents beat more often, and try again within a second or two: after a shorter hold-up they are
/// back soon.
const LONG_HOLD_UP: DurationMs = DurationMs::from_secs(10);
const AFTER_SHORT_HOLD_UP: DurationMs = DurationMs::from_secs(5);

/// What the scenario knows beside its machines.
#[derive(Debug, Default)]
pub(super) struct Witness {
    /// Times in which no heartbeat could arrive: the collector did not run, was held up, or
    /// could not commit.
    deaf: Vec<(UnixMillis, UnixMillis)>,
    /// Alerts about silence that were looked at.
    silences: HashSet<Uuid>,
    /// How many of them were about a machine that ran: its line let nothing through for 25 s.
    pub(super) lines_silent: u32,
    /// The newest line of a timeline that was looked at.
    last_event: i64,
    /// Tickets, by number, that a person answered or that are over.
    answered: HashSet<i64>,
}

impl Witness {
    pub(super) fn collector_could_not_hear(&mut self, from: UnixMillis, to: UnixMillis) {
        match self.deaf.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => self.deaf.push((from, to)),
        }
    }

    /// A collector starts, and its time jumps to `now`.
    pub(super) fn time_jumped(&mut self, by: DurationMs, now: UnixMillis) {
        match self.deaf.last_mut() {
            Some(last) if by.0 != 0 || last.1 >= now - DurationMs::from_secs(1) => {
                *last = (last.0.min(now), now);
            }
            _ => self.deaf.push((now, now)),
        }
    }

    /// Whether a host that beats might not have got through before `at`: within its limit the collector
    /// was deaf for long, or a little and until just now.
    fn could_not_hear(&self, at: UnixMillis) -> bool {
        self.deaf.iter().any(|(start, end)| {
            let is_near = *start < at && at - SILENT_AFTER <= *end;
            let is_short = end.since(*start) < LONG_HOLD_UP;
            is_near && (!is_short || at.since(*end) < AFTER_SHORT_HOLD_UP)
        })
    }

    pub(super) fn was_deaf(&self, from: UnixMillis, to: UnixMillis) -> bool {
        self.deaf
            .iter()
            .any(|(start, end)| *start < to && from <= *end)
    }
}

type Broken = Result<(), String>;

/// Checks all.
pub(super) async fn check(world: &mut World) -> Broken {
    one_open_ticket_a_key(world).await?;
    acknowledged_is_stored_once(world).await?;
    firing_has_an_open_ticket(world).await?;
    no_page_after_an_answer(world).await?;
    silent_only_after_silence(world).await
}

/// At most one open automatic ticket for a key.
async fn one_open_ticket_a_key(world: &mut World) -> Broken {
    let doubled: Vec<(String, i64)> = world
        .probe
        .rows(
            "SELECT dedup_key, COUNT(*) FROM ticket WHERE dedup_key IS NOT NULL \
             AND state NOT IN ('resolved', 'closed') GROUP BY dedup_key HAVING COUNT(*) > 1",
        )
        .await;
    none(&doubled, "more than one open ticket of a key")
}

/// No host is called silent whose heartbeats arrived within its limit, or could not have arrived.
async fn silent_only_after_silence(world: &mut World) -> Broken {
    let alerts: Vec<(Uuid, Uuid, i64)> = world
        .probe
        .rows(
            "SELECT id, host_id, raised_at FROM alert WHERE rule_id = 'host-silent' \
             ORDER BY raised_at",
        )
        .await;
    for (alert, host, at) in alerts {
        // Each once: the collector's time may have jumped since.
        if !world.witness.silences.insert(alert) {
            continue;
        }
        let at = UnixMillis(at);
        let index = host.as_u128().checked_sub(FIRST_ID);
        let Some(machine) = index.and_then(|index| world.machines.get(index as usize)) else {
            continue;
        };
        let window = (at - SILENT_AFTER, at);
        if machine.was_heard(window.0, window.1) {
            return Err(format!(
                "{} was called silent at {at:?} though its last heartbeat arrived less than 25 s before",
                machine.name
            ));
        }
        world.witness.lines_silent += u32::from(!machine.was_off(window.0, window.1));
        if world.witness.could_not_hear(at) {
            return Err(format!(
                "{} was called silent at {at:?} though nobody could get through before that",
                machine.name
            ));
        }
    }
    Ok(())
}

/// Every firing alert has an open ticket, or one that says why it is not: a person resolved it, and
/// it will be checked again.
async fn firing_has_an_open_ticket(world: &mut World) -> Broken {
    let orphans: Vec<(String, String, String)> = world
        .probe
        .rows(
            "SELECT alert.rule_id, alert.check_key, COALESCE(ticket.state, 'no ticket') FROM alert \
             LEFT JOIN ticket ON ticket.id = alert.ticket_id \
             WHERE alert.cleared_at IS NULL AND (ticket.id IS NULL \
             OR (ticket.state IN ('resolved', 'closed') AND ticket.recheck_at IS NULL))",
        )
        .await;
    none(&orphans, "an alert fires and no ticket is open")
}

/// No page after an answer unless something worse began, and none about what is over.
async fn no_page_after_an_answer(world: &mut World) -> Broken {
    let events = events_after(&mut world.probe, world.witness.last_event).await;
    for event in &events {
        world.witness.last_event = event.id;
        let answered = &mut world.witness.answered;
        match event.kind.as_str() {
            "acknowledged" | "assigned" | "resolved" | "closed" | "handed_back" => {
                answered.insert(event.number);
            }
            "opened" | "reopened" | "episode_started" => {
                answered.remove(&event.number);
            }
            "escalated" | "paged" if answered.contains(&event.number) => {
                return Err(escalated(event));
            }
            _ => {}
        }
    }
    let pages: Vec<(i64, i64)> = world
        .probe
        .rows(
            "SELECT outbox.id, ticket.number FROM outbox JOIN ticket ON ticket.id = outbox.ticket_id \
             WHERE outbox.kind = 'page' AND outbox.state = 'pending' \
             AND (ticket.acknowledged_at IS NOT NULL OR ticket.over_at IS NOT NULL)",
        )
        .await;
    none(
        &pages,
        "a page waits about something that a person has, or that is over",
    )
}

fn escalated(event: &Happened) -> String {
    format!(
        "ticket #{} was escalated though a person had it or it was over",
        event.number
    )
}

/// Nothing that was acknowledged is lost or stored twice.
async fn acknowledged_is_stored_once(world: &mut World) -> Broken {
    let doubled: Vec<(Uuid, i64, i64)> = world
        .probe
        .rows(
            "SELECT instance, seq, COUNT(*) FROM heartbeat GROUP BY host_id, instance, seq \
             HAVING COUNT(*) > 1",
        )
        .await;
    none(&doubled, "a heartbeat is stored twice")?;
    let rows: Vec<(Uuid, i64)> = world
        .probe
        .rows("SELECT instance, seq FROM heartbeat")
        .await;
    let stored: HashSet<(Uuid, u64)> = rows
        .into_iter()
        .map(|(instance, seq)| (instance, seq as u64))
        .collect();
    for machine in &world.machines {
        let lost = machine
            .acknowledged
            .iter()
            .find(|frame| !stored.contains(*frame));
        if let Some((_, seq)) = lost {
            return Err(format!(
                "frame {seq} of {} was acknowledged and is not in the store",
                machine.name
            ));
        }
    }
    Ok(())
}

fn none<T: std::fmt::Debug>(found: &[T], what: &str) -> Broken {
    if found.is_empty() {
        Ok(())
    } else {
        Err(format!("{what}: {found:?}"))
    }
}
