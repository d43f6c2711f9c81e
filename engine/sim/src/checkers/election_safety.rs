//! Election safety: at most one leader per term and group, whose own vote is on its disk (Raft 5.2, thesis 3.8).
//!
//! Off the data path.

use std::collections::BTreeMap;

use ringraft_engine::shard::inspect::GroupView;
use ringraft_raft::{Role, Term};

use super::{Replica, Violation};

/// Who led which group in which term.
#[derive(Debug, Default)]
pub(crate) struct ElectionSafety {
    leaders: BTreeMap<(u32, Term), usize>,
}

impl ElectionSafety {
    /// Looks at one replica; whether it has just become leader.
    pub(crate) fn observe(&mut self, replica: Replica, view: &GroupView) -> Result<bool, Violation> {
        if view.role != Role::Leader {
            return Ok(false);
        }
        let term = view.hard_state.current_term;
        if view.durable_hard_state != view.hard_state {
            let seen = format!("{replica} leads in term {term} before its own vote is on its disk");
            return Err(Violation::new("election safety", seen));
        }
        match self.leaders.insert((replica.group, term), replica.node) {
            None => Ok(true),
            Some(node) if node == replica.node => Ok(false),
            Some(node) => {
                let (one, other) = (node + 1, replica.node + 1);
                let seen = format!("nodes {one} and {other} both lead group {} in term {term}", replica.group);
                Err(Violation::new("election safety", seen))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_raft::{EntryId, HardState};

    fn leader(term: u64) -> GroupView {
        let hard_state = HardState { current_term: term, voted_for: None };
        GroupView {
            group: 0,
            role: Role::Leader,
            leader: None,
            hard_state,
            durable_hard_state: hard_state,
            commit_index: 0,
            last_applied: 0,
            base: EntryId::ZERO,
            last: EntryId::ZERO,
            durable_index: 0,
            state_hash: 0,
            waiting: 0,
            serving: false,
        }
    }

    #[test]
    fn two_leaders_of_a_term_are_seen() {
        let mut safety = ElectionSafety::default();
        let (first, second) = (Replica { node: 0, group: 0 }, Replica { node: 1, group: 0 });
        assert_eq!(safety.observe(first, &leader(3)), Ok(true));
        assert_eq!(safety.observe(first, &leader(3)), Ok(false));
        assert_eq!(safety.observe(second, &leader(4)), Ok(true));
        assert!(safety.observe(second, &leader(3)).is_err());
        let hasty = GroupView { durable_hard_state: HardState::default(), ..leader(9) };
        assert!(safety.observe(first, &hasty).is_err());
    }
}
