//! Reads at a replica that does not lead: it asks the leader how far it must have applied to answer reads of now.
//!
//! Off the data path of writes. Thesis 6.4, ReadIndex of a follower.
//!
//! ```text
//!   read, read ...   gather
//!   turn             ReadIndex{incarnation, question} --> leader: one of its read rounds
//!   read ...         gather for the next question     <-- ReadIndexResponse{index}, a quorum confirmed that it leads
//!   applied >= index answered; current as of when the question was sent
//! ```
//!
//! Invariants: one question on the way at a time; an answer counts only for the question of this run of the process that
//! it names, so it speaks of a time after every read of that question came in; what is not confirmed fails as
//! `Unavailable` when the leader changes, its link breaks or an election timeout passes without an answer. A leader holds
//! at most one question of each node: a later one takes its place, the node has given the earlier one up.
//! It confirms nothing itself: the core does.

use ringraft_net::wire::{OutcomeRef, PeerBody, PeerMessage};
use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{Index, NodeId, ReadContext, ReadReady};
use ringraft_wal::Disk;

use super::Group;
use super::ordering::Input;
use super::reads::Reads;
use crate::metrics::record::Rejection;
use crate::shard::clients::Asker;
use crate::shard::io::Io;

/// A question on its way to the leader.
#[derive(Clone, Copy, Debug)]
struct Asked {
    to: NodeId,
    at_us: u64,
    ticks_left: u32,
}

/// A question of another node that waits for a read round of this leader.
#[derive(Clone, Copy, Debug)]
struct Held {
    context: ReadContext,
    from: NodeId,
    incarnation: u64,
    question: u64,
}

/// The questions of one replica, its own and those put to it.
#[derive(Debug)]
pub(crate) struct Questions {
    /// This run of the process.
    incarnation: u64,
    /// The last question that was sent.
    question: u64,
    asked: Option<Asked>,
    /// Reads by the question they wait for.
    reads: Reads,
    held: Vec<Held>,
    /// When applied up to this index, everything committed before this time is.
    learnt: Option<(Index, u64)>,
    /// Everything committed before this time is applied; 0: nothing is known.
    current_us: u64,
}

impl Questions {
    pub(crate) fn new(incarnation: u64) -> Self {
        let (reads, held) = (Reads::default(), Vec::new());
        Self { incarnation, question: 0, asked: None, reads, held, learnt: None, current_us: 0 }
    }

    /// Reads that wait here.
    pub(crate) fn len(&self) -> usize {
        self.reads.len()
    }

    /// Whether a question of another node waits for a read round.
    pub(crate) fn holds_any(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether a question of this replica is on its way.
    pub(crate) fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether a turn has something to do: a question to send, or a read round that another node waits for.
    pub(crate) fn want_turn(&self) -> bool {
        self.holds_any() || (self.asked.is_none() && self.reads.has(self.gathering()))
    }

    /// Reads of the next question.
    fn gathering(&self) -> ReadContext {
        ReadContext { term: 0, sequence: self.question + 1 }
    }
}

impl Group {
    /// A linearizable read that this replica answers, whether it leads or not.
    pub(crate) fn read_here<D: Disk>(&mut self, request: &[u8], asker: Asker, io: &mut Io<D>) {
        if self.is_leader() {
            return self.read(request, asker, io);
        }
        if self.leader().is_none() {
            return self.reply_cannot_ask(asker, io);
        }
        let context = self.questions.gathering();
        self.questions.reads.push(context, request, asker);
    }

    /// A read of what was current at most `bound_ms` ago; asks when that is not known.
    pub(crate) fn read_bounded<D: Disk>(&mut self, request: &[u8], bound_ms: u64, asker: Asker, io: &mut Io<D>) {
        let oldest_us = io.now_us.saturating_sub(bound_ms.saturating_mul(1_000));
        let current = self.current_us(io).is_some_and(|current_us| current_us >= oldest_us);
        if current && self.serving {
            return self.answer_read(request, asker, io);
        }
        self.read_here(request, asker, io);
    }

    /// Everything committed before this time is applied here.
    fn current_us<D: Disk>(&mut self, io: &Io<D>) -> Option<u64> {
        self.core.observe_time(io.now_us);
        let last_applied = self.machine.last_applied();
        if self.is_leader() {
            return self.core.led_until_us().filter(|_| last_applied >= self.core.commit_index());
        }
        let questions = &mut self.questions;
        if let Some((_, at_us)) = questions.learnt.take_if(|(index, _)| *index <= last_applied) {
            questions.current_us = questions.current_us.max(at_us);
        }
        (questions.current_us > 0).then_some(questions.current_us)
    }

    /// Sends the question of the reads that gathered, unless one is on its way.
    pub(crate) fn ask_leader<D: Disk>(&mut self, io: &mut Io<D>) {
        let gathering = self.questions.gathering();
        if self.questions.asked.is_some() || !self.questions.reads.has(gathering) {
            return;
        }
        let Some(to) = self.leader().filter(|leader| io.peers.is_connected(*leader)) else {
            return self.fail_questions(io);
        };
        let ticks_left = self.core.config().election_ticks_max;
        let questions = &mut self.questions;
        questions.question = gathering.sequence;
        questions.asked = Some(Asked { to, at_us: io.now_us, ticks_left });
        let body = PeerBody::ReadIndex { incarnation: questions.incarnation, question: questions.question };
        io.peers.send_wire(to, &PeerMessage { group: self.id.0, term: self.core.term(), body });
    }

    /// A question on the way is given up after an election timeout.
    pub(crate) fn tick_questions<D: Disk>(&mut self, io: &mut Io<D>) {
        if let Some(asked) = &mut self.questions.asked {
            asked.ticks_left -= 1;
            if asked.ticks_left == 0 {
                self.fail_questions(io);
            }
        }
    }

    /// Whom the question went to cannot be reached.
    pub(super) fn leader_unreachable<D: Disk>(&mut self, peer: NodeId, io: &mut Io<D>) {
        if self.questions.asked.is_some_and(|asked| asked.to == peer) {
            self.fail_questions(io);
        }
    }

    /// Another node asks this one.
    pub(crate) fn on_question<D: Disk>(&mut self, from: NodeId, incarnation: u64, question: u64, io: &mut Io<D>) {
        self.questions.held.retain(|held| held.from != from);
        match self.core.read_index() {
            Ok(context) => self.questions.held.push(Held { context, from, incarnation, question }),
            Err(_) => self.answer_question(from, (incarnation, question), None, io),
        }
    }

    /// The leader answers.
    pub(crate) fn on_answer<D: Disk>(
        &mut self,
        from: NodeId,
        (incarnation, question): (u64, u64),
        index: Option<Index>,
        io: &mut Io<D>,
    ) {
        let questions = &mut self.questions;
        let current = (incarnation, question) == (questions.incarnation, questions.question);
        let Some(asked) = questions.asked.filter(|asked| current && asked.to == from) else { return };
        let Some(index) = index else { return self.fail_questions(io) };
        questions.asked = None;
        questions.reads.confirm(ReadContext { term: 0, sequence: question }, index);
        if asked.at_us > 0 {
            questions.learnt.get_or_insert((index, asked.at_us)); // until it is reached: later ones are further off
        }
        self.current_us(io);
        self.advance(Input::Nothing, io);
    }

    /// A read round of this leader is confirmed: with it the questions that waited for it.
    pub(super) fn answer_questions<D: Disk>(&mut self, read: ReadReady, io: &mut Io<D>) {
        let covered =
            |held: &Held| held.context.term == read.context.term && held.context.sequence <= read.context.sequence;
        while let Some(place) = self.questions.held.iter().position(covered) {
            let held = self.questions.held.swap_remove(place);
            self.answer_question(held.from, (held.incarnation, held.question), Some(read.index), io);
        }
    }

    /// This node does not lead any more: those who asked it are told.
    pub(super) fn refuse_questions<D: Disk>(&mut self, io: &mut Io<D>) {
        while let Some(held) = self.questions.held.pop() {
            self.answer_question(held.from, (held.incarnation, held.question), None, io);
        }
    }

    fn answer_question<D: Disk>(
        &self,
        to: NodeId,
        (incarnation, question): (u64, u64),
        index: Option<Index>,
        io: &mut Io<D>,
    ) {
        let (confirmed, index) = (index.is_some(), index.unwrap_or(0));
        let body = PeerBody::ReadIndexResponse { incarnation, question, index, confirmed };
        io.peers.send_wire(to, &PeerMessage { group: self.id.0, term: self.core.term(), body });
    }

    /// Answers the reads whose question is answered and whose index is applied.
    pub(super) fn serve_questions<D: Disk>(&mut self, io: &mut Io<D>) {
        let early = is_active(Mutant::FollowerReadBeforeApply);
        let applied = if early { Index::MAX } else { self.machine.last_applied() };
        while let Some(round) = self.questions.reads.take_served(applied) {
            for (asker, request) in round.requests() {
                io.counters.follower_reads += 1;
                self.answer_read(request, asker, io);
            }
            self.questions.reads.recycle(round);
        }
    }

    /// Whatever is not confirmed will not be: the next reads ask anew.
    pub(super) fn fail_questions<D: Disk>(&mut self, io: &mut Io<D>) {
        self.questions.asked = None;
        while let Some(round) = self.questions.reads.take_unconfirmed() {
            for (asker, _) in round.requests() {
                self.reply_cannot_ask(asker, io);
            }
            self.questions.reads.recycle(round);
        }
    }

    fn reply_cannot_ask<D: Disk>(&mut self, asker: Asker, io: &mut Io<D>) {
        self.reject(Rejection::NotReady, io);
        let message = format!(
            "this replica of group {} cannot tell how current it is: it reaches no leader, or the leader changed; ask \
             again or ask another",
            self.id
        );
        io.reply(asker, self.position(), OutcomeRef::Unavailable { message: &message });
    }
}
