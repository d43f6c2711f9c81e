//! Log matching: two logs with the same entry at an index are the same up to there (Raft 5.3).
//!
//! Off the data path.
//! Below its base a log is what the archive says: two logs are compared from the lower of their bases.

use ringraft_raft::{Index, Term};

use super::archive::Archive;
use super::{Replica, Violation};
use crate::node::Node;
use crate::world::Checked;

/// Compares every two replicas of every group.
pub(crate) fn check(nodes: &[Node], archive: &Archive) -> Checked {
    for (place, one) in nodes.iter().enumerate() {
        for (step, other) in nodes.iter().enumerate().skip(place + 1) {
            compare(place, one, step, other, archive)?;
        }
    }
    Ok(())
}

fn compare(place: usize, one: &Node, other_place: usize, other: &Node, archive: &Archive) -> Checked {
    let (Some(left), Some(right)) = (&one.process, &other.process) else { return Ok(()) };
    for (left, right) in left.hosts.iter().zip(&right.hosts) {
        for one in left.shard.group_views() {
            let group = one.group;
            let Some(other) = right.shard.group_views().find(|view| view.group == group) else { continue };
            let one_at = |index| match index <= one.base.index {
                true => archive.term_at(group, index),
                false => left.shard.term_at(group, index),
            };
            let other_at = |index| match index <= other.base.index {
                true => archive.term_at(group, index),
                false => right.shard.term_at(group, index),
            };
            let first = one.base.index.min(other.base.index) + 1;
            let last = one.last.index.min(other.last.index);
            if let Some((agreed, index)) = difference(first, last, one_at, other_at) {
                let (one, other) = (Replica { node: place, group }, Replica { node: other_place, group });
                let seen = format!("{one} and {other} agree at index {agreed} and differ at {index}");
                return Err(Violation::new("log matching", seen));
            }
        }
    }
    Ok(())
}

/// The last index at which two logs agree, and one before it at which they differ.
fn difference(
    first: Index,
    last: Index,
    one: impl Fn(Index) -> Option<Term>,
    other: impl Fn(Index) -> Option<Term>,
) -> Option<(Index, Index)> {
    let differ = |index: &Index| one(*index) != other(*index);
    let agreed = (first..=last).rev().find(|index| !differ(index))?;
    (first..agreed).find(differ).map(|index| (agreed, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(first: Index, one: &[Term], other: &[Term]) -> Option<(Index, Index)> {
        let at = |terms: &[Term], index: Index| terms.get(index as usize - 1).copied();
        difference(first, one.len().min(other.len()) as Index, |index| at(one, index), |index| at(other, index))
    }

    #[test]
    fn logs_may_differ_only_behind_the_last_entry_they_share() {
        assert_eq!(found(1, &[1, 1, 2, 4], &[1, 1, 3]), None);
        assert_eq!(found(1, &[1, 2, 2], &[1, 1, 2]), Some((3, 2)));
        assert_eq!(found(1, &[1, 1], &[2, 2]), None);
        assert_eq!(found(3, &[1, 2, 2], &[1, 1, 2]), None, "below both bases nothing is looked at");
    }
}
