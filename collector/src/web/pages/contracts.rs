//! All contracts with this month's figure.

use askama::Template;
use axum::response::Response;
use watchkeep_core::{ids::ContractId, ledger::Availability};

use crate::{
    reports,
    store::views,
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::contract::{kind_word, month_of},
        parts::{Pill, pill},
    },
};

/// Contracts whose figure is computed for the list; each is a read of its hosts' record.
const FIGURES: usize = 25;

#[derive(Template)]
#[template(path = "pages/contracts.html")]
struct ContractsPage {
    layout: Layout,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    client: String,
    kind: &'static str,
    hosts: i64,
    target: String,
    figure: String,
    coverage: String,
    state: Option<Pill>,
}

/// `GET /contracts`
pub(crate) async fn page(ctx: Ctx) -> Result<Response, WebError> {
    let mut rows = Vec::new();
    for (i, contract) in views::contracts(&ctx.web.app.store)
        .await?
        .into_iter()
        .enumerate()
    {
        let month = month_of(ctx.now, &contract.zone);
        let report = if i < FIGURES {
            reports::month_live(&ctx.web.app, ContractId(contract.id), &month)
                .await
                .map_err(|error| WebError::Internal(error.to_string()))?
        } else {
            None
        };
        let figures = report.map(|report| report.availability);
        rows.push(Row {
            id: contract.id.to_string(),
            kind: kind_word(&contract.kind),
            hosts: contract.hosts,
            target: format::availability(contract.target_pct / 100.0),
            figure: share(figures.and_then(|a| a.headline)),
            coverage: share(figures.and_then(|a| a.coverage)),
            state: figures.and_then(|a| verdict(&a, contract.target_pct)),
            name: contract.name,
            client: contract.client,
        });
    }
    html(&ContractsPage {
        layout: ctx.layout("contracts").await?,
        rows,
    })
}

/// A share, or a dash where no time counts.
pub(super) fn share(share: Option<f64>) -> String {
    share.map_or_else(|| "–".to_owned(), format::availability)
}

/// Whether the promise holds: for sure, not at all, or it depends on what is unknown.
pub(super) fn verdict(figures: &Availability, target_pct: f64) -> Option<Pill> {
    let (low, high) = (figures.a_min? * 100.0, figures.a_max? * 100.0);
    Some(if low >= target_pct {
        pill("ok", "check", "Target met")
    } else if high < target_pct {
        pill("crit", "crit", "Target missed")
    } else {
        pill("warn", "unknown", "Not proven")
    })
}
