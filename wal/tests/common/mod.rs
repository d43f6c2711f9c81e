//! What the tests share: a small WAL on a disk in memory, and a model of what it must hold.
//!
//! Off the data path.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its own part; a test may panic

use std::collections::BTreeMap;

use ringraft_wal::mem::{MemDisk, Survival};
use ringraft_wal::{
    Accepted, Beginning, Completed, Config, Durable, EntryBytes, FileNumber, HardState, Identity, ReadDone, Recovered,
    RecoveryError, SnapshotMark, SnapshotName, ValidConfig, Wal, WalError,
};

pub(crate) const BLOCK: usize = 512;

pub(crate) fn identity() -> Identity {
    Identity { cluster: *b"sixteen bytes id", node: 7, shard: 3 }
}

/// Segments of 32 blocks of 512 bytes, batches up to 4 blocks.
pub(crate) fn small() -> Config {
    Config {
        block_bytes: BLOCK,
        segment_bytes: 32 * BLOCK as u64,
        segments_max: 64,
        segments_ready: 2,
        batch_bytes_max: 4 * BLOCK,
        record_bytes_max: 8 * BLOCK,
        flushes_in_flight_max: 2,
        backlog_bytes_max: 64 * BLOCK,
        cache_bytes_max: 1 << 20,
    }
}

pub(crate) fn config() -> ValidConfig {
    small().validate(identity()).unwrap()
}

/// The payload of an entry, different for every term and index.
pub(crate) fn payload(group: u32, term: u64, index: u64, bytes: usize) -> Vec<u8> {
    let mut state = u64::from(group) << 40 ^ term << 20 ^ index;
    let mut out = Vec::with_capacity(bytes);
    while out.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        out.push((state >> 33) as u8);
    }
    out
}

/// Bytes of [`membership`].
pub(crate) const MEMBERSHIP_BYTES: usize = 12;

/// What stands for a configuration: its term and something more.
pub(crate) fn membership(term: u64) -> Vec<u8> {
    [&term.to_le_bytes()[..], b"conf"].concat()
}

/// The mark of a snapshot of one block.
pub(crate) fn mark(group: u32, index: u64, replaces_log: bool) -> SnapshotMark {
    let state_hash = u64::from(group) << 32 ^ index;
    SnapshotMark { term: 1, index, file_bytes: BLOCK as u64, state_hash, replaces_log }
}

/// The reads among what ended.
pub(crate) fn reads_of<B>(completed: Vec<Completed<B>>) -> Vec<ReadDone> {
    let read = |completed| match completed {
        Completed::Read(read) => Some(read),
        Completed::Snapshot(_) => None,
    };
    completed.into_iter().filter_map(read).collect()
}

/// A WAL with its disk and everything it reported.
pub(crate) struct Log {
    pub(crate) config: ValidConfig,
    pub(crate) disk: MemDisk,
    pub(crate) wal: Wal<MemDisk>,
    pub(crate) durables: Vec<Durable>,
}

impl Log {
    pub(crate) fn new(config: ValidConfig) -> Self {
        let disk = MemDisk::new(&config, 3);
        Self::open(config, disk).unwrap().0
    }

    pub(crate) fn open(config: ValidConfig, mut disk: MemDisk) -> Result<(Self, Recovered), RecoveryError> {
        let recovered = disk.recover(&config)?;
        let wal = Wal::new(config.clone(), recovered.clone(), &mut disk);
        Ok((Self { config, disk, wal, durables: Vec::new() }, recovered))
    }

    pub(crate) fn try_entry(&mut self, group: u32, term: u64, index: u64, bytes: usize) -> Result<Accepted, WalError> {
        self.wal.begin_entry(group, term, index, bytes, &mut self.disk)?;
        let payload = payload(group, term, index, bytes);
        let (left, right) = payload.split_at(bytes / 3);
        self.wal.put(left);
        self.wal.put(right);
        self.wal.finish_entry(1)
    }

    pub(crate) fn entry(&mut self, group: u32, term: u64, index: u64, bytes: usize) -> u64 {
        self.try_entry(group, term, index, bytes).unwrap().sequence
    }

    pub(crate) fn try_membership(&mut self, group: u32, term: u64, index: u64) -> Result<Accepted, WalError> {
        self.wal.append_membership(group, term, index, &membership(term), &mut self.disk)
    }

    pub(crate) fn membership(&mut self, group: u32, term: u64, index: u64) -> u64 {
        self.try_membership(group, term, index).unwrap().sequence
    }

    /// The files of the group's snapshots stay: removing them is the host's.
    pub(crate) fn try_begin(&mut self, group: u32, beginning: Beginning) -> Result<Accepted, WalError> {
        self.wal.append_beginning(group, beginning, &mut self.disk)
    }

    pub(crate) fn hard_state(&mut self, group: u32, term: u64, voted_for: Option<u64>) -> u64 {
        self.wal.append_hard_state(group, term, voted_for, &mut self.disk).unwrap().sequence
    }

    /// Puts a finished snapshot there and marks it.
    pub(crate) fn try_mark(&mut self, group: u32, index: u64, replaces_log: bool) -> Result<Accepted, WalError> {
        let mark = mark(group, index, replaces_log);
        let accepted = self.wal.append_snapshot_mark(group, mark, &mut self.disk)?;
        self.disk.snapshots_mut().insert(SnapshotName { group, index }, vec![7; mark.file_bytes as usize]);
        Ok(accepted)
    }

    /// As [`Log::try_mark`]; returns the batch.
    pub(crate) fn mark(&mut self, group: u32, index: u64, replaces_log: bool) -> u64 {
        self.try_mark(group, index, replaces_log).unwrap().sequence
    }

    /// Reclaims what is below an index, with a snapshot mark for it in the open batch.
    pub(crate) fn reclaim(&mut self, group: u32, before_index: u64) -> usize {
        let covered = self.wal.snapshot_marks(group).last().map_or(0, |mark| mark.index);
        if before_index > covered + 1 {
            self.mark(group, before_index - 1, false);
        }
        self.wal.reclaim(group, before_index).unwrap()
    }

    pub(crate) fn submit(&mut self) {
        self.wal.submit(&mut self.disk).unwrap();
    }

    /// Ends all operations until nothing waits any more.
    pub(crate) fn flush(&mut self) {
        loop {
            self.submit();
            if self.disk.pending().is_empty() {
                return;
            }
            self.disk.run(&mut self.wal, &mut self.durables).unwrap();
        }
    }

    /// One entry, flushed on its own.
    pub(crate) fn flushed_entry(&mut self, group: u32, term: u64, index: u64, bytes: usize) {
        self.entry(group, term, index, bytes);
        self.flush();
    }

    /// Entries `first..=last` of term 1, each flushed on its own.
    pub(crate) fn flushed_entries(&mut self, group: u32, first: u64, last: u64, bytes: usize) {
        for index in first..=last {
            self.flushed_entry(group, 1, index, bytes);
        }
    }

    /// Ends the `place`-th pending operation.
    pub(crate) fn finish(&mut self, place: usize) {
        let completion = self.disk.finish(place);
        self.wal.complete(completion, &mut self.durables, &mut self.disk).unwrap();
    }

    /// The disk after a crash in which nothing unfinished survives.
    pub(crate) fn crashed(&self) -> MemDisk {
        self.disk.crash(&mut |_, _| Survival::Lost)
    }
}

/// What a recovery must find: (term, index) of the entries and the hard state of each group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) groups: BTreeMap<u32, ModelGroup>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ModelGroup {
    pub(crate) entries: Vec<(u64, u64, u32)>,
    pub(crate) hard_state: Option<HardState>,
    /// Index of each snapshot mark.
    pub(crate) marks: Vec<u64>,
    /// Index and term of each live entry that brings a configuration.
    pub(crate) memberships: Vec<(u64, u64)>,
    pub(crate) beginning: Option<Beginning>,
}

impl Model {
    pub(crate) fn entry(&mut self, group: u32, term: u64, index: u64, bytes: usize) {
        let found = self.groups.entry(group).or_default();
        found.entries.retain(|(_, known, _)| *known < index);
        found.entries.push((term, index, bytes as u32 + 32));
        found.memberships.retain(|(known, _)| *known < index);
    }

    pub(crate) fn membership(&mut self, group: u32, term: u64, index: u64) {
        self.entry(group, term, index, MEMBERSHIP_BYTES);
        self.groups.entry(group).or_default().memberships.push((index, term));
    }

    pub(crate) fn begin(&mut self, group: u32, beginning: Beginning) {
        let found = self.groups.entry(group).or_default();
        *found = ModelGroup { hard_state: found.hard_state, beginning: Some(beginning), ..ModelGroup::default() };
    }

    pub(crate) fn hard_state(&mut self, group: u32, current_term: u64, voted_for: Option<u64>) {
        self.groups.entry(group).or_default().hard_state = Some(HardState { current_term, voted_for });
    }

    pub(crate) fn mark(&mut self, group: u32, index: u64, replaces_log: bool) {
        let found = self.groups.entry(group).or_default();
        found.marks.retain(|known| *known < index && !replaces_log);
        found.marks.push(index);
        if found.marks.len() > 2 {
            found.marks.remove(0);
        }
        if replaces_log {
            found.entries.clear();
            found.memberships.clear();
        }
    }

    pub(crate) fn of(recovered: &Recovered) -> Self {
        let groups = recovered.groups.iter().map(|(group, found)| {
            let entries = found.entries.iter().map(|entry| (entry.term, entry.index, entry.length)).collect();
            let marks = found.marks.iter().map(|mark| mark.index).collect();
            let term = |payload: &[u8]| u64::from_le_bytes(payload[..8].try_into().unwrap());
            let memberships = found.memberships.iter().map(|(index, payload)| (*index, term(payload))).collect();
            let (hard_state, beginning) = (found.hard_state, found.beginning);
            (*group, ModelGroup { entries, hard_state, marks, memberships, beginning })
        });
        Self { groups: groups.collect() }
    }

    /// The same without entries below `first` of each group: a recovery may find more old entries than a host still wants.
    pub(crate) fn wanted_from(mut self, first: &BTreeMap<u32, u64>) -> Self {
        for (group, found) in &mut self.groups {
            let from = first.get(group).copied().unwrap_or(0);
            found.entries.retain(|(_, index, _)| *index >= from);
            found.memberships.retain(|(index, _)| *index >= from);
        }
        self
    }

    /// Without snapshot marks.
    pub(crate) fn without_marks(mut self) -> Self {
        self.groups.values_mut().for_each(|found| found.marks.clear());
        self
    }

    /// Without groups that hold nothing.
    pub(crate) fn compact(mut self) -> Self {
        self.groups.retain(|_, found| {
            let holds = !found.entries.is_empty() || !found.marks.is_empty();
            holds || found.hard_state.is_some() || found.beginning.is_some()
        });
        self
    }
}

/// Checks every entry of every group byte for byte, from the cache or the disk.
pub(crate) fn check_bytes(log: &mut Log, model: &Model) {
    for (group, found) in &model.groups {
        for (term, index, length) in &found.entries {
            let is_membership = found.memberships.contains(&(*index, *term));
            let bytes = *length as usize - 32;
            let expected = if is_membership { membership(*term) } else { payload(*group, *term, *index, bytes) };
            match log.wal.entry_bytes(*group, *index) {
                EntryBytes::Cached(bytes) => assert_eq!(ringraft_wal::record::payload(bytes), &expected[..]),
                EntryBytes::OnDisk => {
                    let bytes = read(log, *group, *index, 1);
                    assert_eq!(ringraft_wal::record::payload(&bytes), &expected[..]);
                }
                EntryBytes::Missing => panic!("entry {index} of group {group} is missing"),
            }
        }
    }
}

/// Reads entries from the disk.
pub(crate) fn read(log: &mut Log, group: u32, index: u64, bytes_max: usize) -> Vec<u8> {
    let ticket = log.wal.read_entries(group, index, bytes_max, &mut log.disk).unwrap();
    let reads = reads_of(log.disk.run(&mut log.wal, &mut log.durables).unwrap());
    let done = reads.into_iter().find(|done| done.ticket == ticket).expect("the read ended");
    done.result.unwrap()
}

/// Recovers, and recovers what that recovery left: both must agree.
pub(crate) fn recover_twice(config: &ValidConfig, disk: &MemDisk) -> Recovered {
    let first = disk.recover(config).unwrap();
    let second = disk.recover(config).unwrap();
    assert_eq!(Model::of(&first), Model::of(&second));
    first
}

/// The bytes of a block.
pub(crate) fn block(disk: &mut MemDisk, file: u32, block: u64) -> &mut [u8] {
    let start = block as usize * BLOCK;
    &mut disk.files_mut().get_mut(&FileNumber(file)).unwrap()[start..start + BLOCK]
}

/// A log that remembers what its content must be after every batch.
pub(crate) struct Tracked {
    pub(crate) log: Log,
    pub(crate) model: Model,
    /// The content if the log ends with this batch, and `first` then.
    states: BTreeMap<u64, (Model, First)>,
    /// The first index each group still wants.
    pub(crate) first: First,
}

type First = BTreeMap<u32, u64>;

impl Tracked {
    pub(crate) fn new(config: ValidConfig) -> Self {
        let states = [(0, Default::default())].into_iter().collect();
        Self { log: Log::new(config), model: Model::default(), states, first: BTreeMap::new() }
    }

    fn note(&mut self, sequence: u64) {
        self.states.insert(sequence, (self.model.clone(), self.first.clone()));
    }

    pub(crate) fn next_index(&self, group: u32) -> u64 {
        let last = self.model.groups.get(&group).and_then(|found| found.entries.last()).map(|entry| entry.1);
        last.map_or(1, |last| last + 1).max(self.covered(group) + 1)
    }

    /// What the newest mark of a group covers.
    pub(crate) fn covered(&self, group: u32) -> u64 {
        self.model.groups.get(&group).and_then(|found| found.marks.last().copied()).unwrap_or(0)
    }

    pub(crate) fn mark(&mut self, group: u32, index: u64, replaces_log: bool) -> bool {
        let result = self.log.try_mark(group, index, replaces_log);
        self.took(result, |model| model.mark(group, index, replaces_log))
    }

    pub(crate) fn entry(&mut self, group: u32, term: u64, index: u64, bytes: usize) -> bool {
        let result = self.log.try_entry(group, term, index, bytes);
        self.took(result, |model| model.entry(group, term, index, bytes))
    }

    pub(crate) fn membership(&mut self, group: u32, term: u64, index: u64) {
        let result = self.log.try_membership(group, term, index);
        self.took(result, |model| model.membership(group, term, index));
    }

    pub(crate) fn begin(&mut self, group: u32, beginning: Beginning) {
        let result = self.log.try_begin(group, beginning);
        if self.took(result, |model| model.begin(group, beginning)) {
            self.first.remove(&group);
            self.note(self.log.wal.accepted_sequence());
        }
    }

    fn took(&mut self, result: Result<Accepted, WalError>, change: impl FnOnce(&mut Model)) -> bool {
        match result {
            Ok(accepted) => {
                change(&mut self.model);
                self.note(accepted.sequence);
                true
            }
            Err(error) => {
                assert!(error.is_retryable(), "{error}");
                false
            }
        }
    }

    pub(crate) fn hard_state(&mut self, group: u32, term: u64, voted_for: Option<u64>) {
        let (wal, disk) = (&mut self.log.wal, &mut self.log.disk);
        if let Ok(accepted) = wal.append_hard_state(group, term, voted_for, disk) {
            self.model.hard_state(group, term, voted_for);
            self.note(accepted.sequence);
        }
    }

    pub(crate) fn reclaim(&mut self, group: u32, before_index: u64) {
        let covered = self.covered(group);
        if before_index > covered + 1 && !self.mark(group, before_index - 1, false) {
            return;
        }
        self.log.wal.reclaim(group, before_index).unwrap();
        let first = self.first.entry(group).or_default();
        *first = (*first).max(before_index);
        self.note(self.log.wal.accepted_sequence());
    }

    /// Checks a crashed disk: nothing durable lost, nothing half there; returns what was found.
    pub(crate) fn check(&self, disk: &MemDisk) -> Recovered {
        let recovered = match disk.recover(&self.log.config) {
            Ok(recovered) => recovered,
            Err(error) => panic!("a crash must always be recoverable: {error}"),
        };
        let last = recovered.last_sequence();
        assert!(last >= self.log.wal.durable_sequence(), "acknowledged batches are lost");
        assert!(last <= self.log.wal.submitted_sequence(), "batches nobody submitted");
        let (expected, first) = self.state(last);
        let expected = expected.wanted_from(&first).compact();
        assert_eq!(Model::of(&recovered).wanted_from(&first).compact(), expected, "after batch {last}");
        recovered
    }

    /// What the log holds if it ends with this batch.
    fn state(&self, last: u64) -> (Model, First) {
        self.states.range(..=last).next_back().map(|(_, state)| state.clone()).unwrap_or_default()
    }

    /// Forgets entries that nobody wants any more, and states the log cannot end in any more.
    pub(crate) fn forget(&mut self) {
        let durable = self.log.wal.durable_sequence();
        let oldest = self.states.range(..=durable).next_back().map_or(0, |(sequence, _)| *sequence);
        self.states.retain(|sequence, _| *sequence >= oldest);
        self.model = std::mem::take(&mut self.model).wanted_from(&self.first);
    }

    /// Goes on from a crashed disk.
    pub(crate) fn reopen(&self, disk: MemDisk) -> Self {
        let found = self.check(&disk);
        let (mut log, _) = Log::open(self.log.config.clone(), disk).unwrap();
        let (_, first) = self.state(found.last_sequence());
        for (group, first) in &first {
            log.wal.reclaim(*group, *first).unwrap();
        }
        let model = Model::of(&found);
        let states = [(found.last_sequence(), (model.clone(), first.clone()))].into_iter().collect();
        Self { log, model, states, first }
    }
}

/// Ten entries, each in its own batch of one block in blocks 0 to 9, every one called durable by the next.
pub(crate) fn ten() -> (Log, Model) {
    let mut log = Log::new(config());
    let mut model = Model::default();
    for index in 1..=10 {
        log.flushed_entry(1, 1, index, 100);
        model.entry(1, 1, index, 100);
    }
    (log, model)
}

/// The error recovery refuses the disk with.
pub(crate) fn refused(config: &ValidConfig, disk: &MemDisk) -> RecoveryError {
    disk.recover(config).expect_err("it must be refused")
}

/// Three segments of one group, all needed.
pub(crate) fn three_segments() -> (Log, Model) {
    let mut log = Log::new(config());
    let mut model = Model::default();
    for index in 1..=80 {
        log.flushed_entry(1, 1, index, 100);
        model.entry(1, 1, index, 100);
    }
    assert_eq!(log.wal.stats().segments, 3);
    (log, model)
}

/// Changes a batch header and makes its checksum right again.
pub(crate) fn patch(disk: &mut MemDisk, place: u64, at: usize, bytes: &[u8]) {
    let block = block(disk, 0, place);
    block[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c::crc32c(&block[..60]);
    block[60..64].copy_from_slice(&crc.to_le_bytes());
}
