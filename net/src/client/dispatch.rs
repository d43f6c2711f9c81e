//! Dispatch: from a waiting request to bytes of a connection, and from a broken connection back to waiting.
//!
//! Off the data path of a node.
//!
//! Invariants: a request waits on exactly one list (of its group, or of the client while the cluster is unknown) until it
//! can be sent; whatever may unblock a list pumps it: a connection that becomes ready, a session that opens, a window
//! that moves, a leader that is learnt, the end of a pause.
//!
//! It does not look at answers.

use super::{
    Address, ClientError,
    connection::{Connection, State},
    core::{Action, ConnectionId, Core},
    routing::NO_ENDPOINT,
    session::{self, Numbers},
    slab::{Kind, List, Place},
};
use crate::{
    frame,
    handshake::{ANY_CLUSTER, Dialer},
    link::{ceiling_us, jittered_us},
    wire::{self, Consistency, OperationRef, RequestRef},
};

/// Redirects in a row that are followed at once; then with pauses.
pub(super) const REDIRECTS_AT_ONCE: u32 = 4;
/// Attempts in vain to reach a node until the client asks whether it still is a node of the cluster.
const ATTEMPTS_UNTIL_LOOK: u32 = 8;
/// Connections at once: their places fit 16 bits.
const CONNECTIONS_MAX: usize = 1 << 16;

/// Whether a write has what it needs to be sent.
enum Prepared {
    Yes,
    Blocked,
    Gone,
}

impl Core {
    /// Session numbers for a new write if it can be sent before all that wait.
    #[inline]
    pub(super) fn numbers_at_once(&mut self, group: u32, now_us: u64) -> Option<Numbers> {
        let state = &mut self.routing.groups[group as usize];
        if !self.options.sessions || !state.writes.is_empty() || now_us < state.paused_until_us {
            return None;
        }
        state.session.assign(self.options.session_window_max)
    }

    /// A new request: sends it, or puts it where it waits.
    #[inline]
    pub(super) fn first_try(&mut self, index: u32, known: bool, now_us: u64) {
        if !known {
            self.slab.get_mut(index).place = Place::Unrouted;
            self.slab.push_back(&mut self.unrouted, index);
            self.bootstrap(now_us);
            return;
        }
        let slot = self.slab.get(index);
        let (kind, group) = (slot.kind, slot.group);
        let numbered = kind != Kind::Write || slot.sequence != 0 || !self.options.sessions;
        let free = match kind {
            Kind::Status => true,
            Kind::StaleRead | Kind::ReplicaRead => true,
            Kind::Read => self.is_first(group, |state| state.reads, now_us),
            Kind::Write | Kind::OpenSession => self.is_first(group, |state| state.writes, now_us),
        };
        if !(free && numbered && self.send(index, now_us)) {
            self.wait(index, false);
            if kind == Kind::Status {
                self.pump_statuses(now_us);
            } else {
                self.pump(group, now_us);
            }
        }
    }

    #[inline]
    fn is_first(&self, group: u32, list: impl Fn(&super::routing::Group) -> List, now_us: u64) -> bool {
        let state = &self.routing.groups[group as usize];
        now_us >= state.paused_until_us && list(state).is_empty()
    }

    /// Puts a request that is on no list on the one where it waits.
    pub(super) fn wait(&mut self, index: u32, front: bool) {
        let slot = self.slab.get_mut(index);
        slot.place = Place::Waiting;
        let (kind, group) = (slot.kind, slot.group as usize);
        let list = match kind {
            Kind::Status => &mut self.statuses,
            Kind::Read => &mut self.routing.groups[group].reads,
            Kind::StaleRead | Kind::ReplicaRead => &mut self.routing.groups[group].replica_reads,
            Kind::Write => &mut self.routing.groups[group].writes,
            Kind::OpenSession => &mut self.routing.groups[group].opening,
        };
        if front { self.slab.push_front(list, index) } else { self.slab.push_back(list, index) }
    }

    /// Takes a waiting, unrouted or sent request from its list.
    #[inline]
    pub(super) fn unlist(&mut self, index: u32) {
        let slot = self.slab.get(index);
        let (kind, group) = (slot.kind, slot.group as usize);
        let list = match slot.place {
            Place::Free => return,
            Place::Unrouted => &mut self.unrouted,
            Place::Sent { connection } | Place::Abandoned { connection } => {
                &mut self.connections[connection as usize].sent
            }
            Place::Waiting => match kind {
                Kind::Status => &mut self.statuses,
                Kind::Read => &mut self.routing.groups[group].reads,
                Kind::StaleRead | Kind::ReplicaRead => &mut self.routing.groups[group].replica_reads,
                Kind::Write => &mut self.routing.groups[group].writes,
                Kind::OpenSession => &mut self.routing.groups[group].opening,
            },
        };
        self.slab.remove(list, index);
    }

    /// Sends what waits for a group, as far as it can be sent.
    pub(super) fn pump(&mut self, group: u32, now_us: u64) {
        let state = &self.routing.groups[group as usize];
        if now_us < state.paused_until_us {
            let until = state.paused_until_us;
            self.note_timer(until);
            return;
        }
        self.pump_opening(group, now_us);
        self.pump_replica_reads(group, now_us);
        while let Some(index) = self.routing.groups[group as usize].reads.front() {
            if !self.send_waiting(index, now_us) {
                break;
            }
        }
        while let Some(index) = self.routing.groups[group as usize].writes.front() {
            match self.prepare(index, now_us) {
                Prepared::Gone => {}
                Prepared::Blocked => break,
                Prepared::Yes if self.send_waiting(index, now_us) => {}
                Prepared::Yes => break,
            }
        }
    }

    /// Whatever the first can not be sent to, nor can those behind it, once each node had its turn.
    fn pump_replica_reads(&mut self, group: u32, now_us: u64) {
        let mut turns = self.routing.nodes.len();
        while turns > 0
            && let Some(index) = self.routing.groups[group as usize].replica_reads.front()
        {
            turns = if self.send_waiting(index, now_us) { self.routing.nodes.len() } else { turns - 1 };
        }
    }

    fn pump_opening(&mut self, group: u32, now_us: u64) {
        let Some(index) = self.routing.groups[group as usize].opening.front() else { return };
        if self.routing.groups[group as usize].writes.is_empty() {
            // Nobody needs the session any more.
            self.unlist(index);
            self.fail(index, ClientError::DeadlineExceeded { outcome_unknown: false });
        } else {
            self.send_waiting(index, now_us);
        }
    }

    pub(super) fn pump_statuses(&mut self, now_us: u64) {
        let mut next = self.statuses.front();
        while let Some(index) = next {
            // Each is for a shard of its own: one that cannot be reached keeps none from the others.
            next = self.slab.after(index);
            self.send_waiting(index, now_us);
        }
    }

    /// Sends a waiting request; `false`: it stays where it is.
    fn send_waiting(&mut self, index: u32, now_us: u64) -> bool {
        let Some(place) = self.choose(index, now_us) else { return false };
        self.unlist(index);
        self.transmit(index, place, now_us);
        true
    }

    /// Sends a request that is on no list; `false`: it is on none still.
    #[inline]
    fn send(&mut self, index: u32, now_us: u64) -> bool {
        let Some(place) = self.choose(index, now_us) else { return false };
        self.transmit(index, place, now_us);
        true
    }

    #[inline]
    fn transmit(&mut self, index: u32, place: u32, now_us: u64) {
        let correlation = self.slab.next_correlation(index);
        let slot = self.slab.get_mut(index);
        frame::set_correlation(&mut slot.frame, correlation);
        let connection = &mut self.connections[place as usize];
        slot.place = Place::Sent { connection: place };
        slot.sent_us = now_us;
        slot.stream_offset = connection.outgoing.end_total();
        connection.outgoing.tail().extend_from_slice(&slot.frame);
        self.slab.push_back(&mut connection.sent, index);
        self.statistics.sends += 1;
        self.mark_writable(place);
        self.note_timer(now_us + self.times.stall_us);
    }

    #[inline]
    pub(super) fn mark_writable(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        if !connection.writable {
            connection.writable = true;
            let id = self.id_of(place);
            self.writable.push_back(id);
        }
    }

    /// A ready connection to send a request on, or steps towards one.
    #[inline]
    fn choose(&mut self, index: u32, now_us: u64) -> Option<u32> {
        let slot = self.slab.get(index);
        let endpoint = match slot.kind {
            Kind::Status => {
                let (node, shard) = slot.asked;
                self.routing.find(node, shard)?
            }
            Kind::StaleRead | Kind::ReplicaRead => {
                self.stale_turn += 1;
                let shard = self.routing.groups[slot.group as usize].shard;
                // Whoever could not answer is not asked again.
                let near = self.options.near.filter(|_| slot.sent_us == 0);
                let near = near.and_then(|node| self.routing.place_of(node));
                let turn = near.unwrap_or(self.stale_turn % self.routing.nodes.len());
                let any = self.routing.endpoint_of(turn, shard);
                if let Some(place) = self.ready_connection(any, now_us) {
                    return Some(place);
                }
                self.routing.target(self.slab.get(index).group)
            }
            Kind::Read | Kind::Write | Kind::OpenSession => self.routing.target(slot.group),
        };
        self.ready_connection(endpoint, now_us)
    }

    /// The next ready connection of an endpoint; opens those that are missing.
    #[inline]
    fn ready_connection(&mut self, endpoint: u32, now_us: u64) -> Option<u32> {
        let state = &mut self.routing.endpoints[endpoint as usize];
        if state.connections.len() < self.options.connections {
            self.open_connections(endpoint, now_us);
        }
        let state = &mut self.routing.endpoints[endpoint as usize];
        for _ in 0..state.connections.len() {
            state.turn += 1;
            if state.turn >= state.connections.len() {
                state.turn = 0;
            }
            let place = state.connections[state.turn];
            if self.connections[place as usize].state == State::Ready {
                return Some(place);
            }
        }
        None
    }

    fn open_connections(&mut self, endpoint: u32, now_us: u64) {
        let state = &self.routing.endpoints[endpoint as usize];
        let Some(address) = state.address.clone() else {
            self.problem = Some(format!("shard {} of node {} has no usable address", state.shard, state.node));
            return;
        };
        if now_us < state.retry_at_us {
            let at = state.retry_at_us;
            self.note_timer(at);
            return;
        }
        let cluster = self.routing.cluster.unwrap_or(ANY_CLUSTER);
        let dialer = Dialer::client(cluster, state.node, state.shard);
        let missing = self.options.connections - state.connections.len();
        for _ in 0..missing {
            let Some(place) = self.open(address.clone(), endpoint, dialer.clone(), now_us) else { return };
            self.routing.endpoints[endpoint as usize].connections.push(place);
        }
    }

    pub(super) fn open(&mut self, address: Address, endpoint: u32, dialer: Dialer, now_us: u64) -> Option<u32> {
        let place = match self.free_connections.pop() {
            Some(place) => {
                self.connections[place as usize].reuse(address.clone(), endpoint, dialer, now_us);
                place
            }
            None if self.connections.len() >= CONNECTIONS_MAX => return None,
            None => {
                self.connections.push(Connection::new(address.clone(), endpoint, dialer, now_us));
                (self.connections.len() - 1) as u32
            }
        };
        self.statistics.connects += 1;
        self.actions.push_back(Action::Connect { connection: self.id_of(place), address });
        self.note_timer(now_us + self.times.connect_us);
        Some(place)
    }

    /// Gives a write its session numbers if it needs them.
    fn prepare(&mut self, index: u32, now_us: u64) -> Prepared {
        if !self.options.sessions {
            return Prepared::Yes;
        }
        let slot = self.slab.get_mut(index);
        let group = slot.group;
        let session = &mut self.routing.groups[group as usize].session;
        if slot.sequence != 0 {
            if session.is_current(slot.session_generation) {
                return Prepared::Yes;
            }
            if slot.maybe_applied {
                self.unlist(index);
                self.fail(index, ClientError::SessionExpired);
                return Prepared::Gone;
            }
            slot.sequence = 0;
        }
        if let Some(numbers) = session.assign(self.options.session_window_max) {
            slot.sequence = numbers.sequence;
            slot.session_generation = numbers.generation;
            wire::set_session(&mut slot.frame, numbers.client, numbers.sequence, numbers.acknowledged);
            return Prepared::Yes;
        }
        if session.state == session::State::Closed {
            self.open_session(group, now_us);
        }
        Prepared::Blocked
    }

    fn open_session(&mut self, group: u32, now_us: u64) {
        let Some(index) = self.slab.take(0, Kind::OpenSession, u64::MAX) else { return };
        self.routing.groups[group as usize].session.state = session::State::Opening;
        let operations = [OperationRef::OpenSession { group }];
        let request = RequestRef {
            client: 0,
            sequence: 0,
            acknowledged: 0,
            consistency: Consistency::Linearizable,
            operations: &operations,
        };
        let slot = self.slab.get_mut(index);
        slot.group = group;
        let bytes = request.append_frame(&mut slot.frame, 0);
        self.slab.pending_bytes += bytes;
        if !self.send(index, now_us) {
            self.wait(index, false);
        }
    }

    /// Nothing is sent to a group for a while, longer each time, and for `at_least_us` whatever pause runs already.
    pub(super) fn pause(&mut self, group: u32, at_least_us: u64, now_us: u64) {
        let state = &mut self.routing.groups[group as usize];
        if now_us < state.paused_until_us {
            state.paused_until_us = state.paused_until_us.max(now_us + at_least_us);
            return;
        }
        let ceiling = ceiling_us(self.times.backoff_min_us, self.times.backoff_max_us, state.attempts).max(at_least_us);
        state.attempts += 1;
        state.paused_until_us = now_us + jittered_us(ceiling, &mut self.random).max(at_least_us);
        let until = state.paused_until_us;
        self.note_timer(until);
    }

    /// The place asked (an endpoint) does not lead the group, and says who does.
    pub(super) fn redirect(&mut self, group: u32, asked: u32, leader: Option<u64>, now_us: u64) {
        self.statistics.redirects += 1;
        if leader.is_some_and(|node| self.routing.place_of(node).is_none()) {
            self.look_again(now_us);
        }
        let hint = leader
            .and_then(|node| self.routing.place_of(node))
            .filter(|&place| self.is_worth_asking(place, group, asked));
        let Some(place) = hint else {
            self.routing.forget_leader(group, asked);
            return self.pause(group, 0, now_us);
        };
        let state = &mut self.routing.groups[group as usize];
        if state.leader == Some(place) {
            return;
        }
        state.leader = Some(place);
        state.guess = place;
        if state.attempts < REDIRECTS_AT_ONCE {
            state.attempts += 1;
        } else {
            self.pause(group, 0, now_us);
        }
    }

    /// Not the one that was asked, and not one that lately could not be reached.
    fn is_worth_asking(&self, place: usize, group: u32, asked: u32) -> bool {
        let endpoint = self.routing.endpoint_of(place, self.routing.groups[group as usize].shard);
        let state = &self.routing.endpoints[endpoint as usize];
        let reachable = state.attempts == 0
            || state.connections.iter().any(|&place| self.connections[place as usize].state == State::Ready);
        endpoint != asked && reachable
    }

    /// Sends whatever waits anywhere, as far as it can be sent.
    pub(super) fn pump_all(&mut self, now_us: u64) {
        for group in 0..self.routing.groups.len() {
            if !self.routing.groups[group].is_quiet() {
                self.pump(group as u32, now_us);
            }
        }
        self.pump_statuses(now_us);
    }

    /// The driver's socket is connected.
    pub fn connected(&mut self, connection: ConnectionId, now_us: u64) {
        let Some(place) = self.place_of(connection) else { return };
        let state = &mut self.connections[place as usize];
        if state.state != State::Connecting {
            return;
        }
        state.state = State::Greeting;
        state.heard_us = now_us;
        let dialer = state.dialer.clone();
        dialer.start(state.outgoing.tail());
        self.mark_writable(place);
        self.note_timer(now_us + self.times.connect_us);
    }

    /// The driver's socket could not connect, or broke. It is gone.
    pub fn disconnected(&mut self, connection: ConnectionId, now_us: u64) {
        if let Some(place) = self.place_of(connection) {
            self.lose(place, now_us);
        }
    }

    /// The core gives a connection up.
    pub(super) fn give_up(&mut self, place: u32, problem: &str, now_us: u64) {
        self.problem = Some(format!("{}: {problem}", self.connections[place as usize].address));
        self.actions.push_back(Action::Close { connection: self.id_of(place) });
        self.lose(place, now_us);
    }

    fn lose(&mut self, place: u32, now_us: u64) {
        let was_ready = self.connections[place as usize].state == State::Ready;
        let endpoint = self.connections[place as usize].endpoint;
        self.free(place);
        if self.bootstrap.connection == Some(place) {
            self.lose_bootstrap(now_us);
        }
        if endpoint == NO_ENDPOINT {
            self.pump_all(now_us);
        } else {
            self.lose_endpoint(endpoint, place, was_ready, now_us);
        }
    }

    /// A connection is no more: what was sent on it and not answered is recovered.
    pub(super) fn free(&mut self, place: u32) {
        self.statistics.breaks += u64::from(self.connections[place as usize].state == State::Ready);
        while let Some(index) = self.connections[place as usize].sent.back() {
            self.unlist(index);
            self.recover(index, place);
        }
        self.connections[place as usize].state = State::Free;
        self.free_connections.push(place);
    }

    /// A request whose connection broke: again, or its outcome is unknown.
    fn recover(&mut self, index: u32, place: u32) {
        let sent_total = self.connections[place as usize].outgoing.sent_total();
        let slot = self.slab.get_mut(index);
        if matches!(slot.place, Place::Abandoned { .. }) {
            return self.release(index);
        }
        if slot.kind == Kind::Write && sent_total > slot.stream_offset {
            slot.maybe_applied = true;
            if slot.sequence == 0 {
                return self.fail(index, ClientError::OutcomeUnknown);
            }
        }
        self.statistics.retries += 1;
        self.wait(index, true);
    }

    fn lose_endpoint(&mut self, endpoint: u32, place: u32, was_ready: bool, now_us: u64) {
        let (min_us, max_us) = (self.times.backoff_min_us, self.times.backoff_max_us);
        let state = &mut self.routing.endpoints[endpoint as usize];
        state.connections.retain(|&other| other != place);
        state.attempts = if was_ready { 0 } else { state.attempts };
        let ceiling = ceiling_us(min_us, max_us, state.attempts);
        state.attempts += 1;
        state.retry_at_us = now_us + jittered_us(ceiling, &mut self.random);
        let (retry_at_us, attempts) = (state.retry_at_us, state.attempts);
        self.note_timer(retry_at_us);
        if attempts % ATTEMPTS_UNTIL_LOOK == 0 {
            self.look_again(now_us);
        }
        let others = &self.routing.endpoints[endpoint as usize].connections;
        if !others.iter().any(|&other| self.connections[other as usize].state == State::Ready) {
            for group in 0..self.routing.groups.len() as u32 {
                if self.routing.target(group) == endpoint {
                    self.routing.forget_leader(group, endpoint);
                }
            }
        }
        self.pump_all(now_us);
    }
}
