//! HTTP, gRPC, metrics and spans of a node: from its configuration to the gateway's.
//!
//! Off the data path.
//! Invariant: without an address and without tracing nothing is started.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ringraft_engine::config::{Address, Switch, ValidNodeConfig};
use ringraft_engine::host::{self, Observer};
use ringraft_gateway::{Change, Running, Settings, Sources, Telemetry, start};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Bodies are longer than the requests in them: values in base64, texts with escapes.
const BODY_FACTOR: usize = 2;
/// Longest time for a body; less when a head may not take so long.
const BODY_TIMEOUT_MAX: Duration = Duration::from_secs(10);

/// Starts what the configuration asks for; `None`: nothing.
pub(crate) fn serve(config: &ValidNodeConfig, sources: Sources) -> Result<Option<Running>> {
    let settings = settings(config)?;
    if !settings.is_on() {
        return Ok(None);
    }
    raise_open_files();
    let running = start(settings, sources)?;
    let addresses = running.addresses();
    tracing::info!(http = ?addresses.http, grpc = ?addresses.grpc, metrics = ?addresses.metrics, "the gateway listens");
    if let Some(telemetry) = telemetry(config) {
        let Telemetry { endpoint, service_name, sample_ratio } = telemetry;
        tracing::info!(endpoint, service_name, sample_ratio, "spans are sent to a collector");
    }
    Ok(Some(running))
}

/// What the gateway is told by a node that an observer sees.
pub(crate) fn sources(observer: &Observer) -> Sources {
    let (metrics, changes) = (observer.clone(), observer.clone());
    Sources {
        metrics: Arc::new(move || metrics.metrics()),
        changes: Arc::new(move || changes.changes().iter().map(change).collect()),
    }
}

fn change(change: &host::Change) -> Change {
    let host::Change { transition, since, at } = *change;
    Change {
        group: transition.group,
        term: transition.term,
        role: transition.state.name(),
        role_before: transition.before.name(),
        leader: transition.leader,
        since,
        at,
    }
}

fn telemetry(config: &ValidNodeConfig) -> Option<Telemetry> {
    (config.tracing_enabled == Switch::On).then(|| Telemetry {
        endpoint: config.tracing_endpoint.0.of_shard(0),
        service_name: config.tracing_service_name.0.clone(),
        sample_ratio: config.tracing_sample_ratio.fraction(),
    })
}

/// Each connection takes a file descriptor: the process may have as many as it is allowed to ask for.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
    {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn settings(config: &ValidNodeConfig) -> Result<Settings> {
    let head_timeout = Duration::from_millis(config.http_head_timeout_ms);
    let text = |address: &Option<Address>| address.as_ref().map(|address| address.of_shard(0)).unwrap_or_default();
    Ok(Settings {
        node: config.id,
        endpoints: endpoints(config)?,
        cluster: Some(config.cluster_id.0),
        http_address: text(&config.http_address),
        grpc_address: text(&config.grpc_address),
        metrics_address: text(&config.metrics_address),
        proxy: config.http_proxy == Switch::On,
        connections_max: config.http_connections_max as usize,
        requests_max: config.http_requests_max as usize,
        body_bytes_max: config.request_bytes_max as usize * BODY_FACTOR,
        request_bytes_max: config.request_bytes_max as usize,
        head_timeout,
        body_timeout: head_timeout.min(BODY_TIMEOUT_MAX),
        request_timeout: Duration::from_millis(config.http_request_timeout_ms),
        telemetry: telemetry(config),
    })
}

/// Where the shards of the own node listen, and the other nodes as far as their names are known now.
fn endpoints(config: &ValidNodeConfig) -> Result<Vec<SocketAddr>> {
    let own = config.listen_address(0);
    let resolved = own.to_socket_addrs().with_context(|| format!("cannot resolve {own}"))?.next();
    let mut endpoints = vec![resolved.with_context(|| format!("{own} resolves to no address"))?];
    for (node, addresses) in config.addresses() {
        let first = addresses.first().filter(|_| node != config.node());
        endpoints.extend(first.and_then(|address| address.to_socket_addrs().ok()?.next()));
    }
    Ok(endpoints)
}
