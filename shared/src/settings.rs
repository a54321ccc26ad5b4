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

/// Settings that were read.
#[derive(Debug, PartialEq, Eq)]
pub struct Loaded<T> {
    pub settings: T,
    /// Variables with our prefix that name no section or key, as container platforms set for a
    /// service of our name (`WATCHKEEP_PORT=tcp://…`). They are ignored; warn about them.
    pub ignored: Vec<String>,
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
    load_reporting(origin, text, env).map(|loaded| loaded.settings)
}

/// As [`load`]; says which variables were ignored.
///
/// # Errors
/// As [`load`].
pub fn load_reporting<T: DeserializeOwned>(
    origin: &str,
    text: &str,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, SettingsError> {
    let error = |message: String| SettingsError {
        origin: origin.to_owned(),
        message,
    };
    let mut overrides: Vec<(String, String)> = env
        .into_iter()
        .filter(|(name, _)| name.starts_with(ENV_PREFIX) && !name.starts_with(TEST_PREFIX))
        .filter(|(name, _)| !NOT_SETTINGS.contains(&name.as_str()))
        .collect();
    let mut ignored = Vec::new();
    loop {
        if overrides.is_empty() {
            // Straight from the text, so that errors carry line and column.
            let settings =
                toml::from_str(text).map_err(|e| error(with_suggestion(&e.to_string())))?;
            return Ok(Loaded { settings, ignored });
        }
        let mut table: Table = text
            .parse()
            .map_err(|e: toml::de::Error| error(with_suggestion(&e.to_string())))?;
        let in_file: Vec<String> = table.keys().cloned().collect();
        for (name, value) in &overrides {
            set(&mut table, name, value)?;
        }
        let failed = match serde_path_to_error::deserialize(table) {
            Ok(settings) => return Ok(Loaded { settings, ignored }),
            Err(failed) => failed,
        };
        // A first part that is no section, and that only the environment names, is not ours.
        let message = failed.inner().to_string();
        let stranger = unknown_field(&message)
            .filter(|field| failed.path().to_string() == *field || is_root(failed.path()))
            .filter(|field| !in_file.iter().any(|key| key == field))
            .map(str::to_owned);
        let before = overrides.len();
        if let Some(field) = stranger {
            overrides.retain(|(name, _)| {
                let is_stranger = parts(name).first() == Some(&field);
                if is_stranger {
                    ignored.push(name.clone());
                }
                !is_stranger
            });
        }
        if overrides.len() == before {
            let names: Vec<&str> = overrides.iter().map(|(name, _)| name.as_str()).collect();
            return Err(error(format!(
                "{}: {} (with {} from the environment)",
                failed.path(),
                with_suggestion(&message),
                names.join(", ")
            )));
        }
    }
}

fn is_root(path: &serde_path_to_error::Path) -> bool {
    path.iter().next().is_none()
}

/// The name in serde's message about an unknown field.
fn unknown_field(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field `")?;
    rest.split_once('`').map(|(field, _)| field)
}

/// Section and key of a variable's name.
fn parts(name: &str) -> Vec<String> {
    let path = name.strip_prefix(ENV_PREFIX).unwrap_or(name);
    path.to_ascii_lowercase()
        .split(ENV_SEPARATOR)
        .map(str::to_owned)
        .collect()
}

fn set(table: &mut Table, name: &str, text: &str) -> Result<(), SettingsError> {
    let mut parts = parts(name);
    let Some(key) = parts.pop() else {
        return Ok(());
    };
    let mut here = table;
    for part in parts {
        let next = here
            .entry(part.as_str())
            .or_insert_with(|| Value::Table(Table::new()));
        here = next.as_table_mut().ok_or_else(|| SettingsError {
            origin: name.to_owned(),
            message: format!("`{part}` is not a section of the settings"),
        })?;
    }
    here.insert(key, literal(text));
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

/// How many edits lie between two words: characters left out, added, replaced or exchanged with
/// their neighbour (optimal string alignment).
pub fn edits(a: &str, b: &str) -> usize {
    strsim::osa_distance(a, b)
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

    /// What Kubernetes and docker set for a service named `watchkeep`.
    #[test]
    fn variables_of_others_are_ignored_and_reported() {
        let vars = env(&[
            ("WATCHKEEP_PORT", "tcp://10.0.0.1:8443"),
            ("WATCHKEEP_SERVICE_HOST", "10.0.0.1"),
            ("WATCHKEEP_INNER__INTERVAL_MS", "7"),
        ]);
        let loaded = load_reporting::<Outer>("a.toml", "name = \"a\"", vars).unwrap();
        assert_eq!(loaded.settings.inner.interval_ms, 7);
        let mut ignored = loaded.ignored;
        ignored.sort();
        assert_eq!(ignored, ["WATCHKEEP_PORT", "WATCHKEEP_SERVICE_HOST"]);
        // A typing error within a section is not.
        let vars = env(&[("WATCHKEEP_INNER__INTERVALL_MS", "7")]);
        let error = load::<Outer>("a.toml", "name = \"a\"", vars).unwrap_err();
        assert!(error.to_string().contains("interval_ms"), "{error}");
        // Nor is an unknown section in the file.
        let vars = env(&[("WATCHKEEP_INNER__INTERVAL_MS", "7")]);
        assert!(load::<Outer>("a.toml", "name = \"a\"\n[port]\nx = 1", vars).is_err());
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
