//! Who the hosts are: names of hosts, sites, clients and contracts, in the order of people.

use std::{collections::HashMap, sync::Arc};

use uuid::Uuid;
use watchkeep_core::search::{fold, name_order};
use watchkeep_shared::HostId;

use crate::{
    health::Recorded,
    store::{
        Store, StoreError,
        views::{self, HostView, Named},
    },
};

/// One host, as the store records it.
#[derive(Debug)]
pub struct Host {
    /// Its row, with the names of what it belongs to.
    pub view: HostView,
    /// What of it decides how the host is.
    pub recorded: Recorded,
    /// Its name, folded: the order of lists.
    pub sort_name: String,
    /// What a search looks at, folded.
    pub search: String,
    /// Index of its site in [`Directory::sites`].
    pub site: usize,
}

impl Host {
    /// Its identifier.
    pub const fn id(&self) -> HostId {
        HostId(self.view.id)
    }
}

/// A site with its client.
#[derive(Clone, Debug)]
pub struct Site {
    pub id: Uuid,
    pub name: String,
    pub client_id: Uuid,
    /// Its client's name.
    pub client: String,
}

/// All hosts that are not retired, with the sites and clients that have some.
#[derive(Debug, Default)]
pub struct Directory {
    generation: i64,
    /// By folded name.
    pub hosts: Vec<Arc<Host>>,
    /// By client and name.
    pub sites: Vec<Site>,
    /// By name.
    pub clients: Vec<Named>,
}

impl Directory {
    /// Reads it. `generation` was read before, so that a change in between is seen the next time.
    pub(super) async fn read(store: &Store, generation: i64) -> Result<Self, StoreError> {
        let rows = views::hosts(store).await?;
        let clients = views::clients(store).await?;
        Ok(Self::new(generation, rows, clients))
    }

    fn new(generation: i64, rows: Vec<HostView>, clients: Vec<Named>) -> Self {
        let mut sites: HashMap<Uuid, Site> = HashMap::new();
        for row in &rows {
            sites.entry(row.site_id).or_insert_with(|| Site {
                id: row.site_id,
                name: row.site.clone(),
                client_id: row.client_id,
                client: row.client.clone(),
            });
        }
        let mut sites: Vec<Site> = sites.into_values().collect();
        sites
            .sort_by_cached_key(|site| (name_order(&site.client), name_order(&site.name), site.id));
        let ranks: HashMap<Uuid, usize> = sites.iter().map(|site| site.id).zip(0..).collect();
        let mut hosts: Vec<Arc<Host>> = rows
            .into_iter()
            .map(|row| {
                let site = ranks.get(&row.site_id).copied().unwrap_or_default();
                Arc::new(host(row, site))
            })
            .collect();
        hosts.sort_by(|a, b| (&a.sort_name, a.id()).cmp(&(&b.sort_name, b.id())));
        Self {
            generation,
            hosts,
            sites,
            clients,
        }
    }

    /// Of the fleet's counter when it was read.
    pub(super) const fn generation(&self) -> i64 {
        self.generation
    }
}

fn host(mut view: HostView, site: usize) -> Host {
    let words = std::mem::take(&mut view.words);
    Host {
        recorded: view.recorded(),
        sort_name: fold(&view.name),
        search: fold(&words),
        site,
        view,
    }
}
