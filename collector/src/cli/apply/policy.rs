//! The policies of a fleet file: a layer for each client, site and contract that it names. A policy
//! that the file no longer has is gone; what people chose on a host's page belongs to the host and is
//! kept.

use uuid::Uuid;
use watchkeep_core::policy::{Layer, Level};
use watchkeep_shared::UnixMillis;

use super::Plan;
use crate::store::{
    Store, StoreError, Tx,
    fleet::HostRow,
    policy::{self as rows, LayerRow, WatchRow},
};

/// The policies as they are stored.
#[derive(Debug)]
pub(super) struct StoredPolicies {
    layers: Vec<LayerRow>,
    watched: Vec<WatchRow>,
    now: UnixMillis,
    /// Something was changed.
    touched: bool,
}

/// Whose layer it is.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) level: Level,
    pub(super) id: Uuid,
    pub(super) name: &'a str,
}

impl StoredPolicies {
    pub(super) async fn read(store: &Store, now: UnixMillis) -> Result<Self, StoreError> {
        Ok(Self {
            layers: rows::layers(store).await?,
            watched: rows::watched(store).await?,
            now,
            touched: false,
        })
    }

    /// Brings one owner's layer to what the file says.
    pub(super) async fn put(
        &mut self,
        tx: &mut Tx,
        owner: Owner<'_>,
        new: &Layer,
        plan: &mut Plan,
    ) -> anyhow::Result<()> {
        let row = self.layers.iter().find(|row| row.owner_id == owner.id);
        let old: Layer = row.map_or(Ok(Layer::default()), |row| serde_json::from_str(&row.body))?;
        let changes = old.changes(new);
        if changes.is_empty() {
            return Ok(());
        }
        self.touched = true;
        let verb = match (old.is_empty(), new.is_empty()) {
            (true, _) => "add",
            (_, true) => "remove",
            _ => "change",
        };
        let changes = changes.join(", ");
        plan.changes.push(format!(
            "{verb} policy of {} {}: {changes}",
            owner.level, owner.name
        ));
        if new.is_empty() {
            return Ok(rows::delete_layer(tx, owner.id).await?);
        }
        let body = serde_json::to_string(new)?;
        Ok(rows::put_layer(tx, owner.id, owner.level.as_str(), &body, self.now).await?)
    }

    /// Names what people chose for hosts of the clients that the file names.
    pub(super) fn name_kept(&self, hosts: &[HostRow], clients: &[Uuid], plan: &mut Plan) {
        for host in hosts
            .iter()
            .filter(|host| clients.contains(&host.client_id))
        {
            let of_host = self.watched.iter().filter(|row| row.host_id == host.id);
            let items: Vec<&str> = of_host.map(|row| row.item.as_str()).collect();
            if !items.is_empty() {
                let (name, items) = (&host.name, items.join(", "));
                plan.kept
                    .push(format!("keep the own list of host {name}: {items}"));
            }
        }
    }

    /// Tells a running collector, if anything changed.
    pub(super) async fn finish(self, tx: &mut Tx) -> Result<(), StoreError> {
        if self.touched {
            rows::bump(tx).await?;
        }
        Ok(())
    }
}
