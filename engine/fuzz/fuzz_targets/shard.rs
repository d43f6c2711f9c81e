//! A production shard among clients and peers that send anything: it answers, breaks the connection or stops, never panics.
//!
//! Off the data path.
//! Frames have checksums that are right, so that what is in them is reached.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringraft_engine::limits::Limits as StateLimits;
use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::shard::restore::ConsensusSettings;
use ringraft_engine::shard::{Shard, ShardSettings};
use ringraft_engine::topology::Topology;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{
    self, AdminRequest, Consistency, Digest, Heartbeat, HeartbeatAnswer, HeartbeatAnswersRef, HeartbeatsRef, Operation,
    PeerBody, PeerMessage, Request,
};
use ringraft_raft::{Membership, NodeId};
use ringraft_wal::mem::MemDisk;
use ringraft_wal::{Config, Identity, Wal};

const STEPS_MAX: usize = 200;

fn wal_config() -> ringraft_wal::ValidConfig {
    let config = Config {
        block_bytes: 512,
        segment_bytes: 64 * 512,
        segments_max: 4,
        segments_ready: 1,
        batch_bytes_max: 4 * 512,
        record_bytes_max: 16 * 512,
        flushes_in_flight_max: 2,
        backlog_bytes_max: 64 << 10,
        cache_bytes_max: 1 << 10,
    };
    config.validate(Identity { cluster: [1; 16], node: 1, shard: 0 }).expect("valid")
}

fn shard() -> Shard<MemDisk> {
    let nodes = (1..=3).map(|node| (NodeId(node), vec![format!("n{node}:1")]));
    let topology = Topology::initial(nodes, 2, 1, 3).expect("valid");
    let settings = ShardSettings {
        node: NodeId(1),
        shard: 0,
        shards: 1,
        groups: 2,
        initial: vec![Membership::new((1..=3).map(NodeId).collect()); 2],
        topology: Arc::new(topology),
        shared: Arc::default(),
        limits: Limits::CLIENT,
        waiting_max: 20,
        connections_max: 2,
        reply_bytes_max: 4 << 10,
        peer_queue_bytes_max: 64 << 10,
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
        catch_up_bytes_per_tick: 64,
        uncommitted_bytes_max: 16 << 10,
        entry_bytes_max: 1 << 10,
        catch_up_bytes: 1 << 10,
        tick_us: 10_000,
        lease_drift_percent: 10,
        seed: 1,
    };
    let disk = MemDisk::new(&wal_config(), 2);
    let recovered = disk.recover(&wal_config()).expect("an empty log");
    Shard::restore(settings, &consensus, StateLimits::default(), wal_config(), (recovered, BTreeMap::new()), disk)
        .expect("settings")
}

fn request(input: &mut Unstructured<'_>) -> Result<Request> {
    let mut operations = Vec::new();
    for _ in 0..input.int_in_range(0..=3)? {
        let key = vec![b'k', input.int_in_range(0..=9)?];
        operations.push(match input.int_in_range(0..=4)? {
            0 => Operation::Get { key },
            1 => Operation::Delete { key },
            2 => Operation::OpenSession { group: input.int_in_range(0..=2)? },
            3 => Operation::CompareAndSet { key, expected: input.arbitrary()?, value: input.arbitrary()? },
            _ => Operation::Put { key, value: input.arbitrary()? },
        });
    }
    let kinds = [Consistency::Linearizable, Consistency::Stale, Consistency::Lease, Consistency::Follower];
    let consistency = *input.choose(&kinds)?;
    let client = if input.arbitrary()? { 0 } else { input.int_in_range(0..=0x3_0001)? };
    Ok(Request {
        client,
        sequence: input.int_in_range(0..=4)?,
        acknowledged: input.int_in_range(0..=4)?,
        consistency,
        operations,
    })
}

fn client_frame(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match input.int_in_range(0..=5)? {
        0..=2 => drop(request(input)?.append_frame(&mut bytes, input.arbitrary()?)),
        5 => {
            let transfer = AdminRequest::Transfer { group: input.int_in_range(0..=2)?, to: number(input)? };
            transfer.append_frame(&mut bytes, input.arbitrary()?);
        }
        3 => framed(*input.choose(&FrameKind::ALL)?, &input.arbitrary::<Vec<u8>>()?, &[], &mut bytes),
        _ => bytes = input.arbitrary()?,
    }
    Ok(bytes)
}

fn framed(kind: FrameKind, head: &[u8], tail: &[u8], bytes: &mut Vec<u8>) {
    let mut writer = frame::begin(bytes, kind, 0);
    writer.bytes().extend_from_slice(head);
    writer.end_head();
    writer.bytes().extend_from_slice(tail);
    writer.finish();
}

/// Small numbers meet the shard's own; large ones are the edge.
fn number(input: &mut Unstructured<'_>) -> Result<u64> {
    if input.ratio(1, 12)? { input.arbitrary() } else { input.int_in_range(0..=6) }
}

fn peer_message(input: &mut Unstructured<'_>, count: Option<u32>) -> Result<PeerMessage> {
    let prev = (number(input)?, number(input)?);
    let append =
        |leader_commit, count| PeerBody::AppendEntries { prev_term: prev.0, prev_index: prev.1, leader_commit, count };
    let body = match (count, input.int_in_range(0..=9)?) {
        (Some(count), _) => append(number(input)?, count),
        (None, 0) => append(number(input)?, 0),
        (None, 1) => PeerBody::PreVote { last_term: prev.0, last_index: prev.1 },
        (None, 2) => PeerBody::PreVoteResponse { granted: input.arbitrary()? },
        (None, 3) => PeerBody::RequestVote { last_term: prev.0, last_index: prev.1, forced: input.arbitrary()? },
        (None, 4) => PeerBody::RequestVoteResponse { granted: input.arbitrary()? },
        (None, 5) => PeerBody::AppendAccepted { match_index: prev.1 },
        (None, 6) => PeerBody::AppendRejected {
            prev_index: prev.1,
            conflict_term: prev.0,
            conflict_first_index: number(input)?,
            last_index: number(input)?,
        },
        (None, 7) => PeerBody::TimeoutNow,
        (None, 8) => PeerBody::ReadIndex { incarnation: number(input)?, question: number(input)? },
        (None, _) => PeerBody::ReadIndexResponse {
            incarnation: number(input)?,
            question: number(input)?,
            index: prev.1,
            confirmed: input.arbitrary()?,
        },
    };
    Ok(PeerMessage { group: input.int_in_range(0..=2)?, term: number(input)?, body })
}

/// Records as a leader sends them, written by a WAL of its own.
fn records(input: &mut Unstructured<'_>, count: u32, group: u32, first: u64) -> Result<Vec<u8>> {
    let mut disk = MemDisk::new(&wal_config(), 2);
    let recovered = disk.recover(&wal_config()).expect("an empty log");
    let mut wal = Wal::new(wal_config(), recovered, &mut disk);
    let mut bytes = Vec::new();
    for index in first..first + u64::from(count) {
        let mut payload = Vec::new();
        for _ in 0..input.int_in_range(0..=2)? {
            let mut archive = Vec::new();
            request(input)?.append_to(&mut archive);
            ringraft_engine::payload::push_request(&mut payload, &archive);
        }
        if input.ratio(1, 20)? {
            payload = input.arbitrary()?;
        }
        payload.truncate(4_000);
        let term = number(input)?;
        if wal.begin_entry(group, term, index, payload.len(), &mut disk).is_err() {
            break;
        }
        wal.put(&payload);
        let _ = wal.finish_entry(1);
        if let ringraft_wal::EntryBytes::Cached(record) = wal.entry_bytes(group, index) {
            bytes.extend_from_slice(record);
        }
    }
    Ok(bytes)
}

fn heartbeats(input: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let mut groups = Vec::new();
    for _ in 0..input.int_in_range(1..=4)? {
        groups.push(Heartbeat {
            group: input.int_in_range(0..=2)?,
            term: number(input)?,
            leader_commit: number(input)?,
            read_sequence: number(input)?,
        });
    }
    HeartbeatsRef { sent_us: number(input)?, groups: &groups }.append_frame(bytes);
    Ok(())
}

fn heartbeat_answers(input: &mut Unstructured<'_>, bytes: &mut Vec<u8>) -> Result<()> {
    let mut groups = Vec::new();
    for _ in 0..input.int_in_range(1..=4)? {
        let (group, term, read_sequence) = (input.int_in_range(0..=2)?, number(input)?, number(input)?);
        groups.push(HeartbeatAnswer { group, term, read_sequence });
    }
    HeartbeatAnswersRef { sent_us: number(input)?, shield_us: number(input)?, groups: &groups }.append_frame(bytes);
    Ok(())
}

fn peer_frame(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match input.int_in_range(0..=11)? {
        10 => heartbeats(input, &mut bytes)?,
        11 => heartbeat_answers(input, &mut bytes)?,
        0..=4 => drop(peer_message(input, None)?.append_frame(&mut bytes)),
        5..=7 => {
            let count = input.int_in_range(0..=3)?;
            let message = peer_message(input, Some(count))?;
            let PeerBody::AppendEntries { prev_index, .. } = message.body else { return Ok(bytes) };
            let tail = match prev_index.checked_add(4) {
                Some(_) => records(input, count, message.group, prev_index + 1)?,
                None => Vec::new(),
            };
            let mut writer = wire::begin_append(&mut bytes, &message);
            writer.bytes().extend_from_slice(&tail);
            writer.finish();
        }
        8 => {
            let digest = Digest { group: input.int_in_range(0..=2)?, index: number(input)?, hash: number(input)? };
            digest.append_frame(&mut bytes);
        }
        _ => framed(
            *input.choose(&FrameKind::ALL)?,
            &input.arbitrary::<Vec<u8>>()?,
            &input.arbitrary::<Vec<u8>>()?,
            &mut bytes,
        ),
    }
    Ok(bytes)
}

struct World {
    shard: Shard<MemDisk>,
    client: ConnectionId,
    buffer: ReceiveBuffer,
}

impl World {
    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=7)? {
            0 | 1 => {
                self.buffer.extend(&client_frame(input)?);
                if self.shard.client_bytes(self.client, &mut self.buffer).is_err() {
                    self.reconnect();
                }
            }
            2 | 3 => {
                let bytes = peer_frame(input)?;
                let from = NodeId(input.int_in_range(2..=3)?);
                if let Ok(taken) = self.shard.peer_bytes(from, &bytes) {
                    assert!(taken <= bytes.len());
                }
            }
            4 => (0..input.int_in_range(1..=9)?).for_each(|_| self.shard.tick()),
            5 => self.shard.peer_connected(NodeId(input.int_in_range(2..=3)?)),
            6 => self.shard.peer_disconnected(NodeId(input.int_in_range(2..=3)?)),
            _ => {
                let pending = self.shard.disk().pending().len();
                if pending > 0 {
                    let completion = self.shard.disk().finish(input.choose_index(pending)?);
                    self.shard.disk_done(completion);
                }
            }
        }
        self.shard.turn();
        while let Some(node) = self.shard.peers().next_dirty() {
            if let Some(bytes) = self.shard.peers().take_outgoing(node) {
                self.shard.peers().give_back(node, bytes);
            }
        }
        while let Some(id) = self.shard.clients().next_dirty() {
            self.shard.clients().take_outgoing(id, &mut Vec::new());
        }
        Ok(())
    }

    fn reconnect(&mut self) {
        self.shard.clients().close(self.client);
        self.client = self.shard.clients().open().expect("there is room for one");
        self.buffer = ReceiveBuffer::new();
    }
}

fuzz_target!(|data: &[u8]| {
    let mut shard = shard();
    let client = shard.clients().open().expect("room");
    let mut world = World { shard, client, buffer: ReceiveBuffer::new() };
    let mut input = Unstructured::new(data);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || world.shard.fatal().is_some() || world.step(&mut input).is_err() {
            break;
        }
    }
    let _ = world.shard.status();
});
