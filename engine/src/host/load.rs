//! Loading the snapshots of a shard's groups at the start of a node.
//!
//! Off the data path (start).
//! Invariants: see [`load_newest`]; the watchdog is told that the shard lives, since a large state takes a while.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::Ordering;

use ringraft_wal::Recovered;
use tracing::{info, warn};

use super::HostError;
use super::watchdog::TurnCounter;
use crate::config::ValidNodeConfig;
use crate::exit;
use crate::snapshot::{FileLoader, Loaded, load_newest};

const READ_BYTES: usize = 1 << 20;

/// Loads what the marks of the recovered log name.
pub(super) fn load_snapshots(
    shard: u16,
    config: &ValidNodeConfig,
    recovered: &Recovered,
    counter: &TurnCounter,
) -> Result<BTreeMap<u32, Loaded>, HostError> {
    let directory = config.wal_directory().join(format!("shard-{shard}"));
    let mut buffer = vec![0; READ_BYTES];
    let mut read = |path: &std::path::Path, loader: &mut FileLoader| -> Result<(), String> {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        loop {
            let count = file.read(&mut buffer).map_err(|error| error.to_string())?;
            if count == 0 {
                return Ok(());
            }
            loader.push(&buffer[..count]).map_err(|error| error.to_string())?;
            counter.fetch_add(1, Ordering::Relaxed);
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
    Ok(loaded)
}
