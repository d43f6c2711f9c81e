//! The keeper thread: writes the newest topology into the data directory when it changes, and reads the configuration
//! again when it is told to.
//!
//! Off the data path. It only reads the board and never wakes an executor; the disk may take its time.
//! Invariant: losing the newest topology loses nothing, since group 0 has it: a write that fails is tried again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tracing::{info, warn};

use super::NodeContext;
use super::reload::Reloader;
use crate::topology::Topology;

const ROUND: Duration = Duration::from_millis(200);

/// Starts the keeper.
///
/// # Errors
/// The thread could not be started.
pub(super) fn start(node: Arc<NodeContext>, done: Arc<AtomicBool>, mut reloader: Reloader) -> std::io::Result<()> {
    std::thread::Builder::new().name(String::from("keeper")).spawn(move || {
        let mut written: Option<Arc<Topology>> = None;
        let mut failed = false;
        while !done.load(Ordering::Relaxed) {
            std::thread::sleep(ROUND);
            reloader.round(&node);
            let newest = Arc::clone(node.board().topology());
            if written.as_ref().is_some_and(|written| **written == *newest) {
                continue;
            }
            match newest.write_file(&node.data_directory) {
                Ok(()) => {
                    info!(epoch = newest.epoch(), nodes = newest.nodes().len(), "the topology is kept");
                    (written, failed) = (Some(newest), false);
                }
                Err(error) if !failed => {
                    warn!(%error, "the topology cannot be written to the data directory; trying again");
                    failed = true;
                }
                Err(_) => {}
            }
        }
    })?;
    Ok(())
}
