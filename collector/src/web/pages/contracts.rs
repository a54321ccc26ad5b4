//! All contracts with this month's figure.

use askama::Template;
use axum::response::Response;
use watchkeep_core::ids::ContractId;

use crate::{
    reports,
    store::views,
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        pages::contract::{
            figures::{headline, share, target, verdict},
            kind_word, month_of,
        },
        parts::Pill,
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
        let month = report.map(|report| (report.availability, report.unknown_rule));
        let totals = month.map(|(figures, rule)| (figures.totals, rule));
        rows.push(Row {
            id: contract.id.to_string(),
            kind: kind_word(&contract.kind),
            hosts: contract.hosts,
            target: target(contract.target_pct),
            figure: totals.map_or_else(String::new, |(totals, rule)| headline(totals, rule)),
            coverage: share(totals.and_then(|(totals, _)| totals.coverage())),
            state: month.and_then(|(a, _)| verdict(&a, contract.target_pct, false)),
            name: contract.name,
            client: contract.client,
        });
    }
    html(&ContractsPage {
        layout: ctx.layout("contracts").await?,
        rows,
    })
}
