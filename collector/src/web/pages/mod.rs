//! One file a page: what it reads, how it looks is in the template of the same name.

pub(crate) mod account;
pub(crate) mod acknowledge;
pub(crate) mod contract;
pub(crate) mod contracts;
pub(crate) mod fleet;
pub(crate) mod health;
pub(crate) mod host;
pub(crate) mod login;
mod machine;
mod problems;
pub(crate) mod rekey;
pub(crate) mod ticket;
pub(crate) mod tickets;
mod timeline;

use watchkeep_core::rules::RuleId;
use watchkeep_shared::UnixMillis;

use super::{context::Ctx, error::WebError, parts::Time};
use crate::{
    links::{Piece, linked},
    store::views::{self, Named},
};

/// A choice in a filter.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    pub(crate) value: String,
    pub(crate) label: String,
    pub(crate) chosen: bool,
}

/// Choices with one of them chosen.
fn choices<'a>(all: impl IntoIterator<Item = (&'a str, &'a str)>, chosen: &str) -> Vec<Choice> {
    all.into_iter()
        .map(|(value, label)| Choice {
            value: value.to_owned(),
            label: label.to_owned(),
            chosen: value == chosen,
        })
        .collect()
}

fn named_choices(all: &[Named], everything: &str, chosen: &str) -> Vec<Choice> {
    let mut list = vec![Choice {
        value: String::new(),
        label: everything.to_owned(),
        chosen: chosen.is_empty(),
    }];
    list.extend(all.iter().map(|one| Choice {
        chosen: one.id.to_string() == chosen,
        value: one.id.to_string(),
        label: one.name.clone(),
    }));
    list
}

async fn client_choices(ctx: &Ctx, chosen: &str) -> Result<Vec<Choice>, WebError> {
    let clients = views::clients(&ctx.web.app.store).await?;
    Ok(named_choices(&clients, "All clients", chosen))
}

/// One alert that fires, for lists.
#[derive(Clone, Debug)]
pub(crate) struct AlertRow {
    pub(crate) tone: &'static str,
    pub(crate) icon: &'static str,
    pub(crate) word: &'static str,
    pub(crate) summary: String,
    pub(crate) rule: String,
    /// Where to read what to do.
    pub(crate) runbook: Vec<Piece>,
    pub(crate) since: Time,
    pub(crate) cleared: Option<Time>,
    pub(crate) clear_reason: String,
    pub(crate) number: Option<i64>,
}

impl AlertRow {
    fn of(ctx: &Ctx, alert: &views::AlertView) -> Self {
        let now = ctx.now;
        let rule = ctx
            .web
            .app
            .config
            .rules
            .rule(&RuleId(alert.rule_id.clone()));
        let runbook = rule.and_then(|rule| rule.runbook.as_deref());
        let (tone, icon) = super::parts::severity(&alert.severity);
        Self {
            tone,
            icon,
            word: match alert.severity.as_str() {
                "critical" => "Critical",
                "warning" => "Warning",
                _ => "Info",
            },
            summary: alert.summary.clone(),
            rule: alert.rule_id.clone(),
            runbook: runbook.map(linked).unwrap_or_default(),
            since: Time::new(UnixMillis(alert.raised_at), now),
            cleared: alert.cleared_at.map(|at| Time::new(UnixMillis(at), now)),
            clear_reason: alert.clear_reason.clone().unwrap_or_default(),
            number: alert.number,
        }
    }
}
