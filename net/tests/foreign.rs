//! Bytes nobody vouches for, as the body of every message and as a handshake: an error or a message, no panic.
//!
//! Off the data path.
//! The same, for hours and with coverage: `net/fuzz`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::handshake::{Acceptor, Dialer, Identity};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{
    self, AdminRefusal, AdminReply, AdminRequest, Consistency, Hello, NodeInfo, Operation, OperationResult, Outcome,
    PeerBody, PeerMessage, Position, Reply, Request, Role, Topology, Welcome,
};

/// Reads the bytes as every message, and everything in it.
fn read_all(bytes: &[u8]) {
    if let Ok(request) = wire::view_request(bytes) {
        let _ = wire::validate_request(request, &Limits::CLIENT);
        let _ = wire::group_of_request(request, 5);
        let total: usize = request.operations().map(|operation| operation.payload_bytes()).sum();
        assert!(total <= bytes.len() * request.operations().len().max(1), "a view points into its bytes");
    }
    if let Ok(reply) = wire::view_reply(bytes) {
        let owned = reply.to_owned_reply();
        let mut again = Vec::new();
        owned.append_to(&mut again);
        assert_eq!(wire::view_reply(&again).unwrap().to_owned_reply(), owned);
    }
    let _ = (wire::view_peer_message(bytes), wire::view_digest(bytes));
    let _ = wire::view_heartbeats(bytes).map(|view| view.heartbeats().count());
    let _ = wire::view_heartbeat_answers(bytes).map(|view| view.answers().count());
    let _ = (wire::view_hello(bytes), wire::view_welcome(bytes), wire::view_refused(bytes));
    let _ = (wire::view_admin_request(bytes), wire::view_admin_reply(bytes));
}

/// One good message of each kind.
fn messages() -> Vec<Vec<u8>> {
    let key = || b"key".to_vec();
    let operations = vec![
        Operation::Put { key: key(), value: vec![7; 30] },
        Operation::Get { key: key() },
        Operation::CompareAndSet { key: key(), expected: Some(vec![1]), value: vec![2] },
        Operation::Delete { key: key() },
        Operation::OpenSession { group: 1 },
    ];
    let request = Request { client: 1, sequence: 2, acknowledged: 1, consistency: Consistency::Stale, operations };
    let results = vec![
        OperationResult::Value(Some(vec![9; 20])),
        OperationResult::Compared { swapped: false, current: Some(vec![1]) },
        OperationResult::Put { replaced: true },
    ];
    let position = Position { group: 1, index: 2, position: 3 };
    let replies = [
        Outcome::Done(results),
        Outcome::Moved { group: 1, node: 2, shard: 3, address: "127.0.0.1:7000".into() },
        Outcome::BadRequest { message: "no".into() },
    ];
    let body = PeerBody::AppendEntries { prev_term: 1, prev_index: 2, leader_commit: 3, count: 4 };
    let nodes = vec![NodeInfo { node: 1, addresses: vec!["127.0.0.1:7000".into()] }];
    let topology = Topology { epoch: 1, groups: 2, shards: 1, nodes, leaders: vec![Some(1), None] };
    let hello = Hello {
        cluster: [1; 16],
        protocol: wire::PROTOCOL_VERSION,
        role: Role::Peer,
        node: 1,
        shard: 0,
        to_node: 2,
        to_shard: 0,
        config_digest: 5,
    };
    let mut frames = vec![Vec::new()];
    request.append_frame(&mut frames[0], 1);
    for outcome in replies {
        frames.push(Vec::new());
        Reply { position, outcome, term: 4 }.append_frame(frames.last_mut().unwrap(), 1);
    }
    frames.extend([Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new()]);
    let at = frames.len() - 2;
    AdminRequest::Transfer { group: 1, to: 2 }.append_frame(&mut frames[at], 1);
    let message = String::from("node 2 has no vote in group 1");
    AdminReply::Refused { code: AdminRefusal::NotAVoter, message }.append_frame(&mut frames[at + 1], 1);
    PeerMessage { group: 1, term: 2, body }.append_frame(&mut frames[at - 3]);
    hello.append_frame(&mut frames[at - 2]);
    Welcome { cluster: [1; 16], node: 1, shard: 0, topology }.append_frame(&mut frames[at - 1]);
    frames.iter().map(|bytes| frame::parse(bytes, &Limits::PEER).unwrap().unwrap().head.to_vec()).collect()
}

fn framed(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = frame::begin(&mut bytes, kind, 0);
    writer.bytes().extend_from_slice(body);
    writer.finish();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        read_all(&bytes);
    }

    #[test]
    fn a_changed_message_is_a_message_or_an_error(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = messages().swap_remove(which.index(messages().len()));
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        read_all(&bytes);
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
            read_all(&bytes);
        }
    }

    #[test]
    fn any_first_frame_is_answered_or_refused(
        which in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        kind in prop::sample::select(FrameKind::ALL.to_vec()),
    ) {
        let mut body = messages().swap_remove(which.index(messages().len()));
        for (at, byte) in edits {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let identity = Identity { cluster: [1; 16], node: 2, shard: 0, config_digest: 5, members: vec![1, 2, 3], removed: vec![] };
        let bytes = framed(kind, &body);
        let mut answer = Vec::new();
        let accepted = Acceptor::new(&identity).receive(&bytes, Topology::default, &mut answer);
        prop_assert!(!matches!(accepted, Ok(None)), "a whole frame is enough");
        prop_assert!(!answer.is_empty(), "whoever dials is told");
        for dialer in [Dialer::peer(&identity, 1), Dialer::client([1; 16], 1, 0)] {
            prop_assert!(!matches!(dialer.receive(&bytes), Ok(None)), "a whole frame is enough");
        }
    }
}
