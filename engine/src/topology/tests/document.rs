//! The text of a topology: golden, canonical, and every way to be wrong has its own words.
//!
//! Off the data path.

use proptest::prelude::*;

use super::{addresses, cluster, ids};
use crate::topology::{BYTES_MAX, NodeState, Topology, TopologyError};
use ringraft_raft::{GroupId, NodeId};

const GOLDEN: &str = concat!(
    r#"{"format":1,"epoch":4,"shards":2,"replication_factor":2,"nodes":["#,
    r#"{"id":1,"seat":1,"addresses":["n1:7000","n1:7001"],"instance":0,"state":"leaving"},"#,
    r#"{"id":3,"seat":3,"addresses":["[::1]:7000","[::1]:7001"],"instance":77,"state":"joining"},"#,
    r#"{"id":4,"seat":2,"addresses":["n4:7000","n4:7001"],"instance":18446744073709551615,"state":"active"}],"#,
    r#""removed":[2],"placements":[[1,4],[4],[1,3]]}"#
);

fn problem(text: &str) -> String {
    Topology::decode(text.as_bytes()).expect_err(text).to_string()
}

/// What is said of the golden text with one part changed.
#[track_caller]
fn changed(from: &str, to: &str) -> String {
    assert_eq!(GOLDEN.matches(from).count(), 1, "{from} is there once");
    problem(&GOLDEN.replace(from, to))
}

#[test]
fn the_text_is_golden() {
    let topology = Topology::decode(GOLDEN.as_bytes()).expect("valid");
    assert_eq!(String::from_utf8(topology.encode()).expect("JSON is UTF-8"), GOLDEN);
    assert_eq!((topology.epoch(), topology.groups(), topology.shards(), topology.replication_factor()), (4, 3, 2, 2));
    assert_eq!(topology.removed(), [2]);
    assert_eq!(topology.replicas(GroupId(2)), ids(&[1, 3]));
    assert_eq!(topology.learners(GroupId(0)), ids(&[3]));
    let node = topology.node(NodeId(4)).expect("there");
    assert_eq!((node.seat, node.instance, node.state), (2, u64::MAX, NodeState::Active));
    assert_eq!(topology.node(NodeId(2)), None);
}

#[test]
fn another_format_is_named_before_its_fields() {
    let text = r#"{"format":2,"colour":"blue"}"#;
    assert_eq!(problem(text), "the topology has format 2, this release reads format 1: run a release that knows both");
}

#[test]
fn what_is_not_known_or_not_there_is_refused() {
    assert!(changed(r#""epoch":4"#, r#""epoch":4,"colour":1"#).contains("unknown field `colour`"));
    assert!(changed(r#""instance":77"#, r#""instance":77,"colour":1"#).contains("unknown field `colour`"));
    assert!(changed(r#""instance":77"#, r#""instance":77,"instance":78"#).contains("duplicate field `instance`"));
    assert!(changed(r#""removed":[2],"#, "").contains("missing field `removed`"));
    assert!(changed("joining", "sleeping").contains("unknown variant `sleeping`"));
    assert!(changed(r#""shards":2"#, r#""shards":-2"#).contains("invalid value"));
    assert!(problem(&format!("{GOLDEN} x")).contains("trailing characters"));
    assert!(problem("").contains("EOF"));
    assert!(problem(&"[".repeat(100_000)).contains("cannot be read"));
    let long = Topology::decode(&vec![b' '; BYTES_MAX + 1]).expect_err("too long");
    assert_eq!(long, TopologyError::TooLong { bytes: BYTES_MAX + 1 });
    assert!(!long.is_retryable() && long.is_fatal());
}

#[test]
fn numbers_have_bounds() {
    assert_eq!(changed(r#""epoch":4"#, r#""epoch":0"#), "epoch: 0, allowed are 1 to 4611686018427387904");
    assert!(changed(r#""epoch":4"#, r#""epoch":18446744073709551615"#).starts_with("epoch: 18446744073709551615"));
    assert_eq!(changed(r#""shards":2"#, r#""shards":0"#), "shards: 0, allowed are 1 to 256");
    assert_eq!(changed(r#""shards":2"#, r#""shards":257"#), "shards: 257, allowed are 1 to 256");
    let factor = |to: &str| changed(r#""replication_factor":2"#, &format!(r#""replication_factor":{to}"#));
    assert_eq!(factor("0"), "replication factor: 0, allowed are 1 to 64");
    assert_eq!(factor("65"), "replication factor: 65, allowed are 1 to 64");
    assert_eq!(factor("1"), "group 2: replicas: 2, allowed are 1 to 1");
    assert_eq!(changed("[[1,4],[4],[1,3]]", "[]"), "groups: 0, allowed are 1 to 16384");
    let groups = format!("[{}[4]]", "[4],".repeat(16_384));
    assert_eq!(changed("[[1,4],[4],[1,3]]", &groups), "groups: 16385, allowed are 1 to 16384");
    let removed = (1..=4_096).map(|id| (id + 10).to_string()).collect::<Vec<_>>().join(",");
    let full = changed("[2]", &format!("[{removed}]"));
    assert_eq!(full, "nodes that were removed or are leaving: 4097, allowed are 0 to 4096");
}

#[test]
fn placements_name_nodes_in_order_once() {
    assert_eq!(changed("[4]", "[]"), "group 1: replicas: 0, allowed are 1 to 2");
    assert_eq!(changed("[4]", "[2]"), "group 1: node 2 is to hold it, but there is no such node");
    for wrong in ["[4,4]", "[4,3]"] {
        let expected = "group 1: a replica is named twice, or they are not in the order of their ids";
        assert_eq!(changed("[4]", wrong), expected);
    }
    assert_eq!(changed("[1,4]", "[1,2,3,4,5,6]"), "group 0: replicas: 6, allowed are 1 to 5");
}

#[test]
fn nodes_are_told_apart() {
    let order = "two nodes have the same id, or the nodes are not in the order of their ids";
    assert_eq!(changed(r#""id":3"#, r#""id":1"#), order);
    assert_eq!(changed(r#""id":3"#, r#""id":5"#), order);
    assert_eq!(changed(r#""id":1"#, r#""id":0"#), "a node has id 0: ids start at 1");
    assert_eq!(changed(r#""seat":3"#, r#""seat":0"#), "node 3: its seat is 0: seats start at 1");
    assert_eq!(changed(r#""seat":3"#, r#""seat":2"#), "node 4: another node has its seat 2 too");
    let taken = "node 4: `[::1]:7001` is named twice: every shard of every node has its own address";
    assert_eq!(changed("n4:7001", "[::1]:7001"), taken);
    assert!(Topology::decode(GOLDEN.replace("n4:700", "n1:700").as_bytes()).is_ok(), "the address of a leaving node");
    assert_eq!(changed("[2]", "[2,3]"), "node 3 was removed and is there too");
    assert_eq!(changed("[2]", "[7,2]"), "the removed ids are not ascending");
    assert_eq!(changed("[2]", "[0]"), "id 0 was removed: ids start at 1");
    let all_leave = GOLDEN.replace("joining", "leaving").replace("active", "leaving");
    assert_eq!(problem(&all_leave), "every node is leaving: somebody must stay");
    assert_eq!(
        problem(&GOLDEN.replace(r#""nodes":["#, r#""nodes":[],"x":["#)).split(':').next(),
        Some("the topology cannot be read")
    );
}

#[test]
fn addresses_are_one_per_shard_and_plain() {
    let count = changed(r#""n4:7000","n4:7001""#, r#""n4:7000""#);
    assert_eq!(count, "node 4: 1 addresses, but every node of this cluster has 2 shards, each with one");
    for wrong in [
        "n4",
        "n4:",
        ":7001",
        "n4:0",
        "n4:65536",
        "n4:+7001",
        "n4:07001",
        " n4:7001",
        "n 4:7001",
        "::1:7001",
        "ü:7001",
        "a\\\"b:7001",
    ] {
        let said = changed("n4:7001", wrong);
        assert!(said.starts_with("node 4: ") && said.ends_with("is not host:port"), "{said}");
    }
    let long = changed("n4:7001", &format!("{}:7001", "a".repeat(257)));
    assert_eq!(long, "node 4: bytes of an address: 262, allowed are 1 to 261");
    assert_eq!(changed("n4:7001", ""), "node 4: bytes of an address: 0, allowed are 1 to 261");
}

#[test]
fn a_cluster_whose_text_could_grow_too_long_is_not_made() {
    let largest = |first: u64| {
        let nodes = (first..first + 64).map(|id| (NodeId(id), addresses(id, 16)));
        Topology::initial(nodes, 16_384, 16, 3)
    };
    let topology = largest(1).expect("fits");
    assert!(topology.encode().len() < BYTES_MAX);
    assert!(matches!(largest(u64::MAX - 64), Err(TopologyError::TooLong { .. })));
}

#[test]
fn no_cluster_begins_with_the_wrong_nodes() {
    let nodes = |numbers: &[u64]| numbers.iter().map(|id| (NodeId(*id), addresses(*id, 1))).collect::<Vec<_>>();
    let error = |numbers: &[u64], groups, shards, factor| {
        Topology::initial(nodes(numbers), groups, shards, factor).expect_err("wrong").to_string()
    };
    assert_eq!(error(&[], 1, 1, 3), "nodes: 0, allowed are 1 to 64");
    assert_eq!(error(&(1..=65).collect::<Vec<_>>(), 1, 1, 3), "nodes: 65, allowed are 1 to 64");
    assert_eq!(error(&[1], 0, 1, 3), "groups: 0, allowed are 1 to 16384");
    assert_eq!(error(&[1], 16_385, 1, 3), "groups: 16385, allowed are 1 to 16384");
    assert!(error(&[1, 1], 1, 1, 3).starts_with("two nodes have the same id"));
    assert!(error(&[1], 1, 2, 3).starts_with("node 1: 1 addresses"));
    assert_eq!(error(&[1], 1, 1, 0), "replication factor: 0, allowed are 1 to 64");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Topology::decode(&bytes);
    }

    /// One byte of a good text is another: it is refused, or it is another good text that says what it said.
    #[test]
    fn no_damage_panics_or_passes_for_something_else(place in 0..GOLDEN.len(), byte in any::<u8>()) {
        let mut bytes = GOLDEN.as_bytes().to_vec();
        bytes[place] = byte;
        if let Ok(topology) = Topology::decode(&bytes) {
            prop_assert_eq!(Topology::decode(&topology.encode()), Ok(topology));
        }
    }

    #[test]
    fn a_text_says_all_of_a_topology(
        numbers in prop::collection::btree_set(1_u64..1_000_000, 1..20), groups in 1_u32..40, factor in 1_u32..6,
        instance in any::<u64>(), change in 0..4_u8,
    ) {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        let topology = cluster(&numbers, groups, factor);
        let (first, new) = (NodeId(numbers[0]), NodeId(2_000_000));
        let next = match change {
            0 => topology.add(new, &addresses(2_000_000, 1), instance),
            1 => topology.replace(first, new, &addresses(numbers[0], 1), instance),
            2 if numbers.len() > 1 => topology.remove(first),
            _ => Ok(None),
        };
        let next = next.expect("allowed").unwrap_or(topology);
        let text = next.encode();
        let read = Topology::decode(&text);
        prop_assert_eq!(read.as_ref(), Ok(&next));
        prop_assert_eq!(next.encode(), text);
    }
}
