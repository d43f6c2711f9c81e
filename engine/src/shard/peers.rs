//! The links of one shard to the same shard of the other nodes, without any socket.
//!
//! Data path 6b/9: the frames of all groups to one peer gather in one buffer and leave in one send.
//! Invariants: unsent bytes are bounded; what does not fit is dropped and the cores are told that the peer missed
//! something; a broken link forgets its bytes.
//! It decides nothing: when to connect again is the host's (backoff).

use ringraft_net::wire;
use ringraft_raft::{GroupId, Message, NodeId};

use crate::convert;

#[derive(Debug)]
struct Peer {
    node: NodeId,
    connected: bool,
    outgoing: Vec<u8>,
    dirty: bool,
    lost: bool,
}

/// All peers of a shard.
#[derive(Debug)]
pub struct Peers {
    peers: Vec<Peer>,
    queue_bytes_max: usize,
    /// Messages dropped because a queue was at its bound.
    pub(crate) dropped: u64,
}

impl Peers {
    /// Links to `nodes`, `queue_bytes_max` unsent bytes for each.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, queue_bytes_max: usize) -> Self {
        let peers = nodes
            .into_iter()
            .map(|node| Peer { node, connected: false, outgoing: Vec::new(), dirty: false, lost: false })
            .collect();
        Self { peers, queue_bytes_max, dropped: 0 }
    }

    fn find(&mut self, node: NodeId) -> Option<&mut Peer> {
        self.peers.iter_mut().find(|peer| peer.node == node)
    }

    /// The nodes linked to.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().map(|peer| peer.node)
    }

    /// Whether the link to every peer stands.
    #[must_use]
    pub fn all_connected(&self) -> bool {
        self.peers.iter().all(|peer| peer.connected)
    }

    /// Whether the link to `node` stands.
    #[must_use]
    pub fn is_connected(&self, node: NodeId) -> bool {
        self.peers.iter().any(|peer| peer.node == node && peer.connected)
    }

    /// The handshake with `node` is done.
    pub fn connected(&mut self, node: NodeId) {
        if let Some(peer) = self.find(node) {
            peer.connected = true;
            peer.lost = false;
            peer.outgoing.clear();
        }
    }

    /// The link to `node` broke.
    pub fn disconnected(&mut self, node: NodeId) {
        if let Some(peer) = self.find(node) {
            peer.connected = false;
            peer.dirty = false;
            peer.outgoing.clear();
        }
    }

    /// The buffer for the next frame to `node`; `None` when there is no link or its queue is full.
    fn room(&mut self, node: NodeId) -> Option<&mut Vec<u8>> {
        let queue_bytes_max = self.queue_bytes_max;
        let place = self.peers.iter().position(|peer| peer.node == node && peer.connected)?;
        let peer = &mut self.peers[place];
        if peer.outgoing.len() >= queue_bytes_max {
            peer.lost = true;
            self.dropped += 1;
            return None;
        }
        peer.dirty = true;
        Some(&mut self.peers[place].outgoing)
    }

    /// Queues a message without entries.
    pub(crate) fn send(&mut self, to: NodeId, group: GroupId, message: &Message) {
        if let Some(out) = self.room(to) {
            convert::to_wire(group, message).append_frame(out);
        }
    }

    /// Queues an AppendEntries; `write_records` puts the records behind its head, or answers `false` and nothing is sent.
    /// Returns that answer (`true` without a link: there is nothing to be done about it).
    pub(crate) fn send_append(
        &mut self,
        to: NodeId,
        group: GroupId,
        message: &Message,
        write_records: impl FnOnce(&mut Vec<u8>) -> bool,
    ) -> bool {
        match self.room(to) {
            Some(out) => {
                let mut frame = wire::begin_append(out, &convert::to_wire(group, message));
                let complete = write_records(frame.bytes());
                if complete {
                    frame.finish();
                }
                complete
            }
            None => true,
        }
    }

    /// Queues a checkpoint of a group's state hash for every peer.
    pub(crate) fn send_digest(&mut self, group: GroupId, index: u64, hash: u64) {
        let nodes: Vec<NodeId> = self.nodes().collect();
        for node in nodes {
            if let Some(out) = self.room(node) {
                wire::Digest { group: group.0, index, hash }.append_frame(out);
            }
        }
    }

    /// The next peer with unsent frames since the last call.
    pub fn next_dirty(&mut self) -> Option<NodeId> {
        let peer = self.peers.iter_mut().find(|peer| peer.dirty)?;
        peer.dirty = false;
        Some(peer.node)
    }

    /// The next peer that missed a message because its queue was full.
    pub fn next_lost(&mut self) -> Option<NodeId> {
        let peer = self.peers.iter_mut().find(|peer| peer.lost && peer.outgoing.is_empty())?;
        peer.lost = false;
        Some(peer.node)
    }

    /// Exchanges the outgoing bytes with `empty`, whose memory is used from now on.
    pub fn take_outgoing(&mut self, node: NodeId, empty: &mut Vec<u8>) {
        debug_assert!(empty.is_empty());
        if let Some(peer) = self.find(node) {
            std::mem::swap(&mut peer.outgoing, empty);
        }
    }
}
