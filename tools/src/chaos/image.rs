//! A small disk that can be filled up: an ext4 file system in a file, mounted over a loop device.
//!
//! Off the data path.
//! Invariant: dropping it unmounts it; the loop device goes with the mount.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::program;

const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);
const FILLER: &str = "filler";

/// A mounted image.
#[derive(Debug)]
pub struct Image {
    at: PathBuf,
    filler: PathBuf,
}

impl Image {
    /// Makes a file system of `bytes` in `file` and mounts it at `at`, which is then an empty folder.
    ///
    /// # Errors
    /// When a program or the rights are missing.
    pub fn mount(file: &Path, bytes: u64, at: &Path) -> Result<Self> {
        fs::create_dir_all(at).with_context(|| format!("cannot make {}", at.display()))?;
        let image = File::create(file).and_then(|image| image.set_len(bytes));
        image.with_context(|| format!("cannot make {}", file.display()))?;
        program::run("mkfs.ext4", &["-q", "-F", "-m", "0", &file.to_string_lossy()], "")?;
        program::run("mount", &["-o", "loop", &file.to_string_lossy(), &at.to_string_lossy()], "")?;
        let mounted = Self { at: at.to_owned(), filler: at.join(FILLER) };
        fs::remove_dir(at.join("lost+found")).context("a new file system has no lost+found")?;
        Ok(mounted)
    }

    /// Takes all space but `left` bytes.
    ///
    /// # Errors
    /// When the space cannot be taken.
    pub fn fill(&self, left: u64) -> Result<()> {
        let found = rustix::fs::statvfs(&self.at).with_context(|| format!("cannot ask {}", self.at.display()))?;
        let free = found.f_bavail * found.f_frsize;
        let file = File::create(&self.filler).with_context(|| format!("cannot make {}", self.filler.display()))?;
        let taken = free.saturating_sub(left);
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, taken.max(1))
            .with_context(|| format!("cannot take {taken} bytes at {}", self.at.display()))
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// When nothing was taken.
    pub fn empty(&self) -> Result<()> {
        fs::remove_file(&self.filler).with_context(|| format!("cannot remove {}", self.filler.display()))
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // The kernel tears an io_uring down after its process is gone, and holds the files until then.
        let deadline = Instant::now() + UNMOUNT_PATIENCE;
        while let Err(error) = program::run("umount", &[&self.at.to_string_lossy()], "") {
            if Instant::now() > deadline {
                eprintln!("ringraft: {error:#}");
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
