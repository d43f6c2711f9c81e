//! What the core costs: one write at the leader, one at a follower, one read round, one tick.
//!
//! Off the data path; measurements only. The core must stay far below a microsecond per event, so that batching, disk
//! and network are all that is left.
//!
//! Deliberately absent: bytes; nothing here copies a payload.

use criterion::{Criterion, criterion_group, criterion_main};
use ringraft_raft::{
    AppendResult, Config, EntryId, EntryMeta, HardState, IncomingEntries, LogTerms, Membership, Memberships, Message,
    NodeId, RaftCore, Ready,
};
use std::hint::black_box;

const PEERS: [NodeId; 2] = [NodeId(2), NodeId(3)];

fn core() -> RaftCore {
    let config = Config::new(NodeId(1), 7).validate().expect("valid");
    let membership = Membership::new(vec![NodeId(1), PEERS[0], PEERS[1]]);
    RaftCore::new(config, Memberships::new(membership), HardState::default(), LogTerms::new())
}

fn accepted(match_index: u64) -> Message {
    Message::AppendEntriesResponse { term: 1, result: AppendResult::Accepted { match_index } }
}

fn leader() -> (RaftCore, Ready) {
    let (mut core, mut ready) = (core(), Ready::new());
    core.campaign();
    core.step(PEERS[0], Message::PreVoteResponse { term: 1, granted: true });
    core.ready(&mut ready);
    core.hard_state_durable(ready.hard_state.expect("a vote"));
    core.step(PEERS[0], Message::RequestVoteResponse { term: 1, granted: true });
    core.ready(&mut ready);
    core.durable(core.last());
    PEERS.into_iter().for_each(|peer| core.step(peer, accepted(1)));
    core.ready(&mut ready);
    assert_eq!(core.commit_index(), 1);
    (core, ready)
}

fn leader_write(criterion: &mut Criterion) {
    let (mut core, mut ready) = leader();
    criterion.bench_function("leader: propose, send, flush, two answers, commit", |bencher| {
        bencher.iter(|| {
            let entry = core.propose(4096).expect("room");
            black_box(core.ready(&mut ready));
            core.durable(entry);
            core.step(PEERS[0], accepted(entry.index));
            black_box(core.ready(&mut ready));
            core.step(PEERS[1], accepted(entry.index));
            black_box(core.ready(&mut ready));
        });
    });
    assert_eq!(core.commit_index(), core.last().index);
}

fn follower_append(criterion: &mut Criterion) {
    let (mut core, mut ready) = (core(), Ready::new());
    core.step(PEERS[0], Message::Heartbeat { term: 1, leader_commit: 0, read_sequence: 0, sent_us: 0 });
    core.ready(&mut ready);
    core.hard_state_durable(ready.hard_state.expect("a term"));
    let mut prev = EntryId::ZERO;
    criterion.bench_function("follower: append, flush, answer", |bencher| {
        bencher.iter(|| {
            let entries = [EntryMeta { term: 1, length: 4096 }];
            let incoming =
                IncomingEntries { term: 1, prev, leader_commit: prev.index, entries: &entries, changes: &[] };
            let outcome = core.step_append(PEERS[0], &incoming);
            let _ = black_box(outcome);
            black_box(core.ready(&mut ready));
            prev = core.last();
            core.durable(prev);
        });
    });
    assert_eq!(core.commit_index(), core.last().index - 1);
}

fn read_round(criterion: &mut Criterion) {
    let (mut core, mut ready) = leader();
    criterion.bench_function("leader: read round", |bencher| {
        bencher.iter(|| {
            let context = core.read_index().expect("ready");
            core.ready(&mut ready);
            core.step(
                PEERS[0],
                Message::HeartbeatResponse { term: 1, read_sequence: context.sequence, sent_us: 0, shield_us: 0 },
            );
            core.step(
                PEERS[1],
                Message::HeartbeatResponse { term: 1, read_sequence: context.sequence, sent_us: 0, shield_us: 0 },
            );
            black_box(core.ready(&mut ready));
            assert_eq!(ready.reads.len(), 1);
        });
    });
}

fn tick(criterion: &mut Criterion) {
    let (mut core, mut ready) = leader();
    criterion.bench_function("leader: tick with answers", |bencher| {
        bencher.iter(|| {
            core.tick();
            PEERS.into_iter().for_each(|peer| {
                core.step(peer, Message::HeartbeatResponse { term: 1, read_sequence: 0, sent_us: 0, shield_us: 0 });
            });
            black_box(core.ready(&mut ready));
        });
    });
}

criterion_group!(benches, leader_write, follower_append, read_round, tick);
criterion_main!(benches);
