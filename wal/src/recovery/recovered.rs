//! The result of a recovery: hard states, live entries and where writing goes on.
//!
//! Off the data path.
//! Invariants: the entries of a group are contiguous, and what is missing before the first is in a snapshot; an entry
//! replaces everything of its group from its index on.

use std::collections::{BTreeMap, VecDeque};

use ringraft_raft::mutants::{Mutant, is_active};

use super::scan::ScannedRecord;
use super::{Note, RecoveryError};
use crate::config::ValidConfig;
use crate::disk::FileNumber;
use crate::index::Location;
use crate::record::{self, Beginning, HardState, RecordError, RecordView, SnapshotMark};
use crate::snapshots::{SnapshotFile, SnapshotName, note_mark};

/// One live entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoveredEntry {
    /// Its term.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// Bytes of its record, header included, padding not.
    pub length: u32,
    pub(crate) location: Location,
}

/// What the log holds of one group.
#[derive(Clone, Debug, Default)]
pub struct RecoveredGroup {
    /// The latest hard state.
    pub hard_state: Option<HardState>,
    /// The live entries, contiguous, by index.
    pub entries: VecDeque<RecoveredEntry>,
    /// The newest two snapshot marks, oldest first.
    pub marks: Vec<SnapshotMark>,
    /// The configurations that live entries bring: index and payload, in order.
    pub memberships: Vec<(u64, Box<[u8]>)>,
    /// The latest beginning; `None`: the log never began anew.
    pub beginning: Option<Beginning>,
    /// The log was replaced and nothing was appended since: the index that must come.
    restart: Option<u64>,
}

impl RecoveredGroup {
    /// The first entry of the log, or the one to come if there is none.
    #[must_use]
    pub fn first_index(&self) -> u64 {
        let behind_mark = || self.marks.last().map_or(1, |mark| mark.index.saturating_add(1));
        self.entries.front().map_or_else(behind_mark, |entry| entry.index)
    }

    /// The marks whose snapshots the log continues without a hole, newest first.
    pub fn continued_marks(&self) -> impl Iterator<Item = &SnapshotMark> {
        let first = self.first_index();
        self.marks.iter().rev().filter(move |mark| mark.index >= first - 1)
    }

    fn push(&mut self, group: u32, entry: RecoveredEntry, membership: Option<&[u8]>) -> Result<(), RecoveryError> {
        while self.entries.back().is_some_and(|last| last.index >= entry.index) {
            self.entries.pop_back();
        }
        let wanted = self.entries.back().map(|last| last.index + 1).or(self.restart.take());
        if wanted.is_some_and(|wanted| wanted != entry.index) {
            let covered = self.marks.last().map_or(0, |mark| mark.index);
            let last_index = self.entries.back().map_or(covered, |last| last.index);
            return Err(RecoveryError::Gap { group, last_index, index: entry.index, covered });
        }
        self.entries.push_back(entry);
        let replaced = self.memberships.partition_point(|(index, _)| *index < entry.index);
        self.memberships.truncate(replaced);
        self.memberships.extend(membership.map(|payload| (entry.index, Box::from(payload))));
        Ok(())
    }

    fn begin(&mut self, beginning: Beginning, carried: bool) {
        self.beginning = Some(beginning);
        if !carried {
            self.marks.clear();
            self.void(1);
        }
    }

    /// The entries so far are void.
    fn void(&mut self, next: u64) {
        self.entries.clear();
        self.memberships.clear();
        self.restart = Some(next);
    }

    fn mark(&mut self, mark: SnapshotMark, carried: bool) {
        note_mark(&mut self.marks, mark);
        if mark.replaces_log && !carried {
            self.void(mark.index.saturating_add(1));
        }
    }
}

/// A segment of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecoveredSegment {
    pub(crate) id: u64,
    pub(crate) file: FileNumber,
}

/// Where the next batch may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor {
    pub(crate) segment_id: u64,
    pub(crate) file: FileNumber,
    pub(crate) next_block: u64,
}

/// What recovery found.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// By group.
    pub groups: BTreeMap<u32, RecoveredGroup>,
    /// What is worth telling the operator.
    pub notes: Vec<Note>,
    /// The finished snapshot files, also those without a mark.
    pub snapshots: Vec<SnapshotFile>,
    pub(crate) next_sequence: u64,
    pub(crate) previous_crc: u32,
    /// Oldest first.
    pub(crate) segments: Vec<RecoveredSegment>,
    pub(crate) free_files: Vec<FileNumber>,
    pub(crate) next_segment_id: u64,
    pub(crate) file_count: u32,
    /// `None`: the next batch begins a new segment.
    pub(crate) cursor: Option<Cursor>,
}

impl Recovered {
    pub(crate) fn empty(config: &ValidConfig, file_count: u32) -> Self {
        Self {
            groups: BTreeMap::new(),
            notes: Vec::new(),
            snapshots: Vec::new(),
            next_sequence: 1,
            previous_crc: config.identity().checksum(),
            segments: Vec::new(),
            free_files: Vec::new(),
            next_segment_id: 1,
            file_count,
            cursor: None,
        }
    }

    /// Takes in one record of the log, in order.
    pub(crate) fn apply(&mut self, record: &ScannedRecord) -> Result<(), RecoveryError> {
        match record {
            ScannedRecord::HardState { .. } if is_active(Mutant::HardStateDropped) => {}
            ScannedRecord::HardState { group, state } => {
                self.groups.entry(*group).or_default().hard_state = Some(*state);
            }
            ScannedRecord::Entry { group, term, index, location, membership } => {
                let (length, location) = (location.length(), *location);
                let entry = RecoveredEntry { term: *term, index: *index, length, location };
                return self.groups.entry(*group).or_default().push(*group, entry, membership.as_deref());
            }
            ScannedRecord::SnapshotMark { group, mark, carried } => {
                self.groups.entry(*group).or_default().mark(*mark, *carried);
            }
            ScannedRecord::Beginning { group, beginning, carried } => {
                self.groups.entry(*group).or_default().begin(*beginning, *carried);
            }
        }
        Ok(())
    }

    /// Checks that what each group's log lacks at its beginning is in a snapshot that is there.
    pub(crate) fn check_snapshots(&self) -> Result<(), RecoveryError> {
        for (group, found) in &self.groups {
            let (group, first, covered) =
                (*group, found.first_index(), found.marks.last().map_or(0, |mark| mark.index));
            let last = found.entries.back().map_or(covered, |last| last.index);
            if covered < first - 1 || last < covered {
                let (last_index, index) = if last < covered { (last, covered) } else { (0, first) };
                return Err(RecoveryError::Gap { group, last_index, index, covered });
            }
            if first > 1
                && self.usable_snapshots(group).next().is_none()
                && let Some(mark) = found.continued_marks().next()
            {
                let snapshot = SnapshotName { group, index: mark.index };
                let found = self.snapshot_bytes(snapshot);
                return Err(RecoveryError::SnapshotMissing { snapshot, expected: mark.file_bytes, found });
            }
        }
        Ok(())
    }

    /// Tells of marks whose file is not there as they say.
    pub(crate) fn note_skipped_snapshots(&mut self) {
        let marks = self.groups.iter().flat_map(|(group, found)| found.marks.iter().map(move |mark| (*group, mark)));
        let files = marks.map(|(group, mark)| (SnapshotName { group, index: mark.index }, mark.file_bytes));
        let skipped = files.filter(|(snapshot, bytes)| self.snapshot_bytes(*snapshot) != Some(*bytes));
        let notes: Vec<Note> = skipped.map(|(snapshot, _)| Note::SnapshotSkipped { snapshot }).collect();
        self.notes.extend(notes);
    }

    fn snapshot_bytes(&self, name: SnapshotName) -> Option<u64> {
        self.snapshots.iter().find(|file| file.name == name).map(|file| file.bytes)
    }

    /// The marks of a group that a state machine can be loaded from: the file is there in the size of the mark, and the log
    /// goes on behind it. Newest first. What is in the file is not looked at.
    pub fn usable_snapshots(&self, group: u32) -> impl Iterator<Item = &SnapshotMark> {
        let marks = self.groups.get(&group).into_iter().flat_map(RecoveredGroup::continued_marks);
        marks
            .filter(move |mark| self.snapshot_bytes(SnapshotName { group, index: mark.index }) == Some(mark.file_bytes))
    }

    /// The sequence of the last batch of the log, 0 if there is none.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.next_sequence - 1
    }

    /// The files of the log, oldest first: the order in which [`Recovered::replay_segment`] wants them.
    #[must_use]
    pub fn replay_order(&self) -> Vec<FileNumber> {
        self.segments.iter().map(|segment| segment.file).collect()
    }

    /// Calls `visit` with every live entry of one segment file, given its image. Over all files in
    /// [`Recovered::replay_order`] the entries of each group come in index order; only one image is in memory at a time.
    ///
    /// # Errors
    /// A record is no longer what recovery read.
    pub fn replay_segment(
        &self,
        file: FileNumber,
        image: &[u8],
        visit: &mut dyn FnMut(RecordView<'_>),
    ) -> Result<(), RecordError> {
        let Some(segment) = self.segments.iter().find(|segment| segment.file == file) else { return Ok(()) };
        let entries = self.groups.values().flat_map(|group| group.entries.iter());
        let mut offsets: Vec<u64> =
            entries.filter(|entry| entry.location.is_in(segment.id)).map(|entry| entry.location.offset()).collect();
        offsets.sort_unstable();
        for offset in offsets {
            let bytes = image.get(offset as usize..).unwrap_or_default();
            let (view, _) = record::parse(bytes)?.ok_or(RecordError::Unexpected)?;
            visit(view);
        }
        Ok(())
    }
}
