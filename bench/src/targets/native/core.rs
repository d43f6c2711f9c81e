//! The client core: where each request goes, when it is sent again, and what its end is. No I/O, no clock of its own.
//!
//! Hosts call [`Core::submit`], dial what [`Core::next_action`] asks for, move bytes ([`Core::receive`],
//! [`Core::take_outgoing`]), tell the time ([`Core::tick`]) and collect [`Core::next_completion`].
//! Invariants: every accepted request has exactly one completion; a request of a session keeps its sequence and its
//! bytes through all tries, so that it is applied at most once; a write without a session is never sent twice when its
//! first try may have been applied; what is in flight is bounded.

use std::collections::{HashMap, VecDeque};

use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::slots;
use ringraft_net::wire::{
    self, ArchivedOutcome, Consistency, Hello, Operation, OperationRef, OperationResult, PROTOCOL_VERSION, Position,
    RequestError, RequestRef, Role, Topology,
};

pub use super::links::LinkId;
use super::links::{Links, State};
use super::requests::Requests;
use super::session::Session;

/// What a client may choose. Times in microseconds.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster it means; all zero = any.
    pub cluster: [u8; 16],
    /// Connections to each shard that leads a group.
    pub connections: usize,
    /// Requests that may be under way at once.
    pub in_flight_max: usize,
    /// Sessions make retries safe (exactly-once).
    pub sessions: bool,
    /// Requests between the lowest unanswered and the newest of a session; at most the cluster's `session_window_max`.
    pub window: usize,
    /// How long a request may take, retries included.
    pub deadline_us: u64,
    /// First pause before a retry; it doubles up to `retry_max_us`, with jitter.
    pub retry_us: u64,
    /// Longest pause before a retry.
    pub retry_max_us: u64,
    /// Seed of the jitter.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cluster: [0; 16],
            connections: 1,
            in_flight_max: 4_096,
            sessions: true,
            window: 8_192,
            deadline_us: 10_000_000,
            retry_us: 5_000,
            retry_max_us: 200_000,
            seed: 1,
        }
    }
}

/// What the host must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Dial an address, then [`Core::connected`] or [`Core::disconnected`].
    Connect {
        /// The connection.
        link: LinkId,
        /// `host:port`.
        address: String,
    },
    /// Close a connection; [`Core::disconnected`] must not follow.
    Close {
        /// The connection.
        link: LinkId,
    },
}

/// Why a request was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// As many requests as allowed are under way.
    #[error("as many requests as allowed are under way; wait for a completion")]
    Busy,
    /// It can never succeed.
    #[error("{0}")]
    BadRequest(#[from] RequestError),
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// No answer in time.
    #[error("no answer within the deadline{}{}", if *outcome_unknown { "; it may have been applied" } else { "" }, describe(last))]
    DeadlineExceeded {
        /// Whether it may have been applied, or may yet be.
        outcome_unknown: bool,
        /// What kept it from succeeding, as far as known.
        last: Option<String>,
    },
    /// The connection broke, or the leader was deposed, and the write carries no session.
    #[error("the outcome is unknown: it may have been applied; use a session to make retries safe")]
    OutcomeUnknown,
    /// The session is gone; an earlier try may have been applied.
    #[error("the session expired; an earlier try may have been applied")]
    SessionExpired,
    /// The cluster refused it for good.
    #[error("{message}")]
    BadRequest {
        /// Why.
        message: String,
    },
    /// Another cluster, protocol or node than was meant.
    #[error("refused: {message}")]
    Refused {
        /// Why.
        message: String,
    },
}

fn describe(last: &Option<String>) -> String {
    last.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default()
}

impl ClientError {
    /// Whether the same request may succeed later. With an unknown outcome only the caller can tell whether it should.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::DeadlineExceeded { .. } | Self::OutcomeUnknown | Self::SessionExpired)
    }

    /// Whether it may have been applied although it failed.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Self::DeadlineExceeded { outcome_unknown, .. } => *outcome_unknown,
            Self::OutcomeUnknown | Self::SessionExpired => true,
            Self::BadRequest { .. } | Self::Refused { .. } => false,
        }
    }
}

/// The end of a request.
#[derive(Debug)]
pub struct Completion {
    /// The caller's name for it.
    pub tag: u64,
    /// Where it stands in the log; zero when it failed.
    pub position: Position,
    /// One result per operation, or why not.
    pub result: Result<Vec<OperationResult>, ClientError>,
}

#[derive(Debug)]
enum GroupSession {
    Closed,
    Opening,
    Open(Session),
}

#[derive(Debug)]
struct Deferred {
    tag: u64,
    operations: Vec<Operation>,
    consistency: Consistency,
    deadline_us: u64,
}

/// The client of one cluster.
#[derive(Debug)]
pub struct Core {
    options: Options,
    endpoints: Vec<String>,
    topology: Option<Topology>,
    leaders: Vec<Option<u64>>,
    sessions: Vec<GroupSession>,
    /// Wait for the topology or their group's session.
    deferred: VecDeque<Deferred>,
    links: Links,
    requests: Requests,
    /// Requests that wait for their link to be ready, by link.
    parked: HashMap<usize, Vec<u32>>,
    retries: usize,
    completions: VecDeque<Completion>,
    round_robin: usize,
    jitter: u64,
    refusal: Option<String>,
    last_failure: Option<String>,
    now_us: u64,
    expired_checked_us: u64,
}

/// How often deadlines are looked at.
const DEADLINE_CHECK_US: u64 = 10_000;

impl Core {
    /// A client that knows some addresses of a cluster; it learns the others.
    #[must_use]
    pub fn new(options: Options, endpoints: Vec<String>) -> Self {
        let (requests, jitter) = (Requests::new(options.in_flight_max), options.seed | 1);
        let mut core = Self {
            options,
            endpoints,
            topology: None,
            leaders: Vec::new(),
            sessions: Vec::new(),
            deferred: VecDeque::new(),
            links: Links::default(),
            requests,
            parked: HashMap::new(),
            retries: 0,
            completions: VecDeque::new(),
            round_robin: 0,
            jitter,
            refusal: None,
            last_failure: None,
            now_us: 0,
            expired_checked_us: 0,
        };
        for address in core.endpoints.clone() {
            core.links.to(&address, 0);
        }
        core
    }

    /// The topology, once a node has told it.
    #[must_use]
    pub fn topology(&self) -> Option<&Topology> {
        self.topology.as_ref()
    }

    /// Requests without a completion.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.len() + self.deferred.len()
    }

    /// Takes a request of one or more operations of one group.
    ///
    /// # Errors
    /// [`SubmitError`]; nothing was taken then.
    pub fn submit(
        &mut self,
        tag: u64,
        operations: &[OperationRef<'_>],
        consistency: Consistency,
        now_us: u64,
    ) -> Result<(), SubmitError> {
        self.now_us = now_us;
        if self.in_flight() >= self.options.in_flight_max {
            return Err(SubmitError::Busy);
        }
        let deadline_us = now_us + self.options.deadline_us;
        let Some(topology) = &self.topology else {
            self.defer(tag, operations, consistency, deadline_us);
            return Ok(());
        };
        let group = wire::group_of_operations(operations.iter().copied(), topology.groups)?;
        let read = operations.iter().all(|operation| matches!(operation, OperationRef::Get { .. }));
        let mut request = RequestRef { client: 0, sequence: 0, acknowledged: 0, consistency, operations };
        if self.options.sessions && !read {
            match &mut self.sessions[group as usize] {
                GroupSession::Open(session) => {
                    request.client = session.client;
                    request.sequence = session.next(self.options.window).ok_or(SubmitError::Busy)?;
                    request.acknowledged = session.acknowledged();
                }
                GroupSession::Opening => {
                    self.defer(tag, operations, consistency, deadline_us);
                    return Ok(());
                }
                GroupSession::Closed => {
                    self.defer(tag, operations, consistency, deadline_us);
                    self.open_session(group);
                    return Ok(());
                }
            }
        }
        let Some((slot, correlation)) = self.requests.insert() else { return Err(SubmitError::Busy) };
        let pending = self.requests.get_mut(slot);
        request.append_frame(&mut pending.frame, correlation);
        (pending.tag, pending.group) = (tag, group);
        (pending.client, pending.sequence) = (request.client, request.sequence);
        (pending.read, pending.opens_session, pending.deadline_us) = (read, false, deadline_us);
        self.send(slot);
        Ok(())
    }

    fn defer(&mut self, tag: u64, operations: &[OperationRef<'_>], consistency: Consistency, deadline_us: u64) {
        let operations = operations.iter().map(|operation| owned(*operation)).collect();
        self.deferred.push_back(Deferred { tag, operations, consistency, deadline_us });
    }

    fn open_session(&mut self, group: u32) {
        self.sessions[group as usize] = GroupSession::Opening;
        let Some((slot, correlation)) = self.requests.insert() else {
            self.sessions[group as usize] = GroupSession::Closed; // the next request tries again
            return;
        };
        let operations = [OperationRef::OpenSession { group }];
        let pending = self.requests.get_mut(slot);
        let consistency = Consistency::Linearizable;
        RequestRef { client: 0, sequence: 0, acknowledged: 0, consistency, operations: &operations }
            .append_frame(&mut pending.frame, correlation);
        (pending.tag, pending.group) = (0, group);
        (pending.client, pending.sequence) = (0, 0);
        // Opening twice is harmless: an unused session is evicted in time.
        (pending.read, pending.opens_session) = (true, true);
        pending.deadline_us = self.now_us + self.options.deadline_us;
        self.send(slot);
    }

    /// Sends a request to where its group is thought to be led.
    fn send(&mut self, slot: u32) {
        let (group, attempts) = (self.requests.get(slot).group, self.requests.get(slot).attempts as usize);
        let Some(address) = self.address_of(group, attempts) else { return self.retry_later(slot, 0) };
        self.round_robin = self.round_robin.wrapping_add(1);
        let link = self.links.to(&address, self.round_robin % self.options.connections.max(1));
        let pending = self.requests.get_mut(slot);
        pending.link = Some(link);
        if self.links.is_ready(link) {
            pending.sent = true;
            self.links.outgoing(link).extend_from_slice(&pending.frame);
        } else {
            self.parked.entry(link.0).or_default().push(slot);
        }
    }

    fn address_of(&self, group: u32, attempts: usize) -> Option<String> {
        let topology = self.topology.as_ref()?;
        let leader = self.leaders.get(group as usize).copied().flatten();
        let known = leader.and_then(|leader| topology.nodes.iter().find(|node| node.node == leader));
        let node = known.or_else(|| topology.nodes.get(attempts % topology.nodes.len().max(1)))?;
        node.addresses.get(usize::from(slots::shard_of_group(group, topology.shards))).cloned()
    }

    fn retry_later(&mut self, slot: u32, at_least_us: u64) {
        let attempts = self.requests.get(slot).attempts.min(16);
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        let ceiling = (self.options.retry_us << attempts).min(self.options.retry_max_us).max(2);
        let pause = (ceiling / 2 + self.jitter % (ceiling / 2)).max(at_least_us);
        let pending = self.requests.get_mut(slot);
        pending.attempts += 1;
        pending.link = None;
        if pending.retry_at_us.is_none() {
            self.retries += 1;
        }
        pending.retry_at_us = Some(self.now_us + pause);
    }

    /// What the host should do next.
    pub fn next_action(&mut self) -> Option<Action> {
        self.links.actions.pop_front()
    }

    /// A connection stands: greets.
    pub fn connected(&mut self, link: LinkId, now_us: u64) {
        self.now_us = now_us;
        let hello = Hello {
            cluster: self.options.cluster,
            protocol: PROTOCOL_VERSION,
            role: Role::Client,
            node: 0,
            shard: 0,
            to_node: 0,
            to_shard: u16::MAX,
            config_digest: 0,
        };
        if let Some(found) = self.links.get(link) {
            found.state = State::Greeting;
            found.input.clear();
            found.outgoing.clear();
            hello.append_frame(self.links.outgoing(link));
        }
    }

    /// A connection could not be made or broke: its requests are sent again where that is safe.
    pub fn disconnected(&mut self, link: LinkId, now_us: u64) {
        self.now_us = now_us;
        let (retry_us, retry_max_us) = (self.options.retry_us, self.options.retry_max_us);
        let Some(found) = self.links.get(link) else { return };
        let pause = (retry_us << found.failures.min(10)).min(retry_max_us);
        found.failures += 1;
        found.state = State::Pausing { until_us: now_us + pause };
        found.outgoing.clear();
        found.input.clear();
        let address = found.address.clone();
        self.last_failure.get_or_insert_with(|| format!("cannot reach {address}"));
        self.parked.remove(&link.0);
        self.forget_leader_at(&address);
        for slot in self.requests.matching(|pending| pending.link == Some(link)) {
            self.unanswered(slot);
        }
    }

    fn forget_leader_at(&mut self, address: &str) {
        let Some(topology) = &self.topology else { return };
        let at = |node: &&wire::NodeInfo| node.addresses.iter().any(|other| other == address);
        if let Some(node) = topology.nodes.iter().find(at).map(|node| node.node) {
            self.leaders.iter_mut().filter(|leader| **leader == Some(node)).for_each(|leader| *leader = None);
        }
    }

    /// A try ended without an answer.
    fn unanswered(&mut self, slot: u32) {
        let pending = self.requests.get(slot);
        if pending.sent && !pending.read && pending.sequence == 0 {
            self.complete(slot, Position::default(), Err(ClientError::OutcomeUnknown));
        } else {
            self.retry_later(slot, 0);
        }
    }

    /// The next connection with bytes to send since the last call.
    pub fn next_dirty(&mut self) -> Option<LinkId> {
        let link = self.links.dirty.pop()?;
        self.links.links[link.0].dirty = false;
        Some(link)
    }

    /// Moves the bytes to send into `out`.
    pub fn take_outgoing(&mut self, link: LinkId, out: &mut Vec<u8>) {
        if let Some(found) = self.links.get(link) {
            if out.is_empty() {
                std::mem::swap(out, &mut found.outgoing);
            } else {
                out.append(&mut found.outgoing);
            }
        }
    }

    /// Bytes of a connection. They may end anywhere.
    pub fn receive(&mut self, link: LinkId, bytes: &[u8], now_us: u64) {
        self.now_us = now_us;
        let Some(found) = self.links.get(link) else { return };
        let mut input = std::mem::take(&mut found.input);
        let joined = !input.is_empty();
        if joined {
            input.extend_from_slice(bytes);
        }
        let all: &[u8] = if joined { &input } else { bytes };
        match self.take_frames(link, all) {
            Ok(taken) => {
                let rest = all[taken..].to_vec();
                if let Some(found) = self.links.get(link) {
                    found.input = rest;
                }
            }
            Err(reason) => {
                self.last_failure = Some(reason);
                self.links.actions.push_back(Action::Close { link });
                self.disconnected(link, now_us);
            }
        }
    }

    fn take_frames(&mut self, link: LinkId, all: &[u8]) -> Result<usize, String> {
        let mut start = 0;
        while let Some(parsed) = frame::parse(&all[start..], &Limits::CLIENT).map_err(|error| error.to_string())? {
            match parsed.kind {
                FrameKind::Reply => self.reply(parsed.correlation, parsed.head)?,
                FrameKind::Welcome => self.welcome(link, parsed.head)?,
                FrameKind::Refused => {
                    let refused = wire::view_refused(parsed.head).map_err(|error| error.to_string())?;
                    self.refusal = Some(refused.message.clone());
                    return Err(refused.message);
                }
                other => return Err(format!("a node sent a frame of kind {other:?}")),
            }
            start += parsed.total_bytes;
        }
        Ok(start)
    }

    fn welcome(&mut self, link: LinkId, head: &[u8]) -> Result<(), String> {
        let welcome = wire::view_welcome(head).map_err(|error| error.to_string())?;
        let groups = welcome.topology.groups as usize;
        if groups == 0 || welcome.topology.nodes.is_empty() || welcome.topology.shards == 0 {
            return Err(String::from("a node told of a cluster without groups, shards or nodes"));
        }
        self.leaders.resize(groups, None);
        for (known, told) in self.leaders.iter_mut().zip(&welcome.topology.leaders) {
            if known.is_none() {
                *known = *told;
            }
        }
        self.sessions.resize_with(groups, || GroupSession::Closed);
        let first = self.topology.is_none();
        self.topology.get_or_insert(welcome.topology);
        (self.refusal, self.last_failure) = (None, None);
        if let Some(found) = self.links.get(link) {
            found.state = State::Ready;
            found.failures = 0;
        }
        for slot in self.parked.remove(&link.0).unwrap_or_default() {
            let pending = self.requests.get_mut(slot);
            if pending.used && pending.link == Some(link) && pending.retry_at_us.is_none() {
                pending.sent = true;
                self.links.outgoing(link).extend_from_slice(&pending.frame);
            }
        }
        if first {
            self.submit_deferred();
        }
        Ok(())
    }

    fn submit_deferred(&mut self) {
        for deferred in std::mem::take(&mut self.deferred) {
            let operations: Vec<_> = deferred.operations.iter().map(Operation::as_operation_ref).collect();
            let now_us = self.now_us;
            match self.submit(deferred.tag, &operations, deferred.consistency, now_us) {
                Ok(()) => {}
                Err(SubmitError::Busy) => self.deferred.push_back(deferred),
                Err(SubmitError::BadRequest(error)) => {
                    let result = Err(ClientError::BadRequest { message: error.to_string() });
                    self.completions.push_back(Completion { tag: deferred.tag, position: Position::default(), result });
                }
            }
        }
    }

    fn reply(&mut self, correlation: u32, head: &[u8]) -> Result<(), String> {
        let Some(slot) = self.requests.find(correlation) else { return Ok(()) };
        let reply = wire::view_reply(head).map_err(|error| error.to_string())?;
        let group = self.requests.get(slot).group;
        match &reply.outcome {
            ArchivedOutcome::Done(results) => {
                let results: Vec<OperationResult> =
                    results.iter().map(|result| result.as_result_ref().into()).collect();
                self.complete(slot, reply.position.to_native(), Ok(results));
            }
            ArchivedOutcome::NotLeader { leader, .. } => {
                let told = leader.as_ref().map(|node| node.to_native());
                let news = told.is_some() && self.leaders[group as usize] != told;
                self.leaders[group as usize] = told;
                self.last_failure = Some(format!("group {group} has no leader that answers"));
                if news && self.requests.get(slot).attempts < 4 {
                    self.requests.get_mut(slot).attempts += 1;
                    self.send(slot);
                } else {
                    self.retry_later(slot, 0);
                }
            }
            ArchivedOutcome::Moved { .. } => self.retry_later(slot, 0),
            ArchivedOutcome::Overloaded { retry_after_us } => {
                self.last_failure = Some(String::from("the cluster is overloaded"));
                self.retry_later(slot, retry_after_us.to_native());
            }
            ArchivedOutcome::Unavailable { message } => {
                self.last_failure = Some(message.as_str().to_owned());
                self.leaders[group as usize] = None;
                self.retry_later(slot, 0);
            }
            ArchivedOutcome::OutcomeUnknown => {
                self.leaders[group as usize] = None;
                self.unanswered(slot);
            }
            ArchivedOutcome::SessionExpired | ArchivedOutcome::TooStale => {
                self.sessions[group as usize] = GroupSession::Closed;
                self.complete(slot, Position::default(), Err(ClientError::SessionExpired));
            }
            ArchivedOutcome::BadRequest { message } => {
                let message = message.as_str().to_owned();
                self.complete(slot, Position::default(), Err(ClientError::BadRequest { message }));
            }
        }
        Ok(())
    }

    /// Ends a request.
    fn complete(&mut self, slot: u32, position: Position, result: Result<Vec<OperationResult>, ClientError>) {
        let pending = self.requests.get(slot);
        let (tag, group, client, sequence) = (pending.tag, pending.group as usize, pending.client, pending.sequence);
        let (opens_session, waited) = (pending.opens_session, pending.retry_at_us.is_some());
        self.retries -= usize::from(waited);
        self.requests.remove(slot);
        if opens_session {
            self.sessions[group] = match result.as_deref() {
                Ok([OperationResult::Session { client }]) => GroupSession::Open(Session::new(*client)),
                _ => GroupSession::Closed,
            };
            if matches!(self.sessions[group], GroupSession::Open(_)) {
                self.submit_deferred();
            }
            return;
        }
        if sequence > 0
            && let GroupSession::Open(session) = &mut self.sessions[group]
            && session.client == client
        {
            session.answer(sequence);
        }
        self.completions.push_back(Completion { tag, position, result });
    }

    /// The next request that ended.
    pub fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    /// Time went on: retries, dials and deadlines.
    pub fn tick(&mut self, now_us: u64) {
        self.now_us = now_us;
        self.links.tick(now_us);
        if self.retries > 0 {
            for slot in self.requests.matching(|pending| pending.retry_at_us.is_some_and(|at| at <= now_us)) {
                self.requests.get_mut(slot).retry_at_us = None;
                self.retries -= 1;
                self.send(slot);
            }
        }
        if now_us >= self.expired_checked_us + DEADLINE_CHECK_US {
            self.expired_checked_us = now_us;
            self.expire(now_us);
            if !self.deferred.is_empty() && self.topology.is_some() {
                self.submit_deferred();
            }
        }
    }

    fn expire(&mut self, now_us: u64) {
        for slot in self.requests.matching(|pending| pending.deadline_us <= now_us) {
            let pending = self.requests.get(slot);
            let outcome_unknown = pending.sent && !pending.read;
            let last = self.last_failure.clone();
            self.complete(slot, Position::default(), Err(ClientError::DeadlineExceeded { outcome_unknown, last }));
        }
        let refused = self.refusal.clone().filter(|_| self.topology.is_none());
        let last = self.last_failure.clone();
        let expired = |deferred: &Deferred| deferred.deadline_us <= now_us || refused.is_some();
        for deferred in std::mem::take(&mut self.deferred) {
            if !expired(&deferred) {
                self.deferred.push_back(deferred);
                continue;
            }
            let error = match &refused {
                Some(message) => ClientError::Refused { message: message.clone() },
                None => ClientError::DeadlineExceeded { outcome_unknown: false, last: last.clone() },
            };
            let (tag, position) = (deferred.tag, Position::default());
            self.completions.push_back(Completion { tag, position, result: Err(error) });
        }
    }
}

fn owned(operation: OperationRef<'_>) -> Operation {
    match operation {
        OperationRef::Put { key, value } => Operation::Put { key: key.to_vec(), value: value.to_vec() },
        OperationRef::Get { key } => Operation::Get { key: key.to_vec() },
        OperationRef::Delete { key } => Operation::Delete { key: key.to_vec() },
        OperationRef::CompareAndSet { key, expected, value } => Operation::CompareAndSet {
            key: key.to_vec(),
            expected: expected.map(<[u8]>::to_vec),
            value: value.to_vec(),
        },
        OperationRef::OpenSession { group } => Operation::OpenSession { group },
    }
}
