//! Promises: what a node tells its peers stands on its own disk when the bytes leave (Raft figure 2, thesis 3.8).
//!
//! Off the data path.
//! An acknowledgement names entries that are durable, a vote is durable before it is given or asked for, and nothing is
//! said in a term that is not. Read from the very frames that go out.

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, PeerBody, PeerMessage};
use ringraft_raft::NodeId;

use super::{Replica, Violation};
use crate::disk::SimDisk;
use crate::world::Checked;

/// Looks at the frames that node `node` sends to `peer`.
pub(crate) fn check(node: usize, peer: usize, bytes: &[u8], machine: &Shard<SimDisk>) -> Checked {
    let mut start = 0;
    while let Ok(Some(parsed)) = frame::parse(&bytes[start..], &Limits::PEER) {
        start += parsed.total_bytes;
        if !matches!(parsed.kind, FrameKind::Raft | FrameKind::Append) {
            continue;
        }
        let Ok(message) = wire::view_peer_message(parsed.head) else { continue };
        let Some(view) = machine.group_views().find(|view| view.group == message.group) else { continue };
        if !is_kept(node, peer, &message, &view) {
            let replica = Replica { node, group: view.group };
            let seen = format!("{replica} sends {message:?} to node {} with {view:?}", peer + 1);
            return Err(Violation::new("promises stand on the disk", seen));
        }
    }
    Ok(())
}

fn is_kept(node: usize, peer: usize, message: &PeerMessage, view: &GroupView) -> bool {
    let durable = view.durable_hard_state;
    let term_is_durable = durable.current_term >= message.term;
    let voted = |place: usize| {
        let vote = NodeId(place as u64 + 1);
        durable.current_term > message.term || (term_is_durable && durable.voted_for == Some(vote))
    };
    match message.body {
        // Only a later leader could have taken back what was acknowledged in an earlier term.
        PeerBody::AppendAccepted { match_index } => {
            term_is_durable && (view.hard_state.current_term > message.term || view.durable_index >= match_index)
        }
        PeerBody::RequestVoteResponse { granted: true } => voted(peer),
        PeerBody::RequestVote { .. } => voted(node),
        PeerBody::RequestVoteResponse { granted: false }
        | PeerBody::AppendRejected { .. }
        | PeerBody::AppendEntries { .. }
        | PeerBody::Heartbeat { .. }
        | PeerBody::HeartbeatResponse { .. }
        | PeerBody::TimeoutNow => term_is_durable,
        PeerBody::PreVote { .. } | PeerBody::PreVoteResponse { .. } => true,
        PeerBody::ReadIndex { .. } | PeerBody::ReadIndexResponse { .. } => true,
    }
}
