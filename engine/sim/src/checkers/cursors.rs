//! Monotonic cursors: terms, votes, commit, applied and durable positions and the bases of logs never go back while a
//! process lives; what is below a base is applied.
//!
//! Off the data path.

use ringraft_engine::shard::inspect::{GroupView, LogCursors};
use ringraft_raft::EntryId;

use super::{Replica, Violation, is_news};
use crate::world::Checked;

/// The last view of everything.
#[derive(Debug)]
pub(crate) struct Cursors {
    groups: Vec<Vec<Option<GroupView>>>,
    logs: Vec<Vec<Option<LogCursors>>>,
}

impl Cursors {
    pub(crate) fn new(nodes: usize, groups: usize, shards: usize) -> Self {
        Self { groups: vec![vec![None; groups]; nodes], logs: vec![vec![None; shards]; nodes] }
    }

    /// A new process starts over.
    pub(crate) fn restart(&mut self, node: usize) {
        self.groups[node].fill(None);
        self.logs[node].fill(None);
    }

    /// The last entry a replica had when it was looked at; `None`: this process was not seen with one.
    pub(crate) fn last(&self, replica: Replica) -> Option<EntryId> {
        self.groups[replica.node][replica.group as usize].map(|view| view.last)
    }

    /// A replica was given up.
    pub(crate) fn forget(&mut self, replica: Replica) {
        self.groups[replica.node][replica.group as usize] = None;
    }

    /// Looks at the cursors of a log.
    pub(crate) fn log(&mut self, node: usize, shard: usize, now: LogCursors) -> Checked {
        let before = self.logs[node][shard].replace(now);
        let ordered = now.durable <= now.submitted && now.submitted <= now.accepted;
        let grows = before.is_none_or(|before| {
            before.accepted <= now.accepted && before.submitted <= now.submitted && before.durable <= now.durable
        });
        if ordered && grows {
            return Ok(());
        }
        let seen = format!("node {} shard {shard}: the log's cursors went from {before:?} to {now:?}", node + 1);
        Err(Violation::new("monotonic cursors", seen))
    }

    /// Looks at a replica; whether anything is new.
    pub(crate) fn group(&mut self, replica: Replica, now: &GroupView) -> Result<bool, Violation> {
        let before = self.groups[replica.node][replica.group as usize].replace(*now);
        let ordered = now.base.index <= now.last_applied
            && now.last_applied <= now.commit_index
            && now.commit_index <= now.last.index
            && now.durable_index <= now.last.index
            && now.durable_hard_state.current_term <= now.hard_state.current_term
            && now.last.term <= now.hard_state.current_term;
        let Some(before) = before else {
            return if ordered { Ok(true) } else { Err(broken(replica, None, now)) };
        };
        let (old, new) = (before.hard_state, now.hard_state);
        let vote_kept =
            old.current_term < new.current_term || old.voted_for.is_none() || old.voted_for == new.voted_for;
        let grows = old.current_term <= new.current_term
            && before.durable_hard_state.current_term <= now.durable_hard_state.current_term
            && before.base.index <= now.base.index
            && before.commit_index <= now.commit_index
            && before.last_applied <= now.last_applied;
        if ordered && grows && vote_kept {
            return Ok(is_news(&before, now));
        }
        Err(broken(replica, Some(&before), now))
    }
}

fn broken(replica: Replica, before: Option<&GroupView>, now: &GroupView) -> Violation {
    Violation::new("monotonic cursors", format!("{replica} went from {before:?} to {now:?}"))
}
