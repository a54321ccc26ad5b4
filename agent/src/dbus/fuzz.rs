//! What must hold for any bytes from a bus: the body of the fuzz target `dbus` (`tests/fuzz/`),
//! which the tests run too.

use super::{Call, Message, Value};

/// Messages come out the same whatever the pieces are in which their bytes come, and what they say is
/// no larger than they are. The first two bytes say how large the pieces are.
pub fn messages(data: &[u8]) {
    let Some((head, bytes)) = data.split_first_chunk::<2>() else {
        return;
    };
    let sizes = head.map(|size| 1 + usize::from(size));
    let whole = read_all(bytes, &[bytes.len().max(1)]);
    assert_eq!(read_all(bytes, &sizes), whole, "pieces of {sizes:?}");
}

/// The messages in words, and whether the bytes went on without sense.
fn read_all(bytes: &[u8], sizes: &[usize]) -> (Vec<String>, bool) {
    let mut messages = Vec::new();
    let mut received = Vec::new();
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let size = sizes.next().map_or(1, |size| *size).min(rest.len());
        received.extend_from_slice(&rest[..size]);
        rest = &rest[size..];
        loop {
            match Message::read(&received) {
                Ok(None) => break,
                Ok(Some((message, length))) => {
                    assert!(0 < length && length <= received.len(), "{length} bytes");
                    received.drain(..length);
                    let values = message.values();
                    if let Ok(values) = &values {
                        let weight: usize = values.iter().map(weight).sum();
                        assert!(weight <= length + 64, "{weight} values of {length} bytes");
                    }
                    messages.push(format!("{message:?} {values:?}"));
                }
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

/// What a value takes in memory, in the size of the smallest.
fn weight(value: &Value) -> usize {
    match value {
        Value::List(members) => 4 + members.iter().map(weight).sum::<usize>(),
        _ => 1,
    }
}

/// Inputs to begin with: what systemd says.
pub fn seeds() -> Vec<Vec<u8>> {
    const MANAGER: &str = "org.freedesktop.systemd1.Manager";
    const UNIT: &str = "/org/freedesktop/systemd1/unit/nginx_2eservice";
    let changed = Call::signal(UNIT, "org.freedesktop.DBus.Properties", "PropertiesChanged")
        .with_text("org.freedesktop.systemd1.Unit")
        .with("a{sv}as", |body| {
            body.array(8, |body| {
                for (name, value) in [("ActiveState", "failed"), ("SubState", "dead")] {
                    body.align(8);
                    body.text(name);
                    body.signature("s");
                    body.text(value);
                }
            });
            body.texts(&["Job", "Conditions"]);
        });
    let removed =
        Call::signal("/org/freedesktop/systemd1", MANAGER, "JobRemoved").with("uoss", |body| {
            body.number(77);
            body.text("/org/freedesktop/systemd1/job/77");
            body.text("nginx.service");
            body.text("done");
        });
    let call = Call::method("org.freedesktop.systemd1", "/a", MANAGER, "GetUnit");
    // Small values deep in structures.
    let deep = Call::signal("/a", MANAGER, "Deep").with("a((((((y))))))", |body| {
        body.array(8, |body| {
            for n in 0..20 {
                body.align(8);
                body.byte(n);
            }
        });
    });
    let calls = [changed, removed, deep, call.with_text("nginx.service")];
    let bytes = |calls: &[Call]| {
        let mut bytes = vec![3, 40];
        for (serial, call) in (1..).zip(calls) {
            call.write(serial, &mut bytes);
        }
        bytes
    };
    let mut seeds: Vec<_> = calls
        .iter()
        .map(|call| bytes(std::slice::from_ref(call)))
        .collect();
    seeds.push(bytes(&calls));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz_check::check;

    #[test]
    fn messages_hold() {
        check("dbus", &seeds(), messages);
    }
}
