//! Snapshot marks: the log's word that a snapshot is durable and covers everything up to an entry. And beginnings: its word
//! that a group's log begins anew.
//!
//! Off the data path.
//! Invariants: a mark covers only what the log holds or an earlier mark covers, unless it replaces the log; the newest two
//! of a group count, here and in recovery alike. A mark may use blocks that are kept from everything else, because space
//! comes back only through it, and so may a beginning.
//! It looks at no file.

use crate::append::{Purpose, Wanted};
use crate::disk::Disk;
use crate::error::WalError;
use crate::record::{BEGINNING_BYTES, Beginning, SNAPSHOT_MARK_BYTES, SnapshotMark};
use crate::wal::{Accepted, Wal};

/// Marks of a group that count.
pub(crate) const MARKS_MAX: usize = 2;

/// Adds a mark to the ones of its group: it takes the place of those at and above its index.
pub(crate) fn note_mark(marks: &mut Vec<SnapshotMark>, mark: SnapshotMark) {
    marks.retain(|known| known.index < mark.index && !mark.replaces_log);
    marks.push(mark);
    if marks.len() > MARKS_MAX {
        marks.remove(0);
    }
}

impl<D: Disk> Wal<D> {
    /// Appends a mark: the finished file of `group` and `mark.index` is durable. With [`SnapshotMark::replaces_log`] the
    /// group's entries are gone at once, and the next one must be the one behind `mark.index`; that earlier ones became
    /// durable may still be told. What is reclaimed or
    /// removed because of a mark should wait until [`Durable::snapshot`](crate::Durable::snapshot) tells that it is durable.
    ///
    /// # Errors
    /// It covers entries that the log does not hold, or less than was reclaimed; full, or poisoned.
    pub fn append_snapshot_mark(&mut self, group: u32, mark: SnapshotMark, disk: &mut D) -> Result<Accepted, WalError> {
        self.check_poison()?;
        self.check_mark(group, &mark)?;
        let bytes = SNAPSHOT_MARK_BYTES;
        self.make_room(Wanted { bytes, hard_states: 0, purpose: Purpose::SnapshotMark }, disk)?;
        let open = self.open.as_mut().expect("room was made");
        open.push_snapshot_mark(group, &mark, false);
        let sequence = open.place.sequence;
        let durable = self.summary(group);
        durable.snapshot = Some(mark.index);
        if mark.replaces_log {
            durable.entry = None;
            self.void_log(group, mark.index + 1);
        }
        let known = self.groups.entry(group).or_default();
        note_mark(&mut known.marks, mark);
        known.mark_sequence = sequence;
        self.stats.record_bytes += bytes as u64;
        Ok(Accepted { sequence, length: bytes as u32 })
    }

    /// Appends a beginning: the group's entries and marks are void at once, and the next entry is 1 or a mark that replaces
    /// the log. That earlier ones became durable may still be told; files of its snapshots may be removed when it is durable.
    ///
    /// # Errors
    /// Full, or poisoned.
    pub fn append_beginning(&mut self, group: u32, beginning: Beginning, disk: &mut D) -> Result<Accepted, WalError> {
        self.check_poison()?;
        let bytes = BEGINNING_BYTES;
        self.make_room(Wanted { bytes, hard_states: 0, purpose: Purpose::SnapshotMark }, disk)?;
        let open = self.open.as_mut().expect("room was made");
        open.push_beginning(group, &beginning, false);
        let sequence = open.place.sequence;
        let durable = self.summary(group);
        (durable.entry, durable.snapshot) = (None, None);
        self.void_log(group, 1);
        let known = self.groups.entry(group).or_default();
        known.marks.clear();
        known.beginning = Some(beginning);
        known.mark_sequence = sequence;
        self.stats.record_bytes += bytes as u64;
        Ok(Accepted { sequence, length: bytes as u32 })
    }

    fn check_mark(&mut self, group: u32, mark: &SnapshotMark) -> Result<(), WalError> {
        let known = self.groups.entry(group).or_default();
        let (first, last, covered) = (known.first, known.next() - 1, known.covered());
        let fits = if mark.replaces_log {
            mark.index > covered && mark.index < u64::MAX
        } else {
            mark.index > 0 && mark.index + 1 >= first && mark.index <= last
        };
        if fits { Ok(()) } else { Err(WalError::SnapshotMark { group, index: mark.index, first, last, covered }) }
    }

    /// Drops all entries of a group; `next` is the one to come.
    fn void_log(&mut self, group: u32, next: u64) {
        let newest = self.segments.newest_id();
        let known = self.groups.entry(group).or_default();
        known.locations.forget(usize::MAX, |location, run| {
            self.segments.remove_live(location.segment_id(newest), run);
        });
        known.first = next;
        self.segments.release_dead();
    }
}
