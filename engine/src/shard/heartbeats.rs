//! Heartbeats of all groups between two nodes travel together: gathered until the turn ends, taken apart on arrival.
//!
//! Off the data path of writes; idle groups say nothing else.
//!
//! ```text
//!   group ── Heartbeat ──> Gathered of the peer ── end of the turn ──> one frame ──> each group of the peer
//!   group <── HeartbeatResponse ── one frame <── end of its turn ── Gathered <───────────┘
//! ```
//! Invariants: what is gathered leaves with the turn it was said in, so that a round of ReadIndex waits for no tick; each
//! group gets exactly what another one of it said; a frame is bounded, what does not fit or has another time goes in one
//! of its own.
//! When heartbeats are due is the core's business.

use ringraft_net::link::Outgoing;
use ringraft_net::wire::{self, HEARTBEATS_MAX, Heartbeat, HeartbeatAnswer, HeartbeatAnswersRef, HeartbeatsRef};
use ringraft_raft::{Dozed, GroupId, Message, NodeId};
use ringraft_wal::Disk;

use super::Shard;

/// What the groups of a shard say to one peer in this turn.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    heartbeats: Vec<Heartbeat>,
    sent_us: u64,
    answers: Vec<HeartbeatAnswer>,
    /// `sent_us` and `shield_us` of the answers.
    answered_us: (u64, u64),
}

impl Gathered {
    /// Takes a heartbeat or an answer to one, nothing else. Whether `outgoing` has a new frame, because what was gathered
    /// before cannot stand in the same one.
    pub(super) fn take(&mut self, group: GroupId, message: &Message, outgoing: &mut Outgoing) -> bool {
        let group = group.0;
        match *message {
            Message::Heartbeat { term, leader_commit, read_sequence, sent_us } => {
                let fits = self.sent_us == sent_us && self.heartbeats.len() < HEARTBEATS_MAX;
                let pushed = !fits && self.push_heartbeats(outgoing);
                self.sent_us = sent_us;
                self.heartbeats.push(Heartbeat { group, term, leader_commit, read_sequence });
                pushed
            }
            Message::HeartbeatResponse { term, read_sequence, sent_us, shield_us } => {
                let fits = self.answered_us == (sent_us, shield_us) && self.answers.len() < HEARTBEATS_MAX;
                let pushed = !fits && self.push_answers(outgoing);
                self.answered_us = (sent_us, shield_us);
                self.answers.push(HeartbeatAnswer { group, term, read_sequence });
                pushed
            }
            _ => false,
        }
    }

    /// The turn ends. Whether there is a new frame.
    pub(super) fn flush(&mut self, outgoing: &mut Outgoing) -> bool {
        let heartbeats = self.push_heartbeats(outgoing);
        self.push_answers(outgoing) || heartbeats
    }

    fn push_heartbeats(&mut self, outgoing: &mut Outgoing) -> bool {
        let frame = HeartbeatsRef { sent_us: self.sent_us, groups: &self.heartbeats };
        let pushed = !self.heartbeats.is_empty() && outgoing.push(|out| _ = frame.append_frame(out));
        self.heartbeats.clear();
        pushed
    }

    fn push_answers(&mut self, outgoing: &mut Outgoing) -> bool {
        let (sent_us, shield_us) = self.answered_us;
        let frame = HeartbeatAnswersRef { sent_us, shield_us, groups: &self.answers };
        let pushed = !self.answers.is_empty() && outgoing.push(|out| _ = frame.append_frame(out));
        self.answers.clear();
        pushed
    }

    /// The link broke.
    pub(super) fn clear(&mut self) {
        self.heartbeats.clear();
        self.answers.clear();
    }
}

impl<D: Disk> Shard<D> {
    /// Heartbeats of leaders on `from`.
    pub(super) fn on_heartbeats(&mut self, from: NodeId, head: &[u8]) -> Result<(), String> {
        let view = wire::view_heartbeats(head).map_err(|error| error.to_string())?;
        let sent_us = view.sent_us.to_native();
        for Heartbeat { group, term, leader_commit, read_sequence } in view.heartbeats() {
            let message = Message::Heartbeat { term, leader_commit, read_sequence, sent_us };
            self.whisper(from, GroupId(group), message)?;
        }
        Ok(())
    }

    /// Answers to heartbeats of leaders here.
    pub(super) fn on_heartbeat_answers(&mut self, from: NodeId, head: &[u8]) -> Result<(), String> {
        let view = wire::view_heartbeat_answers(head).map_err(|error| error.to_string())?;
        let (sent_us, shield_us) = (view.sent_us.to_native(), view.shield_us.to_native());
        for HeartbeatAnswer { group, term, read_sequence } in view.answers() {
            let message = Message::HeartbeatResponse { term, read_sequence, sent_us, shield_us };
            self.whisper(from, GroupId(group), message)?;
        }
        Ok(())
    }

    fn whisper(&mut self, from: NodeId, group: GroupId, message: Message) -> Result<(), String> {
        let io = &mut self.io;
        match self.groups.whisper(group, from, &message) {
            Some(Dozed::Quiet) => return Ok(()),
            Some(Dozed::Says(answer)) => {
                io.peers.send(from, group, &answer);
                return Ok(());
            }
            Some(Dozed::Wakes) | None => {}
        }
        if self.groups.hear(group, |replica| replica.on_message(from, message, io)) {
            return Ok(());
        }
        self.replica(group).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use ringraft_net::frame::{self, FrameKind};
    use ringraft_net::limits::Limits;

    use super::*;

    fn heartbeat(sent_us: u64) -> Message {
        Message::Heartbeat { term: 2, leader_commit: 3, read_sequence: 4, sent_us }
    }

    /// The groups in each frame.
    fn frames(outgoing: &mut Outgoing) -> Vec<(FrameKind, u64, usize)> {
        let bytes = outgoing.take().unwrap_or_default();
        let (mut left, mut found) = (&bytes[..], Vec::new());
        while let Some(parsed) = frame::parse(left, &Limits::PEER).expect("frames") {
            found.push(match parsed.kind {
                FrameKind::Heartbeats => {
                    let view = wire::view_heartbeats(parsed.head).expect("heartbeats");
                    (parsed.kind, view.sent_us.to_native(), view.heartbeats().len())
                }
                _ => {
                    let view = wire::view_heartbeat_answers(parsed.head).expect("answers");
                    (parsed.kind, view.sent_us.to_native(), view.answers().len())
                }
            });
            left = &left[parsed.total_bytes..];
        }
        outgoing.give_back(bytes);
        found
    }

    #[test]
    fn a_turn_makes_one_frame_of_each_kind() {
        let (mut gathered, mut outgoing) = (Gathered::default(), Outgoing::new(1 << 20));
        for group in 0..3 {
            assert!(!gathered.take(GroupId(group), &heartbeat(9), &mut outgoing));
            let answer = Message::HeartbeatResponse { term: 2, read_sequence: 4, sent_us: 8, shield_us: 7 };
            assert!(!gathered.take(GroupId(group), &answer, &mut outgoing));
        }
        assert!(outgoing.is_empty(), "until the turn ends");
        assert!(gathered.flush(&mut outgoing));
        assert_eq!(frames(&mut outgoing), [(FrameKind::Heartbeats, 9, 3), (FrameKind::HeartbeatAnswers, 8, 3)]);
        assert!(!gathered.flush(&mut outgoing), "each once");
    }

    #[test]
    fn frames_are_bounded_and_of_one_time() {
        let (mut gathered, mut outgoing) = (Gathered::default(), Outgoing::new(1 << 20));
        for group in 0..HEARTBEATS_MAX as u32 + 1 {
            gathered.take(GroupId(group), &heartbeat(9), &mut outgoing);
        }
        gathered.take(GroupId(5_000), &heartbeat(10), &mut outgoing);
        gathered.flush(&mut outgoing);
        let expected = [(9, HEARTBEATS_MAX), (9, 1), (10, 1)];
        assert_eq!(frames(&mut outgoing), expected.map(|(sent_us, groups)| (FrameKind::Heartbeats, sent_us, groups)));
    }

    #[test]
    fn what_was_gathered_for_a_broken_link_is_forgotten() {
        let (mut gathered, mut outgoing) = (Gathered::default(), Outgoing::new(1 << 20));
        gathered.take(GroupId(1), &heartbeat(9), &mut outgoing);
        gathered.clear();
        assert!(!gathered.flush(&mut outgoing) && outgoing.is_empty());
    }
}
