//! Golden bytes: every frame and archive, byte by byte. A change here is a change of the protocol.
//!
//! Off the data path.
//!
//! `REWRITE=1 cargo test -p ringraft-net --test golden` prints them; a change needs another version and its paragraph there.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/admin.rs"]
mod admin;
#[path = "golden/ranges.rs"]
mod ranges;
#[path = "golden/reports.rs"]
mod reports;

use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{
    self, Consistency, Digest, Heartbeat, HeartbeatAnswer, HeartbeatAnswersRef, HeartbeatsRef, Hello, NodeInfo,
    Operation, OperationResult, Outcome, PROTOCOL_VERSION, PeerBody, PeerMessage, Position, RefusalCode, Refused,
    Reply, Request, Role, SnapshotAnswer, SnapshotPiece, Topology, Welcome,
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Compares what `write` appends with the golden text, from which everything but hex digits is ignored.
fn check(name: &str, golden: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = Vec::new();
    write(&mut bytes);
    if std::env::var_os("REWRITE").is_some() {
        println!("{name}: {}", hex(&bytes));
        return;
    }
    let expected: String = golden
        .lines()
        .map(|line| line.split('#').next().unwrap_or(""))
        .collect::<String>()
        .split_whitespace()
        .collect();
    assert_eq!(hex(&bytes), expected, "{name}");
    let parsed = frame::parse(&bytes, &Limits::PEER).unwrap().unwrap();
    assert_eq!(parsed.total_bytes, bytes.len());
}

fn position() -> Position {
    Position { group: 3, index: 0x0102, position: 4 }
}

fn request(operations: Vec<Operation>) -> Request {
    Request { client: 0x11, sequence: 0x22, acknowledged: 0x21, consistency: Consistency::Linearizable, operations }
}

fn key() -> Vec<u8> {
    b"key".to_vec()
}

#[test]
fn requests() {
    let put = request(vec![Operation::Put { key: key(), value: b"value".to_vec() }]);
    check(
        "put",
        r"
            5252 01 04 43000000 00000000 0d0c0b0a 4f91460f 3973178c # magic version kind lengths correlation checksums
            6b6579 76616c7565 # the key, the value
            00 f7ffffff 03000000 f2ffffff 05000000 000000000000000000 # Put: key and value as (offset back, length), unused
            1100000000000000 2200000000000000 2100000000000000 00 # client sequence acknowledged consistency
            cdffffff 01000000 # the operations as (offset back, count)
        ",
        |out| _ = put.append_frame(out, 0x0A0B_0C0D),
    );
    let get = Request { consistency: Consistency::Stale, ..request(vec![Operation::Get { key: key() }]) };
    check(
        "stale get",
        r"
            5252 01 04 3e000000 00000000 01000000 084bd4c2 7bcf825c
            6b657901fcffffff03000000000000000000000000000000000000000011000000000000002200000000000000210000
            000000000001cdffffff01000000
        ",
        |out| _ = get.append_frame(out, 1),
    );
    let several = request(vec![
        Operation::Delete { key: key() },
        Operation::CompareAndSet { key: key(), expected: None, value: b"1".to_vec() },
        Operation::CompareAndSet { key: key(), expected: Some(b"1".to_vec()), value: b"22".to_vec() },
    ]);
    check(
        "several",
        r"
            5252 01 04 7c000000 00000000 02000000 a1a49bad 94a63256
            6b65796b6579316b657931323202f2ffffff03000000000000000000000000000000000000000003dbffffff03000000
            000000000000000000cdffffff0100000003c5ffffff0300000001bfffffff01000000b8ffffff020000001100000000
            000000220000000000000021000000000000000099ffffff03000000
        ",
        |out| _ = several.append_frame(out, 2),
    );
    let open = Request { operations: vec![Operation::OpenSession { group: 9 }], ..Request::default() };
    check(
        "open session",
        r"
            5252 01 04 3b000000 00000000 03000000 97142931 1d188c31
            040900000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000
            000000cdffffff01000000
        ",
        |out| _ = open.append_frame(out, 3),
    );
}

#[test]
fn kinds_of_reads() {
    let get = |consistency| Request { consistency, ..request(vec![Operation::Get { key: key() }]) };
    check(
        "lease get",
        r"
            5252 01 04 3e000000 00000000 01000000 21477bdb d487f40d
            6b657901fcffffff03000000000000000000000000000000000000000011000000000000002200000000000000210000
            000000000002cdffffff01000000
        ",
        |out| _ = get(Consistency::Lease).append_frame(out, 1),
    );
    check(
        "follower get",
        r"
            5252 01 04 3e000000 00000000 01000000 6991452f b1bf263d
            6b657901fcffffff03000000000000000000000000000000000000000011000000000000002200000000000000210000
            000000000003cdffffff01000000
        ",
        |out| _ = get(Consistency::Follower).append_frame(out, 1),
    );
    let bounded = Request { client: 0, sequence: 250, acknowledged: 0, ..get(Consistency::Stale) };
    check(
        "stale get, at most 250 ms old",
        r"
            5252 01 04 3e000000 00000000 01000000 715096c6 bd1e715f
            6b657901fcffffff0300000000000000000000000000000000000000000000000000000000fa00000000000000000000
            000000000001cdffffff01000000
        ",
        |out| _ = bounded.append_frame(out, 1),
    );
    let mut archive = Vec::new();
    bounded.append_to(&mut archive);
    assert_eq!(wire::view_request(&archive).unwrap().max_staleness_ms(), Some(250));
}

#[test]
fn replies() {
    let done = |results| Reply { position: position(), outcome: Outcome::Done(results), term: 0x0506 };
    let put = done(vec![OperationResult::Put { replaced: true }]);
    check(
        "put",
        r"
            5252 01 05 3a000000 00000000 0d0c0b0a d285e11d 9b6833c0
            00 01 000000000000000000 # Put: replaced, unused
            03000000 0201000000000000 04000000 # group index position
            00 e4ffffff 01000000 0000000000000000000000000000 # Done: the results as (offset back, count), unused
            0605000000000000 # term
        ",
        |out| _ = put.append_frame(out, 0x0A0B_0C0D),
    );
    let several = done(vec![
        OperationResult::Value(Some(b"value".to_vec())),
        OperationResult::Value(None),
        OperationResult::Deleted { existed: true },
        OperationResult::Compared { swapped: false, current: Some(b"c".to_vec()) },
        OperationResult::Session { client: 0x77 },
        OperationResult::NotApplied,
    ]);
    check(
        "several",
        r"
            5252 01 05 77000000 00000000 01000000 bb9a5b80 90f38f0b
            76616c7565630101f8ffffff050000000001000000000000000000000201000000000000000000030001dbffffff0100
            0000047700000000000000000005000000000000000000000300000002010000000000000400000000adffffff060000
            000000000000000000000000000000
            0605000000000000
        ",
        |out| _ = several.append_frame(out, 1),
    );
}

fn check_refusals(refusals: Vec<(&str, &str, Outcome)>) {
    for (name, golden, outcome) in refusals {
        check(name, golden, |out| _ = Reply { position: Position::default(), outcome, term: 0 }.append_frame(out, 1));
    }
}

#[test]
fn refusals_that_say_whom_to_ask() {
    check_refusals(vec![
        (
            "moved",
            r"
            5252 01 05 3c000000 00000000 01000000 af94b680 48b3cf09
            31302e302e302e323a37303031000000000000000000000000000000000103000000020000000000000001008d000000
            d4ffffff
            0000000000000000
        ",
            Outcome::Moved { group: 3, node: 2, shard: 1, address: String::from("10.0.0.2:7001") },
        ),
        (
            "not leader",
            r"
            5252 01 05 2f000000 00000000 01000000 dfd82ef6 766037f6
            000000000000000000000000000000000203000000010200000000000000000000000000000000
            0000000000000000
        ",
            Outcome::NotLeader { group: 3, leader: Some(2) },
        ),
        (
            "no leader",
            r"
            5252 01 05 2f000000 00000000 01000000 eacbe987 c4c1d709
            000000000000000000000000000000000203000000000000000000000000000000000000000000
            0000000000000000
        ",
            Outcome::NotLeader { group: 3, leader: None },
        ),
    ]);
}

#[test]
fn refusals() {
    check_refusals(vec![
        (
            "overloaded",
            r"
            5252 01 05 2f000000 00000000 01000000 9ba396d6 8f536ba4
            0000000000000000000000000000000003d0070000000000000000000000000000000000000000
            0000000000000000
        ",
            Outcome::Overloaded { retry_after_us: 2_000 },
        ),
        (
            "session expired",
            r"
            5252 01 05 2f000000 00000000 01000000 2e3d1baf 7d295d4e
            000000000000000000000000000000000400000000000000000000000000000000000000000000
            0000000000000000
        ",
            Outcome::SessionExpired,
        ),
        (
            "bad request",
            r"
            5252 01 05 2f000000 00000000 01000000 da7ddfd7 dafa4284
            000000000000000000000000000000000573686f7274ffffff0000000000000000000000000000
            0000000000000000
        ",
            Outcome::BadRequest { message: String::from("short") },
        ),
        (
            "outcome unknown",
            r"
            5252 01 05 2f000000 00000000 01000000 34fc555e 3b05d00d
            000000000000000000000000000000000600000000000000000000000000000000000000000000
            0000000000000000
        ",
            Outcome::OutcomeUnknown,
        ),
        (
            "unavailable",
            r"
            5252 01 05 40000000 00000000 01000000 6e4ed73f 9dc27934
            6c6f6e676572207468616e206569676874000000000000000000000000000000000791000000deffffff000000000000
            0000000000000000
            0000000000000000
        ",
            Outcome::Unavailable { message: String::from("longer than eight") },
        ),
        (
            "too stale",
            r"
            5252 01 05 2f000000 00000000 01000000 90566583 18b69fc2
            000000000000000000000000000000000800000000000000000000000000000000000000000000
            0000000000000000
        ",
            Outcome::TooStale,
        ),
    ]);
}

fn check_peer_messages(bodies: Vec<(&str, &str, PeerBody)>) {
    for (name, golden, body) in bodies {
        let message = PeerMessage { group: 3, term: 4, body };
        check(name, golden, |out| _ = message.append_frame(out));
        let mut bytes = Vec::new();
        message.append_to(&mut bytes);
        assert_eq!(wire::view_peer_message(&bytes), Ok(message));
    }
}

#[test]
fn votes() {
    check_peer_messages(vec![
        (
            "pre-vote",
            r"
            5252 01 06 2d000000 00000000 00000000 4efd1549 383c3307
            030000000400000000000000000500000000000000060000000000000000000000000000000000000000000000
        ",
            PeerBody::PreVote { last_term: 5, last_index: 6 },
        ),
        (
            "pre-vote response",
            r"
            5252 01 06 2d000000 00000000 00000000 7a812376 c1022df5
            030000000400000000000000010100000000000000000000000000000000000000000000000000000000000000
        ",
            PeerBody::PreVoteResponse { granted: true },
        ),
        (
            "request vote",
            r"
            5252 01 06 2d000000 00000000 00000000 eea66b0f 305e56cb
            030000000400000000000000020500000000000000060000000000000001000000000000000000000000000000
        ",
            PeerBody::RequestVote { last_term: 5, last_index: 6, forced: true },
        ),
        (
            "request vote response",
            r"
            5252 01 06 2d000000 00000000 00000000 ef07f7ff c82cc73d
            030000000400000000000000030000000000000000000000000000000000000000000000000000000000000000
        ",
            PeerBody::RequestVoteResponse { granted: false },
        ),
        (
            "timeout now",
            r"
            5252 01 06 2d000000 00000000 00000000 a2ddff92 537166ce
            030000000400000000000000070000000000000000000000000000000000000000000000000000000000000000
        ",
            PeerBody::TimeoutNow,
        ),
    ]);
}

#[test]
fn replication() {
    check_peer_messages(vec![
        (
            "append",
            r"
            5252 01 06 2d000000 00000000 00000000 c1efdab3 e1703bfe
            030000000400000000000000040500000000000000060000000000000007000000000000000800000000000000
        ",
            PeerBody::AppendEntries { prev_term: 5, prev_index: 6, leader_commit: 7, count: 8 },
        ),
        (
            "accepted",
            r"
            5252 01 06 2d000000 00000000 00000000 9eabf1f3 4bf4059d
            030000000400000000000000050900000000000000000000000000000000000000000000000000000000000000
        ",
            PeerBody::AppendAccepted { match_index: 9 },
        ),
        (
            "rejected",
            r"
            5252 01 06 2d000000 00000000 00000000 9fb9a807 54e51d05
            030000000400000000000000060500000000000000060000000000000007000000000000000800000000000000
        ",
            PeerBody::AppendRejected { prev_index: 5, conflict_term: 6, conflict_first_index: 7, last_index: 8 },
        ),
    ]);
}

#[test]
fn heartbeats() {
    let groups = [
        Heartbeat { group: 3, term: 4, leader_commit: 5, read_sequence: 6 },
        Heartbeat { group: 7, term: 8, leader_commit: 9, read_sequence: 0 },
    ];
    check(
        "heartbeats",
        r"
            5252 01 12 48000000 00000000 00000000 c98fe2c2 205344a6
            03000000 0400000000000000 0500000000000000 0600000000000000
            07000000 0800000000000000 0900000000000000 0000000000000000
            0a00000000000000 c0ffffff 02000000
        ",
        |out| _ = HeartbeatsRef { sent_us: 10, groups: &groups }.append_frame(out),
    );
    let answers = [
        HeartbeatAnswer { group: 3, term: 4, read_sequence: 6 },
        HeartbeatAnswer { group: 7, term: 8, read_sequence: 0 },
    ];
    check(
        "heartbeat answers",
        r"
            5252 01 13 40000000 00000000 00000000 808a6bd9 e7cddf37
            03000000 0400000000000000 0600000000000000
            07000000 0800000000000000 0000000000000000
            0a00000000000000 0b00000000000000 c8ffffff 02000000
        ",
        |out| {
            _ = HeartbeatAnswersRef { sent_us: 10, shield_us: 11, groups: &answers }.append_frame(out);
        },
    );
}

#[test]
fn questions_of_followers() {
    check_peer_messages(vec![
        (
            "read index",
            r"
            5252 01 06 2d000000 00000000 00000000 d4490493 fff19de5
            030000000400000000000000080500000000000000060000000000000000000000000000000000000000000000
        ",
            PeerBody::ReadIndex { incarnation: 5, question: 6 },
        ),
        (
            "read index response",
            r"
            5252 01 06 2d000000 00000000 00000000 c4d3fd55 5e9242af
            030000000400000000000000090500000000000000060000000000000007000000000000000100000000000000
        ",
            PeerBody::ReadIndexResponse { incarnation: 5, question: 6, index: 7, confirmed: true },
        ),
    ]);
}

#[test]
fn tails_and_digests() {
    let body = PeerBody::AppendEntries { prev_term: 5, prev_index: 6, leader_commit: 7, count: 1 };
    check(
        "append with records",
        r"
            5252 01 07 2d000000 07000000 00000000 3c96ddb8 6f839988
            030000000400000000000000040500000000000000060000000000000007000000000000000100000000000000726563
            6f726473
        ",
        |out| {
            let mut frame = wire::begin_append(out, &PeerMessage { group: 3, term: 4, body });
            frame.bytes().extend_from_slice(b"records");
            frame.finish();
        },
    );
    check(
        "digest",
        r"
            5252 01 08 14000000 00000000 00000000 bb889dca c2beb58c
            030000000400000000000000efcdab8967452301
        ",
        |out| _ = Digest { group: 3, index: 4, hash: 0x0123_4567_89AB_CDEF }.append_frame(out),
    );
    check(
        "snapshot",
        r"
            5252 01 0e 2c000000 05000000 00000000 d2db4b75 56be89ba
            03000000 0400000000000000 0200000000000000 0900000000000000 0010000000000000 0030000000000000
            6368756e6b
        ",
        |out| {
            let (last_term, last_index, offset, file_bytes) = (2, 9, 4096, 12288);
            let piece = SnapshotPiece { group: 3, term: 4, last_term, last_index, offset, file_bytes };
            let mut frame = wire::begin_snapshot_piece(out, &piece);
            frame.bytes().extend_from_slice(b"chunk");
            frame.finish();
        },
    );
    check(
        "snapshot answer",
        r"
            5252 01 0f 1c000000 00000000 00000000 7a6a4eb0 ba89a44c
            03000000 0400000000000000 0900000000000000 0020000000000000
        ",
        |out| _ = SnapshotAnswer { group: 3, term: 4, last_index: 9, next_offset: 8192 }.append_frame(out),
    );
}

#[test]
fn handshake() {
    let hello = Hello {
        cluster: *b"cluster-id-16-by",
        protocol: PROTOCOL_VERSION,
        role: Role::Peer,
        node: 2,
        shard: 3,
        to_node: 4,
        to_shard: 3,
        config_digest: 0x0123_4567_89AB_CDEF,
    };
    check(
        "hello",
        r"
            5252 01 01 2f000000 00000000 00000000 7dc4feb4 8ba3eab2
            636c75737465722d69642d31362d62790300000200000000000000030004000000000000000300efcdab8967452301
        ",
        |out| _ = hello.append_frame(out),
    );
    let mut bytes = Vec::new();
    hello.append_frame(&mut bytes);
    assert_eq!(wire::view_hello(&bytes[frame::HEADER_BYTES..]), Ok(hello));
    let addresses = vec![String::from("10.0.0.1:7000"), String::from("a:1")];
    let topology = Topology {
        epoch: 9,
        groups: 2,
        shards: 2,
        nodes: vec![NodeInfo { node: 1, addresses }],
        leaders: vec![Some(1), None],
    };
    let welcome = Welcome { cluster: *b"cluster-id-16-by", node: 1, shard: 1, topology };
    check(
        "welcome",
        r"
            5252 01 02 77000000 00000000 00000000 eb298c7d 3015f667
            31302e302e302e313a373030308d000000f3ffffff613a31ffffffffff0100000000000000e8ffffff02000000010100
            000000000000000000000000000000636c75737465722d69642d31362d62790100000000000000010009000000000000
            00020000000200b6ffffff01000000beffffff02000000
        ",
        |out| _ = welcome.append_frame(out),
    );
    let mut bytes = Vec::new();
    welcome.append_frame(&mut bytes);
    assert_eq!(wire::view_welcome(&bytes[frame::HEADER_BYTES..]), Ok(welcome));
    let refused = Refused { code: RefusalCode::Cluster, message: String::from("another cluster") };
    check(
        "refused",
        r"
            5252 01 03 18000000 00000000 00000000 f3d15911 ad2cb6a0
            616e6f7468657220636c7573746572028f000000f0ffffff
        ",
        |out| _ = refused.append_frame(out),
    );
}

#[test]
fn the_rest() {
    check(
        "status",
        r"
            5252 01 09 00000000 00000000 05000000 00000000 c4e9f68c
        ",
        |out| _ = wire::append_status(out, 5),
    );
    check(
        "status reply",
        r"
            5252 01 0a 07000000 00000000 05000000 6ad5f7cf 990b9128
            7b2261223a317d
        ",
        |out| _ = wire::append_status_reply(out, 5, "{\"a\":1}"),
    );
    check(
        "goodbye",
        r"
            5252 01 0b 00000000 00000000 00000000 00000000 30ae1e5b
        ",
        |out| _ = wire::append_goodbye(out),
    );
}

#[test]
fn numbers_of_the_kinds() {
    let numbers: Vec<u8> = FrameKind::ALL.iter().map(|&kind| kind as u8).collect();
    assert_eq!(numbers, (1..=22).collect::<Vec<u8>>());
}
