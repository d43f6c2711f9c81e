//! The links of one shard to the same shard of the other nodes, without any socket.
//!
//! Data path 6b/9: the frames of all groups to one peer gather in one buffer and leave in one send.
//! Invariants: unsent bytes are bounded; what does not fit is dropped and the cores are told that the peer missed
//! something; a broken link forgets its bytes.
//! It decides nothing: when to connect again is the host's (backoff).

use ringraft_net::link::Outgoing;
use ringraft_net::wire;
use ringraft_raft::{GroupId, Message, NodeId};

use super::heartbeats::Gathered;
use crate::convert;

#[derive(Debug)]
struct Peer {
    node: NodeId,
    connected: bool,
    dirty: bool,
    outgoing: Outgoing,
    gathered: Gathered,
}

/// All peers of a shard.
#[derive(Debug)]
pub struct Peers {
    peers: Vec<Peer>,
    queue_bytes_max: usize,
    /// Messages dropped by links that are gone.
    dropped_before: u64,
}

impl Peers {
    /// Links to `nodes`, `queue_bytes_max` unsent bytes for each.
    #[must_use]
    pub fn new(nodes: impl IntoIterator<Item = NodeId>, queue_bytes_max: usize) -> Self {
        let mut peers = Self { peers: Vec::new(), queue_bytes_max, dropped_before: 0 };
        nodes.into_iter().for_each(|node| peers.add(node));
        peers
    }

    fn add(&mut self, node: NodeId) {
        let outgoing = Outgoing::new(self.queue_bytes_max);
        let gathered = Gathered::default();
        self.peers.push(Peer { node, connected: false, dirty: false, outgoing, gathered });
    }

    /// Links to exactly `nodes` from now on; returns those there is none to any more.
    pub(crate) fn set(&mut self, nodes: &[NodeId]) -> Vec<NodeId> {
        let (kept, gone): (Vec<Peer>, Vec<Peer>) =
            std::mem::take(&mut self.peers).into_iter().partition(|peer| nodes.contains(&peer.node));
        self.peers = kept;
        for node in nodes {
            if self.find(*node).is_none() {
                self.add(*node);
            }
        }
        self.dropped_before += gone.iter().map(|peer| peer.outgoing.statistics().dropped_frames).sum::<u64>();
        gone.into_iter().map(|peer| peer.node).collect()
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
        }
    }

    /// The link to `node` broke.
    pub fn disconnected(&mut self, node: NodeId) {
        if let Some(peer) = self.find(node) {
            peer.connected = false;
            peer.dirty = false;
            peer.outgoing.disconnected();
            peer.gathered.clear();
        }
    }

    /// Queues what `encode` appends, one frame, if the link to `node` stands and has room.
    fn push(&mut self, node: NodeId, encode: impl FnOnce(&mut Vec<u8>)) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == node && peer.connected)
            && peer.outgoing.push(encode)
        {
            peer.dirty = true;
        }
    }

    /// Messages dropped because a queue was at its bound or a link broke.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        let dropped: u64 = self.peers.iter().map(|peer| peer.outgoing.statistics().dropped_frames).sum();
        self.dropped_before + dropped
    }

    /// Unsent bytes of the peer with most of them.
    #[must_use]
    pub fn longest_queue_bytes(&self) -> usize {
        self.peers.iter().map(|peer| peer.outgoing.bytes()).max().unwrap_or(0)
    }

    /// Queues a message without entries. Heartbeats and their answers wait for [`Peers::end_turn`].
    pub(crate) fn send(&mut self, to: NodeId, group: GroupId, message: &Message) {
        let Some(peer) = self.peers.iter_mut().find(|peer| peer.node == to && peer.connected) else { return };
        peer.dirty |= match convert::to_wire(group, message) {
            Some(message) => peer.outgoing.push(|out| _ = message.append_frame(out)),
            None => peer.gathered.take(group, message, &mut peer.outgoing),
        };
    }

    /// Queues the heartbeats that gathered in this turn, and the answers.
    pub(crate) fn end_turn(&mut self) {
        for peer in &mut self.peers {
            peer.dirty |= peer.gathered.flush(&mut peer.outgoing);
        }
    }

    /// Queues a message that is none of the core's.
    pub(crate) fn send_wire(&mut self, to: NodeId, message: &wire::PeerMessage) {
        self.push(to, |out| {
            message.append_frame(out);
        });
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
        let mut complete = true;
        self.push(to, |out| {
            let Some(head) = convert::to_wire(group, message) else { return };
            let mut frame = wire::begin_append(out, &head);
            complete = write_records(frame.bytes());
            if complete {
                frame.finish();
            }
        });
        complete
    }

    /// Queues a chunk of a snapshot.
    pub(crate) fn send_snapshot_piece(&mut self, to: NodeId, piece: &wire::SnapshotPiece, chunk: &[u8]) {
        self.push(to, |out| {
            let mut frame = wire::begin_snapshot_piece(out, piece);
            frame.bytes().extend_from_slice(chunk);
            frame.finish();
        });
    }

    /// Queues the answer to one.
    pub(crate) fn send_snapshot_answer(&mut self, to: NodeId, answer: &wire::SnapshotAnswer) {
        self.push(to, |out| {
            answer.append_frame(out);
        });
    }

    /// Queues a report for some peers.
    pub(crate) fn send_report(&mut self, nodes: &[NodeId], report: &wire::Report) {
        for node in nodes {
            self.push(*node, |out| {
                report.append_frame(out);
            });
        }
    }

    /// Queues a wish for the node that leads a group.
    pub(crate) fn send_transfer_wish(&mut self, to: NodeId, wish: wire::TransferWish) {
        self.push(to, |out| {
            wish.append_frame(out);
        });
    }

    /// Queues a checkpoint of a group's state hash for every peer.
    pub(crate) fn send_digest(&mut self, group: GroupId, index: u64, hash: u64) {
        let nodes: Vec<NodeId> = self.nodes().collect();
        for node in nodes {
            self.push(node, |out| {
                wire::Digest { group: group.0, index, hash }.append_frame(out);
            });
        }
    }

    /// The next peer with unsent frames since the last call.
    pub fn next_dirty(&mut self) -> Option<NodeId> {
        let peer = self.peers.iter_mut().find(|peer| peer.dirty)?;
        peer.dirty = false;
        Some(peer.node)
    }

    /// The next peer that missed a message because its queue was full, now that there is room again.
    pub fn next_lost(&mut self) -> Option<NodeId> {
        let mut with_room = self.peers.iter_mut().filter(|peer| peer.outgoing.is_empty());
        with_room.find_map(|peer| peer.outgoing.take_overflow().then_some(peer.node))
    }

    /// Everything queued for a peer; `None` while an earlier buffer is still out. It comes back by [`Peers::give_back`].
    pub fn take_outgoing(&mut self, node: NodeId) -> Option<Vec<u8>> {
        self.find(node)?.outgoing.take()
    }

    /// The bytes were sent, or the link broke.
    pub fn give_back(&mut self, node: NodeId, bytes: Vec<u8>) {
        if let Some(peer) = self.find(node) {
            peer.outgoing.give_back(bytes);
        }
    }
}
