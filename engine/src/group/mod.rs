//! One replica of one Raft group: the core, its log in the shared WAL, its state machine and those who wait for it.
//!
//! Data path 4/9 to 9/9.
//! `ordering.rs` holds the one function that persists, sends, applies and replies; everything here feeds it.
//! Invariants: `last_applied <= commit_index <= last index`; a message of `after_flush` leaves only when the WAL's
//! durable batch has reached the mark it was queued with; a request is answered at most once.
//! It owns no socket and no file, and it never looks at a clock.

pub(crate) mod apply;
pub(crate) mod digests;
pub(crate) mod membership;
pub(crate) mod metrics;
pub(crate) mod ordering;
pub(crate) mod proposals;
pub(crate) mod questions;
pub(crate) mod ranges;
pub(crate) mod reads;
pub(crate) mod replicate;
pub(crate) mod snapshots;
pub(crate) mod status;
pub(crate) mod transfer;
pub(crate) mod waiters;
pub(crate) mod watches;

use std::collections::VecDeque;

use ringraft_net::wire;
use ringraft_raft::{
    AppendOutcome, Doze, EntryId, EntryMeta, GroupId, HardState, IncomingEntries, Index, Membership, Message,
    NOOP_LENGTH, NodeId, RaftCore, ReadContext, ReadError, Ready, Role, Term,
};
use ringraft_wal::{Disk, Durable, ReadTicket, record};

use self::digests::Digests;
use self::membership::Drive;
use self::metrics::Seen;
use self::ordering::Input;
use self::proposals::{Proposal, Proposals};
use self::questions::Questions;
use self::ranges::Ranges;
use self::reads::Reads;
use self::replicate::Follower;
use self::snapshots::Snapshots;
use self::transfer::PendingTransfer;
use self::waiters::Waiters;
use self::watches::Watches;
use crate::limits::Limits;
use crate::metrics::record::{Rejection, Tally};
use crate::shard::clients::Asker;
use crate::shard::io::{Fatal, Io};
use crate::shard::live::LiveSettings;
use crate::shard::restore::ConsensusSettings;
use crate::state_machine::StateMachine;

/// A message that waits for its sender's own flush.
#[derive(Debug)]
struct AfterFlush {
    /// The WAL batch that must be durable first.
    sequence: u64,
    to: NodeId,
    message: Message,
}

/// One replica of one group.
pub(crate) struct Group {
    id: GroupId,
    core: RaftCore,
    ready: Ready,
    machine: StateMachine,
    limits: Limits,
    snapshots: Snapshots,
    proposals: Proposals,
    waiters: Waiters,
    reads: Reads,
    questions: Questions,
    ranges: Ranges,
    watches: Watches,
    /// Bytes of the latest changes that are kept for them; 0: none are.
    recent_bytes: usize,
    after_flush: VecDeque<AfterFlush>,
    /// The WAL batch of this group's newest record.
    flush_mark: u64,
    followers: Vec<Follower>,
    /// The WAL read that fetches the next entries to apply, when they have left the cache.
    applying: Option<ReadTicket>,
    /// First commit index heard after start; nothing is served before it is applied (openraft #1511).
    serve_from: Option<Index>,
    serving: bool,
    digests: Digests,
    entry_bytes_max: usize,
    catch_up_bytes: u64,
    drive: Drive,
    /// What the WAL reports of batches before this one is of an earlier replica.
    first_sequence: u64,
    seen: Seen,
    tally: Tally,
    /// Transfers this leader tried by itself.
    attempts: usize,
    pending_transfer: Option<PendingTransfer>,
    /// A write was refused because the disk is full, since the last tick.
    refused_full: bool,
    /// Ticks until the next attempt to find a leader with room.
    full_pause_ticks: u32,
    metas: Vec<EntryMeta>,
    changes: Vec<(Index, Membership)>,
    offsets: Vec<usize>,
    askers: Vec<Asker>,
    /// Since its last whole tick nothing happened here, and nothing is under way that counts ticks besides the core.
    settled: bool,
}

impl Group {
    /// Takes settings that change while it runs.
    pub(crate) fn take_live(&mut self, live: &LiveSettings) {
        self.catch_up_bytes = live.catch_up_bytes;
        self.snapshots.set_settings(live.snapshots);
    }

    /// A replica whose core and state machine were restored to the same log.
    pub(crate) fn new(
        (id, incarnation): (GroupId, u64),
        core: RaftCore,
        machine: StateMachine,
        limits: Limits,
        snapshots: Snapshots,
        consensus: &ConsensusSettings,
    ) -> Self {
        Self {
            id,
            core,
            ready: Ready::default(),
            machine,
            limits,
            snapshots,
            proposals: Proposals::default(),
            waiters: Waiters::default(),
            reads: Reads::default(),
            questions: Questions::new(incarnation),
            ranges: Ranges::default(),
            watches: Watches::default(),
            recent_bytes: 0,
            after_flush: VecDeque::new(),
            flush_mark: 0,
            followers: Vec::new(),
            applying: None,
            serve_from: None,
            serving: false,
            digests: Digests::default(),
            entry_bytes_max: consensus.entry_bytes_max,
            catch_up_bytes: consensus.catch_up_bytes,
            drive: Drive::default(),
            first_sequence: 0,
            seen: Seen::default(),
            tally: Tally::default(),
            attempts: 0,
            pending_transfer: None,
            refused_full: false,
            full_pause_ticks: 0,
            metas: Vec::new(),
            changes: Vec::new(),
            offsets: Vec::new(),
            askers: Vec::new(),
            settled: false,
        }
    }

    /// Keeps so many bytes of the latest changes from now on, for those who watch.
    pub(crate) fn keep_recent(&mut self, bytes_max: usize) {
        self.recent_bytes = bytes_max;
        self.machine.keep_recent(bytes_max);
    }

    pub(crate) fn id(&self) -> GroupId {
        self.id
    }

    pub(crate) fn is_leader(&self) -> bool {
        self.core.role() == Role::Leader
    }

    pub(crate) fn leader(&self) -> Option<NodeId> {
        self.core.leader()
    }

    pub(crate) fn term(&self) -> Term {
        self.core.term()
    }

    /// The last entry of the log.
    pub(crate) fn last(&self) -> EntryId {
        self.core.last()
    }

    /// The members with a vote, by the last configuration of the log.
    pub(crate) fn voters(&self) -> &[NodeId] {
        self.core.membership().voters()
    }

    /// The last applied entry.
    pub(crate) fn last_applied(&self) -> Index {
        self.machine.last_applied()
    }

    /// The value of a key, as far as applied here.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.machine.value(key)
    }

    /// Whether this replica leads and has applied everything that was committed before its term. A follower may serve stale
    /// reads from less: a leader whose own term has no commit yet tells it of none.
    pub(crate) fn has_taken_over(&self) -> bool {
        self.is_leader() && self.serve_from.is_some_and(|index| self.last_applied() >= index)
    }

    /// Whether this replica leads, or a leader speaks to it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.core.hears_leader()
    }

    /// Requests and reads that wait here.
    pub(crate) fn waiting(&self) -> usize {
        self.proposals.len() + self.waiters.len() + self.reads.len() + self.questions.len() + self.ranges.len()
    }

    /// One tick of the core's logical clock.
    pub(crate) fn tick<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.settled {
            self.core.tick();
            return self.advance(Input::Nothing, io);
        }
        self.tick_questions(io);
        self.give_way_if_full(io);
        self.tick_transfer();
        self.hand_over_if_full(io);
        if !self.is_alone() || has_room_to_lead(io) {
            self.core.tick();
        }
        self.tick_snapshots(io);
        self.advance(Input::Nothing, io);
        self.tick_watches(io);
        self.tick_membership(io);
        self.settled = self.has_nothing_under_way(io);
    }

    /// Whether this replica could only follow itself, and does not lead: it would be elected with its own vote, also without
    /// room for what follows.
    fn is_alone(&self) -> bool {
        let membership = self.core.membership();
        !self.is_leader() && membership.voters() == [self.core.config().id] && !membership.is_joint()
    }

    /// Whether the core alone counts ticks for something.
    fn has_nothing_under_way<D: Disk>(&self, io: &Io<D>) -> bool {
        let full = self.refused_full || self.full_pause_ticks > 0;
        let steady = matches!(self.core.role(), Role::Leader | Role::Follower) && !self.core.membership().is_joint();
        let transfers = self.pending_transfer.is_some() || self.is_handing_over();
        steady
            && !full
            && !transfers
            && !self.is_alone()
            && !self.questions.is_asking()
            && self.after_flush.is_empty()
            && self.drive.is_at_rest()
            && self.are_snapshots_at_rest(io)
            && self.serving
            && !self.watches.are_behind()
            && !self.has_work()
    }

    /// What may stand in for this replica while it sleeps.
    pub(crate) fn doze(&self) -> Option<Doze> {
        self.settled.then(|| self.core.doze()).flatten()
    }

    /// It slept for so many ticks.
    pub(crate) fn wake(&mut self, doze: &Doze, ticks: u64) {
        self.core.wake(doze, ticks);
    }

    /// A replica that was just made: so many ticks pass.
    pub(crate) fn pass(&mut self, ticks: u32) {
        (0..ticks).for_each(|_| self.core.tick());
    }

    /// Something happens: the next tick is one of all parts of this replica.
    pub(crate) fn unsettle(&mut self) {
        self.settled = false;
    }

    /// Whether a turn has something to do here.
    pub(crate) fn wants_turn(&self) -> bool {
        !self.settled && self.has_work()
    }

    fn has_work(&self) -> bool {
        self.has_proposals()
            || self.reads.len() > 0
            || self.questions.want_turn()
            || self.ranges.len() > 0
            || self.watches.want_turn(self.machine.last_applied())
            || (self.machine.last_applied() < self.core.commit_index() && self.applying.is_none())
            || self.snapshots.want_turn()
    }

    /// Nobody is elected who cannot write the first entry of the term: a full disk must not stop the node.
    fn give_way_if_full<D: Disk>(&mut self, io: &Io<D>) {
        if matches!(self.core.role(), Role::PreCandidate | Role::Candidate) && !has_room_to_lead(io) {
            self.core.step_down();
        }
    }

    /// Starts an election at once.
    pub(crate) fn campaign<D: Disk>(&mut self, io: &mut Io<D>) {
        self.core.campaign();
        self.advance(Input::Nothing, io);
    }

    /// The link to `peer` broke or lost something.
    pub(crate) fn unreachable<D: Disk>(&mut self, peer: NodeId, io: &mut Io<D>) {
        self.drop_backlog(peer);
        self.stop_sending_to(peer, io);
        self.core.unreachable(peer);
        self.leader_unreachable(peer, io);
        self.advance(Input::Nothing, io);
    }

    /// A message of a peer, anything but entries.
    pub(crate) fn on_message<D: Disk>(&mut self, from: NodeId, message: Message, io: &mut Io<D>) {
        let votes = matches!(message, Message::RequestVote { .. });
        let changes_term = message.term() > self.core.term() && !matches!(message, Message::PreVote { .. });
        if (votes || changes_term) && !io.wal.has_room_for_hard_state() {
            io.counters.messages_refused_full += 1;
            return; // as if lost
        }
        if matches!(message, Message::TimeoutNow { .. }) && !io.wal.has_room(self.entry_bytes_max) {
            return; // as if lost: who asks serves reads at least
        }
        if let Message::Heartbeat { term, leader_commit, .. } = message {
            self.note_commit(term, leader_commit);
        }
        self.give_way_if_full(io);
        self.core.step(from, message);
        self.advance(Input::Nothing, io);
    }

    /// Entries of a leader: `records` are WAL records as they came off the wire.
    ///
    /// # Errors
    /// Says what is wrong with the records; nothing was taken then and the link is not to be trusted.
    pub(crate) fn on_append<D: Disk>(
        &mut self,
        from: NodeId,
        append: &Append,
        records: &[u8],
        io: &mut Io<D>,
    ) -> Result<(), String> {
        self.read_metas(append, records)?;
        if !io.wal.has_room(records.len()) {
            io.counters.appends_refused_full += 1;
            return Ok(()); // as if lost: the leader asks again
        }
        self.note_commit(append.term, append.leader_commit);
        let (metas, changes) = (std::mem::take(&mut self.metas), std::mem::take(&mut self.changes));
        let &Append { term, prev, leader_commit, .. } = append;
        let incoming = IncomingEntries { term, prev, leader_commit, entries: &metas, changes: &changes };
        let outcome = self.core.step_append(from, &incoming);
        (self.metas, self.changes) = (metas, changes);
        if self.core.refused_conflicts() > 0 {
            io.fail(Fatal::Conflict { group: self.id.0, leader: from.0, index: append.prev.index + 1 });
            return Ok(());
        }
        match outcome {
            AppendOutcome::Accepted { skip, .. } if skip < self.offsets.len() => {
                let start = self.offsets[skip];
                self.advance(Input::Records(&records[start..]), io);
            }
            AppendOutcome::Accepted { .. } | AppendOutcome::Ignored => self.advance(Input::Nothing, io),
        }
        Ok(())
    }

    /// Checks every record (checksum, group, contiguous indexes) and notes its term, length and offset, and the
    /// configuration that it brings.
    fn read_metas(&mut self, append: &Append, records: &[u8]) -> Result<(), String> {
        self.metas.clear();
        self.changes.clear();
        self.offsets.clear();
        let mut offset = 0;
        while offset < records.len() {
            let parsed = record::parse(&records[offset..]).map_err(|error| error.to_string())?;
            let (view, consumed) = parsed.ok_or_else(|| String::from("the last record is cut short"))?;
            let index = append.prev.index + 1 + self.metas.len() as u64;
            if view.kind != record::Kind::Entry || view.group != self.id.0 || view.index != index {
                return Err(format!(
                    "record {} of group {} stands where entry {index} of group {} belongs",
                    view.index, view.group, self.id.0
                ));
            }
            if view.flags & record::FLAG_MEMBERSHIP != 0 {
                self.note_membership(index, view.payload)?;
            }
            self.metas.push(EntryMeta { term: view.term, length: consumed as u32 });
            self.offsets.push(offset);
            offset += consumed;
        }
        if self.metas.len() != append.count as usize {
            return Err(format!("{} entries announced, {} sent", append.count, self.metas.len()));
        }
        Ok(())
    }

    /// Remembers the first commit index a leader of a current term told us after our start.
    fn note_commit(&mut self, term: Term, leader_commit: Index) {
        if self.serve_from.is_none() && term >= self.core.term() {
            self.serve_from = Some(leader_commit);
        }
    }

    /// An admitted write; it becomes part of an entry when the turn ends.
    pub(crate) fn request(&mut self, proposal: Proposal) {
        self.proposals.push(proposal);
    }

    /// Whether a write of this asker is neither applied nor given up.
    pub(crate) fn holds_write_of(&self, asker: Asker) -> bool {
        self.proposals.has(asker) || self.waiters.has(asker)
    }

    pub(crate) fn has_proposals(&self) -> bool {
        !self.proposals.is_empty()
    }

    /// Turns waiting requests into entries.
    pub(crate) fn propose<D: Disk>(&mut self, io: &mut Io<D>) {
        self.advance(Input::Proposals, io);
    }

    /// A linearizable read; it is answered when a majority confirmed this leader.
    pub(crate) fn read<D: Disk>(&mut self, request: &[u8], asker: Asker, io: &mut Io<D>) {
        match self.core.read_index() {
            Ok(context) => self.reads.push(context, request, asker),
            Err(ReadError::NotReady) => self.reply_not_ready(asker, io),
            Err(_) => self.reply_not_leader(asker, io),
        }
    }

    /// Whether a majority followed this leader at `since` or later, and what was committed by then is in `seen`, the last
    /// index that the asker knows of. Takes `since` now when there is none, or one of another term.
    pub(crate) fn is_followed<D: Disk>(
        &mut self,
        since: &mut Option<ReadContext>,
        seen: Index,
        io: &mut Io<D>,
    ) -> bool {
        if since.is_none_or(|context| context.term != self.core.term()) {
            *since = self.core.read_index().ok();
            self.advance(Input::Nothing, io);
        }
        since.is_some_and(|context| self.reads.is_confirmed(context, seen))
    }

    /// Sends the heartbeats of the reads that gathered in this turn.
    pub(crate) fn confirm_reads<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.reads.len() > 0 || self.questions.holds_any() {
            self.advance(Input::Nothing, io);
        }
    }

    /// A linearizable read that a leader with a lease answers at once.
    pub(crate) fn read_leased<D: Disk>(&mut self, request: &[u8], asker: Asker, io: &mut Io<D>) {
        self.core.observe_time(io.now_us);
        let applied = self.machine.last_applied() >= self.core.commit_index();
        if applied && self.core.holds_lease() {
            io.counters.lease_reads += 1;
            return self.answer_read(request, asker, io);
        }
        self.read(request, asker, io);
    }

    /// A read of whatever this replica has applied.
    pub(crate) fn read_stale<D: Disk>(&mut self, request: &[u8], asker: Asker, io: &mut Io<D>) {
        if self.serving {
            self.answer_read(request, asker, io);
        } else {
            self.reply_not_ready(asker, io);
        }
    }

    /// A flush batch with records of this group is durable.
    pub(crate) fn on_durable<D: Disk>(&mut self, durable: &Durable, io: &mut Io<D>) {
        if durable.sequence < self.first_sequence {
            return;
        }
        if let Some((current_term, voted_for)) = durable.hard_state {
            let hard_state = HardState { current_term, voted_for: voted_for.map(NodeId) };
            self.give_way_if_full(io);
            self.core.hard_state_durable(hard_state);
        }
        if let Some((term, index)) = durable.entry {
            self.note_durable(index);
            self.core.durable(EntryId { term, index });
        }
        if let Some(index) = durable.snapshot {
            self.on_snapshot_durable(index, io);
        }
        self.release_after_flush(io);
        self.advance(Input::Nothing, io);
    }

    /// This replica began with the batch `sequence`.
    pub(crate) fn began(&mut self, sequence: u64) {
        (self.flush_mark, self.first_sequence) = (sequence, sequence);
    }

    /// The node gives this replica up: nobody is left waiting, nothing is left under way. Returns the indexes of its
    /// finished snapshots.
    pub(crate) fn close<D: Disk>(&mut self, io: &mut Io<D>) -> Vec<u64> {
        self.lose_leadership(io);
        self.abandon_transfer(io);
        self.close_ranges(io);
        self.end_watches("this node gives up its replica of the group; ask another", io);
        self.close_snapshots(io)
    }

    fn reply_not_leader<D: Disk>(&mut self, asker: Asker, io: &mut Io<D>) {
        self.reject(Rejection::NotLeader, io);
        let leader = self.core.leader().map(|node| node.0);
        let outcome = wire::OutcomeRef::NotLeader { group: self.id.0, leader };
        io.reply(asker, self.position(), outcome);
    }

    fn reply_not_ready<D: Disk>(&mut self, asker: Asker, io: &mut Io<D>) {
        self.reject(Rejection::NotReady, io);
        let message = format!("group {} has not applied what was committed before its start; ask again", self.id);
        io.reply(asker, self.position(), wire::OutcomeRef::Unavailable { message: &message });
    }

    /// The position of everything applied so far.
    fn position(&self) -> wire::Position {
        wire::Position { group: self.id.0, index: self.machine.last_applied(), position: u32::MAX }
    }
}

/// Whether the first entry of a leader's term would fit in the log.
pub(crate) fn has_room_to_lead<D: Disk>(io: &Io<D>) -> bool {
    io.wal.has_room(NOOP_LENGTH as usize)
}

/// The head of an AppendEntries with entries.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Append {
    pub(crate) term: Term,
    pub(crate) prev: EntryId,
    pub(crate) leader_commit: Index,
    pub(crate) count: u32,
}
