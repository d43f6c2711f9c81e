//! What is checked of a WAL's folder before its files are read: who uses it, what it is on, what must not be there.
//!
//! Off the data path.
//! Plain system calls; of the log itself it decides nothing.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::batch;
use crate::disk::FileNumber;
use crate::glommio::{OpenError, io_error};
use crate::recovery::{Recovery, RecoveryError};
use crate::snapshots::{PART_SUFFIX, SnapshotFile, SnapshotName};

const LOCK_NAME: &str = "wal.lock";
const PROBE_NAME: &str = "wal.probe";

/// Locks the folder for as long as the file lives.
pub(crate) fn lock(directory: &Path) -> Result<File, OpenError> {
    let path = directory.join(LOCK_NAME);
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io_error("open the lock file", &path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::Locked { directory: directory.to_owned() }),
        Err(fs::TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

/// Refuses file systems that keep data in memory or cannot open with `O_DIRECT`.
pub(crate) fn check_direct_io(directory: &Path) -> Result<(), OpenError> {
    let file_system = file_system_of(directory);
    let refused = || OpenError::DirectIo { directory: directory.to_owned(), file_system: file_system.clone() };
    if ["tmpfs", "ramfs", "devtmpfs"].contains(&file_system.as_str()) {
        return Err(refused());
    }
    let path = directory.join(PROBE_NAME);
    let opened = File::options().create(true).truncate(true).write(true).custom_flags(libc::O_DIRECT).open(&path);
    let result = match opened {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(refused()),
        Err(error) => Err(io_error("create a file", &path)(error)),
    };
    fs::remove_file(&path).ok(); // it may not have been made
    result
}

/// The type of the file system a folder is on, from the kernel's list of mounts.
#[must_use]
pub fn file_system_of(directory: &Path) -> String {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut best = (0, String::from("unknown"));
    for line in mounts.lines() {
        let Some((mount, types)) = line.split_once(" - ") else { continue };
        let (Some(point), Some(kind)) = (mount.split(' ').nth(4), types.split(' ').next()) else { continue };
        let point = point.replace("\\040", " ");
        if directory.starts_with(&point) && point.len() >= best.0 {
            best = (point.len(), kind.to_owned());
        }
    }
    best.1
}

/// Whether any segment file is there, also when the first is not.
pub(crate) fn has_segments(directory: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(directory)? {
        if Path::new(&entry?.file_name()).extension().is_some_and(|extension| extension == "segment") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The finished snapshot files, and the names of those that are being written, both in order.
pub(crate) fn snapshots(directory: &Path) -> io::Result<(Vec<SnapshotFile>, Vec<SnapshotName>)> {
    let (mut finished, mut parts) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(file_name) = file_name.to_str() else { continue };
        if let Some(name) = SnapshotName::parse(file_name) {
            finished.push(SnapshotFile { name, bytes: entry.metadata()?.len() });
        }
        parts.extend(file_name.strip_suffix(PART_SUFFIX).and_then(SnapshotName::parse));
    }
    finished.sort_unstable();
    parts.sort_unstable();
    Ok((finished, parts))
}

/// The file behind the `counted` ones may be half made, but nothing was written to it.
pub(crate) fn uncounted(directory: &Path, counted: u32) -> io::Result<Option<RecoveryError>> {
    let file = FileNumber(counted);
    let mut start = Vec::new();
    match File::open(directory.join(file.to_string())) {
        Ok(opened) => opened.take(batch::HEADER_BYTES as u64).read_to_end(&mut start)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Recovery::holds_batches(&start).then_some(RecoveryError::Uncounted { file, counted }))
}
