//! The ledger: from evidence to observed states, from those to contract classes, availability
//! bounds and the month's report. Each step is a pure function, so a past answer can be computed
//! again for any recorded cut-off.
//!
//! It proves and it never guesses: what evidence does not settle is unknown, and unknown time
//! widens the distance between `a_min` and `a_max`. It does not decide when to page (see
//! [`crate::rules`]) and reads no clock. It cannot fail on evidence: rows in any order, doubled,
//! overlapping or with absurd times give some tiling of the window, in which nothing but frames and
//! kernel records count as up.
//!
//! Not yet: `down_witnessed` (no evidence kind says it), human rulings, service hours other than
//! always, other targets than the mean over hosts, sealed months.

mod classify;
mod facts;
mod interval;
mod link;
mod month;
mod observe;
mod reboot;
mod report;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod verdict;

pub use classify::{
    Availability, ClassTotals, ClassedSpan, ContractClass, Ratio, ServiceHours, Terms, UnknownRule,
    availability, class_of, classify,
};
pub use interval::Interval;
pub use link::{LinkIncident, link_incidents};
pub use month::{DayCell, DayClass, Month, MonthError, day_cells, month_window};
pub use observe::{HostRecord, observe};
pub use report::{
    Contract, HostReport, MonthReport, Outage, ReportInput, StateTotals, report, state_totals,
};
pub use state::{Cause, DownSince, ObservedState, Span};
