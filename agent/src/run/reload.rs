//! Reading the configuration again while the agent runs: at SIGHUP, and soon after its file changed.
//! A configuration that can't be used changes nothing; that it waits is said in the log, in the
//! status and to the collector. The state directory is the one setting that needs a restart.

use std::{fmt, path::Path, sync::Arc, time::Duration};

use tokio::time::Instant;
use watchkeep_shared::wire::policy::Trouble;

use super::{Agent, SetLogLevel};
use crate::{
    clock,
    config::{Config, Source},
    logs::Redactor,
    policy::Effective,
};

/// A file is often written in several steps.
const SETTLE: Duration = Duration::from_millis(300);

/// Why the configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReloadReason {
    /// SIGHUP.
    BySignal,
    /// The file changed, or was only touched.
    ByChange,
}

pub(super) struct Reload {
    source: Source,
    set_log_level: SetLogLevel,
    /// What was last read, in force or not.
    text: Option<String>,
    due_at: Option<Instant>,
    error: Option<String>,
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reload")
            .field("source", &self.source)
            .field("error", &self.error)
            .finish_non_exhaustive()
    }
}

impl Reload {
    pub(super) fn new(source: Source, set_log_level: SetLogLevel) -> Self {
        Self {
            text: read(&source),
            source,
            set_log_level,
            due_at: None,
            error: None,
        }
    }

    /// The file to watch.
    pub(super) fn file(&self) -> &Path {
        self.source.file()
    }

    pub(super) fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.due_at.is_some_and(|at| now >= at)
    }

    /// Why what is on disk is not in force.
    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

fn read(source: &Source) -> Option<String> {
    std::fs::read_to_string(source.file()).ok()
}

impl Agent {
    /// The configuration file changed; it is read when it has settled.
    pub(super) fn config_changed(&mut self, now: Instant) {
        self.reload.due_at.get_or_insert(now + SETTLE);
    }

    /// Reads the configuration again and applies it, or says why not.
    pub(super) fn reload(&mut self, asked: ReloadReason) {
        self.reload.due_at = None;
        let text = read(&self.reload.source);
        if asked == ReloadReason::ByChange && text == self.reload.text {
            return;
        }
        self.reload.text = text;
        let loaded = self
            .reload
            .source
            .load()
            .map_err(|error| error.to_string())
            .and_then(|config| self.adopt(config));
        match loaded {
            Ok(()) => {
                self.reload.error = None;
                tracing::info!("the configuration was read again and applies");
            }
            Err(error) => {
                tracing::warn!(
                    "the new configuration is wrong, the one before stays in force: {error}"
                );
                self.reload.error = Some(error);
            }
        }
        self.tell_troubles();
        self.write_status(clock::now(), false);
        // The collector hears of it now, not at the next beat.
        self.schedule.services_changed(Instant::now());
    }

    fn adopt(&mut self, config: Config) -> Result<(), String> {
        if config.state_dir != self.config.state_dir {
            return Err(format!(
                "state_dir: it is {} and would become {}, which needs a restart",
                self.config.state_dir.display(),
                config.state_dir.display()
            ));
        }
        if config.proxy != self.config.proxy {
            self.uplink
                .set_proxy(config.proxy.clone())
                .map_err(|error| error.to_string())?;
        }
        (self.reload.set_log_level)(config.log.clone());
        // What was found under the limits before goes out now.
        self.beat(Instant::now());
        self.spool.set_limits(config.spool);
        let redactor = Arc::new(Redactor::new(config.redaction_extra.clone()));
        self.logs
            .set_limits(config.limits.log_paths.clone(), redactor);
        self.services.set_limits(&config.limits);
        self.config = config;
        match self.asked.take() {
            Some(policy) => self.apply_policy(policy),
            None => self.policy = Effective::without_policy(&self.config.limits),
        }
        Ok(())
    }

    /// Tells the collector what keeps the agent from doing all that it should, when that changes.
    pub(super) fn tell_troubles(&mut self) {
        let trouble = |item: &str, detail: String| Trouble {
            item: item.to_owned(),
            detail: shorten(detail),
        };
        let mut troubles = Vec::new();
        troubles.extend(self.spool.trouble().map(|detail| trouble("spool", detail)));
        troubles.extend(self.reload.error().map(|error| {
            let detail = format!("the new one is wrong, the one before stays in force: {error}");
            trouble("config", detail)
        }));
        if self.troubles.as_ref() != Some(&troubles) {
            self.uplink.report_troubles(troubles.clone());
            self.troubles = Some(troubles);
        }
    }
}

/// The protocol's limit for a text, with room for what the collector puts around it.
fn shorten(mut text: String) -> String {
    const MOST_BYTES: usize = 1_000;
    if text.len() > MOST_BYTES {
        text.truncate(text.floor_char_boundary(MOST_BYTES));
        text.push('…');
    }
    text
}
