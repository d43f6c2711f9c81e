//! Systems that answer a connection's requests in their order: one loop over a few pipelined connections.
//!
//! Off the data path.
//!
//! Invariant: answers of a connection come in the order of its requests, so a queue of tags per connection is all the
//! state there is. A broken connection fails what it had outstanding and is made anew.
//!
//! It knows no protocol: a [`Wire`] does.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::socket::{Connection, Poller};
use super::{Busy, Completion, Seen, Target, TargetError, TargetFacts};
use crate::clock::{Clock, MonotonicClock};
use crate::recorder::ErrorKind;
use crate::workload::{Operation, OperationKind};

/// Longest wait for a first connection, and for the answers to questions about the system.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_TIMEOUT: Duration = Duration::from_millis(200);

/// What an answer says, and how many bytes it took.
pub type Parsed = (Result<Seen, ErrorKind>, usize);

/// The bytes of the answer are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A protocol.
pub trait Wire {
    /// Appends a put.
    fn put(&self, output: &mut Vec<u8>, key: &[u8], value: &[u8]);

    /// Appends a get.
    fn get(&self, output: &mut Vec<u8>, key: &[u8]);

    /// Appends a delete.
    fn delete(&self, output: &mut Vec<u8>, key: &[u8]);

    /// Reads the first answer, to a request of this kind; `None`: more bytes are needed.
    fn answer(&self, kind: OperationKind, input: &[u8]) -> Result<Option<Parsed>, Malformed>;
}

struct Link {
    address: SocketAddr,
    /// `None` while broken.
    connection: Option<Connection>,
    /// Requests sent and not answered, oldest first.
    waiting: VecDeque<(u64, OperationKind)>,
    dirty: bool,
    reconnect_at: Instant,
}

/// A system under load.
pub struct PipelinedTarget<W> {
    wire: W,
    clock: MonotonicClock,
    poller: Poller,
    ready: Vec<u64>,
    links: Vec<Link>,
    /// Links with output to send in this turn.
    dirty: Vec<usize>,
    /// Links that broke, also outside of `poll`.
    broken: Vec<usize>,
    pub(super) facts: TargetFacts,
}

impl<W: Wire> PipelinedTarget<W> {
    /// Connects to the addresses round robin.
    pub(super) fn open(
        wire: W,
        addresses: &[SocketAddr],
        connections: usize,
        clock: MonotonicClock,
    ) -> Result<Self, TargetError> {
        let poller = Poller::new()?;
        let mut links = Vec::with_capacity(connections);
        for token in 0..connections as u64 {
            let address = addresses[token as usize % addresses.len()];
            let connection = Connection::connect(address, CONNECT_TIMEOUT)
                .map_err(|error| TargetError::Connect { address: address.to_string(), reason: error.to_string() })?;
            poller.add(&connection, token)?;
            let (waiting, reconnect_at) = (VecDeque::with_capacity(1024), Instant::now());
            links.push(Link { address, connection: Some(connection), waiting, dirty: false, reconnect_at });
        }
        let facts = TargetFacts { nodes: 1, connections, ..TargetFacts::default() };
        let (ready, dirty, broken) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { wire, clock, poller, ready, links, dirty, broken, facts })
    }

    /// Asks on the first connection, before any load: sends `question` and calls `read` with what has come, which says
    /// how many bytes it is done with and whether that is all.
    pub(super) fn ask(
        &mut self,
        question: impl FnOnce(&mut Vec<u8>),
        mut read: impl FnMut(&[u8]) -> Result<(usize, bool), String>,
    ) -> Result<(), String> {
        let Some(connection) = self.links.first_mut().and_then(|link| link.connection.as_mut()) else {
            return Err("no connection".to_owned());
        };
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        question(connection.output());
        connection.flush(&self.poller, 0).map_err(|error| error.to_string())?;
        let mut ready = Vec::new();
        loop {
            let (consumed, done) = read(connection.input())?;
            connection.consume(consumed);
            if done {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("no answer in time".to_owned());
            }
            ready.clear();
            self.poller.wait(Duration::from_millis(10), &mut ready).map_err(|error| error.to_string())?;
            connection.fill().map_err(|error| error.to_string())?;
        }
    }

    fn receive(&mut self, number: usize, completions: &mut Vec<Completion>) {
        let link = &mut self.links[number];
        let Some(connection) = &mut link.connection else { return };
        match connection.fill() {
            Ok(true) => {}
            Ok(false) => return,
            Err(_) => return self.broken.push(number),
        }
        let at_ns = self.clock.now();
        while !connection.input().is_empty() {
            let Some(&(tag, kind)) = link.waiting.front() else { return self.broken.push(number) };
            let (result, consumed) = match self.wire.answer(kind, connection.input()) {
                Ok(None) => return,
                Ok(Some(parsed)) => parsed,
                Err(Malformed) => return self.broken.push(number),
            };
            connection.consume(consumed);
            link.waiting.pop_front();
            completions.push(Completion { tag, at_ns, result });
        }
    }

    /// Fails what broken links had outstanding and connects them again, not more often than the pause allows.
    fn mend(&mut self, completions: &mut Vec<Completion>) {
        let now = Instant::now();
        for number in std::mem::take(&mut self.broken) {
            let link = &mut self.links[number];
            if link.connection.take().is_some() {
                let at_ns = self.clock.now();
                let failed = link.waiting.drain(..);
                completions.extend(failed.map(|(tag, _)| Completion {
                    tag,
                    at_ns,
                    result: Err(ErrorKind::Disconnected),
                }));
                link.reconnect_at = now + RECONNECT_PAUSE;
            }
            if now < link.reconnect_at {
                self.broken.push(number);
                continue;
            }
            link.reconnect_at = now + RECONNECT_PAUSE;
            let connected = Connection::connect(link.address, RECONNECT_TIMEOUT)
                .and_then(|connection| self.poller.add(&connection, number as u64).map(|()| connection));
            match connected {
                Ok(connection) => link.connection = Some(connection),
                Err(_) => self.broken.push(number),
            }
        }
    }
}

impl<W: Wire> Target for PipelinedTarget<W> {
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, _now_ns: u64) -> Result<(), Busy> {
        let number = (tag as u32) as usize % self.links.len();
        let link = &mut self.links[number];
        let Some(connection) = link.connection.as_mut().filter(|connection| connection.has_room()) else {
            return Err(Busy);
        };
        match operation.kind {
            OperationKind::Put => self.wire.put(connection.output(), operation.key, operation.value),
            OperationKind::Get => self.wire.get(connection.output(), operation.key),
            OperationKind::Delete => self.wire.delete(connection.output(), operation.key),
        }
        link.waiting.push_back((tag, operation.kind));
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(number);
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> Result<(), TargetError> {
        for number in self.dirty.drain(..) {
            let link = &mut self.links[number];
            link.dirty = false;
            if let Some(connection) = &mut link.connection
                && connection.flush(&self.poller, number as u64).is_err()
            {
                self.broken.push(number);
            }
        }
        if !self.broken.is_empty() {
            self.mend(completions);
        }
        let timeout = if completions.is_empty() { timeout } else { Duration::ZERO };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.poller.wait(timeout, &mut ready)?;
        for &token in &ready {
            let number = token as usize;
            self.receive(number, completions);
            if let Some(connection) = &mut self.links[number].connection
                && connection.flush(&self.poller, token).is_err()
            {
                self.broken.push(number);
            }
        }
        self.ready = ready;
        Ok(())
    }

    fn facts(&self) -> TargetFacts {
        self.facts.clone()
    }
}
