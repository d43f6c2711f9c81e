//! A small client of its own for tests: blocking, one session, the same sequence until it is answered.
//!
//! Off the data path.
//! It shares nothing with `ringraft_net::client`, so that the two cannot be wrong in the same way.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use ringraft_net::wire::{Consistency, Operation, OperationResult, Outcome, Reply, Request, Welcome};
use ringraft_tools::probe::Connection;

const PAUSE: Duration = Duration::from_millis(10);

/// A session with one group.
pub(crate) struct Session {
    endpoints: Vec<String>,
    at: usize,
    connection: Option<Connection>,
    welcome: Option<Welcome>,
    client: u64,
    sequence: u64,
    patience: Duration,
}

impl Session {
    /// No session on the server: for reads and writes that may be done twice.
    pub(crate) fn without(endpoints: &[String]) -> Self {
        let patience = Duration::from_secs(30);
        Self { endpoints: endpoints.to_vec(), at: 0, connection: None, welcome: None, client: 0, sequence: 0, patience }
    }

    /// Opens a session.
    pub(crate) fn open(endpoints: &[String], group: u32) -> Result<Self> {
        let mut session = Self::without(endpoints);
        let reply = session.call(vec![Operation::OpenSession { group }])?;
        match done(&reply)?.first() {
            Some(OperationResult::Session { client }) => session.client = *client,
            other => bail!("opening a session answered {other:?}"),
        }
        Ok(session)
    }

    /// How long one call may take.
    pub(crate) fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// One request until it is answered. Within a session it takes effect once, however often it was sent.
    pub(crate) fn call(&mut self, operations: Vec<Operation>) -> Result<Reply> {
        let deadline = Instant::now() + self.patience;
        self.sequence += 1;
        let request = Request {
            client: self.client,
            sequence: self.sequence,
            acknowledged: self.sequence,
            consistency: Consistency::Linearizable,
            operations,
        };
        let mut last = String::new();
        while Instant::now() < deadline {
            match self.send(&request) {
                Ok(reply @ Reply { outcome: Outcome::Done(_), .. }) => return Ok(reply),
                Ok(Reply { outcome: Outcome::NotLeader { leader, .. }, .. }) => {
                    last = format!("not leader, {leader:?} is");
                    self.turn_to(leader.and_then(|leader| self.address_of(leader)));
                }
                Ok(Reply { outcome: Outcome::Moved { address, .. }, .. }) => {
                    last = format!("moved to {address}");
                    self.turn_to(Some(address));
                }
                Ok(Reply {
                    outcome: outcome @ (Outcome::BadRequest { .. } | Outcome::SessionExpired | Outcome::TooStale),
                    ..
                }) => {
                    bail!("refused for good: {outcome:?}");
                }
                Ok(Reply { outcome: Outcome::Unavailable { message }, .. }) => {
                    last = message;
                    self.turn_to(None);
                }
                Ok(Reply { outcome, .. }) => last = format!("{outcome:?}"),
                Err(error) => {
                    last = format!("{error:#}");
                    self.turn_to(None);
                }
            }
            thread::sleep(PAUSE);
        }
        bail!("no answer within {:?}; last: {last}", self.patience)
    }

    fn send(&mut self, request: &Request) -> Result<Reply> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let (connection, welcome) = Connection::open(&self.endpoints[self.at])?;
                self.welcome = Some(welcome);
                connection
            }
        };
        let reply = connection.request(request)?;
        self.connection = Some(connection);
        Ok(reply)
    }

    /// Where a node serves the shard that was talked to last.
    fn address_of(&self, node: u64) -> Option<String> {
        let welcome = self.welcome.as_ref()?;
        let node = welcome.topology.nodes.iter().find(|known| known.node == node)?;
        node.addresses.get(usize::from(welcome.shard)).cloned()
    }

    /// To an address if it is one of the endpoints, else to the next endpoint.
    fn turn_to(&mut self, address: Option<String>) {
        let known = address.and_then(|address| self.endpoints.iter().position(|endpoint| *endpoint == address));
        self.at = known.unwrap_or((self.at + 1) % self.endpoints.len());
        self.connection = None;
    }

    /// Sets a key.
    pub(crate) fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let reply = self.call(vec![Operation::Put { key: key.into(), value: value.into() }])?;
        done(&reply).map(|_| ())
    }

    /// Reads a key.
    pub(crate) fn get(&mut self, key: &str) -> Result<Option<String>> {
        let reply = self.call(vec![Operation::Get { key: key.into() }])?;
        match done(&reply)?.first() {
            Some(OperationResult::Value(value)) => {
                Ok(value.as_ref().map(|value| String::from_utf8_lossy(value).into_owned()))
            }
            other => bail!("a get answered {other:?}"),
        }
    }

    /// Sets a key if it has the expected value; says whether it did.
    pub(crate) fn compare_and_set(&mut self, key: &str, expected: Option<&str>, value: &str) -> Result<bool> {
        let expected = expected.map(|expected| expected.as_bytes().to_vec());
        let operation = Operation::CompareAndSet { key: key.into(), expected, value: value.into() };
        match done(&self.call(vec![operation])?)?.first() {
            Some(OperationResult::Compared { swapped, .. }) => Ok(*swapped),
            other => bail!("a compare-and-set answered {other:?}"),
        }
    }
}

/// The results of a reply that is done.
pub(crate) fn done(reply: &Reply) -> Result<&[OperationResult]> {
    match &reply.outcome {
        Outcome::Done(results) => Ok(results),
        other => bail!("not done: {other:?}"),
    }
}
