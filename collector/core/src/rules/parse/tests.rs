use proptest::prelude::*;

use super::*;
use crate::rules::{DEFAULT_PACK_TOML, Priority, RulePack, Severity};

const GOOD: &str = r#"
[[rule]]
id = "cpu"
name = "CPU"
kind = "threshold"
severity = "warning"
priority = "P3"
metric = "cpu.busy_pct"
raise = { above = 90 }
raise_for = "1m30s"
clear = { below = 80.5 }
"#;

fn problems(text: &str) -> Vec<String> {
    RulePack::parse(text)
        .expect_err("the pack is refused")
        .problems()
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[test]
fn the_default_pack_covers_each_kind() {
    let pack = RulePack::parse(DEFAULT_PACK_TOML).unwrap();
    let rules = pack.rules();
    assert!(rules.len() >= 12, "only {} rules", rules.len());
    let levels = |id: &str| match pack.rule(&RuleId(id.to_owned())).map(|rule| &rule.kind) {
        Some(RuleKind::Threshold { raise, clear, .. }) => (raise.value(), clear.value()),
        other => panic!("{id} is {other:?}"),
    };
    assert_eq!(levels("disk-filling"), (85.0, 82.0));
    assert_eq!(levels("disk-full"), (95.0, 93.0));
    for kind in [
        "service_state",
        "log_count",
        "silent",
        "unexpected_reboot",
        "clock_skew",
        "clock_step",
        "agent_trouble",
        "cloned_identity",
    ] {
        assert!(
            rules.iter().any(|rule| rule.kind.as_str() == kind),
            "no rule of kind {kind}"
        );
    }
}

#[test]
fn a_rule_is_read_as_written() {
    let pack = RulePack::parse(GOOD).unwrap();
    let rule = &pack.rules()[0];
    assert_eq!(rule.severity, Severity::Warning);
    assert_eq!(rule.priority, Priority::P3);
    assert_eq!(rule.runbook, None);
    assert_eq!(
        rule.kind,
        RuleKind::Threshold {
            metric: "cpu.busy_pct".to_owned(),
            raise: Limit::Above(90.0),
            raise_for: DurationMs::from_secs(90),
            clear: Limit::Below(80.5),
            clear_for: DurationMs(0),
        }
    );
}

#[test]
fn each_fault_is_named_with_its_line_key_and_remedy() {
    let cases = [
        (
            ("raise_for", "rase_for"),
            "line 10: rule[1].rase_for: unknown key; did you mean \"raise_for\"?",
        ),
        (
            ("above", "abov"),
            "line 9: rule[1].raise.abov: unknown key; did you mean \"above\"?",
        ),
        (
            ("\"warning\"", "\"warnin\""),
            "line 6: rule[1].severity: \"warnin\" is not known; did you mean \"warning\"? \
             (info, warning, critical)",
        ),
        (
            ("threshold", "treshold"),
            "line 5: rule[1].kind: \"treshold\" is not known; did you mean \"threshold\"? \
             (threshold, service_state, log_count, silent, unexpected_reboot, clock_skew, \
             clock_step, agent_trouble, cloned_identity)",
        ),
        (
            ("80.5", "91"),
            "line 11: rule[1].clear: is beyond raise (above 90), so a value could be both; use \
             below 90 or less",
        ),
        (
            ("{ below = 80.5 }", "{ above = 80 }"),
            "line 11: rule[1].clear: must point the other way than raise, as in { below = 90 }",
        ),
        (
            ("\"1m30s\"", "90"),
            "line 10: rule[1].raise_for: must be a duration of at most 30 days in quotes: a whole \
             number with ms, s, m, h or d, as in \"90s\" or \"1h30m\"",
        ),
        (
            ("above = 90", "above = nan"),
            "line 9: rule[1].raise.above: must be a finite number",
        ),
        (
            ("above = 90", "above = 90, below = 3"),
            "line 9: rule[1].raise: must be { above = NUMBER } or { below = NUMBER }",
        ),
        (
            ("\"cpu\"", "\"CPU busy\""),
            "line 3: rule[1].id: must be 1 to 64 of a-z 0-9 - _ . as in \"disk-full\"",
        ),
        (
            ("\"CPU\"", "7"),
            "line 4: rule[1].name: must be text in quotes, not integer",
        ),
        (("name = \"CPU\"", ""), "line 2: rule[1].name: is missing"),
        (
            ("[[rule]]", "[[rules]]"),
            "line 2: rules: unknown key; did you mean \"rule\"?",
        ),
    ];
    for ((from, to), expected) in cases {
        let found = problems(&GOOD.replacen(from, to, 1));
        assert!(
            found.iter().any(|p| p == expected),
            "{from} -> {to}: {found:#?}"
        );
    }
}

#[test]
fn all_problems_are_listed_at_once_by_line() {
    let text = GOOD
        .replace("\"P3\"", "\"P9\"")
        .replace("1m30s", "soon")
        .replace("metric", "metrik");
    let found = RulePack::parse(&text).expect_err("the pack is refused");
    let keys: Vec<_> = found.problems().iter().map(|p| p.path.as_str()).collect();
    assert_eq!(
        keys,
        [
            "rule[1].metric",
            "rule[1].priority",
            "rule[1].metrik",
            "rule[1].raise_for"
        ]
    );
}

#[test]
fn ids_and_the_kinds_about_the_whole_machine_are_unique() {
    let silent = |id: &str| {
        format!(
            "[[rule]]\nid = \"{id}\"\nname = \"S\"\nkind = \"silent\"\nseverity = \"info\"\n\
             priority = \"P4\"\n"
        )
    };
    assert!(RulePack::parse(&silent("a")).is_ok());
    assert_eq!(
        problems(&(silent("a") + &silent("b"))),
        ["line 7: rule[2].kind: a pack has at most one rule of kind silent"]
    );
    assert_eq!(
        problems(&(GOOD.to_owned() + GOOD)),
        ["line 13: rule[2].id: \"cpu\" is taken by another rule; ids are unique"]
    );
}

#[test]
fn a_skew_that_could_be_both_is_refused() {
    let text = "[[rule]]\nid = \"c\"\nname = \"C\"\nkind = \"clock_skew\"\nseverity = \"info\"\n\
                priority = \"P4\"\nabove = \"10s\"\nclear_below = \"11s\"\n";
    assert_eq!(
        problems(text),
        ["line 8: rule[1].clear_below: is larger than above; use the same or less"]
    );
}

#[test]
fn a_window_without_length_is_refused() {
    let text = "[[rule]]\nid = \"l\"\nname = \"L\"\nkind = \"log_count\"\nseverity = \"info\"\n\
                priority = \"P4\"\nwindow = \"0s\"\n";
    assert_eq!(
        problems(text),
        ["line 7: rule[1].window: must be longer than 0"]
    );
}

#[test]
fn what_is_no_toml_and_what_is_empty_is_refused() {
    assert!(problems("\n[[rule]\nid = 1")[0].starts_with("line 2: "));
    assert_eq!(
        problems(""),
        ["line 1: rule: is missing; a pack has at least one [[rule]]"]
    );
}

proptest! {
    /// Any damage to the text is either harmless or a listed problem, never a panic.
    #[test]
    fn damaged_text_never_panics(
        start in 0_usize..DEFAULT_PACK_TOML.len(),
        len in 0_usize..40,
        with in ".{0,12}",
    ) {
        let mut text = DEFAULT_PACK_TOML.as_bytes().to_vec();
        let end = (start + len).min(text.len());
        text.splice(start..end, with.bytes());
        let text = String::from_utf8_lossy(&text);
        if let Err(error) = RulePack::parse(&text) {
            prop_assert!(!error.problems().is_empty());
            let lines = text.lines().count() + 1;
            prop_assert!(error.problems().iter().all(|p| (1..=lines).contains(&p.line)));
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "\\PC{0,200}") {
        let _ = RulePack::parse(&text);
    }
}
