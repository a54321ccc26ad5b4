//! The life of the agent's package on a machine that runs: installed, upgraded, removed, purged.

use std::process::Command;

use anyhow::Result;
use watchkeep_tests::harness::{machine::package, process::output, wait_for};

use crate::site::{SOON, STATE, Site, host_of};

const SETTING: &str = "log.level = \"debug\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_keeps_everything_and_a_purge_takes_it() -> Result<()> {
    let site = Site::start(Vec::new()).await?;
    let machine = &site.machine;
    let settings = machine.root().join("etc/watchkeep/agent.toml");
    std::fs::write(&settings, format!("{SETTING}\n"))?;
    let before = main_process(&site).await?;

    newer_deb(&site).await?;
    machine.run("dpkg", &["-i", "/root/newer.deb"]).await?;
    let after = main_process(&site).await?;
    assert_ne!(before, after, "the old program still runs");
    site.more_heartbeats(4).await;
    assert_eq!(host_of(machine)?, site.host, "it is another host now");
    assert_eq!(std::fs::read_to_string(&settings)?, format!("{SETTING}\n"));
    assert_eq!(site.goodbyes().await?, ["upgrade"]);

    machine
        .run("dpkg", &["--remove", "watchkeep-agent"])
        .await?;
    wait_for("the agent says that it was stopped", SOON, async || {
        Ok((site.goodbyes().await? == ["upgrade", "stop"]).then_some(()))
    })
    .await;
    assert!(settings.exists(), "a removal takes the settings");
    host_of(machine)?;
    machine.run("dpkg", &["--purge", "watchkeep-agent"]).await?;
    machine
        .shell(&format!(
            "! test -e {STATE}; ! test -e /etc/watchkeep; ! getent passwd watchkeep-agent"
        ))
        .await?;
    assert_eq!(
        machine.run("systemctl", &["--failed", "--quiet"]).await?,
        ""
    );
    site.end().await
}

async fn main_process(site: &Site) -> Result<String> {
    let arguments = ["show", "--property=MainPID", "--value", "watchkeep-agent"];
    let pid = site.machine.run("systemctl", &arguments).await?;
    anyhow::ensure!(pid.trim() != "0", "the agent does not run");
    Ok(pid)
}

/// The package again, as the next version.
async fn newer_deb(site: &Site) -> Result<()> {
    let newer = site.machine.root().join("root/newer.deb");
    let script = r#"
unpacked=$(mktemp -d)
dpkg-deb --raw-extract "$1" "$unpacked"
sed -i 's/^Version: .*/&+next/' "$unpacked/DEBIAN/control"
dpkg-deb --root-owner-group -Znone --build "$unpacked" "$2"
rm -rf "$unpacked""#;
    let mut command = Command::new("sh");
    command.args(["-euc", script, "sh"]);
    command.arg(package("watchkeep-agent", ".deb")?).arg(newer);
    output("dpkg-deb", command).await?;
    Ok(())
}
