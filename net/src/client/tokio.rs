//! Adapter of the client core to tokio: one task owns the core and its sockets, handles send it requests.
//!
//! Off the data path of a node.
//!
//! ```text
//!   Client (any number, any thread) ── bounded channel ──▶ Driver task: Core, sockets, timer
//!                                   ◀──── oneshot ────────
//! ```
//!
//! Invariants: the driver never blocks and is the only user of core and sockets; a call returns once, at its deadline at
//! the latest, also when it takes several requests; calls and dials that wait are bounded in number and time; when the last
//! handle is dropped the driver ends.
//!
//! It decides nothing.

mod operations;
mod ranges;

pub use self::ranges::VersionCompared;

use super::{
    Action, Address, ClientError, ConnectionId, Core, CoreStatistics, Options, OptionsError, Results, Submission,
};
use crate::{
    socket::{self, Socket},
    wire::{Consistency, Operation, OperationResult, Position},
};
use ::tokio::{
    net::{TcpStream, ToSocketAddrs, lookup_host},
    sync::{mpsc, oneshot},
    time::{Instant, Sleep, sleep_until, timeout},
};
use std::{
    collections::BTreeMap,
    future::Future,
    io,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

impl Socket for TcpStream {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// Requests between handles and driver at most.
const QUEUE_MAX: usize = 1_024;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;
/// Reads from one socket, and requests taken, before the others have their turn.
const TURN_MAX: usize = 16;

/// A result and where it stands in the history of its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<T> {
    /// The result.
    pub value: T,
    /// Its place.
    pub position: Position,
    /// The term there: of the entry of a write, of the replica that answered a read. 0: not known any more, which only the
    /// answer to a write that had to be repeated can say.
    pub term: u64,
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The options contradict themselves.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// An address cannot be resolved.
    #[error("cannot resolve an endpoint: {0}")]
    Resolve(io::Error),
    /// Nobody answered in time.
    #[error("no node of the cluster answered within {within:?}{}", problem.as_ref().map(|problem| format!("; last: {problem}")).unwrap_or_default())]
    NoAnswer {
        /// How long it was tried.
        within: Duration,
        /// The latest thing that went wrong.
        problem: Option<String>,
    },
    /// The cluster does not want this client.
    #[error(transparent)]
    Refused(ClientError),
}

/// What the client knows of its cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterInfo {
    /// Its id.
    pub cluster: [u8; 16],
    /// Number of groups.
    pub groups: u32,
    /// Shards of each node.
    pub shards: u16,
    /// Its nodes.
    pub nodes: Vec<u64>,
    /// Where each shard of each node listens, `host:port`.
    pub addresses: BTreeMap<(u64, u16), String>,
    /// Who leads each group, as far as known.
    pub leaders: Vec<Option<u64>>,
    /// The latest thing that went wrong with a connection.
    pub problem: Option<String>,
    /// The client's counters.
    pub statistics: CoreStatistics,
}

type Outcome = Result<((Position, u64), Reply), ClientError>;

#[derive(Debug)]
enum Reply {
    Results(Vec<OperationResult>),
    Status(String),
}

#[derive(Debug)]
enum Command {
    Request {
        operations: Vec<Operation>,
        consistency: Consistency,
        max_staleness_ms: u32,
        timeout: Option<Duration>,
        reply: oneshot::Sender<Outcome>,
    },
    Status {
        node: u64,
        shard: u16,
        reply: oneshot::Sender<Outcome>,
    },
    Ready {
        reply: oneshot::Sender<Result<(), ClientError>>,
    },
    Info {
        reply: oneshot::Sender<ClusterInfo>,
    },
    Look {
        fresh: Duration,
    },
}

/// A client of a cluster. Clones share one driver, its connections and its sessions.
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    request_timeout: Duration,
}

impl Client {
    /// Resolves the endpoints, starts the driver on the current runtime and waits until a node has shown the cluster, for
    /// `request_timeout` at most. `options.endpoints` are tried too.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect<A: ToSocketAddrs>(endpoints: &[A], mut options: Options) -> Result<Self, ConnectError> {
        for endpoint in endpoints {
            options.endpoints.extend(lookup_host(endpoint).await.map_err(ConnectError::Resolve)?);
        }
        let within = options.request_timeout;
        let client = Self::start(options)?;
        let (reply, answer) = oneshot::channel();
        client.send(Command::Ready { reply }).await.map_err(ConnectError::Refused)?;
        match timeout(within, answer).await {
            Ok(Ok(Ok(()))) => Ok(client),
            Ok(Ok(Err(refusal))) => Err(ConnectError::Refused(refusal)),
            Ok(Err(_)) | Err(_) => {
                let problem = client.info().await.ok().and_then(|info| info.problem);
                Err(ConnectError::NoAnswer { within, problem })
            }
        }
    }

    /// Starts the driver on the current runtime and waits for nobody.
    ///
    /// # Errors
    /// [`OptionsError`].
    pub fn start(options: Options) -> Result<Self, OptionsError> {
        let (request_timeout, connect_timeout) = (options.request_timeout, options.connect_timeout);
        let core = Core::new(options)?;
        let (commands, queue) = mpsc::channel(QUEUE_MAX);
        ::tokio::spawn(Driver::new(core, connect_timeout, queue));
        Ok(Self { commands, request_timeout })
    }

    /// Does several operations on keys of one group, all or nothing.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request(
        &self,
        operations: Vec<Operation>,
        consistency: Consistency,
    ) -> Result<Answer<Vec<OperationResult>>, ClientError> {
        self.request_within(operations, consistency, None).await
    }

    /// As [`Client::request`], with a time of its own.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request_within(
        &self,
        operations: Vec<Operation>,
        consistency: Consistency,
        timeout: Option<Duration>,
    ) -> Result<Answer<Vec<OperationResult>>, ClientError> {
        self.request_with(operations, consistency, 0, timeout).await
    }

    /// As [`Client::request_within`], with a bound on the age of a stale read; 0 is none.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn request_with(
        &self,
        operations: Vec<Operation>,
        consistency: Consistency,
        max_staleness_ms: u32,
        timeout: Option<Duration>,
    ) -> Result<Answer<Vec<OperationResult>>, ClientError> {
        let answer = self.begin(operations, consistency, max_staleness_ms, timeout).await?;
        Self::end(answer).await
    }

    /// Begins a request, so that several can be under way.
    async fn begin(
        &self,
        operations: Vec<Operation>,
        consistency: Consistency,
        max_staleness_ms: u32,
        timeout: Option<Duration>,
    ) -> Result<oneshot::Receiver<Outcome>, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Request { operations, consistency, max_staleness_ms, timeout, reply }).await?;
        Ok(answer)
    }

    /// Waits for the end of a request.
    async fn end(answer: oneshot::Receiver<Outcome>) -> Result<Answer<Vec<OperationResult>>, ClientError> {
        match answer.await.map_err(|_| ClientError::Closed { outcome_unknown: true })?? {
            ((position, term), Reply::Results(value)) => Ok(Answer { value, position, term }),
            (_, Reply::Status(_)) => Err(ClientError::BadRequest { message: String::from("answered with a status") }),
        }
    }

    /// The state of a shard of a node, JSON text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(&self, node: u64, shard: u16) -> Result<String, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Status { node, shard, reply }).await?;
        match answer.await.map_err(|_| ClientError::Closed { outcome_unknown: false })?? {
            (_, Reply::Status(json)) => Ok(json),
            (_, Reply::Results(_)) => Err(ClientError::BadRequest { message: String::from("answered with results") }),
        }
    }

    /// What the client knows of its cluster.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub async fn info(&self) -> Result<ClusterInfo, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Info { reply }).await?;
        answer.await.map_err(|_| ClientError::Closed { outcome_unknown: false })
    }

    /// How long a call that begins now may still take, whenever that is asked.
    pub(super) fn time_left(&self) -> impl Fn() -> Duration + use<> {
        let until = Instant::now() + self.request_timeout;
        move || until.saturating_duration_since(Instant::now())
    }

    /// As [`Client::info`], when the cluster is known.
    pub(crate) async fn known_info(&self) -> Result<ClusterInfo, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Ready { reply }).await?;
        let late = |_| ClientError::DeadlineExceeded { outcome_unknown: false };
        let answer = timeout(self.request_timeout, answer).await.map_err(late)?;
        answer.map_err(|_| ClientError::Closed { outcome_unknown: false })??;
        self.info().await
    }

    /// Makes the client look whether the nodes have changed, unless one told it within the last `fresh`; what it finds,
    /// [`Client::info`] tells later.
    pub(crate) async fn look(&self, fresh: Duration) -> Result<(), ClientError> {
        self.send(Command::Look { fresh }).await
    }

    async fn send(&self, command: Command) -> Result<(), ClientError> {
        self.commands.send(command).await.map_err(|_| ClientError::Closed { outcome_unknown: false })
    }
}

/// A socket of the driver.
#[derive(Debug)]
struct Stream {
    id: ConnectionId,
    stream: TcpStream,
    /// The socket did not take everything.
    blocked: bool,
}

/// The task behind the handles.
#[derive(Debug)]
struct Driver {
    core: Core,
    commands: mpsc::Receiver<Command>,
    dialed: mpsc::Receiver<(ConnectionId, io::Result<TcpStream>)>,
    dialed_sender: mpsc::Sender<(ConnectionId, io::Result<TcpStream>)>,
    streams: BTreeMap<usize, Stream>,
    waiting: BTreeMap<u64, oneshot::Sender<Outcome>>,
    ready_waiters: Vec<oneshot::Sender<Result<(), ClientError>>>,
    next_tag: u64,
    connect_timeout: Duration,
    epoch: Instant,
    timer: Pin<Box<Sleep>>,
    buffer: Vec<u8>,
}

impl Driver {
    fn new(mut core: Core, connect_timeout: Duration, commands: mpsc::Receiver<Command>) -> Self {
        core.start(0);
        let (dialed_sender, dialed) = mpsc::channel(QUEUE_MAX);
        let epoch = Instant::now();
        Self {
            core,
            commands,
            dialed,
            dialed_sender,
            streams: BTreeMap::new(),
            waiting: BTreeMap::new(),
            ready_waiters: Vec::new(),
            next_tag: 0,
            connect_timeout,
            epoch,
            timer: Box::pin(sleep_until(epoch)),
            buffer: vec![0; READ_BYTES],
        }
    }

    fn now_us(&self) -> u64 {
        micros(self.epoch.elapsed())
    }

    /// Takes requests of the handles. `Ready`: the last handle is gone.
    fn poll_commands(&mut self, context: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURN_MAX {
            match self.commands.poll_recv(context) {
                Poll::Ready(Some(command)) => self.command(command),
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn command(&mut self, command: Command) {
        let now_us = self.now_us();
        let tag = self.next_tag;
        self.next_tag += 1;
        let (submitted, reply) = match command {
            Command::Request { operations, consistency, max_staleness_ms, timeout, reply } => {
                let operations: Vec<_> = operations.iter().map(Operation::as_operation_ref).collect();
                let deadline_us = timeout.map(|timeout| now_us.saturating_add(micros(timeout)));
                let submission =
                    Submission { tag, operations: &operations, consistency, max_staleness_ms, deadline_us };
                (self.core.submit(&submission, now_us), reply)
            }
            Command::Status { node, shard, reply } => (self.core.submit_status(tag, node, shard, now_us), reply),
            Command::Ready { reply } => return self.wait_until_ready(reply),
            Command::Look { fresh } => return self.core.look(micros(fresh), now_us),
            Command::Info { reply } => {
                let _ = reply.send(self.info());
                return;
            }
        };
        match submitted {
            Ok(()) => {
                self.waiting.insert(tag, reply);
            }
            Err(error) => {
                // A handle that is gone does not want to know.
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Tells a handle when the cluster is known, if not too many wait for that.
    fn wait_until_ready(&mut self, reply: oneshot::Sender<Result<(), ClientError>>) {
        self.ready_waiters.retain(|waiter| !waiter.is_closed());
        if self.ready_waiters.len() < QUEUE_MAX {
            self.ready_waiters.push(reply);
        } else {
            // A handle that is gone does not want to know.
            let _ = reply.send(Err(ClientError::Overloaded { what: "calls until the cluster is known" }));
        }
    }

    fn info(&self) -> ClusterInfo {
        let groups = self.core.groups();
        ClusterInfo {
            cluster: self.core.cluster().unwrap_or_default(),
            groups,
            shards: self.core.shards(),
            nodes: self.core.nodes().to_vec(),
            addresses: self.core.addresses().map(|(place, address)| (place, address.to_string())).collect(),
            leaders: (0..groups).map(|group| self.core.leader(group)).collect(),
            problem: self.core.problem().map(str::to_owned),
            statistics: self.core.statistics(),
        }
    }

    fn poll_dialed(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some((id, result))) = self.dialed.poll_recv(context) {
            if self.core.outgoing(id).is_none() {
                // The core gave it up while it was dialed.
                continue;
            }
            let now_us = self.now_us();
            let configure = |stream| socket::configure(&stream, &socket::Options::default()).map(|()| stream);
            let configured = result.and_then(configure);
            match configured {
                Ok(stream) => {
                    self.streams.insert(id.place(), Stream { id, stream, blocked: false });
                    self.core.connected(id, now_us);
                }
                Err(_) => self.core.disconnected(id, now_us),
            }
        }
    }

    fn poll_streams(&mut self, context: &mut Context<'_>) {
        let now_us = self.now_us();
        let mut broken = Vec::new();
        for stream in self.streams.values_mut() {
            let read = poll_read(stream, &mut self.core, &mut self.buffer, context, now_us);
            if read.is_err() || (stream.blocked && poll_write(stream, &mut self.core, context).is_err()) {
                broken.push(stream.id);
            }
        }
        while let Some(id) = self.core.next_writable() {
            if let Some(stream) = self.streams.get_mut(&id.place()).filter(|stream| stream.id == id)
                && poll_write(stream, &mut self.core, context).is_err()
            {
                broken.push(id);
            }
        }
        if !broken.is_empty() {
            // Their requests may have gone to other connections.
            context.waker().wake_by_ref();
        }
        for id in broken {
            if self.streams.get(&id.place()).is_some_and(|stream| stream.id == id) {
                self.streams.remove(&id.place());
                self.core.disconnected(id, now_us);
            }
        }
    }

    fn act(&mut self) {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect { connection, address } => self.dial(connection, address),
                Action::Close { connection } => {
                    if self.streams.get(&connection.place()).is_some_and(|stream| stream.id == connection) {
                        self.streams.remove(&connection.place());
                    }
                }
            }
        }
    }

    fn dial(&self, id: ConnectionId, address: Address) {
        let (dialed, connect_timeout) = (self.dialed_sender.clone(), self.connect_timeout);
        ::tokio::spawn(async move {
            let connect = async {
                match &address {
                    Address::Socket(address) => TcpStream::connect(address).await,
                    Address::Name(name) => TcpStream::connect(&**name).await,
                }
            };
            // The core gives it up by then: its socket must not outlive that.
            let result =
                timeout(connect_timeout, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            // A driver that has ended does not want to know.
            let _ = dialed.send((id, result)).await;
        });
    }

    fn complete(&mut self) {
        while let Some(completion) = self.core.next_completion() {
            let Some(reply) = self.waiting.remove(&completion.tag) else { continue };
            let place = (completion.position, completion.term);
            // A handle that is gone does not want to know.
            let _ = reply.send(completion.result.map(|results| match results {
                Results::Status(json) => (place, Reply::Status(json)),
                results => (place, Reply::Results(results.into_owned())),
            }));
        }
        if self.core.is_ready() {
            for waiter in self.ready_waiters.drain(..) {
                let _ = waiter.send(Ok(()));
            }
        } else if let Some(refusal) = self.core.refusal() {
            for waiter in self.ready_waiters.drain(..) {
                let _ = waiter.send(Err(refusal.clone()));
            }
        }
    }

    /// Sets the timer; `true`: it is due already.
    fn poll_timer(&mut self, context: &mut Context<'_>) -> bool {
        let Some(deadline_us) = self.core.next_deadline_us() else { return false };
        let at = self.epoch + Duration::from_micros(deadline_us);
        if self.timer.deadline() != at {
            self.timer.as_mut().reset(at);
        }
        if self.timer.as_mut().poll(context).is_pending() {
            return false;
        }
        let now_us = self.now_us();
        self.core.tick(now_us);
        true
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let driver = &mut *self;
        if driver.poll_commands(context).is_ready() {
            return Poll::Ready(());
        }
        driver.poll_dialed(context);
        driver.poll_streams(context);
        driver.complete();
        driver.act();
        if driver.poll_timer(context) {
            // What the tick set in motion is looked at in the next turn.
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Reads what is there; the end of the stream is an error.
fn poll_read(
    stream: &Stream,
    core: &mut Core,
    buffer: &mut [u8],
    context: &mut Context<'_>,
    now_us: u64,
) -> io::Result<()> {
    for _ in 0..TURN_MAX {
        match stream.stream.poll_read_ready(context) {
            Poll::Pending => return Ok(()),
            Poll::Ready(ready) => ready?,
        }
        match stream.stream.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => core.receive(stream.id, &buffer[..count], now_us),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    context.waker().wake_by_ref();
    Ok(())
}

/// Writes what the socket takes.
fn poll_write(stream: &mut Stream, core: &mut Core, context: &mut Context<'_>) -> io::Result<()> {
    stream.blocked = false;
    let Some(outgoing) = core.outgoing(stream.id) else { return Ok(()) };
    while !outgoing.is_empty() {
        match stream.stream.poll_write_ready(context) {
            Poll::Pending => {
                stream.blocked = true;
                return Ok(());
            }
            Poll::Ready(ready) => ready?,
        }
        match stream.stream.try_write(outgoing.pending()) {
            Ok(count) => outgoing.sent(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
