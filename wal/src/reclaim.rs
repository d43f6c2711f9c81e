//! Giving space back: prefixes that a group no longer needs.
//!
//! Off the data path.
//! A segment is used again when all its entries are reclaimed or replaced, in order from the oldest. Its hard states and
//! snapshot marks need no care: the first batch of every later segment carries the latest of all groups. Invariants: only
//! what a snapshot mark covers is reclaimed; a file is used again only when a batch behind that mark is durable;
//! reclaiming is only remembered in memory and in batch headers, after a restart the host reclaims again.
//! It moves no live entries: what a slow group has in the oldest segment goes when the host takes a snapshot of it.

use crate::disk::Disk;
use crate::error::WalError;
use crate::index::GroupIndex;
use crate::wal::Wal;

impl<D: Disk> Wal<D> {
    /// Forgets the entries of a group below `before_index`. Returns the number of segments that became free.
    ///
    /// A host that wants to be able to fall back to the snapshot before the newest reclaims only what that one covers.
    ///
    /// # Errors
    /// The newest snapshot mark does not cover all of them; nothing was forgotten.
    pub fn reclaim(&mut self, group: u32, before_index: u64) -> Result<usize, WalError> {
        let newest = self.segments.newest_id();
        let known: &mut GroupIndex = self.groups.entry(group).or_default();
        let covered = known.covered();
        if before_index > known.first.max(covered + 1) {
            return Err(WalError::NotCovered { group, before_index, covered });
        }
        let count = usize::try_from(before_index.saturating_sub(known.first)).unwrap_or(usize::MAX);
        let forgotten = known.locations.forget(count, |location, run| {
            self.segments.remove_live(location.segment_id(newest), run);
        });
        known.first += forgotten as u64;
        Ok(self.segments.release_dead())
    }

    /// The index below which nothing of the oldest segment would be needed, per group that holds entries in it: what to
    /// snapshot next so that space comes back. Groups in order.
    #[must_use]
    pub fn oldest_segment_groups(&self) -> Vec<(u32, u64)> {
        let Some(oldest) = self.segments.log().front().map(|segment| segment.id) else { return Vec::new() };
        let in_oldest = |index: &GroupIndex| {
            let count = index.locations.in_segment(oldest);
            (count > 0).then_some(index.first + count as u64)
        };
        let mut groups: Vec<(u32, u64)> =
            self.groups.iter().filter_map(|(group, index)| Some((*group, in_oldest(index)?))).collect();
        groups.sort_unstable();
        groups
    }
}
