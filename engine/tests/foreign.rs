//! Frames nobody vouches for, to a production shard: it answers, breaks the connection or stops, and never panics.
//!
//! Off the data path.
//! The same, for hours and with coverage: `engine/fuzz`.
#![allow(clippy::unwrap_used)] // a test may panic

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use ringraft_engine::limits::Limits as StateLimits;
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::shard::{Shard, ShardSettings};
use ringraft_engine::topology::Topology;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{
    AdminRequest, Heartbeat, HeartbeatAnswer, HeartbeatAnswersRef, HeartbeatsRef, Operation, PeerBody, PeerMessage,
    Request,
};
use ringraft_raft::{Membership, NodeId};
use ringraft_wal::mem::MemDisk;
use ringraft_wal::{Config, Identity, ValidConfig};

fn wal_config() -> ValidConfig {
    let config = Config {
        segment_bytes: 1 << 20,
        batch_bytes_max: 64 << 10,
        record_bytes_max: 256 << 10,
        cache_bytes_max: 4 << 10,
        ..Config::default()
    };
    config.validate(Identity { cluster: [1; 16], node: 1, shard: 0 }).unwrap()
}

fn shard(peers: &[u64]) -> Shard<MemDisk> {
    let nodes = [1].iter().chain(peers).map(|node| (NodeId(*node), vec![format!("n{node}:1")]));
    let settings = ShardSettings {
        node: NodeId(1),
        shard: 0,
        shards: 1,
        groups: 2,
        initial: vec![Membership::new([1].iter().chain(peers).copied().map(NodeId).collect()); 2],
        topology: Arc::new(Topology::initial(nodes, 2, 1, 3).unwrap()),
        shared: Arc::default(),
        limits: Limits::CLIENT,
        waiting_max: 100,
        connections_max: 2,
        reply_bytes_max: 64 << 10,
        peer_queue_bytes_max: 1 << 20,
        disk_stall_ticks: 20,
        digest_ticks: 3,
        snapshots: ringraft_engine::shard::SnapshotSettings::default(),
        watches: ringraft_engine::shard::WatchSettings::default(),
        incarnation: 1,
        report_ticks: 20,
        leader_priority: 100,
        first_election_ticks: 2,
    };
    let consensus = ConsensusSettings {
        election_ticks_min: 4,
        election_ticks_max: 8,
        heartbeat_ticks: 1,
        append_bytes_max: 8 << 10,
        inflight_bytes_max: 16 << 10,
        uncommitted_bytes_max: 16 << 10,
        catch_up_bytes_per_tick: 0,
        entry_bytes_max: 1 << 10,
        catch_up_bytes: 1 << 10,
        tick_us: 10_000,
        lease_drift_percent: 100,
        seed: 1,
    };
    let disk = MemDisk::new(&wal_config(), 2);
    let recovered = disk.recover(&wal_config()).unwrap();
    let mut shard =
        Shard::restore(settings, &consensus, StateLimits::default(), wal_config(), (recovered, BTreeMap::new()), disk)
            .unwrap();
    (0..12).for_each(|_| turn(&mut shard, true));
    shard
}

fn turn(shard: &mut Shard<MemDisk>, tick: bool) {
    if tick {
        shard.tick();
    }
    while !shard.disk().pending().is_empty() {
        let completion = shard.disk().finish(0);
        shard.disk_done(completion);
    }
    shard.turn();
}

/// A frame whose checksums are right: a good body with some bytes changed, of any kind.
fn frame_of(kind: FrameKind, body: &[u8], edits: &[(prop::sample::Index, u8)], tail: &[u8]) -> Vec<u8> {
    let mut head = body.to_vec();
    for (at, byte) in edits.iter().filter(|_| !body.is_empty()) {
        head[at.index(body.len())] = *byte;
    }
    let mut bytes = Vec::new();
    let mut writer = frame::begin(&mut bytes, kind, 1);
    writer.bytes().extend_from_slice(&head);
    writer.end_head();
    writer.bytes().extend_from_slice(tail);
    writer.finish();
    bytes
}

fn bodies() -> Vec<(FrameKind, Vec<u8>)> {
    let mut request = Vec::new();
    let operations =
        vec![Operation::Put { key: b"k".to_vec(), value: vec![1; 40] }, Operation::Get { key: b"k".to_vec() }];
    Request { client: 1, sequence: 1, acknowledged: 1, operations, ..Request::default() }.append_to(&mut request);
    let mut found = vec![(FrameKind::Request, request)];
    for to in [0, 2, 9] {
        let mut framed = Vec::new();
        AdminRequest::Transfer { group: 1, to }.append_frame(&mut framed, 1);
        found.push((FrameKind::Admin, framed.split_off(frame::HEADER_BYTES)));
    }
    let bodies = [
        PeerBody::AppendEntries { prev_term: 0, prev_index: 0, leader_commit: 1, count: 1 },
        PeerBody::AppendAccepted { match_index: 1 },
        PeerBody::AppendRejected { prev_index: 1, conflict_term: 1, conflict_first_index: 1, last_index: 3 },
        PeerBody::RequestVote { last_term: 9, last_index: 9, forced: false },
        PeerBody::RequestVote { last_term: 9, last_index: 9, forced: true },
        PeerBody::TimeoutNow,
    ];
    for body in bodies {
        let mut bytes = Vec::new();
        PeerMessage { group: 1, term: 3, body }.append_to(&mut bytes);
        let appends = matches!(body, PeerBody::AppendEntries { .. });
        found.push((if appends { FrameKind::Append } else { FrameKind::Raft }, bytes));
    }
    let mut framed = Vec::new();
    let groups = [0, 1, 2].map(|group| Heartbeat { group, term: 3, leader_commit: 2, read_sequence: 1 });
    HeartbeatsRef { sent_us: 9, groups: &groups }.append_frame(&mut framed);
    found.push((FrameKind::Heartbeats, framed.split_off(frame::HEADER_BYTES)));
    let groups = [0, 1].map(|group| HeartbeatAnswer { group, term: 3, read_sequence: 1 });
    HeartbeatAnswersRef { sent_us: 9, shield_us: 9, groups: &groups }.append_frame(&mut framed);
    found.push((FrameKind::HeartbeatAnswers, framed.split_off(frame::HEADER_BYTES)));
    found
}

type Given = (prop::sample::Index, Option<FrameKind>, Vec<(prop::sample::Index, u8)>, Vec<u8>, bool);

fn given() -> impl Strategy<Value = Given> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    let kind = prop::option::weighted(0.2, prop::sample::select(FrameKind::ALL.to_vec()));
    (any::<prop::sample::Index>(), kind, edits, prop::collection::vec(any::<u8>(), 0..80), any::<bool>())
}

proptest! {
    #[test]
    fn any_frames_are_answered_or_end_the_connection(
        frames in prop::collection::vec(given(), 1..20),
        alone in any::<bool>(),
    ) {
        let mut shard = shard(if alone { &[] } else { &[2, 3] });
        let mut client = shard.clients().open().unwrap();
        let mut buffer = ReceiveBuffer::new();
        for (which, kind, edits, tail, to_peer) in frames {
            let bodies = bodies();
            let (own_kind, body) = which.get(&bodies);
            let tail = if kind.is_some() || *own_kind == FrameKind::Append { tail } else { Vec::new() };
            let bytes = frame_of(kind.unwrap_or(*own_kind), body, &edits, &tail);
            if to_peer && !alone {
                let _ = shard.peer_bytes(NodeId(2), &bytes);
            } else {
                buffer.extend(&bytes);
                if shard.client_bytes(client, &mut buffer).is_err() {
                    shard.clients().close(client);
                    client = shard.clients().open().unwrap();
                    buffer = ReceiveBuffer::new();
                }
            }
            if shard.fatal().is_some() {
                break;
            }
            turn(&mut shard, to_peer);
        }
    }
}
