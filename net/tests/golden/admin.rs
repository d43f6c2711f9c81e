//! Golden bytes of what an operator asks and is answered.
//!
//! Off the data path.

use ringraft_net::frame;
use ringraft_net::wire::{self, AdminRefusal, AdminReply, AdminRequest};

use super::check;

#[test]
fn questions() {
    let addresses = || vec![String::from("a:7000"), String::from("10.0.0.4:7001")];
    let requests = [
        (
            "transfer",
            r"
                5252 01 0c 21000000 00000000 05000000 3d4e729c 28ac3d70
                00 03000000 0200000000000000 0000000000000000000000000000000000000000 # Transfer: group, to, unused
            ",
            AdminRequest::Transfer { group: 3, to: 2 },
        ),
        (
            "snapshot",
            r"
                5252 01 0c 21000000 00000000 05000000 8b058c87 1c7c15f4
                01 03000000 00000000000000000000000000000000000000000000000000000000 # Snapshot: group, unused
            ",
            AdminRequest::Snapshot { group: 3 },
        ),
        (
            "topology",
            r"
                5252 01 0c 21000000 00000000 05000000 a7092c2f cf5403a4
                02 0000000000000000000000000000000000000000000000000000000000000000 # Topology, unused
            ",
            AdminRequest::Topology,
        ),
        (
            "reload",
            r"
                5252 01 0c 21000000 00000000 05000000 ead32442 5409a257
                06 0000000000000000000000000000000000000000000000000000000000000000 # Reload, unused
            ",
            AdminRequest::Reload,
        ),
        (
            "add node",
            r"
                5252 01 0c 3e000000 00000000 05000000 ee1f2451 f9aa7c8f
                31302e302e302e343a37303031613a37303030ffff8d000000ebffffff
                03 0400000000000000 e7ffffff02000000 0500000000000000 0000000000000000 # AddNode: node, addresses, instance, unused
            ",
            AdminRequest::AddNode { node: 4, addresses: addresses(), instance: 5 },
        ),
        (
            "remove node",
            r"
                5252 01 0c 21000000 00000000 05000000 98c6cd00 1172b663
                04 0400000000000000 000000000000000000000000000000000000000000000000 # RemoveNode: node, unused
            ",
            AdminRequest::RemoveNode { node: 4 },
        ),
        (
            "replace node",
            r"
                5252 01 0c 3e000000 00000000 05000000 57c5cb25 e6ff66a9
                31302e302e302e343a37303031613a37303030ffff8d000000ebffffff
                05 0300000000000000 0400000000000000 dfffffff02000000 0500000000000000 # ReplaceNode: old, node, addresses, instance
            ",
            AdminRequest::ReplaceNode { old: 3, node: 4, addresses: addresses(), instance: 5 },
        ),
    ];
    for (name, golden, request) in requests {
        check(name, golden, |out| _ = request.append_frame(out, 5));
        let mut bytes = Vec::new();
        request.append_frame(&mut bytes, 5);
        assert_eq!(wire::view_admin_request(&bytes[frame::HEADER_BYTES..]), Ok(request));
    }
}

#[test]
fn answers() {
    let message = String::from("node 2 has no vote");
    let replies = [
        (
            "transferred",
            r"
            5252 01 0d 15000000 00000000 05000000 36977757 7d1d0de1
            00 03000000 0200000000000000 0400000000000000
        ",
            AdminReply::Transferred { group: 3, leader: 2, term: 4 },
        ),
        (
            "not leader",
            r"
            5252 01 0d 15000000 00000000 05000000 47f285a7 d871a024
            01 03000000 010200000000000000 00000000000000
        ",
            AdminReply::NotLeader { group: 3, leader: Some(2) },
        ),
        (
            "moved",
            r"
            5252 01 0d 15000000 00000000 05000000 728e867f 40c26721
            02 03000000 0100 0000000000000000000000000000
        ",
            AdminReply::Moved { group: 3, shard: 1 },
        ),
        (
            "not done",
            r"
            5252 01 0d 27000000 00000000 05000000 5f1db841 8f865a44
            6e6f6465203220686173206e6f20766f7465
            03 03 92000000ecffffff 0000000000000000000000
        ",
            AdminReply::Refused { code: AdminRefusal::NotAVoter, message },
        ),
    ];
    check_answers(&replies);
}

#[test]
fn answers_about_nodes_and_snapshots() {
    let shared = vec![(String::from("groups"), String::from("4")), (String::from("cluster_id"), String::from("00ff"))];
    let replies = [
        (
            "not allowed",
            r"
                5252 01 0d 15000000 00000000 05000000 f2962a80 fea09fc1
                03 08 ffffffffffffffff 0000000000000000000000 # Refused: code, message, unused
            ",
            AdminReply::Refused { code: AdminRefusal::NotAllowed, message: String::new() },
        ),
        (
            "failed",
            r"
                5252 01 0d 15000000 00000000 05000000 4f6169b7 7062d07b
                03 09 ffffffffffffffff 0000000000000000000000 # Refused: code, message, unused
            ",
            AdminReply::Refused { code: AdminRefusal::Failed, message: String::new() },
        ),
        (
            "snapshot taken",
            r"
                5252 01 0d 15000000 00000000 05000000 ee1fcd25 2e2f2225
                04 03000000 0201000000000000 0000000000000000 # SnapshotTaken: group, index, unused
            ",
            AdminReply::SnapshotTaken { group: 3, index: 0x0102 },
        ),
        (
            "topology told",
            r"
                5252 01 0d 4a000000 00000000 05000000 bfae7b9f 2a82371c
                7b2265706f6368223a317d636c75737465725f696467726f757073ffff34ffffffffffffff8a000000e6ffffff30306666ffffffff
                05 8b000000caffffff d7ffffff02000000 00000000 # Topology: text, settings, unused
            ",
            AdminReply::Topology { text: String::from("{\"epoch\":1}"), shared },
        ),
        (
            "reloaded",
            r"
                5252 01 0d 36000000 00000000 05000000 369a6416 f6e34565
                6469676573745f6d7389000000f7ffffff353030ffffffffff67726f757073ffff
                06 e7ffffff01000000 efffffff01000000 00000000 # Reloaded: changed, restart, unused
            ",
            AdminReply::Reloaded {
                changed: vec![(String::from("digest_ms"), String::from("500"))],
                restart: vec![String::from("groups")],
            },
        ),
    ];
    check_answers(&replies);
}

fn check_answers(replies: &[(&str, &str, AdminReply)]) {
    for (name, golden, reply) in replies {
        check(name, golden, |out| _ = reply.append_frame(out, 5));
        let mut bytes = Vec::new();
        reply.append_frame(&mut bytes, 5);
        assert_eq!(wire::view_admin_reply(&bytes[frame::HEADER_BYTES..]).as_ref(), Ok(reply));
    }
}
