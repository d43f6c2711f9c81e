//! Sending a snapshot to a follower that needs what the log no longer holds (Raft 7).
//!
//! Off the data path: chunks go over the same link as messages, one at a time, each answered, within the budget of a tick.
//! Invariants: only finished files that a mark names are sent; the receiver says where the next chunk begins, so a broken
//! transfer goes on where it was; one that gets no answer for too long is given up, and the core asks again.

use ringraft_net::wire::{SnapshotAnswer, SnapshotPiece};
use ringraft_raft::{EntryId, NodeId, Role};
use ringraft_wal::record::SnapshotMark;
use ringraft_wal::{Disk, Done, SnapshotDone, SnapshotName, Ticket};

use super::{Group, base_of};
use crate::group::ordering::Input;
use crate::shard::io::Io;
use crate::snapshot::{ChunkBytes, chunk_length};

/// A snapshot on its way to one follower.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) to: NodeId,
    name: SnapshotName,
    last: EntryId,
    file_bytes: u64,
    /// Where the next chunk begins.
    offset: u64,
    stage: Stage,
    /// Ticks since the last answer.
    silent_ticks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// A chunk may be read.
    Idle,
    Reading(Ticket),
    /// A chunk is sent.
    Waiting,
}

impl Sending {
    pub(super) fn index(&self) -> u64 {
        self.name.index
    }
}

impl Group {
    /// The core says that `to` needs a snapshot.
    pub(crate) fn begin_sending<D: Disk>(&mut self, to: NodeId, io: &mut Io<D>) {
        self.stop_sending_to(to, io);
        let mark = self.mark_to_send(io);
        let room = io.snapshots.streams < self.snapshots.settings.streams_max;
        match mark {
            Some(mark) if room => {
                let name = SnapshotName { group: self.id.0, index: mark.index };
                let (last, file_bytes) = (base_of(&mark), mark.file_bytes);
                let sending = Sending { to, name, last, file_bytes, offset: 0, stage: Stage::Idle, silent_ticks: 0 };
                self.snapshots.sending.push(sending);
                io.snapshots.streams += 1;
            }
            Some(_) | None => self.core.snapshot_failed(to), // it asks again with the next heartbeats
        }
    }

    /// The newest snapshot that the log continues and that is not known to be damaged. One beyond what is applied could not
    /// be loaded at the start. When all have failed they are tried again: it may have been the disk.
    fn mark_to_send<D: Disk>(&mut self, io: &Io<D>) -> Option<SnapshotMark> {
        let (applied, first) = (self.machine.last_applied(), self.core.first_index());
        let marks = io.wal.snapshot_marks(self.id.0);
        let damaged = &mut self.snapshots.damaged;
        damaged.retain(|index| marks.iter().any(|mark| mark.index == *index));
        let fits = |mark: &&SnapshotMark| mark.index <= applied && mark.index + 1 >= first;
        let whole = marks.iter().rev().filter(fits).find(|mark| !damaged.contains(&mark.index));
        if whole.is_none() {
            damaged.clear();
        }
        whole.or_else(|| marks.iter().rev().find(fits)).copied()
    }

    pub(crate) fn stop_sending_to<D: Disk>(&mut self, to: NodeId, io: &mut Io<D>) {
        let before = self.snapshots.sending.len();
        self.snapshots.sending.retain(|sending| sending.to != to);
        io.snapshots.streams -= before - self.snapshots.sending.len();
    }

    /// Reads the next chunk of every transfer that waits for none, as far as the budget goes.
    pub(super) fn continue_sending<D: Disk>(&mut self, io: &mut Io<D>) {
        for place in 0..self.snapshots.sending.len() {
            if io.snapshots.send_bytes > 0 && self.snapshots.sending[place].stage == Stage::Idle {
                self.read_chunk(place, self.snapshots.settings.chunk_bytes.get(), io);
            }
        }
    }

    fn read_chunk<D: Disk>(&mut self, place: usize, bytes: usize, io: &mut Io<D>) {
        let sending = &mut self.snapshots.sending[place];
        let length = (sending.file_bytes - sending.offset).min(bytes as u64) as usize;
        // Refused while another operation is under way: with the next turn or tick.
        if let Ok(ticket) = io.wal.read_snapshot(sending.name, sending.offset, length, &mut io.disk) {
            sending.stage = Stage::Reading(ticket);
        }
    }

    /// A chunk was read: it is sent.
    pub(super) fn sent_step<D: Disk>(&mut self, done: &SnapshotDone<D::Buffer>, io: &mut Io<D>) {
        let reads = |sending: &Sending| sending.stage == Stage::Reading(done.ticket);
        let Some(place) = self.snapshots.sending.iter().position(reads) else { return };
        let Ok(Done::Read(buffer)) = &done.result else { return self.sending_failed(place, io) };
        let bytes: &[u8] = buffer.as_ref();
        let chunk = match chunk_length(bytes) {
            Ok(length) if length <= bytes.len() => &bytes[..length],
            // A file that came from another node may have longer chunks than this node writes.
            Ok(length) if length <= ChunkBytes::MAX.get() => return self.read_chunk(place, length, io),
            _ => return self.sending_failed(place, io),
        };
        let (group, term) = (self.id.0, self.core.term());
        let sending = &mut self.snapshots.sending[place];
        let Sending { to, last, offset, file_bytes, .. } = *sending;
        sending.stage = Stage::Waiting;
        let piece = SnapshotPiece { group, term, last_term: last.term, last_index: last.index, offset, file_bytes };
        io.snapshots.send_bytes = io.snapshots.send_bytes.saturating_sub(chunk.len() as u64);
        io.peers.send_snapshot_piece(to, &piece, chunk);
    }

    /// The receiver says how far it is.
    pub(crate) fn on_snapshot_answer<D: Disk>(&mut self, from: NodeId, answer: &SnapshotAnswer, io: &mut Io<D>) {
        let fits = |sending: &Sending| sending.to == from && sending.name.index == answer.last_index;
        let Some(place) = self.snapshots.sending.iter().position(fits) else { return };
        let sending = &mut self.snapshots.sending[place];
        if self.core.role() != Role::Leader || matches!(sending.stage, Stage::Reading(_)) {
            return;
        }
        sending.silent_ticks = 0;
        if answer.next_offset < sending.file_bytes {
            sending.offset = answer.next_offset;
            sending.stage = Stage::Idle;
            return self.continue_sending(io);
        }
        if answer.next_offset > sending.file_bytes {
            return self.sending_failed(place, io);
        }
        let index = sending.name.index;
        self.stop_sending_to(from, io);
        io.counters.snapshots_sent += 1;
        self.core.snapshot_sent(from, index);
        self.advance(Input::Nothing, io);
    }

    /// It did not arrive, perhaps because the file is damaged: the next attempt begins with another one, older or newer.
    fn sending_failed<D: Disk>(&mut self, place: usize, io: &mut Io<D>) {
        let Sending { to, name, .. } = self.snapshots.sending[place];
        self.stop_sending_to(to, io);
        if !self.snapshots.damaged.contains(&name.index) {
            self.snapshots.damaged.push(name.index);
        }
        io.counters.snapshots_failed += 1; // no pause: attempts that fail often would keep a better one from being taken
        self.snapshots.wanted = true;
        self.core.snapshot_failed(to);
        self.advance(Input::Nothing, io);
    }

    /// A tick without an answer.
    pub(super) fn give_up_streams<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.core.role() != Role::Leader {
            return self.stop_sending(None, io);
        }
        let patience = self.snapshots.settings.patience_ticks;
        for sending in &mut self.snapshots.sending {
            sending.silent_ticks += 1;
        }
        while let Some(silent) = self.snapshots.sending.iter().find(|sending| sending.silent_ticks > patience) {
            let to = silent.to;
            self.stop_sending_to(to, io);
            self.core.snapshot_failed(to);
        }
    }
}
