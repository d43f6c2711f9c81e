//! Bounds of lists and texts in messages that are not on the data path: what is longer is no message.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use ringraft_net::frame::HEADER_BYTES;
use ringraft_net::limits::{
    ADDRESS_BYTES_MAX, KEY_BYTES_MAX, Limits, NODES_MAX, SETTINGS_MAX, SHARDS_MAX, TEXT_BYTES_MAX, TOPOLOGY_BYTES_MAX,
    VALUE_BYTES_MAX,
};
use ringraft_net::slots::SLOTS;
use ringraft_net::wire::{
    self, AdminRefusal, AdminReply, AdminRequest, NodeInfo, Operation, OperationRef, RefusalCode, Refused, Request,
    RequestClass, RequestError, Topology, WatchEnd, WatchEvent, WatchRequest, Welcome,
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
        let changed = AdminReply::Reloaded { changed: vec![(text(3), text(20)); count], restart: Vec::new() };
        assert_eq!(reply(&changed), allowed.then_some(changed));
        let restart = AdminReply::Reloaded { changed: Vec::new(), restart: vec![text(20); count] };
        assert_eq!(reply(&restart), allowed.then_some(restart));
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

#[test]
fn watches_and_ranges() {
    for (bytes, allowed) in [(KEY_BYTES_MAX, true), (KEY_BYTES_MAX + 1, false)] {
        let watch = WatchRequest { group: 1, from: 2, prefix: vec![b'a'; bytes] };
        let mut frame = Vec::new();
        watch.append_frame(&mut frame, 1);
        assert_eq!(wire::view_watch_request(&frame[HEADER_BYTES..]).ok(), allowed.then_some(watch));
    }
    for (bytes, allowed) in [(TEXT_BYTES_MAX, true), (TEXT_BYTES_MAX + 1, false)] {
        let ended = WatchEvent::Ended { group: 1, end: WatchEnd::NotHere, index: 0, message: text(bytes) };
        let mut frame = Vec::new();
        ended.as_event_ref().append_frame(&mut frame, 1);
        assert_eq!(wire::view_watch_event(&frame[HEADER_BYTES..]).ok(), allowed.then_some(ended));
    }
    let validate = |operations: Vec<Operation>| {
        let mut archive = Vec::new();
        Request { operations, ..Request::default() }.append_to(&mut archive);
        wire::validate_request(wire::view_request(&archive).unwrap(), &Limits::CLIENT)
    };
    let range = |start: usize, end: usize| {
        let (start, end) = (vec![1; start], vec![1; end]);
        Operation::Range { group: 0, start, end, limit: 0, keys_only: false }
    };
    let (longest, longer) = (KEY_BYTES_MAX + 1, KEY_BYTES_MAX + 2);
    assert_eq!(validate(vec![range(longest, longest)]), Ok(RequestClass::Read));
    let too_long = Err(RequestError::BoundLength { bytes: longer, bytes_max: longest });
    assert_eq!([validate(vec![range(longer, 0)]), validate(vec![range(0, longer)])], [too_long; 2]);
    assert_eq!(validate(vec![range(0, 0), range(0, 0)]), Err(RequestError::RangeNotAlone));
    let compare = |value| Operation::CompareVersion { key: vec![1], version: 0, value };
    assert_eq!(validate(vec![compare(None), compare(Some(vec![1; VALUE_BYTES_MAX]))]), Ok(RequestClass::Write));
    assert!(validate(vec![compare(Some(vec![1; VALUE_BYTES_MAX + 1]))]).is_err());
    let nowhere = RequestError::NoSuchGroup { group: 4, groups: 4 };
    let operation = OperationRef::Range { group: 4, start: b"", end: b"", limit: 0, keys_only: false };
    assert_eq!(wire::group_of_operations([operation], 4), Err(nowhere));
}

fn addresses() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("[a-z0-9.]{0,30}:[0-9]{1,5}", 0..8)
}

fn requests() -> impl Strategy<Value = AdminRequest> {
    prop_oneof![
        (any::<u32>(), any::<u64>()).prop_map(|(group, to)| AdminRequest::Transfer { group, to }),
        any::<u32>().prop_map(|group| AdminRequest::Snapshot { group }),
        Just(AdminRequest::Topology),
        Just(AdminRequest::Reload),
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
    let settings = || prop::collection::vec(("[a-z_]{0,20}", ".{0,40}"), 0..30);
    let keys = prop::collection::vec("[a-z_]{0,20}", 0..30);
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
        (".{0,200}", settings()).prop_map(|(text, shared)| AdminReply::Topology { text, shared }),
        (settings(), keys).prop_map(|(changed, restart)| AdminReply::Reloaded { changed, restart }),
    ]
}

proptest! {
    #[test]
    fn what_is_asked_and_answered_is_read_back(asked in requests(), answered in replies()) {
        prop_assert_eq!(request(&asked), Some(asked));
        prop_assert_eq!(reply(&answered), Some(answered));
    }
}
