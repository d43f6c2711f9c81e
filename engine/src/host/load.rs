//! Loading the snapshots of a shard's groups at the start of a node.
//!
//! Off the data path (start).
//! Invariants: see [`load_newest`]; the watchdog is told that the shard lives, since a large state takes a while.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ringraft_wal::Recovered;
use tracing::{info, warn};

use super::HostError;
use super::watchdog::TurnCounter;
use crate::config::ValidNodeConfig;
use crate::exit;
use crate::snapshot::{FileLoader, Loaded, load_newest};

const READ_BYTES: usize = 1 << 20;

/// For the log.
pub(super) fn gigabytes_per_second(bytes: u64, seconds: f64) -> f64 {
    bytes as f64 / seconds.max(1e-9) / 1e9
}

/// Loads what the marks of the recovered log name.
pub(super) fn load_snapshots(
    shard: u16,
    config: &ValidNodeConfig,
    recovered: &Recovered,
    counter: &TurnCounter,
) -> Result<BTreeMap<u32, Loaded>, HostError> {
    let directory = config.wal_directory().join(format!("shard-{shard}"));
    let mut buffer = vec![0; READ_BYTES];
    let (started, mut bytes) = (Instant::now(), 0);
    let mut read = |path: &std::path::Path, loader: &mut FileLoader| -> Result<(), String> {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        loop {
            let count = file.read(&mut buffer).map_err(|error| error.to_string())?;
            if count == 0 {
                return Ok(());
            }
            loader.push(&buffer[..count]).map_err(|error| error.to_string())?;
            counter.fetch_add(1, Ordering::Relaxed);
            bytes += count as u64;
        }
    };
    let loaded = load_newest(
        recovered,
        config.snapshots().identity,
        config.limits(),
        |name, loader| read(&directory.join(name.to_string()), loader),
        |name, reason| warn!(shard, %name, reason, "a snapshot cannot be used, the one before it is tried"),
    );
    let loaded = loaded.map_err(|error| {
        let reason = format!("{}: {error}", directory.display());
        HostError::Start { shard, reason, exit_code: exit::DATA_CORRUPT }
    })?;
    for (group, loaded) in &loaded {
        let (index, keys) = (loaded.head.state.last.index, loaded.machine.key_count());
        info!(shard, group, index, keys, "a snapshot is loaded");
    }
    if bytes > 0 {
        let seconds = started.elapsed().as_secs_f64();
        let rate = gigabytes_per_second(bytes, seconds);
        info!(shard, bytes, seconds, gigabytes_per_second = rate, "the snapshots are loaded");
    }
    Ok(loaded)
}
