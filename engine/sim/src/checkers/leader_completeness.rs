//! Leader completeness: whoever becomes leader has every entry committed in an earlier term (Raft 5.4.1).
//! A leader of an old term, elected late, need not have what a later one has committed meanwhile.
//!
//! Off the data path.

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{Index, Term};

use super::{Replica, Violation};
use crate::disk::SimDisk;
use crate::world::Checked;

/// Compares a new leader's log with what was committed in earlier terms: (index, term) of each.
pub(crate) fn check(
    replica: Replica,
    view: &GroupView,
    machine: &Shard<SimDisk>,
    committed: impl Iterator<Item = (Index, Term)>,
) -> Checked {
    for (index, term) in committed {
        let found = machine.term_at(replica.group, index);
        if found != Some(term) {
            let leads = view.hard_state.current_term;
            let seen =
                format!("{replica} leads in term {leads} without the committed entry {term}.{index} ({found:?})");
            return Err(Violation::new("leader completeness", seen));
        }
    }
    Ok(())
}
