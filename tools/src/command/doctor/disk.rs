//! The data folder: file system, space, direct I/O, flush latency.
//!
//! Off the data path.
//! Invariant: the measured writes overwrite blocks that were written and synced before, as the WAL's do: no metadata
//! changes with them.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use rustix::fs::{AtFlags, CWD, OFlags, StatxFlags, statvfs, statx};

use super::{Finding, Level};

const BLOCK_BYTES: usize = 4096;
const FILE_BLOCKS: u64 = 4096;
const WRITES_MAX: u32 = 5_000;
const SPACE_BYTES_MIN: u64 = 256 << 20;
const SPACE_BYTES_GOOD: u64 = 2 << 30;
const FLUSH_P99_WARN_US: u64 = 20_000;

/// The folder itself, or the nearest one above it that exists.
pub(super) fn nearest_folder(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

pub(super) fn examine(folder: &Path, seconds: u64) -> Vec<Finding> {
    let mut findings = vec![file_system(folder), free_space(folder)];
    let (direct, usable) = direct_io(folder);
    findings.push(direct);
    if usable {
        let patience = Duration::from_secs(seconds);
        findings.push(flushes(folder, Method::WriteThenSync, patience));
        findings.push(flushes(folder, Method::SyncedWrite, patience));
    }
    findings
}

fn file_system(folder: &Path) -> Finding {
    const CHECK: &str = "file system";
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let Some((kind, mounted_at)) = mount_of(&mounts, folder) else {
        return Finding::new(CHECK, Level::Warn, "unknown", "mount /proc");
    };
    let text = format!("{kind} at {mounted_at} for {}", folder.display());
    let remedy = "put the data folder on ext4 or XFS of a local disk";
    let (level, loses) = match kind.as_str() {
        "ext4" | "xfs" => (Level::Ok, ""),
        "tmpfs" | "ramfs" => (Level::Bad, ", which lives in memory: a node does not start there"),
        _ => (Level::Warn, ""),
    };
    Finding::new(CHECK, level, format!("{text}{loses}"), remedy).with("type", kind)
}

/// (type, mount point) of the innermost mount that holds `folder`.
fn mount_of(mountinfo: &str, folder: &Path) -> Option<(String, String)> {
    let mut best: Option<(String, String)> = None;
    for line in mountinfo.lines() {
        let (before, after) = line.split_once(" - ")?;
        let at = before.split(' ').nth(4)?.replace("\\040", " ");
        let kind = after.split(' ').next()?.to_owned();
        let deeper = best.as_ref().is_none_or(|(_, known)| at.len() >= known.len());
        if folder.starts_with(&at) && deeper {
            best = Some((kind, at));
        }
    }
    best
}

fn free_space(folder: &Path) -> Finding {
    const CHECK: &str = "free space";
    let remedy = "free some space; writes are refused (not lost) while the log cannot grow";
    match statvfs(folder) {
        Ok(space) => {
            let bytes = space.f_bavail * space.f_frsize;
            let level = match bytes {
                SPACE_BYTES_GOOD.. => Level::Ok,
                SPACE_BYTES_MIN.. => Level::Warn,
                _ => Level::Bad,
            };
            Finding::new(CHECK, level, format!("{} MiB", bytes >> 20), remedy).with("bytes", bytes)
        }
        Err(error) => Finding::bad(CHECK, format!("unknown: {error}"), "make the folder readable"),
    }
}

/// What the kernel says of direct I/O there, and what a write says.
fn direct_io(folder: &Path) -> (Finding, bool) {
    const CHECK: &str = "direct I/O";
    let remedy = "use a folder on ext4 or XFS that this user may write to; ringraft does not run without direct I/O";
    let told = alignment(folder);
    let tried = Scratch::create(folder, "direct", OFlags::DIRECT, 1);
    match (tried, told) {
        (Err(error), _) => (Finding::bad(CHECK, format!("{error:#}"), remedy), false),
        (Ok(_), Some((memory, offset))) if offset as usize > BLOCK_BYTES => {
            let text = format!("offsets must be multiples of {offset} bytes, memory of {memory}");
            (Finding::new(CHECK, Level::Warn, text, "use a device with blocks of at most 4096 bytes"), true)
        }
        (Ok(_), Some((memory, offset))) => {
            let text = format!("works; offsets in multiples of {offset} bytes, memory of {memory}");
            (Finding::ok(CHECK, text).with("offset_align_bytes", offset).with("memory_align_bytes", memory), true)
        }
        (Ok(_), None) => (Finding::ok(CHECK, "works; the kernel does not tell its alignment, 4096 bytes do"), true),
    }
}

fn alignment(folder: &Path) -> Option<(u32, u32)> {
    let probe = Scratch::create(folder, "probe", OFlags::empty(), 0).ok()?;
    let answer = statx(CWD, &probe.path, AtFlags::empty(), StatxFlags::DIOALIGN).ok()?;
    let told = StatxFlags::from_bits_retain(answer.stx_mask).contains(StatxFlags::DIOALIGN);
    (told && answer.stx_dio_offset_align > 0).then_some((answer.stx_dio_mem_align, answer.stx_dio_offset_align))
}

/// How a batch is made durable.
#[derive(Clone, Copy)]
enum Method {
    WriteThenSync,
    SyncedWrite,
}

impl Method {
    fn name(self) -> &'static str {
        match self {
            Self::WriteThenSync => "flush: write, fdatasync",
            Self::SyncedWrite => "flush: O_DSYNC write",
        }
    }

    fn file_name(self) -> &'static str {
        match self {
            Self::WriteThenSync => "sync",
            Self::SyncedWrite => "dsync",
        }
    }
}

fn flushes(folder: &Path, method: Method, patience: Duration) -> Finding {
    match measure(folder, method, patience) {
        Ok((histogram, rate)) => {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| histogram.value_at_quantile(quantile));
            let max = histogram.max();
            let text = format!("4 KiB: p50 {p50} us, p99 {p99} us, p99.9 {p999} us, max {max} us, {rate:.0}/s");
            let level = if p99 > FLUSH_P99_WARN_US { Level::Warn } else { Level::Ok };
            let finding = Finding::new(
                method.name(),
                level,
                text,
                "a disk with power-loss protection flushes in well under 1 ms",
            );
            let finding = finding.with("p50_us", p50).with("p99_us", p99).with("p999_us", p999).with("max_us", max);
            finding.with("per_second", rate.round())
        }
        Err(error) => Finding::bad(method.name(), format!("{error:#}"), "repair the disk or its free space"),
    }
}

/// The median of a direct write of 4 KiB and its fdatasync, in microseconds.
pub(super) fn flush_p50_us(folder: &Path, patience: Duration) -> Result<u64> {
    Ok(measure(folder, Method::WriteThenSync, patience)?.0.value_at_quantile(0.5))
}

/// The median time until a majority of `nodes` flushes of 4 KiB, begun at once on `nodes` files, are done, in
/// microseconds: what a commit of nodes that share one disk waits for at least.
pub(super) fn majority_flush_p50_us(folder: &Path, nodes: u64, patience: Duration) -> Result<u64> {
    let scratches = (0..nodes)
        .map(|node| Scratch::create(folder, &format!("node-{node}"), OFlags::DIRECT, FILE_BLOCKS))
        .collect::<Result<Vec<_>>>()?;
    let nodes = usize::try_from(nodes)?;
    let begin = Barrier::new(nodes + 1);
    let going = AtomicBool::new(true);
    let (done, dones) = mpsc::channel();
    let mut histogram = Histogram::<u64>::new(3)?;
    std::thread::scope(|scope| {
        for scratch in &scratches {
            let (done, begin, going) = (done.clone(), &begin, &going);
            scope.spawn(move || {
                let block = AlignedBlock::new(5);
                for turn in 0.. {
                    begin.wait();
                    if !going.load(Ordering::Relaxed) {
                        break;
                    }
                    let offset = turn % FILE_BLOCKS * BLOCK_BYTES as u64;
                    let flushed =
                        scratch.file.write_all_at(block.bytes(), offset).and_then(|()| scratch.file.sync_data());
                    let _ = done.send(flushed.map(|()| Instant::now()));
                }
            });
        }
        let start = Instant::now();
        let mut failed = Ok(());
        for _ in 0..WRITES_MAX {
            let before = Instant::now();
            begin.wait();
            let mut times = Vec::with_capacity(nodes);
            for time in dones.iter().take(nodes) {
                match time {
                    Ok(time) => times.push(time),
                    Err(error) => failed = Err(error),
                }
            }
            times.sort_unstable();
            let Some(majority) = times.get(nodes / 2) else { break };
            histogram.saturating_record(majority.duration_since(before).as_micros() as u64);
            if failed.is_err() || start.elapsed() > patience {
                break;
            }
        }
        going.store(false, Ordering::Relaxed);
        begin.wait();
        failed
    })?;
    Ok(histogram.value_at_quantile(0.5))
}

fn measure(folder: &Path, method: Method, patience: Duration) -> Result<(Histogram<u64>, f64)> {
    let flags = match method {
        Method::WriteThenSync => OFlags::DIRECT,
        Method::SyncedWrite => OFlags::DIRECT | OFlags::DSYNC,
    };
    let scratch = Scratch::create(folder, method.file_name(), flags, FILE_BLOCKS)?;
    let block = AlignedBlock::new(5);
    let mut histogram = Histogram::new(3)?;
    let start = Instant::now();
    for turn in 0..WRITES_MAX {
        let before = Instant::now();
        scratch.file.write_all_at(block.bytes(), u64::from(turn) % FILE_BLOCKS * BLOCK_BYTES as u64)?;
        if matches!(method, Method::WriteThenSync) {
            scratch.file.sync_data()?;
        }
        histogram.record(before.elapsed().as_micros() as u64)?;
        if start.elapsed() > patience {
            break;
        }
    }
    let rate = histogram.len() as f64 / start.elapsed().as_secs_f64();
    Ok((histogram, rate))
}

/// A file of written and synced blocks that goes away with its handle.
struct Scratch {
    file: File,
    path: PathBuf,
}

impl Scratch {
    fn create(folder: &Path, name: &str, flags: OFlags, blocks: u64) -> Result<Self> {
        let path = folder.join(format!(".ringraft-doctor-{}-{name}", std::process::id()));
        let mut plain = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        let mut scratch = Self { file: plain.try_clone()?, path };
        let zeros = vec![0; BLOCK_BYTES];
        for _ in 0..blocks {
            plain.write_all(&zeros).context("cannot write to the folder")?;
        }
        plain.sync_all()?;
        let opened = OpenOptions::new().read(true).write(true).custom_flags(flags.bits() as i32).open(&scratch.path);
        scratch.file = opened.with_context(|| format!("cannot open {} for direct I/O", scratch.path.display()))?;
        if blocks > 0 {
            let written = scratch.file.write_all_at(AlignedBlock::new(0).bytes(), 0);
            written.with_context(|| format!("cannot write {BLOCK_BYTES} bytes with direct I/O"))?;
        }
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// One block of memory, aligned as direct I/O wants it.
struct AlignedBlock {
    memory: Vec<u8>,
    start: usize,
}

impl AlignedBlock {
    fn new(fill: u8) -> Self {
        let memory = vec![fill; 2 * BLOCK_BYTES];
        let start = memory.as_ptr().align_offset(BLOCK_BYTES);
        Self { memory, start }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + BLOCK_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_is_found() {
        let mountinfo = "\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:21 / /var\\040x rw - xfs /dev/vdb rw
24 22 0:22 / /var rw shared:1 - tmpfs tmpfs rw";
        let found = |path: &str| mount_of(mountinfo, Path::new(path)).map(|(kind, _)| kind);
        assert_eq!(found("/home").as_deref(), Some("ext4"));
        assert_eq!(found("/var/lib").as_deref(), Some("tmpfs"));
        assert_eq!(found("/var x/lib").as_deref(), Some("xfs"));
        assert_eq!(found("/various").as_deref(), Some("ext4"));
    }

    #[test]
    fn blocks_are_aligned() {
        for fill in 0..20 {
            let block = AlignedBlock::new(fill);
            assert_eq!(block.bytes().as_ptr() as usize % BLOCK_BYTES, 0);
            assert_eq!(block.bytes().len(), BLOCK_BYTES);
        }
    }
}
