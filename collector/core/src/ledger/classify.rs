//! From observed states to contract classes, and from those to availability as a bound. Sums are
//! whole milliseconds; fractions are made at the edge, where they are shown. What the evidence
//! proves is not this module's business.

use serde::{Deserialize, Serialize};
use watchkeep_shared::UnixMillis;

use super::{Cause, Interval, ObservedState, Span, interval::Cover};

/// How a stretch of time counts in a contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContractClass {
    /// Proven up.
    Up,
    /// Proven down.
    Down,
    /// No proof either way.
    Unknown,
    /// Agreed to leave the figure, as maintenance does.
    Excluded,
    /// Outside the host's contract days or the service hours.
    NotCounted,
}

impl ContractClass {
    /// Its name as in JSON and CSV, for example `not_counted`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
            Self::Unknown => "unknown",
            Self::Excluded => "excluded",
            Self::NotCounted => "not_counted",
        }
    }
}

/// When a contract counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ServiceHours {
    /// Around the clock, every day.
    #[default]
    Always,
}

/// How the headline treats unknown time. Both bounds stand beside it in every case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownRule {
    /// As if it had been up: the headline is `a_max`.
    CountAsUp,
    /// As if it had been down: the headline is `a_min`.
    CountAsDown,
    /// It leaves numerator and denominator: up / (up + down).
    #[default]
    Exclude,
}

/// What of a contract decides how time counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// When it counts.
    pub service_hours: ServiceHours,
    /// The headline's treatment of unknown time.
    pub unknown_rule: UnknownRule,
    /// Agreed windows that leave the figure, in any order; they may overlap.
    pub excluded: Vec<Interval>,
}

/// A stretch `[from, to)` of one class, with the observed state that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassedSpan {
    /// Its first instant.
    pub from: UnixMillis,
    /// The first instant after it.
    pub to: UnixMillis,
    /// How it counts.
    pub class: ContractClass,
    /// What the evidence proves.
    pub state: ObservedState,
    /// Why.
    pub cause: Cause,
}

impl ClassedSpan {
    /// Its length in milliseconds.
    pub const fn len_ms(&self) -> i64 {
        Interval::new(self.from, self.to).len_ms()
    }
}

/// How a state counts in service time that is not excluded.
pub const fn class_of(state: ObservedState) -> ContractClass {
    match state {
        ObservedState::UpLive | ObservedState::UpProven => ContractClass::Up,
        ObservedState::DownReboot | ObservedState::HostFrozen => ContractClass::Down,
        ObservedState::AgentStopped
        | ObservedState::Stalled
        | ObservedState::CollectorDown
        | ObservedState::Silent
        | ObservedState::Unknown => ContractClass::Unknown,
        ObservedState::NotEnrolled | ObservedState::Retired => ContractClass::NotCounted,
    }
}

/// The spans under a contract's terms: the same time, cut where an excluded window begins or ends.
/// Time that is not counted stays so inside an excluded window.
pub fn classify(spans: &[Span], terms: &Terms) -> Vec<ClassedSpan> {
    let ServiceHours::Always = terms.service_hours;
    let excluded = Cover::of(terms.excluded.clone());
    let mut classed = Vec::with_capacity(spans.len());
    for span in spans {
        let part = |part: Interval, class| ClassedSpan {
            from: part.from,
            to: part.to,
            class,
            state: span.state,
            cause: span.cause,
        };
        let whole = Interval::new(span.from, span.to);
        let class = class_of(span.state);
        if class == ContractClass::NotCounted {
            classed.push(part(whole, class));
            continue;
        }
        let first = classed.len();
        classed.extend(
            excluded
                .gaps(whole)
                .into_iter()
                .map(|free| part(free, class)),
        );
        classed.extend(
            excluded
                .within(whole)
                .map(|out| part(out, ContractClass::Excluded)),
        );
        classed[first..].sort_unstable_by_key(|one| one.from);
    }
    classed
}

/// Milliseconds in each class; they add up to the time that was classed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassTotals {
    /// Proven up.
    pub up_ms: i64,
    /// Proven down.
    pub down_ms: i64,
    /// Without proof.
    pub unknown_ms: i64,
    /// Excluded by agreement.
    pub excluded_ms: i64,
    /// Outside contract days and service hours.
    pub not_counted_ms: i64,
}

impl ClassTotals {
    /// The sums over spans.
    pub fn of(spans: &[ClassedSpan]) -> Self {
        let mut totals = Self::default();
        for span in spans {
            totals.add(span.class, span.len_ms());
        }
        totals
    }

    /// Adds `ms` to one class.
    pub fn add(&mut self, class: ContractClass, ms: i64) {
        let sum = match class {
            ContractClass::Up => &mut self.up_ms,
            ContractClass::Down => &mut self.down_ms,
            ContractClass::Unknown => &mut self.unknown_ms,
            ContractClass::Excluded => &mut self.excluded_ms,
            ContractClass::NotCounted => &mut self.not_counted_ms,
        };
        *sum = sum.saturating_add(ms);
    }

    /// These and `other` together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            up_ms: self.up_ms.saturating_add(other.up_ms),
            down_ms: self.down_ms.saturating_add(other.down_ms),
            unknown_ms: self.unknown_ms.saturating_add(other.unknown_ms),
            excluded_ms: self.excluded_ms.saturating_add(other.excluded_ms),
            not_counted_ms: self.not_counted_ms.saturating_add(other.not_counted_ms),
        }
    }

    /// Agreed service time less what is excluded: the denominator of every bound.
    pub const fn counted_ms(self) -> i64 {
        self.up_ms
            .saturating_add(self.down_ms)
            .saturating_add(self.unknown_ms)
    }

    /// All time that was classed.
    pub const fn sum_ms(self) -> i64 {
        self.counted_ms()
            .saturating_add(self.excluded_ms)
            .saturating_add(self.not_counted_ms)
    }

    /// Availability if all unknown time was down; `None` if no time counts.
    pub const fn a_min(self) -> Option<Ratio> {
        Ratio::of(self.up_ms, self.counted_ms())
    }

    /// Availability if all unknown time was up; `None` if no time counts.
    pub const fn a_max(self) -> Option<Ratio> {
        Ratio::of(
            self.up_ms.saturating_add(self.unknown_ms),
            self.counted_ms(),
        )
    }

    /// The share of counted time for which there is proof; `None` if no time counts.
    pub const fn coverage(self) -> Option<Ratio> {
        Ratio::of(self.up_ms.saturating_add(self.down_ms), self.counted_ms())
    }

    /// The figure by the contract's rule for unknown time, never outside the two bounds; `None` if
    /// no time counts, or if all of it is unknown and the rule leaves that out.
    pub const fn headline(self, rule: UnknownRule) -> Option<Ratio> {
        match rule {
            UnknownRule::CountAsUp => self.a_max(),
            UnknownRule::CountAsDown => self.a_min(),
            UnknownRule::Exclude => Ratio::of(self.up_ms, self.up_ms.saturating_add(self.down_ms)),
        }
    }
}

/// An exact share of time, 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ratio {
    /// Milliseconds that have the property.
    pub part_ms: i64,
    /// Milliseconds in all, more than 0.
    pub whole_ms: i64,
}

impl Ratio {
    const fn of(part_ms: i64, whole_ms: i64) -> Option<Self> {
        if whole_ms > 0 {
            Some(Self { part_ms, whole_ms })
        } else {
            None
        }
    }

    /// As a number from 0 to 1.
    pub fn fraction(self) -> f64 {
        self.part_ms as f64 / self.whole_ms as f64
    }

    /// As a percentage with four decimals, rounded down, so that `100.0000` means all of it.
    pub fn percent(self) -> String {
        let parts = i128::from(self.part_ms) * 1_000_000 / i128::from(self.whole_ms);
        format!("{}.{:04}", parts / 10_000, parts % 10_000)
    }
}

/// Availability: exact sums, both bounds, coverage and the headline. Fractions are from 0 to 1 and
/// `None` where no time counts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Availability {
    /// The sums that the fractions are made of.
    pub totals: ClassTotals,
    /// up / counted.
    pub a_min: Option<f64>,
    /// (up + unknown) / counted.
    pub a_max: Option<f64>,
    /// (up + down) / counted.
    pub coverage: Option<f64>,
    /// By the contract's rule for unknown time.
    pub headline: Option<f64>,
}

impl Availability {
    /// From sums.
    pub fn of(totals: ClassTotals, rule: UnknownRule) -> Self {
        Self {
            totals,
            a_min: totals.a_min().map(Ratio::fraction),
            a_max: totals.a_max().map(Ratio::fraction),
            coverage: totals.coverage().map(Ratio::fraction),
            headline: totals.headline(rule).map(Ratio::fraction),
        }
    }
}

/// The availability over spans.
pub fn availability(spans: &[ClassedSpan], rule: UnknownRule) -> Availability {
    Availability::of(ClassTotals::of(spans), rule)
}
