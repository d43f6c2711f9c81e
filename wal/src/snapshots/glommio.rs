//! Snapshot files on the production disk: direct I/O through glommio.
//!
//! Off the data path.
//! Every operation opens the file it needs and closes it again, so no descriptor outlives a snapshot that is given up.
//! Invariants: a file is renamed only after its bytes are flushed and its size is what was written; the end of a rename or
//! removal is told after the folder is flushed; a short read or write is an error; nothing is retried.
//! One large file that is to go is kept as a part file, and the next snapshot is written over it. What is freed after all
//! goes in steps, as a part file: to free a gigabyte at once takes ext4 with `discard` up to half a second, in which no
//! flush ends.
//! It decides nothing and looks into no snapshot.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use ::glommio::GlommioError;
use ::glommio::io::{Directory, DmaFile, OpenOptions, ReadResult};
use ::glommio::timer::sleep;

use super::{SnapshotFile, SnapshotName};
use crate::disk::{DiskError, FileName};
use crate::folder;
use crate::glommio::{Buffer, OpenError, disk_error, io_error, short};

type Outcome<T> = Result<T, GlommioError<()>>;

/// Smaller files are freed in no time.
const SPARE_BYTES_MIN: u64 = 8 << 20;

/// So much of a file is freed at once: a millisecond with `discard`, in which no flush ends.
const FREE_BYTES: u64 = 4 << 20;

/// Between two of these steps: flushes have most of the time.
const FREE_PAUSE: Duration = Duration::from_millis(4);

/// The snapshots of one WAL's folder.
pub(crate) struct SnapshotFolder {
    path: PathBuf,
    handle: Rc<Directory>,
    /// A part file that nobody writes: the next snapshot takes its room.
    spare: Cell<Option<SnapshotName>>,
}

/// Closes the file whatever came of what was done with it; the first error counts.
async fn close<T>(file: DmaFile, outcome: Outcome<T>) -> Outcome<T> {
    let closed = file.close().await;
    let value = outcome?;
    closed.map(|()| value)
}

impl SnapshotFolder {
    pub(crate) fn new(path: PathBuf, handle: Rc<Directory>) -> Self {
        Self { path, handle, spare: Cell::new(None) }
    }

    fn path_of(&self, file: FileName) -> PathBuf {
        self.path.join(file.to_string())
    }

    /// Removes what earlier processes did not finish; returns the finished files.
    pub(crate) async fn clear_parts(&self) -> Result<Vec<SnapshotFile>, OpenError> {
        let (finished, parts) = folder::snapshots(&self.path).map_err(io_error("read the folder", &self.path))?;
        for part in parts {
            let path = self.path_of(FileName::Part(part));
            self.remove(part, true).await.map_err(|error| io_error("remove", &path)(io::Error::other(error)))?;
        }
        Ok(finished)
    }

    pub(crate) async fn write(&self, snapshot: SnapshotName, offset: u64, buffer: Rc<Buffer>) -> Result<(), DiskError> {
        let part = FileName::Part(snapshot);
        let Buffer::Write(bytes) = &*buffer else { unreachable!("the WAL writes buffers it allocated") };
        if offset == 0
            && let Some(spare) = self.spare.take()
        {
            match fs::rename(self.path_of(FileName::Part(spare)), self.path_of(part)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(disk_error("reuse", FileName::Part(spare), error.into()));
                }
                _ => {}
            }
        }
        let mut options = OpenOptions::new();
        options.write(true).create(offset == 0);
        let file = options.dma_open(self.path_of(part)).await.map_err(|error| disk_error("open", part, error))?;
        let written = file.write_rc_at(Rc::clone(bytes), offset).await;
        let done = close(file, written).await.map_err(|error| disk_error("write", part, error))?;
        if done == bytes.len() { Ok(()) } else { Err(short("write", part, done as u64, bytes.len() as u64)) }
    }

    pub(crate) async fn finish(&self, snapshot: SnapshotName, bytes: u64) -> Result<(), DiskError> {
        let (part, finished) = (FileName::Part(snapshot), FileName::Snapshot(snapshot));
        let mut options = OpenOptions::new();
        let opened = options.write(true).dma_open(self.path_of(part)).await;
        let file = opened.map_err(|error| disk_error("open", part, error))?;
        let flushed = Self::flush_to(&file, bytes).await;
        let size = close(file, flushed).await.map_err(|error| disk_error("flush", part, error))?;
        if size != bytes {
            return Err(short("finish", part, size, bytes));
        }
        let renamed = fs::rename(self.path_of(part), self.path_of(finished));
        renamed.map_err(|error| disk_error("rename", part, error.into()))?;
        self.handle.sync().await.map_err(|error| disk_error("flush the folder of", finished, error))
    }

    /// Cuts off what a reused file had behind the snapshot's `bytes`, flushes, and returns the size.
    async fn flush_to(file: &DmaFile, bytes: u64) -> Outcome<u64> {
        Self::shrink_to(file, bytes).await?;
        file.fdatasync().await?;
        file.file_size().await
    }

    /// Frees what a file has behind `bytes`, in steps. The helper thread of glommio does them: should its wake be lost, the
    /// next tick is one.
    async fn shrink_to(file: &DmaFile, bytes: u64) -> Outcome<()> {
        let mut size = file.file_size().await?;
        while size > bytes {
            size = bytes.max(size.saturating_sub(FREE_BYTES));
            file.truncate(size).await?;
            sleep(FREE_PAUSE).await;
        }
        Ok(())
    }

    pub(crate) async fn read(
        &self,
        snapshot: SnapshotName,
        offset: u64,
        length: usize,
    ) -> Result<ReadResult, DiskError> {
        let name = FileName::Snapshot(snapshot);
        let file = DmaFile::open(self.path_of(name)).await.map_err(|error| disk_error("open", name, error))?;
        let read = file.read_at_aligned(offset, length).await;
        let read = close(file, read).await.map_err(|error| disk_error("read", name, error))?;
        if read.len() == length { Ok(read) } else { Err(short("read", name, read.len() as u64, length as u64)) }
    }

    /// The file is gone, or is the spare one.
    async fn free(&self, name: FileName, snapshot: SnapshotName) -> Outcome<()> {
        let (path, part) = (self.path_of(name), self.path_of(FileName::Part(snapshot)));
        if fs::metadata(&path)?.len() < SPARE_BYTES_MIN {
            return Ok(fs::remove_file(path)?);
        }
        fs::rename(path, &part)?;
        if self.spare.get().is_none() {
            self.spare.set(Some(snapshot));
            return Ok(());
        }
        self.handle.sync().await?; // whatever is cut off, no finished file has its name
        let file = OpenOptions::new().write(true).dma_open(&part).await?;
        let freed = Self::shrink_to(&file, 0).await;
        close(file, freed).await?;
        Ok(fs::remove_file(part)?)
    }

    pub(crate) async fn remove(&self, snapshot: SnapshotName, part: bool) -> Result<(), DiskError> {
        let name = if part { FileName::Part(snapshot) } else { FileName::Snapshot(snapshot) };
        match self.free(name, snapshot).await {
            Err(GlommioError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(disk_error("remove", name, error)),
            Ok(()) => {}
        }
        self.handle.sync().await.map_err(|error| disk_error("flush the folder of", name, error))
    }
}
