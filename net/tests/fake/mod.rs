//! A fake cluster for tests of the client: nodes without consensus, one shared state, a script of mishaps.
//!
//! Off the data path.
//!
//! Invariant: what it applies and answers follows the exactly-once rules of sessions as a correct cluster would.

#![allow(dead_code, reason = "each test file uses a part of it")]

use ringraft_net::{
    frame::{self, FrameKind},
    handshake::{Acceptor, Identity},
    limits::Limits,
    slots,
    wire::{
        self, Consistency, NodeInfo, Operation, OperationResult, Outcome, Position, Reply, Request, Topology, WatchEnd,
        WatchEventRef, WatchRequest,
    },
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// What the fake does with one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Applies it and answers.
    Apply,
    /// Does not apply it and answers this.
    Answer(Outcome),
    /// Applies it and does not answer.
    ApplySilently,
    /// Neither.
    Ignore,
    /// Does not apply it; the connection breaks.
    Break,
    /// Applies it; the connection breaks before the answer.
    ApplyAndBreak,
}

/// One session of a group.
#[derive(Debug, Default)]
struct Session {
    answers: BTreeMap<u64, Reply>,
    acknowledged: u64,
}

/// A request as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    pub(crate) node: u64,
    pub(crate) shard: u16,
    pub(crate) request: Request,
}

/// Nodes, shards, groups, and one state for all.
pub(crate) struct Cluster {
    pub(crate) id: [u8; 16],
    pub(crate) topology: Topology,
    /// What nodes tell that have not heard of the newest topology.
    pub(crate) behind: BTreeMap<u64, Topology>,
    pub(crate) leaders: Vec<u64>,
    pub(crate) store: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Which write the key has; kept for every key that was ever set.
    pub(crate) versions: BTreeMap<Vec<u8>, u64>,
    /// How often each put value was applied.
    pub(crate) applied: BTreeMap<Vec<u8>, u32>,
    pub(crate) received: Vec<Received>,
    /// For the next requests other than `OpenSession`; empty: apply.
    pub(crate) script: VecDeque<Verdict>,
    /// Answers status requests with replies, and requests with statuses.
    pub(crate) confused: bool,
    /// Nodes that have replicas to watch; `None`: all.
    pub(crate) watched_at: Option<BTreeSet<u64>>,
    /// What a watch is told: where it stands then, and the changes.
    pub(crate) told: (u64, Vec<u8>),
    /// Tells leaders in `Welcome`.
    pub(crate) tells_leaders: bool,
    sessions: BTreeMap<(u32, u64), Session>,
    index: u64,
}

impl Cluster {
    /// Nodes 1..=nodes at the given addresses, `addresses[node][shard]`.
    pub(crate) fn new(groups: u32, addresses: &[Vec<SocketAddr>]) -> Self {
        let node_info = |(node, shards): (u64, &Vec<SocketAddr>)| NodeInfo {
            node,
            addresses: shards.iter().map(ToString::to_string).collect(),
        };
        Self {
            id: [7; 16],
            topology: Topology {
                epoch: 1,
                groups,
                shards: addresses[0].len() as u16,
                nodes: (1..).zip(addresses).map(node_info).collect(),
                leaders: vec![None; groups as usize],
            },
            behind: BTreeMap::new(),
            leaders: vec![1; groups as usize],
            store: BTreeMap::new(),
            versions: BTreeMap::new(),
            applied: BTreeMap::new(),
            received: Vec::new(),
            script: VecDeque::new(),
            confused: false,
            watched_at: None,
            told: (1, Vec::new()),
            tells_leaders: true,
            sessions: BTreeMap::new(),
            index: 0,
        }
    }

    pub(crate) fn identity(&self, node: u64, shard: u16) -> Identity {
        let members = self.topology.nodes.iter().map(|info| info.node).collect();
        Identity { cluster: self.id, node, shard, config_digest: 5, members, removed: Vec::new() }
    }

    /// Forgets all sessions, as if they had expired.
    pub(crate) fn expire_sessions(&mut self) {
        self.sessions.clear();
    }

    pub(crate) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    fn topology_told(&self, node: u64) -> Topology {
        let mut topology = self.behind.get(&node).unwrap_or(&self.topology).clone();
        if self.tells_leaders {
            topology.leaders = self.leaders.iter().map(|&leader| Some(leader)).collect();
        }
        topology
    }

    /// The one answer to a watch.
    fn watch(&self, node: u64, request: &WatchRequest, correlation: u32, out: &mut Vec<u8>) {
        let (group, (next, items)) = (request.group, &self.told);
        let event = if self.watched_at.as_ref().is_none_or(|nodes| nodes.contains(&node)) {
            WatchEventRef::Changes { group, next: *next, items }
        } else {
            WatchEventRef::Ended { group, end: WatchEnd::NotHere, index: 0, message: "another node has it" }
        };
        event.append_frame(out, correlation);
    }

    fn request(&mut self, node: u64, shard: u16, request: &Request) -> (Option<Reply>, bool) {
        self.received.push(Received { node, shard, request: request.clone() });
        let opens = matches!(request.operations[..], [Operation::OpenSession { .. }]);
        let verdict = if opens { Verdict::Apply } else { self.script.pop_front().unwrap_or(Verdict::Apply) };
        let answer = |outcome| Some(Reply { position: Position::default(), outcome, term: 0 });
        match verdict {
            Verdict::Apply => (Some(self.route(node, shard, request)), false),
            Verdict::Answer(outcome) => (answer(outcome), false),
            Verdict::ApplySilently => {
                self.route(node, shard, request);
                (None, false)
            }
            Verdict::Ignore => (None, false),
            Verdict::Break => (None, true),
            Verdict::ApplyAndBreak => {
                self.route(node, shard, request);
                (None, true)
            }
        }
    }

    fn route(&mut self, node: u64, shard: u16, request: &Request) -> Reply {
        let refs: Vec<_> = request.operations.iter().map(Operation::as_operation_ref).collect();
        let outcome = match wire::group_of_operations(refs, self.topology.groups) {
            Err(error) => Outcome::BadRequest { message: error.to_string() },
            Ok(group) => {
                let home = slots::shard_of_group(group, self.topology.shards);
                let leader = self.leaders[group as usize];
                let follows = request.consistency == Consistency::Follower;
                if home != shard {
                    let own = self.topology.nodes.iter().find(|info| info.node == node).expect("a member");
                    let address = own.addresses[usize::from(home)].clone();
                    Outcome::Moved { group, node, shard: home, address }
                } else if leader != node && request.consistency != Consistency::Stale && !follows {
                    Outcome::NotLeader { group, leader: (leader != 0).then_some(leader) }
                } else {
                    return self.apply(group, request);
                }
            }
        };
        Reply { position: Position::default(), outcome, term: 0 }
    }

    fn apply(&mut self, group: u32, request: &Request) -> Reply {
        let key = (group, request.client);
        if request.client != 0 {
            let Some(session) = self.sessions.get_mut(&key) else {
                return Reply { position: Position::default(), outcome: Outcome::SessionExpired, term: 0 };
            };
            session.acknowledged = session.acknowledged.max(request.acknowledged);
            let acknowledged = session.acknowledged;
            session.answers.retain(|&sequence, _| sequence >= acknowledged);
            if let Some(reply) = session.answers.get(&request.sequence) {
                return reply.clone();
            }
            if request.sequence < acknowledged {
                return Reply { position: Position::default(), outcome: Outcome::TooStale, term: 0 };
            }
        }
        self.index += 1;
        let results = request.operations.iter().map(|operation| self.execute(group, operation)).collect();
        let reply = Reply {
            position: Position { group, index: self.index, position: 0 },
            outcome: Outcome::Done(results),
            term: 7,
        };
        if let Some(session) = self.sessions.get_mut(&key).filter(|_| request.client != 0) {
            session.answers.insert(request.sequence, reply.clone());
        }
        reply
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.versions.insert(key.to_vec(), self.index << 16);
        self.store.insert(key.to_vec(), value.to_vec()).is_some()
    }

    fn version(&self, key: &[u8]) -> u64 {
        if self.store.contains_key(key) { self.versions[key] } else { 0 }
    }

    fn execute(&mut self, group: u32, operation: &Operation) -> OperationResult {
        match operation {
            Operation::CompareVersion { key, version, value } => {
                let swapped = self.version(key) == *version;
                match value {
                    Some(value) if swapped => _ = self.set(key, value),
                    None if swapped => _ = self.store.remove(key),
                    _ => {}
                }
                OperationResult::ComparedVersion { swapped, version: self.version(key) }
            }
            Operation::Range { group, start, end, limit, .. } => {
                let inside = |key: &&Vec<u8>| *key >= start && (end.is_empty() || *key < end);
                let here = |key: &&Vec<u8>| slots::group_of_key(key, self.topology.groups) == *group;
                let keys: Vec<_> = self.store.keys().filter(inside).filter(here).collect();
                let mut items = Vec::new();
                for key in keys.iter().take(*limit as usize) {
                    let (value, version) = (Some(&self.store[*key][..]), self.version(key));
                    wire::items::push(&mut items, &wire::items::ItemRef { key, value, version });
                }
                OperationResult::Items { items, more: keys.len() > *limit as usize }
            }
            Operation::Put { key, value } => {
                *self.applied.entry(value.clone()).or_default() += 1;
                OperationResult::Put { replaced: self.set(key, value) }
            }
            Operation::Get { key } => OperationResult::Value(self.store.get(key).cloned()),
            Operation::Delete { key } => OperationResult::Deleted { existed: self.store.remove(key).is_some() },
            Operation::CompareAndSet { key, expected, value } => {
                let current = self.store.get(key).cloned();
                let swapped = current == *expected;
                if swapped {
                    self.set(key, value);
                }
                OperationResult::Compared { swapped, current: if swapped { None } else { current } }
            }
            Operation::OpenSession { .. } => {
                self.sessions.insert((group, self.index), Session::default());
                OperationResult::Session { client: self.index }
            }
        }
    }
}

/// The accepting side of one connection.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    received: Vec<u8>,
    greeted: bool,
}

impl Accepting {
    /// Takes bytes of the client; appends answers. `false`: the connection breaks, after what was answered.
    pub(crate) fn receive(
        &mut self,
        cluster: &mut Cluster,
        node: u64,
        shard: u16,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> bool {
        self.received.extend_from_slice(bytes);
        if !self.greeted {
            let identity = cluster.identity(node, shard);
            match Acceptor::new(&identity).receive(&self.received, || cluster.topology_told(node), out) {
                Ok(None) => return true,
                Ok(Some(accepted)) => {
                    self.received.drain(..accepted.consumed);
                    self.greeted = true;
                }
                Err(_) => return false,
            }
        }
        loop {
            let Some(parsed) = frame::parse(&self.received, &Limits::CLIENT).expect("the client writes frames") else {
                return true;
            };
            let (total, correlation, kind) = (parsed.total_bytes, parsed.correlation, parsed.kind);
            let (reply, broken) = match kind {
                FrameKind::Request if cluster.confused => {
                    wire::append_status_reply(out, correlation, "{}");
                    (None, false)
                }
                FrameKind::Status if cluster.confused => {
                    let outcome = Outcome::Done(vec![OperationResult::Value(None)]);
                    (Some(Reply { position: Position::default(), outcome, term: 0 }), false)
                }
                FrameKind::Watch => {
                    let request = wire::view_watch_request(parsed.head).expect("the client writes watches");
                    cluster.watch(node, &request, correlation, out);
                    (None, false)
                }
                FrameKind::Request => {
                    let view = wire::view_request(parsed.head).expect("the client writes requests");
                    wire::validate_request(view, &Limits::CLIENT).expect("the client checks its requests");
                    let request = owned(view);
                    cluster.request(node, shard, &request)
                }
                FrameKind::Status => {
                    wire::append_status_reply(out, correlation, &format!("{{\"node\":{node},\"shard\":{shard}}}"));
                    (None, false)
                }
                other => panic!("a client sent {other:?}"),
            };
            self.received.drain(..total);
            if let Some(reply) = reply {
                reply.append_frame(out, correlation);
            }
            if broken {
                return false;
            }
        }
    }
}

/// Copies a request out of its archive.
pub(crate) fn owned(view: &wire::ArchivedRequest) -> Request {
    let operations = view.operations().map(Operation::from);
    Request {
        client: view.client.to_native(),
        sequence: view.sequence.to_native(),
        acknowledged: view.acknowledged.to_native(),
        consistency: view.consistency.to_native(),
        operations: operations.collect(),
    }
}
