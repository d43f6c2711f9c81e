//! ringraft over its native protocol: the product's own client core, driven by this generator's event loop.
//!
//! Off the data path.
//!
//! As many clients as `--connections`, each with one connection to every leader and one session per group
//! (exactly-once writes; reads as fresh as is asked for), as separate client processes would have. An operation's tag picks its
//! client.
//!
//! Invariant: every accepted operation ends in exactly one completion, because the client core sees to that; retries,
//! redirects and deadlines are its business and are inside the latency.
//!
//! It copies nothing: requests are encoded into the core's send buffer, which is written to the socket.

use std::time::{Duration, Instant};

use ringraft_net::client::{Action, ClientError, ConnectionId, Core, Options, Results, Submission};
use ringraft_net::wire::{Consistency, OperationRef, OperationResultRef};

use super::socket::{Connection, Poller, resolve};
use super::{Busy, Completion, Seen, Target, TargetError, TargetFacts};
use crate::clock::{Clock, MonotonicClock};
use crate::recorder::ErrorKind;
use crate::workload::{Operation, OperationKind, mark_of};

/// How long the cluster may take to be found at the start.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait between two looks at the cores' timers.
const TICK: Duration = Duration::from_millis(5);
const IN_FLIGHT_MAX: usize = 16_384;

struct Socket {
    id: ConnectionId,
    connection: Connection,
    connecting: bool,
}

/// One client with its sockets, found by the places of their ids.
struct Client {
    core: Core,
    sockets: Vec<Option<Socket>>,
}

/// A ringraft cluster under load.
pub struct RingraftTarget {
    clock: MonotonicClock,
    poller: Poller,
    ready: Vec<u64>,
    clients: Vec<Client>,
    /// How fresh reads are.
    consistency: Consistency,
    /// Operations which the core refused as malformed.
    refused: Vec<Completion>,
}

impl RingraftTarget {
    /// Finds the cluster behind the endpoints. Reads are as fresh as `consistency` says, `timeout` is the deadline of an operation, retries included.
    pub fn connect(
        endpoints: &[String],
        connections: usize,
        consistency: Consistency,
        timeout: Duration,
        clock: MonotonicClock,
    ) -> Result<Self, TargetError> {
        let addresses = endpoints.iter().map(|endpoint| resolve(endpoint)).collect::<Result<Vec<_>, _>>()?;
        let mut clients = Vec::with_capacity(connections);
        for number in 0..connections {
            let mut endpoints = addresses.clone();
            endpoints.rotate_left(number % addresses.len().max(1));
            let options = Options {
                endpoints,
                connections: 1,
                in_flight_max: IN_FLIGHT_MAX,
                request_timeout: timeout.max(Duration::from_millis(1)),
                seed: u64::from(std::process::id()) << 16 | number as u64,
                ..Options::default()
            };
            let core = Core::new(options).map_err(|error| failed(&addresses, &error.to_string()))?;
            clients.push(Client { core, sockets: Vec::new() });
        }
        let (ready, refused) = (Vec::new(), Vec::new());
        let mut target = Self { clock, poller: Poller::new()?, ready, clients, consistency, refused };
        target.find_cluster().map_err(|reason| failed(&addresses, &reason))?;
        Ok(target)
    }

    fn find_cluster(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + START_TIMEOUT;
        let now_us = self.clock.now() / 1_000;
        for client in &mut self.clients {
            client.core.start(now_us);
        }
        let mut none = Vec::new();
        while let Some(waiting) = self.clients.iter().find(|client| !client.core.is_ready()) {
            if Instant::now() > deadline {
                let problem = waiting.core.problem().unwrap_or("no node answered");
                return Err(format!("no node told the cluster's topology within {START_TIMEOUT:?}: {problem}"));
            }
            self.poll(TICK, &mut none).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn receive(&mut self, token: u64, completions: &mut Vec<Completion>) {
        let Self { clock, poller, clients, .. } = self;
        let now_ns = clock.now();
        if let Some(client) = clients.get_mut((token >> 32) as usize) {
            client.serve(token, poller, now_ns / 1_000);
            client.collect(now_ns, completions);
        }
    }
}

fn failed(addresses: &[std::net::SocketAddr], reason: &str) -> TargetError {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    TargetError::Connect { address: addresses.join(","), reason: reason.to_owned() }
}

fn token_of(number: usize, place: usize) -> u64 {
    (number as u64) << 32 | place as u64
}

impl Client {
    /// Does what the core wants done, and sends what it wants sent.
    fn act(&mut self, number: usize, poller: &Poller, now_us: u64) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect { connection: id, address } => {
                    let begun = address.resolve().and_then(Connection::begin).and_then(|mut connection| {
                        poller.add_connecting(&mut connection, token_of(number, id.place()))?;
                        Ok(connection)
                    });
                    match begun {
                        Ok(connection) => self.place(id, Socket { id, connection, connecting: true }),
                        Err(_) => self.core.disconnected(id, now_us),
                    }
                }
                Action::Close { connection } => self.drop_socket(connection),
            }
        }
        while let Some(id) = self.core.next_writable() {
            self.send(id, number, poller, now_us);
        }
    }

    fn place(&mut self, id: ConnectionId, socket: Socket) {
        if self.sockets.len() <= id.place() {
            self.sockets.resize_with(id.place() + 1, || None);
        }
        self.sockets[id.place()] = Some(socket);
    }

    fn drop_socket(&mut self, id: ConnectionId) {
        if let Some(place) = self.sockets.get_mut(id.place()).filter(|place| place.as_ref().is_some_and(|s| s.id == id))
        {
            *place = None;
        }
    }

    fn send(&mut self, id: ConnectionId, number: usize, poller: &Poller, now_us: u64) {
        let Some(Some(socket)) = self.sockets.get_mut(id.place()) else { return };
        let Some(outgoing) = self.core.outgoing(id) else { return };
        match socket.connection.write(outgoing.pending(), poller, token_of(number, id.place())) {
            Ok(bytes) => outgoing.sent(bytes),
            Err(_) => self.lose(id, now_us),
        }
    }

    fn lose(&mut self, id: ConnectionId, now_us: u64) {
        self.drop_socket(id);
        self.core.disconnected(id, now_us);
    }

    /// A socket is ready: it was made, or bytes came, or it takes more.
    fn serve(&mut self, token: u64, poller: &Poller, now_us: u64) {
        let (number, place) = ((token >> 32) as usize, token as u32 as usize);
        let Some(Some(socket)) = self.sockets.get_mut(place) else { return };
        let id = socket.id;
        if socket.connecting {
            match socket.connection.established() {
                Ok(true) => {
                    socket.connecting = false;
                    self.core.connected(id, now_us);
                    self.send(id, number, poller, now_us);
                }
                Ok(false) => {}
                Err(_) => self.lose(id, now_us),
            }
            return;
        }
        match socket.connection.fill() {
            Ok(true) => {
                let input = socket.connection.input();
                let bytes = input.len();
                self.core.receive(id, input, now_us);
                socket.connection.consume(bytes);
            }
            // Woken for output, or for nothing.
            Ok(false) => self.send(id, number, poller, now_us),
            Err(_) => self.lose(id, now_us),
        }
    }

    fn collect(&mut self, at_ns: u64, completions: &mut Vec<Completion>) {
        while let Some(completion) = self.core.next_completion() {
            let result = judge(&completion.result);
            completions.push(Completion { tag: completion.tag, at_ns, result });
        }
    }
}

fn judge(result: &Result<Results<'_>, ClientError>) -> Result<Seen, ErrorKind> {
    match result {
        Ok(Results::One(OperationResultRef::Put { .. })) => Ok(Seen::Written),
        Ok(Results::One(OperationResultRef::Value(None) | OperationResultRef::Deleted { existed: false })) => {
            Ok(Seen::Missing)
        }
        Ok(Results::One(OperationResultRef::Deleted { existed: true })) => Ok(Seen::Deleted),
        Ok(Results::One(OperationResultRef::Value(Some(value)))) => {
            Ok(Seen::Value { length: value.len(), mark: mark_of(value) })
        }
        Ok(_) => Err(ErrorKind::Protocol),
        Err(error) => Err(kind_of(error)),
    }
}

fn kind_of(error: &ClientError) -> ErrorKind {
    match error {
        ClientError::DeadlineExceeded { .. } => ErrorKind::Timeout,
        ClientError::Overloaded { .. } => ErrorKind::Overloaded,
        ClientError::BadRequest { .. } => ErrorKind::BadRequest,
        ClientError::SessionExpired => ErrorKind::SessionExpired,
        ClientError::OutcomeUnknown => ErrorKind::OutcomeUnknown,
        ClientError::Refused { .. } => ErrorKind::Unavailable,
        ClientError::Closed { .. } => ErrorKind::Disconnected,
    }
}

impl Target for RingraftTarget {
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, now_ns: u64) -> Result<(), Busy> {
        let number = (tag as u32) as usize % self.clients.len();
        let client = &mut self.clients[number];
        let operations = [match operation.kind {
            OperationKind::Put => OperationRef::Put { key: operation.key, value: operation.value },
            OperationKind::Get => OperationRef::Get { key: operation.key },
            OperationKind::Delete => OperationRef::Delete { key: operation.key },
        }];
        let submission = Submission { consistency: self.consistency, ..Submission::new(tag, &operations) };
        match client.core.submit(&submission, now_ns / 1_000) {
            Ok(()) => Ok(()),
            Err(ClientError::Overloaded { .. }) => Err(Busy),
            Err(error) => {
                self.refused.push(Completion { tag, at_ns: now_ns, result: Err(kind_of(&error)) });
                Ok(())
            }
        }
    }

    fn poll(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> Result<(), TargetError> {
        let now_ns = self.clock.now();
        let Self { poller, clients, .. } = self;
        for (number, client) in clients.iter_mut().enumerate() {
            client.core.tick(now_ns / 1_000);
            client.act(number, poller, now_ns / 1_000);
            client.collect(now_ns, completions);
        }
        completions.append(&mut self.refused);
        let timeout = if completions.is_empty() { timeout.min(TICK) } else { Duration::ZERO };
        let mut ready = std::mem::take(&mut self.ready);
        ready.clear();
        self.poller.wait(timeout, &mut ready)?;
        for &token in &ready {
            self.receive(token, completions);
        }
        self.ready = ready;
        Ok(())
    }

    fn facts(&self) -> TargetFacts {
        let open = self.clients.iter().flat_map(|client| &client.sockets).filter(|socket| socket.is_some()).count();
        let mut facts = TargetFacts { connections: open, ..TargetFacts::default() };
        if let Some(client) = self.clients.first() {
            facts.nodes = client.core.nodes().len();
            facts.groups = Some(client.core.groups());
            facts.settings.insert("shards".to_owned(), client.core.shards().to_string());
            facts.settings.insert("reads".to_owned(), self.consistency.name().to_owned());
            facts.settings.insert("sessions".to_owned(), format!("on, {} per group", self.clients.len()));
        }
        facts
    }
}
