//! Adding, removing and replacing: what is granted, what is refused and in which words, and that asking again is harmless.
//!
//! Off the data path.

use super::{addresses, cluster, ids};
use crate::topology::{ChangeError, NodeState, Topology, TopologyError};
use ringraft_raft::{GroupId, NodeId};

const NEW: NodeId = NodeId(9);

fn at(id: u64) -> Vec<String> {
    addresses(id, 1)
}

/// The next topology, which must be another one, valid and one epoch on.
#[track_caller]
fn granted(before: &Topology, result: Result<Option<Topology>, ChangeError>) -> Topology {
    let next = result.expect("granted").expect("a change");
    assert_eq!(next.epoch(), before.epoch() + 1);
    assert_eq!(Topology::decode(&next.encode()).as_ref(), Ok(&next));
    next
}

fn state(topology: &Topology, id: u64) -> Option<NodeState> {
    topology.node(NodeId(id)).map(|node| node.state)
}

#[test]
fn a_new_node_joins_and_nothing_moves_yet() {
    let before = cluster(&[1, 2, 3], 8, 3);
    let next = granted(&before, before.add(NEW, &at(9), 5));
    let node = next.node(NEW).expect("there");
    assert_eq!((node.state, node.instance, node.seat), (NodeState::Joining, 5, 9));
    assert_eq!(next.replicas(GroupId(3)), before.replicas(GroupId(3)));
    assert_eq!(next.learners(GroupId(0)), [NEW]);
    assert_eq!(next.add(NEW, &at(9), 5), Ok(None), "asked again");
    assert_eq!(next.add(NEW, &at(9), 0), Ok(None), "asked again by an operator");
}

#[test]
fn a_founder_makes_its_data_directory_known_once() {
    let before = cluster(&[1, 2, 3], 2, 3);
    let next = granted(&before, before.add(NodeId(2), &at(2), 55));
    assert_eq!(next.node(NodeId(2)).map(|node| (node.instance, node.state)), Some((55, NodeState::Active)));
    assert_eq!(next.add(NodeId(2), &at(2), 55), Ok(None));
    let wiped = next.add(NodeId(2), &at(2), 56).expect_err("another data directory");
    assert_eq!(wiped, ChangeError::OtherInstance { id: 2 });
    assert!(wiped.to_string().contains("its disk was wiped, or another process uses its id"), "{wiped}");
    assert!(!wiped.is_retryable() && !wiped.is_fatal());
}

#[test]
fn only_the_same_data_directory_may_move_to_other_addresses() {
    let before = cluster(&[1, 2, 3], 2, 3);
    let unproven = Err(ChangeError::OtherAddresses { id: 2, known: String::from("n2:7000") });
    assert_eq!(before.add(NodeId(2), &at(22), 0), unproven);
    assert_eq!(before.add(NodeId(2), &at(22), 55), unproven, "nobody knows yet whose directory 55 is");
    let known = granted(&before, before.add(NodeId(2), &at(2), 55));
    assert_eq!(known.add(NodeId(2), &at(22), 0), unproven);
    let moved = granted(&known, known.add(NodeId(2), &at(22), 55));
    assert_eq!(moved.node(NodeId(2)).map(|node| node.addresses.clone()), Some(at(22)));
}

#[test]
fn what_would_make_no_topology_is_refused() {
    let before = cluster(&[1, 2, 3], 2, 3);
    for (id, given) in [(0, at(0)), (9, at(1)), (9, Vec::new()), (9, vec![String::from("nowhere")])] {
        let error = before.add(NodeId(id), &given, 5).expect_err("refused");
        assert!(matches!(error, ChangeError::Invalid(_)), "{error}");
    }
    let full = cluster(&(1..=64).collect::<Vec<_>>(), 2, 3);
    let error = full.add(NodeId(65), &at(65), 5).expect_err("full");
    let what = String::from("nodes");
    assert_eq!(error, ChangeError::Invalid(TopologyError::Bound { what, found: 65, min: 1, max: 64 }));
}

#[test]
fn a_removed_node_leaves_and_the_last_one_stays() {
    let before = cluster(&[1, 2], 4, 3);
    let next = granted(&before, before.remove(NodeId(1)));
    assert_eq!((state(&next, 1), state(&next, 2)), (Some(NodeState::Leaving), Some(NodeState::Active)));
    assert_eq!(next.replicas(GroupId(1)), ids(&[1, 2]), "its groups go one after another");
    assert_eq!(next.remove(NodeId(1)), Ok(None), "asked again");
    let last = next.remove(NodeId(2)).expect_err("the last one");
    assert_eq!(last, ChangeError::LastNode { id: 2 });
    assert!(last.is_retryable() && last.to_string().contains("add another node first"), "{last}");
    let unknown = next.remove(NodeId(7)).expect_err("unknown").to_string();
    assert_eq!(unknown, "there is no node 7: the nodes are 1, 2");
}

#[test]
fn a_leaving_node_may_come_back_as_it_was_and_not_otherwise() {
    let before = cluster(&[1, 2, 3], 4, 3);
    let before = granted(&before, before.add(NodeId(1), &at(1), 11));
    let next = granted(&before, before.remove(NodeId(1)));
    assert_eq!(next.add(NodeId(1), &at(1), 11), Ok(None), "it started again");
    let moved = granted(&next, next.add(NodeId(1), &at(10), 11));
    assert_eq!(state(&moved, 1), Some(NodeState::Leaving));
    for instance in [0, 12] {
        assert_eq!(next.add(NodeId(1), &at(1), instance), Err(ChangeError::Leaving { id: 1 }));
    }
}

#[test]
fn a_removed_id_never_returns() {
    let text = String::from_utf8(cluster(&[1, 2, 3], 2, 3).encode()).expect("JSON");
    let topology = Topology::decode(text.replace(r#""removed":[]"#, r#""removed":[9]"#).as_bytes()).expect("valid");
    let removed = Err(ChangeError::Removed { id: 9 });
    assert_eq!(topology.add(NEW, &at(9), 5), removed);
    assert_eq!(topology.replace(NodeId(1), NEW, &at(9), 5), removed);
    assert_eq!(topology.remove(NEW), Ok(None), "it is so already");
}

#[test]
fn a_replacement_takes_over_groups_seat_and_even_addresses() {
    let before = cluster(&[1, 2, 3, 4, 5, 6, 7], 40, 3);
    let old = NodeId(3);
    let next = granted(&before, before.replace(old, NEW, &at(3), 5));
    let node = next.node(NEW).expect("there");
    assert_eq!((node.state, node.seat, node.instance), (NodeState::Joining, 3, 5));
    assert_eq!(state(&next, 3), Some(NodeState::Leaving));
    for group in (0..40).map(GroupId) {
        let swap = |node: &NodeId| if *node == old { NEW } else { *node };
        let mut expected: Vec<NodeId> = before.replicas(group).iter().map(swap).collect();
        expected.sort_unstable();
        assert_eq!(next.replicas(group), expected);
    }
    let wanted = next.placements_of_ring(40);
    assert!((0..40).all(|group| next.replicas(GroupId(group)) == wanted[group as usize]), "the ring wants no more");
    assert_eq!(next.replace(old, NEW, &at(3), 5), Ok(None), "asked again");
    assert_eq!(next.replace(old, NEW, &at(3), 6), Err(ChangeError::OtherInstance { id: 9 }));
}

#[test]
fn even_the_only_node_can_be_replaced() {
    let before = cluster(&[1], 3, 3);
    let next = granted(&before, before.replace(NodeId(1), NEW, &at(9), 5));
    assert_eq!(next.replicas(GroupId(2)), [NEW]);
}

#[test]
fn only_a_new_node_replaces() {
    let before = cluster(&[1, 2, 3], 4, 3);
    assert_eq!(before.replace(NodeId(1), NodeId(2), &at(2), 0), Err(ChangeError::NotNew { id: 2, old: 1 }));
    assert_eq!(before.replace(NodeId(1), NodeId(1), &at(1), 0), Err(ChangeError::NotNew { id: 1, old: 1 }));
    let unknown = before.replace(NodeId(7), NEW, &at(9), 0).expect_err("unknown").to_string();
    assert_eq!(unknown, "there is no node 7: the nodes are 1, 2, 3");
}

#[test]
fn who_replaces_one_that_was_leaving_gets_what_is_left_of_it() {
    let before = cluster(&[1, 2, 3, 4], 8, 3);
    let leaving = granted(&before, before.remove(NodeId(2)));
    let first = granted(&leaving, leaving.replace(NodeId(2), NEW, &at(9), 5));
    assert_eq!(first.node(NEW).map(|node| node.seat), Some(2));
    assert!((0..8).all(|group| !first.replicas(GroupId(group)).contains(&NodeId(2))));
    let second = granted(&first, first.replace(NodeId(2), NodeId(10), &at(10), 6));
    assert_eq!(second.node(NodeId(10)).map(|node| node.seat), Some(10), "the seat is taken");
    let third = granted(&first, first.replace(NEW, NodeId(10), &at(10), 6));
    assert_eq!(third.node(NodeId(10)).map(|node| node.seat), Some(2), "a seat is handed on");
}
