//! All contracts with this month's figure.

use askama::Template;
use axum::response::Response;

use crate::{
    store::views,
    web::{
        context::{Ctx, Layout, html},
        error::WebError,
        format,
        pages::contract::{
            figures::{headline, share, target, verdict},
            kind_word, month_of,
        },
        parts::Pill,
    },
};

#[derive(Template)]
#[template(path = "pages/contracts.html")]
struct ContractsPage {
    layout: Layout,
    config: String,
    rows: Vec<Row>,
}

struct Row {
    id: String,
    name: String,
    client: String,
    kind: &'static str,
    hosts: i64,
    target: String,
    /// Absent until it has been computed.
    figure: Option<String>,
    coverage: String,
    state: Option<Pill>,
}

/// `GET /contracts`
pub(crate) async fn page(ctx: Ctx) -> Result<Response, WebError> {
    let contracts = views::contracts(&ctx.web.app.store).await?;
    let months = contracts
        .iter()
        .map(|contract| (contract.id, month_of(ctx.now, &contract.zone)));
    let months: Vec<_> = months.collect();
    let figures = ctx.web.months.of(&ctx.web.app, &months).await;
    let rows = contracts.into_iter().map(|contract| {
        let month = figures.get(&contract.id);
        let totals = month.map(|month| (month.availability.totals, month.rule));
        Row {
            id: contract.id.to_string(),
            kind: kind_word(&contract.kind),
            hosts: contract.hosts,
            target: target(contract.target_pct),
            figure: totals.map(|(totals, rule)| headline(totals, rule)),
            coverage: totals.map_or_else(String::new, |(totals, _)| share(totals.coverage())),
            state: month.and_then(|one| verdict(&one.availability, contract.target_pct, false)),
            name: contract.name,
            client: contract.client,
        }
    });
    html(&ContractsPage {
        rows: rows.collect(),
        layout: ctx.layout("contracts").await?,
        config: format::shell_word(&ctx.web.app.config.file),
    })
}
