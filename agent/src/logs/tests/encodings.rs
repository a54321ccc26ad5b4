//! Logs that are not lines of UTF-8 with an end each.

use std::os::unix::fs::FileExt as _;

use super::*;

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[test]
fn utf_16_is_matched_through_pieces_of_any_size_and_restarts() {
    let mut world = World::new("errorlog", "^2026 Fehler: .* zu gro\u{df}$");
    world.scan_and_commit();
    let line = "2026 Fehler: Datei \u{1f600} zu gro\u{df}\r\n2026 gut\r\n";
    let text = utf16(&("\u{feff}".to_owned() + &line.repeat(6)));
    for (at, piece) in text.chunks(7).enumerate() {
        world.append("errorlog", piece);
        world.scan_and_commit();
        if at % 5 == 0 {
            world.restart();
        }
    }
    assert_eq!(world.matched(), 6);
    assert_eq!(world.lines[0], "2026 Fehler: Datei \u{1f600} zu gro\u{df}");
    assert_eq!(world.gaps, []);
}

#[test]
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let mut world = World::new("*.log", "^ERROR");
    world.scan_and_commit();
    world.append("a.log", b"\xef\xbb\xbfERROR one\nfine\n");
    world.append("b.log", utf16("\u{feff}ERROR two\r\n"));
    world.scan_and_commit();
    assert_eq!(world.matched(), 2);
}

#[test]
fn lines_that_end_with_a_return_are_lines() {
    let mut world = World::new("a.log", "^ERROR [0-9]$");
    world.scan_and_commit();
    world.append("a.log", "fine\rERROR 1\rfine\rERR");
    world.scan_and_commit();
    assert_eq!(world.matched(), 1);
    world.restart();
    world.append("a.log", "OR 2\rfine\r");
    world.scan_and_commit();
    assert_eq!(world.matched(), 2);
}

/// A writer without `O_APPEND` goes on where it was when its log is truncated.
#[test]
fn a_hole_is_passed_over_at_once_and_what_follows_is_read() {
    let mut world = World::new("a.log", "^ERROR");
    world.append("a.log", "a line that is there\n");
    world.scan_and_commit();
    let file = File::create(world.path("a.log")).unwrap();
    let at = 40 << 30;
    file.write_all_at(b"ERROR behind the hole\n", at).unwrap();
    world.now_ms += 1_000;
    assert!(!world.watcher.scan(world.now_ms), "not in pieces");
    world.commit();
    assert_eq!(world.lines, ["ERROR behind the hole"]);
    assert_eq!(world.gaps, [(LogGapReason::Truncated, None)]);
    world.restart();
    file.write_all_at(b"ERROR next\n", at + 22).unwrap();
    world.scan_and_commit();
    assert_eq!(world.matched(), 2);
}

/// What is reserved for a log at its end is written later.
#[test]
fn zeros_at_the_end_are_read_again_when_they_are_written() {
    let mut world = World::new("a.log", "^ERROR");
    world.scan_and_commit();
    let file = File::create(world.path("a.log")).unwrap();
    file.set_len(200_000).unwrap();
    file.write_all_at(b"ERROR one\n", 0).unwrap();
    world.scan_and_commit();
    file.write_all_at(b"ERROR two\n", 10).unwrap();
    world.scan_and_commit();
    world.restart();
    file.write_all_at(b"ERROR three\n", 20).unwrap();
    world.scan_and_commit();
    assert_eq!(world.lines, ["ERROR one", "ERROR two", "ERROR three"]);
    assert_eq!(world.gaps, []);
}

#[test]
fn a_last_line_without_an_end_is_matched_after_a_while_and_once() {
    let mut world = World::new("a.log", "ERROR");
    world.checks[0].rules.push(LogRule {
        name: "whole".to_owned(),
        pattern: "^ERROR done$".to_owned(),
        lines_per_minute: None,
    });
    world.watcher.set(&world.checks);
    world.scan_and_commit();
    world.append("a.log", "fine\nERROR");
    world.scan_and_commit();
    assert_eq!(world.matched(), 0, "more may come");
    world.now_ms += 10_000;
    world.scan_and_commit();
    assert_eq!(world.matched(), 1);
    world.now_ms += 60_000;
    world.scan_and_commit();
    world.restart();
    world.scan_and_commit();
    world.now_ms += 60_000;
    world.scan_and_commit();
    assert_eq!(world.matched(), 1, "once");
    // The rule that matched before its end does not count again, the other does.
    world.append("a.log", " done\nERROR next\n");
    world.scan_and_commit();
    assert_eq!(world.matched(), 3);
    assert_eq!(world.lines, ["ERROR", "ERROR done", "ERROR next"]);
}
