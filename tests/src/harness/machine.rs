//! A Debian machine of its own, booted: systemd as its first process, by `systemd-nspawn`, over an
//! overlay on a root that `tests/machine/root.sh` made once. It has its own processes, files and, unlike
//! a plain container, its own boot clock (a time namespace), and its agent is given a boot id of its
//! own, so that to the agent and to the record a boot of it is a boot. It shares the network, so it reaches a collector on loopback.
//!
//! What it does not have: resource limits of cgroups, and a disk whose cache is lost with its power:
//! [`Machine::cut_power`] kills all processes at once, and what they had written stays written.
//!
//! Needs root, `systemd-nspawn` and two variables that `tests/run.sh machine` sets. Where something
//! is missing, that is an error and no test passes.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use watchkeep_shared::ids::random_uuid;

use super::{
    agent::BOOT_VARIABLE,
    process::{Process, output, output_of_any_status},
    wait_for,
};

/// The root that machines are copies of.
pub const ROOT_VARIABLE: &str = "WATCHKEEP_TEST_MACHINE";
/// The directory with the packages under test.
pub const PACKAGES_VARIABLE: &str = "WATCHKEEP_TEST_PACKAGES";

/// A machine boots in a second or two; this one may share two processors with a compiler.
const BOOT_DEADLINE: Duration = Duration::from_mins(2);
/// How long services may take to stop.
const DOWN_DEADLINE: Duration = Duration::from_mins(1);
/// How much of its journal a failing test prints, lines.
const TAIL_LINES: usize = 60;
/// Where control groups are: both hierarchies of a mixed machine, or the one of a modern one.
const CGROUP_ROOTS: [&str; 3] = [
    "/sys/fs/cgroup/systemd",
    "/sys/fs/cgroup/unified",
    "/sys/fs/cgroup",
];
/// What a command in the machine must not be able to do to the kernel that it shares.
const FORBIDDEN: &str = "-sys_time,-sys_boot,-sys_module,-sys_rawio,-syslog,-mac_admin,-wake_alarm";

/// Puts itself into the machine's control groups, and becomes the container. `$1` is the root, `$2`
/// the name, `$3` the uptime to take off, the rest are files of control groups.
const START: &str = r#"
root=$1 name=$2 uptime=$3
shift 3
for procs; do echo $$ >"$procs"; done
exec unshare --time --boottime "-$uptime" --monotonic "-$uptime" --fork --kill-child -- \
    systemd-nspawn --quiet --directory="$root" --machine="$name" --boot --register=no --keep-unit \
    --resolv-conf=off --timezone=off --link-journal=no --console=pipe
"#;

/// A machine: its disk, and its processes while it is on.
#[derive(Debug)]
pub struct Machine {
    // Before the disk, which it uses.
    process: Option<Process>,
    disk: Disk,
    cgroups: Vec<PathBuf>,
    name: String,
}

impl Machine {
    /// A new machine, switched off.
    pub async fn create() -> Result<Self> {
        let base = variable(ROOT_VARIABLE)?;
        let name = format!("wk{}", &random_uuid().simple().to_string()[..12]);
        let disk = Disk::mount(&base).await?;
        std::fs::write(disk.root().join("etc/hostname"), format!("{name}\n"))?;
        std::fs::write(
            disk.root().join("etc/hosts"),
            format!("127.0.0.1 localhost {name}\n"),
        )?;
        Ok(Self {
            process: None,
            disk,
            cgroups: Vec::new(),
            name,
        })
    }

    /// Switches it on and waits until systemd says that it is up.
    pub async fn boot(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the machine is on");
        self.new_boot_id()?;
        self.cgroups = make_cgroups(&self.name)?;
        let mut command = Command::new("sh");
        command.args(["-euc", START, "sh"]);
        command.arg(self.disk.root()).arg(&self.name);
        command.arg(uptime_s().to_string());
        command.args(self.cgroups.iter().map(|group| group.join("cgroup.procs")));
        let log = self.disk.dir.path().join("console.log");
        self.process = Some(Process::start("the machine", command, &log)?);
        wait_for("the machine is up", BOOT_DEADLINE, async || {
            let ended = self.ended()?;
            assert!(!ended, "the machine ended at its start: {}", console(&log));
            let state = self.any_status("systemctl", &["is-system-running"]).await?;
            ensure!(
                matches!(state.trim(), "running" | "degraded"),
                "it is {state}"
            );
            Ok(Some(()))
        })
        .await;
        Ok(())
    }

    /// Within the hardened unit the kernel's own boot id shines through that of the container: the
    /// agent gets this boot's.
    fn new_boot_id(&self) -> Result<()> {
        let dir = "etc/systemd/system/watchkeep-agent.service.d";
        let dir = self.disk.root().join(dir);
        std::fs::create_dir_all(&dir)?;
        let setting = format!("[Service]\nEnvironment={BOOT_VARIABLE}={}\n", random_uuid());
        Ok(std::fs::write(dir.join("boot.conf"), setting)?)
    }

    /// Runs a command in it to its end; returns its standard output.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output(program, self.command(program, arguments)?).await
    }

    /// The same for a shell script.
    pub async fn shell(&self, script: &str) -> Result<String> {
        self.run("sh", &["-euc", script]).await
    }

    /// The same for a command whose exit status is part of its answer.
    pub async fn any_status(&self, program: &str, arguments: &[&str]) -> Result<String> {
        output_of_any_status(program, self.command(program, arguments)?).await
    }

    /// Asks it for a shutdown as its administrator does, and waits until it is off.
    pub async fn shut_down(&mut self, how: &str) -> Result<()> {
        self.run("systemctl", &["--no-block", how]).await?;
        self.off().await
    }

    /// Every process ends at once, without a word.
    pub async fn cut_power(&mut self) -> Result<()> {
        let first = self.first_process()?.to_string();
        let mut kill = Command::new("kill");
        kill.args(["-KILL", &first]);
        output("kill", kill).await?;
        self.off().await
    }

    /// Where its files are, seen from outside.
    pub fn root(&self) -> PathBuf {
        self.disk.root()
    }

    /// Its name in the network.
    pub fn name(&self) -> &str {
        &self.name
    }

    async fn off(&mut self) -> Result<()> {
        wait_for("the machine is off", DOWN_DEADLINE, async || {
            Ok(self.ended()?.then_some(()))
        })
        .await;
        self.process = None;
        remove_cgroups(&self.cgroups);
        Ok(())
    }

    fn ended(&mut self) -> Result<bool> {
        let process = self.process.as_mut().context("the machine is off")?;
        Ok(process.ended()?.is_some())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.first_process()?.to_string()]);
        command.args(["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--time"]);
        command.args(["--root", "--wd", "--", "setpriv"]);
        command.arg(format!("--bounding-set={FORBIDDEN}"));
        command.args(["--inh-caps=-all", "--", "env", "-i"]);
        command.args(["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]);
        command.args([
            "LANG=C.UTF-8",
            "TERM=dumb",
            "DEBIAN_FRONTEND=noninteractive",
        ]);
        command.arg(program).args(arguments);
        Ok(command)
    }

    /// The end of its journal, for the message of a failed test.
    fn print_journal(&self) {
        let lines = TAIL_LINES.to_string();
        if let Ok(mut journal) =
            self.command("journalctl", &["--boot", "--no-pager", "--lines", &lines])
        {
            // Where it fails there is nothing to show, and a test has failed already.
            let _ = journal.stdout(std::io::stderr()).status();
        }
    }

    /// Its systemd, as this machine numbers it: the child of nspawn, which is that of unshare.
    fn first_process(&self) -> Result<u32> {
        let process = self.process.as_ref().context("the machine is off")?;
        let nspawn = only_child(process.id()).context("there is no systemd-nspawn yet")?;
        only_child(nspawn).context("it has no first process yet")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() && self.process.is_some() {
            self.print_journal();
        }
        if let Some(process) = self.process.take() {
            // Its parents end with it, and would leave it behind if they ended first.
            if let Some(first) = only_child(process.id()).and_then(only_child) {
                let first = first.to_string();
                let _ = Command::new("kill").args(["-KILL", &first]).status();
            }
            drop(process);
        }
        remove_cgroups(&self.cgroups);
    }
}

/// The package of a program, as it was built.
pub fn package(name: &str, ending: &str) -> Result<PathBuf> {
    let dir = variable(PACKAGES_VARIABLE)?;
    let mut found: Vec<_> = std::fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(name) && file.ends_with(ending)
        })
        .collect();
    match (found.pop(), found.pop()) {
        (Some(path), None) => Ok(path),
        (None, _) => bail!("{name}*{ending} is not in {}", dir.display()),
        _ => bail!("several {name}*{ending} are in {}", dir.display()),
    }
}

fn variable(name: &str) -> Result<PathBuf> {
    let value = std::env::var_os(name)
        .with_context(|| format!("{name} is not set: these tests run by `tests/run.sh machine`"))?;
    let path = PathBuf::from(value);
    ensure!(path.is_dir(), "{name}: {} is no directory", path.display());
    Ok(path)
}

/// Whole seconds that this machine is up; a boot clock can't be set back behind zero.
fn uptime_s() -> i64 {
    crate::clock::clocks_now().boot_ms / 1_000
}

/// The child of a process, if it has exactly one.
fn only_child(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    let mut children = text.split_whitespace();
    let child = children.next()?.parse().ok()?;
    children.next().is_none().then_some(child)
}

fn make_cgroups(name: &str) -> Result<Vec<PathBuf>> {
    let mixed = Path::new(CGROUP_ROOTS[0]).is_dir();
    let roots = if mixed {
        &CGROUP_ROOTS[..2]
    } else {
        &CGROUP_ROOTS[2..]
    };
    let mut groups = Vec::new();
    for root in roots.iter().map(Path::new).filter(|root| root.is_dir()) {
        let group = root.join(name);
        std::fs::create_dir_all(&group)
            .with_context(|| format!("can't make the control group {}", group.display()))?;
        groups.push(group);
    }
    Ok(groups)
}

/// Removes empty control groups, the innermost first. One that is not empty is left.
fn remove_cgroups(groups: &[PathBuf]) {
    for group in groups {
        if let Ok(entries) = std::fs::read_dir(group) {
            let inner: Vec<_> = entries
                .filter_map(Result::ok)
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .collect();
            remove_cgroups(&inner);
        }
        let _ = std::fs::remove_dir(group);
    }
}

fn console(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

/// The base root, and over it what the machine wrote.
#[derive(Debug)]
struct Disk {
    dir: TempDir,
}

impl Disk {
    async fn mount(base: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("watchkeep-machine-")
            .tempdir()?;
        for part in ["upper", "work", "root"] {
            std::fs::create_dir(dir.path().join(part))?;
        }
        let path = |part: &str| dir.path().join(part).display().to_string();
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            base.display(),
            path("upper"),
            path("work")
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "overlay", "-o", &options, &path("root")]);
        output("mount", mount).await?;
        Ok(Self { dir })
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.root())
            .status();
    }
}
