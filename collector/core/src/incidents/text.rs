//! What the tickets and messages of incidents say.

use watchkeep_shared::{DurationMs, UnixMillis};

use super::{Incident, IncidentScope, Tally};
use crate::wording::duration;

/// Most names in one text.
const MAX_NAMES: usize = 20;

/// Names of hosts, as many as a text holds, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    names: Vec<String>,
    count: u32,
}

impl Names {
    /// Adds one.
    pub fn add(&mut self, name: &str) {
        self.count += 1;
        if self.names.len() < MAX_NAMES {
            self.names.push(name.to_owned());
        }
    }

    /// So many in all, of which these are the first.
    pub fn first_of(names: Vec<String>, count: u32) -> Self {
        let mut names = names;
        names.truncate(MAX_NAMES);
        Self { names, count }
    }

    /// How many there are.
    pub const fn count(&self) -> u32 {
        self.count
    }
}

impl std::fmt::Display for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.names.join(", "))?;
        match self.count as usize - self.names.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The title while hosts are silent: `Site Bergen: 12 of 12 hosts silent - probably the site or its
/// internet connection`.
pub fn silent(scope: IncidentScope, site_name: &str, tally: Tally) -> String {
    let all = tally.silent + tally.live + tally.late;
    let counts = format!("{} of {all} hosts silent", tally.silent);
    let is_all = tally.live + tally.late == 0;
    match scope {
        IncidentScope::Site(_) if is_all => {
            format!("Site {site_name}: {counts} - probably the site or its internet connection")
        }
        IncidentScope::Site(_) => {
            format!("Site {site_name}: {counts} - probably something they share")
        }
        IncidentScope::Fleet => format!(
            "Collector: {counts} at several sites - probably the collector's internet connection"
        ),
    }
}

/// The title once most hosts are back: `Site Bergen is back, 2 of 12 hosts are not: db1, db2`.
pub fn missing(
    scope: IncidentScope,
    site_name: &str,
    incident: &Incident,
    missing: &Names,
) -> String {
    let subject = match scope {
        IncidentScope::Site(_) => format!("Site {site_name} is back"),
        IncidentScope::Fleet => "Most hosts are back".to_owned(),
    };
    let are = if incident.away == 1 { "is" } else { "are" };
    format!(
        "{subject}, {} of {} hosts {are} not: {missing}",
        incident.away, incident.total
    )
}

/// A line of the timeline: which hosts fell silent and came back since the line before. `None` if
/// none did.
pub fn changes(incident: &Incident, joined: &Names, back: &Names) -> Option<String> {
    let mut lines = Vec::new();
    if joined.count() > 0 {
        lines.push(format!("Silent too: {joined}"));
    }
    if back.count() > 0 {
        lines.push(format!("Back: {back}"));
    }
    let count = incident.total - incident.away;
    (!lines.is_empty()).then(|| {
        format!(
            "{}. {count} of {} hosts are back.",
            lines.join(". "),
            incident.total
        )
    })
}

/// More about a beginning incident: which hosts, and which of the same site have tickets of their own.
pub fn detail(joined: &Names, linked: &[String]) -> String {
    let mut text = format!("Silent: {joined}");
    if !linked.is_empty() {
        text.push_str("\nSilent before, with tickets of their own: ");
        text.push_str(&linked.join(", "));
    }
    text
}

/// Why an incident is over.
pub fn over(incident: &Incident, now: UnixMillis) -> String {
    let took = duration(DurationMs(now.since(incident.opened_at).0.max(0)));
    match incident.total {
        0 => format!("none of its hosts is watched any more, after {took}"),
        1 => format!("the host is back after {took}"),
        total => format!("all {total} hosts are back after {took}"),
    }
}
