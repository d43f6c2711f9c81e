//! Redis (or anything that speaks RESP2): SET and GET, pipelined over a few connections.
//!
//! Off the data path.
//!
//! Invariant: replies of a connection come in the order of its commands, so a queue of tags per connection is all the
//! state there is. A broken connection fails what it had outstanding and is made anew.
//!
//! It reports how Redis is configured (`appendonly`, `appendfsync`), because figures without `always` compare a memory
//! cache with a durable store.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::resp::{self, Reply};
use super::socket::{Connection, Poller, resolve};
use super::{Busy, Completion, Seen, Target, TargetError, TargetFacts};
use crate::clock::{Clock, MonotonicClock};
use crate::recorder::ErrorKind;
use crate::workload::{Operation, OperationKind, mark_of};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const RECONNECT_TIMEOUT: Duration = Duration::from_millis(200);

struct Link {
    /// `None` while broken.
    connection: Option<Connection>,
    /// Tags of the commands sent and not answered, oldest first.
    waiting: VecDeque<u64>,
    dirty: bool,
    reconnect_at: Instant,
}

/// A Redis under load.
pub struct RedisTarget {
    clock: MonotonicClock,
    address: SocketAddr,
    poller: Poller,
    ready: Vec<u64>,
    links: Vec<Link>,
    /// Links with output to send in this turn.
    dirty: Vec<usize>,
    /// Links that broke, also outside of `poll`.
    broken: Vec<usize>,
    facts: TargetFacts,
}

impl RedisTarget {
    /// Connects and asks for the settings.
    pub fn connect(address: &str, connections: usize, clock: MonotonicClock) -> Result<Self, TargetError> {
        let resolved = resolve(address)?;
        let poller = Poller::new()?;
        let mut links = Vec::with_capacity(connections);
        for token in 0..connections as u64 {
            let connection = Connection::connect(resolved, CONNECT_TIMEOUT)
                .map_err(|error| TargetError::Connect { address: address.to_owned(), reason: error.to_string() })?;
            poller.add(&connection, token)?;
            let (waiting, reconnect_at) = (VecDeque::with_capacity(1024), Instant::now());
            links.push(Link { connection: Some(connection), waiting, dirty: false, reconnect_at });
        }
        let facts = TargetFacts { nodes: 1, connections, ..TargetFacts::default() };
        let (ready, dirty, broken) = (Vec::new(), Vec::new(), Vec::new());
        let mut target = Self { clock, address: resolved, poller, ready, links, dirty, broken, facts };
        target.ask_settings(address)?;
        Ok(target)
    }

    fn ask_settings(&mut self, address: &str) -> Result<(), TargetError> {
        let Some(mut connection) = self.links.first_mut().and_then(|link| link.connection.take()) else {
            return Ok(());
        };
        let settings = ask_settings(&mut self.poller, &mut connection)
            .map_err(|reason| TargetError::Handshake { address: address.to_owned(), reason })?;
        self.links[0].connection = Some(connection);
        let durable = settings.iter().any(|(name, value)| name == "appendonly" && value == "yes")
            && settings.iter().any(|(name, value)| name == "appendfsync" && value == "always");
        if !durable {
            let warning = "redis does not flush before it answers (appendonly yes and appendfsync always would)";
            self.facts.warnings.push(warning.to_owned());
        }
        self.facts.settings.extend(settings);
        Ok(())
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
        loop {
            let (result, consumed) = match resp::parse(connection.input()) {
                Ok(None) => return,
                Ok(Some((reply, consumed))) => (judge(reply), consumed),
                Err(_) => return self.broken.push(number),
            };
            connection.consume(consumed);
            let Some(tag) = link.waiting.pop_front() else { return self.broken.push(number) };
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
                completions.extend(failed.map(|tag| Completion { tag, at_ns, result: Err(ErrorKind::Disconnected) }));
                link.reconnect_at = now + RECONNECT_PAUSE;
            }
            if now < link.reconnect_at {
                self.broken.push(number);
                continue;
            }
            link.reconnect_at = now + RECONNECT_PAUSE;
            let connected = Connection::connect(self.address, RECONNECT_TIMEOUT)
                .and_then(|connection| self.poller.add(&connection, number as u64).map(|()| connection));
            match connected {
                Ok(connection) => link.connection = Some(connection),
                Err(_) => self.broken.push(number),
            }
        }
    }
}

fn judge(reply: Reply<'_>) -> Result<Seen, ErrorKind> {
    match reply {
        Reply::Simple(b"OK") => Ok(Seen::Written),
        Reply::Bulk(None) => Ok(Seen::Missing),
        Reply::Bulk(Some(value)) => Ok(Seen::Value { length: value.len(), mark: mark_of(value) }),
        Reply::Error(_) => Err(ErrorKind::ServerError),
        Reply::Simple(_) | Reply::Integer(_) | Reply::Array(_) => Err(ErrorKind::Protocol),
    }
}

/// Asks a fresh connection for version and durability, within the connect timeout.
fn ask_settings(poller: &mut Poller, connection: &mut Connection) -> Result<Vec<(String, String)>, String> {
    let mut settings = Vec::new();
    for name in ["appendonly", "appendfsync", "save"] {
        resp::encode(connection.output(), &[b"CONFIG", b"GET", name.as_bytes()]);
        let words = ask(poller, connection, 3)?;
        if let [_, _, value] = words.as_slice() {
            settings.push((name.to_owned(), value.clone()));
        }
    }
    resp::encode(connection.output(), &[b"INFO", b"server"]);
    for line in ask(poller, connection, 1)?.concat().lines() {
        if let Some(version) = line.strip_prefix("redis_version:") {
            settings.push(("version".to_owned(), version.to_owned()));
        }
    }
    Ok(settings)
}

/// Sends the output and waits for `replies` replies (an array header counts as one) or one error.
fn ask(poller: &mut Poller, connection: &mut Connection, replies: usize) -> Result<Vec<String>, String> {
    let deadline = Instant::now() + CONNECT_TIMEOUT;
    connection.flush(poller, 0).map_err(|error| error.to_string())?;
    let mut words = Vec::new();
    let mut ready = Vec::new();
    while words.len() < replies {
        while let Some((reply, consumed)) = resp::parse(connection.input()).map_err(|error| error.to_string())? {
            let word = match reply {
                Reply::Simple(text) | Reply::Bulk(Some(text)) => String::from_utf8_lossy(text).into_owned(),
                Reply::Error(text) => {
                    let text = String::from_utf8_lossy(text).into_owned();
                    // A managed Redis may refuse CONFIG; one that wants a password refuses everything.
                    if text.starts_with("NOAUTH") {
                        return Err(text);
                    }
                    connection.consume(consumed);
                    return Ok(Vec::new());
                }
                Reply::Integer(_) | Reply::Bulk(None) => String::new(),
                Reply::Array(_) => "array".to_owned(),
            };
            words.push(word);
            connection.consume(consumed);
        }
        if words.len() >= replies {
            break;
        }
        if Instant::now() > deadline {
            return Err("no answer in time".to_owned());
        }
        ready.clear();
        poller.wait(Duration::from_millis(10), &mut ready).map_err(|error| error.to_string())?;
        connection.fill().map_err(|error| error.to_string())?;
    }
    Ok(words)
}

impl Target for RedisTarget {
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, _now_ns: u64) -> Result<(), Busy> {
        let number = (tag as u32) as usize % self.links.len();
        let link = &mut self.links[number];
        let Some(connection) = link.connection.as_mut().filter(|connection| connection.has_room()) else {
            return Err(Busy);
        };
        match operation.kind {
            OperationKind::Put => resp::encode(connection.output(), &[b"SET", operation.key, operation.value]),
            OperationKind::Get => resp::encode(connection.output(), &[b"GET", operation.key]),
        }
        link.waiting.push_back(tag);
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
