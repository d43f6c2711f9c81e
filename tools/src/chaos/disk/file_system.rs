//! The FUSE side of a disk: requests of the kernel to files and back.
//!
//! Off the data path.
//! Invariant: reads, writes and flushes go through the queue, where faults wait for them; names and attributes do not,
//! as a kernel has them in memory. Nothing is cached by the kernel, so that what a fault changed is seen.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

use super::faults::{Fault, Faults, Kind};
use super::files::{Files, ROOT};
use super::queue::Queue;

/// Nothing is cached.
const NO_TIME: Duration = Duration::ZERO;
const WRITE_BYTES_MAX: u32 = 1 << 20;
const BACKGROUND_MAX: u16 = 256;
const OPENED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO.union(FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES);

/// The file system of one disk.
#[derive(Debug)]
pub(super) struct FileSystem {
    files: Arc<Files>,
    queue: Queue,
}

impl FileSystem {
    pub(super) fn new(files: Arc<Files>, faults: Arc<Faults>) -> Result<Self> {
        Ok(Self { files, queue: Queue::start(faults)? })
    }

    fn attributes(&self, path: &Path) -> io::Result<FileAttr> {
        let (inode, metadata) = self.files.look_up(path)?;
        Ok(attributes(inode, self.files.length(inode, metadata.len()), &metadata))
    }

    fn make_file(&self, path: &Path, mode: u32) -> io::Result<(FileAttr, u64)> {
        self.files.make_file(path, mode)?;
        let attributes = self.attributes(path)?;
        Ok((attributes, self.files.open(attributes.ino.0)?))
    }

    fn set_attributes(&self, inode: u64, mode: Option<u32>, size: Option<u64>) -> io::Result<FileAttr> {
        let path = self.files.path(inode)?;
        if let Some(length) = size {
            self.files.truncate(inode, length)?;
        }
        if let Some(mode) = mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o7777))?;
        }
        self.attributes(&path)
    }

    fn list(&self, inode: u64) -> io::Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let path = self.files.path(inode)?;
        let mut rows = vec![(inode, FileType::Directory, ".".into()), (ROOT, FileType::Directory, "..".into())];
        for entry in fs::read_dir(&path)? {
            let entry = entry?;
            let (inode, metadata) = self.files.look_up(&entry.path())?;
            rows.push((inode, kind(&metadata), entry.file_name()));
        }
        Ok(rows)
    }
}

fn kind(metadata: &Metadata) -> FileType {
    FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile)
}

fn attributes(inode: u64, length: u64, metadata: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanoseconds: i64| -> SystemTime {
        UNIX_EPOCH + Duration::new(seconds.try_into().unwrap_or(0), nanoseconds.try_into().unwrap_or(0))
    };
    FileAttr {
        ino: INodeNo(inode),
        size: length,
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: kind(metadata),
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4_096,
        flags: 0,
    }
}

/// The number of an error; one that has none is an I/O error.
fn errno(error: &io::Error) -> Errno {
    match (error.raw_os_error(), error.kind()) {
        (Some(number), _) => Errno::from_i32(number),
        (None, io::ErrorKind::NotFound) => Errno::ENOENT,
        (None, _) => Errno::EIO,
    }
}

/// What a request that met a fault is told.
fn refused<T>(_fault: Fault) -> io::Result<T> {
    Err(rustix::io::Errno::IO.into())
}

/// Answers a request that has no result.
fn answer(reply: ReplyEmpty, result: io::Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_entry(reply: ReplyEntry, result: io::Result<FileAttr>) {
    match result {
        Ok(attributes) => reply.entry(&NO_TIME, &attributes, Generation(0)),
        Err(error) => reply.error(errno(&error)),
    }
}

fn answer_attributes(reply: ReplyAttr, result: io::Result<FileAttr>) {
    match result {
        Ok(attributes) => reply.attr(&NO_TIME, &attributes),
        Err(error) => reply.error(errno(&error)),
    }
}

impl Filesystem for FileSystem {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // Both take what the kernel allows: less is slower, not wrong.
        let _ = config.set_max_write(WRITE_BYTES_MAX);
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.add_capabilities(InitFlags::FUSE_ASYNC_DIO);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        answer_entry(reply, self.files.child(parent.0, name).and_then(|path| self.attributes(&path)));
    }

    fn getattr(&self, _request: &Request, inode: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        answer_attributes(reply, self.files.path(inode.0).and_then(|path| self.attributes(&path)));
    }

    fn setattr(
        &self,
        _request: &Request,
        inode: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        answer_attributes(reply, self.set_attributes(inode.0, mode, size));
    }

    fn mkdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        let made = self.files.child(parent.0, name).and_then(|path| {
            self.files.make_folder(&path, mode & !umask)?;
            self.attributes(&path)
        });
        answer_entry(reply, made);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.files.child(parent.0, name).and_then(|path| self.files.remove(&path)));
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        answer(reply, self.files.child(parent.0, name).and_then(|path| self.files.remove_folder(&path)));
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let paths =
            self.files.child(parent.0, name).and_then(|from| Ok((from, self.files.child(new_parent.0, new_name)?)));
        answer(reply, paths.and_then(|(from, to)| self.files.rename(&from, &to)));
    }

    fn create(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.files.child(parent.0, name).and_then(|path| self.make_file(&path, mode & !umask));
        match made {
            Ok((attributes, handle)) => {
                reply.created(&NO_TIME, &attributes, Generation(0), FileHandle(handle), OPENED);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn open(&self, _request: &Request, inode: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.files.open(inode.0) {
            Ok(handle) => reply.opened(FileHandle(handle), OPENED),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let files = Arc::clone(&self.files);
        self.queue.push(Kind::Read, move |fault| {
            let read = fault.or_else(refused).and_then(|()| files.read(inode.0, handle.0, offset, size as usize));
            match read {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn write(
        &self,
        _request: &Request,
        inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let (files, bytes) = (Arc::clone(&self.files), data.to_vec());
        let durable = flags.0 & libc::O_DSYNC != 0;
        self.queue.push(Kind::Write, move |fault| {
            let result = match fault {
                Ok(()) => files.write(inode.0, handle.0, offset, &bytes, durable),
                Err(Fault::PowerLoss) => files
                    .tear(inode.0, offset, &bytes)
                    .map_err(io::Error::other)
                    .and_then(|()| refused(Fault::PowerLoss)),
                Err(Fault::Lie) => files.write(inode.0, handle.0, offset, &bytes, false),
                Err(Fault::Error) => refused(Fault::Error),
            };
            match result {
                Ok(()) => reply.written(bytes.len() as u32),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    fn flush(&self, _request: &Request, _inode: INodeNo, _handle: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        // A close is not a flush.
        reply.ok();
    }

    fn fsync(&self, _request: &Request, inode: INodeNo, handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let files = Arc::clone(&self.files);
        self.queue.push(Kind::Flush, move |fault| {
            let result = match fault {
                Ok(()) => files.flush(inode.0, handle.0),
                Err(Fault::Lie) => Ok(()),
                Err(fault) => {
                    files.drop_unsynced(inode.0);
                    refused(fault)
                }
            };
            answer(reply, result);
        });
    }

    fn fsyncdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let files = Arc::clone(&self.files);
        self.queue.push(Kind::Flush, move |fault| {
            let result = match fault {
                Ok(()) => files.flush_names(inode.0),
                Err(Fault::Lie) => Ok(()),
                Err(fault) => refused(fault),
            };
            answer(reply, result);
        });
    }

    fn release(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.files.close(handle.0);
        reply.ok();
    }

    fn readdir(&self, _request: &Request, inode: INodeNo, _handle: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let rows = match self.list(inode.0) {
            Ok(rows) => rows,
            Err(error) => return reply.error(errno(&error)),
        };
        for (number, (inode, kind, name)) in rows.into_iter().enumerate().skip(offset as usize) {
            if reply.add(INodeNo(inode), number as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _request: &Request, _inode: INodeNo, reply: ReplyStatfs) {
        let found = self.files.path(ROOT).and_then(|path| Ok(statvfs(&path)?));
        match found {
            Ok(found) => reply.statfs(
                found.f_blocks,
                found.f_bfree,
                found.f_bavail,
                found.f_files,
                found.f_ffree,
                found.f_bsize as u32,
                255,
                found.f_frsize as u32,
            ),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn fallocate(
        &self,
        _request: &Request,
        _inode: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let allocated = self.files.file(handle.0).and_then(|file| {
            let mode = FallocateFlags::from_bits(mode as u32).ok_or(io::ErrorKind::InvalidInput)?;
            Ok(fallocate(&*file, mode, offset, length)?)
        });
        answer(reply, allocated);
    }
}
