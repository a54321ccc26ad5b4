//! The month's report as a table in the form of RFC 4180. Only layout; every number comes from the
//! report.

use watchkeep_shared::DurationMs;

use super::{ClassTotals, Interval, Month, MonthReport, Ratio};
use crate::wording::duration;

const COLUMNS: [&str; 21] = [
    "record",
    "client",
    "contract",
    "month",
    "host",
    "from",
    "to",
    "duration_ms",
    "state",
    "class",
    "cause",
    "up_ms",
    "down_ms",
    "unknown_ms",
    "excluded_ms",
    "not_counted_ms",
    "a_min_percent",
    "a_max_percent",
    "coverage_percent",
    "headline_percent",
    "frames_late",
];

/// One row by column name; columns that are not set stay empty.
#[derive(Default)]
struct Row {
    cells: [String; COLUMNS.len()],
}

impl Row {
    fn set(&mut self, column: &str, text: impl Into<String>) {
        let at = COLUMNS
            .iter()
            .position(|&name| name == column)
            .expect("only columns of the table are set");
        self.cells[at] = text.into();
    }

    fn write(self, out: &mut csv::Writer<Vec<u8>>) {
        out.write_record(self.cells.map(without_formula))
            .expect("all rows are of one length, and writing to memory does not fail");
    }
}

/// Spreadsheets compute a cell that begins like a formula. Numbers here are never negative, so a
/// leading sign is always text.
fn without_formula(cell: String) -> String {
    if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{cell}")
    } else {
        cell
    }
}

pub(super) fn csv(report: &MonthReport, month: &Month) -> String {
    let mut out = csv::WriterBuilder::new()
        .terminator(csv::Terminator::CRLF)
        .from_writer(Vec::new());
    Row {
        cells: COLUMNS.map(str::to_owned),
    }
    .write(&mut out);
    let row = |record: &str, host: &str, span: Interval| {
        let mut row = Row::default();
        row.set("record", record);
        row.set("client", &report.client);
        row.set("contract", &report.contract);
        row.set("month", &report.month);
        row.set("host", host);
        row.set("from", month.local(span.from));
        row.set("to", month.local(span.to));
        row.set("duration_ms", span.len_ms().to_string());
        row
    };
    let figure = |record: &str, host: &str, totals: ClassTotals| {
        let mut row = row(record, host, report.counted);
        for (column, ms) in [
            ("up_ms", totals.up_ms),
            ("down_ms", totals.down_ms),
            ("unknown_ms", totals.unknown_ms),
            ("excluded_ms", totals.excluded_ms),
            ("not_counted_ms", totals.not_counted_ms),
        ] {
            row.set(column, ms.to_string());
        }
        for (column, share) in [
            ("a_min_percent", totals.a_min()),
            ("a_max_percent", totals.a_max()),
            ("coverage_percent", totals.coverage()),
            ("headline_percent", totals.headline(report.unknown_rule)),
        ] {
            row.set(column, share.map(Ratio::percent).unwrap_or_default());
        }
        row
    };
    figure("contract", "", report.availability.totals).write(&mut out);
    for host in &report.hosts {
        figure("host", &host.name, host.availability.totals).write(&mut out);
    }
    for host in &report.hosts {
        for outage in &host.outages {
            let mut row = row("outage", &host.name, Interval::new(outage.from, outage.to));
            row.set("state", outage.state.name());
            row.set("class", outage.class.name());
            row.set("cause", &outage.cause_text);
            row.write(&mut out);
        }
        for incident in &host.link_incidents {
            let span = Interval::new(incident.from, incident.to);
            let mut row = row("link_incident", &host.name, span);
            row.set(
                "cause",
                format!(
                    "The server kept running; the connection was lost for {}.",
                    duration(DurationMs(span.len_ms()))
                ),
            );
            row.set("frames_late", incident.frames_late.to_string());
            row.write(&mut out);
        }
    }
    let bytes = out.into_inner().expect("writing to memory does not fail");
    String::from_utf8(bytes).expect("all cells are text")
}
