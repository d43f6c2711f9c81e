//! Systems that answer a connection's requests in their order: one loop over a few pipelined connections.
//!
//! Off the data path.
//!
//! Invariant: answers of a connection come in the order of its requests, so a queue of tags per connection is all the
//! state there is. A broken connection fails what it had outstanding and is made anew, while the others go on.
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
    /// `None` while broken; while it is mended, one that is being made.
    connection: Option<Connection>,
    /// Broken, and what it had outstanding is failed; takes nothing until it is made anew.
    mending: bool,
    /// Requests sent and not answered, oldest first.
    waiting: VecDeque<(u64, OperationKind)>,
    dirty: bool,
    /// While it is mended: when to begin to connect, or to give up if that is under way.
    next_at: Instant,
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
    /// Links that broke, also outside of `poll`, until they are mended.
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
            let (waiting, next_at) = (VecDeque::with_capacity(1024), Instant::now());
            let connection = Some(connection);
            links.push(Link { address, connection, mending: false, waiting, dirty: false, next_at });
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
        if link.mending {
            return self.receive_mending(number);
        }
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

    /// A connection that is being made has news: it is made, or cannot be.
    fn receive_mending(&mut self, number: usize) {
        let link = &mut self.links[number];
        match link.connection.as_ref().map(Connection::established) {
            Some(Ok(true)) => {
                link.mending = false;
                self.broken.retain(|&broken| broken != number);
            }
            Some(Err(_)) => link.retry(),
            Some(Ok(false)) | None => {}
        }
    }

    /// Fails what broken links had outstanding and connects them again, not more often than the pause allows and without
    /// waiting for any.
    fn mend(&mut self, completions: &mut Vec<Completion>) {
        let now = Instant::now();
        // A link may have been found broken more than once.
        self.broken.sort_unstable();
        self.broken.dedup();
        for &number in &self.broken {
            let link = &mut self.links[number];
            if !link.mending {
                link.mending = true;
                link.retry();
                let at_ns = self.clock.now();
                let failed = link.waiting.drain(..);
                completions.extend(failed.map(|(tag, _)| Completion {
                    tag,
                    at_ns,
                    result: Err(ErrorKind::Disconnected),
                }));
            }
            if now < link.next_at {
                continue;
            }
            if link.connection.is_some() {
                link.retry();
                continue;
            }
            let begun = Connection::begin(link.address).and_then(|mut connection| {
                self.poller.add_connecting(&mut connection, number as u64)?;
                Ok(connection)
            });
            match begun {
                Ok(connection) => {
                    link.connection = Some(connection);
                    link.next_at = now + RECONNECT_TIMEOUT;
                }
                Err(_) => link.retry(),
            }
        }
    }
}

impl Link {
    /// Closes what there is of a connection; another one is begun after a pause.
    fn retry(&mut self) {
        self.connection = None;
        self.next_at = Instant::now() + RECONNECT_PAUSE;
    }
}

impl<W: Wire> Target for PipelinedTarget<W> {
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, _now_ns: u64) -> Result<(), Busy> {
        let number = (tag as u32) as usize % self.links.len();
        let link = &mut self.links[number];
        let is_made = !link.mending;
        let Some(connection) = link.connection.as_mut().filter(|connection| is_made && connection.has_room()) else {
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
                && !link.mending
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
            let link = &mut self.links[number];
            if let Some(connection) = &mut link.connection
                && !link.mending
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use socket2::SockRef;

    use super::super::redis::RedisWire;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// Says `+OK` to whatever comes: one command at a time is on its way.
    fn answer_all(listener: TcpListener) {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut bytes = [0; 4096];
                    while stream.read(&mut bytes).is_ok_and(|count| count > 0) && stream.write_all(b"+OK\r\n").is_ok() {
                    }
                });
            }
        });
    }

    /// One put over the link; `None`: it takes nothing now.
    fn put(target: &mut PipelinedTarget<RedisWire>, link: u64) -> Option<Result<Seen, ErrorKind>> {
        let operation = Operation { kind: OperationKind::Put, key: b"key-000000000001", value: b"value" };
        target.submit(&operation, link, 0).ok()?;
        let (deadline, mut ends) = (Instant::now() + PATIENCE, Vec::new());
        while !ends.iter().any(|end: &Completion| end.tag == link) {
            assert!(Instant::now() < deadline, "no answer over link {link}");
            target.poll(Duration::from_millis(1), &mut ends).unwrap();
        }
        ends.iter().find(|end| end.tag == link).map(|end| end.result)
    }

    #[test]
    fn other_links_go_on_while_one_is_mended() {
        let [good, bad] = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let addresses = [&good, &bad].map(|listener| listener.local_addr().unwrap());
        let mut target = PipelinedTarget::open(RedisWire, &addresses, 2, MonotonicClock::start()).unwrap();
        answer_all(good);
        // The second server hangs up, and nobody takes the connections that it gets then: its system lets them wait.
        SockRef::from(&bad).listen(0).unwrap();
        drop(bad.accept().unwrap());
        let waiting: Vec<Connection> = (0..4).map(|_| Connection::begin(addresses[1]).unwrap()).collect();
        assert!(TcpStream::connect_timeout(&addresses[1], Duration::from_millis(50)).is_err(), "its queue is not full");
        let deadline = Instant::now() + PATIENCE;
        while !(target.links[1].mending && target.links[1].connection.is_some()) {
            assert!(Instant::now() < deadline, "it is not mended");
            assert_eq!(put(&mut target, 0), Some(Ok(Seen::Written)));
        }
        assert!(put(&mut target, 1).is_none());
        assert_eq!(put(&mut target, 0), Some(Ok(Seen::Written)));
        drop(waiting);
        answer_all(bad);
        let deadline = Instant::now() + PATIENCE;
        while put(&mut target, 1) != Some(Ok(Seen::Written)) {
            assert!(Instant::now() < deadline, "not connected again");
            target.poll(Duration::from_millis(1), &mut Vec::new()).unwrap();
        }
        assert!(target.broken.is_empty() && !target.links[1].mending);
    }
}
