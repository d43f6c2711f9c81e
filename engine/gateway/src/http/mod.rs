//! HTTP: the routes of clients and of operators.
//!
//! Off the data path.
//!
//! ```text
//!   /kv/{key}  /kv  /batch                     clients: kv, list, batch
//!   /health /livez /readyz                     probes: cluster
//!   /cluster/status /cluster/nodes             people: cluster
//!   /admin/status /admin/nodes /admin/...      operators: cluster, admin
//!   /metrics /openapi.json                     programs: metrics, the description of all this
//! ```
//! Invariants: `openapi.json` describes every route here and no other; clients' requests beyond `requests_max` are refused
//! at once, probes and operators' are not; every error is JSON.
//!
//! It does no I/O of its own.

mod admin;
mod answer;
mod batch;
mod body;
mod cluster;
mod headers;
mod kv;
mod list;
mod query;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{Response, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use axum::routing::{delete, get, post, put};
use tokio::sync::Semaphore;

use crate::errors::{Code, Failure};
use crate::state::State;

/// The description of the routes, OpenAPI 3.1.
pub const OPENAPI: &str = include_str!("../../openapi.json");

/// The routes of HTTP, gRPC's not among them.
pub fn router(state: &State) -> Router {
    clients(state).merge(operators(state)).merge(metrics_router(state))
}

/// What clients ask, within `requests_max`.
fn clients(state: &State) -> Router {
    let permits = Arc::new(Semaphore::new(state.settings().requests_max));
    Router::new()
        .route("/kv/{*key}", put(kv::set).post(kv::set).get(kv::get).delete(kv::remove))
        .route("/kv", get(list::list))
        .route("/batch", post(batch::batch))
        .route_layer(middleware::from_fn_with_state(permits, bounded))
        .with_state(state.clone())
}

/// What operators and probes ask.
fn operators(state: &State) -> Router {
    Router::new()
        .route("/health", get(cluster::readyz))
        .route("/readyz", get(cluster::readyz))
        .route("/livez", get(cluster::livez))
        .route("/cluster/status", get(cluster::status))
        .route("/cluster/nodes", get(cluster::nodes))
        .route("/admin/status", get(cluster::admin_status))
        .route("/admin/nodes", post(admin::add_node).delete(admin::remove_named))
        .route("/admin/nodes/{id}", delete(admin::remove_node))
        .route("/admin/transfer", post(admin::transfer))
        .route("/admin/snapshot", post(admin::snapshot))
        .route("/openapi.json", get(openapi))
        .with_state(state.clone())
}

/// `/metrics` alone.
pub fn metrics_router(state: &State) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(state.clone())
}

async fn metrics(Shared(state): Shared<State>) -> Response<Body> {
    answer::response(StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", state.metrics())
}

async fn openapi() -> Response<Body> {
    answer::response(StatusCode::OK, "application/json", OPENAPI)
}

/// What every router ends with: answers of their own for routes and methods that are none.
pub fn finish(routes: Router) -> Router {
    let unknown = || async { Failure::new(Code::NotFound, "there is no such route; /openapi.json has them all") };
    let wrong = || async { Failure::new(Code::MethodNotAllowed, "this route does not take this method; see Allow") };
    routes.fallback(unknown).method_not_allowed_fallback(wrong)
}

/// Refuses at once what is too much.
async fn bounded(Shared(permits): Shared<Arc<Semaphore>>, request: Request, next: Next) -> Response<Body> {
    match permits.try_acquire() {
        Ok(_permit) => next.run(request).await,
        Err(_) => Failure::new(Code::Overloaded, "this node serves as many requests as it may").into_response(),
    }
}
