//! What all handlers share, HTTP's and gRPC's: the client, the view of the cluster, the operator's connections.
//!
//! Off the data path.
//! Invariant: cheap to clone; everything behind it is bounded by [`Settings`].
//! It decides nothing but where a write belongs.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use ringraft_net::client::tokio::Client;
use ringraft_net::slots;

use tokio::time::sleep;

use crate::errors::{Code, Failure};
use crate::operator::Operator;
use crate::settings::{Settings, Sources};
use crate::view::{View, Views};

/// Between two looks at whether the cluster is known.
const PAUSE: Duration = Duration::from_millis(20);

/// Shared by all handlers.
#[derive(Clone, Debug)]
pub struct State {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    settings: Settings,
    sources: Sources,
    client: Client,
    operator: Operator,
    views: Arc<Views>,
    /// Never changes.
    groups: OnceLock<u32>,
}

/// Where a write to a key belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Here: this node leads the key's group, or passes writes on, or does not know better.
    Here,
    /// At another node.
    Elsewhere {
        /// The group.
        group: u32,
        /// Its leader.
        leader: u64,
        /// Where its HTTP is, if it told.
        http: Option<String>,
        /// Where its gRPC is, if it told.
        grpc: Option<String>,
    },
}

impl State {
    /// The state over a client that runs.
    pub fn new(settings: Settings, sources: Sources, client: Client) -> Self {
        let operator = Operator::new(client.clone(), &settings);
        let views = Arc::new(Views::new(client.clone(), settings.node));
        let groups = OnceLock::new();
        Self { inner: Arc::new(Inner { settings, sources, client, operator, views, groups }) }
    }

    /// What the node told the gateway.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// The client of the cluster.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.inner.client
    }

    /// What operators ask.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.inner.operator
    }

    /// The metrics of the node, in Prometheus' text format.
    #[must_use]
    pub fn metrics(&self) -> String {
        (self.inner.sources.metrics)()
    }

    /// The cluster as the own node sees it, not much older than a moment; `None`: the own node does not answer.
    pub async fn view(&self) -> Option<Arc<View>> {
        self.inner.views.recent().await
    }

    /// The same, asked for now.
    pub async fn view_now(&self) -> Option<Arc<View>> {
        self.inner.views.now().await
    }

    /// The time of day when the node's clock showed so many microseconds, as far as known.
    #[must_use]
    pub fn time_of(&self, clock_us: u64) -> Option<SystemTime> {
        self.inner.views.time_of(clock_us)
    }

    /// Groups of the cluster.
    ///
    /// # Errors
    /// No node answers.
    pub async fn groups(&self) -> Result<u32, Failure> {
        if let Some(groups) = self.inner.groups.get() {
            return Ok(*groups);
        }
        let deadline = Instant::now() + self.inner.settings.request_timeout;
        loop {
            let info = self.inner.client.info().await?;
            if info.groups > 0 {
                return Ok(*self.inner.groups.get_or_init(|| info.groups));
            }
            if Instant::now() >= deadline {
                let problem = info.problem.unwrap_or_else(|| String::from("it starts"));
                return Err(Failure::new(Code::Unavailable, format!("the cluster does not answer: {problem}")));
            }
            sleep(PAUSE).await;
        }
    }

    /// Where a write to a key belongs, as far as it is this gateway's to say.
    pub async fn place_of(&self, key: &[u8]) -> Place {
        if self.inner.settings.proxy {
            return Place::Here;
        }
        let Some(view) = self.view().await else { return Place::Here };
        let group = slots::group_of_key(key, view.groups.max(1));
        match view.leader(group) {
            Some(leader) if leader != self.inner.settings.node => {
                let node = view.node(leader);
                let http = node.map(|node| node.http_address.clone()).filter(|address| !address.is_empty());
                let grpc = node.map(|node| node.grpc_address.clone()).filter(|address| !address.is_empty());
                Place::Elsewhere { group, leader, http, grpc }
            }
            _ => Place::Here,
        }
    }
}
