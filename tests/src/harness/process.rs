//! Programs that are started and stopped by a test. What they write goes to a file.

use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::wait::wait_for;

/// How much of a program's output a failing test prints, lines.
const TAIL_LINES: usize = 60;
/// How long a program may take to end after it was asked to.
const STOP_DEADLINE: Duration = Duration::from_secs(20);

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command`; its output is appended to `log`. It gets the environment that is set on
    /// the command and `PATH`, nothing else.
    pub fn start(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = isolate(&mut command)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("can't start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Kills it, as `kill -9` does, and waits for its end.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to stop, as a service manager does, and waits for its end.
    pub async fn terminate(mut self) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let what = format!("{} ends after SIGTERM", self.name);
        Ok(wait_for(&what, STOP_DEADLINE, async || self.ended()).await)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).with_context(|| format!("can't signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let text = std::fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            let name = &self.name;
            let _ = writeln!(
                std::io::stderr(),
                "--- the end of {name}'s output:\n{tail}\n---"
            );
        }
    }
}

/// Runs a program to its end and returns what it wrote to its standard output; fails if it does.
pub async fn output(name: &str, command: Command) -> Result<String> {
    let (status, text, errors) = run(name, command).await?;
    if !status.success() {
        bail!("{name} ended with {status}\n{text}{errors}");
    }
    Ok(text)
}

/// The same for a program whose exit status is part of its answer.
pub async fn output_of_any_status(name: &str, command: Command) -> Result<String> {
    Ok(run(name, command).await?.1)
}

async fn run(name: &str, mut command: Command) -> Result<(ExitStatus, String, String)> {
    isolate(&mut command).stdin(Stdio::null());
    let output = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("can't run {name}"))?;
    let text = String::from_utf8(output.stdout).with_context(|| format!("{name}'s output"))?;
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status, text, errors))
}

/// Takes away the test's own environment: settings of the programs can come from variables.
fn isolate(command: &mut Command) -> &mut Command {
    let set: Vec<_> = command
        .get_envs()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
        .collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).envs(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn output_comes_back_and_failures_carry_what_was_written() {
        let mut echo = Command::new("sh");
        echo.args(["-c", "echo $WORD"]).env("WORD", "hello");
        assert_eq!(output("echo", echo).await.unwrap(), "hello\n");
        let mut fail = Command::new("sh");
        fail.args(["-c", "echo why >&2; exit 3"]);
        let error = output("fail", fail).await.unwrap_err().to_string();
        assert!(error.contains("why") && error.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn a_program_is_asked_to_stop_and_stops() {
        let dir = tempfile::tempdir().unwrap();
        let mut sleep = Command::new("sleep");
        sleep.arg("600");
        let sleep = Process::start("sleep", sleep, &dir.path().join("log")).unwrap();
        assert!(!sleep.terminate().await.unwrap().success());
    }
}
