//! What a person sees of a rotation of the CA, and its steps. Which host holds and trusts what is in
//! the hosts' states, as the pipeline wrote them; a step is a change of files in the CAs' directory,
//! which a running collector follows.

use std::{collections::HashMap, fs, path::Path, sync::Arc};

use serde::Deserialize;
use watchkeep_core::authority::{HostTrust, NoStep, PendingReason, Rotation, Step};
use watchkeep_shared::{CaId, HostId, UnixMillis};

use super::{CA_DIR, Ca, CaError, Cas, ca::BACKDATE_MS};
use crate::{
    app::App,
    store::{StoreError, fleet, heartbeats, identity as rows},
};

/// Hosts that an error names.
const MAX_NAMED: usize = 10;

/// A step of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RotateStep {
    /// Make a new CA and trust both.
    Begin,
    /// Let the new CA sign.
    Reissue,
    /// Drop the old CA.
    Finish,
    /// Go back by one phase.
    Back,
}

/// Why a step was not taken; nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// It does not follow from the phase.
    #[error(transparent)]
    NoStep(#[from] NoStep),
    /// Hosts would be cut off.
    #[error(
        "{} would be cut off:\n  {}\nLet them follow first (`ca status`), or cut them off with --force.",
        hosts(*.count), .named.join("\n  ")
    )]
    WouldLose {
        /// How many.
        count: usize,
        /// Some of them, with the reason.
        named: Vec<String>,
    },
    /// Files or keys.
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How far a rotation is.
#[derive(Debug)]
pub struct Overview {
    /// The hosts that can come with a certificate, by name.
    pub hosts: Vec<OverviewHost>,
    /// Enrolment tokens that are still good but name a CA that no longer signs, or a later one.
    pub old_tokens: i64,
}

/// A host and the CAs.
#[derive(Debug)]
pub struct OverviewHost {
    pub id: HostId,
    pub name: String,
    /// What it holds and trusts.
    pub trust: HostTrust,
    /// When its newest good certificate was given out.
    pub newest: UnixMillis,
    /// What it lacks in the present phase.
    pub pending: Option<PendingReason>,
}

/// `1 host`, `2 hosts`.
fn hosts(count: usize) -> String {
    if count == 1 {
        "1 host".to_owned()
    } else {
        format!("{count} hosts")
    }
}

/// What of a written state counts here.
#[derive(Deserialize)]
struct StateWithTrust {
    host: WrittenHost,
}

#[derive(Deserialize)]
struct WrittenHost {
    #[serde(default)]
    trust: HostTrust,
}

/// Looks at all hosts. Retired ones, and those whose certificates all expired or were revoked, are left
/// out: no step can cut them off.
pub async fn overview(app: &App, cas: &Cas) -> Result<Overview, StoreError> {
    let now = app.clock.now();
    let newest: HashMap<HostId, UnixMillis> = rows::newest(&app.store, now)
        .await?
        .into_iter()
        .map(|(host, not_before)| (host, UnixMillis(not_before.0 + BACKDATE_MS)))
        .collect();
    let mut trust: HashMap<HostId, HostTrust> = HashMap::new();
    for row in heartbeats::states(&app.store).await? {
        let written: Option<StateWithTrust> = serde_json::from_str(&row.state)
            .inspect_err(|error| tracing::warn!("a host's state can't be read: {error}"))
            .ok();
        trust.extend(written.map(|state| (HostId(row.host_id), state.host.trust)));
    }
    let mut hosts: Vec<OverviewHost> = fleet::hosts(&app.store)
        .await?
        .into_iter()
        .filter(|row| row.retired_at.is_none())
        .filter_map(|row| {
            let id = HostId(row.id);
            let newest = *newest.get(&id)?;
            let trust = trust.remove(&id).unwrap_or_default();
            let pending = cas.ids().pending(&trust, newest);
            let name = row.name;
            Some(OverviewHost {
                id,
                name,
                trust,
                newest,
                pending,
            })
        })
        .collect();
    hosts.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
    Ok(Overview {
        hosts,
        old_tokens: rows::open_tokens_before(&app.store, now, cas.signing_since()).await?,
    })
}

/// Takes a step. Refused while it would cut hosts off, unless by `force`.
pub async fn rotate(app: &App, step: RotateStep, force: bool) -> Result<Cas, RotateError> {
    let dir = app.config.data_dir.join(CA_DIR);
    let _lock = lock(&dir)?;
    let before = Cas::open(&dir)?;
    let now = app.clock.now();
    // Whether the step follows, and whom it would cut off, is known before a key is made: a CA that
    // is made now is one that nobody holds or trusts.
    let unmade = CaId(0);
    let after = before.ids().step(with(step, || Ok::<_, NoStep>(unmade))?)?;
    if !force {
        check(app, &before, &after).await?;
    }
    let step = with(step, || Ca::make_next(&dir, now).map(Arc::new))?;
    let after = before.rotation().clone().step(step)?;
    let after = Cas::put(&dir, &before, &after, now)?;
    tracing::info!(
        from = before.rotation().phase(),
        to = after.rotation().phase(),
        "the phase of the certificate authorities is {} now",
        after.rotation().phase()
    );
    Ok(after)
}

async fn check(app: &App, before: &Cas, after: &Rotation<CaId>) -> Result<(), RotateError> {
    if !before.ids().takes_away(after) {
        return Ok(());
    }
    let overview = overview(app, before).await?;
    let lost: Vec<String> = overview
        .hosts
        .iter()
        .filter_map(|host| {
            let pending = before.ids().would_lose(after, &host.trust, host.newest)?;
            Some(format!("{} {} {}", host.name, host.id, pending.text()))
        })
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    let count = lost.len();
    let mut named: Vec<String> = lost.into_iter().take(MAX_NAMED).collect();
    if count > MAX_NAMED {
        named.push(format!("and {} more", count - MAX_NAMED));
    }
    Err(RotateError::WouldLose { count, named })
}

fn with<C, E>(step: RotateStep, make: impl FnOnce() -> Result<C, E>) -> Result<Step<C>, E> {
    Ok(match step {
        RotateStep::Begin => Step::Begin(make()?),
        RotateStep::Reissue => Step::Reissue,
        RotateStep::Finish => Step::Finish,
        RotateStep::Back => Step::Back,
    })
}

/// Takes the directory for this step, so that two at once can't mix.
fn lock(path: &Path) -> Result<fs::File, CaError> {
    let file = fs::File::open(path).and_then(|file| file.lock().map(|()| file));
    file.map_err(|source| CaError::File {
        path: path.display().to_string(),
        source,
    })
}
