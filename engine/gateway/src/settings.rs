//! What the gateway is told by its node: addresses, bounds, and where metrics come from.
//!
//! Off the data path.
//! Invariant: every bound is at least one, checked by `start`.
//! It reads no configuration: the node's does, and fills this.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ringraft_net::limits::CLIENT_FRAME_BYTES_MAX;

use crate::telemetry::{Change, Telemetry};

/// Addresses and bounds of the gateway of one node.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The node it belongs to.
    pub node: u64,
    /// Native addresses to begin with, the own node's first.
    pub endpoints: Vec<SocketAddr>,
    /// The cluster it must be.
    pub cluster: Option<[u8; 16]>,
    /// HTTP and, unless `grpc_address` is given, gRPC listen here (`host:port`); empty: not at all.
    pub http_address: String,
    /// gRPC listens here alone; empty: at `http_address`.
    pub grpc_address: String,
    /// `/metrics` is served here too; empty: at `http_address` only.
    pub metrics_address: String,
    /// A write that came to a follower is passed on to the leader instead of answered with `307`.
    pub proxy: bool,
    /// Connections at once, of all listeners; further ones wait to be accepted.
    pub connections_max: usize,
    /// Requests at once; further ones are refused with `429`.
    pub requests_max: usize,
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of a request to the cluster, as its shards allow them: they close a connection that brings more.
    pub request_bytes_max: usize,
    /// Longest time between the end of one request and the end of the next one's head, on one connection.
    pub head_timeout: Duration,
    /// Longest time a request's body may take to come.
    pub body_timeout: Duration,
    /// Longest time the cluster may take to answer a request.
    pub request_timeout: Duration,
    /// Where spans go; `None`: there are none.
    pub telemetry: Option<Telemetry>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node: 0,
            endpoints: Vec::new(),
            cluster: None,
            http_address: String::new(),
            grpc_address: String::new(),
            metrics_address: String::new(),
            proxy: false,
            connections_max: 10_000,
            requests_max: 4_096,
            body_bytes_max: 4 << 20,
            request_bytes_max: CLIENT_FRAME_BYTES_MAX,
            head_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            telemetry: None,
        }
    }
}

impl Settings {
    /// Whether anything is to be served, or sent, at all.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let addresses = [&self.http_address, &self.grpc_address, &self.metrics_address];
        self.telemetry.is_some() || addresses.iter().any(|address| !address.is_empty())
    }
}

/// Where the gateway gets what it does not ask the cluster for.
#[derive(Clone)]
pub struct Sources {
    /// The metrics of the node, as Prometheus reads them. Called off the shards' threads.
    pub metrics: Arc<dyn Fn() -> String + Send + Sync>,
    /// What replicas of the node have become since it was called last; only called when there are spans.
    pub changes: Arc<dyn Fn() -> Vec<Change> + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Default for Sources {
    fn default() -> Self {
        Self { metrics: Arc::new(String::new), changes: Arc::new(Vec::new) }
    }
}
