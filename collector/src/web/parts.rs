//! Parts of several pages: icons, states, times, gauges. Each is a small template that
//! may be written into another as it is.

use askama::{Template, filters::HtmlSafe};
use jiff::tz::TimeZone;
use watchkeep_shared::UnixMillis;

use super::format;
use crate::{health::Health, store::views::TicketView};

/// An icon from the sprite; always next to a word that says the same.
#[derive(Clone, Debug, Template)]
#[template(path = "parts/icon.html")]
pub(crate) struct Icon<'a> {
    name: &'a str,
}

impl HtmlSafe for Icon<'_> {}

/// The icon of a name in `assets/icons.svg`.
pub(crate) const fn icon(name: &str) -> Icon<'_> {
    Icon { name }
}

/// A state: colour, icon and word together, so that colour is never the only sign.
#[derive(Clone, Debug, Template)]
#[template(path = "parts/pill.html")]
pub(crate) struct Pill {
    /// `ok`, `warn`, `crit`, `info` or `idle`.
    pub(crate) tone: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) word: String,
}

impl HtmlSafe for Pill {}

/// Makes a [`Pill`].
pub(crate) fn pill(tone: &'static str, icon: &'static str, word: impl Into<String>) -> Pill {
    Pill {
        tone,
        icon,
        word: word.into(),
    }
}

/// An instant in both forms.
#[derive(Clone, Debug)]
pub(crate) struct Time {
    at: UnixMillis,
    now: UnixMillis,
}

/// An instant on a page.
#[derive(Clone, Debug, Template)]
#[template(path = "parts/time.html")]
pub(crate) struct TimeText {
    iso: String,
    /// How the page's script shows it: `ago`, `at`, or `zoned` for as it is.
    show: &'static str,
    title: String,
    text: String,
}

impl HtmlSafe for TimeText {}

impl Time {
    pub(crate) const fn new(at: UnixMillis, now: UnixMillis) -> Self {
        Self { at, now }
    }

    /// "5 min ago".
    pub(crate) fn ago(&self) -> TimeText {
        TimeText {
            iso: format::iso(self.at),
            show: "ago",
            title: format::utc(self.at),
            text: format::ago(self.at, self.now),
        }
    }

    /// "2026-11-21 21:03:05 UTC", in the reader's zone once the script has run.
    pub(crate) fn at(&self) -> TimeText {
        TimeText {
            iso: format::iso(self.at),
            show: "at",
            title: format::ago(self.at, self.now),
            text: format::utc(self.at),
        }
    }

    /// "21 Nov 2026, 22:03:05 CET", in a contract's zone whatever the reader's is.
    pub(crate) fn zoned(&self, zone: &TimeZone) -> TimeText {
        TimeText {
            iso: format::iso(self.at),
            show: "zoned",
            title: format::ago(self.at, self.now),
            text: format::zoned(self.at, zone),
        }
    }
}

/// A share of something limited, as a bar and a number.
#[derive(Clone, Debug, Template)]
#[template(path = "parts/gauge.html")]
pub(crate) struct Gauge {
    /// Empty: there is no reading.
    text: String,
    title: String,
    tone: &'static str,
    width: i64,
}

impl HtmlSafe for Gauge {}

impl Gauge {
    /// `value` from 0 to 100; colours follow the default rules' levels.
    pub(crate) fn percent(value: Option<f64>, title: impl Into<String>) -> Self {
        let Some(value) = value else {
            return Self {
                text: String::new(),
                title: String::new(),
                tone: "",
                width: 0,
            };
        };
        let tone = match value {
            v if v >= 95.0 => "crit",
            v if v >= 85.0 => "warn",
            _ => "ok",
        };
        let width = value.clamp(0.0, 100.0).round() as i64;
        Self {
            text: format::percent(value),
            title: title.into(),
            tone,
            width,
        }
    }
}

/// One line of a list of tickets.
#[derive(Clone, Debug)]
pub(crate) struct TicketRow {
    pub(crate) number: i64,
    pub(crate) title: String,
    pub(crate) host: String,
    pub(crate) client: String,
    pub(crate) site: String,
    pub(crate) priority: String,
    pub(crate) state: Pill,
    /// What the state alone does not say.
    pub(crate) mark: Option<Pill>,
    pub(crate) assignee: String,
    pub(crate) opened: Time,
    /// It is open and nobody has acknowledged it.
    pub(crate) is_unanswered: bool,
}

/// A table of tickets.
#[derive(Clone, Debug, Template)]
#[template(path = "parts/ticket_rows.html")]
pub(crate) struct TicketRows {
    /// In a form for several tickets.
    pub(crate) can_select: bool,
    pub(crate) tickets: Vec<TicketRow>,
}

impl HtmlSafe for TicketRows {}

impl TicketRows {
    /// A table to read.
    pub(crate) fn of(tickets: &[TicketView], now: UnixMillis) -> Self {
        let rows = tickets.iter().map(|ticket| TicketRow::of(ticket, now));
        Self {
            can_select: false,
            tickets: rows.collect(),
        }
    }

    /// A table to select tickets in.
    pub(crate) fn selectable(tickets: &[TicketView], now: UnixMillis) -> Self {
        Self {
            can_select: true,
            ..Self::of(tickets, now)
        }
    }

    /// Whether there is something to acknowledge.
    pub(crate) fn has_unanswered(&self) -> bool {
        self.tickets.iter().any(|ticket| ticket.is_unanswered)
    }
}

impl TicketRow {
    fn of(ticket: &TicketView, now: UnixMillis) -> Self {
        Self {
            is_unanswered: ticket.is_open() && ticket.acknowledged_at.is_none(),
            number: ticket.number,
            title: ticket.title.clone(),
            host: ticket.host.clone().unwrap_or_default(),
            client: ticket.client.clone(),
            site: ticket.site.clone().unwrap_or_default(),
            priority: ticket.priority.to_uppercase(),
            state: ticket_state(&ticket.state),
            mark: ticket_mark(ticket),
            assignee: ticket.assignee_name.clone().unwrap_or_default(),
            opened: Time::new(UnixMillis(ticket.opened_at), now),
        }
    }
}

/// How a host is.
pub(crate) fn health(health: Health) -> Pill {
    let (tone, icon) = match health {
        Health::Quarantined => ("crit", "warn"),
        Health::Revoked => ("crit", "crit"),
        Health::Silent => ("crit", "silent"),
        Health::Alerting => ("warn", "warn"),
        Health::Waiting => ("idle", "wait"),
        Health::Up => ("ok", "up"),
        Health::Retired => ("idle", "info"),
    };
    pill(tone, icon, health.label())
}

/// A ticket's state, from its stored word, with its icon and its word for people.
pub(crate) fn ticket_state(state: &str) -> Pill {
    match state {
        "new" => pill("crit", "bell", "New"),
        "open" => pill("info", "play", "Open"),
        "waiting_customer" => pill("warn", "pause", "Waiting: customer"),
        "waiting_supplier" => pill("warn", "pause", "Waiting: supplier"),
        "waiting_scheduled" => pill("warn", "pause", "Waiting: scheduled"),
        "resolved" => pill("ok", "check", "Resolved"),
        "closed" => pill("idle", "check", "Closed"),
        other => pill("idle", "unknown", other),
    }
}

/// Marks a ticket whose alerts say something else than its state.
pub(crate) fn ticket_mark(ticket: &TicketView) -> Option<Pill> {
    if ticket.is_recovered() {
        Some(pill("ok", "up", "Recovered"))
    } else if ticket.is_resolved_while_firing() {
        Some(pill("warn", "warn", "Still firing"))
    } else {
        None
    }
}

/// The tone and icon of a severity.
pub(crate) fn severity(word: &str) -> (&'static str, &'static str) {
    match word {
        "critical" => ("crit", "crit"),
        "warning" => ("warn", "warn"),
        _ => ("info", "info"),
    }
}
