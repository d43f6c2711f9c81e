//! The WAL beside `raft-engine` 0.4.2: the same entries, each batch synced before it counts, on one file system, in
//! rounds that take turns.
//!
//! Off the data path.
//! `cargo run --release --manifest-path bench/rivals/Cargo.toml`. Closed loop: every group has one batch of entries
//! under way and appends the next when it is durable. raft-engine is driven as TiKV does, by threads that call `write`
//! with `sync`; it joins the writers that wait into one sync. Our WAL is driven by one executor. Compression of
//! raft-engine is off (the payload is random), and its log files are prepared ahead as ours are.
//! Arguments: `--rounds N`, `--milliseconds N`, `--directory D`, `--test`.

use std::cell::{Cell, RefCell};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Engine, LogBatch, MessageExt, ReadableSize};
use ringraft_wal::glommio::{Completions, FlushMethod, GlommioDisk, open};
use ringraft_wal::{Config, Identity, SnapshotMark, Wal};

/// One load: so many groups, each with a batch of so many entries of so many bytes.
#[derive(Clone, Copy)]
struct Load {
    groups: u32,
    entries: u64,
    bytes: usize,
}

const LOADS: [Load; 4] = [
    Load { groups: 1, entries: 1, bytes: 160 },
    Load { groups: 1, entries: 64, bytes: 160 },
    Load { groups: 16, entries: 16, bytes: 160 },
    Load { groups: 4, entries: 16, bytes: 4096 },
];

struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        u64::from_le_bytes(entry.value[..8].try_into().expect("the index leads the payload"))
    }
}

/// Bytes that do not compress.
fn payload(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Processor time of this process so far, in seconds, from the kernel's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| behind_name.split_whitespace().nth(place).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

#[derive(Clone, Copy)]
struct Outcome {
    entries_per_s: f64,
    batches_per_s: f64,
    cpu_us_per_entry: f64,
}

fn outcome(entries: u64, batches: u64, elapsed: Duration, cpu: f64) -> Outcome {
    Outcome {
        entries_per_s: entries as f64 / elapsed.as_secs_f64(),
        batches_per_s: batches as f64 / elapsed.as_secs_f64(),
        cpu_us_per_entry: cpu * 1e6 / entries.max(1) as f64,
    }
}

/// raft-engine: one thread per group.
struct Rival {
    engine: Arc<Engine>,
    next: Vec<u64>,
}

impl Rival {
    fn new(directory: &Path, groups: u32) -> Self {
        let config = raft_engine::Config {
            dir: directory.display().to_string(),
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize::mb(64),
            purge_threshold: ReadableSize::mb(256),
            prefill_for_recycle: true,
            prefill_limit: Some(ReadableSize::mb(384)),
            ..Default::default()
        };
        let engine = Engine::open(config).expect("raft-engine opens");
        Self { engine: Arc::new(engine), next: vec![1; groups as usize] }
    }

    fn run(&mut self, load: Load, slice: Duration) -> Outcome {
        let stop = AtomicBool::new(false);
        let written = AtomicU64::new(0);
        let (start, cpu) = (Instant::now(), cpu_seconds());
        thread::scope(|scope| {
            for (group, next) in self.next.iter_mut().enumerate() {
                let (engine, stop, written) = (&self.engine, &stop, &written);
                scope.spawn(move || {
                    let mut batch = LogBatch::default();
                    let mut entries =
                        vec![BytesValue { value: payload(load.bytes), ..Default::default() }; load.entries as usize];
                    while !stop.load(Ordering::Relaxed) {
                        for entry in &mut entries {
                            entry.value[..8].copy_from_slice(&next.to_le_bytes());
                            *next += 1;
                        }
                        batch.add_entries::<Entries>(group as u64 + 1, &entries).expect("added");
                        engine.write(&mut batch, true).expect("written");
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            thread::sleep(slice);
            stop.store(true, Ordering::Relaxed);
        });
        let elapsed = start.elapsed();
        let cpu = cpu_seconds() - cpu;
        for (group, next) in self.next.iter().enumerate() {
            self.engine.compact_to(group as u64 + 1, next.saturating_sub(64));
        }
        self.engine.purge_expired_files().expect("purged");
        let batches = written.into_inner();
        outcome(batches * load.entries, batches, elapsed, cpu)
    }
}

/// Wakes the one task that waits, on the same executor.
#[derive(Default)]
struct Signal {
    raised: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Signal {
    fn raise(&self) {
        self.raised.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    async fn wait(&self) {
        std::future::poll_fn(|context| {
            if self.raised.replace(false) {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Our WAL: one executor for all groups.
struct Ours {
    wal: Wal<GlommioDisk>,
    disk: GlommioDisk,
    completions: Completions,
    signal: Rc<Signal>,
    next: Vec<u64>,
    payload: Vec<u8>,
}

impl Ours {
    async fn new(directory: &Path, load: Load) -> Self {
        let config = Config { cache_bytes_max: 8 << 20, ..Config::default() };
        let config = config.validate(Identity::default()).expect("valid");
        let signal = Rc::new(Signal::default());
        let raised = Rc::clone(&signal);
        let completions = Completions::new(move || raised.raise());
        let opened = open(directory, &config, FlushMethod::Fdatasync, completions.clone()).await.expect("opened");
        let mut disk = opened.disk;
        let wal = Wal::new(config, opened.recovered, &mut disk);
        Self { wal, disk, completions, signal, next: vec![1; load.groups as usize], payload: payload(load.bytes) }
    }

    fn append(&mut self, group: u32, entries: u64) {
        for _ in 0..entries {
            let index = self.next[group as usize];
            self.next[group as usize] += 1;
            self.wal.begin_entry(group, 1, index, self.payload.len(), &mut self.disk).expect("room");
            self.wal.put(&index.to_le_bytes());
            self.wal.put(&self.payload[8..]);
            self.wal.finish_entry(1).expect("finished");
        }
    }

    async fn run(&mut self, load: Load, slice: Duration) -> Outcome {
        let (start, cpu) = (Instant::now(), cpu_seconds());
        let mut durables = Vec::new();
        let mut idle: Vec<u32> = (0..load.groups).collect();
        let mut batches = 0_u64;
        loop {
            if start.elapsed() < slice {
                for group in std::mem::take(&mut idle) {
                    self.append(group, load.entries);
                }
                self.wal.submit(&mut self.disk).expect("no error");
            } else if idle.len() == load.groups as usize {
                break;
            }
            self.signal.wait().await;
            while let Some(completion) = self.completions.pop() {
                self.wal.complete(completion, &mut durables, &mut self.disk).expect("no error");
            }
            self.wal.submit(&mut self.disk).expect("no error");
            for durable in durables.drain(..) {
                // A group's batch may be split over two flushes: it is done with its last entry.
                if durable.entry.is_some_and(|(_, index)| index + 1 == self.next[durable.group as usize]) {
                    batches += 1;
                    idle.push(durable.group);
                }
            }
        }
        let elapsed = start.elapsed();
        let cpu = cpu_seconds() - cpu;
        for group in 0..load.groups {
            let index = self.next[group as usize].saturating_sub(65);
            if index > 0 {
                let mark = SnapshotMark { term: 1, index, file_bytes: 0, state_hash: 0, replaces_log: false };
                self.wal.append_snapshot_mark(group, mark, &mut self.disk).expect("room");
                self.wal.reclaim(group, index + 1).expect("covered");
            }
        }
        outcome(batches * load.entries, batches, elapsed, cpu)
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

async fn compare(load: Load, rounds: usize, slice: Duration, directory: &Path) -> String {
    let scratch = tempfile::tempdir_in(directory).expect("a scratch folder");
    let mut rival = Rival::new(&scratch.path().join("raft-engine"), load.groups);
    let mut ours = Ours::new(&scratch.path().join("wal"), load).await;
    let mut results = Vec::new();
    for _ in 0..rounds {
        results.push((rival.run(load, slice), ours.run(load, slice).await));
    }
    ours.disk.close().await;
    println!("\n{} groups, batches of {} entries of {} bytes", load.groups, load.entries, load.bytes);
    println!("{:<14} {:>12} {:>12} {:>14}", "", "entries/s", "batches/s", "CPU us/entry");
    let mut json = Vec::new();
    for (name, pick) in [("raft-engine", 0), ("ringraft-wal", 1)] {
        let of = |outcome: &(Outcome, Outcome)| if pick == 0 { outcome.0 } else { outcome.1 };
        let entries = median(results.iter().map(|result| of(result).entries_per_s));
        let batches = median(results.iter().map(|result| of(result).batches_per_s));
        let cpu = median(results.iter().map(|result| of(result).cpu_us_per_entry));
        println!("{name:<14} {entries:>12.0} {batches:>12.0} {cpu:>14.2}");
        json.push(format!(
            "\"{name}\":{{\"entries_per_s\":{entries:.0},\"batches_per_s\":{batches:.0},\"cpu_us_per_entry\":{cpu:.2}}}"
        ));
    }
    let ratio = median(results.iter().map(|(rival, ours)| ours.entries_per_s / rival.entries_per_s));
    println!("ratio of entries/s, median of {rounds} rounds: {ratio:.2}");
    format!(
        "{{\"groups\":{},\"entries\":{},\"bytes\":{},{},\"ratio\":{ratio:.2}}}",
        load.groups,
        load.entries,
        load.bytes,
        json.join(",")
    )
}

fn main() {
    let (mut rounds, mut slice, mut directory) = (9, Duration::from_millis(500), PathBuf::from("target"));
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        match argument.as_str() {
            "--rounds" => rounds = given.next().and_then(|value| value.parse().ok()).expect("a number"),
            "--milliseconds" => {
                slice = Duration::from_millis(given.next().and_then(|value| value.parse().ok()).expect("a number"));
            }
            "--directory" => directory = PathBuf::from(given.next().expect("a folder")),
            "--test" => (rounds, slice) = (1, Duration::from_millis(50)),
            other => panic!("unknown argument {other}"),
        }
    }
    fs::create_dir_all(&directory).expect("the folder");
    let builder = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(Duration::from_secs(3600));
    builder.make().expect("io_uring").run(async move {
        let mut json = Vec::new();
        for load in LOADS {
            json.push(compare(load, rounds, slice, &directory).await);
        }
        println!("\n{{\"bench\":\"rivals\",\"rounds\":{rounds},\"loads\":[{}]}}", json.join(","));
    });
}
