//! The production disk: real files, direct I/O, io_uring.
//!
//! Off the data path.
//! The executor is built as the production host builds its own: no preemption timer in reach, one queue.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use std::cell::Cell;
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use common::{identity, payload};
use glommio::{LocalExecutorBuilder, Placement};
use ringraft_wal::glommio::{Buffer, Completions, FlushMethod, GlommioDisk, OpenError, open};
use ringraft_wal::{
    Completed, Config, Durable, EntryBytes, Identity, ReadDone, RecoveryError, SnapshotDone, ValidConfig, Wal, inspect,
};

fn run<T: 'static>(future: impl Future<Output = T> + 'static) -> T {
    let builder = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(Duration::from_secs(3600));
    builder.make().expect("io_uring is there").run(future)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn config() -> ValidConfig {
    config_of(identity())
}

fn config_of(identity: Identity) -> ValidConfig {
    let config = Config {
        segment_bytes: 1 << 20,
        segments_ready: 1,
        batch_bytes_max: 64 << 10,
        record_bytes_max: 128 << 10,
        cache_bytes_max: 256 << 10,
        ..Config::default()
    };
    config.validate(identity).unwrap()
}

/// A small host: pumps completions until nothing is under way.
struct Host {
    disk: GlommioDisk,
    wal: Wal<GlommioDisk>,
    completions: Completions,
    woken: Rc<Cell<u64>>,
    durables: Vec<Durable>,
    reads: Vec<ReadDone>,
    snapshots: Vec<SnapshotDone<Buffer>>,
}

impl Host {
    async fn open(directory: &Path, method: FlushMethod) -> Result<Self, OpenError> {
        let woken = Rc::new(Cell::new(0));
        let counter = Rc::clone(&woken);
        let completions = Completions::new(move || counter.set(counter.get() + 1));
        let opened = open(directory, &config(), method, completions.clone()).await?;
        let mut disk = opened.disk;
        let wal = Wal::new(config(), opened.recovered, &mut disk);
        Ok(Self { disk, wal, completions, woken, durables: Vec::new(), reads: Vec::new(), snapshots: Vec::new() })
    }

    async fn pump(&mut self) {
        let seen = self.woken.get();
        while self.woken.get() == seen {
            glommio::timer::sleep(Duration::from_micros(50)).await;
        }
        while let Some(completion) = self.completions.pop() {
            match self.wal.complete(completion, &mut self.durables, &mut self.disk).unwrap() {
                Some(Completed::Read(read)) => self.reads.push(read),
                Some(Completed::Snapshot(done)) => self.snapshots.push(done),
                None => {}
            }
        }
    }

    async fn flush(&mut self) {
        self.wal.submit(&mut self.disk).unwrap();
        while self.wal.durable_sequence() < self.wal.accepted_sequence() {
            self.pump().await;
            self.wal.submit(&mut self.disk).unwrap();
        }
    }

    fn entry(&mut self, index: u64, bytes: usize) {
        self.wal.begin_entry(1, 1, index, bytes, &mut self.disk).unwrap();
        self.wal.put(&payload(1, 1, index, bytes));
        self.wal.finish_entry(1).unwrap();
    }

    /// Lets a segment that is being made become ready.
    async fn settle(&mut self) {
        for _ in 0..2000 {
            if self.wal.stats().pool_free >= 1 {
                return;
            }
            glommio::timer::sleep(Duration::from_millis(1)).await;
            while let Some(completion) = self.completions.pop() {
                self.wal.complete(completion, &mut self.durables, &mut self.disk).unwrap();
            }
        }
        panic!("no segment became ready");
    }
}

async fn write_read_restart(directory: std::path::PathBuf, method: FlushMethod) {
    let entries = 400;
    let mut host = Host::open(&directory, method).await.unwrap();
    host.wal.append_hard_state(1, 3, Some(7), &mut host.disk).unwrap();
    for index in 1..=entries {
        host.entry(index, 40 + (index as usize * 97) % 9000);
        if index % 3 == 0 {
            host.flush().await;
        }
        if index % 50 == 0 {
            host.settle().await;
        }
    }
    host.flush().await;
    assert!(host.wal.stats().files > 2, "more than the first segments: {:?}", host.wal.stats());
    assert_eq!(host.wal.entry_bytes(1, 1), EntryBytes::OnDisk);
    let ticket = host.wal.read_entries(1, 1, 300 << 10, &mut host.disk).unwrap();
    while host.reads.is_empty() {
        host.pump().await;
    }
    let done = host.reads.pop().unwrap();
    assert_eq!(done.ticket, ticket);
    let bytes = done.result.unwrap();
    assert!(bytes.len() > 200 << 10);
    assert_eq!(ringraft_wal::record::payload(&bytes), payload(1, 1, 1, 40 + 97));
    host.disk.close().await;

    let host = Host::open(&directory, method).await.unwrap();
    assert_eq!(host.wal.entry_range(1), Some((1, entries)));
    assert_eq!(host.wal.hard_state(1).unwrap().voted_for, Some(7));
}

#[test]
fn write_read_restart_with_fdatasync() {
    let folder = folder();
    run(write_read_restart(folder.path().join("wal"), FlushMethod::Fdatasync));
    let report = inspect::verify(&folder.path().join("wal")).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(report.groups[0].entries, Some((1, 400)));
    let mut text = Vec::new();
    let options = inspect::DumpOptions { records: true, ..Default::default() };
    inspect::dump(&folder.path().join("wal"), &options, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("entry group 1 term 1 index 400") && text.contains("hard state group 1 term 3 vote 7"));
    assert!(text.contains("seal: "), "{text}");
}

#[test]
fn write_read_restart_with_dsync_writes() {
    let folder = folder();
    run(write_read_restart(folder.path().to_owned(), FlushMethod::DsyncWrite));
}

#[test]
fn replay_streams_every_live_entry_in_order() {
    let folder = folder();
    let directory = folder.path().to_owned();
    run(async move {
        let mut host = Host::open(&directory, FlushMethod::Fdatasync).await.unwrap();
        for index in 1..=200 {
            host.entry(index, 8000);
            if index % 8 == 0 {
                host.flush().await;
                host.settle().await;
            }
        }
        host.entry(150, 10); // replaces the rest
        host.flush().await;
        host.disk.close().await;
        let completions = Completions::new(|| {});
        let opened = open(&directory, &config(), FlushMethod::Fdatasync, completions).await.unwrap();
        let mut seen = Vec::new();
        let visit = &mut |view: ringraft_wal::record::RecordView<'_>| {
            assert_eq!(view.payload, payload(1, 1, view.index, view.payload.len()));
            seen.push(view.index);
        };
        opened.disk.replay(&opened.recovered, visit).await.unwrap();
        assert_eq!(seen, (1..=150).collect::<Vec<u64>>());
    });
}

/// Opens and expects to be refused; returns the words.
fn refused(directory: &Path, config: ValidConfig) -> (OpenError, String) {
    let directory = directory.to_owned();
    run(async move {
        match open(&directory, &config, FlushMethod::Fdatasync, Completions::new(|| {})).await {
            Ok(_) => panic!("it must be refused"),
            Err(error) => {
                let text = error.to_string();
                (error, text)
            }
        }
    })
}

fn fill(directory: &Path) {
    let directory = directory.to_owned();
    run(async move {
        let mut host = Host::open(&directory, FlushMethod::Fdatasync).await.unwrap();
        for index in 1..=20 {
            host.entry(index, 100);
            host.flush().await;
        }
    });
}

#[test]
fn a_folder_of_another_identity_or_other_sizes_is_refused() {
    let folder = folder();
    fill(folder.path());
    let (_, text) = refused(folder.path(), config_of(Identity { node: 8, ..identity() }));
    assert!(text.contains("node 7") && text.contains("node 8"), "{text}");
    let other = Config { segment_bytes: 2 << 20, ..(*config()).clone() }.validate(identity()).unwrap();
    let (_, text) = refused(folder.path(), other);
    assert!(text.contains("wal.segment_bytes"), "{text}");
}

#[test]
fn two_processes_cannot_use_one_folder() {
    let folder = folder();
    fill(folder.path());
    let lock = fs::File::options().write(true).open(folder.path().join("wal.lock")).unwrap();
    lock.try_lock().unwrap();
    assert!(matches!(refused(folder.path(), config()).0, OpenError::Locked { .. }));
    drop(lock);
    fill_again(folder.path());
}

fn fill_again(directory: &Path) {
    let directory = directory.to_owned();
    run(async move {
        let host = Host::open(&directory, FlushMethod::Fdatasync).await.unwrap();
        assert_eq!(host.wal.entry_range(1), Some((1, 20)));
    });
}

#[test]
fn missing_short_and_damaged_files_are_refused_and_nothing_is_changed() {
    let folder = folder();
    fill(folder.path());
    let segment = folder.path().join("0000.segment");
    let meta = folder.path().join("wal.meta");
    let (image, meta_bytes) = (fs::read(&segment).unwrap(), fs::read(&meta).unwrap());

    fs::remove_file(&segment).unwrap();
    let (error, text) = refused(folder.path(), config());
    assert!(matches!(error, OpenError::Recovery { .. }));
    assert!(text.contains("0000.segment is missing"), "{text}");
    assert!(inspect::verify(folder.path()).unwrap().error.is_some());

    fs::write(&segment, &image[..4096]).unwrap();
    assert!(refused(folder.path(), config()).1.contains("has 4096 bytes"));

    let mut damaged = image.clone();
    damaged[5 * 4096 + 70] ^= 1;
    fs::write(&segment, &damaged).unwrap();
    let (_, text) = refused(folder.path(), config());
    assert!(text.contains("0000.segment at byte 20480") && text.contains("replace this replica"), "{text}");
    assert!(matches!(inspect::verify(folder.path()).unwrap().error, Some(RecoveryError::Corruption(_))));
    assert_eq!(fs::read(&segment).unwrap(), damaged);
    fs::write(&segment, &image).unwrap();

    fs::remove_file(&meta).unwrap();
    assert!(refused(folder.path(), config()).1.contains("no wal.meta"));
    fs::write(&meta, &meta_bytes[..10]).unwrap();
    assert!(refused(folder.path(), config()).1.contains("damaged in both copies"));
    fs::write(&meta, &meta_bytes).unwrap();
    fill_again(folder.path());
}

#[test]
fn a_half_made_segment_file_is_made_again() {
    let folder = folder();
    fill(folder.path());
    // A crash while making the third file: it is there, half full, but wal.meta does not count it.
    let made = (0..).take_while(|number| folder.path().join(format!("{number:04}.segment")).exists()).count();
    let next = folder.path().join(format!("{made:04}.segment"));
    fs::write(&next, vec![0xEE; 5000]).unwrap();
    let directory = folder.path().to_owned();
    run(async move {
        let mut host = Host::open(&directory, FlushMethod::Fdatasync).await.unwrap();
        for index in 21..=400 {
            host.entry(index, 9000);
            host.flush().await;
            if host.wal.stats().pool_free == 0 {
                host.settle().await;
            }
        }
        assert!(host.wal.stats().files as usize > made);
        host.disk.close().await;
        let host = Host::open(&directory, FlushMethod::Fdatasync).await.unwrap();
        assert_eq!(host.wal.entry_range(1), Some((1, 400)));
    });
    assert_eq!(fs::metadata(next).unwrap().len(), 1 << 20);
}

#[test]
fn a_file_system_in_memory_is_refused() {
    let shm = Path::new("/dev/shm");
    if ringraft_wal::glommio::file_system_of(shm) != "tmpfs" {
        return; // this machine has none to try
    }
    let Ok(folder) = tempfile::tempdir_in(shm) else { return };
    let (error, text) = refused(folder.path(), config());
    assert!(matches!(error, OpenError::DirectIo { .. }), "{text}");
    assert!(text.contains("tmpfs") && text.contains("ext4 or XFS"), "{text}");
}

#[test]
fn a_folder_that_cannot_be_written_is_refused() {
    let folder = folder();
    let file = folder.path().join("not-a-folder");
    fs::write(&file, b"").unwrap();
    assert!(matches!(refused(&file, config()).0, OpenError::Io { .. }));
}

#[test]
fn a_short_read_is_an_error_and_does_not_poison() {
    let folder = folder();
    fill(folder.path());
    let directory = folder.path().to_owned();
    run(async move {
        let mut host = Host::open(&directory, FlushMethod::Fdatasync).await.unwrap();
        // The file loses its bytes behind our back.
        host.wal.read_entries(1, 1, 1 << 20, &mut host.disk).unwrap();
        fs::File::options().write(true).open(directory.join("0000.segment")).unwrap().set_len(0).unwrap();
        while host.reads.is_empty() {
            host.pump().await;
        }
        assert!(host.reads[0].result.is_err());
        assert!(!host.wal.is_poisoned());
    });
}

#[test]
fn measure_times_both_methods() {
    let folder = folder();
    let directory = folder.path().to_owned();
    let measured = run(async move { ringraft_wal::glommio::measure(&directory, 4096, 20).await.unwrap() });
    assert_eq!((measured.fdatasync.len(), measured.dsync_write.len()), (20, 20));
    let _ = measured.better();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
