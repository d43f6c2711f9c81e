//! The client core, a scripted cluster, and the wires between them, for tests: no sockets, no clock.
//!
//! Off the data path.
//!
//! Invariant: time passes only in `World::run`, and then straight to the next moment the core asks for.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../fake/mod.rs"]
pub(crate) mod fake;

use fake::{Accepting, Cluster};
use ringraft_net::client::{Action, Address, ClientError, ConnectionId, Core, Options, Results, Submission};
use ringraft_net::wire::{NodeInfo, Operation, OperationRef, OperationResult, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

pub(crate) type Ended = (u64, Position, Result<Vec<OperationResult>, ClientError>);

/// One connection, seen from the cluster.
pub(crate) struct Socket {
    pub(crate) node: u64,
    pub(crate) shard: u16,
    pub(crate) accepting: Accepting,
    /// Bytes a silent node has not looked at.
    pub(crate) held: Vec<u8>,
}

/// A core, a cluster, and the wires between them.
pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) cluster: Cluster,
    pub(crate) sockets: BTreeMap<ConnectionId, Socket>,
    /// Nodes that take no connections.
    pub(crate) down: BTreeSet<u64>,
    /// Nodes that take connections and bytes, and do nothing.
    pub(crate) silent: BTreeSet<u64>,
    pub(crate) now_us: u64,
    pub(crate) ended: Vec<Ended>,
    pub(crate) statuses: Vec<String>,
    /// Bytes of answers come in pieces of this size.
    pub(crate) piece_bytes: usize,
}

pub(crate) fn address(node: u64, shard: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, node as u8], 7000 + shard))
}

pub(crate) fn options() -> Options {
    Options { endpoints: (1..=3).map(|node| address(node, 0)).collect(), ..Options::default() }
}

impl World {
    pub(crate) fn new(groups: u32, shards: u16, options: Options) -> Self {
        let addresses: Vec<Vec<_>> =
            (1..=3).map(|node| (0..shards).map(|shard| address(node, shard)).collect()).collect();
        Self {
            core: Core::new(options).unwrap(),
            cluster: Cluster::new(groups, &addresses),
            sockets: BTreeMap::new(),
            down: BTreeSet::new(),
            silent: BTreeSet::new(),
            now_us: 1_000,
            ended: Vec::new(),
            statuses: Vec::new(),
            piece_bytes: usize::MAX,
        }
    }

    /// Another topology, of these nodes; the others stop.
    pub(crate) fn change_nodes(&mut self, nodes: &[u64]) {
        let topology = &mut self.cluster.topology;
        let shards = topology.shards;
        let addresses = |node| (0..shards).map(|shard| address(node, shard).to_string()).collect();
        let gone: Vec<_> = topology.nodes.iter().map(|info| info.node).filter(|node| !nodes.contains(node)).collect();
        topology.epoch += 1;
        topology.nodes = nodes.iter().map(|&node| NodeInfo { node, addresses: addresses(node) }).collect();
        for node in gone {
            self.down.insert(node);
            self.cut(node);
        }
    }

    /// Nodes there are connections to.
    pub(crate) fn connected(&self) -> BTreeSet<u64> {
        self.sockets.values().map(|socket| socket.node).collect()
    }

    pub(crate) fn put(&mut self, tag: u64, key: &str) {
        let value = format!("value-{tag}");
        let operation = OperationRef::Put { key: key.as_bytes(), value: value.as_bytes() };
        self.core.submit(&Submission::new(tag, &[operation]), self.now_us).unwrap();
    }

    pub(crate) fn get(&mut self, tag: u64, key: &str) {
        let operation = OperationRef::Get { key: key.as_bytes() };
        self.core.submit(&Submission::new(tag, &[operation]), self.now_us).unwrap();
    }

    /// Everything that can happen without time passing.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut quiet = true;
            while let Some(action) = self.core.poll_action() {
                quiet = false;
                match action {
                    Action::Connect { connection, address } => self.dial(connection, address),
                    Action::Close { connection } => {
                        self.sockets.remove(&connection);
                    }
                }
            }
            while let Some(id) = self.core.next_writable() {
                quiet = false;
                self.deliver(id);
            }
            if quiet {
                break;
            }
        }
        while let Some(completion) = self.core.next_completion() {
            match completion.result {
                Ok(Results::Status(json)) => self.statuses.push(json),
                result => self.ended.push((completion.tag, completion.position, result.map(Results::into_owned))),
            }
        }
    }

    pub(crate) fn dial(&mut self, id: ConnectionId, address: Address) {
        let address = match address {
            Address::Socket(address) => address,
            // The resolver of this world: `10.0.0.1.example` is 10.0.0.1.
            Address::Name(name) => name.replace(".example", "").parse().unwrap(),
        };
        let SocketAddr::V4(v4) = address else { panic!("v4 only") };
        let (node, shard) = (u64::from(v4.ip().octets()[3]), address.port() - 7000);
        if self.down.contains(&node) {
            return self.core.disconnected(id, self.now_us);
        }
        self.sockets.insert(id, Socket { node, shard, accepting: Accepting::default(), held: Vec::new() });
        self.core.connected(id, self.now_us);
    }

    pub(crate) fn deliver(&mut self, id: ConnectionId) {
        let Some(outgoing) = self.core.outgoing(id) else { return };
        let bytes = outgoing.pending().to_vec();
        outgoing.sent(bytes.len());
        let Some(socket) = self.sockets.get_mut(&id) else { return };
        socket.held.extend_from_slice(&bytes);
        if self.silent.contains(&socket.node) {
            return;
        }
        let held = std::mem::take(&mut socket.held);
        let mut answer = Vec::new();
        let alive = socket.accepting.receive(&mut self.cluster, socket.node, socket.shard, &held, &mut answer);
        for piece in answer.chunks(self.piece_bytes) {
            self.core.receive(id, piece, self.now_us);
        }
        if !alive && self.sockets.remove(&id).is_some() {
            self.core.disconnected(id, self.now_us);
        }
    }

    /// Silent nodes look at everything they have not looked at.
    pub(crate) fn wake(&mut self) {
        self.silent.clear();
        let ids: Vec<_> = self.sockets.keys().copied().collect();
        for id in ids {
            self.deliver(id);
        }
    }

    /// Breaks all connections to a node.
    pub(crate) fn cut(&mut self, node: u64) {
        let cut: Vec<_> = self.sockets.iter().filter(|(_, socket)| socket.node == node).map(|(&id, _)| id).collect();
        for id in cut {
            self.sockets.remove(&id);
            self.core.disconnected(id, self.now_us);
        }
    }

    /// Lets time pass until the requests have ended, at most so long.
    pub(crate) fn run(&mut self, microseconds: u64, ended: usize) {
        let until = self.now_us + microseconds;
        self.settle();
        while self.ended.len() < ended && self.now_us < until {
            let next = self.core.next_deadline_us().unwrap_or(until);
            self.now_us = next.clamp(self.now_us + 1, until);
            self.core.tick(self.now_us);
            self.settle();
        }
    }

    pub(crate) fn results(&self) -> BTreeMap<u64, &Result<Vec<OperationResult>, ClientError>> {
        let results: BTreeMap<_, _> = self.ended.iter().map(|(tag, _, result)| (*tag, result)).collect();
        assert_eq!(results.len(), self.ended.len(), "a tag completed twice");
        results
    }

    pub(crate) fn writes(&self) -> Vec<(u64, u64, u64)> {
        let writes = self.cluster.received.iter().filter(|received| {
            matches!(received.request.operations[0], Operation::Put { .. } | Operation::CompareAndSet { .. })
        });
        writes.map(|received| (received.node, received.request.client, received.request.sequence)).collect()
    }
}
