//! What the WAL costs in CPU, without a device: appending with checksums, taking records over, recovery.
//!
//! Off the data path.

use std::hint::black_box;
use std::rc::Rc;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringraft_wal::mem::MemDisk;
use ringraft_wal::{
    Config, Disk, DiskCompletion, DiskOperation, Done, Identity, Recovery, SnapshotMark, Ticket, ValidConfig, Wal,
    record,
};

/// A disk that ends every write at once and keeps nothing.
#[derive(Default)]
struct NoDisk {
    ended: Vec<Ticket>,
}

impl Disk for NoDisk {
    type Buffer = Vec<u8>;

    fn allocate(&mut self, bytes: usize) -> Vec<u8> {
        vec![0; bytes]
    }

    fn bytes_mut(buffer: &mut Vec<u8>) -> &mut [u8] {
        buffer
    }

    fn trim(buffer: &mut Vec<u8>, bytes: usize) {
        buffer.truncate(bytes);
    }

    fn submit(&mut self, operation: DiskOperation<Vec<u8>>) {
        if let DiskOperation::Write { buffer, .. } = &operation {
            black_box(Rc::as_ref(buffer)[0]);
        }
        self.ended.push(operation.ticket());
    }
}

fn config(cache_bytes_max: usize) -> ValidConfig {
    Config { cache_bytes_max, ..Config::default() }.validate(Identity::default()).expect("the defaults are valid")
}

struct Log {
    wal: Wal<NoDisk>,
    disk: NoDisk,
    index: u64,
}

impl Log {
    fn new() -> Self {
        let mut disk = NoDisk::default();
        let config = config(1 << 20);
        let mut recovery = Recovery::new(&config, 3);
        let image = vec![0; config.segment_bytes as usize];
        for number in 0..3 {
            recovery.segment(ringraft_wal::FileNumber(number), &image).expect("zeros are sound");
        }
        let recovered = recovery.finish().expect("zeros are sound");
        Self { wal: Wal::new(config, recovered, &mut disk), disk, index: 0 }
    }

    fn flush(&mut self) {
        let mut durables = Vec::new();
        self.wal.submit(&mut self.disk).expect("nothing fails");
        while let Some(ticket) = self.disk.ended.pop() {
            let completion = DiskCompletion { ticket, result: Ok(Done::Written) };
            self.wal.complete(completion, &mut durables, &mut self.disk).expect("nothing fails");
        }
        if self.index > 0 && self.index.is_multiple_of(1 << 12) {
            let mark = SnapshotMark { term: 1, index: self.index, file_bytes: 0, state_hash: 0, replaces_log: false };
            self.wal.append_snapshot_mark(1, mark, &mut self.disk).expect("room");
            self.wal.reclaim(1, self.index).expect("covered");
        }
    }

    /// One entry of `requests` requests of `bytes` each.
    fn entry(&mut self, requests: usize, request: &[u8]) {
        self.index += 1;
        self.wal.begin_entry(1, 1, self.index, requests * request.len(), &mut self.disk).expect("room");
        for _ in 0..requests {
            self.wal.put(request);
        }
        self.wal.finish_entry(requests as u16).expect("finished");
    }
}

fn append(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append");
    for (requests, bytes) in [(1, 160), (16, 160), (64, 160), (256, 1024)] {
        let request = vec![7; bytes];
        group.throughput(Throughput::Bytes((requests * bytes) as u64));
        let mut log = Log::new();
        group.bench_function(format!("{requests}x{bytes}B, one batch"), |bencher| {
            bencher.iter(|| {
                log.entry(requests, &request);
                log.flush();
            });
        });
    }
    group.finish();
}

fn take_over(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("append_record");
    for bytes in [160, 2560, 65_536] {
        group.throughput(Throughput::Bytes(bytes as u64));
        let payload = vec![7; bytes];
        let mut log = Log::new();
        let mut record = Vec::new();
        record::encode_entry(&mut record, 1, 1, 1, 1, &payload);
        // Always the same index: it replaces itself.
        group.bench_function(format!("{bytes}B, one batch"), |bencher| {
            bencher.iter(|| {
                log.wal.append_record(&record, &mut log.disk).expect("room");
                log.flush();
            });
        });
    }
    group.finish();
}

fn recover(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("recovery");
    let config = config(1 << 20);
    for bytes in [128, 2048, 65_536] {
        let mut disk = MemDisk::new(&config, 3);
        let recovered = disk.recover(&config).expect("zeros are sound");
        let mut wal = Wal::new(config.clone(), recovered, &mut disk);
        let payload = vec![7; bytes];
        let mut written = 0;
        for index in 1.. {
            wal.begin_entry(1, 1, index, bytes, &mut disk).expect("room");
            wal.put(&payload);
            wal.finish_entry(1).expect("finished");
            written += bytes;
            if written > 60 << 20 {
                break;
            }
            if written % (64 << 10) < bytes {
                wal.submit(&mut disk).expect("nothing fails");
                disk.run(&mut wal, &mut Vec::new()).expect("nothing fails");
            }
        }
        wal.submit(&mut disk).expect("nothing fails");
        disk.run(&mut wal, &mut Vec::new()).expect("nothing fails");
        // The segments that are ready are read as well, as at a start.
        let images = disk.files();
        group.throughput(Throughput::Bytes(images.values().map(|image| image.len() as u64).sum()));
        group.sample_size(10);
        group.bench_function(format!("three segments, 64 MiB of {bytes}B records"), |bencher| {
            bencher.iter_batched(
                || Recovery::new(&config, images.len() as u32),
                |mut recovery| {
                    for (file, image) in images {
                        recovery.segment(*file, image).expect("sound");
                    }
                    black_box(recovery.finish().expect("sound"))
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, append, take_over, recover);
criterion_main!(benches);
