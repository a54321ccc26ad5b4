//! Who is woken for what: a table from a ticket's priority, inside and outside of service hours, to
//! whether it pages, sends a notice, or only appears in the queue.

use std::{fmt, str::FromStr};

use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser::SerializeMap as _};
use watchkeep_shared::UnixMillis;

use super::hours::WeeklyHours;
use crate::rules::{ParseWordError, Priority};

/// How far the news of a ticket reaches, loudest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Urgency {
    /// A page: it wakes the people on call.
    Page,
    /// A notice: a message that wakes nobody.
    Notice,
    /// No message; the ticket is in the queue.
    Queue,
}

/// The urgency of one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PagingRule {
    /// The same at all times.
    Always(Urgency),
    /// By the service hours.
    ByHours {
        /// Inside of them.
        service_hours: Urgency,
        /// Outside of them.
        otherwise: Urgency,
    },
}

/// The table as people write it, in the settings and for a contract, and as it is stored with a
/// contract. What is left out is inherited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PagingSettings {
    /// When the rules by hours count as inside, in the contract's time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_hours: Option<WeeklyHours>,
    /// The time zone of the service hours of hosts without a contract. In the settings only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// At once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p1: Option<PagingRule>,
    /// Within the hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p2: Option<PagingRule>,
    /// Today.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p3: Option<PagingRule>,
    /// When there is time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p4: Option<PagingRule>,
}

/// A complete table.
#[derive(Clone, Debug, PartialEq)]
pub struct Paging {
    rules: [PagingRule; 4],
    hours: WeeklyHours,
    zone: TimeZone,
}

/// A time zone that the time zone database does not have.
#[derive(Debug, thiserror::Error)]
#[error(
    "time zone {zone:?} is not in the time zone database; write an IANA name as in \"Europe/Paris\""
)]
pub struct UnknownZone {
    /// What was given.
    pub zone: String,
}

impl Default for Paging {
    /// P1 and P2 page, P3 is a notice, P4 only appears in the queue; around the clock, in UTC.
    fn default() -> Self {
        Self {
            rules: [
                PagingRule::Always(Urgency::Page),
                PagingRule::Always(Urgency::Page),
                PagingRule::Always(Urgency::Notice),
                PagingRule::Always(Urgency::Queue),
            ],
            hours: WeeklyHours::always(),
            zone: TimeZone::UTC,
        }
    }
}

impl Paging {
    /// This table with what `settings` say, its hours in `zone`.
    ///
    /// # Errors
    /// The zone is unknown.
    pub fn with(&self, settings: &PagingSettings, zone: &str) -> Result<Self, UnknownZone> {
        let [p1, p2, p3, p4] = self.rules;
        Ok(Self {
            rules: [
                settings.p1.unwrap_or(p1),
                settings.p2.unwrap_or(p2),
                settings.p3.unwrap_or(p3),
                settings.p4.unwrap_or(p4),
            ],
            hours: settings
                .service_hours
                .clone()
                .unwrap_or_else(|| self.hours.clone()),
            zone: TimeZone::get(zone).map_err(|_| UnknownZone {
                zone: zone.to_owned(),
            })?,
        })
    }

    /// How far the news of a ticket of this priority reaches at an instant.
    pub fn urgency(&self, priority: Priority, at: UnixMillis) -> Urgency {
        match self.rule(priority) {
            PagingRule::Always(urgency) => urgency,
            PagingRule::ByHours {
                service_hours,
                otherwise,
            } => {
                if self.hours.contain(at, &self.zone) {
                    service_hours
                } else {
                    otherwise
                }
            }
        }
    }

    /// The first instant from `from` on at which a ticket of this priority pages; `None` for never.
    pub fn next_page_at(&self, priority: Priority, from: UnixMillis) -> Option<UnixMillis> {
        match self.rule(priority) {
            PagingRule::Always(urgency) => (urgency == Urgency::Page).then_some(from),
            PagingRule::ByHours {
                service_hours: Urgency::Page,
                otherwise: Urgency::Page,
            } => Some(from),
            PagingRule::ByHours {
                service_hours: Urgency::Page,
                ..
            } => self.hours.next_inside(from, &self.zone),
            PagingRule::ByHours {
                otherwise: Urgency::Page,
                ..
            } => self.hours.next_outside(from, &self.zone),
            PagingRule::ByHours { .. } => None,
        }
    }

    const fn rule(&self, priority: Priority) -> PagingRule {
        let [p1, p2, p3, p4] = self.rules;
        match priority {
            Priority::P1 => p1,
            Priority::P2 => p2,
            Priority::P3 => p3,
            Priority::P4 => p4,
        }
    }
}

impl Urgency {
    /// The word in settings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Notice => "notice",
            Self::Queue => "queue",
        }
    }
}

impl FromStr for Urgency {
    type Err = ParseWordError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        [Self::Page, Self::Notice, Self::Queue]
            .into_iter()
            .find(|one| one.as_str() == s)
            .ok_or_else(|| ParseWordError {
                found: s.to_owned(),
                expected: "page, notice, queue",
            })
    }
}

impl Serialize for Urgency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Urgency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map_err(de::Error::custom)
    }
}

impl Serialize for PagingRule {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Always(urgency) => urgency.serialize(serializer),
            Self::ByHours {
                service_hours,
                otherwise,
            } => {
                let mut map = serializer.serialize_map(Some(2))?;
                map.serialize_entry("service_hours", service_hours)?;
                map.serialize_entry("otherwise", otherwise)?;
                map.end()
            }
        }
    }
}

/// One word, or a table with `service_hours` and `otherwise`.
impl<'de> Deserialize<'de> for PagingRule {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RuleVisitor)
    }
}

struct RuleVisitor;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawByHours {
    service_hours: Urgency,
    otherwise: Urgency,
}

impl<'de> de::Visitor<'de> for RuleVisitor {
    type Value = PagingRule;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("page, notice, queue, or { service_hours = \"…\", otherwise = \"…\" }")
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<PagingRule, E> {
        word.parse().map(PagingRule::Always).map_err(E::custom)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<PagingRule, A::Error> {
        let raw = RawByHours::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(PagingRule::ByHours {
            service_hours: raw.service_hours,
            otherwise: raw.otherwise,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
        service_hours = "mon-fri 08:00-18:00"
        p2 = { service_hours = "page", otherwise = "notice" }
        p3 = { service_hours = "notice", otherwise = "page" }
        p4 = "notice"
    "#;

    // Friday, 2026-11-27, 07:00 UTC is 08:00 in Paris.
    const OPENING: UnixMillis = UnixMillis(1_795_762_800_000);
    const NIGHT: UnixMillis = UnixMillis(OPENING.0 - 5 * 3_600_000);

    fn table() -> Paging {
        let settings: PagingSettings = toml::from_str(TABLE).expect("the test's table");
        Paging::default()
            .with(&settings, "Europe/Paris")
            .expect("the zone exists")
    }

    #[test]
    fn out_of_the_box_nothing_below_p2_wakes_anyone() {
        let paging = Paging::default();
        let urgencies = [Priority::P1, Priority::P2, Priority::P3, Priority::P4]
            .map(|priority| paging.urgency(priority, NIGHT));
        let expected = [
            Urgency::Page,
            Urgency::Page,
            Urgency::Notice,
            Urgency::Queue,
        ];
        assert_eq!(urgencies, expected);
        assert_eq!(paging.next_page_at(Priority::P2, NIGHT), Some(NIGHT));
        assert_eq!(paging.next_page_at(Priority::P3, NIGHT), None);
    }

    #[test]
    fn a_table_may_go_by_the_service_hours_of_the_zone() {
        let paging = table();
        assert_eq!(paging.urgency(Priority::P1, NIGHT), Urgency::Page);
        assert_eq!(paging.urgency(Priority::P2, NIGHT), Urgency::Notice);
        assert_eq!(paging.urgency(Priority::P2, OPENING), Urgency::Page);
        assert_eq!(paging.next_page_at(Priority::P2, NIGHT), Some(OPENING));
        assert_eq!(paging.urgency(Priority::P3, NIGHT), Urgency::Page);
        assert_eq!(paging.urgency(Priority::P4, NIGHT), Urgency::Notice);
        let closing = UnixMillis(OPENING.0 + 10 * 3_600_000);
        assert_eq!(paging.next_page_at(Priority::P3, OPENING), Some(closing));
    }

    #[test]
    fn a_contract_changes_only_what_it_names() {
        let settings: PagingSettings = toml::from_str("p1 = \"notice\"").expect("it is valid");
        let paging = table().with(&settings, "UTC").expect("UTC exists");
        assert_eq!(paging.urgency(Priority::P1, NIGHT), Urgency::Notice);
        assert_eq!(
            paging.urgency(Priority::P2, OPENING),
            Urgency::Notice,
            "its hours are those of its own zone"
        );
        assert!(table().with(&settings, "Mars/Olympus").is_err());
    }

    #[test]
    fn tables_are_stored_as_they_are_written() {
        let settings: PagingSettings = toml::from_str(TABLE).expect("the test's table");
        let stored = serde_json::to_string(&settings).expect("it has a JSON form");
        assert_eq!(
            serde_json::from_str::<PagingSettings>(&stored).expect("it reads back"),
            settings
        );
        for wrong in [
            "p1 = \"wake\"",
            "p5 = \"page\"",
            "p1 = { service_hours = \"page\" }",
            "p1 = { service_hours = \"page\", otherwise = \"page\", x = 1 }",
            "service_hours = \"always\"",
        ] {
            assert!(toml::from_str::<PagingSettings>(wrong).is_err(), "{wrong}");
        }
    }
}
