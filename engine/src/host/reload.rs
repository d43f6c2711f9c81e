//! The configuration, read again: at SIGHUP and when an operator asks for it.
//!
//! Off the data path, on the keeper's thread: it reads a file and writes to the board, shards come by after their ticks.
//! Invariants: a configuration that is not valid changes nothing; a setting that needs a restart keeps its value and is
//! named; what is told as changed is on the board already.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing::{info, warn};

use super::{HostError, NodeContext};
use crate::config::ValidNodeConfig;
use crate::shard::live::Reloaded;

/// How a process reads its configuration again, and what it does itself with it.
pub struct Reload {
    /// Reads flags, environment and file as at the start.
    pub read: Box<dyn Fn() -> Result<ValidNodeConfig, String> + Send>,
    /// Takes what is not the shards' business: how much is logged.
    pub take: Box<dyn Fn(&ValidNodeConfig) + Send>,
}

impl Reload {
    /// Nothing is read again.
    #[must_use]
    pub fn never() -> Self {
        let read = || Err(String::from("this process does not read its configuration again: restart it"));
        Self { read: Box::new(read), take: Box::new(|_| {}) }
    }
}

/// The state between two readings.
pub(super) struct Reloader {
    source: Reload,
    current: ValidNodeConfig,
    signalled: Arc<AtomicBool>,
}

impl Reloader {
    /// Listens to SIGHUP from now on.
    pub(super) fn new(source: Reload, current: ValidNodeConfig) -> Result<Self, HostError> {
        let signalled = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&signalled))
            .map_err(|error| HostError::Setup { what: "the handler of SIGHUP", reason: error.to_string() })?;
        Ok(Self { source, current, signalled })
    }

    /// Reads the configuration if somebody wants it.
    pub(super) fn round(&mut self, node: &NodeContext) {
        let signalled = self.signalled.swap(false, Ordering::Relaxed);
        let asked = node.board().reload_asked();
        if !signalled && asked.is_none() {
            return;
        }
        let outcome = self.reload();
        match &outcome {
            Ok(Reloaded { changed, restart }) => {
                info!(?changed, needs_restart = ?restart, "the configuration was read again");
            }
            Err(problem) => warn!(problem, "the configuration was read again and changes nothing"),
        }
        let live = outcome.is_ok().then(|| self.current.live());
        node.board().reloaded(asked.unwrap_or(0), live, outcome);
    }

    fn reload(&mut self) -> Result<Reloaded, String> {
        let read = (self.source.read)()?;
        let (next, reloaded) = self.current.with_reloaded(&read).map_err(|error| error.to_string())?;
        (self.source.take)(&next);
        self.current = next;
        Ok(reloaded)
    }
}
