//! Promises: what a node tells its peers stands on its own disk when the bytes leave (Raft figure 2, thesis 3.8).
//!
//! Off the data path.
//! An acknowledgement names entries that are durable, a vote is durable before it is given or asked for, and nothing is
//! said in a term that is not. Read from the very frames that go out.

use std::fmt::Debug;

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_net::frame::{self, Frame, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, PeerBody, PeerMessage};
use ringraft_raft::{EntryId, NodeId, Term};

use super::membership::Vote;
use super::{Replica, Violation};
use crate::disk::SimDisk;
use crate::world::Checked;

/// Looks at the frames that node `node` sends to `peer`; hands every vote on: who votes, in which term, for whom, and where
/// its log ends.
pub(crate) fn check(
    node: usize,
    peer: usize,
    bytes: &[u8],
    machine: &Shard<SimDisk>,
    mut vote: impl FnMut(Replica, Term, Vote, EntryId) -> Checked,
) -> Checked {
    let mut start = 0;
    while let Ok(Some(parsed)) = frame::parse(&bytes[start..], &Limits::PEER) {
        start += parsed.total_bytes;
        match parsed.kind {
            FrameKind::Raft | FrameKind::Append => {
                let Ok(message) = wire::view_peer_message(parsed.head) else { continue };
                let Some(view) = machine.group_views().find(|view| view.group == message.group) else { continue };
                if !is_kept(node, peer, &message, &view) {
                    return Err(broken(node, peer, &view, &message));
                }
                let voter = Replica { node, group: view.group };
                let promised = match message.body {
                    PeerBody::RequestVoteResponse { granted: true } => Vote::Given(peer),
                    PeerBody::RequestVote { .. } => Vote::Given(node),
                    PeerBody::PreVoteResponse { granted: true } => Vote::Promised(peer),
                    _ => continue,
                };
                vote(voter, message.term, promised, view.last)?;
            }
            FrameKind::Heartbeats | FrameKind::HeartbeatAnswers => check_terms(node, peer, &parsed, machine)?,
            _ => {}
        }
    }
    Ok(())
}

fn broken(node: usize, peer: usize, view: &GroupView, said: &dyn Debug) -> Violation {
    let replica = Replica { node, group: view.group };
    let seen = format!("{replica} sends {said:?} to node {} with {view:?}", peer + 1);
    Violation::new("promises stand on the disk", seen)
}

/// Heartbeats and their answers promise nothing but their terms.
fn check_terms(node: usize, peer: usize, parsed: &Frame<'_>, machine: &Shard<SimDisk>) -> Checked {
    let terms: Vec<(u32, Term)> = match parsed.kind {
        FrameKind::Heartbeats => wire::view_heartbeats(parsed.head)
            .map(|view| view.heartbeats().map(|heartbeat| (heartbeat.group, heartbeat.term)).collect()),
        _ => wire::view_heartbeat_answers(parsed.head)
            .map(|view| view.answers().map(|answer| (answer.group, answer.term)).collect()),
    }
    .unwrap_or_default();
    for view in machine.group_views() {
        let said =
            terms.iter().find(|(group, term)| *group == view.group && *term > view.durable_hard_state.current_term);
        if let Some((_, term)) = said {
            return Err(broken(node, peer, &view, &format_args!("{:?} of term {term}", parsed.kind)));
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
        | PeerBody::TimeoutNow => term_is_durable,
        PeerBody::PreVote { .. } | PeerBody::PreVoteResponse { .. } => true,
        PeerBody::ReadIndex { .. } | PeerBody::ReadIndexResponse { .. } => true,
    }
}
