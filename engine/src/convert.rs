//! Between the messages of the core and those of the wire: field by field, nothing else.
//!
//! Data path 6b/9.

use ringraft_net::wire::{PeerBody, PeerMessage};
use ringraft_raft::{AppendResult, EntryId, GroupId, Message};

use crate::group::Append;

/// A message of the core as it travels; `None`: heartbeats and their answers travel together, see `shard/heartbeats.rs`.
pub(crate) fn to_wire(group: GroupId, message: &Message) -> Option<PeerMessage> {
    let body = match *message {
        Message::PreVote { last, .. } => PeerBody::PreVote { last_term: last.term, last_index: last.index },
        Message::PreVoteResponse { granted, .. } => PeerBody::PreVoteResponse { granted },
        Message::RequestVote { last, forced, .. } => {
            PeerBody::RequestVote { last_term: last.term, last_index: last.index, forced }
        }
        Message::RequestVoteResponse { granted, .. } => PeerBody::RequestVoteResponse { granted },
        Message::AppendEntries { prev, leader_commit, count, .. } => {
            PeerBody::AppendEntries { prev_term: prev.term, prev_index: prev.index, leader_commit, count }
        }
        Message::AppendEntriesResponse { result: AppendResult::Accepted { match_index }, .. } => {
            PeerBody::AppendAccepted { match_index }
        }
        Message::AppendEntriesResponse {
            result: AppendResult::Rejected { prev_index, conflict_term, conflict_first_index, last_index },
            ..
        } => PeerBody::AppendRejected { prev_index, conflict_term, conflict_first_index, last_index },
        Message::Heartbeat { .. } | Message::HeartbeatResponse { .. } => return None,
        Message::TimeoutNow { .. } => PeerBody::TimeoutNow,
    };
    Some(PeerMessage { group: group.0, term: message.term(), body })
}

/// A message without entries, as the core takes it.
///
/// # Errors
/// An AppendEntries that announces entries but came in a frame without any.
pub(crate) fn from_wire(message: &PeerMessage) -> Result<(GroupId, Message), String> {
    let term = message.term;
    let message_of_core = match message.body {
        PeerBody::PreVote { last_term, last_index } => {
            Message::PreVote { term, last: EntryId { term: last_term, index: last_index } }
        }
        PeerBody::PreVoteResponse { granted } => Message::PreVoteResponse { term, granted },
        PeerBody::RequestVote { last_term, last_index, forced } => {
            Message::RequestVote { term, last: EntryId { term: last_term, index: last_index }, forced }
        }
        PeerBody::RequestVoteResponse { granted } => Message::RequestVoteResponse { term, granted },
        PeerBody::AppendEntries { prev_term, prev_index, leader_commit, count: 0 } => {
            let prev = EntryId { term: prev_term, index: prev_index };
            Message::AppendEntries { term, prev, leader_commit, count: 0 }
        }
        PeerBody::AppendEntries { count, .. } => return Err(format!("{count} entries announced, none sent")),
        PeerBody::AppendAccepted { match_index } => {
            Message::AppendEntriesResponse { term, result: AppendResult::Accepted { match_index } }
        }
        PeerBody::AppendRejected { prev_index, conflict_term, conflict_first_index, last_index } => {
            let result = AppendResult::Rejected { prev_index, conflict_term, conflict_first_index, last_index };
            Message::AppendEntriesResponse { term, result }
        }
        PeerBody::TimeoutNow => Message::TimeoutNow { term },
        question => return Err(format!("{question:?} is not for the core")),
    };
    Ok((GroupId(message.group), message_of_core))
}

/// The head of an `Append` frame.
///
/// # Errors
/// The head is of another message.
pub(crate) fn append_from_wire(message: &PeerMessage) -> Result<(GroupId, Append), String> {
    match message.body {
        PeerBody::AppendEntries { prev_term, prev_index, leader_commit, count } => {
            let prev = EntryId { term: prev_term, index: prev_index };
            Ok((GroupId(message.group), Append { term: message.term, prev, leader_commit, count }))
        }
        other => Err(format!("an append frame carries {other:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let last = EntryId { term: 3, index: 9 };
        let rejected =
            AppendResult::Rejected { prev_index: 7, conflict_term: 2, conflict_first_index: 5, last_index: 8 };
        let messages = [
            Message::PreVote { term: 4, last },
            Message::PreVoteResponse { term: 4, granted: true },
            Message::RequestVote { term: 4, last, forced: false },
            Message::RequestVote { term: 4, last, forced: true },
            Message::TimeoutNow { term: 4 },
            Message::RequestVoteResponse { term: 4, granted: false },
            Message::AppendEntries { term: 4, prev: last, leader_commit: 6, count: 0 },
            Message::AppendEntriesResponse { term: 4, result: AppendResult::Accepted { match_index: 9 } },
            Message::AppendEntriesResponse { term: 4, result: rejected },
        ];
        for message in messages {
            let wire = to_wire(GroupId(5), &message).expect("a message of its own");
            assert_eq!(from_wire(&wire), Ok((GroupId(5), message)));
        }
        let heartbeat = Message::Heartbeat { term: 4, leader_commit: 6, read_sequence: 11, sent_us: 12 };
        assert_eq!(to_wire(GroupId(5), &heartbeat), None, "it travels with others");
        let with_entries = Message::AppendEntries { term: 4, prev: last, leader_commit: 6, count: 2 };
        let wire = to_wire(GroupId(5), &with_entries).expect("a message of its own");
        assert!(from_wire(&wire).is_err(), "entries need an append frame");
        let (group, append) = append_from_wire(&wire).expect("an append head");
        assert_eq!((group, append.term, append.prev, append.count), (GroupId(5), 4, last, 2));
        assert!(append_from_wire(&to_wire(GroupId(5), &messages[0]).expect("a message of its own")).is_err());
    }
}
