//! Links in text that people write: notes and runbooks. Only `http` and `https` become links; the
//! text itself is never changed. Pure.

const SCHEMES: [&str; 2] = ["https://", "http://"];

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    /// As written in the text.
    pub(crate) text: String,
    /// It is an address that can be followed.
    pub(crate) is_link: bool,
}

/// The parts of a text, in its order; together they are the text.
pub(crate) fn linked(text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut plain_from, mut search_from) = (0, 0);
    while let Some(start) = next_scheme(text, search_from) {
        let end = start + address_len(&text[start..]);
        let is_address = SCHEMES.iter().all(|scheme| text[start..end] != **scheme);
        if is_address && begins_word(text, start) {
            push(&mut pieces, &text[plain_from..start], false);
            push(&mut pieces, &text[start..end], true);
            plain_from = end;
        }
        search_from = end;
    }
    push(&mut pieces, &text[plain_from..], false);
    pieces
}

fn push(pieces: &mut Vec<Piece>, text: &str, is_link: bool) {
    if !text.is_empty() {
        let text = text.to_owned();
        pieces.push(Piece { text, is_link });
    }
}

fn next_scheme(text: &str, from: usize) -> Option<usize> {
    let found = SCHEMES
        .iter()
        .filter_map(|scheme| text[from..].find(scheme));
    found.min().map(|at| from + at)
}

fn begins_word(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    before.is_none_or(|c| !c.is_alphanumeric())
}

/// How much of the text is the address at its beginning: up to white space, a quote or an angle
/// bracket, without the punctuation of the sentence around it.
fn address_len(text: &str) -> usize {
    let is_end = |c: char| c.is_whitespace() || c.is_control() || "<>\"`".contains(c);
    let mut address = text.split(is_end).next().unwrap_or(text);
    while let Some(last) = address.chars().next_back() {
        let is_open = last == ')' && address.matches('(').count() >= address.matches(')').count();
        if is_open || !".,;:!?)]}'*_".contains(last) {
            break;
        }
        address = &address[..address.len() - last.len_utf8()];
    }
    let scheme = SCHEMES.iter().find(|scheme| text.starts_with(**scheme));
    address.len().max(scheme.map_or(0, |scheme| scheme.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links(text: &str) -> Vec<String> {
        let pieces = linked(text).into_iter().filter(|piece| piece.is_link);
        pieces.map(|piece| piece.text).collect()
    }

    #[test]
    fn addresses_end_where_the_sentence_goes_on() {
        for (text, expected) in [
            ("see https://a.example/x.", vec!["https://a.example/x"]),
            ("(https://a.example/x_(1))", vec!["https://a.example/x_(1)"]),
            (
                "<http://a.example>, http://b",
                vec!["http://a.example", "http://b"],
            ),
            ("https:// alone, xhttps://a.example", vec![]),
            ("javascript:alert(1) ftp://a.example", vec![]),
            (
                "https://a.example/?q=1&r=é#x",
                vec!["https://a.example/?q=1&r=é#x"],
            ),
        ] {
            assert_eq!(links(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_parts_are_the_text(text in "(https?://|[a-z<>&\"' ().é\n]){0,20}") {
            let pieces = linked(&text);
            let all: String = pieces.iter().map(|piece| piece.text.as_str()).collect();
            prop_assert_eq!(all, text);
            for piece in pieces.iter().filter(|piece| piece.is_link) {
                let is_web = SCHEMES.iter().any(|scheme| piece.text.starts_with(scheme));
                prop_assert!(is_web && !piece.text.contains(['<', '>', '"', ' ', '\n']));
            }
        }
    }
}
