//! The list of all statements, so that tests can prepare and explain each on both databases. A
//! module that has statements ends their declarations with [`statements!`]; a scan of the source in
//! the test suite finds one that is missing.

use super::{
    delivery, descriptions, dialect::Placeholder, dialect::in_sql, dialect::values_sql, fleet,
    heartbeats, history, identity, incidents, leases, outbox, people, policy, record, retention,
    set_aside, tickets, views,
};

/// A statement of the store.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The file that declares it, without its extension.
    pub module: &'static str,
    /// The name of its constant.
    pub name: &'static str,
    /// Its text. A bulk statement is shown with one row, a list with one value.
    pub sql: String,
}

impl Statement {
    /// Whether SQLite has it too: row locks are for PostgreSQL alone.
    pub fn is_for_sqlite(&self) -> bool {
        !self.sql.ends_with(" FOR UPDATE") && !self.sql.contains(" FOR SHARE")
    }
}

/// Every statement that the store runs.
pub fn all() -> Vec<Statement> {
    let modules = [
        ("delivery", delivery::statements()),
        ("descriptions", descriptions::statements()),
        ("fleet", fleet::statements()),
        ("heartbeats", heartbeats::statements()),
        ("history", history::statements()),
        ("identity", identity::statements()),
        ("incidents", incidents::statements()),
        ("leases", leases::statements()),
        ("outbox", outbox::statements()),
        ("people", people::statements()),
        ("policy", policy::statements()),
        ("record", record::statements()),
        ("retention", retention::statements()),
        ("set_aside", set_aside::statements()),
        ("tickets", tickets::statements()),
        ("views", views::statements()),
        ("views/tickets", views::ticket_statements()),
        ("views/tickets/list", views::list_statements()),
    ];
    let named = modules.into_iter().flat_map(|(module, statements)| {
        let named = statements.into_iter();
        named.map(move |(name, sql)| Statement { module, name, sql })
    });
    named.collect()
}

/// The text of a bulk statement of one row.
pub(super) fn one_row(prefix: &str, columns: usize) -> String {
    values_sql(prefix, 1, columns, Placeholder::Numbered)
}

/// The text of a statement with a list of one value.
pub(super) fn one_value(prefix: &str) -> String {
    in_sql(prefix, 1, Placeholder::Numbered)
}

/// Lists the statements of a module: those that are whole, then after `rows` those that
/// [`super::dialect::insert_many`] completes with their number of columns, then after `lists` those
/// that end in a list.
macro_rules! statements {
    ($($name:ident),+ $(,)? $(; rows $($bulk:ident $columns:literal),+)? $(; lists $($list:ident),+)?) => {
        pub(in crate::store) fn statements() -> Vec<(&'static str, String)> {
            vec![
                $((stringify!($name), $name.to_owned()),)+
                $($((stringify!($bulk), $crate::store::statements::one_row($bulk, $columns)),)+)?
                $($((stringify!($list), $crate::store::statements::one_value($list)),)+)?
            ]
        }
    };
}

pub(super) use statements;
