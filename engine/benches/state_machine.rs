//! What applying costs: view, session, store and hash of 128-byte puts, and reads.
//!
//! Off the data path.
//! Figures are per iteration of one request in an entry of 64; keys are visited in a scattered order, so that a large
//! store shows its cache misses.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringraft_engine::limits::Limits;
use ringraft_engine::payload;
use ringraft_engine::state_machine::StateMachine;
use ringraft_net::wire::{self, Operation, OperationResultRef, OutcomeRef, Request};
use ringraft_raft::GroupId;

/// Requests per entry.
const BATCH: u64 = 64;

/// Entries made beforehand; sequences go on from one to the next.
const ENTRIES: u64 = 256;

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

fn push(payload: &mut Vec<u8>, request: &Request) {
    let mut archive = Vec::new();
    request.append_to(&mut archive);
    payload::push_request(payload, &archive);
}

/// A machine with `keys` keys and one session.
fn filled(keys: u64) -> (StateMachine, u64) {
    let mut machine = StateMachine::new(GroupId(0), Limits::default());
    let (mut payload, mut client) = (Vec::new(), 0);
    push(&mut payload, &Request { operations: vec![Operation::OpenSession { group: 0 }], ..Request::default() });
    let opened = machine.apply_entry(1, 1, &payload, |_, outcome| {
        if let OutcomeRef::Done([OperationResultRef::Session { client: id }]) = outcome {
            client = *id;
        }
    });
    opened.expect("a valid entry");
    for number in 0..keys {
        payload.clear();
        let operations = vec![Operation::Put { key: key(number), value: vec![1; 128] }];
        push(&mut payload, &Request { operations, ..Request::default() });
        machine.apply_entry(number + 2, 1, &payload, |_, _| {}).expect("a valid entry");
    }
    (machine, client)
}

/// One entry of 64 puts from `sequence` on.
fn entry(client: u64, sequence: u64, keys: u64) -> Vec<u8> {
    let mut payload = Vec::new();
    for sequence in sequence..sequence + BATCH {
        // A multiplicative walk: neighbours in the log are far apart in memory.
        let operations = vec![Operation::Put { key: key(sequence * 7_919 % keys), value: vec![2; 128] }];
        let acknowledged = sequence.saturating_sub(BATCH).max(1);
        push(&mut payload, &Request { client, sequence, acknowledged, operations, ..Request::default() });
    }
    payload
}

/// `encode`: the reply's frame is written too, as the group does for its own clients.
fn apply(criterion: &mut Criterion, name: &str, keys: u64, with_session: bool, encode: bool) {
    let mut group = criterion.benchmark_group("state_machine");
    group.throughput(Throughput::Elements(BATCH));
    let (mut machine, client) = filled(keys);
    let client = if with_session { client } else { 0 };
    let mut sequence = 1;
    let mut replies = Vec::with_capacity(64 << 10);
    group.bench_function(name, |bencher| {
        bencher.iter_batched(
            || {
                let payload = entry(client, sequence, keys);
                sequence += BATCH;
                payload
            },
            |payload| {
                replies.clear();
                let applied = machine.apply_entry(machine.last_applied() + 1, 1, &payload, |position, outcome| {
                    assert!(matches!(outcome, OutcomeRef::Done(_)), "every put takes effect");
                    if encode {
                        wire::ReplyRef { position, outcome }.append_frame(&mut replies, position.position);
                    } else {
                        black_box((position, &outcome));
                    }
                });
                applied.expect("a valid entry");
                payload
            },
            BatchSize::NumIterations(ENTRIES),
        );
    });
    assert_eq!(machine.digest(), machine.recompute_digest());
    group.finish();
}

fn applies(criterion: &mut Criterion) {
    apply(criterion, "put 128 B with session, 10 k keys, entry of 64", 10_000, true, false);
    apply(criterion, "put 128 B with session and reply, 10 k keys, entry of 64", 10_000, true, true);
    apply(criterion, "put 128 B with session, 1 M keys, entry of 64", 1_000_000, true, false);
    apply(criterion, "put 128 B without session, 10 k keys, entry of 64", 10_000, false, false);
}

fn parts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state_machine_parts");
    let mut archive = Vec::new();
    let operations = vec![Operation::Put { key: key(7), value: vec![2; 128] }];
    Request { client: 9, sequence: 1, acknowledged: 1, operations, ..Request::default() }.append_to(&mut archive);
    group.bench_function("view of a put", |bencher| bencher.iter(|| wire::view_request(black_box(&archive)).is_ok()));
    let (machine, _) = filled(10_000);
    let mut read = Vec::new();
    Request { operations: vec![Operation::Get { key: key(77) }], ..Request::default() }.append_to(&mut read);
    group.bench_function("get, view included", |bencher| {
        bencher.iter(|| {
            let request = wire::view_request(black_box(&read)).expect("a valid request");
            machine.read(request, |outcome| {
                black_box(&outcome);
            });
        });
    });
    group.bench_function("digest", |bencher| bencher.iter(|| black_box(&machine).digest()));
    group.finish();
}

criterion_group!(benches, applies, parts);
criterion_main!(benches);
