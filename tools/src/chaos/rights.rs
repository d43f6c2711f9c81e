//! What a scenario needs of the machine, and whether it is there: tried, not guessed.
//!
//! Off the data path.

use std::path::Path;

use anyhow::{Context, Result};

use super::disk::FaultyDisk;
use super::image::Image;
use super::network::{Member, Network};

/// Something only some machines and users have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// Network namespaces, and dropping packets in them.
    Network,
    /// FUSE file systems.
    Disk,
    /// Loop-mounted images.
    Image,
}

const IMAGE_BYTES: u64 = 16 << 20;

impl Need {
    /// One word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Network => "namespaces",
            Self::Disk => "FUSE",
            Self::Image => "images",
        }
    }

    /// Tries it in `folder`.
    ///
    /// # Errors
    /// Why it cannot be had, and what helps.
    pub fn probe(self, folder: &Path) -> Result<()> {
        match self {
            Self::Network => network().context(
                "needs network namespaces and nft (Debian packages iproute2 and nftables), and the rights of root",
            ),
            Self::Disk => {
                disk(folder).context("needs FUSE (/dev/fuse), and the rights of root or Debian package fuse3")
            }
            Self::Image => image(folder)
                .context("needs mkfs.ext4 and mount (Debian packages e2fsprogs, mount), and the rights of root"),
        }
    }
}

fn network() -> Result<()> {
    let mut network = Network::create(1)?;
    network.cut(Member::Node(1), Member::Clients)?;
    network.heal()
}

fn disk(folder: &Path) -> Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    let _disk = FaultyDisk::mount(&folder.path().join("backing"), &folder.path().join("mounted"))?;
    let file = folder.path().join("mounted/file");
    std::fs::write(&file, "text").context("cannot write to a FUSE file system")?;
    let read = std::fs::read(&file).context("cannot read from a FUSE file system")?;
    anyhow::ensure!(read == b"text", "a FUSE file system does not keep what is written");
    Ok(())
}

fn image(folder: &Path) -> Result<()> {
    let folder = tempfile::tempdir_in(folder)?;
    Image::mount(&folder.path().join("image"), IMAGE_BYTES, &folder.path().join("mounted")).map(drop)
}
