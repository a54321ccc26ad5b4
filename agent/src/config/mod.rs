//! The customer's configuration: where state lives, and caps on what the MSP's policy may ask for.
//!
//! TOML, unknown keys refused; each setting also as `WATCHKEEP_SECTION__KEY` (see [`mod@env`]).
//! Everything has a default, so an absent file is an empty one. All problems of the values are
//! reported at once; those of the TOML's form one at a time, as the parser finds them.

mod env;
mod raw;

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher};
use regex::Regex;
use tracing_subscriber::filter::{LevelFilter, Targets};
use watchkeep_shared::wire::limits;

pub use self::env::VARIABLES;
use self::raw::{RawConfig, RawLimits};

/// Where `run` looks when no `--config` is given.
pub const DEFAULT_PATH: &str = crate::platform::SETTINGS;

/// The configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where identity, spool, positions and status live.
    pub state_dir: PathBuf,
    /// What the policy may ask for.
    pub limits: Limits,
    /// Bounds of the spool.
    pub spool: SpoolLimits,
    /// Patterns beyond the built-in ones whose matches are taken out of log lines.
    pub redaction_extra: Vec<Regex>,
    /// Proxy for connections to the collector; none by default, whatever the environment says.
    pub proxy: Option<String>,
    /// What is logged, of `info` or `watchkeep_agent=debug`.
    pub log: Targets,
}

/// Where the configuration comes from, so that it can be read again.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file that was named; `None`: [`DEFAULT_PATH`], which may be absent.
    pub path: Option<PathBuf>,
    /// A state directory that overrides file and environment.
    pub state_dir: Option<PathBuf>,
}

impl Source {
    /// Reads it now.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.path.as_deref())?;
        if let Some(dir) = &self.state_dir {
            config.state_dir.clone_from(dir);
        }
        Ok(config)
    }

    /// The state directory, even of a configuration that is wrong in other places: whoever asks how
    /// the agent is wants to know just then.
    pub fn state_dir_at_least(&self) -> PathBuf {
        if let Ok(config) = self.load() {
            return config.state_dir;
        }
        let of_file = || {
            let text = std::fs::read_to_string(self.file()).ok()?;
            let table: toml::Table = text.parse().ok()?;
            Some(PathBuf::from(table.get("state_dir")?.as_str()?))
        };
        self.state_dir
            .clone()
            .or_else(|| std::env::var_os("WATCHKEEP_STATE_DIR").map(PathBuf::from))
            .or_else(of_file)
            .unwrap_or_else(|| RawConfig::default().state_dir)
    }

    /// The file.
    pub fn file(&self) -> &Path {
        self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// The customer's caps on the policy.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Files that log rules may read.
    pub log_paths: Vec<AllowedPath>,
    /// Shortest heartbeat interval, milliseconds.
    pub min_interval_ms: u32,
    /// Process names that may be watched; `None`: any.
    pub processes: Option<Vec<String>>,
    /// Units whose entries in the systemd journal may be read; `None`: the whole journal may.
    pub journal_units: Option<Vec<String>>,
    /// Units of systemd that may be watched or reported as failed; `None`: any.
    pub units: Option<Vec<AllowedPath>>,
    /// Services of Windows that may be watched, by their short names; `None`: any.
    pub windows_services: Option<Vec<AllowedPath>>,
    /// Channels of the Windows Event Log that log rules may read.
    pub event_logs: Vec<String>,
    /// Whether failed units are reported though the policy does not name them.
    pub failed_units: bool,
    /// Whether names and sizes of the busiest processes may be sent when an alert opens.
    pub busiest_processes: bool,
    /// `HOST:PORT` endpoints that may be probed beside those on this machine's own addresses.
    pub tcp: Vec<String>,
    /// Whether what could be watched here is reported to the MSP.
    pub discovery: bool,
    /// Certificates that HTTPS probes trust, PEM; `None`: those of the system.
    pub probe_ca: Option<PathBuf>,
    /// `HOST:PORT` of HTTPS endpoints whose certificate is not verified.
    pub insecure_probes: Vec<String>,
    /// Files whose certificates' validity may be looked at.
    pub certificate_paths: Vec<AllowedPath>,
}

/// A glob that the customer allows for logs, units or services.
#[derive(Clone)]
pub struct AllowedPath {
    text: String,
    matcher: GlobMatcher,
}

/// Bounds of the spool.
#[derive(Clone, Copy, Debug)]
pub struct SpoolLimits {
    /// Most bytes on disk.
    pub max_bytes: u64,
    /// Oldest frame that is kept, hours.
    pub max_age_hours: u32,
    /// Most frames in memory when the disk refuses.
    pub memory_frames: usize,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file or a variable has the wrong form or names an unknown key.
    #[error("{0}")]
    Form(String),
    /// Values out of range.
    #[error("{}", .0.join("\n"))]
    Values(Vec<String>),
}

impl AllowedPath {
    /// Compiles a glob; `*` stays within a directory, `**` does not.
    pub fn new(text: &str) -> Result<Self, globset::Error> {
        let matcher = GlobBuilder::new(text)
            .literal_separator(true)
            .build()?
            .compile_matcher();
        Ok(Self {
            text: text.to_owned(),
            matcher,
        })
    }

    /// Whether it allows `path`.
    pub fn allows(&self, path: &Path) -> bool {
        self.matcher.is_match(path)
    }
}

impl fmt::Debug for AllowedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for AllowedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Config {
    /// Reads `path`, or [`DEFAULT_PATH`] if that exists, and lays the environment over it.
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        let (path, must_exist) = match path {
            Some(path) => (path, true),
            None => (Path::new(DEFAULT_PATH), false),
        };
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => String::new(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        Self::parse(&text, &path.display().to_string(), &|name| {
            std::env::var(name).ok()
        })
    }

    /// Parses `text`, called `name` in errors, with variables from `variable`.
    pub fn parse(
        text: &str,
        name: &str,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let mut raw = RawConfig::parse(text, name).map_err(ConfigError::Form)?;
        env::overlay(&mut raw, variable).map_err(ConfigError::Form)?;
        check(raw).map_err(ConfigError::Values)
    }
}

fn check(raw: RawConfig) -> Result<Config, Vec<String>> {
    let mut problems = Vec::new();
    let redaction_extra = patterns(&raw.redaction.extra, &mut problems);
    if !raw.state_dir.is_absolute() {
        problems.push(format!(
            "state_dir: \"{}\" is not an absolute path",
            raw.state_dir.display()
        ));
    }
    let caps = check_limits(raw.limits, &mut problems);
    if raw.spool.max_bytes < 1 << 20 {
        problems.push(format!(
            "spool.max_bytes: {} is less than 1048576 (1 MiB)",
            raw.spool.max_bytes
        ));
    }
    if !(1..=192).contains(&raw.spool.max_age_hours) {
        problems.push(format!(
            "spool.max_age_hours: {} is not between 1 and 192; the collector takes nothing older than 8 days",
            raw.spool.max_age_hours
        ));
    }
    if !(16..=100_000).contains(&raw.spool.memory_frames) {
        problems.push(format!(
            "spool.memory_frames: {} is not between 16 and 100000",
            raw.spool.memory_frames
        ));
    }
    let log = log_filter(&raw.log.level).unwrap_or_else(|problem| {
        problems.push(problem);
        Targets::default()
    });
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Config {
        state_dir: raw.state_dir,
        limits: caps,
        spool: SpoolLimits {
            max_bytes: raw.spool.max_bytes,
            max_age_hours: raw.spool.max_age_hours,
            memory_frames: raw.spool.memory_frames,
        },
        redaction_extra,
        proxy: raw.uplink.proxy,
        log,
    })
}

fn check_limits(raw: RawLimits, problems: &mut Vec<String>) -> Limits {
    let (shortest, longest) = (limits::MIN_INTERVAL_MS, limits::MAX_INTERVAL_MS);
    if !(shortest..=longest).contains(&raw.min_interval_ms) {
        problems.push(format!(
            "limits.min_interval_ms: {} is not between {shortest} and {longest}",
            raw.min_interval_ms
        ));
    }
    Limits {
        log_paths: allowed_paths("limits.log_paths", &raw.log_paths, problems),
        min_interval_ms: raw.min_interval_ms,
        processes: raw.processes,
        units: raw
            .units
            .map(|globs| allowed_names("limits.units", &globs, problems)),
        windows_services: raw
            .windows_services
            .map(|globs| allowed_names("limits.windows_services", &globs, problems)),
        event_logs: raw.event_logs,
        failed_units: raw.failed_units,
        journal_units: raw.journal_units,
        busiest_processes: raw.busiest_processes,
        tcp: raw.tcp,
        discovery: raw.discovery,
        probe_ca: raw.probe_ca,
        insecure_probes: raw.insecure_probes,
        certificate_paths: allowed_paths(
            "limits.certificate_paths",
            &raw.certificate_paths,
            problems,
        ),
    }
}

fn allowed_paths(key: &str, globs: &[String], problems: &mut Vec<String>) -> Vec<AllowedPath> {
    let mut allowed = Vec::new();
    for glob in globs {
        match AllowedPath::new(glob) {
            // On Windows the defaults, which are Linux's, are no absolute paths.
            Ok(_) if !glob.starts_with('/') && !Path::new(glob).is_absolute() => {
                problems.push(format!("{key}: \"{glob}\" is not an absolute path or glob"));
            }
            Ok(path) => allowed.push(path),
            Err(error) => problems.push(format!("{key}: \"{glob}\": {error}")),
        }
    }
    allowed
}

fn allowed_names(key: &str, globs: &[String], problems: &mut Vec<String>) -> Vec<AllowedPath> {
    let mut allowed = Vec::new();
    for glob in globs {
        match AllowedPath::new(glob) {
            Ok(name) => allowed.push(name),
            Err(error) => problems.push(format!("{key}: \"{glob}\": {error}")),
        }
    }
    allowed
}

fn patterns(texts: &[String], problems: &mut Vec<String>) -> Vec<Regex> {
    let mut compiled = Vec::new();
    for text in texts {
        match Regex::new(text) {
            Ok(pattern) => compiled.push(pattern),
            Err(error) => problems.push(format!("redaction.extra: \"{text}\": {error}")),
        }
    }
    compiled
}

/// What is logged: a level for all, or levels by module, as in `warn,watchkeep_agent::logs=debug`.
fn log_filter(text: &str) -> Result<Targets, String> {
    // Without a level a word would be taken for a module of which all is logged.
    let parts = text.split(',').map(str::trim);
    let is_level = |part: &str| part.parse::<LevelFilter>().is_ok();
    let unclear = parts
        .clone()
        .find(|part| !part.contains('=') && !is_level(part));
    if let Some(part) = unclear {
        return Err(format!(
            "log.level: \"{part}\" is not a level; use error, warn, info, debug or trace, or MODULE=LEVEL"
        ));
    }
    text.parse()
        .map_err(|error| format!("log.level: \"{text}\" is not MODULE=LEVEL: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "agent.toml", &|_| None).map_err(|error| error.to_string())
    }

    #[test]
    fn the_example_is_valid_and_says_the_defaults() {
        let text = include_str!("../../../config/agent.example.toml");
        let example = parse(text).unwrap();
        let defaults = parse("").unwrap();
        assert_eq!(format!("{example:?}"), format!("{defaults:?}"));
        // Every setting appears in it, commented out or not.
        for variable in VARIABLES {
            assert!(text.contains(variable.name), "{}", variable.name);
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_line_and_suggestion() {
        let error = parse("[spool]\nmax_age_hours = 1\nmax_byte = 5\n").unwrap_err();
        assert!(error.contains("agent.toml:3"), "{error}");
        assert!(error.contains("spool.max_byte"), "{error}");
        assert!(error.contains("did you mean \"max_bytes\"?"), "{error}");
    }

    #[test]
    fn a_value_of_the_wrong_type_names_its_key_and_line() {
        let error = parse("\n[spool]\nmax_bytes = \"much\"\n").unwrap_err();
        assert!(error.contains("agent.toml:3"), "{error}");
        assert!(error.contains("spool.max_bytes"), "{error}");
    }

    #[test]
    fn all_values_out_of_range_are_reported_at_once() {
        let error = parse(
            "state_dir = \"here\"\n[limits]\nlog_paths = [\"logs/*\"]\nmin_interval_ms = 1\n[redaction]\nextra = [\"(\"]\n[log]\nlevel = \"a=b=c\"\n[spool]\nmax_bytes = 1\nmax_age_hours = 0\nmemory_frames = 1\n",
        )
        .unwrap_err();
        for key in [
            "state_dir",
            "limits.log_paths",
            "limits.min_interval_ms",
            "redaction.extra",
            "log.level",
            "spool.max_bytes",
            "spool.max_age_hours",
            "spool.memory_frames",
        ] {
            assert!(error.contains(key), "{key} in {error}");
        }
    }

    #[test]
    fn variables_win_over_the_file() {
        let text = "state_dir = \"/a\"\n[spool]\nmax_bytes = 2000000\n";
        let config = Config::parse(text, "agent.toml", &|name| match name {
            "WATCHKEEP_STATE_DIR" => Some("/b".to_owned()),
            "WATCHKEEP_SPOOL__MAX_BYTES" => Some("3000000".to_owned()),
            "WATCHKEEP_LIMITS__LOG_PATHS" => Some("/x/*.log, /y/**".to_owned()),
            "WATCHKEEP_LIMITS__PROCESSES" => Some("nginx".to_owned()),
            _ => None,
        })
        .unwrap();
        assert_eq!(config.state_dir, PathBuf::from("/b"));
        assert_eq!(config.spool.max_bytes, 3_000_000);
        assert_eq!(config.limits.log_paths.len(), 2);
        assert!(config.limits.log_paths[1].allows(Path::new("/y/z/a.log")));
        assert!(!config.limits.log_paths[0].allows(Path::new("/x/z/a.log")));
        assert_eq!(config.limits.processes, Some(vec!["nginx".to_owned()]));
    }

    #[test]
    fn a_bad_variable_is_named() {
        let error = Config::parse("", "agent.toml", &|name| {
            (name == "WATCHKEEP_SPOOL__MAX_BYTES").then(|| "lots".to_owned())
        })
        .unwrap_err()
        .to_string();
        assert!(error.contains("WATCHKEEP_SPOOL__MAX_BYTES"), "{error}");
    }
}
