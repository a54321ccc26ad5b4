//! Decisions about messages to people: when a failed one is sent again or given up, when a page
//! is handed over to other recipients, and when an undelivered page is reported as a problem of its
//! own. Pure: the outbox's workers carry these decisions out.
//!
//! A page has two clocks. Its *retries* end when the failure is final, or has lasted for the time
//! that its kind of failure is given. Independently of them, a page that reached nobody is handed
//! over after [`HAND_OVER_AFTER`], and one that is still undelivered is reported after
//! [`REPORT_AFTER`], so that a slow failure is noticed before it is a final one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use watchkeep_shared::{DurationMs, UnixMillis};

use crate::rules::{CheckKey, ParseWordError};

/// A page that reached nobody for this long goes to all other recipients.
pub const HAND_OVER_AFTER: DurationMs = DurationMs::from_mins(5);
/// A page that one recipient has not received for this long is reported in a ticket.
pub const REPORT_AFTER: DurationMs = DurationMs::from_mins(15);

/// Time from the first failure until a failure that looks permanent is taken as such.
const LOOKS_PERMANENT_FOR: DurationMs = DurationMs::from_mins(15);
/// Time from the first failure until any message is given up.
const GIVE_UP_AFTER: DurationMs = DurationMs::from_hours(4);
/// First retry; doubled each time.
const FIRST_RETRY: DurationMs = DurationMs::from_secs(2);
/// Longest time between retries of a page in its first hour.
const PAGE_RETRY: DurationMs = DurationMs::from_mins(1);
/// How long pages are retried that often.
const PAGE_RETRY_FOR: DurationMs = DurationMs::from_hours(1);
/// Longest time between retries otherwise.
const LAST_RETRY: DurationMs = DurationMs::from_mins(10);
/// Longest wait that a receiver may ask for, for a page and for a notice.
const MAX_ASKED_WAIT_PAGE: DurationMs = DurationMs::from_mins(5);
const MAX_ASKED_WAIT_NOTICE: DurationMs = DurationMs::from_hours(1);

/// First part of the check of tickets about a channel that does not deliver; the channel follows.
const DELIVERY_CHECK: &str = "delivery:";

/// Whether a message wakes people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// Wakes people; an acknowledgement cancels it.
    Page,
    /// Informs without waking.
    Notice,
}

impl MessageKind {
    /// The kind as one word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Notice => "notice",
        }
    }
}

impl fmt::Display for MessageKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MessageKind {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "page" => Ok(Self::Page),
            "notice" => Ok(Self::Notice),
            _ => Err(ParseWordError {
                found: s.to_owned(),
                expected: "page, notice",
            }),
        }
    }
}

/// How an attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The recipient is refused for good: no such mailbox, an address that is gone.
    Final,
    /// Refused in a way that is usually permanent, but also what a mistake in the settings or a
    /// deployment of the receiver looks like: a wrong password, 404 of a proxy.
    LooksPermanent,
    /// May pass: no answer, "try again later".
    Transient {
        /// The wait that the receiver asked for.
        retry_after: Option<DurationMs>,
    },
}

/// What is known of a message when an attempt failed.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    pub kind: MessageKind,
    /// Failed attempts before this one.
    pub failures: u32,
    /// When the first attempt failed; `None` if this is the first.
    pub first_failed_at: Option<UnixMillis>,
}

/// What follows from a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send again at this time.
    RetryAt(UnixMillis),
    /// Give up.
    Dead,
}

/// Decides what follows from a failed attempt.
pub fn after_failure(tried: &Tried, failure: Failure, now: UnixMillis) -> Next {
    let failing_for = now.since(tried.first_failed_at.unwrap_or(now));
    let (patience, asked) = match failure {
        Failure::Final => return Next::Dead,
        Failure::LooksPermanent => (LOOKS_PERMANENT_FOR, None),
        Failure::Transient { retry_after } => (GIVE_UP_AFTER, retry_after),
    };
    if failing_for >= patience {
        return Next::Dead;
    }
    let (longest, longest_asked) = match tried.kind {
        MessageKind::Page if failing_for < PAGE_RETRY_FOR => (PAGE_RETRY, MAX_ASKED_WAIT_PAGE),
        MessageKind::Page => (LAST_RETRY, MAX_ASKED_WAIT_PAGE),
        MessageKind::Notice => (LAST_RETRY, MAX_ASKED_WAIT_NOTICE),
    };
    let doubled = FIRST_RETRY.0 << tried.failures.min(20);
    let own = DurationMs(doubled.min(longest.0));
    let asked = asked.map_or(DurationMs(0), |wait| wait.min(longest_asked));
    Next::RetryAt(now + own.max(asked))
}

/// The state of one copy of a message, to one recipient. Stored as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyState {
    /// Queued, or failed and queued again.
    Pending,
    /// Delivered.
    Sent,
    /// An acknowledgement or a resolution came first.
    Cancelled,
    /// Given up.
    Dead,
}

impl FromStr for CopyState {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "pending" => Ok(Self::Pending),
            "sent" => Ok(Self::Sent),
            "cancelled" => Ok(Self::Cancelled),
            "dead" => Ok(Self::Dead),
            _ => Err(ParseWordError {
                found: s.to_owned(),
                expected: "pending, sent, cancelled, dead",
            }),
        }
    }
}

/// What becomes of a page whose copies are not all delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandOver {
    /// Someone received it, or nobody has to any more.
    NotNeeded,
    /// Copies are still being tried.
    Wait,
    /// Nobody received it: send it to everyone who has no copy yet.
    Now,
}

/// Decides whether a page is handed over. `created_at` is when it was queued.
pub fn hand_over(
    copies: impl IntoIterator<Item = CopyState>,
    created_at: UnixMillis,
    now: UnixMillis,
) -> HandOver {
    let mut is_pending = false;
    for copy in copies {
        match copy {
            CopyState::Sent | CopyState::Cancelled => return HandOver::NotNeeded,
            CopyState::Pending => is_pending = true,
            CopyState::Dead => {}
        }
    }
    if is_pending && now.since(created_at) < HAND_OVER_AFTER {
        HandOver::Wait
    } else {
        HandOver::Now
    }
}

/// The check of tickets about a channel that does not deliver.
pub fn delivery_check(channel: &str) -> CheckKey {
    CheckKey(format!("{DELIVERY_CHECK}{channel}"))
}

/// Whether a ticket is about delivery itself. Its own pages are never sent to recipients that fail,
/// and their failure is not reported again, so that reports do not feed on each other.
pub fn is_about_delivery(check: &CheckKey) -> bool {
    check.as_str().starts_with(DELIVERY_CHECK)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    /// The instants, in seconds after the first attempt, at which a message that always fails in the
    /// same way is tried, and when it is given up.
    fn attempts(kind: MessageKind, failure: Failure) -> Vec<i64> {
        let mut at = NOW;
        let mut first_failed_at = None;
        let mut list = vec![0];
        for failures in 0..1_000 {
            let tried = Tried {
                kind,
                failures,
                first_failed_at,
            };
            match after_failure(&tried, failure, at) {
                Next::Dead => return list,
                Next::RetryAt(next) => {
                    assert!(next > at);
                    first_failed_at.get_or_insert(at);
                    at = next;
                    list.push(at.since(NOW).0 / 1_000);
                }
            }
        }
        panic!("never given up");
    }

    const TRANSIENT: Failure = Failure::Transient { retry_after: None };

    #[test]
    fn a_page_is_tried_each_minute_for_an_hour_and_given_up_after_four() {
        let page = attempts(MessageKind::Page, TRANSIENT);
        assert_eq!(page[..8], [0, 2, 6, 14, 30, 62, 122, 182]);
        let gaps: Vec<i64> = page.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let in_first_hour = page.iter().filter(|at| **at <= 3_600).count();
        assert!(gaps[..in_first_hour - 1].iter().all(|gap| *gap <= 60));
        assert!(gaps.iter().all(|gap| *gap <= 600));
        let last = *page.last().unwrap();
        assert!((14_400..=15_000).contains(&last), "{last}");
    }

    #[test]
    fn notices_are_tried_less_often() {
        let notice = attempts(MessageKind::Notice, TRANSIENT);
        assert_eq!(
            notice[..11],
            [0, 2, 6, 14, 30, 62, 126, 254, 510, 1_022, 1_622]
        );
    }

    #[test]
    fn what_looks_permanent_is_tried_for_a_quarter_of_an_hour() {
        let page = attempts(MessageKind::Page, Failure::LooksPermanent);
        let last = *page.last().unwrap();
        assert!((900..=960).contains(&last), "{last}");
        assert_eq!(attempts(MessageKind::Page, Failure::Final), [0]);
    }

    #[test]
    fn an_asked_wait_is_kept_within_bounds() {
        let wait = |kind, secs| {
            let tried = Tried {
                kind,
                failures: 0,
                first_failed_at: None,
            };
            let retry_after = Some(DurationMs::from_secs(secs));
            match after_failure(&tried, Failure::Transient { retry_after }, NOW) {
                Next::RetryAt(at) => at.since(NOW).0 / 1_000,
                Next::Dead => panic!("given up"),
            }
        };
        assert_eq!(wait(MessageKind::Page, 0), 2);
        assert_eq!(wait(MessageKind::Page, 90), 90);
        assert_eq!(wait(MessageKind::Page, 86_400), 300);
        assert_eq!(wait(MessageKind::Notice, 86_400), 3_600);
        assert_eq!(wait(MessageKind::Notice, -5), 2);
    }

    #[test]
    fn a_page_is_handed_over_when_nobody_received_it() {
        use CopyState::{Cancelled, Dead, Pending, Sent};
        let later = NOW + HAND_OVER_AFTER;
        let decide = |copies: &[CopyState], now| hand_over(copies.iter().copied(), NOW, now);
        assert_eq!(decide(&[Dead], NOW), HandOver::Now);
        assert_eq!(decide(&[Dead, Dead], NOW), HandOver::Now);
        assert_eq!(decide(&[Dead, Pending], NOW), HandOver::Wait);
        assert_eq!(decide(&[Pending], NOW), HandOver::Wait);
        assert_eq!(decide(&[Dead, Pending], later), HandOver::Now);
        assert_eq!(decide(&[Dead, Sent], later), HandOver::NotNeeded);
        assert_eq!(decide(&[Pending, Sent], later), HandOver::NotNeeded);
        // Acknowledged meanwhile: nobody is to be woken.
        assert_eq!(decide(&[Dead, Cancelled], later), HandOver::NotNeeded);
    }

    #[test]
    fn tickets_about_delivery_are_recognised() {
        assert!(is_about_delivery(&delivery_check("mail")));
        assert!(!is_about_delivery(&CheckKey::host()));
        assert!(!is_about_delivery(&CheckKey::service("delivery:mail")));
    }
}
