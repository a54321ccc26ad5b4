//! What agents say is bounded and cleaned, and costs no more than its own frame.

use super::*;

#[test]
fn limits_are_named() {
    let mut state = HostState::default();
    let mut wide = frame(2, 10_000);
    wide.values = vec![None; 2];
    let mut fast = frame(3, 10_000);
    fast.interval_ms = 1;
    let old = frame(4, 10_000 - 9 * 24 * 3_600_000);
    let frames = vec![frame(0, 10_000), wide, fast, old];
    let taken = take(&mut state, &batch(10_000, frames), 0);
    let reasons: Vec<Outcome> = taken.frames.iter().map(|frame| frame.outcome).collect();
    let expected = [
        RejectReason::BadSequence,
        RejectReason::ValueCount,
        RejectReason::OverLimit,
        RejectReason::TooOld,
    ];
    assert_eq!(reasons, expected.map(Outcome::Rejected));
    assert_eq!(state, HostState::default());
}

#[test]
fn troubles_stay_until_the_agent_takes_them_back() {
    let mut state = HostState::default();
    let send = |state: &mut HostState, n: u64, troubles: Option<Vec<Trouble>>| {
        let mut batch = batch(n as i64 * 10_000, vec![frame(n, n as i64 * 10_000)]);
        batch.troubles = troubles;
        take(state, &batch, 0).durable
    };
    let one = Trouble {
        item: "spool".to_owned(),
        detail: "the disk refuses".to_owned(),
    };
    send(&mut state, 1, Some(Vec::new()));
    assert!(send(&mut state, 2, Some(vec![one.clone(); 40])));
    assert_eq!(state.troubles, vec![one; MAX_TROUBLES], "bounded");
    assert!(!send(&mut state, 3, None));
    assert!(!state.troubles.is_empty());
    assert!(send(&mut state, 4, Some(Vec::new())));
    assert!(state.troubles.is_empty());
}

#[test]
fn an_unsafe_name_costs_its_frame_and_nothing_else() {
    let service = |key: &str| Service {
        key: key.to_owned(),
        status: ServiceStatus::Running,
        detail: None,
    };
    let mut state = HostState::default();
    let mut bad_key = frame(1, 10_000);
    bad_key.services = Some(vec![service("process:a"), service("process:\0")]);
    let mut bad_rule = frame(2, 20_000);
    bad_rule.events = vec![Event::LogMatch {
        rule: "a\u{202e}".to_owned(),
        path: String::new(),
        count: 1,
        lines: Vec::new(),
    }];
    let mut far = frame(3, 30_000);
    far.clocks.mono_ms = i64::MIN;
    let mut high = frame(1 << 63, 30_000);
    high.services = None;
    let frames = vec![bad_key, bad_rule, far, high, frame(4, 40_000)];
    let taken = take(&mut state, &batch(40_000, frames), 0);
    let outcomes: Vec<Outcome> = taken.frames.iter().map(|frame| frame.outcome).collect();
    let expected = [
        RejectReason::BadText,
        RejectReason::BadText,
        RejectReason::OverLimit,
        RejectReason::BadSequence,
    ];
    assert_eq!(outcomes[..4], expected.map(Outcome::Rejected));
    assert!(matches!(outcomes[4], Outcome::Taken(_)), "{outcomes:?}");
}

#[test]
fn free_text_is_cleaned_and_bounded_and_no_alarm_is_lost() {
    let long = "x\0".repeat(3_000);
    let mut noisy = frame(1, 10_000);
    noisy.services = Some(
        (0..MAX_SERVICES_PER_FRAME)
            .map(|n| Service {
                key: format!("process:{n}"),
                status: ServiceStatus::Failed,
                detail: Some(long.clone()),
            })
            .collect(),
    );
    let proposal = |check: ServiceCheck| Proposal {
        check: check.into(),
        detail: Some(long.clone()),
    };
    noisy.events = vec![
        Event::LogMatch {
            rule: "errors".to_owned(),
            path: "/var/log/\n".to_owned(),
            count: 30,
            lines: vec![format!("a\tb\r\nc\0{long}"); 30],
        },
        Event::Discovered {
            proposals: vec![
                proposal(ServiceCheck::process("nginx")),
                proposal(ServiceCheck::process("a\nb")),
            ],
            left_out: 3,
        },
    ];
    let mut batch = batch(10_000, vec![noisy]);
    batch.agent_version = long.clone();
    batch.refused = Some(vec![
        Refusal {
            item: long.clone(),
            reason: long.clone(),
        };
        1_000
    ]);
    batch.troubles = Some(vec![
        Trouble {
            item: "spool".to_owned(),
            detail: long.clone(),
        };
        100
    ]);
    crate::host::clean(&mut batch);
    let mut state = HostState::default();
    let taken = take(&mut state, &batch, 0);
    assert!(matches!(taken.frames[0].outcome, Outcome::Taken(_)));
    assert_eq!(state.services.len(), MAX_SERVICES_PER_FRAME);
    assert_eq!(state.troubles.len(), MAX_TROUBLES);
    let stored = serde_json::to_string(&state).unwrap();
    assert!(!stored.contains("\\u0000"));
    assert!(stored.len() < 256 * 1024, "{} bytes", stored.len());
    let Event::LogMatch { path, lines, .. } = &batch.frames[0].events[0] else {
        panic!("{:?}", batch.frames[0].events[0]);
    };
    assert_eq!((path.as_str(), lines.len()), ("/var/log/ ", 10));
    assert!(lines[0].starts_with("a\tb\nc\u{fffd}x") && lines[0].ends_with('…'));
    let Event::Discovered {
        proposals,
        left_out,
    } = &batch.frames[0].events[1]
    else {
        panic!("{:?}", batch.frames[0].events[1]);
    };
    assert_eq!((proposals.len(), *left_out), (1, 4));
}
