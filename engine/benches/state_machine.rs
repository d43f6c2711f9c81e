//! What applying costs: view, session, store and hash of 128-byte puts, and reads; what taking and loading snapshots does.
//!
//! Off the data path.
//! Figures are per iteration of one request in an entry of 64; keys are visited in a scattered order, so that a large
//! store shows its cache misses.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringraft_engine::limits::Limits;
use ringraft_engine::payload;
use ringraft_engine::snapshot::{Chunk, ChunkBytes, ChunkReader, ChunkWriter, Expected, FileHead, Members};
use ringraft_engine::state_machine::{StateLoader, StateMachine};
use ringraft_net::wire::{self, Operation, OperationResultRef, OutcomeRef, Request};
use ringraft_raft::{GroupId, NodeId};

/// Bytes of the latest changes of a group.
const RING_BYTES: usize = 4 << 20;

/// Requests per entry.
const BATCH: u64 = 64;

/// Bytes of a snapshot's slice.
const SLICE_BYTES: usize = 256 << 10;

/// Bytes of the slices between two entries: a bit more than an entry changes.
const SMALL_SLICE_BYTES: usize = 16 << 10;

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
    apply_to(criterion, name, filled(keys), keys, with_session, encode);
}

fn apply_to(
    criterion: &mut Criterion,
    name: &str,
    (mut machine, client): (StateMachine, u64),
    keys: u64,
    with_session: bool,
    encode: bool,
) {
    let mut group = criterion.benchmark_group("state_machine");
    group.throughput(Throughput::Elements(BATCH));
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
                        wire::ReplyRef { position, outcome, term: 1 }.append_frame(&mut replies, position.position);
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
    let mut watched = filled(10_000);
    watched.0.keep_recent(RING_BYTES);
    apply_to(criterion, "put 128 B with session, 10 k keys, entry of 64, changes kept", watched, 10_000, true, false);
    let mut listed = filled(1_000_000);
    order(&mut listed.0);
    apply_to(criterion, "put 128 B with session, 1 M keys in order, entry of 64", listed, 1_000_000, true, false);
}

/// Puts all keys in order; how long the longest slice took.
fn order(machine: &mut StateMachine) -> Duration {
    let mut longest = Duration::ZERO;
    loop {
        let start = Instant::now();
        let done = machine.build_order();
        longest = longest.max(start.elapsed());
        if done {
            return longest;
        }
    }
}

/// Puts of keys that are new, in scattered order, with and without an order to be kept.
fn new_keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state_machine");
    group.throughput(Throughput::Elements(BATCH)).sample_size(10);
    for (name, in_order) in [("new keys at 300 k", false), ("new keys at 300 k, in order", true)] {
        let (mut machine, _) = filled(300_000);
        if in_order {
            order(&mut machine);
        }
        let mut next = 300_000_u64;
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let mut payload = Vec::new();
                    for _ in 0..BATCH {
                        next += 1;
                        let scattered = next.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
                        let operations = vec![Operation::Put { key: key(scattered), value: vec![2; 128] }];
                        push(&mut payload, &Request { operations, ..Request::default() });
                    }
                    payload
                },
                |payload| {
                    let index = machine.last_applied() + 1;
                    machine.apply_entry(index, 1, &payload, |_, outcome| _ = black_box(&outcome)).expect("valid");
                    payload
                },
                BatchSize::NumIterations(ENTRIES),
            );
        });
    }
    group.finish();
}

fn ranges(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("range");
    group.sample_size(10);
    let (mut machine, _) = filled(1_000_000);
    group.bench_function("1 M keys are put in order (per key)", |bencher| {
        bencher.iter_custom(|iterations| {
            let (mut measured, mut longest) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..iterations.div_ceil(1_000_000) {
                let (mut fresh, _) = filled(1_000_000);
                let start = Instant::now();
                longest = longest.max(order(&mut fresh));
                measured += start.elapsed();
            }
            println!("the longest slice took {longest:?}");
            measured * iterations as u32 / (iterations.div_ceil(1_000_000) as u32 * 1_000_000)
        });
    });
    order(&mut machine);
    for limit in [1_u32, 100] {
        group.throughput(Throughput::Elements(u64::from(limit)));
        let (mut archive, mut start) = (Vec::new(), 0);
        group.bench_function(format!("of {limit} keys of 1 M"), |bencher| {
            bencher.iter(|| {
                start = (start + 7_919) % 999_000;
                let range = Operation::Range { group: 0, start: key(start), end: vec![], limit, keys_only: false };
                archive.clear();
                Request { operations: vec![range], ..Request::default() }.append_to(&mut archive);
                machine.read(wire::view_request(&archive).expect("a request"), |outcome| _ = black_box(&outcome));
            });
        });
    }
    group.finish();
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

/// Puts with a snapshot running: the slices between the entries are not measured, what puts keep aside for them is.
fn apply_during_snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("state_machine");
    group.throughput(Throughput::Elements(BATCH));
    let (mut machine, client) = filled(1_000_000);
    let (mut sequence, mut slice) = (1, Vec::new());
    group.bench_function("put 128 B with session, 1 M keys, entry of 64, a snapshot runs", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut measured = Duration::ZERO;
            for _ in 0..iterations {
                let payload = entry(client, sequence, 1_000_000);
                sequence += BATCH;
                if !machine.snapshot_runs() {
                    machine.begin_snapshot().expect("none runs");
                }
                slice.clear();
                machine.snapshot_slice(&mut slice, SMALL_SLICE_BYTES);
                let start = Instant::now();
                let applied = machine.apply_entry(machine.last_applied() + 1, 1, &payload, |position, outcome| {
                    black_box((position, &outcome));
                });
                measured += start.elapsed();
                applied.expect("a valid entry");
            }
            measured
        });
    });
    assert_eq!(machine.digest(), machine.recompute_digest());
    group.finish();
}

/// Calls `each` with every slice of a snapshot of the state as it is.
fn slices(machine: &mut StateMachine, slice: &mut Vec<u8>, mut each: impl FnMut(&[u8])) {
    machine.begin_snapshot().expect("none runs");
    let mut more = true;
    while more {
        slice.clear();
        more = machine.snapshot_slice(slice, SLICE_BYTES);
        each(slice);
    }
}

fn snapshots(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("snapshot");
    group.sample_size(10);
    let (mut machine, _) = filled(300_000);
    let (identity, limits) = (7, Limits::default());
    let members = Members::new(vec![NodeId(1)], Vec::new(), Vec::new()).expect("a member");
    let (chunk_bytes, state) = (ChunkBytes::default(), machine.snapshot_head());
    let head = FileHead { identity, limits_digest: limits.digest(), source: NodeId(1), chunk_bytes, state, members };
    let (mut slice, mut chunks, mut stream_bytes) = (Vec::new(), Vec::new(), 0);
    let mut emit = |chunk: &[u8]| chunks.push(chunk.to_vec());
    let mut writer = ChunkWriter::new(GroupId(0), &head, &mut emit);
    slices(&mut machine, &mut slice, |bytes| {
        stream_bytes += bytes.len() as u64;
        writer.push(bytes, &mut emit);
    });
    writer.finish(&mut emit);
    group.throughput(Throughput::Bytes(stream_bytes));
    group.bench_function("slices, 300 k keys of 128 B", |bencher| {
        bencher.iter(|| {
            slices(&mut machine, &mut slice, |bytes| {
                black_box(bytes);
            });
        });
    });
    group.bench_function("slices and chunks, 300 k keys of 128 B", |bencher| {
        bencher.iter(|| {
            let mut emit = |chunk: &[u8]| {
                black_box(chunk);
            };
            let mut writer = ChunkWriter::new(GroupId(0), &head, &mut emit);
            slices(&mut machine, &mut slice, |bytes| writer.push(bytes, &mut emit));
            writer.finish(&mut emit)
        });
    });
    group.bench_function("chunks checked and loaded, 300 k keys of 128 B", |bencher| {
        bencher.iter_with_large_drop(|| {
            let expected = Expected { group: GroupId(0), identity, limits_digest: limits.digest() };
            let mut reader = ChunkReader::new(expected);
            let mut loader = StateLoader::new(GroupId(0), limits, state);
            for chunk in &chunks {
                if let Chunk::Data(bytes) = reader.take(chunk).expect("an intact chunk") {
                    loader.push(bytes).expect("records");
                }
            }
            loader.finish().expect("the same state")
        });
    });
    group.finish();
}

criterion_group!(benches, applies, apply_during_snapshots, new_keys, ranges, parts, snapshots);
criterion_main!(benches);
