//! Search by words, the same in memory and on both databases. Texts are folded before they are
//! stored and before they are compared: letter case and diacritics do not matter. A search finds a
//! text if the text contains each of its words, in any order.

use unicode_normalization::{UnicodeNormalization as _, char::is_combining_mark};

/// Words of one search that count; the rest is ignored.
pub const MAX_WORDS: usize = 6;
/// Characters of one search that count.
pub const MAX_CHARS: usize = 100;

/// Folds a text: lower case, no diacritics, ligatures and full-width forms as their plain letters.
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for letter in text
        .nfkd()
        .filter(|letter| !is_combining_mark(*letter))
        .flat_map(char::to_lowercase)
    {
        // Letters that Unicode does not decompose.
        match letter {
            'ł' => folded.push('l'),
            'ø' => folded.push('o'),
            'đ' | 'ð' => folded.push('d'),
            'ı' => folded.push('i'),
            'ς' => folded.push('σ'),
            'ħ' => folded.push('h'),
            'ß' => folded.push_str("ss"),
            'æ' => folded.push_str("ae"),
            'œ' => folded.push_str("oe"),
            'þ' => folded.push_str("th"),
            // What `to_lowercase` adds to some capitals.
            letter if is_combining_mark(letter) => {}
            letter => folded.push(letter),
        }
    }
    folded
}

/// The order of names in lists, the same whatever database they come from: letter case and diacritics
/// count only between names that are equal without them.
pub fn name_order(name: &str) -> (String, String) {
    (fold(name), name.to_owned())
}

/// The folded words of a search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words(Vec<String>);

impl Words {
    /// Splits what a person typed at white space.
    pub fn new(typed: &str) -> Self {
        let typed: String = typed.chars().take(MAX_CHARS).collect();
        let words = typed.split_whitespace().map(fold);
        Self(
            words
                .filter(|word| !word.is_empty())
                .take(MAX_WORDS)
                .collect(),
        )
    }

    /// No word: everything is found.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The words.
    pub fn words(&self) -> &[String] {
        &self.0
    }

    /// Whether a folded text contains each word.
    pub fn find_in(&self, folded: &str) -> bool {
        self.0.iter().all(|word| folded.contains(word.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn letters_are_found_however_they_are_typed() {
        for (text, folded) in [
            ("Łódź", "lodz"),
            ("MÜLLER", "muller"),
            ("Mu\u{308}ller", "muller"),
            ("Straße", "strasse"),
            ("Tromsø", "tromso"),
            ("İzmir", "izmir"),
            ("ﬁle ①", "file 1"),
            ("Москва", "москва"),
            ("ΣΊΣΥΦΟΣ", "σισυφοσ"),
            ("Σίσυφος", "σισυφοσ"),
            ("10.0.0.7", "10.0.0.7"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }

    #[test]
    fn names_are_in_the_order_of_their_letters() {
        let mut names = [
            "zeta", "Zürich", "eclair", "éclair", "Äpfel", "apfel", "Bad",
        ];
        names.sort_by_key(|name| name_order(name));
        let expected = [
            "apfel", "Äpfel", "Bad", "eclair", "éclair", "zeta", "Zürich",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn every_word_has_to_be_there_in_any_order() {
        let text = fold("db1 Bergen Fjord Shipping 10.1.2.3");
        for (typed, found) in [
            ("fjord bergen", true),
            ("  BERGEN\tdb ", true),
            ("10.1.2", true),
            ("", true),
            ("bergen oslo", false),
        ] {
            assert_eq!(Words::new(typed).find_in(&text), found, "{typed}");
        }
    }

    #[test]
    fn a_search_is_bounded() {
        let long = "ab ".repeat(1_000);
        assert_eq!(Words::new(&long).words().len(), MAX_WORDS);
        let long = "é".repeat(10_000);
        assert_eq!(Words::new(&long).words()[0].len(), MAX_CHARS);
    }

    proptest! {
        #[test]
        fn folding_twice_changes_nothing(text: String) {
            let once = fold(&text);
            prop_assert_eq!(fold(&once), once);
        }

        #[test]
        fn a_text_is_found_by_each_of_its_words(text: String) {
            let folded = fold(&text);
            for word in text.split_whitespace().filter(|word| word.chars().count() <= MAX_CHARS) {
                prop_assert!(Words::new(word).find_in(&folded), "{word}");
            }
        }
    }
}
