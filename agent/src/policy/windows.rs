//! What the customer's configuration says of checks that only Windows has. Pure.

use std::path::Path;

use crate::{config::Limits, logs::channel_of};

/// Longest short name of a service (`CreateServiceW`, `lpServiceName`), characters.
const MAX_SERVICE_NAME: usize = 256;

/// Whether the customer allows a service of Windows.
pub(super) fn allowed_service(name: &str, limits: &Limits) -> Result<(), &'static str> {
    let is_odd = |c: char| c.is_control() || c == '/' || c == '\\';
    if name.is_empty() || name.chars().count() > MAX_SERVICE_NAME || name.contains(is_odd) {
        return Err("not the short name of a service, as in Spooler");
    }
    match &limits.windows_services {
        Some(allowed) if !allowed.iter().any(|one| one.allows(Path::new(name))) => {
            Err("not in the local limits.windows_services")
        }
        _ => Ok(()),
    }
}

/// Whether the customer allows reading the channel that a log's path names.
pub(super) fn allowed_event_log(path: &str, limits: &Limits) -> Result<(), String> {
    let Some(channel) = channel_of(path) else {
        return Err(
            "the path of a log with \"event_log\" is \"eventlog:CHANNEL\", as in eventlog:System"
                .to_owned(),
        );
    };
    // Windows does not tell channels apart by case.
    let is_it = |allowed: &String| allowed.eq_ignore_ascii_case(channel);
    if limits.event_logs.iter().any(is_it) {
        Ok(())
    } else {
        Err("not in the local limits.event_logs".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn limits(text: &str) -> Limits {
        Config::parse(text, "agent.toml", &|_| None).unwrap().limits
    }

    #[test]
    fn services_and_channels_are_watched_as_far_as_the_customer_says() {
        let open = limits("");
        assert_eq!(allowed_service("Spooler", &open), Ok(()));
        for odd in ["", "a/b", "a\\b", "a\nb", &"a".repeat(257)] {
            assert!(allowed_service(odd, &open).is_err(), "{odd:?}");
        }
        assert_eq!(allowed_event_log("eventlog:system", &open), Ok(()));
        assert!(allowed_event_log("eventlog:Security", &open).is_err());
        for odd in ["System", "eventlog:", "journal", "eventlog:a\nb"] {
            assert!(allowed_event_log(odd, &open).is_err(), "{odd:?}");
        }

        let text = "[limits]\nwindows_services = [\"MSSQL*\"]\nevent_logs = [\"Security\"]\n";
        let capped = limits(text);
        assert_eq!(allowed_service("MSSQLSERVER", &capped), Ok(()));
        assert_eq!(
            allowed_service("Spooler", &capped),
            Err("not in the local limits.windows_services")
        );
        assert_eq!(allowed_event_log("eventlog:Security", &capped), Ok(()));
        assert!(allowed_event_log("eventlog:System", &capped).is_err());
    }
}
