//! Whether the agent's user may read the logs that the policy names. On many distributions the system's
//! logs are for root alone; a rule that can never match must not look like one that finds nothing.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;
use watchkeep_shared::wire::policy::LogCheck;

use super::find::Pattern;

/// How often permissions are looked at again.
const EVERY: Duration = Duration::from_mins(10);
/// Most files of one check that are tried.
const MAX_FILES: usize = 64;
/// Most paths that are named.
const MAX_NAMED: usize = 3;
/// What the customer can do.
const ADVICE: &str =
    "allow it with an ACL, or with the drop-in read-all-logs.conf in the package's documentation";

/// Which logs of the policy are closed to the agent.
#[derive(Debug, Default)]
pub struct LogAccess {
    version: u64,
    checked_at: Option<Instant>,
    denied: Vec<PathBuf>,
}

impl LogAccess {
    /// What people must know, for the logs of this version of the policy: which can't be read.
    pub fn problem(&mut self, version: u64, logs: &[LogCheck], now: Instant) -> Option<String> {
        let is_fresh = self.checked_at.is_some_and(|at| now < at + EVERY);
        if !is_fresh || version != self.version {
            self.version = version;
            self.checked_at = Some(now);
            let files = logs
                .iter()
                .filter(|log| log.journal.is_none() && log.event_log.is_none());
            self.denied = files.filter_map(|log| denied(&log.path)).collect();
        }
        let first = self.denied.iter().take(MAX_NAMED);
        let named: Vec<String> = first.map(|path| path.display().to_string()).collect();
        let more = match self.denied.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!named.is_empty()).then(|| {
            let named = named.join(", ");
            format!("the agent's user may not read {named}{more}: {ADVICE}")
        })
    }
}

/// A file or directory that a path or glob leads to and that this process may not read.
fn denied(path: &str) -> Option<PathBuf> {
    let pattern = Pattern::new(path);
    if let Some(plain) = pattern.plain() {
        return is_denied(File::open(plain)).then(|| plain.to_owned());
    }
    let directory = glob_directory(path);
    if is_denied(fs::read_dir(&directory)) {
        return Some(directory);
    }
    let files = pattern.list().files.into_iter().take(MAX_FILES);
    files
        .map(|(path, _)| path)
        .find(|path| is_denied(File::open(path)))
}

/// The longest directory of a glob without a wildcard.
fn glob_directory(glob: &str) -> PathBuf {
    let fixed = glob.split(['*', '?', '[', '{', '\\']).next().unwrap_or("");
    let end = fixed.rfind('/').map_or(0, |at| at + 1);
    Path::new(fixed.get(..end).unwrap_or("/")).to_owned()
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_glob_has_no_wildcard() {
        let of = |glob| glob_directory(glob).display().to_string();
        assert_eq!(of("/var/log/httpd/*_log"), "/var/log/httpd/");
        assert_eq!(of("/var/log/pods/**/0.log"), "/var/log/pods/");
        assert_eq!(of("/srv/app-{1,2}/a.log"), "/srv/");
    }
}
