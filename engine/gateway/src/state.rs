//! What all handlers share, HTTP's and gRPC's: the client, the view of the cluster, the operator's connections.
//!
//! Off the data path.
//! Invariant: cheap to clone; everything behind it is bounded by [`Settings`].
//! It decides nothing but where a write belongs.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use ringraft_net::client::tokio::Client;
use ringraft_net::slots;
use ringraft_net::wire::{Consistency, Operation, OperationRef, RequestRef};

use tokio::time::{sleep, timeout};

use crate::errors::{Code, Failure};
use crate::operator::Operator;
use crate::settings::{Settings, Sources};
use crate::view::{View, Views};

/// Between two looks at whether the cluster is known.
const PAUSE: Duration = Duration::from_millis(20);

/// More than a request has beside its operations, ...
const REQUEST_BYTES: usize = 1 << 10;
/// ... and each of these beside its keys and values.
const OPERATION_BYTES: usize = 256;
/// A client is sent elsewhere by what the own node said so lately: by less, two nodes of which neither heard yet who leads
/// now would send it to each other.
const CONFIRMED: Duration = Duration::from_millis(5);

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
        let views = Arc::new(Views::new(operator.clone(), settings.node));
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

    /// Whether the cluster takes these operations as one request. More would cost the connection on which it is sent, and all
    /// that wait behind it, so it is not sent.
    ///
    /// # Errors
    /// It does not.
    pub fn fits(&self, operations: &[Operation]) -> Result<(), Failure> {
        let max = self.inner.settings.request_bytes_max;
        let operations: Vec<_> = operations.iter().map(Operation::as_operation_ref).collect();
        let payload: usize = operations.iter().map(OperationRef::payload_bytes).sum();
        if payload + REQUEST_BYTES + operations.len() * OPERATION_BYTES <= max {
            return Ok(());
        }
        let message = |bytes| format!("the request to one group is {bytes} bytes, at most {max} are allowed; split it");
        if payload > max {
            return Err(Failure::new(Code::TooLarge, message(payload)));
        }
        let (client, sequence, acknowledged) = (0, 0, 0);
        let consistency = Consistency::Linearizable;
        let request = RequestRef { client, sequence, acknowledged, consistency, operations: &operations };
        match request.append_frame(&mut Vec::new(), 0) {
            bytes if bytes <= max => Ok(()),
            bytes => Err(Failure::new(Code::TooLarge, message(bytes))),
        }
    }

    /// Where a write to a key belongs, as far as it is this gateway's to say and can be found out in this time.
    pub async fn place_of(&self, key: &[u8], patience: Duration) -> Place {
        if self.inner.settings.proxy {
            return Place::Here;
        }
        timeout(patience, self.place(key)).await.unwrap_or(Place::Here)
    }

    async fn place(&self, key: &[u8]) -> Place {
        let Some(view) = self.view().await else { return Place::Here };
        if self.place_in(&view, key) == Place::Here {
            return Place::Here;
        }
        let confirmed = self.inner.views.confirmed(CONFIRMED).await;
        confirmed.map_or(Place::Here, |view| self.place_in(&view, key))
    }

    fn place_in(&self, view: &View, key: &[u8]) -> Place {
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

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;
    use crate::fake::{Fake, OTHER, run, until};

    #[test]
    fn writes_under_way_keep_nobody_from_looking_at_the_node() {
        run(async {
            let fake = Fake::start().await;
            let state = fake.state(|settings| settings.requests_max = 8);
            let mut writes = JoinSet::new();
            for _ in 0..8 {
                let client = state.client().clone();
                writes.spawn(async move {
                    let put = Operation::Put { key: b"k".to_vec(), value: b"v".to_vec() };
                    client.request(vec![put], Consistency::Linearizable).await
                });
            }
            until(|| fake.script().requests > 0).await;
            let refused = state.client().status(1, 0).await;
            assert!(refused.is_err(), "the client takes no more: {refused:?}");
            for _ in 0..3 {
                assert!(state.view_now().await.is_some());
            }
        });
    }

    #[test]
    fn what_the_cluster_does_not_take_at_once_is_not_sent() {
        run(async {
            let fake = Fake::start().await;
            let max = 70 << 10;
            let state = fake.state(|settings| settings.request_bytes_max = max);
            let put = |bytes| Operation::Put { key: b"k".to_vec(), value: vec![0; bytes] };
            let frame = |operations: &[Operation]| {
                let operations: Vec<_> = operations.iter().map(Operation::as_operation_ref).collect();
                let (client, sequence, acknowledged) = (u64::MAX, u64::MAX, u64::MAX);
                let consistency = Consistency::Stale;
                RequestRef { client, sequence, acknowledged, consistency, operations: &operations }
                    .append_frame(&mut Vec::new(), u32::MAX)
            };
            for count in [1, 2, 300] {
                let operations = |bytes: usize| vec![put(bytes / count); count];
                let largest = (0..=max).rev().find(|bytes| frame(&operations(*bytes)) <= max).unwrap();
                assert_eq!(state.fits(&operations(largest)), Ok(()), "{count}");
                for bytes in [largest + count, max, 2 * max] {
                    let refused = state.fits(&operations(bytes)).unwrap_err();
                    assert_eq!(refused.code, Code::TooLarge, "{count} {bytes}: {refused}");
                }
            }
            assert_eq!(state.fits(&vec![put(8); 64]), Ok(()));
        });
    }

    #[test]
    fn a_question_that_failed_answers_all_who_came_before_it() {
        run(async {
            let fake = Fake::start().await;
            fake.script().answers = false;
            let state = fake.state(|_| {});
            let mut callers = JoinSet::new();
            for _ in 0..20 {
                let state = state.clone();
                callers.spawn(async move { state.view().await });
            }
            while let Some(view) = callers.join_next().await {
                assert_eq!(view.unwrap(), None);
            }
            let asked = fake.script().statuses;
            assert!(asked <= 2, "{asked} questions for 20 callers");
            fake.script().answers = true;
            assert!(state.view().await.is_some(), "a failure is not remembered for those who come later");
        });
    }

    #[test]
    fn nobody_waits_for_a_place_longer_than_the_request_may_take() {
        run(async {
            let fake = Fake::start().await;
            fake.script().answers = false;
            let state = fake.state(|_| {});
            let first = state.clone();
            tokio::spawn(async move { first.view_now().await });
            until(|| fake.script().statuses == 1).await;
            assert_eq!(state.place_of(b"k", Duration::from_millis(20)).await, Place::Here);
            assert_eq!(fake.script().statuses, 1, "it waited for the end of a question and for another one");
        });
    }

    #[test]
    fn a_write_is_sent_to_another_node_only_by_what_is_known_now() {
        run(async {
            let fake = Fake::start().await;
            let state = fake.state(|_| {});
            fake.script().leader = OTHER;
            assert!(state.view_now().await.is_some());
            let place = state.place_of(b"k", Duration::from_secs(30)).await;
            assert!(matches!(place, Place::Elsewhere { leader: OTHER, .. }), "{place:?}");
            fake.script().leader = 1;
            while state.place_of(b"k", Duration::from_secs(30)).await != Place::Here {
                sleep(CONFIRMED).await;
            }
        });
    }
}
