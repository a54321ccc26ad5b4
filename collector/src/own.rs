//! The collector's own problems as tickets of the provider: a hold-up, and a wall clock that was set.
//! They are notices by default (P3) and end by themselves; no host is judged by them.

use uuid::Uuid;
use watchkeep_core::{
    alerts::{AlertEvidence, Cleared, Raised},
    evidence::EvidenceKind,
    ids::{AlertId, TicketId},
    rules::{CheckKey, Priority, RuleId, Severity},
    tickets::{
        self, Applied, Firing, NewTicket, RaiseDecision, Ticket, TicketContext, on_alert_raised,
        open_key,
    },
    wording::duration,
};
use watchkeep_shared::{DurationMs, UnixMillis};

use crate::{
    app::App,
    live::Hint,
    store::{StoreError, Tx, fleet, record, tickets as rows},
};

/// Hold-ups that last so long together within [`QUIET`] get a ticket; every one of ten seconds is in
/// the uptime record. A snapshot of the machine or a database that fails over takes less, and there is
/// nothing to do then. But each postpones that silent hosts are found, so many short ones are as bad.
const TOO_LONG: DurationMs = DurationMs::from_mins(2);
/// Hold-ups are over when there was none for so long.
const QUIET: DurationMs = DurationMs::from_hours(1);
/// The rule that these alerts name; no pack has it.
const RULE: &str = "collector";

/// What is wrong with the collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    HeldUp,
    Clock,
}

impl Problem {
    fn check(self) -> CheckKey {
        CheckKey(match self {
            Self::HeldUp => "collector:held_up".to_owned(),
            Self::Clock => "collector:clock".to_owned(),
        })
    }

    /// Always the same, so that the end finds the beginning.
    const fn alert(self) -> AlertId {
        AlertId(Uuid::from_u128(match self {
            Self::HeldUp => 0x0c01_1ec7_0000_7000_8000_0000_0000_0001,
            Self::Clock => 0x0c01_1ec7_0000_7000_8000_0000_0000_0002,
        }))
    }
}

/// A time in which the collector did not run or its store did not commit; it has just ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldUp {
    /// When it last committed.
    pub from: UnixMillis,
    /// When it went on.
    pub to: UnixMillis,
}

impl HoldUp {
    fn length(self) -> DurationMs {
        self.to.since(self.from)
    }
}

/// The hold-ups of the last hour, oldest first.
#[derive(Debug, Default)]
pub struct RecentHoldUps(Vec<HoldUp>);

impl RecentHoldUps {
    /// Adds the newest. Returns what to report, if it is too much by now.
    pub fn add(&mut self, newest: HoldUp) -> Option<HoldUpReport> {
        // One whose commit failed is longer now.
        self.0
            .retain(|one| one.from != newest.from && newest.to.since(one.to) < QUIET);
        self.0.push(newest);
        let together = self.0.iter().map(|one| one.length().0).sum();
        (together >= TOO_LONG.0).then_some(HoldUpReport {
            count: self.0.len(),
            together: DurationMs(together),
        })
    }
}

/// That the collector was held up for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldUpReport {
    /// How many there were in the last hour.
    count: usize,
    /// How long they lasted in all.
    together: DurationMs,
}

/// Writes that the collector was held up. Returns the ticket.
pub async fn held_up(
    app: &App,
    tx: &mut Tx,
    report: HoldUpReport,
    now: UnixMillis,
) -> Result<TicketId, StoreError> {
    let mut detail =
        "No heartbeats were taken in. Hosts are not judged by this time, and the uptime \
         record says that the collector was down."
            .to_owned();
    let together = duration(report.together);
    let summary = match report.count {
        1 => format!("The collector was held up for {together}"),
        count => {
            detail.push_str(" After each time no host is called silent for a while.");
            format!("The collector was held up {count} times within an hour, for {together} in all")
        }
    };
    raise(app, tx, Problem::HeldUp, (summary, detail), now).await
}

/// Opens the ticket about the wall clock if that was set, and ends what is over.
pub async fn tend(app: &App, now: UnixMillis) -> Result<(), StoreError> {
    match app.clock.problem() {
        Some(detail) => {
            if !is_firing(app, Problem::Clock).await? {
                let summary = "The wall clock of the collector's machine was set".to_owned();
                let mut tx = app.store.begin().await?;
                let ticket = raise(app, &mut tx, Problem::Clock, (summary, detail), now).await?;
                tx.commit().await?;
                app.live.hint(Hint::Ticket(ticket.uuid()));
            }
        }
        None => clear(app, Problem::Clock, "the clocks agree again", now).await?,
    }
    if is_firing(app, Problem::HeldUp).await? && !was_held_up_since(app, now - QUIET, now).await? {
        clear(app, Problem::HeldUp, "not held up for an hour", now).await?;
    }
    Ok(())
}

async fn was_held_up_since(
    app: &App,
    from: UnixMillis,
    now: UnixMillis,
) -> Result<bool, StoreError> {
    let rows = record::evidence_of_collector(&app.store, from, now + DurationMs(1)).await?;
    Ok(rows
        .iter()
        .any(|row| row.kind == EvidenceKind::CollectorDown))
}

async fn raise(
    app: &App,
    tx: &mut Tx,
    problem: Problem,
    (summary, detail): (String, String),
    now: UnixMillis,
) -> Result<TicketId, StoreError> {
    let raised = Raised {
        alert: problem.alert(),
        rule: RuleId(RULE.to_owned()),
        check: problem.check(),
        severity: Severity::Warning,
        priority: Priority::P3,
        at: now,
        summary,
        evidence: AlertEvidence {
            detail: Some(detail),
            ..AlertEvidence::default()
        },
    };
    let existing = rows::by_key(tx, &key(problem)).await?;
    let mut applied = apply(app, tx, &raised, (existing, now)).await?;
    applied.ticket.title.clone_from(&raised.summary);
    // Nothing else fires on it, however often the same happens.
    applied.ticket.firing = Firing::NONE.and(raised.priority);
    crate::tickets::write(app, tx, &applied, now).await?;
    tracing::warn!(ticket.number = applied.ticket.number, "{}", raised.summary);
    Ok(applied.ticket.id)
}

async fn apply(
    app: &App,
    tx: &mut Tx,
    raised: &Raised,
    (existing, now): (Option<Ticket>, UnixMillis),
) -> Result<Applied, StoreError> {
    let context = context(app, now);
    Ok(
        match (on_alert_raised(existing.as_ref(), raised, now), &existing) {
            (RaiseDecision::Attach, Some(ticket)) => tickets::attach(ticket, raised, context),
            (RaiseDecision::Reopen, Some(ticket)) => tickets::reopen(ticket, raised, context),
            (decision, _) => {
                let previous = match decision {
                    RaiseDecision::OpenLinked { previous } => Some(previous),
                    _ => None,
                };
                let new = NewTicket {
                    id: TicketId(app.ids.uuid(now)),
                    number: rows::next_number(tx).await?,
                    client: fleet::ensure_client(tx, fleet::OWN_CLIENT, now).await?,
                    contract: None,
                    host: None,
                    host_name: String::new(),
                    previous,
                };
                tickets::open(new, raised, context)
            }
        },
    )
}

async fn is_firing(app: &App, problem: Problem) -> Result<bool, StoreError> {
    let ticket = rows::newest_by_key(&app.store, &key(problem)).await?;
    Ok(ticket.is_some_and(|ticket| !ticket.firing.is_none()))
}

async fn clear(
    app: &App,
    problem: Problem,
    reason: &str,
    now: UnixMillis,
) -> Result<(), StoreError> {
    if !is_firing(app, problem).await? {
        return Ok(());
    }
    let mut tx = app.store.begin().await?;
    let Some(ticket) = rows::by_key(&mut tx, &key(problem)).await? else {
        return Ok(());
    };
    let cleared = Cleared {
        alert: problem.alert(),
        rule: RuleId(RULE.to_owned()),
        check: problem.check(),
        at: now,
        value: None,
        reason: reason.to_owned(),
    };
    let applied = tickets::clear(&ticket, &cleared, Firing::NONE, context(app, now));
    crate::tickets::write(app, &mut tx, &applied, now).await?;
    tx.commit().await?;
    app.live.hint(Hint::Ticket(ticket.id.uuid()));
    Ok(())
}

fn key(problem: Problem) -> String {
    open_key(None, None, &problem.check())
}

fn context(app: &App, now: UnixMillis) -> TicketContext<'_> {
    TicketContext {
        now,
        paging: &app.config.paging,
    }
}
