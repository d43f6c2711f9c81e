//! Benchmarks of the wire: what one request, one reply and one append cost in this crate.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark may panic and has no callers")]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringraft_net::client::{Action, Core, Options, Submission};
use ringraft_net::frame;
use ringraft_net::handshake::{Acceptor, Identity};
use ringraft_net::limits::Limits;
use ringraft_net::slots;
use ringraft_net::wire::{
    self, Consistency, NodeInfo, OperationRef, OperationResultRef, PeerBody, PeerMessage, Position, RequestRef,
    Topology,
};
use std::hint::black_box;

const KEY: &[u8] = b"key-0123456789ab";
const VALUE: [u8; 128] = [0x5A; 128];
const POSITION: Position = Position { group: 3, index: 1_000_000, position: 7 };

fn put(operations: &[OperationRef<'static>]) -> Vec<u8> {
    let mut out = Vec::new();
    request(operations).append_to(&mut out);
    out
}

fn request<'a>(operations: &'a [OperationRef<'static>]) -> RequestRef<'a> {
    let consistency = Consistency::Linearizable;
    RequestRef { client: 77, sequence: 1_000, acknowledged: 990, consistency, operations }
}

fn requests(criterion: &mut Criterion) {
    let one = [OperationRef::Put { key: KEY, value: &VALUE }];
    let many = [one[0]; 16];
    let mut group = criterion.benchmark_group("request");
    let mut out = Vec::with_capacity(64 << 10);
    group.bench_function("encode_put_128_archive", |bencher| {
        bencher.iter(|| {
            out.clear();
            request(black_box(&one)).append_to(&mut out);
            black_box(out.len())
        });
    });
    group.bench_function("encode_put_128_frame", |bencher| {
        bencher.iter(|| {
            out.clear();
            request(black_box(&one)).append_frame(&mut out, 9)
        });
    });
    group.bench_function("encode_16_puts_frame", |bencher| {
        bencher.iter(|| {
            out.clear();
            request(black_box(&many)).append_frame(&mut out, 9)
        });
    });
    let (archive, archives) = (put(&one), put(&many));
    group.bench_function("view_put_128", |bencher| {
        bencher.iter(|| wire::view_request(black_box(&archive)).unwrap().operations.len());
    });
    group.bench_function("view_16_puts", |bencher| {
        bencher.iter(|| wire::view_request(black_box(&archives)).unwrap().operations.len());
    });
    let view = wire::view_request(&archive).unwrap();
    group.bench_function("validate_and_route_put", |bencher| {
        bencher.iter(|| {
            let class = wire::validate_request(black_box(view), &Limits::CLIENT).unwrap();
            (class, wire::group_of_request(view, 16).unwrap())
        });
    });
    group.bench_function("slot_of_key_16", |bencher| bencher.iter(|| slots::slot(black_box(KEY))));
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reply");
    let mut out = Vec::with_capacity(64 << 10);
    group.bench_function("encode_put_frame", |bencher| {
        bencher.iter(|| {
            out.clear();
            wire::append_done(&mut out, 9, (black_box(POSITION), 5), OperationResultRef::Put { replaced: true })
        });
    });
    group.bench_function("encode_get_128_frame", |bencher| {
        bencher.iter(|| {
            out.clear();
            wire::append_done(&mut out, 9, (black_box(POSITION), 5), OperationResultRef::Value(Some(&VALUE)))
        });
    });
    out.clear();
    wire::append_done(&mut out, 9, (POSITION, 5), OperationResultRef::Value(Some(&VALUE)));
    group.bench_function("view_get_128", |bencher| {
        bencher.iter(|| wire::view_reply(black_box(&out[frame::HEADER_BYTES..])).unwrap().position.index);
    });
    group.finish();
}

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    let mut bytes = Vec::new();
    request(&[OperationRef::Put { key: KEY, value: &VALUE }]).append_frame(&mut bytes, 9);
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("parse_put_128", |bencher| {
        bencher.iter(|| frame::parse(black_box(&bytes), &Limits::CLIENT).unwrap().unwrap().total_bytes);
    });
    group.finish();
    let mut group = criterion.benchmark_group("append");
    let body = PeerBody::AppendEntries { prev_term: 3, prev_index: 99, leader_commit: 98, count: 4 };
    let message = PeerMessage { group: 3, term: 4, body };
    let mut out = Vec::with_capacity(64 << 10);
    group.bench_function("encode_head", |bencher| {
        bencher.iter(|| {
            out.clear();
            wire::begin_append(&mut out, black_box(&message)).finish()
        });
    });
    out.clear();
    message.append_to(&mut out);
    group.bench_function("view_head", |bencher| bencher.iter(|| wire::view_peer_message(black_box(&out)).unwrap()));
    group.finish();
}

/// A core that has its cluster and a session, connected to nothing.
fn ready_core() -> (Core, ringraft_net::client::ConnectionId) {
    let address = "127.0.0.1:7000";
    let options = Options { endpoints: vec![address.parse().unwrap()], ..Options::default() };
    let mut core = Core::new(options).unwrap();
    core.start(0);
    let Some(Action::Connect { connection, .. }) = core.poll_action() else { panic!("it connects") };
    core.connected(connection, 0);
    let identity =
        Identity { cluster: [1; 16], node: 1, shard: 0, config_digest: 0, members: vec![1], removed: vec![] };
    let nodes = vec![NodeInfo { node: 1, addresses: vec![address.to_owned()] }];
    let topology = Topology { epoch: 1, groups: 1, shards: 1, nodes, leaders: vec![Some(1)] };
    let mut answer = Vec::new();
    let hello = core.outgoing(connection).unwrap();
    Acceptor::new(&identity).receive(hello.pending(), || topology, &mut answer).unwrap();
    hello.sent(hello.pending().len());
    core.receive(connection, &answer, 0);
    (core, connection)
}

/// A put through the client core: submit, bytes out, reply in, completion out.
fn client(criterion: &mut Criterion) {
    let (mut core, connection) = ready_core();
    let operation = [OperationRef::Put { key: KEY, value: &VALUE }];
    let mut replies = Vec::new();
    let mut turn = |core: &mut Core, requests: u64, result: OperationResultRef<'_>| {
        for tag in 0..requests {
            core.submit(&Submission::new(tag, &operation), 10).unwrap();
        }
        while core.next_writable().is_some() {}
        let outgoing = core.outgoing(connection).unwrap();
        replies.clear();
        let mut sent = outgoing.pending();
        while let Some(parsed) = frame::parse(sent, &Limits::CLIENT).unwrap() {
            wire::append_done(&mut replies, parsed.correlation, (POSITION, 5), result);
            sent = &sent[parsed.total_bytes..];
        }
        outgoing.sent(outgoing.pending().len());
        core.receive(connection, &replies, 20);
        let mut completed = 0;
        while let Some(completion) = core.next_completion() {
            completed += u64::from(completion.result.is_ok());
        }
        completed
    };
    turn(&mut core, 1, OperationResultRef::Session { client: 5 });
    turn(&mut core, 0, OperationResultRef::Put { replaced: true });
    let mut group = criterion.benchmark_group("client");
    group.throughput(Throughput::Elements(64));
    group.bench_function("64_puts_in_a_session", |bencher| {
        bencher.iter_batched(
            || (),
            |()| turn(&mut core, 64, OperationResultRef::Put { replaced: true }),
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(benches, requests, replies, frames, client);
criterion_main!(benches);
