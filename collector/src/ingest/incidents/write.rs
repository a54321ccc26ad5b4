//! Writes what a round changes about an incident.

use watchkeep_core::{
    alerts::{AlertEvidence, Cleared, Raised},
    ids::{AlertId, SiteId, TicketId},
    incidents::{IncidentScope, Tally, steps, text, text::Names},
    rules::{Priority, RuleId, Severity},
    tickets::{
        Applied, Firing, NewTicket, RaiseDecision, Ticket, TicketContext, call_again, comment,
        on_alert_raised, open_key,
    },
};
use watchkeep_shared::UnixMillis;

use super::{Beginning, IncidentWrites, Joined, Step};
use crate::{
    app::App,
    ingest::commit::new_alert,
    paging::PagingTables,
    store::{StoreError, Tx, fleet, incidents as rows, record, tickets},
};

/// Most hosts that a text names.
const MAX_LISTED: usize = 20;

/// Whose incident it is.
struct Owner {
    site: rows::Site,
    id: Option<SiteId>,
}

/// Writes all of it. Returns the incident's ticket.
pub(in crate::ingest) async fn write(
    app: &App,
    tx: &mut Tx,
    one: &IncidentWrites,
    now: UnixMillis,
) -> Result<TicketId, StoreError> {
    let ticket = ticket_of(app, tx, one, now).await?;
    let mut alerts = Vec::with_capacity(one.joined.len());
    for Joined { subject, raised } in &one.joined {
        alerts.push(new_alert(subject.host, raised, ticket, now)?);
    }
    record::insert_alerts(tx, &alerts).await?;
    for cleared in &one.left {
        record::end_alert(tx, cleared.alert, cleared.at, &cleared.reason).await?;
    }
    let reported_at = one.incident.is_reported.then_some(now.0);
    let row = rows::IncidentRow {
        ticket_id: ticket.uuid(),
        scope: one.scope.to_string(),
        opened_at: one.incident.opened_at.0,
        total: i64::from(one.incident.total),
        last_return_at: one.incident.last_return_at.map(|at| at.0),
        reported_at,
    };
    let ended = matches!(one.step, Step::End).then_some(now);
    rows::put(tx, &row, ended).await?;
    if let Some(applied) = later_step(app, tx, ticket, one, now).await? {
        crate::tickets::write(app, tx, &applied, now).await?;
    }
    let first = one.joined.first().map(|host| host.raised.priority);
    let firing = Firing::new(one.incident.away, Some(first.unwrap_or(Priority::P1)));
    tickets::set_firing(tx, ticket, firing).await?;
    Ok(ticket)
}

/// The ticket, opened or reopened if the incident begins, or if hosts join while people think that
/// it is over.
async fn ticket_of(
    app: &App,
    tx: &mut Tx,
    one: &IncidentWrites,
    now: UnixMillis,
) -> Result<TicketId, StoreError> {
    let beginning = match (&one.step, one.ticket) {
        (Step::Begin(beginning), _) => beginning.clone(),
        (_, Some(ticket)) => {
            let Some(first) = one.joined.first() else {
                return Ok(ticket);
            };
            let is_open = tickets::by_id(tx, ticket)
                .await?
                .is_some_and(|ticket| ticket.state.is_open());
            if is_open {
                return Ok(ticket);
            }
            beginning_again(one, &first.raised.rule)
        }
        // An incident begins with the round that opens it.
        (_, None) => {
            return Err(StoreError::corrupt(
                "incident",
                "ticket_id",
                one.scope,
                "none",
            ));
        }
    };
    let begun = begin(app, tx, one, &beginning, now).await?;
    if let Some(before) = one.ticket.filter(|before| *before != begun) {
        rows::move_to(tx, before, begun, now).await?;
        tickets::set_firing(tx, before, Firing::NONE).await?;
    }
    Ok(begun)
}

/// Hosts join an incident whose ticket a person has resolved.
fn beginning_again(one: &IncidentWrites, rule: &RuleId) -> Beginning {
    let mut joined = Names::default();
    for host in &one.joined {
        joined.add(&host.subject.name);
    }
    Beginning {
        rule: rule.clone(),
        tally: Tally {
            silent: one.incident.away,
            late: 0,
            live: one.incident.total - one.incident.away,
        },
        joined,
    }
}

async fn begin(
    app: &App,
    tx: &mut Tx,
    one: &IncidentWrites,
    beginning: &Beginning,
    now: UnixMillis,
) -> Result<TicketId, StoreError> {
    let owner = owner(tx, one.scope, now).await?;
    let linked = match owner.id {
        Some(site) => rows::linked(tx, beginning.rule.as_str(), site, MAX_LISTED).await?,
        None => Vec::new(),
    };
    let linked: Vec<String> = linked
        .into_iter()
        .map(|(name, number)| format!("{name} (#{number})"))
        .collect();
    let first = one.joined.first().map(|host| &host.raised);
    let raised = Raised {
        alert: AlertId(app.ids.uuid(now)),
        rule: beginning.rule.clone(),
        check: one.scope.check(),
        severity: first.map_or(Severity::Critical, |raised| raised.severity),
        priority: first.map_or(Priority::P1, |raised| raised.priority),
        at: now,
        summary: text::silent(one.scope, &owner.site.name, beginning.tally),
        evidence: AlertEvidence {
            detail: Some(text::detail(&beginning.joined, &linked)),
            ..AlertEvidence::default()
        },
    };
    let key = open_key(owner.site.contract, None, &raised.check);
    let existing = tickets::by_key(tx, &key).await?;
    let is_continued = matches!(
        on_alert_raised(existing.as_ref(), &raised, now),
        RaiseDecision::Attach | RaiseDecision::Reopen
    );
    let new = NewTicket {
        id: TicketId(app.ids.uuid(now)),
        number: match &existing {
            Some(ticket) if is_continued => ticket.number,
            _ => tickets::next_number(tx).await?,
        },
        client: owner.site.client,
        contract: owner.site.contract,
        host: None,
        host_name: String::new(),
        previous: None,
    };
    let paging = PagingTables::new(app).of(tx, owner.site.contract).await?;
    let context = TicketContext {
        now,
        paging: &paging,
    };
    let applied = steps::begin(existing.as_ref(), new, &raised, context);
    crate::tickets::write(app, tx, &applied, now).await?;
    Ok(applied.ticket.id)
}

/// A site's client and contract; the fleet's incidents belong to the provider itself.
async fn owner(tx: &mut Tx, scope: IncidentScope, now: UnixMillis) -> Result<Owner, StoreError> {
    if let IncidentScope::Site(id) = scope
        && let Some(site) = rows::site(tx, id).await?
    {
        return Ok(Owner { site, id: Some(id) });
    }
    let site = rows::Site {
        client: fleet::ensure_client(tx, fleet::OWN_CLIENT, now).await?,
        contract: None,
        name: String::new(),
    };
    Ok(Owner { site, id: None })
}

/// What the step says on a ticket that is open already.
async fn later_step(
    app: &App,
    tx: &mut Tx,
    id: TicketId,
    one: &IncidentWrites,
    now: UnixMillis,
) -> Result<Option<Applied>, StoreError> {
    if matches!(one.step, Step::Silent | Step::Begin(_)) {
        return Ok(None);
    }
    let Some(ticket) = tickets::by_id(tx, id).await? else {
        return Ok(None);
    };
    let paging = PagingTables::new(app).of(tx, ticket.contract).await?;
    let context = TicketContext {
        now,
        paging: &paging,
    };
    Ok(match &one.step {
        Step::Silent | Step::Begin(_) => None,
        Step::Note(text) => Some(comment(&ticket, text.clone(), context)),
        Step::ReportMissing => report_missing(app, tx, &ticket, one, context).await?,
        Step::End => {
            let cleared = Cleared {
                alert: AlertId(app.ids.uuid(now)),
                rule: RuleId(String::new()),
                check: one.scope.check(),
                at: now,
                value: None,
                reason: text::over(&one.incident, now),
            };
            Some(steps::end(&ticket, &cleared, context))
        }
    })
}

/// Reports those that did not come back, unless a person has resolved the ticket.
async fn report_missing(
    app: &App,
    tx: &mut Tx,
    ticket: &Ticket,
    one: &IncidentWrites,
    context: TicketContext<'_>,
) -> Result<Option<Applied>, StoreError> {
    let now = context.now;
    if !ticket.state.is_open() {
        return Ok(None);
    }
    let owner = owner(tx, one.scope, now).await?;
    let names = rows::missing(tx, ticket.id, MAX_LISTED).await?;
    let names = Names::first_of(names, one.incident.away);
    let raised = Raised {
        alert: AlertId(app.ids.uuid(now)),
        rule: RuleId(String::new()),
        check: one.scope.check(),
        severity: ticket.severity,
        priority: ticket.priority,
        at: now,
        summary: text::missing(one.scope, &owner.site.name, &one.incident, &names),
        evidence: AlertEvidence::default(),
    };
    Ok(Some(call_again(ticket, &raised, context)))
}
