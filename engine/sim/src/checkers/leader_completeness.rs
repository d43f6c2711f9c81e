//! Leader completeness: whoever becomes leader has every entry committed in an earlier term (Raft 5.4.1).
//!
//! Off the data path.

use ringraft_engine::shard::Shard;
use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::Term;

use super::{Replica, Violation};
use crate::disk::SimDisk;
use crate::world::Checked;

/// Compares a new leader's log with what is committed.
pub(crate) fn check(replica: Replica, view: &GroupView, machine: &Shard<SimDisk>, committed: &[Term]) -> Checked {
    for (index, term) in (1..).zip(committed).filter(|(_, term)| **term < view.hard_state.current_term) {
        let found = machine.term_at(replica.group, index);
        if found != Some(*term) {
            let leads = view.hard_state.current_term;
            let seen =
                format!("{replica} leads in term {leads} without the committed entry {term}.{index} ({found:?})");
            return Err(Violation::new("leader completeness", seen));
        }
    }
    Ok(())
}
