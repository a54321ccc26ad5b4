//! `watchkeep-agent logs test`: what the rules would find in a file, and what would be sent.

use std::{
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use watchkeep_shared::wire::policy::{LogCheck, LogRule};

use super::print;
use crate::{
    config::{AllowedPath, Config},
    logs::{Redactor, Trial, check_pattern, try_rules},
    policy::{self, Effective},
};

/// What can be asked about logs.
#[derive(Debug, Subcommand)]
pub(super) enum LogsCommand {
    /// Shows what rules would find in a file and what would be sent, after redaction. Exits with 0 if
    /// something matches, 1 if nothing does, 2 if it is not known.
    Test {
        /// The file; nothing is sent, and nothing is remembered of it.
        file: PathBuf,
        /// Look for this regular expression instead of the running policy's rules.
        #[arg(long, value_name = "REGEX")]
        pattern: Vec<String>,
        /// With --pattern: what the first line of each record of several lines matches.
        #[arg(long, value_name = "REGEX", requires = "pattern")]
        record_start: Option<String>,
        /// How many lines to show of each rule.
        #[arg(long, value_name = "N", default_value_t = 5)]
        lines: usize,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// Carries it out; an error has been printed when this returns.
pub(super) fn run(config: &Config, command: LogsCommand) -> ExitCode {
    match test(config, command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "watchkeep-agent: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn test(config: &Config, command: LogsCommand) -> anyhow::Result<bool> {
    let LogsCommand::Test {
        file,
        pattern,
        record_start,
        lines,
        json,
    } = command;
    let name = || file.display().to_string();
    let path = crate::platform::real_path(&file).with_context(name)?;
    let checks = if pattern.is_empty() {
        followed(config, &std::path::absolute(&file)?)?
    } else {
        vec![given(&pattern, record_start)?]
    };
    let redactor = Redactor::new(config.redaction_extra.clone());
    let mut trials = Vec::new();
    for check in &checks {
        let mut log = File::open(&path).with_context(name)?;
        trials.push(try_rules(&mut log, check, &redactor, lines).with_context(name)?);
    }
    let allowed = config.limits.log_paths.iter().any(|a| a.allows(&path));
    print(&if json {
        let value = serde_json::json!({ "file": path, "allowed": allowed, "checks": trials });
        format!("{}\n", serde_json::to_string_pretty(&value)?)
    } else {
        table(&trials, allowed)?
    })?;
    Ok(trials.iter().any(Trial::matched))
}

/// The running policy's checks that follow the file.
fn followed(config: &Config, path: &Path) -> anyhow::Result<Vec<LogCheck>> {
    let Some(policy) = policy::load(&config.state_dir) else {
        bail!(
            "no policy is stored in {}; give a rule with --pattern",
            config.state_dir.display()
        );
    };
    let mut checks = Effective::new(&policy, &config.limits, &policy::is_local).logs;
    checks.retain(|check| {
        check.journal.is_none() && AllowedPath::new(&check.path).is_ok_and(|glob| glob.allows(path))
    });
    if checks.is_empty() {
        bail!("no rule of the policy in force follows it; give one with --pattern");
    }
    Ok(checks)
}

fn given(patterns: &[String], record_start: Option<String>) -> anyhow::Result<LogCheck> {
    for pattern in patterns.iter().chain(&record_start) {
        if let Err(error) = check_pattern(pattern) {
            bail!("\"{pattern}\": {error}");
        }
    }
    Ok(LogCheck {
        path: String::new(),
        rules: patterns
            .iter()
            .map(|pattern| LogRule {
                name: pattern.clone(),
                pattern: pattern.clone(),
                lines_per_minute: None,
            })
            .collect(),
        record_start,
        journal: None,
        event_log: None,
    })
}

fn table(trials: &[Trial], allowed: bool) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if !allowed {
        writeln!(
            text,
            "not within limits.log_paths: the agent does not read this file"
        )?;
    }
    for trial in trials {
        for rule in &trial.rules {
            writeln!(
                text,
                "{}: {} of {} match",
                rule.rule, rule.count, trial.records
            )?;
            for line in &rule.lines {
                writeln!(text, "    {}", line.replace('\n', "\n    "))?;
            }
        }
        if trial.skipped_bytes > 0 {
            writeln!(
                text,
                "{} bytes of overlong lines are not looked at",
                trial.skipped_bytes
            )?;
        }
    }
    Ok(text)
}
