//! Snapshot files on the production disk: real files, direct I/O, io_uring.
//!
//! Off the data path.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use common::identity;
use glommio::{LocalExecutorBuilder, Placement};
use ringraft_wal::glommio::{Buffer, Completions, FlushMethod, GlommioDisk, OpenError, open};
use ringraft_wal::{
    Completed, Config, DiskError, Done, Durable, FileName, Recovered, SnapshotDone, SnapshotError, SnapshotMark,
    SnapshotName, Ticket, ValidConfig, Wal, inspect,
};

const BLOCK: usize = 4096;
const NAME: SnapshotName = SnapshotName { group: 1, index: 20 };

fn run<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(Duration::from_secs(3600));
    builder.make().expect("io_uring is there").run(future)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn config() -> ValidConfig {
    let config = Config {
        segment_bytes: 1 << 20,
        segments_ready: 1,
        batch_bytes_max: 64 << 10,
        record_bytes_max: 128 << 10,
        ..Config::default()
    };
    config.validate(identity()).unwrap()
}

/// A small host that waits for each thing it asks for.
struct Host {
    disk: GlommioDisk,
    wal: Wal<GlommioDisk>,
    completions: Completions,
    durables: Vec<Durable>,
    recovered: Recovered,
}

impl Host {
    async fn open(directory: &Path) -> Result<Self, OpenError> {
        let completions = Completions::new(|| {});
        let opened = open(directory, &config(), FlushMethod::Fdatasync, completions.clone()).await?;
        let (mut disk, recovered) = (opened.disk, opened.recovered);
        let wal = Wal::new(config(), recovered.clone(), &mut disk);
        Ok(Self { disk, wal, completions, durables: Vec::new(), recovered })
    }

    /// The end of an operation on a snapshot.
    async fn end(&mut self, begun: Result<Ticket, SnapshotError>) -> Result<Done<Buffer>, DiskError> {
        let ticket = begun.unwrap();
        loop {
            while let Some(completion) = self.completions.pop() {
                let completed = self.wal.complete(completion, &mut self.durables, &mut self.disk).unwrap();
                if let Some(Completed::Snapshot(SnapshotDone { ticket: ended, result, .. })) = completed {
                    assert_eq!(ended, ticket);
                    return result;
                }
            }
            glommio::timer::sleep(Duration::from_micros(50)).await;
        }
    }

    async fn piece(&mut self, offset: u64, bytes: &[u8]) -> Result<Done<Buffer>, DiskError> {
        let begun = self.wal.write_snapshot(NAME, offset, bytes, &mut self.disk);
        self.end(begun).await
    }

    async fn finish(&mut self) -> Result<Done<Buffer>, DiskError> {
        let begun = self.wal.finish_snapshot(NAME, &mut self.disk);
        self.end(begun).await
    }

    async fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, DiskError> {
        let begun = self.wal.read_snapshot(NAME, offset, length, &mut self.disk);
        match self.end(begun).await? {
            Done::Read(buffer) => Ok(buffer.as_ref().to_vec()),
            other => panic!("{other:?}"),
        }
    }

    async fn remove(&mut self, part: bool) -> Result<Done<Buffer>, DiskError> {
        let begun = self.wal.remove_snapshot(NAME, part, &mut self.disk);
        self.end(begun).await
    }

    async fn flush(&mut self) {
        while self.wal.durable_sequence() < self.wal.accepted_sequence() {
            self.wal.submit(&mut self.disk).unwrap();
            glommio::timer::sleep(Duration::from_micros(50)).await;
            while let Some(completion) = self.completions.pop() {
                self.wal.complete(completion, &mut self.durables, &mut self.disk).unwrap();
            }
        }
    }

    async fn entries(&mut self, first: u64, last: u64, bytes: usize) {
        for index in first..=last {
            self.wal.begin_entry(1, 1, index, bytes, &mut self.disk).unwrap();
            self.wal.put(&common::payload(1, 1, index, bytes));
            self.wal.finish_entry(1).unwrap();
            self.flush().await;
        }
    }
}

/// Bytes of which every block is another.
fn content(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at / BLOCK) as u8 ^ (at % 251) as u8).collect()
}

/// How many files the process has open in this folder.
fn open_files(directory: &Path) -> usize {
    let descriptors = fs::read_dir("/proc/self/fd").unwrap();
    let targets = descriptors.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(directory) && target.to_string_lossy().contains(".snapshot")).count()
}

async fn written(directory: PathBuf) {
    let mut host = Host::open(&directory).await.unwrap();
    host.entries(1, 20, 300).await;
    let content = content(600);
    let mut offset = 0;
    for piece in content.chunks(100 * BLOCK) {
        assert!(matches!(host.piece(offset, piece).await, Ok(Done::Written)));
        offset += piece.len() as u64;
    }
    assert!(directory.join(format!("{NAME}.part")).exists() && !directory.join(NAME.to_string()).exists());
    assert!(matches!(host.finish().await, Ok(Done::Finished)));
    assert_eq!(fs::read(directory.join(NAME.to_string())).unwrap(), content);
    assert_eq!(host.read(0, BLOCK).await.unwrap(), content[..BLOCK]);
    assert_eq!(host.read(500 * BLOCK as u64, 100 * BLOCK).await.unwrap(), content[500 * BLOCK..]);
    assert_eq!(open_files(&directory), 0, "descriptors are closed");
    let file_bytes = content.len() as u64;
    let mark = SnapshotMark { term: 1, index: 20, file_bytes, state_hash: 0xABCD, replaces_log: false };
    host.wal.append_snapshot_mark(1, mark, &mut host.disk).unwrap();
    host.entries(21, 30, 300).await;
    assert!(host.durables.iter().any(|durable| durable.snapshot == Some(20)));
    assert!(matches!(host.wal.remove_snapshot(NAME, false, &mut host.disk), Err(SnapshotError::Needed { .. })));
    // A second snapshot is not finished when the process ends.
    let next = SnapshotName { group: 1, index: 30 };
    let begun = host.wal.write_snapshot(next, 0, &content[..BLOCK], &mut host.disk);
    host.end(begun).await.unwrap();
    assert!(directory.join(format!("{next}.part")).exists());
    host.disk.close().await;
    let host = Host::open(&directory).await.unwrap();
    assert!(!directory.join(format!("{next}.part")).exists());
    assert_eq!(host.recovered.groups[&1].marks, [mark]);
    assert_eq!(host.recovered.usable_snapshots(1).copied().collect::<Vec<_>>(), [mark]);
    let [file] = host.recovered.snapshots[..] else { panic!("{:?}", host.recovered.snapshots) };
    assert_eq!((file.name, file.bytes), (NAME, file_bytes));
}

#[test]
fn a_snapshot_is_written_marked_and_there_after_a_restart() {
    let folder = folder();
    run(written(folder.path().canonicalize().unwrap()));
    let report = inspect::verify(folder.path()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!((report.snapshots.len(), report.groups[0].marks.len()), (1, 1));
    let mut text = Vec::new();
    let options = inspect::DumpOptions { records: true, group: Some(1), ..Default::default() };
    inspect::dump(folder.path(), &options, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("snapshot mark group 1 term 1 index 20: 2457600 bytes, state 000000000000abcd"), "{text}");
}

#[test]
fn errors_are_of_the_snapshot_alone() {
    let folder = folder();
    let directory = folder.path().to_owned();
    run(async move {
        let mut host = Host::open(&directory).await.unwrap();
        assert!(matches!(host.remove(false).await, Ok(Done::Removed)), "what is not there is no error");
        assert!(matches!(host.remove(true).await, Ok(Done::Removed)));
        let missing = host.read(0, BLOCK).await.unwrap_err();
        assert!(missing.to_string().contains("open of 00000001-0000000000000014.snapshot failed"), "{missing}");
        // The part file loses its end behind our back.
        let content = content(4);
        host.piece(0, &content).await.unwrap();
        let part = directory.join(format!("{NAME}.part"));
        fs::File::options().write(true).open(&part).unwrap().set_len(BLOCK as u64).unwrap();
        let file = FileName::Part(NAME);
        let short = DiskError::Short { operation: "finish", file, done: BLOCK as u64, expected: 4 * BLOCK as u64 };
        assert_eq!(host.finish().await.unwrap_err(), short);
        assert!(!directory.join(NAME.to_string()).exists());
        // It is gone altogether.
        host.piece(0, &content).await.unwrap();
        fs::remove_file(&part).unwrap();
        assert!(host.piece(4 * BLOCK as u64, &content).await.is_err());
        assert!(!part.exists(), "only the first piece makes the file");
        // Begun anew it is empty first.
        host.piece(0, &content).await.unwrap();
        host.piece(0, &content[..BLOCK]).await.unwrap();
        host.finish().await.unwrap();
        assert_eq!(fs::read(directory.join(NAME.to_string())).unwrap(), content[..BLOCK]);
        let short = host.read(0, 2 * BLOCK).await.unwrap_err();
        assert!(matches!(short, DiskError::Short { operation: "read", done: 4096, expected: 8192, .. }), "{short}");
        assert!(matches!(host.remove(false).await, Ok(Done::Removed)));
        assert!(!directory.join(NAME.to_string()).exists());
        assert!(!host.wal.is_poisoned());
        host.entries(1, 3, 100).await;
    });
}

#[test]
fn the_room_of_a_large_file_that_goes_is_taken_by_the_next_one() {
    let folder = folder();
    let directory = folder.path().to_owned();
    run(async move {
        let mut host = Host::open(&directory).await.unwrap();
        let files = || {
            let names =
                fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.filter(|name| name.contains(".snapshot")).collect();
            names.sort();
            names
        };
        let (large, small) = (content(2_200), content(3));
        for (offset, piece) in (0..).zip(large.chunks(550 * BLOCK)) {
            host.piece(offset * 550 * BLOCK as u64, piece).await.unwrap();
        }
        host.finish().await.unwrap();
        assert!(matches!(host.remove(false).await, Ok(Done::Removed)));
        assert_eq!(files(), [format!("{NAME}.part")], "it waits");
        let next = SnapshotName { group: 2, index: 7 };
        let begun = host.wal.write_snapshot(next, 0, &small, &mut host.disk);
        host.end(begun).await.unwrap();
        assert_eq!(files(), [format!("{next}.part")]);
        assert_eq!(fs::metadata(directory.join(format!("{next}.part"))).unwrap().len(), large.len() as u64);
        let begun = host.wal.finish_snapshot(next, &mut host.disk);
        host.end(begun).await.unwrap();
        assert_eq!(files(), [next.to_string()]);
        assert_eq!(fs::read(directory.join(next.to_string())).unwrap(), small, "nothing of the other is left");
        // A second large one that goes is freed, whether or not it was finished.
        for (name, part) in [(NAME, false), (next, true)] {
            for (offset, piece) in (0..).zip(large.chunks(550 * BLOCK)) {
                let begun = host.wal.write_snapshot(name, offset * 550 * BLOCK as u64, piece, &mut host.disk);
                host.end(begun).await.unwrap();
            }
            if !part {
                let begun = host.wal.finish_snapshot(name, &mut host.disk);
                host.end(begun).await.unwrap();
            }
        }
        for (name, part) in [(NAME, false), (next, true)] {
            let begun = host.wal.remove_snapshot(name, part, &mut host.disk);
            host.end(begun).await.unwrap();
        }
        assert_eq!(files(), [format!("{NAME}.part"), next.to_string()]);
        host.disk.close().await;
        let _host = Host::open(&directory).await.unwrap();
        assert_eq!(files(), [format!("{NAME}.part"), next.to_string()], "also after a restart");
    });
}

#[test]
fn a_snapshot_that_the_log_needs_and_that_is_gone_is_an_error_that_names_it() {
    let folder = folder();
    let directory = folder.path().to_owned();
    let refused = run(async move {
        let mut host = Host::open(&directory).await.unwrap();
        host.piece(0, &content(2)).await.unwrap();
        host.finish().await.unwrap();
        let mark = SnapshotMark { term: 1, index: 20, file_bytes: 2 * BLOCK as u64, state_hash: 1, replaces_log: true };
        host.wal.append_snapshot_mark(1, mark, &mut host.disk).unwrap();
        host.entries(21, 22, 100).await;
        host.disk.close().await;
        fs::rename(directory.join(NAME.to_string()), directory.join("kept")).unwrap();
        let refused = Rc::new(Host::open(&directory).await.err().map(|error| error.to_string()));
        let verified = inspect::verify(&directory).unwrap().error.map(|error| error.to_string());
        assert!(verified.is_some_and(|verified| refused.as_ref().as_ref().unwrap().ends_with(&verified)));
        fs::rename(directory.join("kept"), directory.join(NAME.to_string())).unwrap();
        let host = Host::open(&directory).await.unwrap();
        assert_eq!(host.wal.entry_range(1), Some((21, 22)));
        refused
    });
    let refused = refused.as_ref().clone().unwrap();
    assert!(refused.contains("00000001-0000000000000014.snapshot is missing"), "{refused}");
}
