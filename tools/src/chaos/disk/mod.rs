//! A disk that fails on demand: a file system of ours (FUSE) over a folder.
//!
//! Off the data path.
//! Invariants: a write that no flush covered is kept in memory only, so that losing power loses it; a flush that fails
//! loses what it covered, as the page caches of ext4, XFS and Btrfs do (Rebello et al., ATC 2020); what a flush covered is
//! in the folder. Relations: `O_DIRECT` and `O_DSYNC` are taken; a write on an `O_DSYNC` handle is its own flush.
//! A name that was made, changed or removed lasts when its folder was flushed after it.
//! What it does not do: lose preallocated space. The length that it gives to a file lasts at once.
//!
//! ```text
//!   node ── kernel ── FUSE ──▶ FileSystem ──▶ Queue (stall, delay, errors) ──▶ Files: unsynced writes │ folder
//! ```

mod faults;
mod file_system;
mod files;
mod names;
mod queue;
mod unsynced;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use fuser::{BackgroundSession, Config, MountOption};

use faults::Faults;
pub use faults::Settings;
use file_system::FileSystem;
use files::Files;

const UNMOUNT_PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of writes that no flush covered when power is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// All are lost, and all changes of names with them.
    All,
    /// Each sector of 512 bytes is lost or kept by chance, from this seed: torn writes. Of the changes of names the oldest
    /// are kept.
    SomeSectors(u64),
}

/// What a loss of power cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Sectors that are gone.
    pub sectors: u64,
    /// Unsynced sectors that the disk had written all the same.
    pub kept: u64,
    /// Names made, changed or removed that are as they were before.
    pub names: u64,
}

/// A mounted disk.
#[derive(Debug)]
pub struct FaultyDisk {
    mounted_at: PathBuf,
    faults: Arc<Faults>,
    files: Arc<Files>,
    session: Option<BackgroundSession>,
}

impl FaultyDisk {
    /// Mounts the folder `backing` at `at`; both are made if they do not exist.
    ///
    /// # Errors
    /// When FUSE is not available or the rights are missing.
    pub fn mount(backing: &Path, at: &Path) -> Result<Self> {
        for folder in [backing, at] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let faults = Arc::new(Faults::default());
        let files = Files::over(backing, &backing.with_extension("removed"));
        let files = Arc::new(files.with_context(|| format!("cannot use {}", backing.display()))?);
        let file_system = FileSystem::new(Arc::clone(&files), Arc::clone(&faults))?;
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName(String::from("ringraft-chaos")), MountOption::NoAtime];
        let session = fuser::spawn_mount(file_system, at, &config);
        let session = session.with_context(|| format!("cannot mount a FUSE file system at {}", at.display()))?;
        Ok(Self { mounted_at: at.to_owned(), faults, files, session: Some(session) })
    }

    /// What goes wrong from now on.
    pub fn set(&self, settings: Settings) {
        self.faults.set(settings);
    }

    /// Cuts the power: nothing is answered any more, and nothing that no flush covered survives but by `loss`.
    /// The node must be killed next, then [`Self::switch_off`].
    ///
    /// # Errors
    /// When what survives cannot be written to the folder.
    pub fn cut_power(&self, loss: Loss) -> Result<()> {
        self.faults.hold_all();
        self.files.lose(loss)
    }

    /// Ends what the dead node asked for, so that the kernel can let go of it. Writes among it may be torn.
    pub fn switch_off(&self) {
        self.faults.switch_off();
    }

    /// What the last loss of power cost; known when the node is gone.
    #[must_use]
    pub fn lost(&self) -> Lost {
        self.files.lost()
    }

    /// Requests that met a fault so far.
    #[must_use]
    pub fn faults_met(&self) -> u64 {
        self.faults.hit()
    }

    /// Switches the power on, without faults.
    pub fn power_on(&self) {
        self.faults.set(Settings::default());
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        self.power_on();
        let Some(session) = self.session.take() else { return };
        // The kernel tears an io_uring down after its process is gone, and holds the files until then.
        let deadline = Instant::now() + UNMOUNT_PATIENCE;
        while let Err(error) = unmount(&self.mounted_at) {
            if Instant::now() > deadline {
                // The session stays: what still uses the mount gets its answers until this process ends.
                eprintln!("ringraft: cannot unmount {}: {error}", self.mounted_at.display());
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
        if let Err(error) = session.join() {
            eprintln!("ringraft: the file system of {} failed: {error}", self.mounted_at.display());
        }
    }
}

fn unmount(at: &Path) -> rustix::io::Result<()> {
    rustix::mount::unmount(at, rustix::mount::UnmountFlags::empty())
}
