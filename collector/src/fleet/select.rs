//! Which hosts a list shows, in which order, and where its next page begins.

use std::cmp::Ordering;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;
use watchkeep_core::search::Words;
use watchkeep_shared::HostId;

use super::{Row, Snapshot};

/// Which hosts are wanted.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Words of host, client, site, contract, addresses, operating system and notes.
    pub words: Words,
    /// Hosts of one client.
    pub client: Option<Uuid>,
    /// Hosts of one site.
    pub site: Option<Uuid>,
}

impl Filter {
    fn selects(&self, row: &Row) -> bool {
        let host = &row.host;
        self.client
            .is_none_or(|client| host.view.client_id == client)
            && self.site.is_none_or(|site| host.view.site_id == site)
            && self.words.find_in(&host.search)
    }
}

/// What a list is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Column {
    /// The worst state first.
    #[default]
    State,
    /// Host name.
    Name,
    /// Client, then site.
    Site,
    Cpu,
    Memory,
    /// The fullest disk.
    Disk,
    /// Services that are down.
    Services,
    /// Open tickets.
    Tickets,
    /// Arrival of the newest heartbeat.
    LastHeartbeat,
}

impl Column {
    /// All, in the order of the table.
    pub const ALL: [Self; 9] = [
        Self::State,
        Self::Name,
        Self::Site,
        Self::Cpu,
        Self::Memory,
        Self::Disk,
        Self::Services,
        Self::Tickets,
        Self::LastHeartbeat,
    ];

    /// For addresses.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Name => "name",
            Self::Site => "site",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
            Self::Services => "services",
            Self::Tickets => "tickets",
            Self::LastHeartbeat => "heartbeat",
        }
    }

    /// The order in which people want it first: the greatest value for figures.
    pub const fn first_descending(self) -> bool {
        matches!(
            self,
            Self::Cpu | Self::Memory | Self::Disk | Self::Services | Self::Tickets
        )
    }

    fn value(self, row: &Row) -> Option<f64> {
        Some(match self {
            Self::State => f64::from(row.health as u8),
            Self::Name => 0.0,
            Self::Site => row.host.site as f64,
            Self::Cpu => row.figures.cpu?,
            Self::Memory => row.figures.memory?,
            Self::Disk => row.figures.disk?.1,
            Self::Services => f64::from(row.figures.services_down),
            Self::Tickets => f64::from(row.tickets),
            Self::LastHeartbeat => row.now.as_ref()?.last_seen_at.0 as f64,
        })
    }
}

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what; equals are in the order of names.
    pub column: Column,
    /// The greatest first. Hosts without a value are last in either direction.
    pub descending: bool,
    /// Hosts of a site together, sites by client and name.
    pub by_site: bool,
}

impl Sort {
    /// From an address: `disk`, or `-disk` for the greatest first; anything else is the default.
    pub fn parse(text: &str) -> Self {
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |n| (n, true));
        let column = Column::ALL.into_iter().find(|one| one.as_str() == name);
        column.map_or_else(Self::default, |column| Self {
            column,
            descending,
            by_site: false,
        })
    }

    fn key(self, row: &Row) -> Key<'_> {
        let value = match self.column.value(row) {
            None => f64::INFINITY,
            Some(value) if self.descending => -value,
            Some(value) => value,
        };
        Key {
            site: if self.by_site { row.host.site } else { 0 },
            value,
            name: &row.host.sort_name,
            reversed: self.descending && self.column == Column::Name,
            id: row.host.id(),
        }
    }
}

/// What rows are compared by; nothing is allocated for it.
struct Key<'a> {
    site: usize,
    value: f64,
    name: &'a str,
    reversed: bool,
    id: HostId,
}

impl Key<'_> {
    fn compare(&self, other: &Self) -> Ordering {
        let names = self.name.cmp(other.name);
        self.site
            .cmp(&other.site)
            .then(self.value.total_cmp(&other.value))
            .then(if self.reversed {
                names.reverse()
            } else {
                names
            })
            .then(self.id.cmp(&other.id))
    }
}

/// The last host of a page. The next page begins behind its place even when hosts come, go or change
/// meanwhile.
#[derive(Clone, Debug, PartialEq)]
pub struct Cursor {
    value: f64,
    name: String,
    id: HostId,
}

impl Cursor {
    /// Reads what [`Cursor::text`] made; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let mut parts = text.splitn(3, ' ');
        let value = f64::from_bits(u64::from_str_radix(parts.next()?, 16).ok()?);
        let id = parts.next()?.parse().ok()?;
        let name = parts.next()?.to_owned();
        Some(Self { value, name, id })
    }

    /// For addresses; opaque.
    pub fn text(&self) -> String {
        let Self { value, name, id } = self;
        URL_SAFE_NO_PAD.encode(format!("{:x} {id} {name}", value.to_bits()))
    }

    /// That of a row in a list sorted like this.
    pub fn of(row: &Row, sort: Sort) -> Self {
        let key = sort.key(row);
        Self {
            value: key.value,
            name: key.name.to_owned(),
            id: key.id,
        }
    }
}

impl Snapshot {
    /// The hosts that a filter selects, by name.
    pub fn select(&self, filter: &Filter) -> Vec<&Row> {
        let rows = self.rows().iter();
        rows.filter(|row| filter.selects(row)).collect()
    }
}

/// Sorts rows that are in the order of names.
pub fn sort(rows: &mut [&Row], sort: Sort) {
    rows.sort_unstable_by(|a, b| sort.key(a).compare(&sort.key(b)));
}

/// How many rows of a sorted list come before the page after a cursor.
pub fn skipped(rows: &[&Row], sort: Sort, after: &Cursor) -> usize {
    let last = Key {
        site: 0,
        value: after.value,
        name: &after.name,
        reversed: sort.descending && sort.column == Column::Name,
        id: after.id,
    };
    rows.partition_point(|row| sort.key(row).compare(&last) != Ordering::Greater)
}
