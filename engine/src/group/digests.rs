//! Checkpoints of the rolling state hash, compared between replicas at equal index.
//!
//! Off the data path (one comparison and, at a checkpoint, one store per entry).
//! Invariant: two replicas of a group that applied the same index have the same hash; if not, one of them is wrong and
//! the follower stops (etcd 3.5 postmortem: detection is always on).

use ringraft_raft::Index;

/// Entries between two checkpoints.
pub(crate) const CHECKPOINT_ENTRIES: u64 = 64;

const CHECKPOINTS: usize = 64;

/// The newest checkpoints of one replica.
#[derive(Debug)]
pub(crate) struct Digests {
    ring: [(Index, u64); CHECKPOINTS],
    newest: Index,
}

impl Default for Digests {
    fn default() -> Self {
        Self { ring: [(0, 0); CHECKPOINTS], newest: 0 }
    }
}

impl Digests {
    /// Notes the hash after `index` was applied, if it is a checkpoint.
    pub(crate) fn note(&mut self, index: Index, hash: u64) {
        if index.is_multiple_of(CHECKPOINT_ENTRIES) {
            self.ring[place(index)] = (index, hash);
            self.newest = index;
        }
    }

    /// The newest checkpoint.
    pub(crate) fn newest(&self) -> Option<(Index, u64)> {
        (self.newest > 0).then(|| self.ring[place(self.newest)])
    }

    /// The hash noted in the place of `index`.
    pub(crate) fn at(&self, index: Index) -> u64 {
        self.ring[place(index)].1
    }

    /// Compares with another replica's checkpoint; `None` when this one does not have that index (yet, or any more).
    pub(crate) fn agrees(&self, index: Index, hash: u64) -> Option<bool> {
        let (own_index, own_hash) = self.ring[place(index)];
        (own_index == index && index > 0).then_some(own_hash == hash)
    }
}

fn place(index: Index) -> usize {
    (index / CHECKPOINT_ENTRIES) as usize % CHECKPOINTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_equal_indexes_are_compared() {
        let mut digests = Digests::default();
        assert_eq!(digests.newest(), None);
        assert_eq!(digests.agrees(0, 0), None);
        for index in 1..=CHECKPOINT_ENTRIES * 2 {
            digests.note(index, index * 3);
        }
        let index = CHECKPOINT_ENTRIES * 2;
        assert_eq!(digests.newest(), Some((index, index * 3)));
        assert_eq!(digests.agrees(index, index * 3), Some(true));
        assert_eq!(digests.agrees(index, 1), Some(false));
        assert_eq!(digests.agrees(index + CHECKPOINT_ENTRIES, 1), None, "not applied yet");
    }
}
