//! Core: the client without I/O and clock. What it is asked, what it holds; the steps are in the neighbour files.
//!
//! Off the data path of a node.
//!
//! The duty of a driver, after every call that may have changed something:
//! 1. [`Core::poll_action`] until `None`: open and close sockets, report [`Core::connected`] and [`Core::disconnected`];
//! 2. [`Core::next_writable`] until `None`: send [`Core::outgoing`], report what was sent by `SendBuffer::sent`; what a
//!    socket does not take is sent when it is writable again;
//! 3. [`Core::next_completion`] until `None`;
//! 4. bytes received go to [`Core::receive`]; at [`Core::next_deadline_us`] at the latest, [`Core::tick`].
//!
//! Time is microseconds since any fixed moment and never goes back.
//!
//! Invariants: in steady state a request allocates nothing: its frame is written into its slot's buffer, copied once into
//! the connection's, and its answer into the completions' buffer.
//!
//! It resolves no names and opens no sockets.

use super::{
    Address, ClientError, IN_FLIGHT_MAX, Options, OptionsError,
    completion::{Completion, Completions},
    connection::{Connection, State},
    routing::Routing,
    slab::{Kind, List, Place, Slab},
    welcome::no_such_shard,
};
use crate::{
    buffer::SendBuffer,
    slots,
    wire::{self, Consistency, OperationRef, RequestClass, RequestRef},
};
use rand::{SeedableRng, rngs::SmallRng};
use std::{collections::VecDeque, time::Duration};

/// Names a connection between the core and its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u32);

impl ConnectionId {
    /// A small number, unique among the connections that are open: for tables of the driver.
    #[must_use]
    pub fn place(self) -> usize {
        (self.0 & 0xffff) as usize
    }
}

/// What the driver has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a socket; report `connected` or `disconnected`.
    Connect {
        /// Its name from now on.
        connection: ConnectionId,
        /// Where to.
        address: Address,
    },
    /// Close the socket; nothing is reported for it any more.
    Close {
        /// Which.
        connection: ConnectionId,
    },
}

/// What a caller wants done.
#[derive(Clone, Copy, Debug)]
pub struct Submission<'a> {
    /// Comes back with the completion.
    pub tag: u64,
    /// What to do, all or nothing; all keys in one group.
    pub operations: &'a [OperationRef<'a>],
    /// For requests that only read.
    pub consistency: Consistency,
    /// How old what a stale read returns may be; 0: as old as it is.
    pub max_staleness_ms: u32,
    /// When it ends at the latest; `None`: after the client's `request_timeout`.
    pub deadline_us: Option<u64>,
}

impl<'a> Submission<'a> {
    /// Linearizable, with the client's timeout.
    #[must_use]
    pub fn new(tag: u64, operations: &'a [OperationRef<'a>]) -> Self {
        Self { tag, operations, consistency: Consistency::Linearizable, max_staleness_ms: 0, deadline_us: None }
    }
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreStatistics {
    /// Requests sent, every try counted.
    pub sends: u64,
    /// Requests put back to be sent again.
    pub retries: u64,
    /// Answers that named another place to ask.
    pub redirects: u64,
    /// Connections asked for.
    pub connects: u64,
    /// Connections that were ready and broke.
    pub breaks: u64,
    /// Sessions opened.
    pub sessions: u64,
    /// Times that other nodes were learnt.
    pub topologies: u64,
}

/// Durations of the options, as numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) request_us: u64,
    pub(super) connect_us: u64,
    pub(super) stall_us: u64,
    pub(super) backoff_min_us: u64,
    pub(super) backoff_max_us: u64,
}

/// The connection that looks for the cluster, or whether its nodes have changed.
#[derive(Debug, Default)]
pub(super) struct Bootstrap {
    pub(super) connection: Option<u32>,
    pub(super) next_endpoint: usize,
    pub(super) attempts: u32,
    pub(super) retry_at_us: u64,
    pub(super) wanted: bool,
    /// When a node last showed a topology that makes sense.
    pub(super) told_at_us: u64,
}

/// The client. See the head of this file for the duty of its driver.
#[derive(Debug)]
pub struct Core {
    pub(super) options: Options,
    pub(super) times: Times,
    pub(super) routing: Routing,
    pub(super) slab: Slab,
    /// Submissions in the slab; the rest are the client's own.
    pub(super) submitted: usize,
    pub(super) unrouted: List,
    pub(super) statuses: List,
    pub(super) connections: Vec<Connection>,
    pub(super) free_connections: Vec<u32>,
    pub(super) actions: VecDeque<Action>,
    pub(super) writable: VecDeque<ConnectionId>,
    pub(super) completions: Completions,
    pub(super) bootstrap: Bootstrap,
    pub(super) stale_turn: usize,
    pub(super) random: SmallRng,
    pub(super) timer_us: u64,
    pub(super) problem: Option<String>,
    pub(super) refusal: Option<ClientError>,
    pub(super) statistics: CoreStatistics,
}

/// Slots of the slab: submissions, and one opening of a session per group.
const SLAB_CAPACITY: usize = 1 << 16;
const _: () = assert!(IN_FLIGHT_MAX + slots::SLOTS as usize <= SLAB_CAPACITY);

impl Core {
    /// A client that has not begun: the first submission or [`Core::start`] makes it connect.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn new(options: Options) -> Result<Self, OptionsError> {
        options.validate()?;
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Ok(Self {
            times: Times {
                request_us: micros(options.request_timeout),
                connect_us: micros(options.connect_timeout),
                stall_us: micros(options.stall_timeout),
                backoff_min_us: micros(options.backoff_min),
                backoff_max_us: micros(options.backoff_max),
            },
            routing: Routing::default(),
            slab: Slab::new(SLAB_CAPACITY),
            submitted: 0,
            unrouted: List::new(),
            statuses: List::new(),
            connections: Vec::new(),
            free_connections: Vec::new(),
            actions: VecDeque::new(),
            writable: VecDeque::new(),
            completions: Completions::default(),
            bootstrap: Bootstrap::default(),
            stale_turn: 0,
            random: SmallRng::seed_from_u64(options.seed),
            timer_us: u64::MAX,
            problem: None,
            refusal: None,
            statistics: CoreStatistics::default(),
            options,
        })
    }

    /// Begins to look for the cluster before the first submission.
    pub fn start(&mut self, now_us: u64) {
        self.bootstrap(now_us);
    }

    /// The cluster is known: its groups, shards and nodes.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.routing.is_known()
    }

    /// Number of groups, 0 while unknown.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.routing.groups.len() as u32
    }

    /// Number of shards of each node, 0 while unknown.
    #[must_use]
    pub fn shards(&self) -> u16 {
        self.routing.shards
    }

    /// The nodes, none while unknown.
    #[must_use]
    pub fn nodes(&self) -> &[u64] {
        &self.routing.nodes
    }

    /// Where each shard of each node listens, as far as it can be connected to; none while unknown.
    pub fn addresses(&self) -> impl Iterator<Item = ((u64, u16), &Address)> {
        let endpoints = self.routing.endpoints.iter();
        endpoints.filter_map(|endpoint| Some(((endpoint.node, endpoint.shard), endpoint.address.as_ref()?)))
    }

    /// Number of the topology, 0 while unknown.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.routing.epoch
    }

    /// The cluster's id, `None` while unknown.
    #[must_use]
    pub fn cluster(&self) -> Option<[u8; 16]> {
        self.routing.cluster
    }

    /// Who leads a group, as far as this client knows.
    #[must_use]
    pub fn leader(&self, group: u32) -> Option<u64> {
        let place = self.routing.groups.get(group as usize)?.leader?;
        self.routing.nodes.get(place).copied()
    }

    /// The latest thing that went wrong with a connection, for people.
    #[must_use]
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Set when the first node that answered does not want this client: nothing can succeed until that changes.
    #[must_use]
    pub fn refusal(&self) -> Option<&ClientError> {
        self.refusal.as_ref().filter(|_| !self.routing.is_known())
    }

    /// Counters.
    #[must_use]
    pub fn statistics(&self) -> CoreStatistics {
        self.statistics
    }

    /// Submissions that are not completed, and completions nobody has taken.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.submitted + self.completions.len()
    }

    /// Takes a request. It completes once, under its tag, unless this returns an error.
    ///
    /// # Errors
    /// [`ClientError::BadRequest`], [`ClientError::Overloaded`].
    pub fn submit(&mut self, submission: &Submission<'_>, now_us: u64) -> Result<(), ClientError> {
        let kind = self.classify(submission)?;
        let known = self.routing.is_known();
        let operations = submission.operations;
        let group = if known { wire::group_of_operations(operations.iter().copied(), self.groups())? } else { 0 };
        let deadline_us = submission.deadline_us.unwrap_or(now_us.saturating_add(self.times.request_us));
        let index = self.take_slot(submission.tag, kind, deadline_us)?;
        let numbers = if known && kind == Kind::Write { self.numbers_at_once(group, now_us) } else { None };
        let (client, sequence, acknowledged) = numbers.map_or((0, 0, 0), |n| (n.client, n.sequence, n.acknowledged));
        let consistency = submission.consistency;
        let bounded = kind == Kind::ReplicaRead && consistency == Consistency::Stale;
        let number = if bounded { u64::from(submission.max_staleness_ms) } else { sequence };
        let request = RequestRef { client, sequence: number, acknowledged, consistency, operations };
        let slot = self.slab.get_mut(index);
        slot.group = group;
        slot.sequence = sequence;
        slot.session_generation = numbers.map_or(0, |numbers| numbers.generation);
        let bytes = request.append_frame(&mut slot.frame, 0);
        self.slab.pending_bytes += bytes;
        self.note_timer(deadline_us);
        if bytes > self.options.limits.frame_bytes_max {
            self.withdraw(index);
            let bytes_max = self.options.limits.frame_bytes_max;
            let message = format!("the request is a frame of {bytes} bytes, at most {bytes_max} are allowed; split it");
            return Err(ClientError::BadRequest { message });
        }
        self.first_try(index, known, now_us);
        Ok(())
    }

    /// Asks a shard for its state, JSON text in [`super::Results::Status`].
    ///
    /// # Errors
    /// [`ClientError::BadRequest`] when no such shard is known, [`ClientError::Overloaded`].
    pub fn submit_status(&mut self, tag: u64, node: u64, shard: u16, now_us: u64) -> Result<(), ClientError> {
        if self.routing.is_known() && self.routing.find(node, shard).is_none() {
            // It may have joined since.
            self.look_again(now_us);
            return Err(no_such_shard(node, shard));
        }
        let deadline_us = now_us.saturating_add(self.times.request_us);
        let index = self.take_slot(tag, Kind::Status, deadline_us)?;
        let slot = self.slab.get_mut(index);
        slot.asked = (node, shard);
        let bytes = wire::append_status(&mut slot.frame, 0);
        self.slab.pending_bytes += bytes;
        self.note_timer(deadline_us);
        self.first_try(index, self.routing.is_known(), now_us);
        Ok(())
    }

    fn classify(&self, submission: &Submission<'_>) -> Result<Kind, ClientError> {
        let operations = submission.operations;
        let Options { limits, in_flight_max, pending_bytes_max, .. } = &self.options;
        if operations.is_empty() || operations.len() > limits.operations_max {
            let message = format!("{} operations, 1 to {} are allowed", operations.len(), limits.operations_max);
            return Err(ClientError::BadRequest { message });
        }
        let class = wire::validate_operations(operations.iter().copied(), limits)?;
        if self.submitted >= *in_flight_max {
            return Err(ClientError::Overloaded { what: "requests in flight" });
        }
        let payload: usize = operations.iter().map(OperationRef::payload_bytes).sum();
        if self.submitted > 0 && self.slab.pending_bytes + payload > *pending_bytes_max {
            return Err(ClientError::Overloaded { what: "bytes in flight" });
        }
        match (class, submission.consistency) {
            (RequestClass::Read, Consistency::Linearizable | Consistency::Lease) => Ok(Kind::Read),
            (RequestClass::Read, Consistency::Stale) if submission.max_staleness_ms == 0 => Ok(Kind::StaleRead),
            (RequestClass::Read, Consistency::Stale | Consistency::Follower) => Ok(Kind::ReplicaRead),
            (RequestClass::Write, _) => Ok(Kind::Write),
            (RequestClass::OpenSession, _) => {
                Err(ClientError::BadRequest { message: String::from("the client opens sessions itself") })
            }
        }
    }

    fn take_slot(&mut self, tag: u64, kind: Kind, deadline_us: u64) -> Result<u32, ClientError> {
        if self.submitted >= self.options.in_flight_max {
            return Err(ClientError::Overloaded { what: "requests in flight" });
        }
        let index =
            self.slab.take(tag, kind, deadline_us).ok_or(ClientError::Overloaded { what: "requests in flight" })?;
        self.submitted += 1;
        Ok(index)
    }

    /// Takes back a submission that was never sent.
    fn withdraw(&mut self, index: u32) {
        let slot = self.slab.get(index);
        let (group, generation, sequence) = (slot.group, slot.session_generation, slot.sequence);
        if sequence != 0 {
            self.routing.groups[group as usize].session.finish(generation, sequence);
        }
        self.release(index);
    }

    /// A slot that is on no list is free again.
    #[inline]
    pub(super) fn release(&mut self, index: u32) {
        self.submitted -= usize::from(self.slab.get(index).kind != Kind::OpenSession);
        self.slab.release(index);
    }

    /// The request ends without a result. It must be on no list; unless it is `Abandoned`, its slot is free after.
    pub(super) fn fail(&mut self, index: u32, error: ClientError) {
        let slot = self.slab.get(index);
        let (tag, kind, group) = (slot.tag, slot.kind, slot.group);
        let (generation, sequence) = (slot.session_generation, slot.sequence);
        if sequence != 0 {
            self.routing.groups[group as usize].session.finish(generation, sequence);
        }
        if kind == Kind::OpenSession {
            self.routing.groups[group as usize].session.state = super::session::State::Closed;
        } else {
            self.completions.failed(tag, error);
        }
        if !matches!(self.slab.get(index).place, Place::Abandoned { .. }) {
            self.release(index);
        }
    }

    /// What the driver has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// A connection that got new bytes to send since it was last returned here.
    pub fn next_writable(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.writable.pop_front() {
            if let Some(place) = self.place_of(id) {
                self.connections[place as usize].writable = false;
                return Some(id);
            }
        }
        None
    }

    /// Bytes to send on a connection, `None` when it is gone.
    pub fn outgoing(&mut self, connection: ConnectionId) -> Option<&mut SendBuffer> {
        let place = self.place_of(connection)?;
        Some(&mut self.connections[place as usize].outgoing)
    }

    /// The next completion. It borrows the core: take what is needed from it before the next call.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion<'_>> {
        self.completions.next()
    }

    /// When [`Core::tick`] should be called at the latest.
    #[must_use]
    pub fn next_deadline_us(&self) -> Option<u64> {
        (self.timer_us != u64::MAX).then_some(self.timer_us)
    }

    #[inline]
    pub(super) fn note_timer(&mut self, at_us: u64) {
        self.timer_us = self.timer_us.min(at_us);
    }

    /// The place of a connection that still exists under this id.
    #[inline]
    pub(super) fn place_of(&self, id: ConnectionId) -> Option<u32> {
        let connection = self.connections.get(id.place())?;
        let current = u32::from(connection.generation) == id.0 >> 16 && connection.state != State::Free;
        current.then_some(id.0 & 0xffff)
    }

    pub(super) fn id_of(&self, place: u32) -> ConnectionId {
        ConnectionId(u32::from(self.connections[place as usize].generation) << 16 | place)
    }
}
