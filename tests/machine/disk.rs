//! What happens to the store's disk happens to a collector with a fleet: it freezes, it is full, one
//! write to it fails. Nobody is called silent, and heartbeats are taken again without a restart.
//! The disks are mounted for the test, which only root can do; SQLite is the store.

use std::{io::Write as _, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result};
use rustix::process::Signal;
use watchkeep_tests::{
    harness::{Collector, Database, DatabaseKind, Disk, process::Process, wait_for},
    held_up::{Found, HeldUp, Times},
};

const SOON: Duration = Duration::from_secs(30);
/// SQLite needs some thousand commits until its log of writes has to grow.
const LOG_FULL: Duration = Duration::from_mins(2);

async fn collector_on(disk: &Disk, times: &Times) -> Result<Collector> {
    let database = Database::create(DatabaseKind::Sqlite, &disk.path()).await?;
    Collector::create_with(database, &times.settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_disk_bothers_nobody() -> Result<()> {
    let times = Times::of_environment()?;
    let disk = Disk::mount()?;
    let mut held = HeldUp::start(collector_on(&disk, &times).await?, times).await?;
    let span = held
        .hold(async |_| disk.freeze(), async |_| disk.thaw())
        .await?;
    print("disk frozen", held.finish(span, true).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_bothers_nobody() -> Result<()> {
    let times = Times::of_environment()?;
    let disk = Disk::mount()?;
    let mut held = HeldUp::start(collector_on(&disk, &times).await?, times).await?;
    let span = held
        .hold(
            async |collector| {
                disk.fill()?;
                // SQLite goes on as long as its log of writes need not grow.
                let log = collector.path("collector.log");
                wait_for("the store fails", LOG_FULL, async || {
                    let text = std::fs::read_to_string(&log)?;
                    Ok(text.contains("the store fails").then_some(()))
                })
                .await;
                Ok(())
            },
            async |_| disk.free(),
        )
        .await?;
    print("disk full", held.finish(span, true).await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_failed_write_to_the_disk_bothers_nobody() -> Result<()> {
    let times = Times {
        length: Duration::ZERO,
        ..Times::of_environment()?
    };
    let disk = Disk::mount()?;
    let mut held = HeldUp::start(collector_on(&disk, &times).await?, times).await?;
    let pid = held.collector.id().context("the collector runs")?;
    let log = held.collector.path("strace");
    let span = held
        .hold(async |_| fail_one_sync(pid, &log).await, async |_| Ok(()))
        .await?;
    print("fsync failed", held.finish(span, false).await?)
}

/// Makes the next `fsync` of a process fail with EIO, once for each of its threads until the first
/// has.
async fn fail_one_sync(pid: u32, log: &Path) -> Result<()> {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-e", "trace=fsync,fdatasync"]);
    strace.args(["-e", "inject=fsync,fdatasync:error=EIO:when=1"]);
    strace.arg("-p").arg(pid.to_string()).arg("-o").arg(log);
    let strace = Process::start("strace", strace, &log.with_extension("log"))?;
    wait_for("a sync fails", SOON, async || {
        let text = std::fs::read_to_string(log)?;
        Ok(text.contains("(INJECTED)").then_some(()))
    })
    .await;
    strace.signal(Signal::INT)?;
    let mut strace = strace;
    wait_for("strace ends", SOON, async || strace.ended()).await;
    Ok(())
}

fn print(what: &str, found: Found) -> Result<()> {
    Ok(writeln!(std::io::stdout(), "held up: {what}: {found}")?)
}
