//! The production disk: io_uring and direct I/O through glommio, and opening a WAL's folder.
//!
//! Off the data path itself (start), 6a/9 (writes).
//! Each operation is a task on the same executor that ends in a queue of [`Completions`]; nothing wakes it from another
//! thread. Invariants: a write is reported done after its own fdatasync (or is one `O_DSYNC` write); a short write is an
//! error; nothing is retried; the folder is locked for as long as the disk lives.
//! It decides nothing: what is written where comes from [`Wal`](crate::Wal).

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ::glommio::io::{Directory, DmaFile, OpenOptions, ReadResult};
use ::glommio::{GlommioError, allocate_dma_buffer_global};

use crate::config::ValidConfig;
use crate::disk::{Disk, DiskCompletion, DiskError, DiskOperation, Done, FileName, FileNumber};
use crate::folder;
use crate::meta::{self, Meta};
use crate::record::{RecordError, RecordView};
use crate::recovery::{Recovered, Recovery, RecoveryError};
use crate::snapshots::SnapshotFile;
use crate::snapshots::glommio::SnapshotFolder;

pub use crate::folder::file_system_of;

/// Aligned memory for direct I/O.
pub type DmaBuffer = ::glommio::io::DmaBuffer;

/// Zeros go in pieces of this, with an await between them, so that other work goes on.
const PIECE_BYTES: usize = 1 << 20;
/// Bytes of a log that are read at once.
const READ_PIECE_BYTES: usize = 256 << 10;
const META_TEMPORARY: &str = "wal.meta.new";

/// How a batch is made durable. Which is faster depends on the device: [`measure`] tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlushMethod {
    /// A write, then fdatasync.
    #[default]
    Fdatasync,
    /// One write on a handle opened with `O_DSYNC`.
    DsyncWrite,
}

/// Memory of a [`GlommioDisk`].
#[derive(Debug)]
pub enum Buffer {
    /// To be written.
    Write(Rc<DmaBuffer>),
    /// Was read.
    Read(ReadResult),
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        match self {
            Self::Write(buffer) => buffer.as_bytes(),
            Self::Read(result) => result,
        }
    }
}

/// Why a WAL's folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// What is in the folder cannot be used.
    #[error("{}: {error}", directory.display())]
    Recovery {
        /// The folder.
        directory: PathBuf,
        /// Why.
        error: Box<RecoveryError>,
    },
    /// Another process has it open.
    #[error("{}: another process uses this write-ahead log; stop it first", directory.display())]
    Locked {
        /// The folder.
        directory: PathBuf,
    },
    /// The file system does not do direct I/O.
    #[error(
        "{}: the file system ({file_system}) does not support direct I/O; put the data folder on ext4 or XFS \
         (not tmpfs, ramfs or a network file system)",
        directory.display()
    )]
    DirectIo {
        /// The folder.
        directory: PathBuf,
        /// Its type.
        file_system: String,
    },
    /// The device wants larger blocks.
    #[error("{}: the device needs direct I/O in units of {device} bytes; set wal.block_bytes to that or a multiple", directory.display())]
    Alignment {
        /// The folder.
        directory: PathBuf,
        /// The device's unit.
        device: u64,
    },
    /// No space for the first segments.
    #[error("{}: no space for the first segments ({needed} bytes): free some, or set wal.segment_bytes lower for a new folder", directory.display())]
    NoSpace {
        /// The folder.
        directory: PathBuf,
        /// What is needed.
        needed: u64,
    },
    /// The operating system said no.
    #[error("{}: cannot {operation}: {error}", path.display())]
    Io {
        /// What was done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// The error.
        error: io::Error,
    },
}

pub(crate) fn io_error(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |error| OpenError::Io { operation, path: path.to_owned(), error }
}

pub(crate) fn glommio_error(operation: &'static str, path: &Path) -> impl FnOnce(GlommioError<()>) -> OpenError {
    move |error| OpenError::Io { operation, path: path.to_owned(), error: error.into() }
}

/// The ends of operations, for the host to hand to [`Wal::complete`](crate::Wal::complete).
#[derive(Clone)]
pub struct Completions(Rc<Queue>);

struct Queue {
    ended: RefCell<VecDeque<DiskCompletion<Buffer>>>,
    notify: Box<dyn Fn()>,
}

impl Completions {
    /// A queue that calls `notify` for each operation that ended, on the executor that runs the disk.
    pub fn new(notify: impl Fn() + 'static) -> Self {
        Self(Rc::new(Queue { ended: RefCell::default(), notify: Box::new(notify) }))
    }

    /// The next operation that ended.
    #[must_use]
    pub fn pop(&self) -> Option<DiskCompletion<Buffer>> {
        self.0.ended.borrow_mut().pop_front()
    }

    fn push(&self, completion: DiskCompletion<Buffer>) {
        self.0.ended.borrow_mut().push_back(completion);
        (self.0.notify)();
    }
}

struct Folder {
    path: PathBuf,
    handle: Rc<Directory>,
    snapshots: SnapshotFolder,
    config: ValidConfig,
    flush_method: FlushMethod,
    files: RefCell<Vec<Rc<DmaFile>>>,
    completions: Completions,
    /// Held, not read: two processes must not write one WAL.
    _lock: File,
}

/// The disk of one shard.
pub struct GlommioDisk(Rc<Folder>);

/// An opened WAL folder.
pub struct Opened {
    /// The disk to give to the [`Wal`](crate::Wal).
    pub disk: GlommioDisk,
    /// What the log holds.
    pub recovered: Recovered,
}

/// Opens the WAL in `directory`, making it if it is new, and recovers it. Call it on the executor that will run the WAL.
///
/// # Errors
/// Whatever keeps the WAL from being used; each says what to do.
pub async fn open(
    directory: &Path,
    config: &ValidConfig,
    flush_method: FlushMethod,
    completions: Completions,
) -> Result<Opened, OpenError> {
    fs::create_dir_all(directory).map_err(io_error("create the folder", directory))?;
    let directory = &directory.canonicalize().map_err(io_error("open the folder", directory))?;
    if let Some(parent) = directory.parent() {
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(io_error("flush the folder", parent))?;
    }
    let lock = folder::lock(directory)?;
    folder::check_direct_io(directory)?;
    let handle = Rc::new(Directory::open(directory).await.map_err(glommio_error("open the folder", directory))?);
    let opened = Folder {
        path: directory.clone(),
        snapshots: SnapshotFolder::new(directory.clone(), Rc::clone(&handle)),
        handle,
        config: config.clone(),
        flush_method,
        files: RefCell::default(),
        completions,
        _lock: lock,
    };
    let file_count = opened.read_meta().await?;
    if let Some(error) = folder::uncounted(directory, file_count).map_err(io_error("look into", directory))? {
        return Err(opened.refused(error));
    }
    opened.open_segments(file_count).await?;
    opened.make_first_segments().await?;
    let snapshots = opened.snapshots.clear_parts().await?;
    let recovered = opened.recover(snapshots).await?;
    Ok(Opened { disk: GlommioDisk(Rc::new(opened)), recovered })
}

pub(crate) fn disk_error(operation: &'static str, file: impl Into<FileName>, error: GlommioError<()>) -> DiskError {
    let file = file.into();
    // Before the conversion: an `io::Error` made from an enhanced one has lost the number.
    let errno = error.raw_os_error();
    let error: io::Error = error.into();
    match errno.or(error.raw_os_error()) {
        Some(libc::ENOSPC | libc::EDQUOT) => DiskError::NoSpace,
        errno => DiskError::Io { operation, file, errno: errno.unwrap_or(0), message: error.to_string() },
    }
}

pub(crate) fn short(operation: &'static str, file: impl Into<FileName>, done: u64, expected: u64) -> DiskError {
    DiskError::Short { operation, file: file.into(), done, expected }
}

impl Folder {
    fn segment_path(&self, file: FileNumber) -> PathBuf {
        self.path.join(file.to_string())
    }

    fn refused(&self, error: RecoveryError) -> OpenError {
        OpenError::Recovery { directory: self.path.clone(), error: Box::new(error) }
    }

    /// The number of segment files; makes `wal.meta` in a new folder.
    async fn read_meta(&self) -> Result<u32, OpenError> {
        let path = self.path.join(meta::FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => {
                let meta = Meta::decode(&bytes).map_err(|error| self.refused(error))?;
                meta.check(&self.config).map_err(|error| self.refused(error))?;
                Ok(meta.file_count)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if folder::has_segments(&self.path).map_err(io_error("read the folder", &self.path))? {
                    return Err(self.refused(RecoveryError::MetaMissing));
                }
                self.write_meta(0).await.map_err(glommio_error("write", &path))?;
                Ok(0)
            }
            Err(error) => Err(io_error("read", &path)(error)),
        }
    }

    /// Replaces `wal.meta`: written aside, flushed, renamed, directory flushed.
    async fn write_meta(&self, file_count: u32) -> Result<(), GlommioError<()>> {
        let aside = self.path.join(META_TEMPORARY);
        let file = DmaFile::create(&aside).await?;
        let mut buffer = file.alloc_dma_buffer(meta::FILE_BYTES);
        buffer.as_bytes_mut().copy_from_slice(&Meta::new(&self.config, file_count).encode());
        let written = file.write_at(buffer, 0).await?;
        if written != meta::FILE_BYTES {
            return Err(io::Error::from(io::ErrorKind::WriteZero).into());
        }
        file.fdatasync().await?;
        file.close().await?;
        fs::rename(&aside, self.path.join(meta::FILE_NAME))?;
        self.handle.sync().await
    }

    async fn open_segment(&self, file: FileNumber) -> Result<DmaFile, GlommioError<()>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        if self.flush_method == FlushMethod::DsyncWrite {
            options.custom_flags(libc::O_DSYNC);
        }
        options.dma_open(self.segment_path(file)).await
    }

    async fn open_segments(&self, file_count: u32) -> Result<(), OpenError> {
        for number in 0..file_count {
            let file = FileNumber(number);
            let path = self.segment_path(file);
            match fs::metadata(&path) {
                Ok(found) if found.len() != self.config.segment_bytes => {
                    let (expected, found) = (self.config.segment_bytes, found.len());
                    return Err(self.refused(RecoveryError::FileSize { file, expected, found }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(self.refused(RecoveryError::MissingFile { file, expected: file_count }));
                }
                Err(error) => return Err(io_error("open", &path)(error)),
            }
            let opened = self.open_segment(file).await.map_err(glommio_error("open", &path))?;
            self.files.borrow_mut().push(Rc::new(opened));
        }
        Ok(())
    }

    /// A new WAL starts with one segment to write and the ready ones.
    async fn make_first_segments(&self) -> Result<(), OpenError> {
        let wanted = (self.config.segments_ready + 1).min(self.config.segments_max);
        let have = self.files.borrow().len() as u32;
        for number in have..wanted {
            let file = FileNumber(number);
            self.create_segment(file).await.map_err(|error| match error {
                DiskError::NoSpace => OpenError::NoSpace {
                    directory: self.path.clone(),
                    needed: u64::from(wanted - number) * self.config.segment_bytes,
                },
                error => io_error("make", &self.segment_path(file))(io::Error::other(error.to_string())),
            })?;
        }
        let device = self.files.borrow()[0].alignment();
        if !(self.config.block_bytes as u64).is_multiple_of(device) {
            return Err(OpenError::Alignment { directory: self.path.clone(), device });
        }
        Ok(())
    }

    /// Makes a segment file full of zeros, durable, counted in `wal.meta`, and opens it.
    async fn create_segment(&self, file: FileNumber) -> Result<(), DiskError> {
        let path = self.segment_path(file);
        let filled = self.fill_segment(file, &path).await;
        if filled.is_err() {
            // Gives back the space of a half-made file; it is not counted yet, so nothing is lost.
            File::options().write(true).open(&path).and_then(|made| made.set_len(0)).ok();
        }
        filled?;
        self.handle.sync().await.map_err(|error| disk_error("flush the folder of", file, error))?;
        self.write_meta(file.0 + 1).await.map_err(|error| disk_error("write wal.meta for", file, error))?;
        let opened = self.open_segment(file).await.map_err(|error| disk_error("open", file, error))?;
        self.files.borrow_mut().push(Rc::new(opened));
        Ok(())
    }

    async fn fill_segment(&self, file: FileNumber, path: &Path) -> Result<(), DiskError> {
        let failed = |operation| move |error| disk_error(operation, file, error);
        let made = DmaFile::create(path).await.map_err(failed("create"))?;
        let bytes = self.config.segment_bytes;
        made.pre_allocate(bytes, false).await.map_err(failed("preallocate"))?;
        let piece = PIECE_BYTES.min(bytes as usize);
        let mut zeros = allocate_dma_buffer_global(piece);
        zeros.as_bytes_mut().fill(0);
        let mut zeros = Rc::new(zeros);
        let mut offset = 0;
        while offset < bytes {
            let length = (piece as u64).min(bytes - offset);
            if length < piece as u64 {
                let mut rest = allocate_dma_buffer_global(length as usize);
                rest.as_bytes_mut().fill(0);
                zeros = Rc::new(rest);
            }
            let done = made.write_rc_at(Rc::clone(&zeros), offset).await.map_err(failed("write zeros to"))? as u64;
            if done != length {
                return Err(short("write zeros", file, done, length));
            }
            offset += length;
        }
        made.fdatasync().await.map_err(failed("flush"))?;
        made.close().await.map_err(failed("close"))
    }

    /// Reads a segment file in pieces: flushes of others on this disk wait for one, and other threads of this processor for
    /// what `take` does with it.
    async fn read_segment(&self, file: FileNumber, mut take: impl FnMut(&[u8])) -> Result<(), OpenError> {
        let path = self.segment_path(file);
        let handle = Rc::clone(&self.files.borrow()[file.0 as usize]);
        let mut offset = 0;
        while offset < self.config.segment_bytes {
            let length = (READ_PIECE_BYTES as u64).min(self.config.segment_bytes - offset) as usize;
            let piece = handle.read_at_aligned(offset, length).await.map_err(glommio_error("read", &path))?;
            if piece.len() != length {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(io_error("read", &path)(error));
            }
            take(&piece);
            offset += length as u64;
        }
        Ok(())
    }

    /// Reads all segments from the device, one at a time, and decides what the log is.
    async fn recover(&self, snapshots: Vec<SnapshotFile>) -> Result<Recovered, OpenError> {
        let file_count = self.files.borrow().len() as u32;
        let mut recovery = Recovery::new(&self.config, file_count);
        snapshots.into_iter().for_each(|file| recovery.snapshot(file));
        let mut unread = Vec::new();
        for number in 0..file_count {
            let file = FileNumber(number);
            let mut scan = recovery.begin_segment(file);
            self.read_segment(file, |piece| {
                unread.extend_from_slice(piece);
                let from = scan.from();
                scan.advance(&unread);
                unread.drain(..(scan.from() - from) as usize);
            })
            .await?;
            recovery.end_segment(scan).map_err(|error| self.refused(error))?;
            unread.clear();
        }
        recovery.finish().map_err(|error| self.refused(error))
    }

    async fn write(
        &self,
        file: FileNumber,
        offset: u64,
        buffer: Rc<Buffer>,
        length: usize,
    ) -> Result<Done<Buffer>, DiskError> {
        let handle = Rc::clone(&self.files.borrow()[file.0 as usize]);
        let Buffer::Write(bytes) = &*buffer else { unreachable!("the WAL writes buffers it allocated") };
        assert_eq!(bytes.len(), length, "a batch's buffer is trimmed to its length");
        let done =
            handle.write_rc_at(Rc::clone(bytes), offset).await.map_err(|error| disk_error("write", file, error))?;
        if done != length {
            return Err(short("write", file, done as u64, length as u64));
        }
        if self.flush_method == FlushMethod::Fdatasync {
            handle.fdatasync().await.map_err(|error| disk_error("flush", file, error))?;
        }
        Ok(Done::Written)
    }

    async fn read(&self, file: FileNumber, offset: u64, length: usize) -> Result<Done<Buffer>, DiskError> {
        let handle = Rc::clone(&self.files.borrow()[file.0 as usize]);
        let read = handle.read_at_aligned(offset, length).await.map_err(|error| disk_error("read", file, error))?;
        if read.len() != length {
            return Err(short("read", file, read.len() as u64, length as u64));
        }
        Ok(Done::Read(Buffer::Read(read)))
    }
}

impl GlommioDisk {
    /// Calls `visit` with every live entry that recovery found, group by group in index order; reads one segment at a time.
    ///
    /// # Errors
    /// The disk, or a record that changed since recovery read it.
    pub async fn replay(&self, recovered: &Recovered, visit: &mut dyn FnMut(RecordView<'_>)) -> Result<(), OpenError> {
        let mut image = Vec::with_capacity(self.0.config.segment_bytes as usize);
        for file in recovered.replay_order() {
            image.clear();
            self.0.read_segment(file, |piece| image.extend_from_slice(piece)).await?;
            let changed = |error: RecordError| {
                io_error("replay", &self.0.segment_path(file))(io::Error::other(error.to_string()))
            };
            recovered.replay_segment(file, &image, visit).map_err(changed)?;
        }
        Ok(())
    }

    /// Waits for the operations under way, then lets go of the folder: it can be opened again at once. Their ends are left
    /// in the queue. Dropping the disk instead lets go when the last operation ends.
    pub async fn close(self) {
        while Rc::strong_count(&self.0) > 1 {
            ::glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The queue its operations end in.
    #[must_use]
    pub fn completions(&self) -> Completions {
        self.0.completions.clone()
    }
}

impl Disk for GlommioDisk {
    type Buffer = Buffer;

    fn allocate(&mut self, bytes: usize) -> Buffer {
        Buffer::Write(Rc::new(allocate_dma_buffer_global(bytes)))
    }

    fn bytes_mut(buffer: &mut Buffer) -> &mut [u8] {
        let Buffer::Write(bytes) = buffer else { unreachable!("the WAL fills buffers it allocated") };
        Rc::get_mut(bytes).expect("a buffer in flight is not written to").as_bytes_mut()
    }

    fn trim(buffer: &mut Buffer, bytes: usize) {
        let Buffer::Write(memory) = buffer else { unreachable!("the WAL trims buffers it allocated") };
        Rc::get_mut(memory).expect("a buffer in flight is not trimmed").trim_to_size(bytes);
    }

    fn submit(&mut self, operation: DiskOperation<Buffer>) {
        let folder = Rc::clone(&self.0);
        ::glommio::spawn_local(async move {
            let ticket = operation.ticket();
            let result = match operation {
                DiskOperation::Write { file, offset, buffer, length, .. } => {
                    folder.write(file, offset, buffer, length).await
                }
                DiskOperation::Read { file, offset, length, .. } => folder.read(file, offset, length).await,
                DiskOperation::CreateSegment { file, .. } => folder.create_segment(file).await.map(|()| Done::Created),
                DiskOperation::WriteSnapshot { snapshot, offset, buffer, .. } => {
                    folder.snapshots.write(snapshot, offset, buffer).await.map(|()| Done::Written)
                }
                DiskOperation::FinishSnapshot { snapshot, bytes, .. } => {
                    folder.snapshots.finish(snapshot, bytes).await.map(|()| Done::Finished)
                }
                DiskOperation::ReadSnapshot { snapshot, offset, length, .. } => {
                    folder.snapshots.read(snapshot, offset, length).await.map(|read| Done::Read(Buffer::Read(read)))
                }
                DiskOperation::RemoveSnapshot { snapshot, part, .. } => {
                    folder.snapshots.remove(snapshot, part).await.map(|()| Done::Removed)
                }
            };
            folder.completions.push(DiskCompletion { ticket, result });
        })
        .detach();
    }
}

/// What [`measure`] found: one duration per durable write.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// Direct write and fdatasync.
    pub fdatasync: Vec<Duration>,
    /// One `O_DSYNC` direct write.
    pub dsync_write: Vec<Duration>,
}

impl Measured {
    /// The method with the lower median.
    #[must_use]
    pub fn better(&self) -> FlushMethod {
        let median = |durations: &[Duration]| {
            let mut sorted = durations.to_vec();
            sorted.sort_unstable();
            sorted.get(sorted.len() / 2).copied().unwrap_or(Duration::MAX)
        };
        if median(&self.dsync_write) < median(&self.fdatasync) {
            FlushMethod::DsyncWrite
        } else {
            FlushMethod::Fdatasync
        }
    }
}

/// Times durable writes of one block with both methods, alternating, on a scratch file in `directory`.
///
/// # Errors
/// The file system cannot do direct I/O, or has no space.
pub async fn measure(directory: &Path, block_bytes: usize, rounds: usize) -> Result<Measured, OpenError> {
    const BLOCKS: usize = 64;
    folder::check_direct_io(directory)?;
    let path = directory.join("wal.measure");
    let failed = || glommio_error("measure", &path);
    let plain = DmaFile::create(&path).await.map_err(failed())?;
    let mut buffer = allocate_dma_buffer_global(block_bytes * BLOCKS);
    buffer.as_bytes_mut().fill(0);
    plain.write_at(buffer, 0).await.map_err(failed())?;
    plain.fdatasync().await.map_err(failed())?;
    let mut options = OpenOptions::new();
    let dsync = options.write(true).custom_flags(libc::O_DSYNC).dma_open(&path).await.map_err(failed())?;
    let mut block = allocate_dma_buffer_global(block_bytes);
    block.as_bytes_mut().fill(0x5A);
    let block = Rc::new(block);
    let mut measured = Measured::default();
    for round in 0..rounds {
        let offset = (round % BLOCKS * block_bytes) as u64;
        let start = Instant::now();
        plain.write_rc_at(Rc::clone(&block), offset).await.map_err(failed())?;
        plain.fdatasync().await.map_err(failed())?;
        measured.fdatasync.push(start.elapsed());
        let start = Instant::now();
        dsync.write_rc_at(Rc::clone(&block), offset).await.map_err(failed())?;
        measured.dsync_write.push(start.elapsed());
    }
    plain.close().await.map_err(failed())?;
    dsync.close().await.map_err(failed())?;
    fs::remove_file(&path).map_err(io_error("remove", &path))?;
    Ok(measured)
}
