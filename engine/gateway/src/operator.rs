//! What operators ask: of the leader of a group wherever it is, or of one node; and what other nodes say of themselves.
//!
//! Off the data path.
//! Invariants: every question has a deadline and, but for the status of the own node, a connection of its own; a question whose connection broke before the
//! answer is not asked again, since only the caller knows whether that is safe.
//! It does not judge answers but refusals.

use std::collections::BTreeMap;
use std::time::Duration;

use ringraft_net::client::tokio::Client;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::handshake::{ANY_CLUSTER, ANY_NODE, ANY_SHARD, Dialer};
use ringraft_net::limits::Limits;
use ringraft_net::slots;
use ringraft_net::wire::{self, AdminReply, AdminRequest, NodeInfo, Topology};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::errors::{Code, Failure};
use crate::settings::Settings;

/// Longest wait for a connection, and for the status of another node.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two questions for a leader.
const PAUSE: Duration = Duration::from_millis(50);
const READ_BYTES: usize = 16 << 10;

/// What became of a question that was not refused.
pub type AdminAnswer = Result<AdminReply, Failure>;

/// A frame, copied out of what was received.
struct Answer {
    kind: FrameKind,
    head: Vec<u8>,
}

/// A connection to one shard.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    welcome: wire::Welcome,
}

fn unavailable(what: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Unavailable, what.to_string())
}

impl Connection {
    async fn open(address: &str) -> Result<Self, Failure> {
        match timeout(PATIENCE, Self::greet(address)).await {
            Ok(greeted) => greeted.map_err(|error| unavailable(format_args!("{address}: {error}"))),
            Err(_) => Err(unavailable(format_args!("{address} does not answer within {PATIENCE:?}"))),
        }
    }

    async fn greet(address: &str) -> Result<Self, String> {
        let mut stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let dialer = Dialer::client(ANY_CLUSTER, ANY_NODE, ANY_SHARD);
        let mut hello = Vec::new();
        dialer.start(&mut hello);
        stream.write_all(&hello).await.map_err(|error| error.to_string())?;
        let mut received = Vec::new();
        loop {
            if let Some((welcome, consumed)) = dialer.receive(&received).map_err(|error| error.to_string())? {
                received.drain(..consumed);
                return Ok(Self { stream, received, welcome });
            }
            receive(&mut stream, &mut received).await?;
        }
    }

    /// One question and its answer. A connection on which one was not finished is of no use for another.
    async fn exchange(&mut self, question: &[u8]) -> Result<Answer, String> {
        self.stream.write_all(question).await.map_err(|error| error.to_string())?;
        loop {
            let parsed = frame::parse(&self.received, &Limits::CLIENT).map_err(|error| error.to_string())?;
            if let Some(frame) = parsed {
                let (answer, bytes) = (Answer { kind: frame.kind, head: frame.head.to_vec() }, frame.total_bytes);
                self.received.drain(..bytes);
                return Ok(answer);
            }
            receive(&mut self.stream, &mut self.received).await?;
        }
    }

    async fn status(&mut self) -> Result<String, String> {
        let mut question = Vec::new();
        wire::append_status(&mut question, 1);
        let answer = self.exchange(&question).await?;
        if answer.kind != FrameKind::StatusReply {
            return Err(format!("answered a question for its status with {:?}", answer.kind));
        }
        String::from_utf8(answer.head).map_err(|_| String::from("the status is no text"))
    }

    async fn administrate(&mut self, request: &AdminRequest) -> Result<AdminReply, String> {
        let mut question = Vec::new();
        request.append_frame(&mut question, 1);
        let answer = self.exchange(&question).await?;
        if answer.kind != FrameKind::AdminReply {
            return Err(format!("answered an admin question with {:?}", answer.kind));
        }
        wire::view_admin_reply(&answer.head).map_err(|error| error.to_string())
    }
}

/// Appends what comes next; the end of the stream is an error.
async fn receive(stream: &mut TcpStream, received: &mut Vec<u8>) -> Result<(), String> {
    let start = received.len();
    received.resize(start + READ_BYTES, 0);
    let read = stream.read(&mut received[start..]).await;
    received.truncate(start + *read.as_ref().unwrap_or(&0));
    match read {
        Ok(0) => Err(String::from("the connection was closed")),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// The way to one shard of the own node.
#[derive(Debug)]
struct Line {
    address: String,
    /// Of the question before.
    connection: Option<Connection>,
}

impl Line {
    /// Asks on the connection there is, and on a new one if that is broken.
    async fn status(mut self) -> Result<(Self, String), Failure> {
        if let Some(mut connection) = self.connection.take()
            && let Ok(text) = connection.status().await
        {
            self.connection = Some(connection);
            return Ok((self, text));
        }
        let mut connection = Connection::open(&self.address).await?;
        let told = connection.status().await;
        let text = told.map_err(|error| unavailable(format_args!("{}: {error}", self.address)))?;
        self.connection = Some(connection);
        Ok((self, text))
    }
}

/// Connections to all shards of the own node, kept from one question to the next. No request of a client uses them: how
/// much clients ask for does not matter here.
#[derive(Debug)]
pub(crate) struct Lines {
    groups: u32,
    lines: Vec<Line>,
}

impl Lines {
    /// Groups of the cluster.
    pub(crate) fn groups(&self) -> u32 {
        self.groups
    }

    /// The status of each shard, all asked at once.
    async fn ask(self) -> Result<(Self, Vec<String>), Failure> {
        let (mut lines, mut texts) = (BTreeMap::new(), BTreeMap::new());
        let mut asked = JoinSet::new();
        for (shard, line) in self.lines.into_iter().enumerate() {
            asked.spawn(async move { (shard, line.status().await) });
        }
        while let Some(joined) = asked.join_next().await {
            let (shard, told) = joined.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
            let (line, text) = told?;
            lines.insert(shard, line);
            texts.insert(shard, text);
        }
        Ok((Self { groups: self.groups, lines: lines.into_values().collect() }, texts.into_values().collect()))
    }
}

/// Asks what operators ask.
#[derive(Clone, Debug)]
pub struct Operator {
    client: Client,
    endpoint: Option<String>,
    node: u64,
    patience: Duration,
}

impl Operator {
    pub(crate) fn new(client: Client, settings: &Settings) -> Self {
        let endpoint = settings.endpoints.first().map(ToString::to_string);
        Self { client, endpoint, node: settings.node, patience: settings.request_timeout }
    }

    /// The nodes and the leaders as the own node knows them.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn topology(&self) -> Result<Topology, Failure> {
        let endpoint = self.endpoint.as_deref().ok_or_else(|| unavailable("the own node has no address"))?;
        Ok(Connection::open(endpoint).await?.welcome.topology)
    }

    /// The status of a node's shard, JSON text, asked for at this address.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self, address: &str) -> Result<String, Failure> {
        let mut connection = Connection::open(address).await?;
        match timeout(PATIENCE, connection.status()).await {
            Ok(told) => told.map_err(|error| unavailable(format_args!("{address}: {error}"))),
            Err(_) => Err(unavailable(format_args!("{address} does not answer within {PATIENCE:?}"))),
        }
    }

    /// The status of each shard of the own node, JSON texts in their order, through what an earlier call gave back.
    ///
    /// # Errors
    /// One of them does not answer, or not within [`PATIENCE`].
    pub(crate) async fn own_status(&self, kept: Option<Lines>) -> Result<(Lines, Vec<String>), Failure> {
        let asked = async {
            let lines = match kept {
                Some(lines) => lines,
                None => self.lines().await?,
            };
            lines.ask().await
        };
        let late = |_| unavailable(format_args!("the shards of this node do not answer within {PATIENCE:?}"));
        timeout(PATIENCE, asked).await.map_err(late)?
    }

    async fn lines(&self) -> Result<Lines, Failure> {
        let Topology { groups, nodes, .. } = self.topology().await?;
        let own = nodes.into_iter().find(|node| node.node == self.node).filter(|_| groups > 0);
        let own = own.ok_or_else(|| unavailable("the own node is no member of the cluster"))?;
        let lines = own.addresses.into_iter().map(|address| Line { address, connection: None }).collect();
        Ok(Lines { groups, lines })
    }

    /// Asks the shard of a node that hosts a group.
    ///
    /// # Errors
    /// It refuses or does not answer in time; then it may have been done.
    pub async fn ask_node(&self, node: u64, group: u32, request: &AdminRequest) -> AdminAnswer {
        let topology = self.topology().await?;
        check_group(&topology, group)?;
        let known = topology.nodes.iter().find(|known| known.node == node);
        let known = known.ok_or_else(|| Failure::new(Code::NotFound, format!("there is no node {node}")))?;
        let address = address_of(known, group, &topology)?;
        let mut connection = Connection::open(address).await?;
        match timeout(self.patience, connection.administrate(request)).await {
            Ok(Ok(reply)) => judged(reply),
            Ok(Err(error)) => Err(lost(&error)),
            Err(_) => Err(lost(&format!("no answer within {:?}", self.patience))),
        }
    }

    /// Asks one node after the other until one leads the group.
    ///
    /// # Errors
    /// The leader refuses, none is found in time, or its answer was lost; then it may have been done.
    pub async fn ask_leader(&self, group: u32, request: &AdminRequest, patience: Duration) -> AdminAnswer {
        let deadline = Instant::now() + patience;
        let mut topology = self.topology().await?;
        check_group(&topology, group)?;
        let mut leader = topology.leaders.get(group as usize).copied().flatten();
        let mut turn = 0;
        loop {
            let any = topology.nodes.get(turn % topology.nodes.len().max(1));
            let known = topology.nodes.iter().find(|node| Some(node.node) == leader).or(any);
            let node = known.ok_or_else(|| unavailable("the cluster shows no nodes"))?.clone();
            let problem = match Connection::open(address_of(&node, group, &topology)?).await {
                Ok(mut connection) => match timeout_at(deadline, connection.administrate(request)).await {
                    Ok(Ok(AdminReply::NotLeader { leader: known, .. })) => {
                        leader = known.filter(|known| *known != node.node);
                        let shown = connection.welcome.topology;
                        if shown.epoch > topology.epoch && !shown.nodes.is_empty() {
                            topology = shown;
                        }
                        format!("node {} does not lead it", node.node)
                    }
                    Ok(Ok(reply)) => return judged(reply),
                    Ok(Err(error)) => return Err(lost(&error)),
                    Err(_) => return Err(lost("no answer in time")),
                },
                Err(failure) => {
                    leader = None;
                    failure.message
                }
            };
            if Instant::now() >= deadline {
                return Err(unavailable(format_args!("no leader of group {group} was found in time: {problem}")));
            }
            if leader.is_none() {
                turn += 1;
                sleep(PAUSE).await;
            }
        }
    }

    /// The client, for questions about data.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

fn lost(problem: &str) -> Failure {
    Failure::new(Code::OutcomeUnknown, format!("{problem}: it may have been or may yet be done; asking again is safe"))
}

fn judged(reply: AdminReply) -> AdminAnswer {
    match reply {
        AdminReply::Refused { code, message } => Err((code, message).into()),
        AdminReply::NotLeader { leader, .. } => {
            let failure = Failure::new(Code::NotLeader, "this replica does not lead the group");
            Err(Failure { leader, ..failure })
        }
        AdminReply::Moved { .. } => Err(Failure::new(Code::Internal, "the shard does not host the group")),
        reply => Ok(reply),
    }
}

fn check_group(topology: &Topology, group: u32) -> Result<(), Failure> {
    let known = group < topology.groups;
    known.then_some(()).ok_or_else(|| Failure::new(Code::NotFound, format!("there is no group {group}")))
}

fn address_of<'a>(node: &'a NodeInfo, group: u32, topology: &Topology) -> Result<&'a str, Failure> {
    let shard = slots::shard_of_group(group, topology.shards);
    let address = node.addresses.get(usize::from(shard)).map(String::as_str);
    address.ok_or_else(|| unavailable(format_args!("node {} has no shard {shard}", node.node)))
}
