//! The executor of one shard: tasks that move bytes between sockets, the disk and the [`Shard`], and decide nothing.
//!
//! Data path 1/9 and 9/9 (sockets), 6a/9 (disk completions).
//! Tasks: one acceptor, one reader and one writer per connection, one sender per peer, one ticker, one turn task.
//! Invariants: all tasks run in one queue without preemption; nothing wakes this executor from another thread; the
//! shard is borrowed for one call at a time, never across an await.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use glommio::timer::sleep;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::glommio::Connection as Link;
use ringraft_raft::NodeId;
use ringraft_wal::glommio::{Completions, GlommioDisk};
use tracing::{info, warn};

use super::NodeContext;
use super::accept::Local;
use super::clock::now_us;
use super::peer::Sender;
use super::signal::Signal;
use crate::shard::Shard;
use crate::shard::clients::ConnectionId;
use crate::shard::io::Fatal;
use crate::topology::{NodeRecord, Topology};

/// One client connection, as the turn task sees it.
struct Connection {
    id: ConnectionId,
    stream: Link,
    writable: Signal,
    /// The writer task is in the middle of a send: the turn must not overtake it.
    writing: Rc<Cell<bool>>,
    spare: RefCell<Vec<u8>>,
}

/// What the tasks of one executor share.
pub(super) struct Host {
    pub(super) shard: RefCell<Shard<GlommioDisk>>,
    pub(super) work: Signal,
    completions: Completions,
    connections: RefCell<Vec<Option<Rc<Connection>>>>,
    pub(super) senders: RefCell<Vec<Rc<Sender>>>,
    pub(super) failed: RefCell<Option<Fatal>>,
    pub(super) finished: Signal,
    counter: Arc<AtomicU64>,
    pub(super) stopping: Cell<bool>,
    node: Arc<NodeContext>,
    local: Rc<Local>,
    /// The topology that the senders follow.
    followed: RefCell<Option<Arc<Topology>>>,
}

impl Host {
    pub(super) fn new(
        shard: Shard<GlommioDisk>,
        work: Signal,
        completions: Completions,
        counter: Arc<AtomicU64>,
        (node, local): (Arc<NodeContext>, Rc<Local>),
    ) -> Rc<Self> {
        Rc::new(Self {
            shard: RefCell::new(shard),
            work,
            completions,
            connections: RefCell::new(Vec::new()),
            senders: RefCell::new(Vec::new()),
            failed: RefCell::new(None),
            finished: Signal::default(),
            counter,
            stopping: Cell::new(false),
            node,
            local,
            followed: RefCell::new(None),
        })
    }

    /// The shard meets the others of this node; then the links follow its topology.
    pub(super) fn exchange(self: &Rc<Self>) {
        self.shard.borrow_mut().exchange(&mut self.node.board());
        if self.shard.borrow().is_removed() {
            self.node.removed.store(true, Ordering::Relaxed);
            self.node.stop.store(true, Ordering::Relaxed);
        }
        let topology = Arc::clone(self.shard.borrow().topology());
        if !self.followed.borrow().as_ref().is_some_and(|followed| Arc::ptr_eq(followed, &topology)) {
            self.follow_peers(&topology);
            *self.followed.borrow_mut() = Some(topology);
        }
    }

    /// Senders to exactly the peers of the shard, at the addresses of the topology.
    fn follow_peers(self: &Rc<Self>, topology: &Topology) {
        let wanted: Vec<(NodeId, String)> = {
            let mut shard = self.shard.borrow_mut();
            let nodes = shard.peers().nodes().filter_map(|node| topology.node(node));
            let address = |node: &NodeRecord| node.addresses.get(usize::from(self.local.shard)).cloned();
            nodes.filter_map(|node| Some((node.id, address(node)?))).collect()
        };
        let is_wanted = |sender: &Rc<Sender>| {
            wanted.iter().any(|(node, address)| (*node, address) == (sender.node, &sender.address))
        };
        let (kept, gone): (Vec<_>, Vec<_>) = self.senders.take().into_iter().partition(is_wanted);
        for sender in gone {
            self.shard.borrow_mut().peer_disconnected(sender.node);
            sender.leave();
        }
        let is_new = |node: &NodeId| !kept.iter().any(|sender| sender.node == *node);
        let new = wanted.into_iter().filter(|(node, _)| is_new(node));
        let new: Vec<_> = new.map(|(node, address)| Sender::new(node, address)).collect();
        for sender in &new {
            let (sender, host, local) = (Rc::clone(sender), Rc::clone(self), Rc::clone(&self.local));
            glommio::spawn_local(sender.run(host, local)).detach();
        }
        self.senders.borrow_mut().extend(kept.into_iter().chain(new));
    }

    /// Runs turns for as long as the node lives: completions in, one turn, bytes out.
    pub(super) async fn turn_forever(self: Rc<Self>) {
        loop {
            self.work.wait().await;
            self.counter.fetch_add(1, Ordering::Relaxed);
            let again = {
                let mut shard = self.shard.borrow_mut();
                shard.observe_time(now_us());
                while let Some(completion) = self.completions.pop() {
                    shard.disk_done(completion);
                }
                shard.turn();
                if let Some(fatal) = shard.fatal() {
                    self.failed.borrow_mut().get_or_insert_with(|| fatal.clone());
                    self.finished.raise();
                    return;
                }
                shard.wants_turn()
            };
            self.send_all().await;
            if again {
                sleep(Duration::ZERO).await; // a slice ended: let the reactor poll in between
                self.work.raise();
            }
        }
    }

    /// Starts the sends of this turn. Peers first: their answers are what the clients wait for.
    async fn send_all(&self) {
        loop {
            let next = self.shard.borrow_mut().peers().next_dirty();
            let Some(node) = next else { break };
            let sender = self.senders.borrow().iter().find(|sender| sender.node == node).cloned();
            if let Some(sender) = sender {
                sender.send(self).await;
            }
        }
        loop {
            let next = self.shard.borrow_mut().clients().next_dirty();
            let Some(id) = next else { break };
            let connection = self.connections.borrow().get(id.slot as usize).cloned().flatten();
            if let Some(connection) = connection.filter(|connection| connection.id == id) {
                self.send_client(&connection).await;
            }
        }
    }

    /// Sends a client's replies at once if its socket takes them; what is left goes to its writer task.
    async fn send_client(&self, connection: &Rc<Connection>) {
        if connection.writing.get() {
            return connection.writable.raise();
        }
        let mut bytes = std::mem::take(&mut *connection.spare.borrow_mut());
        let taken = self.shard.borrow_mut().clients().take_outgoing(connection.id, &mut bytes);
        if !taken {
            connection.stream.close().await;
            return;
        }
        match connection.stream.write_now(&bytes).await {
            Ok(written) if written == bytes.len() => bytes.clear(),
            Ok(written) => {
                bytes.drain(..written);
                connection.writing.set(true);
                connection.writable.raise();
            }
            Err(_) => {
                bytes.clear();
                connection.stream.close().await;
            }
        }
        *connection.spare.borrow_mut() = bytes;
    }

    /// Writes what a slow client left over, for as long as its connection lives.
    async fn write_client(self: Rc<Self>, connection: Rc<Connection>, closed: Rc<Cell<bool>>) {
        loop {
            connection.writable.wait().await;
            if closed.get() {
                return;
            }
            loop {
                let mut bytes = std::mem::take(&mut *connection.spare.borrow_mut());
                if bytes.is_empty() {
                    let taken = self.shard.borrow_mut().clients().take_outgoing(connection.id, &mut bytes);
                    if !taken || bytes.is_empty() {
                        break;
                    }
                }
                if connection.stream.write_all(&bytes).await.is_err() {
                    connection.stream.close().await;
                    return;
                }
                bytes.clear();
                *connection.spare.borrow_mut() = bytes;
            }
            connection.writing.set(false);
        }
    }

    /// Serves one client connection after its handshake; `buffer` holds what came behind the `Hello`.
    pub(super) async fn serve_client(self: Rc<Self>, stream: Link, mut buffer: ReceiveBuffer) {
        let Some(id) = self.shard.borrow_mut().clients().open() else {
            return warn!("a client was refused: this shard has as many connections as it may (connections_max)");
        };
        let connection = Rc::new(Connection {
            id,
            stream: stream.clone(),
            writable: Signal::default(),
            writing: Rc::new(Cell::new(false)),
            spare: RefCell::new(Vec::new()),
        });
        let closed = Rc::new(Cell::new(false));
        self.register(id, Some(Rc::clone(&connection)));
        glommio::spawn_local(Rc::clone(&self).write_client(Rc::clone(&connection), Rc::clone(&closed))).detach();
        loop {
            let taken = {
                let mut shard = self.shard.borrow_mut();
                shard.observe_time(now_us()); // after the bytes came: leases are counted up to here
                shard.client_bytes(id, &mut buffer)
            };
            self.work.raise();
            if let Err(reason) = taken {
                info!(reason, "a client connection was closed");
                break;
            }
            if matches!(stream.read_some(&mut buffer, READ_BYTES_MIN).await, Ok(0) | Err(_)) {
                break;
            }
        }
        sleep(LAST_REPLIES).await; // what was answered before a bad frame may still go out
        self.shard.borrow_mut().clients().close(id);
        self.register(id, None);
        closed.set(true);
        connection.writable.raise();
        stream.close().await;
    }

    fn register(&self, id: ConnectionId, connection: Option<Rc<Connection>>) {
        let mut connections = self.connections.borrow_mut();
        let slot = id.slot as usize;
        if connections.len() <= slot {
            connections.resize(slot + 1, None);
        }
        connections[slot] = connection;
    }

    /// Takes the frames of an accepted peer link until it ends.
    pub(super) async fn serve_peer(self: Rc<Self>, node: NodeId, stream: Link, mut buffer: ReceiveBuffer) {
        loop {
            let taken = {
                let mut shard = self.shard.borrow_mut();
                shard.observe_time(now_us());
                shard.peer_bytes(node, buffer.filled())
            };
            self.work.raise();
            match taken {
                Ok(taken) => buffer.consume(taken),
                Err(reason) => {
                    warn!(peer = node.0, reason, "the link of a peer was closed");
                    break;
                }
            }
            if matches!(stream.read_some(&mut buffer, READ_BYTES_MIN).await, Ok(0) | Err(_)) {
                break;
            }
        }
        stream.close().await;
    }

    /// Ticks for as long as the node lives; begins the graceful stop when `stop` is set.
    pub(super) async fn tick_forever(self: Rc<Self>, tick: Duration) {
        let mut stopping_ticks = 0_u32;
        let stop_ticks_max = (STOP_PATIENCE.as_millis() / tick.as_millis().max(1)) as u32;
        loop {
            sleep(tick).await;
            self.counter.fetch_add(1, Ordering::Relaxed);
            {
                let mut shard = self.shard.borrow_mut();
                shard.observe_time(now_us());
                shard.tick(); // once, however late: see `Shard::tick`
            }
            self.exchange();
            self.work.raise();
            if self.node.stop.load(Ordering::Relaxed) {
                self.stopping.set(true);
                self.shard.borrow_mut().begin_stop();
                stopping_ticks += 1;
                if self.may_end(stopping_ticks) || stopping_ticks > stop_ticks_max {
                    self.finished.raise();
                    return;
                }
            }
        }
    }

    /// Whether nothing is lost by ending now. The marks at the end of an idle log are waited for only as long as an idle
    /// log takes.
    fn may_end(&self, stopping_ticks: u32) -> bool {
        let shard = self.shard.borrow();
        shard.is_drained() && (shard.is_marked() || stopping_ticks > MARK_TICKS)
    }
}

/// Room for one read at least.
const READ_BYTES_MIN: usize = 32 << 10;
const LAST_REPLIES: Duration = Duration::from_millis(20);
/// An idle log is marked in fewer.
const MARK_TICKS: u32 = 10;
const STOP_PATIENCE: Duration = Duration::from_secs(3);
