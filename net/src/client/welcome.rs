//! Welcome: how the client finds its cluster, and follows it when nodes come and go.
//!
//! Off the data path of a node.
//!
//! Every node that welcomes a connection shows the topology it knows. One with a higher epoch than the client's takes its
//! place: new nodes can be asked, connections to nodes that are gone are closed. What makes the client look again, by a
//! connection of its own to any node:
//!
//! ```text
//!   nothing known yet ─────────────────────────┐
//!   the caller asks for an unknown node ───────┤
//!   NotLeader or Moved names an unknown node ──┼──▶ wanted ── pause over ──▶ Hello ──▶ Welcome ── newer ──▶ replace
//!   a node could not be reached several times ─┤       ▲                                  └─ same or older: longer pause
//!   a caller that only listens asks to look ───┘       └── no answer: the next node
//! ```
//!
//! Invariants: the epoch never goes back; groups and shards never change; a request in flight to a node that is gone is
//! treated as on a broken connection; however often it is wanted, there is one look at a time, with growing pauses.
//!
//! It does not look again by itself: while nothing goes wrong, nothing is asked.

use super::{
    Address, ClientError,
    connection::State,
    core::{Action, Core},
    routing::NO_ENDPOINT,
    slab::{Kind, List},
};
use crate::{
    frame,
    handshake::{ANY_CLUSTER, ANY_NODE, ANY_SHARD, Dialer, HandshakeError},
    link::{ceiling_us, jittered_us},
    wire::{self, RefusalCode, Topology, Welcome},
};

impl Core {
    /// Looks for the cluster, unless it is known or looked for already.
    pub(super) fn bootstrap(&mut self, now_us: u64) {
        if !self.routing.is_known() {
            self.look_again(now_us);
        }
    }

    /// Asks some node for the topology, unless one told it within the last `fresh_us`: for a caller that hears of other
    /// nodes in no other way, because it sends no requests.
    pub fn look(&mut self, fresh_us: u64, now_us: u64) {
        if !self.routing.is_known() || now_us.saturating_sub(self.bootstrap.told_at_us) >= fresh_us {
            self.look_again(now_us);
        }
    }

    /// Asks some node for the topology, now or when the pause is over.
    pub(super) fn look_again(&mut self, now_us: u64) {
        self.bootstrap.wanted = true;
        if self.bootstrap.connection.is_some() {
            return;
        }
        if now_us < self.bootstrap.retry_at_us {
            self.note_timer(self.bootstrap.retry_at_us);
            return;
        }
        let address = self.someone();
        let cluster = self.routing.cluster.or(self.options.cluster).unwrap_or(ANY_CLUSTER);
        let dialer = Dialer::client(cluster, ANY_NODE, ANY_SHARD);
        self.bootstrap.connection = self.open(address, NO_ENDPOINT, dialer, now_us);
    }

    /// Whom to ask next: first those that are connected, then in turn all that are known and all that were given.
    fn someone(&mut self) -> Address {
        let turn = self.bootstrap.next_endpoint;
        self.bootstrap.next_endpoint += 1;
        let is_ready = |place: &u32| self.connections[*place as usize].state == State::Ready;
        let endpoints = &self.routing.endpoints;
        if self.bootstrap.attempts.is_multiple_of(2) {
            let ready = || endpoints.iter().filter(|endpoint| endpoint.connections.iter().any(is_ready));
            let chosen = ready().nth(turn % ready().count().max(1));
            if let Some(address) = chosen.and_then(|endpoint| endpoint.address.clone()) {
                return address;
            }
        }
        let known =
            endpoints.iter().filter(|endpoint| endpoint.shard == 0).filter_map(|endpoint| endpoint.address.clone());
        let all: Vec<_> = known.chain(self.options.endpoints.iter().copied().map(Address::from)).collect();
        all[turn % all.len()].clone()
    }

    /// The look did not bring anything new: the next one is later.
    pub(super) fn lose_bootstrap(&mut self, now_us: u64) {
        self.bootstrap.connection = None;
        let ceiling = ceiling_us(self.times.backoff_min_us, self.times.backoff_max_us, self.bootstrap.attempts);
        self.bootstrap.attempts = self.bootstrap.attempts.saturating_add(1);
        self.bootstrap.retry_at_us = now_us + jittered_us(ceiling, &mut self.random);
        self.note_timer(self.bootstrap.retry_at_us);
    }

    /// Reads the answer to `Hello`; how many bytes it was.
    pub(super) fn greet(&mut self, place: u32, bytes: &[u8], now_us: u64) -> Result<usize, String> {
        let connection = &self.connections[place as usize];
        let first = connection.endpoint == NO_ENDPOINT;
        match connection.dialer.receive(bytes) {
            Ok(None) => Ok(0),
            Ok(Some((welcome, consumed))) => {
                self.welcomed(place, first, &welcome, now_us)?;
                Ok(consumed)
            }
            Err(error) => {
                if let (true, HandshakeError::Refused(refused) | HandshakeError::Mismatch(refused)) = (first, &error)
                    && matches!(refused.code, RefusalCode::Protocol | RefusalCode::Cluster)
                {
                    let refusal = ClientError::Refused { code: refused.code, message: refused.message.clone() };
                    self.fail_unrouted(&refusal);
                    self.refusal = Some(refusal);
                }
                Err(error.to_string())
            }
        }
    }

    fn welcomed(&mut self, place: u32, first: bool, welcome: &Welcome, now_us: u64) -> Result<(), String> {
        let newer = self.learn(welcome, place)?;
        self.bootstrap.told_at_us = now_us;
        if first {
            self.bootstrap.wanted = false;
            if newer {
                self.bootstrap.connection = None;
                self.bootstrap.attempts = 0;
            } else {
                self.lose_bootstrap(now_us);
            }
        }
        // What it showed may have another address for its node: then it is one of a look too.
        let homeless = self.connections[place as usize].endpoint == NO_ENDPOINT;
        if !homeless || self.keep(place, welcome) {
            let connection = &mut self.connections[place as usize];
            connection.state = State::Ready;
            let endpoint = connection.endpoint as usize;
            self.routing.endpoints[endpoint].attempts = 0;
            self.routing.endpoints[endpoint].retry_at_us = 0;
        }
        self.route_all(now_us);
        self.pump_all(now_us);
        Ok(())
    }

    /// Takes over what a welcome shows as far as it is new; whether its nodes were.
    fn learn(&mut self, welcome: &Welcome, place: u32) -> Result<bool, String> {
        let topology = &welcome.topology;
        if self.routing.is_known() && topology.epoch <= self.routing.epoch {
            self.routing.learn_leaders(&topology.leaders);
            return Ok(false);
        }
        if !self.routing.is_known() {
            let sensible = self.routing.learn(welcome.cluster, topology);
            return sensible.then_some(true).ok_or_else(|| String::from("the topology it shows makes no sense"));
        }
        if !self.routing.can_follow(topology) {
            return Err(String::from("the topology it shows does not follow from the one of before"));
        }
        self.follow(topology, place);
        if self.routing.find(welcome.node, welcome.shard).is_none() {
            return Err(String::from("it is not part of the topology it shows"));
        }
        Ok(true)
    }

    /// Other nodes: connections to those that are gone end, but for `kept`, whose own end is up to its caller.
    fn follow(&mut self, topology: &Topology, kept: u32) {
        self.statistics.topologies += 1;
        let moves = self.routing.follow(topology);
        for place in 0..self.connections.len() as u32 {
            let connection = &mut self.connections[place as usize];
            if connection.state == State::Free || connection.endpoint == NO_ENDPOINT {
                continue;
            }
            match moves[connection.endpoint as usize] {
                Some(endpoint) => {
                    connection.endpoint = endpoint;
                    self.routing.endpoints[endpoint as usize].connections.push(place);
                }
                None if place == kept => connection.endpoint = NO_ENDPOINT,
                None => {
                    connection.endpoint = NO_ENDPOINT;
                    self.actions.push_back(Action::Close { connection: self.id_of(place) });
                    self.free(place);
                }
            }
        }
        self.fail_statuses_of_strangers();
    }

    /// The connection of a look becomes one of the node's if it lacks one; else it is closed.
    fn keep(&mut self, place: u32, welcome: &Welcome) -> bool {
        let missing = self
            .routing
            .find(welcome.node, welcome.shard)
            .filter(|endpoint| self.routing.endpoints[*endpoint as usize].connections.len() < self.options.connections);
        if let Some(endpoint) = missing {
            self.connections[place as usize].endpoint = endpoint;
            self.routing.endpoints[endpoint as usize].connections.push(place);
            return true;
        }
        self.actions.push_back(Action::Close { connection: self.id_of(place) });
        self.free(place);
        false
    }

    fn fail_statuses_of_strangers(&mut self) {
        let mut kept = List::new();
        while let Some(index) = self.statuses.front() {
            self.unlist(index);
            let (node, shard) = self.slab.get(index).asked;
            if self.routing.find(node, shard).is_some() {
                self.slab.push_back(&mut kept, index);
            } else {
                self.fail(index, no_such_shard(node, shard));
            }
        }
        self.statuses = kept;
    }

    /// The cluster is known: requests that waited for that get their group.
    fn route_all(&mut self, now_us: u64) {
        while let Some(index) = self.unrouted.front() {
            self.unlist(index);
            let slot = self.slab.get_mut(index);
            if slot.kind == Kind::Status {
                let (node, shard) = slot.asked;
                if self.routing.find(node, shard).is_none() {
                    self.fail(index, no_such_shard(node, shard));
                    continue;
                }
            } else {
                let head = &slot.frame[frame::HEADER_BYTES..];
                let group = wire::view_request(head).map_err(|error| error.to_string()).and_then(|request| {
                    wire::group_of_request(request, self.routing.groups.len() as u32).map_err(|error| error.to_string())
                });
                match group {
                    Ok(group) => slot.group = group,
                    Err(message) => {
                        self.fail(index, ClientError::BadRequest { message });
                        continue;
                    }
                }
            }
            self.first_try(index, true, now_us);
        }
    }

    fn fail_unrouted(&mut self, error: &ClientError) {
        while let Some(index) = self.unrouted.front() {
            self.unlist(index);
            self.fail(index, error.clone());
        }
    }
}

pub(super) fn no_such_shard(node: u64, shard: u16) -> ClientError {
    ClientError::BadRequest { message: format!("there is no shard {shard} of node {node}") }
}
