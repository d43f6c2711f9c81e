//! Snapshot files on the production disk: direct I/O through glommio.
//!
//! Off the data path.
//! Every operation opens the file it needs and closes it again, so no descriptor outlives a snapshot that is given up.
//! Invariants: a file is renamed only after its bytes are flushed and its size is what was written; the end of a rename or
//! removal is told after the folder is flushed; a short read or write is an error; nothing is retried.
//! It decides nothing and looks into no snapshot.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;

use ::glommio::GlommioError;
use ::glommio::io::{Directory, DmaFile, OpenOptions, ReadResult};

use super::{SnapshotFile, SnapshotName};
use crate::disk::{DiskError, FileName};
use crate::folder;
use crate::glommio::{Buffer, OpenError, disk_error, io_error, short};

type Outcome<T> = Result<T, GlommioError<()>>;

/// The snapshots of one WAL's folder.
pub(crate) struct SnapshotFolder {
    path: PathBuf,
    handle: Rc<Directory>,
}

/// Closes the file whatever came of what was done with it; the first error counts.
async fn close<T>(file: DmaFile, outcome: Outcome<T>) -> Outcome<T> {
    let closed = file.close().await;
    let value = outcome?;
    closed.map(|()| value)
}

impl SnapshotFolder {
    pub(crate) fn new(path: PathBuf, handle: Rc<Directory>) -> Self {
        Self { path, handle }
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
        let mut options = OpenOptions::new();
        options.write(true).create(offset == 0).truncate(offset == 0);
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
        let flushed = match file.fdatasync().await {
            Ok(()) => file.file_size().await,
            Err(error) => Err(error),
        };
        let size = close(file, flushed).await.map_err(|error| disk_error("flush", part, error))?;
        if size != bytes {
            return Err(short("finish", part, size, bytes));
        }
        let renamed = fs::rename(self.path_of(part), self.path_of(finished));
        renamed.map_err(|error| disk_error("rename", part, error.into()))?;
        self.handle.sync().await.map_err(|error| disk_error("flush the folder of", finished, error))
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

    pub(crate) async fn remove(&self, snapshot: SnapshotName, part: bool) -> Result<(), DiskError> {
        let name = if part { FileName::Part(snapshot) } else { FileName::Snapshot(snapshot) };
        match fs::remove_file(self.path_of(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(disk_error("remove", name, error.into()));
            }
            _ => {}
        }
        self.handle.sync().await.map_err(|error| disk_error("flush the folder of", name, error))
    }
}
