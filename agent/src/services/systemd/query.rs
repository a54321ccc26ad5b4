//! Questions to systemd over the bus, and what its answers say.

use super::classify::UnitFacts;
use crate::dbus::{Bus, BusError, Call, Message, PROPERTIES, Value};

pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
pub(super) const MANAGER: &str = "org.freedesktop.systemd1.Manager";
pub(super) const UNIT: &str = "org.freedesktop.systemd1.Unit";
const SERVICE: &str = "org.freedesktop.systemd1.Service";
const UNIT_PATHS: &str = "/org/freedesktop/systemd1/unit/";

/// Units that are asked for at once: the bus lets a client wait for 128 answers.
const UNITS_AT_ONCE: usize = 6;

/// What is asked of every unit, and of services besides. The order is that of [`Answer::read`].
const ASKED_OF_UNITS: [&str; 8] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Job",
    "TriggeredBy",
    "StateChangeTimestampMonotonic",
    "InactiveExitTimestampMonotonic",
];
const ASKED_OF_SERVICES: [&str; 7] = [
    "Type",
    "Result",
    "RemainAfterExit",
    "ExecMainCode",
    "ExecMainStatus",
    "NRestarts",
    "ControlGroup",
];

/// What is known of a unit.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Its own name, where it was asked for by another.
    pub(super) id: String,
    pub(super) facts: UnitFacts,
    /// `NRestarts`, for services.
    pub(super) restarts: Option<u32>,
    /// `ControlGroup`, for services.
    pub(super) control_group: String,
}

/// Asks about units. The answers come in the order of `names`; an error is systemd's word on that
/// unit alone.
pub(super) async fn units(
    bus: &mut Bus,
    names: &[String],
) -> Result<Vec<Result<Answer, String>>, BusError> {
    let mut all = Vec::with_capacity(names.len());
    for some in names.chunks(UNITS_AT_ONCE) {
        let calls: Vec<Call> = some.iter().flat_map(|name| calls(name)).collect();
        let mut answers = bus.call_all(&calls).await?.into_iter();
        for name in some {
            let of_unit: Vec<Message> = answers.by_ref().take(asked(name).count()).collect();
            all.push(Answer::read(of_unit));
        }
    }
    Ok(all)
}

fn asked(name: &str) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
    let of_services: &[&str] = if name.ends_with(".service") {
        &ASKED_OF_SERVICES
    } else {
        &[]
    };
    let of_units = ASKED_OF_UNITS.iter().map(|property| (UNIT, *property));
    of_units.chain(of_services.iter().map(|property| (SERVICE, *property)))
}

fn calls(name: &str) -> impl Iterator<Item = Call> + use<> {
    let path = path_of(name);
    asked(name).map(move |(interface, property)| {
        Call::method(SYSTEMD, &path, PROPERTIES, "Get")
            .with_text(interface)
            .with_text(property)
    })
}

impl Answer {
    fn read(messages: Vec<Message>) -> Result<Self, String> {
        let mut values = Vec::with_capacity(messages.len());
        for message in messages {
            let answer = message.into_result().map_err(|error| error.to_string())?;
            values.push(answer.into_iter().next().unwrap_or(Value::Unsigned(0)));
        }
        let text = |at: usize| values.get(at).and_then(Value::text).unwrap_or_default();
        let number = |at: usize| values.get(at).and_then(Value::number).unwrap_or(0);
        let list = |at: usize| values.get(at).map_or(&[][..], Value::list);
        let triggers = list(5).iter().filter_map(Value::text);
        Ok(Self {
            id: text(0).to_owned(),
            facts: UnitFacts {
                load: text(1).to_owned(),
                active: text(2).to_owned(),
                sub: text(3).to_owned(),
                has_job: list(4).first().and_then(Value::number).unwrap_or(0) != 0,
                triggered_by: triggers.map(str::to_owned).collect(),
                changed_ms: number(6) / 1_000,
                left_inactive_ms: number(7) / 1_000,
                kind: text(8).to_owned(),
                result: text(9).to_owned(),
                remain_after_exit: number(10) != 0,
                exit_code: number(11),
                exit_status: number(12),
            },
            restarts: values
                .get(13)
                .and_then(Value::number)
                .and_then(|count| u32::try_from(count).ok()),
            control_group: text(14).to_owned(),
        })
    }
}

/// The names of all failed units.
pub(super) async fn failed_units(bus: &mut Bus) -> Result<Vec<String>, BusError> {
    let call = Call::method(SYSTEMD, MANAGER_PATH, MANAGER, "ListUnitsFiltered")
        .with("as", |body| body.texts(&["failed"]));
    Ok(names(&bus.call(&call).await?.into_result()?))
}

/// Whether a unit is loaded and not inactive. Does not load it, as other questions do.
pub(super) async fn is_alive(bus: &mut Bus, name: &str) -> Result<bool, BusError> {
    let states = [
        "active",
        "reloading",
        "failed",
        "activating",
        "deactivating",
    ];
    let call = Call::method(SYSTEMD, MANAGER_PATH, MANAGER, "ListUnitsByPatterns")
        .with("as", |body| body.texts(&states))
        .with("as", |body| body.texts(&[name]));
    Ok(!names(&bus.call(&call).await?.into_result()?).is_empty())
}

/// The first column of an answer that is a table.
fn names(answer: &[Value]) -> Vec<String> {
    let rows = answer.first().map_or(&[][..], Value::list).iter();
    rows.filter_map(|row| row.list().first()?.text())
        .map(str::to_owned)
        .collect()
}

/// The object path of a unit: what is no letter or digit becomes `_` and two hexadecimal digits, and so
/// does a digit at the start (`sd_bus_path_encode(3)`).
pub(super) fn path_of(name: &str) -> String {
    use std::fmt::Write as _;
    let mut path = UNIT_PATHS.to_owned();
    for (i, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (i > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// The unit of an object path.
pub(super) fn unit_of(path: &str) -> Option<String> {
    let mut rest = path.strip_prefix(UNIT_PATHS)?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = rest.next() {
        if byte == b'_' {
            let digits = [rest.next()?, rest.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            name.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            name.push(byte);
        }
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_those_of_systemd() {
        assert_eq!(
            path_of("systemd-journald.service"),
            "/org/freedesktop/systemd1/unit/systemd_2djournald_2eservice"
        );
        assert_eq!(
            path_of("3proxy.service"),
            "/org/freedesktop/systemd1/unit/_33proxy_2eservice"
        );
    }

    proptest! {
        #[test]
        fn a_path_leads_back_to_its_unit(name in "[a-zA-Z0-9@._:\\\\-]{1,40}") {
            prop_assert_eq!(unit_of(&path_of(&name)), Some(name));
        }

        #[test]
        fn no_path_makes_it_fall(path in "/org/freedesktop/systemd1/unit/[_a-f0-9é]{0,12}") {
            let _ = unit_of(&path);
        }
    }
}
