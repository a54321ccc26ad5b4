//! `ca`: the certificate authorities, and replacing one by another in phases.

use clap::Subcommand;
use serde::Serialize;
use watchkeep_core::authority::PendingReason;
use watchkeep_shared::CaId;

use super::say;
use crate::{
    app::App,
    boot,
    config::Config,
    identity::{self, Ca, Cas, Overview, RotateStep},
};

/// Hosts that the text lists.
const MAX_LISTED: usize = 50;

#[derive(Debug, Subcommand)]
pub(super) enum CaCommand {
    /// Show the phase, the authorities, and the hosts that have not followed yet.
    Status {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Replace the certificate authority: begin, reissue, finish; back from each.
    Rotate {
        #[command(subcommand)]
        command: RotateCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum RotateCommand {
    /// Make a new authority beside the old one. Agents learn to trust both.
    Begin {
        /// Do it even if that ends the only way back for some hosts.
        #[arg(long)]
        force: bool,
    },
    /// Let the new authority sign. Agents renew their certificates, spread over `agents.renew_within_s`.
    Reissue,
    /// Drop the old authority.
    Finish {
        /// Do it even if hosts would be cut off.
        #[arg(long)]
        force: bool,
    },
    /// Go back by one phase.
    Back {
        /// Do it even if hosts would be cut off.
        #[arg(long)]
        force: bool,
    },
}

/// The whole answer of `ca status --json`.
#[derive(Debug, Serialize)]
struct CaStatus {
    /// `steady`, `trust_both`, `reissue` or `dropped`.
    phase: &'static str,
    /// When it began, milliseconds since the Unix epoch; 0 before the first rotation.
    since_ms: i64,
    authorities: Vec<AuthorityStatus>,
    /// Hosts that can come with a certificate.
    hosts: usize,
    hosts_left: Vec<HostLeft>,
    /// Enrolment tokens still good that were made before the present signer began to sign.
    old_tokens: i64,
}

#[derive(Debug, Serialize)]
struct AuthorityStatus {
    id: String,
    key_sha256: String,
    /// Name of its files in the directory `ca`, before `.pem` and `.key.pem`.
    files: String,
    expires_ms: i64,
    signs: bool,
    serves: bool,
    trusted: bool,
    /// How many hosts came last with a certificate of it.
    held_by: usize,
    /// How many hosts say that they trust it.
    trusted_by: usize,
}

#[derive(Debug, Serialize)]
struct HostLeft {
    id: String,
    name: String,
    /// `unheard`, `cut_off`, `old_certificate` or `old_trust`.
    reason: PendingReason,
    #[serde(skip)]
    text: &'static str,
}

pub(super) async fn run(config: Config, command: CaCommand) -> anyhow::Result<()> {
    let opened = boot::open(config).await?;
    let app = opened.app;
    let step = match command {
        CaCommand::Status { json } => {
            let status = status(&app, &opened.authority.current()).await?;
            return if json {
                say(&serde_json::to_string_pretty(&status)?)
            } else {
                print(&app, &status)
            };
        }
        CaCommand::Rotate { command } => command,
    };
    let (step, force) = match step {
        RotateCommand::Begin { force } => (RotateStep::Begin, force),
        RotateCommand::Reissue => (RotateStep::Reissue, false),
        RotateCommand::Finish { force } => (RotateStep::Finish, force),
        RotateCommand::Back { force } => (RotateStep::Back, force),
    };
    let cas = identity::rotate(&app, step, force).await?;
    print(&app, &status(&app, &cas).await?)
}

async fn status(app: &App, cas: &Cas) -> anyhow::Result<CaStatus> {
    let overview = identity::overview(app, cas).await?;
    let kept = cas.rotation().kept();
    Ok(CaStatus {
        phase: cas.rotation().phase(),
        since_ms: cas.since().0,
        authorities: kept
            .into_iter()
            .map(|ca| authority(cas, ca, &overview))
            .collect(),
        hosts: overview.hosts.len(),
        hosts_left: overview
            .hosts
            .iter()
            .filter_map(|host| {
                let reason = host.pending?;
                Some(HostLeft {
                    id: host.id.to_string(),
                    name: host.name.clone(),
                    reason,
                    text: reason.text(),
                })
            })
            .collect(),
        old_tokens: overview.old_tokens,
    })
}

fn authority(cas: &Cas, ca: &Ca, overview: &Overview) -> AuthorityStatus {
    let id: CaId = ca.id();
    let ids = cas.ids();
    let count = |holds: &dyn Fn(&identity::OverviewHost) -> bool| {
        overview.hosts.iter().filter(|host| holds(host)).count()
    };
    AuthorityStatus {
        id: id.to_string(),
        key_sha256: ca.key_sha256().to_owned(),
        files: ca.stem().to_owned(),
        expires_ms: ca.not_after().0,
        signs: *ids.signs() == id,
        serves: *ids.serves() == id,
        trusted: ids.trusted().contains(&&id),
        held_by: count(&|host| host.trust.holds == Some(id)),
        trusted_by: count(&|host| host.trust.trusts.contains(&id)),
    }
}

fn print(app: &App, status: &CaStatus) -> anyhow::Result<()> {
    say(&format!(
        "phase {}: {}",
        status.phase,
        meaning(status.phase)
    ))?;
    for ca in &status.authorities {
        let roles: Vec<&str> = [
            (ca.signs, "signs agents' certificates"),
            (ca.serves, "signs the collector's"),
            (ca.trusted && !ca.signs && !ca.serves, "trusted"),
            (!ca.trusted, "dropped, kept for the way back"),
        ]
        .iter()
        .filter_map(|(is, role)| is.then_some(*role))
        .collect();
        let days = (ca.expires_ms - app.clock.now().0) / 86_400_000;
        say(&format!(
            "  {}  {}; {days} days left; held by {}, trusted by {} of {} hosts; ca/{}.pem",
            ca.key_sha256,
            roles.join(", "),
            ca.held_by,
            ca.trusted_by,
            status.hosts,
            ca.files,
        ))?;
    }
    say(&format!("{} hosts left", status.hosts_left.len()))?;
    for host in status.hosts_left.iter().take(MAX_LISTED) {
        say(&format!("  {:<30} {} {}", host.name, host.id, host.text))?;
    }
    if status.hosts_left.len() > MAX_LISTED {
        let more = status.hosts_left.len() - MAX_LISTED;
        say(&format!("  and {more} more: --json lists them all"))?;
    }
    if status.old_tokens > 0 && status.authorities.len() > 1 {
        say(&format!(
            "{} enrolment tokens from before the present signer are still good; they work while the old authority is trusted",
            status.old_tokens
        ))?;
    }
    say(next(status.phase))
}

/// The phase in words.
fn meaning(phase: &str) -> &'static str {
    match phase {
        "trust_both" => "agents learn to trust the new authority; the old one signs",
        "reissue" => "agents get certificates of the new authority; both are trusted",
        "dropped" => "the new authority alone counts; the old one's key is kept for the way back",
        _ => "one authority",
    }
}

/// What can be done next.
fn next(phase: &str) -> &'static str {
    match phase {
        "trust_both" => "next: `ca rotate reissue`, best when no host is left; or `ca rotate back`",
        "reissue" => "next: `ca rotate finish`, when no host is left; or `ca rotate back`",
        "dropped" => "nothing is left to do; `ca rotate back` trusts the old one again",
        _ => "next: `ca rotate begin`, to replace it",
    }
}
