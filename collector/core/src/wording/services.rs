//! Phrases about watched services.

use watchkeep_shared::wire::heartbeat::ServiceStatus;

/// The title of a service that is down: `Process ux-worker is not running`,
/// `https://…/health does not answer: connection refused`.
pub fn service_breach(key: &str, status: ServiceStatus, detail: Option<&str>) -> String {
    let detail = detail
        .map(without_error_number)
        .filter(|text| !text.is_empty());
    let Some((kind, target)) = key.split_once(':') else {
        return unit(key, status, detail);
    };
    match kind {
        "process" => process(target, status, detail),
        "systemd" | "winsvc" => {
            let is_service = kind == "winsvc" || target.ends_with(".service");
            let what = if is_service { "Service" } else { "Unit" };
            unit(&format!("{what} {target}"), status, detail)
        }
        "tcp" | "http" => endpoint(target, detail),
        "tls" => certificate(&format!("Certificate of {target}"), detail),
        "certificate" => certificate(&format!("Certificate {target}"), detail),
        _ => unit(key, status, detail),
    }
}

/// Why a service's alert recovered.
pub fn service_recovery(key: &str) -> &'static str {
    match key.split_once(':') {
        Some(("tcp" | "http", _)) => "answers again",
        Some(("tls" | "certificate", _)) => "valid again",
        _ => "running again",
    }
}

fn process(name: &str, status: ServiceStatus, detail: Option<&str>) -> String {
    match (status, detail) {
        (
            ServiceStatus::Stopped | ServiceStatus::NotFound,
            None | Some("no process of this name"),
        ) => {
            format!("Process {name} is not running")
        }
        (_, Some(detail)) => format!("Process {name}: {detail}"),
        (status, None) => format!("Process {name} is {}", status.text()),
    }
}

fn unit(name: &str, status: ServiceStatus, detail: Option<&str>) -> String {
    let what = match status {
        ServiceStatus::Failed => "failed",
        ServiceStatus::RestartLoop => "keeps restarting",
        ServiceStatus::NotFound => "does not exist",
        ServiceStatus::Stopped => "is stopped",
        ServiceStatus::Stuck => "is stuck",
        ServiceStatus::Masked => "is masked",
        ServiceStatus::Running | ServiceStatus::Changing | ServiceStatus::Unknown => {
            return match detail {
                Some(detail) => format!("{name} is {} ({detail})", status.text()),
                None => format!("{name} is {}", status.text()),
            };
        }
    };
    match detail {
        Some(detail) => format!("{name} {what} ({detail})"),
        None => format!("{name} {what}"),
    }
}

/// An HTTP probe's detail begins with `answers` if there was an answer.
fn endpoint(target: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) if detail.starts_with("answers ") => format!("{target} {detail}"),
        Some(detail) => format!("{target} does not answer: {}", lower_first(detail)),
        None => format!("{target} does not answer"),
    }
}

fn certificate(what: &str, detail: Option<&str>) -> String {
    match detail {
        Some(detail) if detail.starts_with("expired ") => format!("{what} {detail}"),
        Some("not valid yet") => format!("{what} is not valid yet"),
        Some(detail) => format!("{what} cannot be checked: {detail}"),
        None => format!("{what} cannot be checked"),
    }
}

/// `Connection refused` as it reads within a sentence; `TLS …` stays.
fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (Some(first), Some(second)) if second.is_lowercase() => {
            first.to_lowercase().chain([second]).chain(chars).collect()
        }
        _ => text.to_owned(),
    }
}

/// Without `(os error 111)` at its end.
fn without_error_number(detail: &str) -> &str {
    let detail = detail.trim();
    match detail.split_once(" (os error ") {
        Some((text, rest)) if rest.ends_with(')') => text,
        _ => detail,
    }
}

#[cfg(test)]
mod tests {
    use super::{ServiceStatus::*, *};

    #[test]
    fn a_service_that_is_down_is_named_as_people_know_it() {
        for (key, status, detail, expected) in [
            (
                "process:ux-worker",
                Stopped,
                Some("no process of this name"),
                "Process ux-worker is not running",
            ),
            (
                "process:ux-worker",
                Stopped,
                Some("1 process, at least 2 are asked for"),
                "Process ux-worker: 1 process, at least 2 are asked for",
            ),
            (
                "http:https://x.example/health",
                Stopped,
                Some("Connection refused (os error 111)"),
                "https://x.example/health does not answer: connection refused",
            ),
            (
                "http:https://x.example/health",
                Failed,
                Some("answers 503"),
                "https://x.example/health answers 503",
            ),
            (
                "tcp:127.0.0.1:22",
                Stopped,
                Some("connection refused"),
                "127.0.0.1:22 does not answer: connection refused",
            ),
            (
                "systemd:nginx.service",
                Failed,
                Some("exit code 3"),
                "Service nginx.service failed (exit code 3)",
            ),
            (
                "systemd:backup.timer",
                Masked,
                None,
                "Unit backup.timer is masked",
            ),
            (
                "systemd:nginx.service",
                RestartLoop,
                None,
                "Service nginx.service keeps restarting",
            ),
            (
                "certificate:/etc/x.pem",
                Failed,
                Some("expired 3 days ago"),
                "Certificate /etc/x.pem expired 3 days ago",
            ),
            (
                "tls:x:443",
                Stopped,
                Some("connection refused"),
                "Certificate of x:443 cannot be checked: connection refused",
            ),
            ("mqtt:x", Stopped, None, "mqtt:x is stopped"),
        ] {
            assert_eq!(service_breach(key, status, detail), expected);
        }
    }
}
