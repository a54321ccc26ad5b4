//! Tests of the alerts of one host: each kind by cases, the value rules against a naive model.

mod default_pack;
mod host;
mod logs;
mod services;
mod values;

use uuid::Uuid;

use super::*;

/// Alert ids 1, 2, 3, …
fn ids() -> impl FnMut() -> AlertId {
    let mut next = 0_u128;
    move || {
        next += 1;
        AlertId(Uuid::from_u128(next))
    }
}

const fn at(secs: i64) -> UnixMillis {
    UnixMillis(1_700_000_000_000 + secs * 1_000)
}

fn pack(text: &str) -> RulePack {
    RulePack::parse(text).expect("the test's pack is valid")
}

/// A change in one word and its check: enough for most assertions.
fn brief(changes: &[AlertChange]) -> Vec<String> {
    changes
        .iter()
        .map(|change| match change {
            AlertChange::Raised(raised) => format!("raised {} {}", raised.rule, raised.check),
            AlertChange::Updated(updated) => format!("updated {} {}", updated.rule, updated.check),
            AlertChange::Cleared(cleared) => format!("cleared {} {}", cleared.rule, cleared.check),
        })
        .collect()
}

/// Through the store and back.
fn stored(host: &HostAlerts) -> HostAlerts {
    let text = serde_json::to_string(host).expect("serializes");
    let back: HostAlerts = serde_json::from_str(&text).expect("deserializes");
    assert_eq!(&back, host);
    back
}

/// Raised and cleared alternate on each (rule, check), with one alert id a pair.
fn assert_alternating(changes: &[AlertChange]) {
    let mut firing = std::collections::BTreeMap::new();
    for change in changes {
        match change {
            AlertChange::Raised(raised) => {
                let key = (raised.rule.clone(), raised.check.clone());
                let before = firing.insert(key, raised.alert);
                assert_eq!(before, None, "raised twice: {raised:?}");
            }
            AlertChange::Updated(updated) => {
                let key = (updated.rule.clone(), updated.check.clone());
                assert_eq!(firing.get(&key), Some(&updated.alert), "{updated:?}");
            }
            AlertChange::Cleared(cleared) => {
                let key = (cleared.rule.clone(), cleared.check.clone());
                let before = firing.remove(&key);
                assert_eq!(before, Some(cleared.alert), "cleared amiss: {cleared:?}");
            }
        }
    }
}
