//! The cluster as the own node sees it: roles, terms, leaders, and where other nodes' HTTP and gRPC are.
//!
//! Off the data path.
//!
//! It is the status of the own node's shards, asked for when somebody needs it and the last one is old: no request, no
//! question. Many requests share one question.
//!
//! Invariants: what [`Views::recent`] gives is at most [`LATE_FACTOR`] times [`AGE_MAX`] old (or twenty times as long as the
//! question took, when that is longer), and nobody waits for a newer one before; no lock is held while a shard is asked but
//! the one that makes others wait for the same answer; nobody waits for more than two questions, each bounded, however many
//! wait: one that failed is the answer to all who came before it was asked; it takes nothing of what clients' requests share.
//!
//! Nothing that must be right is built on it: a write that goes to the wrong place is refused there.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use serde::Deserialize;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinHandle;

use crate::operator::{Lines, Operator};

/// Age from which on a view is renewed when it is used.
pub(crate) const AGE_MAX: Duration = Duration::from_millis(100);

/// A view is used until it is so many times as old.
const LATE_FACTOR: u32 = 4;

/// A view that took long to get is renewed only when it is this many times as old.
const AGE_FACTOR: u32 = 20;

/// A replica on the own node.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ReplicaView {
    /// Its group.
    pub group: u32,
    /// `follower`, `pre_candidate`, `candidate` or `leader`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The leader it knows ...
    pub leader: Option<u64>,
    /// ... since then, by the node's clock, microseconds.
    #[serde(default)]
    pub leader_since_us: Option<u64>,
    /// Whether it has applied what was committed before its start.
    pub serving: bool,
    /// Highest committed entry it knows.
    pub commit_index: u64,
    /// Highest applied entry.
    pub last_applied: u64,
    /// Last entry of its log.
    pub last_index: u64,
    /// Keys it holds.
    pub keys: u64,
    /// Who has a vote.
    pub voters: Vec<u64>,
    /// Who has the data without a vote.
    pub learners: Vec<u64>,
    /// The last entry in its newest snapshot; 0 without one.
    pub snapshot_index: u64,
    /// On a leader: how far the other members are.
    pub followers: Vec<FollowerView>,
}

/// How far a member of a group is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct FollowerView {
    /// The node.
    pub node: u64,
    /// Highest entry known to be durable there.
    pub match_index: u64,
    /// Next entry to send.
    pub next_index: u64,
}

/// A group that has no replica on the own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct ElsewhereView {
    /// The group.
    pub group: u32,
    /// Its leader.
    pub leader: u64,
    /// The leader's term.
    pub term: u64,
}

/// A node, as the own node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct NodeView {
    /// The node.
    pub node: u64,
    /// Whether it was heard of lately.
    pub alive: bool,
    /// Its release.
    pub release: String,
    /// Requests per second.
    pub requests_per_second: u64,
    /// Where its HTTP is; empty: it told of none.
    #[serde(default)]
    pub http_address: String,
    /// Where its gRPC is; empty: it told of none.
    #[serde(default)]
    pub grpc_address: String,
}

/// What one shard says of itself, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ShardView {
    pub(crate) now_us: u64,
    pub(crate) groups: Vec<ReplicaView>,
    #[serde(default)]
    pub(crate) elsewhere: Vec<ElsewhereView>,
    #[serde(default)]
    pub(crate) nodes: Vec<NodeView>,
    pub(crate) disk_stalled: bool,
    #[serde(default)]
    pub(crate) http_address: String,
    #[serde(default)]
    pub(crate) grpc_address: String,
}

/// The cluster as one node sees it at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The node.
    pub node: u64,
    /// Groups of the cluster.
    pub groups: u32,
    /// Shards of each node.
    pub shards: u16,
    /// Its replicas, by group.
    pub replicas: BTreeMap<u32, ReplicaView>,
    /// The other groups, by group.
    pub elsewhere: BTreeMap<u32, ElsewhereView>,
    /// All nodes it knows, itself included, by id.
    pub nodes: BTreeMap<u64, NodeView>,
    /// Whether flushes of one of its shards have stopped.
    pub disk_stalled: bool,
}

impl View {
    /// The view that the shards of a node give.
    pub(crate) fn of(node: u64, groups: u32, shards: Vec<ShardView>) -> Self {
        let mut view = Self { node, groups, shards: shards.len() as u16, ..Self::default() };
        for shard in shards {
            if view.nodes.is_empty() {
                let own = NodeView {
                    node,
                    alive: true,
                    release: String::from(env!("CARGO_PKG_VERSION")),
                    requests_per_second: 0,
                    http_address: shard.http_address,
                    grpc_address: shard.grpc_address,
                };
                view.nodes.insert(node, own);
                view.nodes.extend(shard.nodes.into_iter().map(|node| (node.node, node)));
            }
            view.disk_stalled |= shard.disk_stalled;
            view.replicas.extend(shard.groups.into_iter().map(|replica| (replica.group, replica)));
            view.elsewhere.extend(shard.elsewhere.into_iter().map(|group| (group.group, group)));
        }
        view
    }

    /// The leader of a group, as far as known.
    #[must_use]
    pub fn leader(&self, group: u32) -> Option<u64> {
        match self.replicas.get(&group) {
            Some(replica) => replica.leader,
            None => self.elsewhere.get(&group).map(|group| group.leader),
        }
    }

    /// The term of a group, as far as known; else 0.
    #[must_use]
    pub fn term(&self, group: u32) -> u64 {
        let elsewhere = || self.elsewhere.get(&group).map(|group| group.term);
        self.replicas.get(&group).map(|replica| replica.term).or_else(elsewhere).unwrap_or(0)
    }

    /// A node it knows.
    #[must_use]
    pub fn node(&self, node: u64) -> Option<&NodeView> {
        self.nodes.get(&node)
    }
}

/// A view, when it was asked for, and how long it is good.
#[derive(Clone, Debug)]
struct Taken {
    view: Arc<View>,
    at: Instant,
    took: Duration,
    good_for: Duration,
}

/// What the last question left behind.
#[derive(Debug, Default)]
struct Asked {
    /// To ask the next one through.
    lines: Option<Lines>,
    /// When the last one that failed began.
    failed: Option<Instant>,
}

/// The newest view, and how to get another one.
#[derive(Debug)]
pub(crate) struct Views {
    operator: Operator,
    node: u64,
    newest: RwLock<Option<Taken>>,
    asking: Arc<Mutex<Asked>>,
    /// When the node's clock was 0, as it seemed when it was first seen: so that one time is always told the same.
    clock_began: OnceLock<SystemTime>,
}

impl Views {
    pub(crate) fn new(operator: Operator, node: u64) -> Self {
        let (newest, asking) = (RwLock::new(None), Arc::new(Mutex::new(Asked::default())));
        Self { operator, node, newest, asking, clock_began: OnceLock::new() }
    }

    /// The time of day when the node's clock showed so many microseconds; `None`: no shard was heard yet.
    pub(crate) fn time_of(&self, clock_us: u64) -> Option<SystemTime> {
        self.clock_began.get()?.checked_add(Duration::from_micros(clock_us))
    }

    fn newest(&self) -> Option<Taken> {
        self.newest.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A view that is not old; `None`: the own node does not answer.
    pub(crate) async fn recent(self: &Arc<Self>) -> Option<Arc<View>> {
        if let Some(taken) = self.newest() {
            let age = taken.at.elapsed();
            if age > taken.good_for && age <= taken.good_for * LATE_FACTOR {
                self.renew();
            }
            if age <= taken.good_for * LATE_FACTOR {
                return Some(taken.view);
            }
        }
        self.now().await
    }

    /// Asks for another view while others go on with the one there is, unless somebody does already.
    fn renew(self: &Arc<Self>) {
        if let Ok(asked) = Arc::clone(&self.asking).try_lock_owned() {
            self.begin(asked);
        }
    }

    /// A view that was asked for after this call.
    pub(crate) async fn now(self: &Arc<Self>) -> Option<Arc<View>> {
        self.since(Instant::now()).await
    }

    /// A view that is at most this old, or twenty times as old as asking takes: however many want it, that is a small
    /// part of what its shards do.
    pub(crate) async fn confirmed(self: &Arc<Self>, age_max: Duration) -> Option<Arc<View>> {
        let took = self.newest().map_or(Duration::ZERO, |taken| taken.took);
        let now = Instant::now();
        self.since(now.checked_sub(age_max.max(took * AGE_FACTOR)).unwrap_or(now)).await
    }

    /// A view that was asked for at this moment or later.
    pub(crate) async fn since(self: &Arc<Self>, earliest: Instant) -> Option<Arc<View>> {
        let asked = Arc::clone(&self.asking).lock_owned().await;
        if let Some(taken) = self.newest().filter(|taken| taken.at >= earliest) {
            return Some(taken.view);
        }
        if asked.failed.is_some_and(|at| at >= earliest) {
            return None;
        }
        self.begin(asked).await.ok().flatten()
    }

    /// A question is finished for those who come next, even if the one who asked it does not wait for the answer.
    fn begin(self: &Arc<Self>, mut asked: OwnedMutexGuard<Asked>) -> JoinHandle<Option<Arc<View>>> {
        let views = Arc::clone(self);
        tokio::spawn(async move {
            let at = Instant::now();
            let view = views.ask(&mut asked.lines, at).await;
            if view.is_none() {
                asked.failed = Some(at);
            }
            view
        })
    }

    async fn ask(&self, kept: &mut Option<Lines>, at: Instant) -> Option<Arc<View>> {
        let (lines, texts) = self.operator.own_status(kept.take()).await.ok()?;
        let groups = lines.groups();
        *kept = Some(lines);
        let mut shards = Vec::with_capacity(texts.len());
        for text in texts {
            let view = serde_json::from_str::<ShardView>(&text).ok()?;
            if let Some(began) = SystemTime::now().checked_sub(Duration::from_micros(view.now_us)) {
                self.clock_began.get_or_init(|| began);
            }
            shards.push(view);
        }
        let view = Arc::new(View::of(self.node, groups, shards));
        let took = at.elapsed();
        let taken = Taken { view: Arc::clone(&view), at, took, good_for: AGE_MAX.max(took * AGE_FACTOR) };
        *self.newest.write().unwrap_or_else(PoisonError::into_inner) = Some(taken);
        Some(view)
    }
}
