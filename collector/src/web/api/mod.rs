//! `/api/v1`: what the pages' scripts read, as JSON. Instants are milliseconds since the Unix epoch,
//! UTC. Errors are problem details (RFC 9457).

mod hosts;
mod series;
mod tickets;

use axum::{Router, routing::get};
use watchkeep_shared::HostId;

use super::{Web, error::WebError, pages};

/// The routes below `/api/v1`.
pub(super) fn routes() -> Router<Web> {
    Router::new()
        .route("/fleet", get(hosts::fleet_list))
        .route("/hosts/{id}", get(hosts::host))
        .route("/hosts/{id}/policy", get(pages::host::watch::json))
        .route("/hosts/{id}/series", get(series::of_host))
        .route("/tickets", get(tickets::list))
        .route("/tickets/{id}", get(tickets::one))
        .route("/tickets/{id}/evidence", get(tickets::evidence))
}

pub(super) fn host_id(text: &str) -> Result<HostId, WebError> {
    text.parse()
        .map_err(|_| WebError::NotFound("there is no host with this id"))
}
