//! Bounds of lists and texts in messages that are not on the data path: what is longer is no message.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use ringraft_net::frame::HEADER_BYTES;
use ringraft_net::limits::{
    ADDRESS_BYTES_MAX, NODES_MAX, SETTINGS_MAX, SHARDS_MAX, TEXT_BYTES_MAX, TOPOLOGY_BYTES_MAX,
};
use ringraft_net::slots::SLOTS;
use ringraft_net::wire::{
    self, AdminRefusal, AdminReply, AdminRequest, NodeInfo, RefusalCode, Refused, Topology, Welcome,
};

fn text(bytes: usize) -> String {
    "a".repeat(bytes)
}

fn request(request: &AdminRequest) -> Option<AdminRequest> {
    let mut bytes = Vec::new();
    request.append_frame(&mut bytes, 1);
    wire::view_admin_request(&bytes[HEADER_BYTES..]).ok()
}

fn reply(reply: &AdminReply) -> Option<AdminReply> {
    let mut bytes = Vec::new();
    reply.append_frame(&mut bytes, 1);
    wire::view_admin_reply(&bytes[HEADER_BYTES..]).ok()
}

#[test]
fn addresses_of_a_node() {
    let lists = [
        (vec![text(ADDRESS_BYTES_MAX); SHARDS_MAX], true),
        (vec![text(1); SHARDS_MAX + 1], false),
        (vec![text(ADDRESS_BYTES_MAX + 1)], false),
    ];
    for (addresses, allowed) in lists {
        let add = AdminRequest::AddNode { node: 4, addresses: addresses.clone(), instance: 5 };
        let replace = AdminRequest::ReplaceNode { old: 3, node: 4, addresses, instance: 5 };
        assert_eq!(request(&add), allowed.then_some(add));
        assert_eq!(request(&replace), allowed.then_some(replace));
    }
}

#[test]
fn texts_of_answers() {
    for (bytes, allowed) in [(TEXT_BYTES_MAX, true), (TEXT_BYTES_MAX + 1, false)] {
        let refused = AdminReply::Refused { code: AdminRefusal::NotAllowed, message: text(bytes) };
        assert_eq!(reply(&refused), allowed.then_some(refused));
        for pair in [(text(bytes), text(1)), (text(1), text(bytes))] {
            let shared = AdminReply::Topology { text: text(1), shared: vec![pair] };
            assert_eq!(reply(&shared), allowed.then_some(shared));
        }
        let refused = Refused { code: RefusalCode::Stopping, message: text(bytes) };
        let mut frame = Vec::new();
        refused.append_frame(&mut frame);
        assert_eq!(wire::view_refused(&frame[HEADER_BYTES..]).ok(), allowed.then_some(refused));
    }
    for (bytes, allowed) in [(TOPOLOGY_BYTES_MAX, true), (TOPOLOGY_BYTES_MAX + 1, false)] {
        let topology = AdminReply::Topology { text: text(bytes), shared: Vec::new() };
        assert_eq!(reply(&topology), allowed.then_some(topology));
    }
    for (count, allowed) in [(SETTINGS_MAX, true), (SETTINGS_MAX + 1, false)] {
        let topology = AdminReply::Topology { text: text(1), shared: vec![(text(3), text(20)); count] };
        assert_eq!(reply(&topology), allowed.then_some(topology));
    }
}

#[test]
fn nodes_of_a_welcome() {
    let nodes = |count: usize, addresses: Vec<String>| {
        (1..=count as u64).map(|node| NodeInfo { node, addresses: addresses.clone() }).collect::<Vec<_>>()
    };
    let slots = usize::from(SLOTS);
    let cases = [
        (nodes(NODES_MAX, vec![text(20)]), slots, true),
        (nodes(NODES_MAX + 1, vec![text(20)]), 1, false),
        (nodes(1, vec![text(20); SHARDS_MAX + 1]), 1, false),
        (nodes(1, vec![text(ADDRESS_BYTES_MAX + 1)]), 1, false),
        (nodes(1, vec![text(20)]), slots + 1, false),
    ];
    for (nodes, leaders, allowed) in cases {
        let topology = Topology { epoch: 1, groups: 1, shards: 1, nodes, leaders: vec![None; leaders] };
        let welcome = Welcome { cluster: [1; 16], node: 1, shard: 0, topology };
        let mut frame = Vec::new();
        welcome.append_frame(&mut frame);
        assert_eq!(wire::view_welcome(&frame[HEADER_BYTES..]).ok(), allowed.then_some(welcome));
    }
}

fn addresses() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-z0-9.]{0,30}:[0-9]{1,5}", 0..8)
}

fn requests() -> impl Strategy<Value = AdminRequest> {
    prop_oneof![
        (any::<u32>(), any::<u64>()).prop_map(|(group, to)| AdminRequest::Transfer { group, to }),
        any::<u32>().prop_map(|group| AdminRequest::Snapshot { group }),
        Just(AdminRequest::Topology),
        (any::<u64>(), addresses(), any::<u64>()).prop_map(|(node, addresses, instance)| AdminRequest::AddNode {
            node,
            addresses,
            instance
        }),
        any::<u64>().prop_map(|node| AdminRequest::RemoveNode { node }),
        (any::<u64>(), any::<u64>(), addresses(), any::<u64>()).prop_map(|(old, node, addresses, instance)| {
            AdminRequest::ReplaceNode { old, node, addresses, instance }
        }),
    ]
}

fn replies() -> impl Strategy<Value = AdminReply> {
    let shared = prop::collection::vec(("[a-z_]{0,20}", ".{0,40}"), 0..30);
    prop_oneof![
        (any::<u32>(), any::<u64>(), any::<u64>()).prop_map(|(group, leader, term)| AdminReply::Transferred {
            group,
            leader,
            term
        }),
        (any::<u32>(), any::<Option<u64>>()).prop_map(|(group, leader)| AdminReply::NotLeader { group, leader }),
        (any::<u32>(), any::<u16>()).prop_map(|(group, shard)| AdminReply::Moved { group, shard }),
        ".{0,80}".prop_map(|message| AdminReply::Refused { code: AdminRefusal::Failed, message }),
        (any::<u32>(), any::<u64>()).prop_map(|(group, index)| AdminReply::SnapshotTaken { group, index }),
        (".{0,200}", shared).prop_map(|(text, shared)| AdminReply::Topology { text, shared }),
    ]
}

proptest! {
    #[test]
    fn what_is_asked_and_answered_is_read_back(asked in requests(), answered in replies()) {
        prop_assert_eq!(request(&asked), Some(asked));
        prop_assert_eq!(reply(&answered), Some(answered));
    }
}
