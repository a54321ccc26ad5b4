//! The policies on disk: the one in force, and one that is on trial.
//!
//! A new policy is on trial until a heartbeat under it was acknowledged. Should it end the process
//! again and again (it eats the memory that the unit allows, or meets a fault of this program), it is
//! put aside after two failed starts, the one before is in force, and the provider is told: a policy
//! can't take a host out of reach. A start has failed if the process neither was acknowledged, nor ran
//! for [`SURVIVED_AFTER`], nor stopped in order.
//!
//! A start that can't be counted, because the disk refuses, does not use the policy on trial.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use watchkeep_shared::wire::policy::Policy;

use crate::files::{self, Durability};

const IN_FORCE: &str = "policy.json";
const TRIAL: &str = "policy.trial.json";
/// So many starts under a policy may fail.
const MOST_FAILED_STARTS: u32 = 2;
/// A process that has run for so long under a policy was not ended by it.
pub const SURVIVED_AFTER: Duration = Duration::from_mins(2);

/// A policy that no acknowledged heartbeat was sent under.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Trial {
    policy: Policy,
    /// Starts under it that have not succeeded, the running one included.
    starts: u32,
    /// It ended too many of them, and is not used.
    put_aside: bool,
    /// The agent that met it; another version tries again.
    agent_version: String,
}

/// The policies on disk.
#[derive(Debug)]
pub struct PolicyStore {
    dir: PathBuf,
    trial: Option<Trial>,
}

impl PolicyStore {
    /// Reads the policies of a state directory at the start of the process, and counts the start if
    /// one is on trial. Returns the one to run too.
    pub fn open(dir: &Path) -> (Self, Option<Policy>) {
        let trial: Option<Trial> = read(&dir.join(TRIAL));
        let mut store = Self {
            dir: dir.to_owned(),
            trial,
        };
        let policy = store.begin_start().or_else(|| read(&dir.join(IN_FORCE)));
        (store, policy)
    }

    /// The policy on trial, if this start may try it.
    fn begin_start(&mut self) -> Option<Policy> {
        let trial = self.trial.as_mut()?;
        if trial.agent_version != crate::VERSION {
            crate::VERSION.clone_into(&mut trial.agent_version);
            trial.starts = 0;
            trial.put_aside = false;
        }
        if trial.starts >= MOST_FAILED_STARTS {
            if !trial.put_aside {
                tracing::error!(
                    policy.version = trial.policy.version,
                    "the policy is put aside: {} starts under it failed",
                    trial.starts
                );
            }
            trial.put_aside = true;
        } else {
            trial.starts += 1;
        }
        let policy = (!trial.put_aside).then(|| trial.policy.clone());
        match self.write_trial() {
            Ok(()) => policy,
            Err(error) => {
                tracing::warn!(%error, "the policy on trial is not used: its start can't be counted");
                None
            }
        }
    }

    /// Takes a policy that the collector sent. Returns whether it is to be run: one that was put aside
    /// is not.
    pub fn offer(&mut self, policy: &Policy) -> bool {
        if let Some(trial) = &self.trial
            && trial.policy == *policy
        {
            return !trial.put_aside;
        }
        self.trial = Some(Trial {
            policy: policy.clone(),
            starts: 0,
            put_aside: false,
            agent_version: crate::VERSION.to_owned(),
        });
        self.warn_if_not_written();
        true
    }

    /// A heartbeat that was sent under this version of the policy was acknowledged. `another_came`
    /// with the acknowledgement: the collector wants the host to run a different one.
    pub fn acknowledged(&mut self, version: u64, another_came: bool) {
        let Some(trial) = &self.trial else { return };
        if trial.put_aside {
            // The collector has gone back to the one in force.
            if !another_came {
                self.end_trial();
            }
        } else if trial.policy.version == version {
            let path = self.dir.join(IN_FORCE);
            match files::write_json(&path, &trial.policy, Durability::Cached) {
                Ok(()) => self.end_trial(),
                Err(error) => tracing::warn!(%error, "the policy could not be stored"),
            }
        }
    }

    fn end_trial(&mut self) {
        match std::fs::remove_file(self.dir.join(TRIAL)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, "the policy on trial could not be removed");
            }
            _ => self.trial = None,
        }
    }

    /// The process ran for [`SURVIVED_AFTER`] or stops in order: this start has not failed.
    pub fn survived(&mut self) {
        if let Some(trial) = &mut self.trial
            && !trial.put_aside
            && trial.starts > 0
        {
            trial.starts = 0;
            self.warn_if_not_written();
        }
    }

    /// Whether a policy is on trial and its start not yet known to be good.
    pub fn is_waiting(&self) -> bool {
        self.trial
            .as_ref()
            .is_some_and(|trial| !trial.put_aside && trial.starts > 0)
    }

    /// What people must know: a policy was put aside.
    pub fn problem(&self) -> Option<String> {
        let trial = self.trial.as_ref().filter(|trial| trial.put_aside)?;
        Some(format!(
            "version {:x} was put aside: {} starts under it ended before a heartbeat was acknowledged; the policy before it is in force until another one comes",
            trial.policy.version, trial.starts
        ))
    }

    fn write_trial(&self) -> io::Result<()> {
        let path = self.dir.join(TRIAL);
        match &self.trial {
            Some(trial) => files::write_json(&path, trial, Durability::Cached),
            None => Ok(()),
        }
    }

    fn warn_if_not_written(&self) {
        if let Err(error) = self.write_trial() {
            tracing::warn!(%error, "the policy could not be stored");
        }
    }
}

/// The policy that the agent of this state directory runs.
pub fn running(dir: &Path) -> Option<Policy> {
    read::<Trial>(&dir.join(TRIAL))
        .filter(|trial| !trial.put_aside)
        .map(|trial| trial.policy)
        .or_else(|| read(&dir.join(IN_FORCE)))
}

/// Removes the policies.
pub fn forget(dir: &Path) -> io::Result<()> {
    for name in [TRIAL, IN_FORCE] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    files::read_json(path)
        .inspect_err(|error| tracing::warn!(%error, "{} can't be read", path.display()))
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn policy(version: u64) -> Policy {
        Policy {
            version,
            interval_ms: 10_000,
            services: Vec::new(),
            logs: Vec::new(),
        }
    }

    fn version(policy: Option<Policy>) -> Option<u64> {
        policy.map(|policy| policy.version)
    }

    /// A directory in which version 1 is in force and version 2 was received.
    fn tried() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, policy_now) = PolicyStore::open(dir.path());
        assert_eq!(version(policy_now), None);
        assert!(store.offer(&policy(1)));
        store.acknowledged(1, false);
        assert!(store.offer(&policy(2)));
        // Heartbeats from before it are acknowledged.
        store.acknowledged(1, true);
        dir
    }

    #[test]
    fn two_failed_starts_put_a_policy_aside_until_another_one_comes() {
        let dir = tried();
        for _ in 0..2 {
            let (store, now) = PolicyStore::open(dir.path());
            assert_eq!((version(now), store.problem()), (Some(2), None));
        }
        let (mut store, now) = PolicyStore::open(dir.path());
        assert_eq!(version(now), Some(1), "the one before");
        assert!(
            store
                .problem()
                .unwrap()
                .starts_with("version 2 was put aside: 2 starts")
        );
        // The collector sends it again with each acknowledgement.
        assert!(!store.offer(&policy(2)));
        store.acknowledged(1, true);
        assert!(store.problem().is_some());
        drop(store);
        let (mut store, now) = PolicyStore::open(dir.path());
        assert_eq!(version(now), Some(1), "still");
        assert!(store.offer(&policy(3)));
        assert_eq!(store.problem(), None);
        store.acknowledged(3, false);
        let (store, now) = PolicyStore::open(dir.path());
        assert_eq!((version(now), store.problem()), (Some(3), None));
    }

    #[test]
    fn a_policy_that_was_put_aside_is_forgotten_when_the_one_before_is_wanted_again() {
        let dir = tried();
        for _ in 0..3 {
            PolicyStore::open(dir.path());
        }
        let (mut store, _) = PolicyStore::open(dir.path());
        store.acknowledged(1, false);
        assert_eq!(store.problem(), None);
        assert!(store.offer(&policy(2)), "tried once more");
    }

    #[test]
    fn starts_that_end_in_order_or_late_are_no_failures() {
        let dir = tried();
        for _ in 0..9 {
            let (mut store, now) = PolicyStore::open(dir.path());
            assert_eq!(version(now), Some(2));
            assert!(store.is_waiting());
            store.survived();
            assert!(!store.is_waiting());
        }
    }

    #[test]
    fn another_version_of_the_agent_tries_again() {
        let dir = tried();
        for _ in 0..3 {
            PolicyStore::open(dir.path());
        }
        let path = dir.path().join(TRIAL);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace(crate::VERSION, "0.0.1")).unwrap();
        let (store, now) = PolicyStore::open(dir.path());
        assert_eq!((version(now), store.problem()), (Some(2), None));
    }

    #[test]
    fn a_start_that_can_not_be_counted_does_not_try_it() {
        let dir = tried();
        // Where the temporary file would be.
        std::fs::create_dir(dir.path().join("policy.trial.json.tmp")).unwrap();
        for _ in 0..4 {
            let (store, now) = PolicyStore::open(dir.path());
            assert_eq!((version(now), store.problem()), (Some(1), None));
        }
    }
}
