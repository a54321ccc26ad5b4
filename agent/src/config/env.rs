//! Every setting as an environment variable: `WATCHKEEP_SECTION__KEY`. Lists are separated by
//! commas. A variable that is set wins over the file.

use std::str::FromStr;

use super::raw::RawConfig;

type Setter = fn(&mut RawConfig, &str) -> Result<(), String>;

/// One setting.
#[derive(Clone, Copy)]
pub struct Variable {
    /// The key's own name, without its section.
    pub name: &'static str,
    /// The variable's name.
    pub env: &'static str,
    set: Setter,
}

impl std::fmt::Debug for Variable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.env)
    }
}

const fn variable(name: &'static str, env: &'static str, set: Setter) -> Variable {
    Variable { name, env, set }
}

/// All of them.
pub const VARIABLES: [Variable; 21] = [
    variable("state_dir", "WATCHKEEP_STATE_DIR", |raw, text| {
        raw.state_dir = text.into();
        Ok(())
    }),
    variable("log_paths", "WATCHKEEP_LIMITS__LOG_PATHS", |raw, text| {
        raw.limits.log_paths = list(text);
        Ok(())
    }),
    variable(
        "min_interval_ms",
        "WATCHKEEP_LIMITS__MIN_INTERVAL_MS",
        |raw, text| number(text, &mut raw.limits.min_interval_ms),
    ),
    variable("processes", "WATCHKEEP_LIMITS__PROCESSES", |raw, text| {
        raw.limits.processes = Some(list(text));
        Ok(())
    }),
    variable("units", "WATCHKEEP_LIMITS__UNITS", |raw, text| {
        raw.limits.units = Some(list(text));
        Ok(())
    }),
    variable(
        "windows_services",
        "WATCHKEEP_LIMITS__WINDOWS_SERVICES",
        |raw, text| {
            raw.limits.windows_services = Some(list(text));
            Ok(())
        },
    ),
    variable("event_logs", "WATCHKEEP_LIMITS__EVENT_LOGS", |raw, text| {
        raw.limits.event_logs = list(text);
        Ok(())
    }),
    variable(
        "failed_units",
        "WATCHKEEP_LIMITS__FAILED_UNITS",
        |raw, text| flag(text, &mut raw.limits.failed_units),
    ),
    variable(
        "journal_units",
        "WATCHKEEP_LIMITS__JOURNAL_UNITS",
        |raw, text| {
            raw.limits.journal_units = Some(list(text));
            Ok(())
        },
    ),
    variable(
        "busiest_processes",
        "WATCHKEEP_LIMITS__BUSIEST_PROCESSES",
        |raw, text| {
            raw.limits.busiest_processes = text
                .parse()
                .map_err(|_| format!("\"{text}\" is neither true nor false"))?;
            Ok(())
        },
    ),
    variable("tcp", "WATCHKEEP_LIMITS__TCP", |raw, text| {
        raw.limits.tcp = list(text);
        Ok(())
    }),
    variable("discovery", "WATCHKEEP_LIMITS__DISCOVERY", |raw, text| {
        flag(text, &mut raw.limits.discovery)
    }),
    variable("probe_ca", "WATCHKEEP_LIMITS__PROBE_CA", |raw, text| {
        raw.limits.probe_ca = Some(text.into());
        Ok(())
    }),
    variable(
        "insecure_probes",
        "WATCHKEEP_LIMITS__INSECURE_PROBES",
        |raw, text| {
            raw.limits.insecure_probes = list(text);
            Ok(())
        },
    ),
    variable(
        "certificate_paths",
        "WATCHKEEP_LIMITS__CERTIFICATE_PATHS",
        |raw, text| {
            raw.limits.certificate_paths = list(text);
            Ok(())
        },
    ),
    variable("max_bytes", "WATCHKEEP_SPOOL__MAX_BYTES", |raw, text| {
        number(text, &mut raw.spool.max_bytes)
    }),
    variable(
        "max_age_hours",
        "WATCHKEEP_SPOOL__MAX_AGE_HOURS",
        |raw, text| number(text, &mut raw.spool.max_age_hours),
    ),
    variable(
        "memory_frames",
        "WATCHKEEP_SPOOL__MEMORY_FRAMES",
        |raw, text| number(text, &mut raw.spool.memory_frames),
    ),
    variable("extra", "WATCHKEEP_REDACTION__EXTRA", |raw, text| {
        raw.redaction.extra = list(text);
        Ok(())
    }),
    variable("proxy", "WATCHKEEP_UPLINK__PROXY", |raw, text| {
        raw.uplink.proxy = Some(text.to_owned());
        Ok(())
    }),
    variable("level", "WATCHKEEP_LOG__LEVEL", |raw, text| {
        text.clone_into(&mut raw.log.level);
        Ok(())
    }),
];

pub(super) fn overlay(
    raw: &mut RawConfig,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<(), String> {
    for variable in VARIABLES {
        if let Some(text) = value(variable.env) {
            (variable.set)(raw, &text).map_err(|problem| format!("{}: {problem}", variable.env))?;
        }
    }
    Ok(())
}

fn number<T: FromStr>(text: &str, target: &mut T) -> Result<(), String> {
    *target = text
        .trim()
        .parse()
        .map_err(|_| format!("\"{text}\" is not a whole number in range"))?;
    Ok(())
}

fn flag(text: &str, target: &mut bool) -> Result<(), String> {
    *target = text
        .trim()
        .parse()
        .map_err(|_| format!("\"{text}\" is not true or false"))?;
    Ok(())
}

fn list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(str::to_owned)
        .collect()
}
