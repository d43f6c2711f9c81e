//! The WAL against a bare loop on the same file system, in rounds that take turns.
//!
//! Off the data path.
//! `cargo bench -p ringraft-wal --bench device` prints a table and one JSON line. A bare loop writes the same number of
//! bytes directly to a zeroed file and flushes, one at a time: by system calls, and by the same glommio calls the WAL
//! uses. Each ratio is the median over the rounds of (WAL in the round / bare loop in the round), because devices drift.
//! Arguments: `--rounds N`, `--milliseconds N` (per contender and round), `--directory D`, `--test` (one short round),
//! `--kibibytes N` (only this batch size), `--only NAME` (only what has NAME in its name; for profiling).

use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use glommio::io::{DmaFile, OpenOptions};
use glommio::{LocalExecutorBuilder, Placement, allocate_dma_buffer_global};
use ringraft_wal::glommio::{Completions, DmaBuffer, FlushMethod, GlommioDisk, open};
use ringraft_wal::{Config, Durable, Identity, SnapshotMark, Wal};

const FILE_BYTES: usize = 64 << 20;
/// Batch header and record header.
const OVERHEAD_BYTES: usize = 64 + 32;

struct Arguments {
    rounds: usize,
    slice: Duration,
    directory: PathBuf,
    sizes: Vec<usize>,
    only: String,
}

fn arguments() -> Arguments {
    let target = std::env::var("CARGO_TARGET_DIR").map_or_else(|_| PathBuf::from("target"), PathBuf::from);
    let sizes = vec![4 << 10, 16 << 10, 256 << 10];
    let only = String::new();
    let mut parsed = Arguments { rounds: 15, slice: Duration::from_millis(400), directory: target, sizes, only };
    let mut given = std::env::args().skip(1);
    while let Some(argument) = given.next() {
        let mut number = || given.next().and_then(|value| value.parse().ok()).expect("a number");
        match argument.as_str() {
            "--rounds" => parsed.rounds = number(),
            "--milliseconds" => parsed.slice = Duration::from_millis(number() as u64),
            "--kibibytes" => parsed.sizes = vec![number() << 10],
            "--only" => parsed.only = given.next().expect("a name"),
            "--directory" => parsed.directory = PathBuf::from(given.next().expect("a folder")),
            "--test" => (parsed.rounds, parsed.slice) = (1, Duration::from_millis(30)),
            _ => {} // what cargo passes on
        }
    }
    parsed
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

fn zeroed_file(path: &Path) {
    let file = File::create(path).expect("a file");
    let zeros = vec![0; 1 << 20];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset as u64).expect("written");
    }
    file.sync_all().expect("flushed");
}

fn buffer(bytes: usize) -> DmaBuffer {
    let mut buffer = allocate_dma_buffer_global(bytes);
    buffer.as_bytes_mut().fill(0x5A);
    buffer
}

/// Batches per second of direct writes and fdatasync by system calls.
fn bare_system_calls(path: &Path, bytes: usize, slice: Duration, dsync: bool) -> f64 {
    let flags = libc::O_DIRECT | if dsync { libc::O_DSYNC } else { 0 };
    let file = File::options().write(true).custom_flags(flags).open(path).expect("the file");
    let buffer = buffer(bytes);
    let (start, mut batches, mut offset) = (Instant::now(), 0_u64, 0);
    while start.elapsed() < slice {
        let written = file.write_at(buffer.as_bytes(), offset as u64).expect("written");
        assert_eq!(written, bytes);
        if !dsync {
            file.sync_data().expect("flushed");
        }
        offset = (offset + bytes) % FILE_BYTES;
        batches += 1;
    }
    batches as f64 / start.elapsed().as_secs_f64()
}

/// The same by glommio's calls.
async fn bare_glommio(path: &Path, bytes: usize, slice: Duration, dsync: bool) -> f64 {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if dsync {
        options.custom_flags(libc::O_DSYNC);
    }
    let file: DmaFile = options.dma_open(path).await.expect("the file");
    let buffer = Rc::new(buffer(bytes));
    let (start, mut batches, mut offset) = (Instant::now(), 0_u64, 0);
    while start.elapsed() < slice {
        let written = file.write_rc_at(Rc::clone(&buffer), offset as u64).await.expect("written");
        assert_eq!(written, bytes);
        if !dsync {
            file.fdatasync().await.expect("flushed");
        }
        offset = (offset + bytes) % FILE_BYTES;
        batches += 1;
    }
    let rate = batches as f64 / start.elapsed().as_secs_f64();
    file.close().await.expect("closed");
    rate
}

/// A WAL that is kept busy with batches of one entry each.
struct Contender {
    name: &'static str,
    wal: Wal<GlommioDisk>,
    disk: GlommioDisk,
    completions: Completions,
    signal: Rc<Signal>,
    durables: Vec<Durable>,
    index: u64,
    payload: Vec<u8>,
}

impl Contender {
    async fn new(name: &'static str, directory: &Path, bytes: usize, flushes: usize, method: FlushMethod) -> Self {
        let config =
            Config { flushes_in_flight_max: flushes, segments_ready: 1, cache_bytes_max: 8 << 20, ..Config::default() };
        let config = config.validate(Identity::default()).expect("valid");
        let signal = Rc::new(Signal::default());
        let raised = Rc::clone(&signal);
        let completions = Completions::new(move || raised.raise());
        let opened = open(directory, &config, method, completions.clone()).await.expect("the WAL opens");
        let mut disk = opened.disk;
        let index = opened.recovered.groups.get(&1).and_then(|group| group.entries.back()).map_or(0, |last| last.index);
        let wal = Wal::new(config, opened.recovered, &mut disk);
        let payload = vec![0x5A; bytes - OVERHEAD_BYTES];
        Self { name, wal, disk, completions, signal, durables: Vec::new(), index, payload }
    }

    fn complete(&mut self) {
        while let Some(completion) = self.completions.pop() {
            self.wal.complete(completion, &mut self.durables, &mut self.disk).expect("no error");
        }
        self.durables.clear();
    }

    fn append(&mut self) {
        self.index += 1;
        self.wal.begin_entry(1, 1, self.index, self.payload.len(), &mut self.disk).expect("room");
        self.wal.put(&self.payload);
        self.wal.finish_entry(1).expect("finished");
    }

    /// Durable batches per second. As in a busy shard, the next batch gathers while earlier ones are flushed.
    async fn run(&mut self, slice: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.wal.durable_sequence());
        while start.elapsed() < slice {
            if !self.wal.has_open_batch() {
                self.append();
            }
            self.wal.submit(&mut self.disk).expect("no error");
            if self.wal.can_submit() {
                continue;
            }
            if !self.wal.has_open_batch() {
                self.append();
            }
            self.signal.wait().await;
            self.complete();
            if self.index.is_multiple_of(256) {
                let index = self.index.saturating_sub(65);
                let mark = SnapshotMark { term: 1, index, file_bytes: 0, state_hash: 0, replaces_log: false };
                self.wal.append_snapshot_mark(1, mark, &mut self.disk).expect("room");
                self.wal.reclaim(1, index + 1).expect("covered");
            }
        }
        let batches = self.wal.durable_sequence() - before;
        let rate = batches as f64 / start.elapsed().as_secs_f64();
        while self.wal.durable_sequence() < self.wal.accepted_sequence() {
            self.wal.submit(&mut self.disk).expect("no error");
            self.signal.wait().await;
            self.complete();
        }
        rate
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

struct Row {
    name: String,
    rates: Vec<f64>,
    cpu_us: Vec<f64>,
}

impl Row {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), rates: Vec::new(), cpu_us: Vec::new() }
    }
}

/// Processor time of this process so far (io_uring's kernel threads included), from the kernel's ticks of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = |place: usize| behind_name.split_whitespace().nth(place).and_then(|field| field.parse::<f64>().ok());
    (ticks(11).unwrap_or(0.0) + ticks(12).unwrap_or(0.0)) / 100.0
}

async fn compare(arguments: &Arguments, bytes: usize, json: &mut Vec<String>) {
    let scratch = tempfile::tempdir_in(&arguments.directory).expect("a scratch folder");
    let bare = scratch.path().join("bare");
    zeroed_file(&bare);
    let methods = [
        ("wal, 1 flush at a time, fdatasync", 1, FlushMethod::Fdatasync),
        ("wal, 2 overlapping, fdatasync", 2, FlushMethod::Fdatasync),
        ("wal, 4 overlapping, fdatasync", 4, FlushMethod::Fdatasync),
        ("wal, 1 flush at a time, O_DSYNC", 1, FlushMethod::DsyncWrite),
        ("wal, 2 overlapping, O_DSYNC", 2, FlushMethod::DsyncWrite),
        ("wal, 4 overlapping, O_DSYNC", 4, FlushMethod::DsyncWrite),
    ];
    let mut contenders = Vec::new();
    for (number, (name, flushes, method)) in methods.into_iter().enumerate() {
        let directory = scratch.path().join(format!("wal{number}"));
        contenders.push(Contender::new(name, &directory, bytes, flushes, method).await);
    }
    let bare_names = ["system calls, fdatasync", "system calls, O_DSYNC", "glommio, fdatasync", "glommio, O_DSYNC"];
    let mut rows: Vec<Row> = bare_names.iter().map(|name| Row::new(name)).collect();
    rows.extend(contenders.iter().map(|contender| Row::new(contender.name)));
    for _ in 0..arguments.rounds {
        for (place, row) in rows.iter_mut().enumerate().filter(|(_, row)| row.name.contains(&arguments.only)) {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            let rate = match place {
                0 | 1 => bare_system_calls(&bare, bytes, arguments.slice, place == 1),
                2 | 3 => bare_glommio(&bare, bytes, arguments.slice, place == 3).await,
                _ => contenders[place - 4].run(arguments.slice).await,
            };
            row.rates.push(rate);
            row.cpu_us.push((cpu_seconds() - cpu) * 1e6 / (rate * start.elapsed().as_secs_f64()));
        }
    }
    print_rows(bytes, &rows, json);
    for contender in contenders {
        contender.disk.close().await;
    }
}

fn print_rows(bytes: usize, rows: &[Row], json: &mut Vec<String>) {
    println!("\nbatches of {} KiB", bytes >> 10);
    let heads = ["batches/s", "MiB/s", "CPU us/batch", "/ system calls", "/ glommio"];
    println!("{:<36} {:>11} {:>9} {:>13} {:>15} {:>11}", "", heads[0], heads[1], heads[2], heads[3], heads[4]);
    for row in rows {
        let rate = median(&row.rates);
        let ratio =
            |to: &Row| median(&row.rates.iter().zip(&to.rates).map(|(own, bare)| own / bare).collect::<Vec<_>>());
        let (system_calls, glommio) = (ratio(&rows[0]), ratio(&rows[2]));
        let mebibytes = rate * bytes as f64 / f64::from(1 << 20);
        let cpu_us = row.cpu_us.iter().sum::<f64>() / row.cpu_us.len() as f64;
        println!("{:<36} {rate:>11.0} {mebibytes:>9.1} {cpu_us:>13.1} {system_calls:>15.2} {glommio:>11.2}", row.name);
        json.push(format!(
            "{{\"bytes\":{bytes},\"name\":\"{}\",\"batches_per_s\":{rate:.0},\"mib_per_s\":{mebibytes:.1},\"cpu_us\":{cpu_us:.1},\
             \"to_system_calls\":{system_calls:.3},\"to_glommio\":{glommio:.3}}}",
            row.name
        ));
    }
}

fn main() {
    let arguments = arguments();
    fs::create_dir_all(&arguments.directory).expect("the folder");
    let builder = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(Duration::from_secs(3600));
    builder.make().expect("io_uring").run(async move {
        let mut json = Vec::new();
        for bytes in arguments.sizes.iter().copied() {
            compare(&arguments, bytes, &mut json).await;
        }
        println!("\n{{\"bench\":\"device\",\"rounds\":{},\"rows\":[{}]}}", arguments.rounds, json.join(","));
    });
}
