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
use ringraft_raft::NodeId;
use tracing::{debug, info, warn};

use super::accept::{self, Local};
use super::executor::Host;
use super::signal::Signal;
use super::stream::Stream;

/// One peer's sender, as the turn task sees it.
pub(super) struct Sender {
    pub(super) node: NodeId,
    address: SocketAddr,
    /// Raised when there is something to finish or the link is gone.
    attention: Signal,
    stream: RefCell<Option<Stream>>,
    /// The sender task is in the middle of a send: the turn must not overtake it.
    writing: Cell<bool>,
    broken: Cell<bool>,
    /// Bytes on their way; keeps its memory between turns.
    bytes: RefCell<Vec<u8>>,
}

impl Sender {
    pub(super) fn new(node: NodeId, address: SocketAddr) -> Rc<Self> {
        Rc::new(Self {
            node,
            address,
            attention: Signal::default(),
            stream: RefCell::new(None),
            writing: Cell::new(false),
            broken: Cell::new(false),
            bytes: RefCell::new(Vec::new()),
        })
    }

    /// Sends what the turn queued, at once if the socket takes it; what is left goes to the sender task.
    pub(super) async fn send(&self, host: &Host) {
        if self.writing.get() {
            return;
        }
        let Some(stream) = self.stream.borrow().clone() else { return };
        let mut bytes = std::mem::take(&mut *self.bytes.borrow_mut());
        host.shard.borrow_mut().peers().take_outgoing(self.node, &mut bytes);
        match stream.write_now(&bytes).await {
            Ok(written) if written == bytes.len() => bytes.clear(),
            Ok(written) => {
                bytes.drain(..written);
                self.writing.set(true);
                self.attention.raise();
            }
            Err(error) => {
                debug!(peer = self.node.0, %error, "a send failed");
                bytes.clear();
                self.broken.set(true);
                self.attention.raise();
            }
        }
        *self.bytes.borrow_mut() = bytes;
    }

    /// Keeps the link up for as long as the node lives.
    pub(super) async fn run(self: Rc<Self>, host: Rc<Host>, local: Rc<Local>) {
        let mut backoff = Backoff::new(local.seed ^ self.node.0);
        while !host.stopping.get() {
            match self.dial(&local).await {
                Ok(stream) => {
                    info!(peer = self.node.0, address = %self.address, "linked to a peer");
                    backoff.reset();
                    self.serve(&host, stream).await;
                }
                Err(reason) => backoff.note(self.node, &reason),
            }
            sleep(backoff.pause()).await;
        }
    }

    async fn dial(&self, local: &Local) -> Result<Stream, String> {
        let stream = accept::connect(self.address).await?;
        accept::greet_peer(&stream, local, self.node).await?;
        Ok(stream)
    }

    /// Serves an established link until it breaks.
    async fn serve(self: &Rc<Self>, host: &Rc<Host>, stream: Stream) {
        self.broken.set(false);
        self.writing.set(false);
        self.bytes.borrow_mut().clear();
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
        stream.shutdown().await;
        host.shard.borrow_mut().peer_disconnected(self.node);
        host.work.raise();
        info!(peer = self.node.0, "the link to a peer broke");
    }

    /// Writes what a slow peer left over, and what was queued meanwhile.
    async fn finish(&self, host: &Host, stream: &Stream) -> std::io::Result<()> {
        loop {
            let mut bytes = std::mem::take(&mut *self.bytes.borrow_mut());
            if bytes.is_empty() {
                host.shard.borrow_mut().peers().take_outgoing(self.node, &mut bytes);
            }
            if bytes.is_empty() {
                self.writing.set(false);
                return Ok(());
            }
            let result = stream.write_all(&bytes).await;
            bytes.clear();
            *self.bytes.borrow_mut() = bytes;
            host.work.raise(); // a full queue may have lost messages: the cores are told now that there is room
            result?;
        }
    }

    /// Waits for the other side to close: peers never send on this connection after the handshake.
    async fn watch(self: Rc<Self>, stream: Stream) {
        let mut bytes = Vec::new();
        let _ = stream.read_some(&mut bytes, 64).await;
        let same = self.stream.borrow().as_ref().is_some_and(|current| current.is_same(&stream));
        if same {
            self.broken.set(true);
            self.attention.raise();
        }
    }
}

/// Growing pauses between attempts, with jitter; says a new reason once.
struct Backoff {
    attempts: u32,
    state: u64,
    last_reason: String,
}

const PAUSE_MIN_MS: u64 = 50;
const PAUSE_MAX_MS: u64 = 1_000;

impl Backoff {
    fn new(seed: u64) -> Self {
        Self { attempts: 0, state: seed | 1, last_reason: String::new() }
    }

    fn reset(&mut self) {
        self.attempts = 0;
        self.last_reason.clear();
    }

    fn note(&mut self, node: NodeId, reason: &str) {
        if reason != self.last_reason {
            warn!(peer = node.0, reason, "cannot link to a peer yet; trying again");
            reason.clone_into(&mut self.last_reason);
        }
    }

    fn pause(&mut self) -> Duration {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let ceiling = (PAUSE_MIN_MS << self.attempts.min(6)).min(PAUSE_MAX_MS);
        self.attempts += 1;
        Duration::from_millis(ceiling / 2 + self.state % (ceiling / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound() {
        let mut backoff = Backoff::new(7);
        let first = backoff.pause();
        assert!(first <= Duration::from_millis(PAUSE_MIN_MS), "{first:?}");
        let later: Vec<_> = (0..20).map(|_| backoff.pause()).collect();
        assert!(later.iter().all(|pause| *pause <= Duration::from_millis(PAUSE_MAX_MS)));
        assert!(later[19] >= Duration::from_millis(PAUSE_MAX_MS / 2));
        backoff.reset();
        assert!(backoff.pause() <= Duration::from_millis(PAUSE_MIN_MS));
    }
}
