//! The handshake's matrix: every mismatch is a clear error on both sides.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use ringraft_net::frame;
use ringraft_net::handshake::{ANY_CLUSTER, ANY_NODE, ANY_SHARD, Accepted, Acceptor, Dialer, HandshakeError, Identity};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, Hello, NodeInfo, PROTOCOL_VERSION, RefusalCode, Refused, Role, Topology, Welcome};

fn identity(node: u64) -> Identity {
    Identity { cluster: [0xA1; 16], node, shard: 2, config_digest: 0xD16, members: vec![1, 2, 3], removed: vec![] }
}

fn topology() -> Topology {
    let nodes = (1..=3).map(|node| NodeInfo { node, addresses: vec![format!("127.0.0.1:{node}")] }).collect();
    Topology { epoch: 1, groups: 4, shards: 1, nodes, leaders: vec![Some(1), None, Some(3), Some(2)] }
}

type Sides = (Result<Accepted, HandshakeError>, Result<Welcome, HandshakeError>);

/// Both sides of one handshake, byte by byte.
fn shake(dialer: &Dialer, accepting: &Identity) -> Sides {
    let mut hello = Vec::new();
    dialer.start(&mut hello);
    let acceptor = Acceptor::new(accepting);
    let mut answer = Vec::new();
    for end in 0..hello.len() {
        assert_eq!(acceptor.receive(&hello[..end], topology, &mut answer), Ok(None));
    }
    hello.extend_from_slice(b"what follows");
    let accepted = acceptor.receive(&hello, topology, &mut answer).map(|accepted| accepted.unwrap());
    for end in 0..answer.len() {
        assert_eq!(dialer.receive(&answer[..end]), Ok(None));
    }
    let bytes = answer.len();
    answer.extend_from_slice(b"what follows");
    let welcomed = dialer.receive(&answer).map(|welcomed| {
        let (welcome, consumed) = welcomed.unwrap();
        assert_eq!(consumed, bytes);
        welcome
    });
    (accepted, welcomed)
}

/// Both sides must fail, with this code and a text that has all of `parts`.
fn assert_refused(sides: Sides, code: RefusalCode, parts: &[&str]) {
    let (Err(HandshakeError::Mismatch(accepting)), Err(HandshakeError::Refused(dialing))) = sides else {
        panic!("{sides:?}");
    };
    assert_eq!(accepting, dialing, "both sides say the same");
    assert_eq!(accepting.code, code);
    for part in parts {
        assert!(accepting.message.contains(part), "{part:?} is not in {:?}", accepting.message);
    }
    assert!(HandshakeError::Refused(dialing).is_fatal());
}

#[test]
fn peers_that_agree() {
    let (accepted, welcomed) = shake(&Dialer::peer(&identity(1), 2), &identity(2));
    let hello = accepted.unwrap().hello;
    assert_eq!((hello.role, hello.node, hello.to_node), (Role::Peer, 1, 2));
    let welcome = welcomed.unwrap();
    assert_eq!((welcome.node, welcome.shard, welcome.cluster), (2, 2, [0xA1; 16]));
    assert_eq!(welcome.topology, topology());
}

#[test]
fn clients_may_leave_things_open() {
    for (cluster, node, shard) in [
        (ANY_CLUSTER, ANY_NODE, ANY_SHARD),
        ([0xA1; 16], ANY_NODE, ANY_SHARD),
        (ANY_CLUSTER, 2, ANY_SHARD),
        (ANY_CLUSTER, ANY_NODE, 2),
        ([0xA1; 16], 2, 2),
    ] {
        let (accepted, welcomed) = shake(&Dialer::client(cluster, node, shard), &identity(2));
        assert_eq!(accepted.unwrap().hello.role, Role::Client);
        welcomed.unwrap();
    }
}

#[test]
fn another_cluster() {
    let parts = ["a1a1a1a1", "b2b2b2b2", "check the address"];
    let dialer = Dialer::client([0xB2; 16], ANY_NODE, ANY_SHARD);
    assert_refused(shake(&dialer, &identity(2)), RefusalCode::Cluster, &parts);
    let other = Identity { cluster: [0xB2; 16], ..identity(1) };
    assert_refused(shake(&Dialer::peer(&other, 2), &identity(2)), RefusalCode::Cluster, &parts);
}

#[test]
fn a_peer_may_not_leave_the_cluster_open() {
    let open = Identity { cluster: ANY_CLUSTER, ..identity(1) };
    assert_refused(shake(&Dialer::peer(&open, 2), &identity(2)), RefusalCode::Cluster, &["a1a1", "0000"]);
}

#[test]
fn another_node_or_shard_than_was_dialed() {
    let parts = ["node 2", "node 3", "addresses"];
    assert_refused(shake(&Dialer::peer(&identity(1), 3), &identity(2)), RefusalCode::Node, &parts);
    assert_refused(shake(&Dialer::client(ANY_CLUSTER, 3, ANY_SHARD), &identity(2)), RefusalCode::Node, &parts);
    let parts = ["shard 2", "shard 5", "ports"];
    assert_refused(shake(&Dialer::client(ANY_CLUSTER, ANY_NODE, 5), &identity(2)), RefusalCode::Shard, &parts);
    let other = Identity { shard: 5, ..identity(1) };
    assert_refused(shake(&Dialer::peer(&other, 2), &identity(2)), RefusalCode::Shard, &parts);
}

#[test]
fn a_peer_that_is_no_other_member() {
    let stranger = identity(9);
    assert_refused(shake(&Dialer::peer(&stranger, 2), &identity(2)), RefusalCode::NotMember, &["node 9", "[1, 2, 3]"]);
    assert_refused(shake(&Dialer::peer(&identity(2), 2), &identity(2)), RefusalCode::NotMember, &["node 2"]);
    let alone = Identity { members: Vec::new(), removed: vec![7], ..identity(2) };
    assert!(shake(&Dialer::peer(&stranger, 2), &alone).0.is_ok(), "who reaches nobody takes whom it does not know");
    assert_refused(shake(&Dialer::peer(&identity(2), 2), &alone), RefusalCode::NotMember, &["node 2"]);
    assert_refused(shake(&Dialer::peer(&identity(7), 2), &alone), RefusalCode::Removed, &["node 7"]);
}

#[test]
fn a_peer_that_was_removed() {
    let here = Identity { removed: vec![1, 7], members: vec![2, 3], ..identity(2) };
    assert_refused(
        shake(&Dialer::peer(&identity(1), 2), &here),
        RefusalCode::Removed,
        &["node 1 was removed", "new id"],
    );
    assert_refused(shake(&Dialer::peer(&identity(9), 2), &here), RefusalCode::NotMember, &["node 9"]);
}

#[test]
fn a_peer_with_another_configuration() {
    let other = Identity { config_digest: 0xBAD, ..identity(1) };
    let parts = ["0000000000000d16", "0000000000000bad", "the same on every node"];
    assert_refused(shake(&Dialer::peer(&other, 2), &identity(2)), RefusalCode::Config, &parts);
}

fn hello() -> Hello {
    Hello {
        cluster: [0xA1; 16],
        protocol: PROTOCOL_VERSION,
        role: Role::Client,
        node: 0,
        shard: 0,
        to_node: ANY_NODE,
        to_shard: ANY_SHARD,
        config_digest: 0,
    }
}

#[test]
fn another_protocol_version() {
    let (mut bytes, mut answer) = (Vec::new(), Vec::new());
    Hello { protocol: 77, ..hello() }.append_frame(&mut bytes);
    let error = Acceptor::new(&identity(2)).receive(&bytes, topology, &mut answer).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&format!("version {PROTOCOL_VERSION},")) && text.contains("77") && text.contains("same release"),
        "{text}"
    );
    let refused = frame::parse(&answer, &Limits::HANDSHAKE).unwrap().unwrap();
    assert_eq!(wire::view_refused(refused.head).unwrap().code, RefusalCode::Protocol);
}

#[test]
fn something_else_than_hello_is_answered_before_the_connection_is_closed() {
    let mut goodbye = Vec::new();
    wire::append_goodbye(&mut goodbye);
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &goodbye] {
        let mut answer = Vec::new();
        Acceptor::new(&identity(2)).receive(bytes, topology, &mut answer).unwrap_err();
        let refused = frame::parse(&answer, &Limits::HANDSHAKE).unwrap().unwrap();
        assert_eq!(wire::view_refused(refused.head).unwrap().code, RefusalCode::NotHello);
    }
}

#[test]
fn a_dialer_checks_whom_it_reached() {
    let welcome = |cluster, node, shard| {
        let mut bytes = Vec::new();
        Welcome { cluster, node, shard, topology: topology() }.append_frame(&mut bytes);
        bytes
    };
    let dialer = Dialer::client([0xA1; 16], 2, 2);
    let code = |bytes: &[u8]| match dialer.receive(bytes) {
        Err(HandshakeError::Mismatch(Refused { code, .. })) => Some(code),
        Ok(Some(_)) => None,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(&welcome([0xA1; 16], 2, 2)), None);
    assert_eq!(code(&welcome([0xB2; 16], 2, 2)), Some(RefusalCode::Cluster));
    assert_eq!(code(&welcome([0xA1; 16], 3, 2)), Some(RefusalCode::Node));
    assert_eq!(code(&welcome([0xA1; 16], 2, 3)), Some(RefusalCode::Shard));
    let mut goodbye = Vec::new();
    wire::append_goodbye(&mut goodbye);
    assert_eq!(code(&goodbye), Some(RefusalCode::NotHello));
}

#[test]
fn stopping_and_full_nodes_may_be_asked_again() {
    for (code, retryable) in [
        (RefusalCode::Stopping, true),
        (RefusalCode::TooManyConnections, true),
        (RefusalCode::Cluster, false),
        (RefusalCode::Config, false),
    ] {
        let mut bytes = Vec::new();
        Refused { code, message: String::from("x") }.append_frame(&mut bytes);
        let error = Dialer::peer(&identity(1), 2).receive(&bytes).unwrap_err();
        assert_eq!(error.is_retryable(), retryable, "{code:?}");
    }
}
