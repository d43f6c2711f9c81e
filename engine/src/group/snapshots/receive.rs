//! Receiving a snapshot from the leader: chunks go to a file and into a state machine in the making, which takes the place
//! of the old one when everything is there.
//!
//! Off the data path.
//! Invariants: nothing of it is served before it is whole and its hash is right; the file is finished before the log refers
//! to it; the log is replaced together with the state, and only if the core does not hold the snapshot's last entry; the
//! leader hears of it when the mark is durable.

use ringraft_net::wire::{SnapshotAnswer, SnapshotPiece};
use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, InstallOutcome, NodeId, Role, Term};
use ringraft_wal::record::SnapshotMark;
use ringraft_wal::{Disk, SnapshotDone, SnapshotName, Ticket};

use super::{Group, Installing};
use crate::group::digests::Digests;
use crate::group::membership::encode::membership_of;
use crate::group::ordering::Input;
use crate::shard::io::Io;
use crate::snapshot::{Chunk, ChunkReader, FileHead};
use crate::state_machine::{StateLoader, StateMachine};

/// Answers that the receiver cannot take this snapshot now.
const REFUSED: u64 = u64::MAX;
/// Room in the log for a hard state and a mark.
const MARK_ROOM_BYTES: usize = 4096;

/// A snapshot coming in.
#[derive(Debug)]
pub(super) struct Receiving {
    from: NodeId,
    term: Term,
    name: SnapshotName,
    last: EntryId,
    file_bytes: u64,
    reader: ChunkReader,
    /// From the first chunk on.
    content: Option<(FileHead, StateLoader)>,
    /// Bytes written.
    offset: u64,
    stage: Stage,
}

impl Receiving {
    pub(super) fn name(&self) -> SnapshotName {
        self.name
    }
}

#[derive(Debug)]
enum Stage {
    /// The next chunk may come.
    Waiting,
    Writing(Ticket, usize),
    Finishing(Ticket),
    /// The file is there and the state is whole; the log needs room.
    Finished(Box<(FileHead, StateMachine)>),
}

impl Group {
    /// A chunk of a leader's snapshot.
    pub(crate) fn on_snapshot_piece<D: Disk>(
        &mut self,
        from: NodeId,
        piece: &SnapshotPiece,
        chunk: &[u8],
        io: &mut Io<D>,
    ) {
        let last = EntryId { term: piece.last_term, index: piece.last_index };
        let leads = self.core.role() == Role::Leader && piece.term <= self.core.term();
        if piece.term < self.core.term() || leads || last.index == 0 || piece.file_bytes == 0 {
            return;
        }
        if last.index <= self.core.commit_index() || self.core.term_at(last.index) == Some(last.term) {
            self.drop_received(io);
            let membership = self.core.membership().clone();
            let _: InstallOutcome = self.core.install_snapshot(from, piece.term, last, membership);
            self.advance(Input::Nothing, io);
            return self.answer_snapshot(from, last.index, piece.file_bytes, io);
        }
        if !self.is_receiving(from, piece, last) {
            if piece.offset > 0 {
                return self.answer_snapshot(from, last.index, 0, io);
            }
            if !self.begin_receiving(from, piece, last, io) {
                return self.answer_snapshot(from, last.index, REFUSED, io);
            }
        }
        self.take_chunk(piece.offset, chunk, io);
    }

    fn is_receiving(&self, from: NodeId, piece: &SnapshotPiece, last: EntryId) -> bool {
        self.snapshots.receiving.as_ref().is_some_and(|receiving| {
            (receiving.from, receiving.term, receiving.last, receiving.file_bytes)
                == (from, piece.term, last, piece.file_bytes)
        })
    }

    /// Begins anew; an earlier one is of no use any more. `false`: the disk is still busy with it.
    fn begin_receiving<D: Disk>(&mut self, from: NodeId, piece: &SnapshotPiece, last: EntryId, io: &mut Io<D>) -> bool {
        if let Some(old) = &self.snapshots.receiving
            && !matches!(old.stage, Stage::Waiting)
        {
            return false;
        }
        self.drop_received(io);
        let name = SnapshotName { group: self.id.0, index: last.index };
        // A snapshot of its own that has the same name, or was begun and has one, is in the way for a moment.
        if self.snapshots.files.contains(&name.index)
            || self.snapshots.taking.as_ref().is_some_and(|taking| taking.name() == name)
        {
            return false;
        }
        self.snapshots.receiving = Some(Receiving {
            from,
            term: piece.term,
            name,
            last,
            file_bytes: piece.file_bytes,
            reader: ChunkReader::new(self.snapshots.expected(self.id)),
            content: None,
            offset: 0,
            stage: Stage::Waiting,
        });
        true
    }

    fn take_chunk<D: Disk>(&mut self, offset: u64, chunk: &[u8], io: &mut Io<D>) {
        let (id, limits) = (self.id, self.limits);
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        if !matches!(receiving.stage, Stage::Waiting) {
            return; // it came twice
        }
        let (from, index) = (receiving.from, receiving.last.index);
        if offset != receiving.offset {
            let next = receiving.offset;
            return self.answer_snapshot(from, index, next, io);
        }
        let last = receiving.last;
        let taken = match receiving.reader.take(chunk) {
            Ok(Chunk::Head(head)) if head.state.last == last => {
                let loader = StateLoader::new(id, limits, head.state);
                receiving.content = Some((head, loader));
                true
            }
            Ok(Chunk::Head(_)) | Err(_) => false,
            Ok(Chunk::Data(bytes)) => receiving.content.as_mut().is_some_and(|(_, loader)| loader.push(bytes).is_ok()),
            Ok(Chunk::End) => receiving.offset + chunk.len() as u64 == receiving.file_bytes,
        };
        if !taken {
            return self.refuse_received(io);
        }
        match io.wal.write_snapshot(receiving.name, offset, chunk, &mut io.disk) {
            Ok(ticket) => receiving.stage = Stage::Writing(ticket, chunk.len()),
            Err(_) => self.refuse_received(io),
        }
    }

    /// A write or the finish of the file ended.
    pub(super) fn received_step<D: Disk>(&mut self, done: &SnapshotDone<D::Buffer>, io: &mut Io<D>) {
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        let written = match receiving.stage {
            Stage::Writing(ticket, bytes) if ticket == done.ticket => Some(bytes),
            Stage::Finishing(ticket) if ticket == done.ticket => None,
            _ => return,
        };
        receiving.stage = Stage::Waiting;
        if done.result.is_err() {
            return self.refuse_received(io);
        }
        let Some(bytes) = written else { return self.loaded(io) };
        receiving.offset += bytes as u64;
        if !receiving.reader.is_complete() {
            let (from, index, next) = (receiving.from, receiving.last.index, receiving.offset);
            return self.answer_snapshot(from, index, next, io);
        }
        if is_active(Mutant::ReceivedUnfinished) {
            return self.loaded(io);
        }
        match io.wal.finish_snapshot(receiving.name, &mut io.disk) {
            Ok(ticket) => receiving.stage = Stage::Finishing(ticket),
            Err(_) => self.refuse_received(io),
        }
    }

    /// The file is finished: the state is checked as a whole.
    fn loaded<D: Disk>(&mut self, io: &mut Io<D>) {
        let Some(receiving) = &mut self.snapshots.receiving else { return };
        self.snapshots.files.push(receiving.name.index);
        let Some((head, loader)) = receiving.content.take() else { return self.refuse_received(io) };
        match loader.finish() {
            Ok(machine) => receiving.stage = Stage::Finished(Box::new((head, machine))),
            Err(_) => return self.refuse_received(io),
        }
        self.install_received(io);
    }

    /// Lets what was received take the place of log and state, when the log has room for the mark.
    pub(super) fn install_received<D: Disk>(&mut self, io: &mut Io<D>) {
        let Some(Receiving { stage: Stage::Finished(_), .. }) = &self.snapshots.receiving else { return };
        if !io.wal.has_room(MARK_ROOM_BYTES) || !io.wal.has_room_for_hard_state() {
            return; // with a later tick
        }
        let Some(Receiving { from, term, last, file_bytes, stage: Stage::Finished(whole), .. }) =
            self.snapshots.receiving.take()
        else {
            return;
        };
        let (head, machine) = *whole;
        let durable_index = self.durable_index().min(last.index - 1);
        match self.core.install_snapshot(from, term, last, membership_of(&head.members)) {
            InstallOutcome::Replaced => {
                self.give_up_taking(io);
                self.machine = machine;
                self.machine.keep_recent(self.recent_bytes);
                self.compact_watches(io);
                self.applying = None;
                self.digests = Digests::default();
                self.snapshots.begin_count();
                self.snapshots.installing = Some(Installing { index: last.index, durable_index });
                io.counters.snapshots_installed += 1;
                let state_hash = head.state.state_hash;
                let mark =
                    SnapshotMark { term: last.term, index: last.index, file_bytes, state_hash, replaces_log: true };
                self.advance(Input::Installed(&mark), io);
            }
            InstallOutcome::Held | InstallOutcome::Ignored => self.advance(Input::Nothing, io),
        }
        self.answer_snapshot(from, last.index, file_bytes, io);
    }

    /// Something is wrong with what came, or with the disk: the leader is to try again later.
    fn refuse_received<D: Disk>(&mut self, io: &mut Io<D>) {
        let Some(receiving) = &self.snapshots.receiving else { return };
        let (from, index) = (receiving.from, receiving.last.index);
        io.counters.snapshots_failed += 1;
        self.drop_received(io);
        self.answer_snapshot(from, index, REFUSED, io);
    }

    pub(super) fn drop_received<D: Disk>(&mut self, io: &mut Io<D>) {
        if let Some(old) = self.snapshots.receiving.take() {
            // Refused while a write is under way: a later attempt or the next start removes it.
            let _ = io.wal.remove_snapshot(old.name, true, &mut io.disk);
        }
    }

    fn answer_snapshot<D: Disk>(&self, to: NodeId, last_index: u64, next_offset: u64, io: &mut Io<D>) {
        let answer = SnapshotAnswer { group: self.id.0, term: self.core.term(), last_index, next_offset };
        io.peers.send_snapshot_answer(to, &answer);
    }
}
