//! Equal state: replicas that applied the same index have the same state hash (the etcd 3.5 postmortem), which is the one
//! that the committed log gives there.
//!
//! Off the data path.
//!
//! ```text
//!   applied entry by entry: compared with whoever was seen at the index before, and at the end with the replay
//!   restored from a snapshot: compared at once with the state that the archive gives
//! ```
//!
//! Relations: a state is restored when the index before which nothing can have been applied by this process is not 0: at
//! its start, or when the base of its log jumps ahead of what it had applied.

use ringraft_engine::limits::Limits;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_engine::state_machine::StateMachine;
use ringraft_raft::{GroupId, Index};

use super::archive::Archive;
use super::{Replica, Violation};
use crate::world::Checked;

const PROPERTY: &str = "equal state at equal index";

/// The first hash seen after each applied index, by group, and what the archive gives, as far as it was asked for.
#[derive(Debug)]
pub(crate) struct StateHashes {
    seen: Vec<Vec<Option<(u64, usize)>>>,
    /// By node and group: `None` before the first look at a process.
    applied: Vec<Vec<Option<Index>>>,
    references: Vec<Reference>,
}

impl StateHashes {
    pub(crate) fn new(nodes: usize, groups: usize, limits: Limits) -> Self {
        Self {
            seen: vec![Vec::new(); groups],
            applied: vec![vec![None; groups]; nodes],
            references: (0..groups).map(|group| Reference::new(group as u32, limits)).collect(),
        }
    }

    /// A new process starts over.
    pub(crate) fn restart(&mut self, node: usize) {
        self.applied[node].fill(None);
    }

    /// A replica was given up.
    pub(crate) fn forget(&mut self, replica: Replica) {
        self.applied[replica.node][replica.group as usize] = None;
    }

    pub(crate) fn observe(&mut self, replica: Replica, view: &GroupView, archive: &Archive) -> Checked {
        let before = self.applied[replica.node][replica.group as usize].replace(view.last_applied);
        let restored = before.map_or(view.last_applied > 0, |before| view.base.index > before);
        if restored {
            self.restored(replica, view, archive)?;
        }
        let seen = &mut self.seen[replica.group as usize];
        let index = view.last_applied as usize;
        if seen.len() <= index {
            seen.resize(index + 1, None);
        }
        match seen[index] {
            None => seen[index] = Some((view.state_hash, replica.node)),
            Some((hash, _)) if hash == view.state_hash => {}
            Some((hash, node)) => {
                let (here, node) = (view.state_hash, node + 1);
                let text =
                    format!("{replica} has state {here:016x} at index {index}, node {node} had {hash:016x} there");
                return Err(Violation::new(PROPERTY, text));
            }
        }
        Ok(())
    }

    /// A state that was not made by applying entries is the one that they make.
    fn restored(&mut self, replica: Replica, view: &GroupView, archive: &Archive) -> Checked {
        let (index, here) = (view.last_applied, view.state_hash);
        let reference = &mut self.references[replica.group as usize];
        let expected = reference.hash_at(index, archive)?;
        if expected == Some(here) {
            return Ok(());
        }
        let text = match expected {
            Some(hash) => format!("{replica} was restored to {here:016x} at index {index}, its log gives {hash:016x}"),
            None => format!("{replica} was restored to index {index}, which is not committed"),
        };
        Err(Violation::new(PROPERTY, text))
    }

    /// Every hash ever seen is the one of a replay, whose `hashes` begin before the first entry.
    pub(crate) fn compare(&self, group: u32, hashes: &[u64]) -> Checked {
        for (index, seen) in self.seen[group as usize].iter().enumerate() {
            let Some((hash, node)) = seen else { continue };
            let replayed = hashes.get(index).copied();
            if replayed != Some(*hash) {
                let replica = Replica { node: *node, group };
                let text = format!("{replica} had state {hash:016x} at index {index}, its log gives {replayed:016x?}");
                return Err(Violation::new("the state is a function of the log", text));
            }
        }
        Ok(())
    }
}

/// A state machine that follows the archive when it is asked, and the hashes it had on its way.
#[derive(Debug)]
struct Reference {
    group: u32,
    machine: StateMachine,
    hashes: Vec<u64>,
}

impl Reference {
    fn new(group: u32, limits: Limits) -> Self {
        let machine = StateMachine::new(GroupId(group), limits);
        let hashes = vec![machine.digest().hash];
        Self { group, machine, hashes }
    }

    /// The hash after an entry; `None`: it was not committed.
    fn hash_at(&mut self, index: Index, archive: &Archive) -> Result<Option<u64>, Violation> {
        let group = self.group;
        while self.hashes.len() as Index <= index {
            let next = self.hashes.len() as Index;
            let Some(entry) = archive.get(group, next) else { return Ok(None) };
            let applied = self.machine.apply_entry(next, entry.term, entry.payload(), |_, _| {});
            applied.map_err(|error| Violation::new("the log can be applied", format!("group {group}: {error}")))?;
            self.hashes.push(self.machine.digest().hash);
        }
        Ok(Some(self.hashes[index as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{archive, view};
    use ringraft_raft::EntryId;

    const REPLICA: Replica = Replica { node: 0, group: 0 };

    fn hashes() -> StateHashes {
        StateHashes::new(1, 1, Limits::default())
    }

    /// A replica that has applied up to `applied` and whose log begins behind `base`.
    fn at(base: Index, applied: Index, state_hash: u64) -> GroupView {
        GroupView { state_hash, ..view(EntryId { term: 1, index: base }, applied, applied) }
    }

    fn expected(index: Index) -> u64 {
        Reference::new(0, Limits::default()).hash_at(index, &archive(&[1, 1, 1])).unwrap().unwrap()
    }

    #[test]
    fn a_restored_state_is_the_one_of_the_log_at_once() {
        let archive = archive(&[1, 1, 1]);
        assert_eq!(hashes().observe(REPLICA, &at(2, 2, expected(2)), &archive), Ok(()));
        assert!(hashes().observe(REPLICA, &at(2, 2, expected(2) ^ 1), &archive).is_err());
        assert!(hashes().observe(REPLICA, &at(0, 2, expected(2) ^ 1), &archive).is_err(), "the log may still be whole");
        assert!(hashes().observe(REPLICA, &at(4, 4, 7), &archive).is_err(), "not committed");
    }

    #[test]
    fn a_leaders_snapshot_is_compared_when_it_comes() {
        let archive = archive(&[1, 1, 1]);
        for (wrong, base) in [(0, 2), (1, 2), (1, 0)] {
            let mut hashes = hashes();
            assert_eq!(hashes.observe(REPLICA, &at(0, 0, expected(0)), &archive), Ok(()));
            let taken = hashes.observe(REPLICA, &at(base, 2, expected(2) ^ wrong), &archive);
            assert_eq!(taken.is_ok(), wrong == 0 || base == 0, "only what is applied is left to the end");
            let replayed: Vec<u64> = (0..=3).map(expected).collect();
            assert_eq!(hashes.compare(0, &replayed).is_ok(), wrong == 0 || base == 2);
        }
    }

    #[test]
    fn every_state_seen_is_in_the_replay() {
        let mut hashes = hashes();
        assert_eq!(hashes.observe(REPLICA, &at(0, 0, 5), &Archive::new(1)), Ok(()));
        assert_eq!(hashes.compare(0, &[5, 6]), Ok(()));
        assert!(hashes.compare(0, &[6, 6]).is_err());
        assert_eq!(hashes.observe(REPLICA, &at(0, 1, 7), &Archive::new(1)), Ok(()));
        assert!(hashes.compare(0, &[5]).is_err(), "nobody applies what is not committed");
    }
}
