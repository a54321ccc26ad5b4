//! An error with its causes as one line for people.

use std::error::Error;

/// The error and its causes, joined by colons. Many errors name their cause in their own text; a
/// cause that is already there is not repeated.
pub fn error_text(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("failed to read {path}: {source}")]
        Named {
            path: &'static str,
            source: std::io::Error,
        },
        #[error("the store failed")]
        Unnamed(#[source] std::io::Error),
    }

    #[test]
    fn a_cause_is_said_once() {
        let missing = || std::io::Error::from_raw_os_error(2);
        let why = missing().to_string();
        let named = Outer::Named {
            path: "/x",
            source: missing(),
        };
        assert_eq!(error_text(&named), format!("failed to read /x: {why}"));
        let unnamed = Outer::Unnamed(missing());
        assert_eq!(error_text(&unnamed), format!("the store failed: {why}"));
    }
}
