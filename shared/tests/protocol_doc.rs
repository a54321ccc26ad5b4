//! `docs/protocol.md` says what the code does: its examples are parsed with the wire types, and
//! written again they are the same, so that a field that was renamed or never existed is noticed;
//! its tables are compared with the constants.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use watchkeep_shared::{
    metric,
    token::EnrolmentToken,
    wire::{
        enroll::{EnrollRequest, Enrolled, RenewRequest, Renewed},
        heartbeat::{Ack, Batch, Event, RejectReason},
        host::Want,
        limits, paths,
        policy::Policy,
        problem::{Problem, ProblemType},
    },
};

const DOC: &str = include_str!("../../docs/protocol.md");

/// The fenced blocks by what follows the fence, as in `json Batch`.
fn blocks() -> BTreeMap<String, Vec<String>> {
    let mut blocks: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut open: Option<(String, String)> = None;
    for line in DOC.lines() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(label), None) => open = Some((label.to_owned(), String::new())),
            (Some(_), Some(_)) => {
                let (label, text) = open.take().expect("it is open");
                blocks.entry(label).or_default().push(text);
            }
            (None, Some((_, text))) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a fence is left open");
    blocks
}

fn block(label: &str) -> String {
    let found = blocks().remove(label).unwrap_or_default();
    assert_eq!(found.len(), 1, "blocks called {label}");
    found.into_iter().next().expect("there is one")
}

/// Parses a block, and checks that nothing in it was ignored and nothing of the type is missing.
fn parse<T: DeserializeOwned + Serialize>(text: &str) -> T {
    let parsed: T = serde_json::from_str(text).expect(text);
    let written = plain(serde_json::to_value(&parsed).expect("it has a JSON form"));
    assert_eq!(
        written,
        plain(serde_json::from_str(text).expect("it was parsed above"))
    );
    parsed
}

/// Numbers as floating point: `61` and `61.0` are one value.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => Value::from(number.as_f64().expect("JSON has finite numbers")),
        Value::Array(list) => list.into_iter().map(plain).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, inner)| (key, plain(inner)))
            .collect(),
        other => other,
    }
}

#[test]
fn every_json_block_is_an_example_of_its_type() {
    for (label, texts) in blocks() {
        for text in texts {
            match label.as_str() {
                "json token" => drop(parse::<EnrolmentToken>(&text)),
                "json EnrollRequest" => drop(parse::<EnrollRequest>(&text)),
                "json Enrolled" => drop(parse::<Enrolled>(&text)),
                "json RenewRequest" => drop(parse::<RenewRequest>(&text)),
                "json Renewed" => drop(parse::<Renewed>(&text)),
                "json Batch" => drop(parse::<Batch>(&text)),
                "json Ack" => drop(parse::<Ack>(&text)),
                "json Problem" => drop(parse::<Problem>(&text)),
                "text token" => {}
                other => panic!("no type is known for the block {other}"),
            }
        }
    }
}

#[test]
fn the_token_is_the_one_that_the_code_makes() {
    let token: EnrolmentToken = parse(&block("json token"));
    assert_eq!(token.to_string(), block("text token").trim());
    assert_eq!(block("text token").parse(), Ok(token));
}

#[test]
fn the_example_batch_is_one_that_a_collector_takes() {
    let batch: Batch = parse(&block("json Batch"));
    for schema in &batch.schemas {
        assert_eq!(metric::schema_id(&schema.names), schema.id);
    }
    for frame in &batch.frames {
        let schema = batch
            .schemas
            .iter()
            .find(|schema| schema.id == frame.schema)
            .unwrap();
        assert_eq!(frame.values.len(), schema.names.len());
    }
    let joined = batch.schemas[0].names.join("\\n");
    assert!(DOC.contains(&format!("SHA-256(\"{joined}\") = {}", batch.schemas[0].id)));
    let events = batch.frames.iter().flat_map(|frame| &frame.events);
    let kinds: BTreeSet<&str> = events.map(kind).collect();
    assert_eq!(kinds.len(), KINDS, "one of each kind is shown: {kinds:?}");
    for kind in kinds {
        assert!(DOC.contains(&format!("\n| `{kind}` | ")), "{kind}");
    }
}

/// How many kinds of events there are.
const KINDS: usize = 8;

/// A new kind does not compile here until [`KINDS`] and the page know it.
const fn kind(event: &Event) -> &'static str {
    match event {
        Event::AgentStarted { .. } => "agent_started",
        Event::Goodbye { .. } => "goodbye",
        Event::LogMatch { .. } => "log_match",
        Event::LogGap { .. } => "log_gap",
        Event::SpoolLoss { .. } => "spool_loss",
        Event::Discovered { .. } => "discovered",
        Event::HostFacts(_) => "host_facts",
        Event::Processes(_) => "processes",
        // The page has no such row, which the test notices.
        Event::Other => "other",
    }
}

#[test]
fn the_acknowledgement_fits_its_batch() {
    let batch: Batch = parse(&block("json Batch"));
    let acks = blocks().remove("json Ack").unwrap();
    let ack: Ack = parse(&acks[0]);
    assert_eq!(
        ack.accepted as usize + ack.rejected.len(),
        batch.frames.len()
    );
    let policy: Policy = ack.policy.unwrap();
    assert_ne!(policy.version, batch.policy_version);
    let wanted: Ack = parse(&acks[1]);
    assert_eq!(wanted.want, [Want::Processes]);
    let asked: Ack = parse(&acks[2]);
    assert_eq!(asked.unknown_schemas, [batch.schemas[0].id]);
}

#[test]
fn every_problem_type_is_in_the_table_and_no_other() {
    let rows: Vec<&str> = DOC
        .lines()
        .skip_while(|line| !line.starts_with("| type | status |"))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    assert_eq!(rows.len(), ProblemType::ALL.len(), "{rows:#?}");
    for kind in ProblemType::ALL {
        let name = kind.urn().strip_prefix("urn:watchkeep:problem:").unwrap();
        let start = format!("| `{name}` | {} |", kind.status());
        assert!(rows.iter().any(|row| row.starts_with(&start)), "{start}");
    }
    let example: Problem = parse(&block("json Problem"));
    let kind = example.known_type().unwrap();
    assert_eq!(
        (example.status, example.title.as_str()),
        (kind.status(), kind.title())
    );
}

#[test]
fn every_reason_of_refusal_is_in_the_table() {
    let reasons = [
        RejectReason::FromTheFuture,
        RejectReason::TooOld,
        RejectReason::ValueCount,
        RejectReason::OverLimit,
        RejectReason::BadSequence,
        RejectReason::BadText,
    ];
    for reason in reasons {
        assert!(
            DOC.contains(&format!("\n| `{}` | ", reason.as_str())),
            "{reason:?}"
        );
    }
}

#[test]
fn limits_and_paths_are_those_of_the_code() {
    let (shortest, longest) = (limits::MIN_INTERVAL_MS, limits::MAX_INTERVAL_MS);
    let rows: [(&str, String); 20] = [
        (
            "request body as sent",
            format!("{} bytes", limits::MAX_BODY_BYTES),
        ),
        (
            "heartbeat body decompressed",
            format!("{} bytes", limits::MAX_DECODED_BODY_BYTES),
        ),
        ("frames in a batch", show(limits::MAX_FRAMES_PER_BATCH)),
        (
            "values in a frame, names in a schema",
            show(limits::MAX_VALUES_PER_FRAME),
        ),
        (
            "metric name",
            format!(
                "{} bytes, no control characters",
                limits::MAX_METRIC_NAME_BYTES
            ),
        ),
        ("schemas in a batch", show(limits::MAX_SCHEMAS_PER_BATCH)),
        ("services in a frame", show(limits::MAX_SERVICES_PER_FRAME)),
        ("events in a frame", show(limits::MAX_EVENTS_PER_FRAME)),
        ("refused policy items in a batch", show(limits::MAX_REFUSED)),
        ("troubles in a batch", show(limits::MAX_TROUBLES)),
        ("CAs that an agent trusts", show(limits::MAX_TRUSTED_CAS)),
        (
            "lines in a log match",
            show(limits::MAX_LINES_PER_LOG_MATCH),
        ),
        ("proposals in an event", show(limits::MAX_PROPOSALS)),
        (
            "parts of a machine said to be unseen",
            show(limits::MAX_UNSEEN),
        ),
        ("addresses of a machine", show(limits::MAX_ADDRESSES)),
        (
            "processes in each list of an event",
            show(limits::MAX_PROCESSES_LISTED),
        ),
        ("any text", format!("{} bytes", limits::MAX_TEXT_BYTES)),
        ("interval", format!("{shortest} to {longest} ms")),
        (
            "frame made after `sent`",
            format!("{} ms", limits::MAX_FRAME_AHEAD_MS),
        ),
        ("age of a frame", format!("{} ms", limits::MAX_FRAME_AGE_MS)),
    ];
    for (what, value) in rows {
        let row = format!("\n| {what} | {value} |\n");
        assert!(DOC.contains(&row), "missing or different: {row}");
    }
    for path in [paths::ENROLL, paths::RENEW, paths::HEARTBEATS] {
        assert!(DOC.contains(&format!("| `POST {path}` |")), "{path}");
    }
}

fn show(value: impl Debug) -> String {
    format!("{value:?}")
}
