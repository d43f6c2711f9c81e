//! ringraft over its native protocol: the client core, with sessions, driven by this generator's own event loop.
//!
//! Off the data path.
//! Invariant: every accepted operation ends in exactly one completion, because the client core sees to that.

use std::time::{Duration, Instant};

use super::native::{Action, ClientError, Core, LinkId, Options};
use ringraft_net::wire::{Consistency, OperationRef, OperationResult};

use super::socket::{Connection, Poller, resolve};
use super::{Busy, Completion, Seen, Target, TargetError, TargetFacts};
use crate::clock::{Clock, MonotonicClock};
use crate::recorder::ErrorKind;
use crate::workload::{Operation, OperationKind, mark_of};

const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
const START_TIMEOUT: Duration = Duration::from_secs(10);
const TICK_NS: u64 = 1_000_000;
const IN_FLIGHT_MAX: usize = 100_000;
const WINDOW: usize = 8_000;

/// A ringraft cluster under load.
pub struct RingraftTarget {
    clock: MonotonicClock,
    core: Core,
    poller: Poller,
    connections: Vec<Option<Connection>>,
    ready: Vec<u64>,
    scratch: Vec<u8>,
    next_tick_ns: u64,
    connections_per_leader: usize,
}

impl RingraftTarget {
    /// Connects to some nodes of the cluster and learns the others from them.
    pub fn connect(endpoints: &[String], connections: usize, clock: MonotonicClock) -> Result<Self, TargetError> {
        for endpoint in endpoints {
            resolve(endpoint)?;
        }
        let options = Options {
            connections,
            in_flight_max: IN_FLIGHT_MAX,
            window: WINDOW,
            seed: u64::from(std::process::id()),
            ..Options::default()
        };
        let mut target = Self {
            clock,
            core: Core::new(options, endpoints.to_vec()),
            poller: Poller::new()?,
            connections: Vec::new(),
            ready: Vec::new(),
            scratch: Vec::new(),
            next_tick_ns: 0,
            connections_per_leader: connections,
        };
        let (deadline, mut none) = (Instant::now() + START_TIMEOUT, Vec::new());
        while target.core.topology().is_none() {
            target.poll(Duration::from_millis(5), &mut none)?;
            if Instant::now() > deadline {
                let reason = format!("no node told the cluster's topology within {START_TIMEOUT:?}");
                return Err(TargetError::Connect { address: endpoints.join(","), reason });
            }
        }
        Ok(target)
    }

    fn now_us(&self) -> u64 {
        self.clock.now() / 1_000
    }

    fn act(&mut self) {
        while let Some(action) = self.core.next_action() {
            match action {
                Action::Connect { link, address } => self.dial(link, &address),
                Action::Close { link } => self.connections[link.0] = None,
            }
        }
    }

    fn dial(&mut self, link: LinkId, address: &str) {
        if self.connections.len() <= link.0 {
            self.connections.resize_with(link.0 + 1, || None);
        }
        let connected = resolve(address).ok().and_then(|address| Connection::connect(address, CONNECT_TIMEOUT).ok());
        let added = connected.filter(|connection| self.poller.add(connection, link.0 as u64).is_ok());
        let now_us = self.now_us();
        match added {
            Some(connection) => {
                self.connections[link.0] = Some(connection);
                self.core.connected(link, now_us);
            }
            None => self.core.disconnected(link, now_us),
        }
    }

    fn broken(&mut self, link: LinkId) {
        if self.connections[link.0].take().is_some() {
            let now_us = self.now_us();
            self.core.disconnected(link, now_us);
        }
    }

    fn send(&mut self) {
        while let Some(link) = self.core.next_dirty() {
            let Some(connection) = &mut self.connections[link.0] else { continue };
            if connection.output().is_empty() {
                self.core.take_outgoing(link, connection.output());
            } else {
                self.scratch.clear();
                self.core.take_outgoing(link, &mut self.scratch);
                connection.output().extend_from_slice(&self.scratch);
            }
            if connection.flush(&self.poller, link.0 as u64).is_err() {
                self.broken(link);
            }
        }
    }

    fn receive(&mut self, link: LinkId) {
        let now_us = self.now_us();
        let Some(connection) = self.connections.get_mut(link.0).and_then(Option::as_mut) else { return };
        match connection.fill() {
            Ok(true) => {
                let bytes = connection.input().len();
                self.core.receive(link, connection.input(), now_us);
                connection.consume(bytes);
                if connection.flush(&self.poller, link.0 as u64).is_err() {
                    self.broken(link);
                }
            }
            Ok(false) => {
                if connection.flush(&self.poller, link.0 as u64).is_err() {
                    self.broken(link);
                }
            }
            Err(_) => self.broken(link),
        }
    }

    fn collect(&mut self, completions: &mut Vec<Completion>) {
        let at_ns = self.clock.now();
        while let Some(completion) = self.core.next_completion() {
            let result = judge(&completion.result);
            completions.push(Completion { tag: completion.tag, at_ns, result });
        }
    }
}

fn judge(result: &Result<Vec<OperationResult>, ClientError>) -> Result<Seen, ErrorKind> {
    match result {
        Ok(results) => match results.as_slice() {
            [OperationResult::Put { .. }] => Ok(Seen::Written),
            [OperationResult::Value(None)] => Ok(Seen::Missing),
            [OperationResult::Value(Some(value))] => Ok(Seen::Value { length: value.len(), mark: mark_of(value) }),
            _ => Err(ErrorKind::Protocol),
        },
        Err(ClientError::DeadlineExceeded { .. }) => Err(ErrorKind::Timeout),
        Err(ClientError::OutcomeUnknown) => Err(ErrorKind::OutcomeUnknown),
        Err(ClientError::SessionExpired) => Err(ErrorKind::SessionExpired),
        Err(ClientError::BadRequest { .. }) => Err(ErrorKind::BadRequest),
        Err(ClientError::Refused { .. }) => Err(ErrorKind::Unavailable),
    }
}

impl Target for RingraftTarget {
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, now_ns: u64) -> Result<(), Busy> {
        let operation = match operation.kind {
            OperationKind::Put => OperationRef::Put { key: operation.key, value: operation.value },
            OperationKind::Get => OperationRef::Get { key: operation.key },
        };
        self.core.submit(tag, &[operation], Consistency::Linearizable, now_ns / 1_000).map_err(|_| Busy)
    }

    fn poll(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> Result<(), TargetError> {
        let now_ns = self.clock.now();
        if now_ns >= self.next_tick_ns {
            self.next_tick_ns = now_ns + TICK_NS;
            self.core.tick(now_ns / 1_000);
        }
        self.act();
        self.send();
        self.collect(completions);
        let timeout = if completions.is_empty() { timeout } else { Duration::ZERO };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.poller.wait(timeout, &mut ready)?;
        for &token in &ready {
            self.receive(LinkId(token as usize));
        }
        self.ready = ready;
        self.send();
        self.collect(completions);
        Ok(())
    }

    fn facts(&self) -> TargetFacts {
        let topology = self.core.topology();
        TargetFacts {
            nodes: topology.map_or(0, |topology| topology.nodes.len()),
            groups: topology.map(|topology| topology.groups),
            connections: self.connections_per_leader,
            ..TargetFacts::default()
        }
    }
}
