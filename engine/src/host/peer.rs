//! The sending side of the link to one peer: dial, handshake, send, and again after a pause when it breaks.
//!
//! Data path 6b/9.
//! Invariants: bytes leave in the order the shard queued them; after a break the shard forgets what was queued and the
//! cores start again from what the peer has acknowledged; pauses grow and carry jitter from a seeded generator.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use glommio::timer::sleep;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::glommio::Connection as Link;
use ringraft_net::link::Backoff;
use ringraft_raft::NodeId;
use tracing::{debug, info, warn};

use super::accept::{self, Local, NotLinked};
use super::executor::Host;
use super::signal::Signal;
use super::start;

/// One peer's sender, as the turn task sees it.
pub(super) struct Sender {
    pub(super) node: NodeId,
    pub(super) address: String,
    /// `address`, once it was found out.
    resolved: Cell<Option<SocketAddr>>,
    /// The node is not linked to any more, or at another address.
    gone: Cell<bool>,
    /// Raised when there is something to finish or the link is gone.
    attention: Signal,
    stream: RefCell<Option<Link>>,
    /// The sender task is in the middle of a send: the turn must not overtake it.
    writing: Cell<bool>,
    broken: Cell<bool>,
    /// What a send left over, from this byte on.
    rest: RefCell<Option<(Vec<u8>, usize)>>,
}

impl Sender {
    pub(super) fn new(node: NodeId, address: String) -> Rc<Self> {
        Rc::new(Self {
            node,
            address,
            resolved: Cell::new(None),
            gone: Cell::new(false),
            attention: Signal::default(),
            stream: RefCell::new(None),
            writing: Cell::new(false),
            broken: Cell::new(false),
            rest: RefCell::new(None),
        })
    }

    /// Ends this sender; the shard knows already that the link is gone.
    pub(super) fn leave(&self) {
        self.gone.set(true);
        self.broken.set(true);
        self.attention.raise();
    }

    /// Sends what the turn queued, at once if the socket takes it; what is left goes to the sender task.
    pub(super) async fn send(&self, host: &Host) {
        if self.writing.get() {
            return;
        }
        let Some(stream) = self.stream.borrow().clone() else { return };
        let taken = host.shard.borrow_mut().peers().take_outgoing(self.node);
        let Some(bytes) = taken else { return };
        match stream.write_now(&bytes).await {
            Ok(written) if written == bytes.len() => host.shard.borrow_mut().peers().give_back(self.node, bytes),
            Ok(written) => {
                *self.rest.borrow_mut() = Some((bytes, written));
                self.writing.set(true);
                self.attention.raise();
            }
            Err(error) => {
                debug!(peer = self.node.0, %error, "a send failed");
                host.shard.borrow_mut().peers().give_back(self.node, bytes);
                self.broken.set(true);
                self.attention.raise();
            }
        }
    }

    /// Keeps the link up for as long as both nodes are in the cluster.
    pub(super) async fn run(self: Rc<Self>, host: Rc<Host>, local: Rc<Local>) {
        let mut backoff = Backoff::new(PAUSE_MIN, PAUSE_MAX, local.seed ^ self.node.0);
        let mut last_reason = String::new();
        while !host.stopping.get() && !self.gone.get() {
            match self.dial(&host, &local).await {
                Ok(stream) => {
                    info!(peer = self.node.0, address = %self.address, "linked to a peer");
                    backoff.reset();
                    last_reason.clear();
                    self.serve(&host, stream).await;
                }
                Err(NotLinked { reason, removed }) => {
                    if removed {
                        host.shard.borrow_mut().refused_as_removed();
                    }
                    if reason != last_reason {
                        warn!(peer = self.node.0, reason, "cannot link to a peer yet; trying again");
                        last_reason = reason;
                    }
                }
            }
            sleep(backoff.next_pause()).await;
        }
    }

    async fn dial(&self, host: &Host, local: &Local) -> Result<Link, NotLinked> {
        let address = match self.resolved.get() {
            Some(address) => address,
            None => start::resolve(&self.address)?,
        };
        self.resolved.set(Some(address));
        let stream = accept::connect(address).await?;
        accept::greet_peer(&stream, host, local, self.node).await?;
        Ok(stream)
    }

    /// Serves an established link until it breaks.
    async fn serve(self: &Rc<Self>, host: &Rc<Host>, stream: Link) {
        self.broken.set(self.gone.get());
        self.writing.set(false);
        if self.gone.get() {
            return stream.close().await;
        }
        *self.stream.borrow_mut() = Some(stream.clone());
        host.shard.borrow_mut().peer_connected(self.node);
        host.work.raise();
        glommio::spawn_local(Rc::clone(self).watch(stream.clone())).detach();
        while !self.broken.get() {
            self.attention.wait().await;
            if self.writing.get() && self.finish(host, &stream).await.is_err() {
                self.broken.set(true);
            }
        }
        *self.stream.borrow_mut() = None;
        stream.close().await;
        let rest = self.rest.borrow_mut().take();
        if let Some((bytes, _)) = rest {
            host.shard.borrow_mut().peers().give_back(self.node, bytes);
        }
        if !self.gone.get() {
            host.shard.borrow_mut().peer_disconnected(self.node);
        }
        host.work.raise();
        info!(peer = self.node.0, "the link to a peer broke");
    }

    /// Writes what a slow peer left over, and what was queued meanwhile.
    async fn finish(&self, host: &Host, stream: &Link) -> std::io::Result<()> {
        loop {
            let rest = self.rest.borrow_mut().take();
            let next =
                rest.or_else(|| host.shard.borrow_mut().peers().take_outgoing(self.node).map(|bytes| (bytes, 0)));
            let Some((bytes, start)) = next else {
                self.writing.set(false);
                return Ok(());
            };
            let result = stream.write_all(&bytes[start..]).await;
            host.shard.borrow_mut().peers().give_back(self.node, bytes);
            host.work.raise(); // a full queue may have lost messages: the cores are told now that there is room
            result?;
        }
    }

    /// Waits for the other side to close: peers never send on this connection after the handshake.
    async fn watch(self: Rc<Self>, stream: Link) {
        let mut buffer = ReceiveBuffer::new();
        let _ = stream.read_some(&mut buffer, 64).await;
        let same = self.stream.borrow().as_ref().is_some_and(|current| current.is_same(&stream));
        if same {
            self.broken.set(true);
            self.attention.raise();
        }
    }
}

const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_secs(1);
