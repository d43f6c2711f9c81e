//! The result of a recovery: hard states, live entries and where writing goes on.
//!
//! Off the data path.
//! Invariant: the entries of a group are contiguous; an entry replaces everything of its group from its index on.

use std::collections::{BTreeMap, VecDeque};

use ringraft_raft::mutants::{Mutant, is_active};

use super::Note;
use super::scan::ScannedRecord;
use crate::config::ValidConfig;
use crate::disk::FileNumber;
use crate::index::Location;
use crate::record::{self, HardState, RecordError, RecordView};

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
            next_sequence: 1,
            previous_crc: config.identity().checksum(),
            segments: Vec::new(),
            free_files: Vec::new(),
            next_segment_id: 1,
            file_count,
            cursor: None,
        }
    }

    pub(crate) fn apply(&mut self, record: &ScannedRecord) {
        match *record {
            ScannedRecord::HardState { .. } if is_active(Mutant::HardStateDropped) => {}
            ScannedRecord::HardState { group, state } => {
                self.groups.entry(group).or_default().hard_state = Some(state);
            }
            ScannedRecord::Entry { group, term, index, location } => {
                let entries = &mut self.groups.entry(group).or_default().entries;
                while entries.back().is_some_and(|last| last.index >= index) {
                    entries.pop_back();
                }
                if entries.back().is_some_and(|last| last.index + 1 != index) {
                    entries.clear();
                    self.notes.push(Note::GroupRestarted { group, index });
                }
                entries.push_back(RecoveredEntry { term, index, length: location.length(), location });
            }
        }
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
