//! Settings files, the same way in both programs: TOML, unknown keys refused with the line and a
//! suggestion, and every key also as an environment variable `WATCHKEEP_SECTION__KEY`.
//!
//! Pure: the caller reads the file and the environment.

use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Prefix of the environment variables that override settings.
pub const ENV_PREFIX: &str = "WATCHKEEP_";
/// Between section and key in such a variable.
const ENV_SEPARATOR: &str = "__";
/// Variables with this prefix are hooks of the test-suite, not settings.
const TEST_PREFIX: &str = "WATCHKEEP_TEST_";
/// Read elsewhere: where the settings are, what is logged, where the scripts keep things.
const NOT_SETTINGS: [&str; 3] = ["WATCHKEEP_CONFIG", "WATCHKEEP_LOG", "WATCHKEEP_DATA_DIR"];
/// A key at most this many edits away is offered as a suggestion.
const SUGGESTION_EDITS: usize = 3;

/// The settings can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {message}")]
pub struct SettingsError {
    /// The file, or the variable.
    pub origin: String,
    /// What is wrong, where, and what would be right.
    pub message: String,
}

/// Reads settings from a file's text, overridden by environment variables.
///
/// # Errors
/// Names the line and key, or the variable, and suggests the nearest known key.
pub fn load<T: DeserializeOwned>(
    origin: &str,
    text: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<T, SettingsError> {
    let error = |message: String| SettingsError {
        origin: origin.to_owned(),
        message,
    };
    let overrides: Vec<(String, String)> = env
        .into_iter()
        .filter(|(name, _)| name.starts_with(ENV_PREFIX) && !name.starts_with(TEST_PREFIX))
        .filter(|(name, _)| !NOT_SETTINGS.contains(&name.as_str()))
        .collect();
    if overrides.is_empty() {
        // Straight from the text, so that errors carry line and column.
        return toml::from_str(text).map_err(|e| error(with_suggestion(&e.to_string())));
    }
    let mut table: Table = text
        .parse()
        .map_err(|e: toml::de::Error| error(with_suggestion(&e.to_string())))?;
    let names: Vec<&str> = overrides.iter().map(|(name, _)| name.as_str()).collect();
    for (name, value) in &overrides {
        set(&mut table, name, value)?;
    }
    serde_path_to_error::deserialize(table).map_err(|e| {
        let message = with_suggestion(&e.inner().to_string());
        error(format!(
            "{}: {message} (with {} from the environment)",
            e.path(),
            names.join(", ")
        ))
    })
}

fn set(table: &mut Table, name: &str, text: &str) -> Result<(), SettingsError> {
    let path = name
        .strip_prefix(ENV_PREFIX)
        .unwrap_or(name)
        .to_ascii_lowercase();
    let mut parts: Vec<&str> = path.split(ENV_SEPARATOR).collect();
    let Some(key) = parts.pop() else {
        return Ok(());
    };
    let mut here = table;
    for part in parts {
        let next = here
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()));
        here = next.as_table_mut().ok_or_else(|| SettingsError {
            origin: name.to_owned(),
            message: format!("`{part}` is not a section of the settings"),
        })?;
    }
    here.insert(key.to_owned(), literal(text));
    Ok(())
}

/// A TOML value where the text is one (`10`, `true`, `["a"]`), else the text itself.
fn literal(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// Adds "did you mean" to serde's message about an unknown field.
fn with_suggestion(message: &str) -> String {
    let message = message.trim_end();
    let Some((_, rest)) = message.split_once("unknown field `") else {
        return message.to_owned();
    };
    let Some((unknown, rest)) = rest.split_once('`') else {
        return message.to_owned();
    };
    let known = rest.split('`').skip(1).step_by(2);
    let nearest = known.map(|key| (edits(unknown, key), key)).min();
    match nearest {
        Some((distance, key)) if distance <= SUGGESTION_EDITS => {
            format!("{message}\ndid you mean `{key}`?")
        }
        _ => message.to_owned(),
    }
}

/// How many slips of the fingers lie between two words: characters left out, added, replaced or
/// exchanged with their neighbour (Damerau 1964, each place changed once).
pub fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let above = &rows[i - 1];
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut fewest = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                fewest = fewest.min(rows[i - 2][j - 2] + 1);
            }
            row.push(fewest);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Inner,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Inner {
        interval_ms: u32,
        paths: Vec<String>,
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_key() {
        let text = "name = \"a\"\n[inner]\nintervall_ms = 5\n";
        let error = load::<Outer>("a.toml", text, env(&[]))
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(error.contains("did you mean `interval_ms`?"), "{error}");
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let vars = env(&[
            ("WATCHKEEP_INNER__INTERVAL_MS", "7"),
            ("WATCHKEEP_INNER__PATHS", "[\"/a\"]"),
            ("WATCHKEEP_NAME", "from env"),
            ("WATCHKEEP_TEST_BOOT_ID", "ignored"),
            ("PATH", "/bin"),
        ]);
        let outer: Outer = load("a.toml", "name = \"file\"", vars).unwrap();
        let inner = Inner {
            interval_ms: 7,
            paths: vec!["/a".to_owned()],
        };
        assert_eq!(
            outer,
            Outer {
                name: "from env".to_owned(),
                inner
            }
        );
    }

    #[test]
    fn a_bad_variable_is_named() {
        let vars = env(&[("WATCHKEEP_INNER__INTERVAL_MS", "soon")]);
        let error = load::<Outer>("a.toml", "name = \"a\"", vars)
            .unwrap_err()
            .to_string();
        assert!(error.contains("inner.interval_ms"), "{error}");
        assert!(error.contains("WATCHKEEP_INNER__INTERVAL_MS"), "{error}");
    }

    #[test]
    fn distances() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
        assert_eq!(edits("nmae", "name"), 1);
        assert_eq!(edits("nmae", "max"), 2);
    }
}
