//! The policy of each host, put together from the settings, the store's layers and what people chose
//! for the host; and how people choose.
//!
//! It is kept in memory: the pipeline asks for it with each batch. Changes by this process count at
//! once, those of others (`apply` on the command line) when [`Policies::refresh`] next looks. What
//! follows from the layers is decided in [`watchkeep_core::policy`].

pub mod view;

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use uuid::Uuid;
use watchkeep_core::{
    ids::{ClientId, ContractId, SiteId},
    policy::{Effective, ItemStatus, Layer, Level, PolicyItem, ReportedPolicy, item_status, merge},
};
use watchkeep_shared::{
    HostId,
    wire::{
        limits::MAX_SERVICES_PER_FRAME,
        policy::{Policy, ServiceCheck},
    },
};

use crate::{
    app::App,
    store::{
        Store, StoreError,
        fleet::HostRow,
        people,
        policy::{self as rows, NewWatch, WatchRow},
        views::HostView,
    },
};

/// The site and contract of a host, which decide its policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PolicyScope {
    /// Whose it is.
    pub client: ClientId,
    /// Where it is.
    pub site: SiteId,
    /// What covers it.
    pub contract: Option<ContractId>,
}

impl From<&HostRow> for PolicyScope {
    fn from(host: &HostRow) -> Self {
        Self {
            client: ClientId(host.client_id),
            site: SiteId(host.site_id),
            contract: host.contract_id.map(ContractId),
        }
    }
}

impl From<&HostView> for PolicyScope {
    fn from(host: &HostView) -> Self {
        Self {
            client: ClientId(host.client_id),
            site: SiteId(host.site_id),
            contract: host.contract_id.map(ContractId),
        }
    }
}

/// A host's policy.
#[derive(Debug)]
pub struct HostPolicy {
    /// What is asked for, with where it comes from.
    pub effective: Effective,
    /// The same as it goes down to the agent.
    pub wire: Policy,
}

impl Default for HostPolicy {
    fn default() -> Self {
        Self::new([])
    }
}

impl HostPolicy {
    fn new<'a>(layers: impl IntoIterator<Item = (Level, &'a Layer)>) -> Self {
        let effective = merge(layers);
        Self {
            wire: effective.to_wire(),
            effective,
        }
    }

    /// Whether a service is on the host's own list.
    pub fn is_own(&self, key: &str) -> bool {
        self.effective.service(key) == Some(Level::Host)
    }

    /// Whether an item is watched.
    pub fn item_status<'a>(
        &self,
        item: PolicyItem<'_>,
        reported: Option<ReportedPolicy<'a>>,
    ) -> ItemStatus<'a> {
        item_status(item, self.wire.version, reported)
    }
}

/// All policies.
#[derive(Debug)]
pub struct Policies {
    default: Layer,
    known: RwLock<Known>,
    /// One reader of the store at a time, so that an older answer never replaces a newer one.
    loading: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Known {
    generation: Option<i64>,
    layers: HashMap<Uuid, Layer>,
    own: HashMap<HostId, Layer>,
    /// Made when first asked for; hosts without a list of their own share one a scope.
    shared: HashMap<PolicyScope, Arc<HostPolicy>>,
    single: HashMap<HostId, Arc<HostPolicy>>,
}

impl Policies {
    /// Only the settings' policy, until [`Policies::refresh`].
    pub fn new(default: Layer) -> Self {
        Self {
            default,
            known: RwLock::default(),
            loading: tokio::sync::Mutex::default(),
        }
    }

    /// A host's policy.
    pub fn of(&self, host: HostId, scope: PolicyScope) -> Arc<HostPolicy> {
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let found = if known.own.contains_key(&host) {
                known.single.get(&host)
            } else {
                known.shared.get(&scope)
            };
            if let Some(found) = found {
                return Arc::clone(found);
            }
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let own = known.own.get(&host);
        let of = |owner: Uuid| known.layers.get(&owner);
        let layers = [
            (Level::Default, Some(&self.default)),
            (Level::Client, of(scope.client.uuid())),
            (Level::Site, of(scope.site.uuid())),
            (Level::Contract, scope.contract.and_then(|id| of(id.uuid()))),
            (Level::Host, own),
        ];
        let layers = layers
            .into_iter()
            .filter_map(|(level, layer)| Some((level, layer?)));
        let made = Arc::new(HostPolicy::new(layers));
        if own.is_some() {
            known.single.insert(host, Arc::clone(&made));
        } else {
            known.shared.insert(scope, Arc::clone(&made));
        }
        made
    }

    /// Reads the store again if it changed since the last time.
    pub async fn refresh(&self, store: &Store) -> Result<(), StoreError> {
        let _one = self.loading.lock().await;
        // Before the rows: if it changes meanwhile, they are read once more.
        let generation = Some(rows::generation(store).await?);
        if self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .generation
            == generation
        {
            return Ok(());
        }
        let mut layers = HashMap::new();
        for row in rows::layers(store).await? {
            match serde_json::from_str(&row.body) {
                Ok(layer) => {
                    layers.insert(row.owner_id, layer);
                }
                Err(error) => {
                    let error = StoreError::corrupt("policy_layer", "body", row.owner_id, error);
                    tracing::error!("a layer of the policy is left out: {error}");
                }
            }
        }
        let mut own: HashMap<HostId, Layer> = HashMap::new();
        for row in rows::watched(store).await? {
            let layer = own.entry(HostId(row.host_id)).or_default();
            layer.services.extend(check_of(&row));
        }
        let known = Known {
            generation,
            layers,
            own,
            ..Known::default()
        };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        Ok(())
    }

    /// Reads one host's own list again.
    async fn refresh_host(&self, store: &Store, host: HostId) -> Result<(), StoreError> {
        let _one = self.loading.lock().await;
        let services = rows::watched_on(store, host).await?;
        let services: Vec<ServiceCheck> = services.iter().filter_map(check_of).collect();
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.single.remove(&host);
        if services.is_empty() {
            known.own.remove(&host);
        } else {
            let layer = Layer {
                services,
                ..Layer::default()
            };
            known.own.insert(host, layer);
        }
        Ok(())
    }
}

/// The check in a row; `None` for one that this version does not know or that can't be read: the
/// rest of the host's list applies.
fn check_of(row: &WatchRow) -> Option<ServiceCheck> {
    serde_json::from_str(&row.body)
        .map_err(|error| {
            let error = StoreError::corrupt("host_watch", "body", &row.item, error);
            tracing::error!(host.id = %row.host_id, "an item of a host's list is left out: {error}");
        })
        .ok()
}

/// Who chooses.
#[derive(Clone, Copy, Debug)]
pub struct Person<'a> {
    /// For the audit log.
    pub login: &'a str,
    /// For people.
    pub name: &'a str,
}

/// It can't be watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// The list is full.
    #[error(
        "this host's own list is full: {MAX_SERVICES_PER_FRAME} services are the most that an agent reports"
    )]
    Full,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts a check on a host's own list. `false` if it is there already, or the host is unknown or
/// retired.
pub async fn watch(
    app: &App,
    host: HostId,
    check: &ServiceCheck,
    by: Person<'_>,
) -> Result<bool, WatchError> {
    if rows::watched_on(&app.store, host).await?.len() >= MAX_SERVICES_PER_FRAME {
        return Err(WatchError::Full);
    }
    let now = app.clock.now();
    let key = check.key();
    let new = NewWatch {
        host,
        item: &key,
        // A type made of texts and numbers always has a JSON form.
        body: &serde_json::to_string(check).unwrap_or_default(),
        added_by: by.name,
        added_at: now,
    };
    let mut tx = app.store.begin().await?;
    if !rows::insert_watch(&mut tx, &new).await? {
        return Ok(false);
    }
    let subject = format!("host {host}");
    let act = people::Act {
        by: by.login,
        action: "host_watch",
        subject: &subject,
        detail: &key,
    };
    app.audit(&mut tx, act).await?;
    rows::bump(&mut tx).await?;
    tx.commit().await?;
    app.policies.refresh_host(&app.store, host).await?;
    Ok(true)
}

/// Takes a check off a host's own list; what other levels ask for stays. `false` if it is not on it.
pub async fn unwatch(
    app: &App,
    host: HostId,
    key: &str,
    by: Person<'_>,
) -> Result<bool, StoreError> {
    let mut tx = app.store.begin().await?;
    if !rows::delete_watch(&mut tx, host, key).await? {
        return Ok(false);
    }
    let subject = format!("host {host}");
    let act = people::Act {
        by: by.login,
        action: "host_unwatch",
        subject: &subject,
        detail: key,
    };
    app.audit(&mut tx, act).await?;
    rows::bump(&mut tx).await?;
    tx.commit().await?;
    app.policies.refresh_host(&app.store, host).await?;
    Ok(true)
}
