//! The probe that `ringraft doctor` runs in a child: an executor as a node has it, and one small file.
//!
//! Off the data path.
//! Invariant: it leaves no file behind when it succeeds.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use glommio::io::DmaFile;

const BLOCK_BYTES: usize = 4096;

pub(super) fn probe(folder: &Path) -> Result<()> {
    let path = folder.join(format!(".ringraft-doctor-{}", std::process::id()));
    let builder = ringraft_engine::host::executor_builder("doctor", None, Duration::ZERO);
    let task = |path: PathBuf| async move { write_and_read(&path).await };
    let thread = builder.spawn({
        let path = path.clone();
        move || task(path)
    });
    let result = thread.map_err(|error| anyhow!("{error}"))?.join().map_err(|error| anyhow!("{error}"))?;
    let _ = std::fs::remove_file(&path);
    result
}

async fn write_and_read(path: &Path) -> Result<()> {
    let file = DmaFile::create(path).await.map_err(|error| anyhow!("cannot create a file: {error}"))?;
    let mut buffer = file.alloc_dma_buffer(BLOCK_BYTES);
    buffer.as_bytes_mut().fill(7);
    let written = file.write_at(buffer, 0).await.map_err(|error| anyhow!("cannot write: {error}"))?;
    ensure!(written == BLOCK_BYTES, "wrote {written} of {BLOCK_BYTES} bytes");
    file.fdatasync().await.map_err(|error| anyhow!("cannot sync: {error}"))?;
    file.close().await.map_err(|error| anyhow!("cannot close: {error}"))?;
    let file = DmaFile::open(path).await.map_err(|error| anyhow!("cannot open: {error}"))?;
    let read = file.read_at_aligned(0, BLOCK_BYTES).await.map_err(|error| anyhow!("cannot read: {error}"))?;
    ensure!(read.len() == BLOCK_BYTES && read.iter().all(|byte| *byte == 7), "read other bytes than were written");
    file.close().await.map_err(|error| anyhow!("{error}")).context("cannot close")
}
