//! Leader completeness: whoever becomes leader has every entry committed in an earlier term (Raft 5.4.1), in its log or
//! below its base.
//! A leader of an old term, elected late, need not have what a later one has committed meanwhile.
//!
//! Off the data path.

use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{Index, Term};

use super::archive::Archive;
use super::{Replica, Violation};
use crate::world::Checked;

/// Compares a new leader's log, from its base on, with what was committed in earlier terms.
pub(crate) fn check(
    replica: Replica,
    view: &GroupView,
    archive: &Archive,
    term_at: impl Fn(Index) -> Option<Term>,
) -> Checked {
    let leads = view.hard_state.current_term;
    for entry in archive.committed_before(replica.group, leads, view.base.index) {
        let found = term_at(entry.index);
        if found != Some(entry.term) {
            let seen = format!("{replica} leads in term {leads} without the committed entry {entry} ({found:?})");
            return Err(Violation::new("leader completeness", seen));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::testing::{archive, view};
    use ringraft_raft::EntryId;

    #[test]
    fn a_leader_has_what_was_committed_above_its_base() {
        let (archive, replica) = (archive(&[1, 1, 2, 9]), Replica { node: 0, group: 0 });
        let leader = view(EntryId { term: 1, index: 2 }, 3, 4); // in term 9
        let holds = |index: Index, third| (index == 3).then_some(third);
        assert_eq!(check(replica, &leader, &archive, |index| holds(index, 2)), Ok(()));
        assert!(check(replica, &leader, &archive, |index| holds(index, 3)).is_err());
        assert!(check(replica, &leader, &archive, |_| None).is_err());
    }
}
