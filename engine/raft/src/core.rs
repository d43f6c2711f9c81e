//! The core of one replica: its state, the dispatch of events, and `ready`.
//!
//! Data path 5/9.
//!
//! ```text
//!   tick, step, step_append, propose, durable, hard_state_durable, read_index, ...
//!        |
//!        v                         (election.rs, append.rs, replication.rs, read_index.rs, lease.rs)
//!     RaftCore { hard_state, log, commit_index, role } --> Outbox --> ready(&mut Ready)
//! ```
//!
//! Relations: `base <= commit_index <= last`; `durable_index <= last`; `hard_state`, `commit_index` and every
//! `match_index` only grow. `invariants.rs` checks them after every event in debug builds.
//!
//! Deliberately absent: I/O, clocks, payloads, randomness from outside, threads.

use crate::{
    config::{Config, ValidConfig},
    ids::{EntryId, Index, NodeId, Term},
    lease::Heard,
    log::LogTerms,
    membership::{Membership, Memberships},
    message::{AppendResult, EntryMeta, HardState, IncomingEntries, Message},
    mutants::{Mutant, is_active},
    pace::Pace,
    prng::Prng,
    progress::Progress,
    read_index::ReadRounds,
    ready::{AppendOutcome, ProgressState, ProposeError, ReadReady, Ready, Role},
    transfer::Transfer,
};
use alloc::{boxed::Box, vec::Vec};
use core::mem;

/// What a leader's no-op counts, in bytes of record.
pub const NOOP_LENGTH: u32 = 48;

/// The Raft protocol of one group on one node, as a synchronous state machine.
#[derive(Clone, Debug)]
pub struct RaftCore {
    pub(crate) config: ValidConfig,
    pub(crate) memberships: Memberships,
    pub(crate) prng: Prng,
    pub(crate) hard_state: HardState,
    /// What the host has confirmed to be on disk.
    pub(crate) durable_hard_state: HardState,
    pub(crate) log: LogTerms,
    pub(crate) durable_index: Index,
    pub(crate) commit_index: Index,
    pub(crate) role: RoleState,
    /// Ticks since the start.
    pub(crate) now: u64,
    /// The host's clock when it was told last.
    pub(crate) observed_us: u64,
    /// When a leader was heard last, of whatever term, or when this replica was restarted.
    pub(crate) heard_tick: Option<u64>,
    /// Ticks since a leader was heard, a vote was given or an election began.
    pub(crate) election_elapsed: u32,
    pub(crate) election_timeout: u32,
    pub(crate) outbox: Outbox,
    pub(crate) refused_conflicts: u64,
    /// Until the log reaches this entry, nobody gets a vote of this node.
    pub(crate) votes_from: EntryId,
    #[cfg(debug_assertions)]
    pub(crate) witness: crate::invariants::Witness,
}

/// The role with the state that lives and dies with it.
#[derive(Clone, Debug)]
pub(crate) enum RoleState {
    Follower(Follower),
    PreCandidate(Tally),
    Candidate(Tally),
    Leader(Box<Leader>),
}

/// State of a follower.
#[derive(Clone, Debug, Default)]
pub(crate) struct Follower {
    pub(crate) leader: Option<NodeId>,
    /// The log is known to equal the leader's up to here.
    pub(crate) match_index: Index,
}

/// Votes by voter.
pub(crate) type Tally = Vec<(NodeId, bool)>;

/// State of a leader.
#[derive(Clone, Debug)]
pub(crate) struct Leader {
    /// Everyone else.
    pub(crate) peers: Vec<Progress>,
    /// Index of its no-op: only from here on commits are counted (Raft 5.4.2).
    pub(crate) first_index_of_term: Index,
    /// Ticks since heartbeats were sent, or since the tick before at which those of all groups are due.
    pub(crate) heartbeat_elapsed: u32,
    pub(crate) heartbeat_due: bool,
    pub(crate) reads: ReadRounds,
    pub(crate) transfer: Option<Transfer>,
    /// A `TimeoutNow` left in this term, and may arrive at any time.
    pub(crate) timeout_now_sent: bool,
    pub(crate) pace: Pace,
    /// The joint configuration, by index, whose end was asked for last.
    pub(crate) left_joint: Index,
}

/// What waits for the next `ready`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) messages: Vec<(NodeId, Message)>,
    pub(crate) after_flush: Vec<(NodeId, Message)>,
    /// The one answer to the leader that waits for the flush; a later one replaces it.
    pub(crate) append_response: Option<(NodeId, Message)>,
    pub(crate) noop: Option<EntryId>,
    pub(crate) reads: Vec<ReadReady>,
    pub(crate) reads_failed: bool,
    pub(crate) snapshots: Vec<NodeId>,
    pub(crate) membership_due: Option<Membership>,
    /// What the host was told last.
    told_hard_state: HardState,
    told_commit_index: Index,
    told_role: Option<(Role, Option<NodeId>, Term)>,
}

impl Outbox {
    /// The log begins anew behind `index`, which the host knows to be committed and applied.
    pub(crate) fn begin_at(&mut self, index: Index) {
        self.noop = None;
        self.told_commit_index = index;
    }
}

impl RaftCore {
    /// A replica after a start or restart, with the configurations at the log's base and in its entries: a follower,
    /// whatever it was before (openraft #1511). Everything in `log` and `hard_state` is durable. The commit index is that
    /// of the base, or of the last change of members but one, until a leader tells more.
    ///
    /// A log ahead of the hard state is what a crash between the two leaves; nothing was answered in that term yet, so
    /// the node moves to it without a vote, and the first `ready` persists that.
    ///
    /// A membership without voters is that of a replica which knows no members yet: it listens, and never campaigns.
    #[must_use]
    pub fn new(config: ValidConfig, memberships: Memberships, recovered: HardState, log: LogTerms) -> Self {
        let hard_state = if log.last().term > recovered.current_term {
            HardState { current_term: log.last().term, voted_for: None }
        } else {
            recovered
        };
        let told_commit_index = log.base().index;
        let commit_index = memberships.committed_index().max(told_commit_index);
        let mut core = Self {
            prng: Prng::new(config.seed, config.id),
            config,
            memberships,
            hard_state,
            durable_hard_state: recovered,
            durable_index: log.last().index,
            commit_index,
            log,
            role: RoleState::Follower(Follower::default()),
            now: 0,
            observed_us: 0,
            heard_tick: None,
            election_elapsed: 0,
            election_timeout: 0,
            outbox: Outbox {
                told_hard_state: recovered,
                told_commit_index,
                told_role: Some((Role::Follower, None, hard_state.current_term)),
                ..Outbox::default()
            },
            refused_conflicts: 0,
            votes_from: EntryId::ZERO,
            #[cfg(debug_assertions)]
            witness: crate::invariants::Witness::default(),
        };
        core.reset_election_timer();
        core.check();
        core
    }

    /// An earlier log of this replica was given up, and may have been acknowledged up to `entry`: until the log reaches it
    /// again, this node gives nobody its vote, itself included. It would break what its acknowledgements promised.
    pub fn withhold_votes_until(&mut self, entry: EntryId) {
        self.votes_from = entry;
    }

    /// What the log must reach before this node votes; nothing, unless an earlier log was given up.
    #[must_use]
    pub fn votes_withheld_until(&self) -> EntryId {
        self.votes_from
    }

    /// Time passes by one tick.
    pub fn tick(&mut self) {
        self.now += 1;
        match &mut self.role {
            RoleState::Leader(_) => self.tick_leader(),
            _ => self.tick_election(),
        }
        self.check();
    }

    /// A message came in. An `AppendEntries` with entries goes to `step_append` instead and is ignored here.
    pub fn step(&mut self, from: NodeId, message: Message) {
        if from == self.config.id || message.term() == Term::MAX {
            return;
        }
        match message {
            Message::PreVote { term, last } => self.step_pre_vote(from, term, last),
            Message::PreVoteResponse { term, granted } => self.step_pre_vote_response(from, term, granted),
            Message::RequestVote { term, last, forced } => self.step_request_vote(from, term, last, forced),
            Message::RequestVoteResponse { term, granted } => self.step_vote_response(from, term, granted),
            Message::AppendEntries { term, prev, leader_commit, count } => {
                if count == 0 {
                    let incoming = IncomingEntries { term, prev, leader_commit, entries: &[], changes: &[] };
                    let _: AppendOutcome = self.append(from, &incoming);
                }
            }
            Message::AppendEntriesResponse { term, result } => self.step_append_response(from, term, result),
            Message::Heartbeat { term, leader_commit, read_sequence, sent_us } => {
                self.step_heartbeat(from, term, leader_commit, (read_sequence, sent_us));
            }
            Message::HeartbeatResponse { term, read_sequence, sent_us, shield_us } => {
                self.step_heartbeat_response(from, term, read_sequence, Heard { sent_us, shield_us });
            }
            Message::TimeoutNow { term } => self.step_timeout_now(from, term),
        }
        self.check();
    }

    /// An `AppendEntries` came in, with its entries and the configurations that some of them bring, by index. The outcome
    /// says which of them the host appends, right away.
    pub fn step_append(&mut self, from: NodeId, incoming: &IncomingEntries<'_>) -> AppendOutcome {
        if from == self.config.id || incoming.term == Term::MAX {
            return AppendOutcome::Ignored;
        }
        let outcome = self.append(from, incoming);
        self.check();
        outcome
    }

    /// Adds an entry whose record has `length` bytes. The host appends the record to its log right away.
    pub fn propose(&mut self, length: u32) -> Result<EntryId, ProposeError> {
        let noop_waits = self.outbox.noop.is_some();
        if noop_waits || !matches!(self.role, RoleState::Leader(_)) {
            let leader = if noop_waits { None } else { self.leader() };
            return Err(ProposeError::NotLeader { leader });
        }
        if self.is_transferring() {
            return Err(ProposeError::Transferring);
        }
        let uncommitted = self.log.bytes_between(self.commit_index, self.log.last().index);
        if uncommitted > 0 && uncommitted.saturating_add(u64::from(length)) > self.config.uncommitted_bytes_max {
            return Err(ProposeError::Overloaded);
        }
        Ok(self.log.push(EntryMeta { term: self.hard_state.current_term, length }))
    }

    /// The host's log is durable up to and with `entry`. Ignored when the entry was replaced since: the durability of
    /// what took its place is told later, because the host's log is flushed in order. (An entry that was replaced and
    /// then came back counts a little early; that cannot matter, since only a leader counts itself, and its own vote was
    /// flushed after every entry it had.)
    pub fn durable(&mut self, entry: EntryId) {
        if entry.index <= self.durable_index || !self.log.contains(entry) {
            return;
        }
        self.durable_index = entry.index;
        self.advance_commit();
        self.hand_over();
        self.check();
    }

    /// This hard state is durable, and every record the host appended before it.
    pub fn hard_state_durable(&mut self, hard_state: HardState) {
        let order = |state: HardState| (state.current_term, state.voted_for.is_some());
        if order(hard_state) <= order(self.durable_hard_state) || order(hard_state) > order(self.hard_state) {
            return;
        }
        self.durable_hard_state = hard_state;
        self.count_votes();
        self.check();
    }

    /// Moves everything that has to be done into `ready`, which is emptied first. Whether there is anything.
    pub fn ready(&mut self, ready: &mut Ready) -> bool {
        ready.clear();
        self.close_read_round();
        self.send_to_peers();
        self.ask_to_leave_joint();
        let role = (self.role(), self.leader(), self.hard_state.current_term);
        let outbox = &mut self.outbox;
        mem::swap(&mut ready.messages, &mut outbox.messages);
        mem::swap(&mut ready.after_flush, &mut outbox.after_flush);
        mem::swap(&mut ready.reads, &mut outbox.reads);
        mem::swap(&mut ready.snapshots, &mut outbox.snapshots);
        ready.membership_due = outbox.membership_due.take();
        ready.after_flush.extend(outbox.append_response.take());
        ready.noop = outbox.noop.take();
        ready.reads_failed = mem::take(&mut outbox.reads_failed);
        if outbox.told_hard_state != self.hard_state {
            outbox.told_hard_state = self.hard_state;
            ready.hard_state = Some(self.hard_state);
        }
        if outbox.told_commit_index != self.commit_index {
            outbox.told_commit_index = self.commit_index;
            ready.commit_index = Some(self.commit_index);
        }
        if outbox.told_role != Some(role) {
            outbox.told_role = Some(role);
            ready.role = Some(role);
        }
        self.check();
        !ready.is_empty()
    }

    /// The role at the moment.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.role {
            RoleState::Follower(_) => Role::Follower,
            RoleState::PreCandidate(_) => Role::PreCandidate,
            RoleState::Candidate(_) => Role::Candidate,
            RoleState::Leader(_) => Role::Leader,
        }
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.hard_state.current_term
    }

    /// The hard state, durable or not.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The hard state the host has confirmed to be on disk.
    #[must_use]
    pub fn durable_hard_state(&self) -> HardState {
        self.durable_hard_state
    }

    /// The leader of the current term, when it is known.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            RoleState::Follower(follower) => follower.leader,
            RoleState::Leader(_) => Some(self.config.id),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => None,
        }
    }

    /// The highest index known to be committed.
    #[must_use]
    pub fn commit_index(&self) -> Index {
        self.commit_index
    }

    /// The last entry.
    #[must_use]
    pub fn last(&self) -> EntryId {
        self.log.last()
    }

    /// The first index the log holds or will hold.
    #[must_use]
    pub fn first_index(&self) -> Index {
        self.log.first_index()
    }

    /// The last entry that is compacted away; the log goes on behind it.
    #[must_use]
    pub fn base(&self) -> EntryId {
        self.log.base()
    }

    /// The term at an index of the log.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.log.term_at(index)
    }

    /// Everything up to here is durable on this node.
    #[must_use]
    pub fn durable_index(&self) -> Index {
        self.durable_index
    }

    /// Bytes of records that are not committed yet.
    #[must_use]
    pub fn uncommitted_bytes(&self) -> u64 {
        self.log.bytes_between(self.commit_index, self.log.last().index)
    }

    /// On a leader, every other member: (node, match index, next index, state). Empty elsewhere.
    pub fn progress(&self) -> impl Iterator<Item = (NodeId, Index, Index, ProgressState)> + '_ {
        let peers: &[Progress] = match &self.role {
            RoleState::Leader(leader) => &leader.peers,
            _ => &[],
        };
        peers.iter().map(|peer| (peer.id, peer.match_index, peer.next_index, peer.state))
    }

    /// `AppendEntries` that contradicted committed entries and were refused. More than 0 means that some node has lost
    /// or invented a log: the host should stop and say so.
    #[must_use]
    pub fn refused_conflicts(&self) -> u64 {
        self.refused_conflicts
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The members: the last configuration of the log, committed or not.
    #[must_use]
    pub fn membership(&self) -> &Membership {
        if is_active(Mutant::MembersWhenCommitted) {
            return self.memberships.at(self.commit_index);
        }
        self.memberships.current()
    }

    /// All configurations of the log.
    #[must_use]
    pub fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    /// Whether the current term is on disk, so that answers which only need the term may go at once.
    pub(crate) fn term_is_durable(&self) -> bool {
        self.durable_hard_state.current_term == self.hard_state.current_term
    }

    /// Queues a message that promises nothing but the current term.
    pub(crate) fn send_once_term_is_durable(&mut self, to: NodeId, message: Message) {
        if self.term_is_durable() {
            self.outbox.messages.push((to, message));
        } else {
            self.outbox.after_flush.push((to, message));
        }
    }

    /// Queues a refusal: a hint that needs the term on disk, but no entry.
    pub(crate) fn send_append_refusal(&mut self, to: NodeId, result: AppendResult) {
        let response = Message::AppendEntriesResponse { term: self.hard_state.current_term, result };
        if self.term_is_durable() {
            self.outbox.messages.push((to, response));
        } else {
            self.outbox.append_response = Some((to, response));
        }
    }
}
