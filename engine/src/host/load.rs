//! Loading the snapshots of a shard's groups at the start of a node.
//!
//! Off the data path (start).
//! Invariants: of each group the newest snapshot that is whole is loaded, and the log goes on behind it; a group whose log
//! has no beginning and that has no whole snapshot keeps the node from starting, with the file and what is wrong with it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use glommio::timer::sleep;
use ringraft_raft::GroupId;
use ringraft_wal::{Recovered, SnapshotName};
use tracing::{info, warn};

use super::HostError;
use crate::config::ValidNodeConfig;
use crate::exit;
use crate::limits::Limits;
use crate::snapshot::{FileLoader, Loaded};

/// Bytes read at once; between two reads the executor looks after itself.
const READ_BYTES: usize = 1 << 20;

/// Loads what the marks of the recovered log name.
pub(super) async fn load_snapshots(
    shard: u16,
    config: &ValidNodeConfig,
    recovered: &Recovered,
) -> Result<BTreeMap<u32, Loaded>, HostError> {
    let directory = config.wal_directory().join(format!("shard-{shard}"));
    let mut loaded = BTreeMap::new();
    for (group, found) in &recovered.groups {
        let mut last_failure = None;
        for mark in recovered.usable_snapshots(*group) {
            let name = SnapshotName { group: *group, index: mark.index };
            let path = directory.join(name.to_string());
            match load(&path, GroupId(*group), config.snapshots().identity, config.limits()).await {
                Ok(snapshot) => {
                    let keys = snapshot.machine.key_count();
                    info!(shard, group, index = mark.index, keys, bytes = mark.file_bytes, "a snapshot is loaded");
                    loaded.insert(*group, snapshot);
                    break;
                }
                Err(reason) => {
                    warn!(shard, group, path = %path.display(), reason, "a snapshot cannot be used");
                    last_failure = Some(format!("{}: {reason}", path.display()));
                }
            }
        }
        if !loaded.contains_key(group) && found.first_index() > 1 {
            let reason = format!(
                "group {group} has no snapshot that is whole, and its log begins at entry {}: {}. \
                 Replace this replica, or bring the file back",
                found.first_index(),
                last_failure.unwrap_or_else(|| String::from("no file is there")),
            );
            return Err(HostError::Start { shard, reason, exit_code: exit::DATA_CORRUPT });
        }
    }
    Ok(loaded)
}

async fn load(path: &Path, group: GroupId, identity: u32, limits: Limits) -> Result<Loaded, String> {
    let mut file = File::open(path).map_err(|error| error.to_string())?;
    let mut loader = FileLoader::new(group, identity, limits);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(|error| error.to_string())?;
        if count == 0 {
            return loader.finish().map_err(|error| error.to_string());
        }
        loader.push(&buffer[..count]).map_err(|error| error.to_string())?;
        sleep(Duration::ZERO).await;
    }
}
