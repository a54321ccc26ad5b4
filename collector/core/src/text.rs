//! Text from agents, made safe to store and to show. Control characters, line and paragraph
//! separators and bidirectional overrides are *unsafe*: PostgreSQL refuses U+0000, terminals and mail
//! headers act on others, and overrides show a text in another order than it has.
//!
//! Free text is cleaned and cut, so that no message is lost for one character. A name (the key of a
//! service, a log rule) is compared with other names, so it is never altered: [`is_safe`] says
//! whether it can be taken.

/// Stands for what was taken out.
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;
/// Ends a text that was cut.
const CUT: &str = "…";

/// Whether a text has no unsafe character, so it can be stored and shown as it is.
pub fn is_safe(text: &str) -> bool {
    // Most texts are ASCII.
    let is_plain = text.bytes().all(|byte| (b' '..0x7f).contains(&byte));
    is_plain || !text.chars().any(is_unsafe)
}

/// Makes a text of one line: white space becomes a space, other unsafe characters U+FFFD, and what
/// exceeds `max_bytes` is cut.
pub fn clean_line(text: &mut String, max_bytes: usize) {
    clean(text, max_bytes, |c| match c {
        '\t' | '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{85}' | '\u{2028}' | '\u{2029}' => ' ',
        _ => REPLACEMENT,
    });
}

/// The same for a text that may have several lines, as log records have: tabs and newlines stay.
pub fn clean_lines(text: &mut String, max_bytes: usize) {
    if text.contains('\r') {
        *text = text.replace("\r\n", "\n").replace('\r', "\n");
    }
    clean(text, max_bytes, |c| match c {
        '\t' | '\n' => c,
        '\u{85}' | '\u{2028}' | '\u{2029}' => '\n',
        _ => REPLACEMENT,
    });
}

fn clean(text: &mut String, max_bytes: usize, safe: impl Fn(char) -> char) {
    if !is_safe(text) {
        let chars = text.chars();
        *text = chars
            .map(|c| if is_unsafe(c) { safe(c) } else { c })
            .collect();
    }
    if text.len() > max_bytes {
        let end = text.floor_char_boundary(max_bytes.saturating_sub(CUT.len()));
        text.truncate(end);
        text.push_str(CUT);
    }
}

fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> String {
        let mut text = text.to_owned();
        clean_line(&mut text, 32);
        text
    }

    fn lines(text: &str) -> String {
        let mut text = text.to_owned();
        clean_lines(&mut text, 32);
        text
    }

    #[test]
    fn what_is_unsafe_is_replaced_and_the_rest_stays() {
        let cases = [
            ("plain", "plain", "plain"),
            ("Łódź 東京 😀", "Łódź 東京 😀", "Łódź 東京 😀"),
            ("a\0b", "a\u{fffd}b", "a\u{fffd}b"),
            ("a\tb\r\nc\rd", "a b  c d", "a\tb\nc\nd"),
            ("\u{1b}[31mred", "\u{fffd}[31mred", "\u{fffd}[31mred"),
            ("a\u{85}b\u{2028}c\u{2029}d", "a b c d", "a\nb\nc\nd"),
            (
                "evil\u{202e}txt.exe",
                "evil\u{fffd}txt.exe",
                "evil\u{fffd}txt.exe",
            ),
            (
                "\u{2066}x\u{2069}\u{7f}",
                "\u{fffd}x\u{fffd}\u{fffd}",
                "\u{fffd}x\u{fffd}\u{fffd}",
            ),
        ];
        for (text, one, several) in cases {
            assert_eq!(line(text), one, "{text:?}");
            assert_eq!(lines(text), several, "{text:?}");
            assert_eq!(is_safe(text), text == one, "{text:?}");
        }
        assert_eq!(line(&"é".repeat(40)), "é".repeat(14) + "…");
    }

    proptest! {
        #[test]
        fn the_result_is_safe_bounded_and_final(text in "\\PC*|(.|\n|\u{0}|\u{202e}){0,60}") {
            let cleaned = line(&text);
            prop_assert!(is_safe(&cleaned) && cleaned.len() <= 32, "{:?}", cleaned);
            prop_assert_eq!(line(&cleaned), cleaned);
            let several = lines(&text);
            prop_assert!(several.len() <= 32);
            prop_assert!(several.split(['\n', '\t']).all(is_safe), "{:?}", several);
            prop_assert_eq!(lines(&several), several);
        }
    }
}
