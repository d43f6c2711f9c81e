//! One core under a microscope: messages in, `Ready` out, its disk flushed on command.
//!
//! Off the data path; tests only.
//!
//! Deliberately absent: other nodes; the test plays them.

use super::small_config;
use ringraft_raft::{
    AppendOutcome, AppendResult, EntryId, EntryMeta, HardState, IncomingEntries, LogTerms, Membership, Memberships,
    Message, NodeId, RaftCore, Ready, Role, Term,
};

/// The node under test is always 1.
pub const ME: NodeId = NodeId(1);

pub struct Solo {
    pub core: RaftCore,
    hard_state: HardState,
    /// What waits for the flush.
    pub held: Vec<(NodeId, Message)>,
}

pub fn id(term: Term, index: u64) -> EntryId {
    EntryId::new(term, index)
}

/// Entries of 100 bytes with these terms.
pub fn metas(terms: &[Term]) -> Vec<EntryMeta> {
    terms.iter().map(|term| EntryMeta { term: *term, length: 100 }).collect()
}

pub fn log_after(base: EntryId, terms: &[Term]) -> LogTerms {
    let mut log = LogTerms::after(base);
    for meta in metas(terms) {
        log.push(meta);
    }
    log
}

impl Solo {
    /// A voter among `voters` in `term`, with a durable log of these terms.
    pub fn new(voters: u64, term: Term, terms: &[Term]) -> Self {
        let hard_state = HardState { current_term: term, voted_for: None };
        Self::with(Membership::new((1..=voters).map(NodeId).collect()), hard_state, log_after(EntryId::ZERO, terms))
    }

    pub fn with(membership: Membership, hard_state: HardState, log: LogTerms) -> Self {
        let config = small_config(ME, 7).validate().expect("a valid configuration");
        Self {
            core: RaftCore::new(config, Memberships::new(membership), hard_state, log),
            hard_state,
            held: Vec::new(),
        }
    }

    /// The leader of `term` with a log of `terms` and its no-op after them: sent, not flushed, not acknowledged.
    pub fn leader(voters: u64, term: Term, terms: &[Term]) -> Self {
        let mut solo = Self::new(voters, term - 1, terms);
        solo.win();
        assert_eq!((solo.core.role(), solo.core.term()), (Role::Leader, term));
        solo.ready();
        solo
    }

    /// As `leader`, with everything committed.
    pub fn settled_leader(voters: u64, term: Term, terms: &[Term]) -> Self {
        let mut solo = Self::leader(voters, term, terms);
        solo.flush();
        for peer in 2..=voters {
            solo.accepted(peer, solo.core.last().index);
        }
        assert_eq!(solo.core.commit_index(), solo.core.last().index);
        solo.ready();
        solo
    }

    /// A follower of node 2 in `term`, told so.
    pub fn follower(voters: u64, term: Term, terms: &[Term]) -> Self {
        let mut solo = Self::new(voters, term, terms);
        solo.step(2, heartbeat(term, 0, 0));
        solo.ready();
        solo
    }

    /// Wins an election with everybody's votes.
    pub fn win(&mut self) {
        self.core.campaign();
        let voters = self.core.membership().voters().to_vec();
        let term = self.core.term() + 1;
        for voter in &voters {
            self.core.step(*voter, Message::PreVoteResponse { term, granted: true });
        }
        self.ready();
        self.flush();
        let term = self.core.term();
        for voter in &voters {
            self.core.step(*voter, Message::RequestVoteResponse { term, granted: true });
        }
    }

    pub fn step(&mut self, from: u64, message: Message) {
        self.core.step(NodeId(from), message);
    }

    pub fn append(&mut self, from: u64, term: Term, prev: EntryId, commit: u64, terms: &[Term]) -> AppendOutcome {
        let entries = metas(terms);
        let incoming = IncomingEntries { term, prev, leader_commit: commit, entries: &entries, changes: &[] };
        self.core.step_append(NodeId(from), &incoming)
    }

    pub fn ready(&mut self) -> Ready {
        let mut ready = Ready::new();
        self.core.ready(&mut ready);
        self.hard_state = ready.hard_state.unwrap_or(self.hard_state);
        self.held.extend(&ready.after_flush);
        ready
    }

    /// The disk catches up: what was held may go.
    pub fn flush(&mut self) -> Vec<(NodeId, Message)> {
        self.core.hard_state_durable(self.hard_state);
        self.core.durable(self.core.last());
        std::mem::take(&mut self.held)
    }

    /// A follower acknowledges.
    pub fn accepted(&mut self, from: u64, match_index: u64) {
        let result = AppendResult::Accepted { match_index };
        let term = self.core.term();
        self.step(from, Message::AppendEntriesResponse { term, result });
    }

    pub fn tick(&mut self, ticks: u32) {
        for _ in 0..ticks {
            self.core.tick();
        }
    }

    /// The log's terms from the first index on.
    pub fn terms(&self) -> Vec<Term> {
        (self.core.first_index()..=self.core.last().index).filter_map(|index| self.core.term_at(index)).collect()
    }
}

pub fn heartbeat(term: Term, leader_commit: u64, read_sequence: u64) -> Message {
    Message::Heartbeat { term, leader_commit, read_sequence, sent_us: 0 }
}

/// The messages to one node.
pub fn to(node: u64, messages: &[(NodeId, Message)]) -> Vec<Message> {
    messages.iter().filter(|(to, _)| *to == NodeId(node)).map(|(_, message)| *message).collect()
}

/// Whether a vote was given, from the only answer among the messages.
pub fn vote(messages: &[(NodeId, Message)]) -> Option<(Term, bool)> {
    messages.iter().find_map(|(_, message)| match message {
        Message::RequestVoteResponse { term, granted } | Message::PreVoteResponse { term, granted } => {
            Some((*term, *granted))
        }
        _ => None,
    })
}

/// The result in the only append response among the messages.
pub fn result(messages: &[(NodeId, Message)]) -> Option<AppendResult> {
    messages.iter().find_map(|(_, message)| match message {
        Message::AppendEntriesResponse { result, .. } => Some(*result),
        _ => None,
    })
}

/// A refusal.
pub fn rejected(prev_index: u64, conflict_term: u64, conflict_first_index: u64, last_index: u64) -> AppendResult {
    AppendResult::Rejected { prev_index, conflict_term, conflict_first_index, last_index }
}

/// A follower answers a heartbeat.
pub fn answer(solo: &mut Solo, from: u64, read_sequence: u64) {
    let term = solo.core.term();
    solo.step(from, Message::HeartbeatResponse { term, read_sequence, sent_us: 0, shield_us: 0 });
}

/// The `AppendEntries` to one node: (prev, count).
pub fn appends(node: u64, ready: &Ready) -> Vec<(EntryId, u32)> {
    let append = |message| match message {
        Message::AppendEntries { prev, count, .. } => Some((prev, count)),
        _ => None,
    };
    to(node, &ready.messages).into_iter().filter_map(append).collect()
}
