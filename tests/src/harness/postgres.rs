//! A PostgreSQL server of a test's own, which it may freeze and stop.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{
    ports::Port,
    process::{Process, output},
    wait_for,
};

/// Where Debian and its relatives keep the server's programs, by version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// The account that the server runs under when the test is root, which it refuses to be.
const ACCOUNT: &str = "postgres";
/// How long the server may take to start.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct PostgresServer {
    process: Option<Process>,
    programs: PathBuf,
    port: Port,
    dir: TempDir,
}

impl PostgresServer {
    /// Makes a server's files and starts it. Trusts everybody on loopback.
    pub async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("watchkeep-postgres-")
            .tempdir()?;
        if rustix::process::getuid().is_root() {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711))?;
            std::fs::create_dir(dir.path().join("db"))?;
            let mut chown = Command::new("chown");
            chown.arg(ACCOUNT).arg(dir.path().join("db"));
            output("chown", chown).await?;
        }
        let mut server = Self {
            process: None,
            programs: programs()?,
            port: Port::take()?,
            dir,
        };
        let mut initdb = server.command("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale"]);
        initdb.arg("--no-sync").arg("-D").arg(server.data());
        output("initdb", initdb).await?;
        server.go_up().await?;
        Ok(server)
    }

    /// Starts the server after [`PostgresServer::go_down`].
    pub async fn go_up(&mut self) -> Result<()> {
        let mut command = self.command("postgres");
        let port = self.port.number().to_string();
        command.args(["-p", &port, "-c", "listen_addresses=127.0.0.1"]);
        command.args(["-c", "unix_socket_directories=", "-c", "fsync=off"]);
        command.arg("-D").arg(self.data());
        let log = self.dir.path().join("log");
        self.process = Some(Process::start("PostgreSQL", command, &log)?);
        wait_for("PostgreSQL answers", START_DEADLINE, async || {
            let mut ready = self.command("pg_isready");
            ready.args(["-h", "127.0.0.1", "-p", &port]);
            output("pg_isready", ready).await?;
            Ok(Some(()))
        })
        .await;
        Ok(())
    }

    /// Ends the server at once, with all its connections.
    pub async fn go_down(&mut self) -> Result<()> {
        self.signal(Signal::QUIT)?;
        let process = self.process.as_mut().context("PostgreSQL does not run")?;
        wait_for("PostgreSQL ends", START_DEADLINE, async || process.ended()).await;
        self.process = None;
        Ok(())
    }

    /// Stops all its processes where they are: connections stay open, and nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal_all(Signal::STOP)
    }

    /// Lets a frozen server continue.
    pub fn thaw(&self) -> Result<()> {
        self.signal_all(Signal::CONT)
    }

    /// The URL of its first database.
    pub fn url(&self) -> String {
        let port = self.port.number();
        format!("postgres://postgres@127.0.0.1:{port}/postgres")
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("PostgreSQL does not run")?;
        process.signal(signal)
    }

    fn signal_all(&self, signal: Signal) -> Result<()> {
        let process = self.process.as_ref().context("PostgreSQL does not run")?;
        // The postmaster first: a stopped one starts no more of them.
        process.signal(signal)?;
        for child in children(process.id())? {
            // One may have ended meanwhile.
            let _ = kill_process(child, signal);
        }
        Ok(())
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("db")
    }

    /// A program of the server, under an account that it accepts.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let mut command = if rustix::process::getuid().is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", ACCOUNT, "--regid", ACCOUNT, "--init-groups"]);
            command.arg(path);
            command
        } else {
            Command::new(path)
        };
        command.current_dir("/");
        command
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Killed while frozen, its processes would wait for ever.
        if self.process.is_some() {
            let _ = self.thaw();
            let _ = self.signal(Signal::QUIT);
            if let Some(mut process) = self.process.take() {
                let _ = process.wait();
            }
        }
    }
}

/// The directory of the newest server that is installed.
fn programs() -> Result<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(VERSIONS).with_context(|| format!("{VERSIONS} is needed"))? {
        let entry = entry?;
        let version = entry.file_name().to_string_lossy().parse();
        if let Ok(version) = version {
            found.push((version, entry.path().join("bin")));
        }
    }
    found.sort();
    let newest = found.pop().context("no PostgreSQL server is installed")?;
    Ok(newest.1)
}

fn children(parent: u32) -> Result<Vec<Pid>> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(Path::new(&path))?;
    let pids = text.split_whitespace().map(|word| {
        let id = word.parse()?;
        Pid::from_raw(id).context("a process has a positive number")
    });
    pids.collect()
}
