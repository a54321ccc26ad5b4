//! The lists of metric names that hosts use. A list belongs to the hosts that sent it: each host has
//! its own set, with limits of its own, so no host can use up what another one needs. Equal lists are
//! in memory and in the store once, and so is each name in memory.
//!
//! A host's least recently used list is dropped when there are too many, and each one that it has not
//! used for a while. A dropped list is asked for again when a frame uses it. A host that brings new
//! lists faster than [`NEW_LISTS`] is taken without its values: its heartbeats, services and events
//! count, and [`super::limits`] records the loss.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use watchkeep_core::{
    rules::{Resolved, RulePack},
    series::Names,
    text::clean_line,
};
use watchkeep_shared::{
    DurationMs, HostId, UnixMillis,
    ids::SchemaId,
    wire::{heartbeat, limits::MAX_METRIC_NAME_BYTES},
};

use super::bucket::{Bucket, Rate};
use crate::store::heartbeats::SchemaWrites;

/// Lists of one host.
const MAX_LISTS: usize = 64;
/// Names in all lists of one host.
const MAX_NAMES: usize = 16_384;
/// How often a host may bring a new list: a burst for a start, then one in ten seconds.
const NEW_LISTS: Rate = Rate::every(DurationMs::from_secs(10), 64);
/// A list that was not used for this long is dropped.
const UNUSED: DurationMs = DurationMs::from_hours(2);

/// A list of metric names, and the rules that apply to them.
#[derive(Debug)]
pub(super) struct Schema {
    pub(super) names: Names,
    pub(super) resolved: Resolved,
}

/// All lists that some host uses.
#[derive(Debug, Default)]
pub(super) struct Schemas {
    lists: HashMap<SchemaId, Weak<Schema>>,
    names: HashSet<Arc<str>>,
    /// Stored lists that no host used at the start: their hosts were retired.
    unused: Vec<SchemaId>,
}

impl Schemas {
    /// The list, if a host uses it.
    pub(super) fn get(&self, id: SchemaId) -> Option<Arc<Schema>> {
        self.lists.get(&id)?.upgrade()
    }

    /// The list of these names, made unless a host uses it already.
    pub(super) fn add<S: AsRef<str>>(
        &mut self,
        id: SchemaId,
        names: &[S],
        rules: &RulePack,
    ) -> Arc<Schema> {
        if let Some(known) = self.get(id) {
            return known;
        }
        let names: Names = names.iter().map(|name| self.name(name.as_ref())).collect();
        let schema = Arc::new(Schema {
            resolved: rules.resolve(&names),
            names,
        });
        self.lists.insert(id, Arc::downgrade(&schema));
        schema
    }

    /// Notes which of the stored lists no host uses.
    pub(super) fn note_stored(&mut self, stored: impl Iterator<Item = SchemaId>) {
        let unused = stored.filter(|id| self.get(*id).is_none()).collect();
        self.unused = unused;
    }

    /// Stored lists that no host used at the start.
    pub(super) fn take_unused(&mut self) -> Vec<SchemaId> {
        std::mem::take(&mut self.unused)
    }

    /// Frees what no host uses any more.
    pub(super) fn free_unused(&mut self) {
        self.lists.retain(|_, list| list.strong_count() > 0);
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }

    /// A name as it is stored and shown: an agent may name a metric after anything.
    fn name(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let mut clean = name.to_owned();
        clean_line(&mut clean, MAX_METRIC_NAME_BYTES);
        if let Some(known) = self.names.get(clean.as_str()) {
            return Arc::clone(known);
        }
        let name: Arc<str> = clean.into();
        self.names.insert(Arc::clone(&name));
        name
    }
}

/// The lists of one host.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSchemas {
    used: Vec<Used>,
    new: Bucket,
    /// Those that the present batch brought and that were not taken.
    refused: Vec<SchemaId>,
}

#[derive(Clone, Debug)]
struct Used {
    id: SchemaId,
    schema: Arc<Schema>,
    last_at: UnixMillis,
}

/// What taking in a batch's lists changed, to be stored.
#[derive(Debug, Default)]
pub(super) struct Learned {
    /// New for the host. The flag says whether no host used the list before.
    pub(super) added: Vec<(SchemaId, Arc<Schema>, bool)>,
    /// The host's no longer.
    pub(super) dropped: Vec<SchemaId>,
}

impl SchemaWrites {
    /// Adds what a batch of a host changed.
    pub(super) fn learn(&mut self, host: HostId, learned: Learned) {
        for (id, schema, is_new) in learned.added {
            let names = is_new.then(|| Arc::clone(&schema.names));
            self.use_list(host, id, names);
        }
        self.drop_lists(host, &learned.dropped);
    }

    /// Adds that a host uses lists no longer.
    pub(super) fn drop_lists(&mut self, host: HostId, dropped: &[SchemaId]) {
        for id in dropped {
            self.drop_list(host, *id);
        }
    }
}

impl HostSchemas {
    /// A list of the host.
    pub(super) fn get(&self, id: SchemaId) -> Option<&Arc<Schema>> {
        let used = self.used.iter().find(|used| used.id == id)?;
        Some(&used.schema)
    }

    /// Whether frames that use the list are taken without their values.
    pub(super) fn is_refused(&self, id: SchemaId) -> bool {
        self.refused.contains(&id)
    }

    /// Adds a list that was stored.
    pub(super) fn restore(&mut self, id: SchemaId, schema: Arc<Schema>, last_at: UnixMillis) {
        self.used.push(Used {
            id,
            schema,
            last_at,
        });
    }

    /// Takes in the lists that a batch brings, and notes which ones its frames use.
    pub(super) fn learn(
        &mut self,
        batch: &heartbeat::Batch,
        at: UnixMillis,
        pool: &mut Schemas,
        rules: &RulePack,
    ) -> Learned {
        let mut learned = Learned::default();
        self.refused.clear();
        for offered in &batch.schemas {
            if self.get(offered.id).is_some() || self.is_refused(offered.id) {
                continue;
            }
            // A newline is what separates names in the identifier: such a list could take another's.
            let is_sound = offered.names.iter().all(|name| !name.contains('\n'))
                && watchkeep_shared::metric::schema_id(&offered.names) == offered.id;
            if !is_sound || !self.new.take(NEW_LISTS, at, 1) {
                self.refused.push(offered.id);
                continue;
            }
            let is_new = pool.get(offered.id).is_none();
            let schema = pool.add(offered.id, &offered.names, rules);
            self.restore(offered.id, Arc::clone(&schema), at);
            learned.added.push((offered.id, schema, is_new));
        }
        for frame in &batch.frames {
            if let Some(used) = self.used.iter_mut().find(|used| used.id == frame.schema) {
                used.last_at = used.last_at.max(at);
            }
        }
        learned.dropped = self.drop_excess(batch);
        learned
    }

    /// Drops the least recently used lists while there are too many, but none that the batch uses.
    fn drop_excess(&mut self, batch: &heartbeat::Batch) -> Vec<SchemaId> {
        let mut dropped = Vec::new();
        loop {
            let names: usize = self.used.iter().map(|used| used.schema.names.len()).sum();
            if self.used.len() <= MAX_LISTS && names <= MAX_NAMES {
                return dropped;
            }
            let unused = self.used.iter().enumerate().filter(|(_, used)| {
                let mut frames = batch.frames.iter();
                frames.all(|frame| frame.schema != used.id)
            });
            let Some((oldest, _)) = unused.min_by_key(|(_, used)| used.last_at) else {
                return dropped;
            };
            dropped.push(self.used.remove(oldest).id);
        }
    }

    /// Drops what the host has not used for a while, except the list of its newest values.
    pub(super) fn drop_unused(
        &mut self,
        now: UnixMillis,
        newest: Option<SchemaId>,
    ) -> Vec<SchemaId> {
        let mut dropped = Vec::new();
        self.used.retain(|used| {
            let is_kept = now.since(used.last_at) < UNUSED || Some(used.id) == newest;
            if !is_kept {
                dropped.push(used.id);
            }
            is_kept
        });
        dropped
    }
}
