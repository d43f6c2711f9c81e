//! What ^C does to commands that run for long: they end early and clean up.
//!
//! Off the data path.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// What a shell reports of a process that ^C ended.
const INTERRUPTED_EXIT_CODE: i32 = 130;

/// Raised by the first ^C (or SIGTERM): the run ends early and everything is cleaned up. The second one ends the process.
pub(super) fn stop_flag() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let set_up = flag::register_conditional_shutdown(signal, INTERRUPTED_EXIT_CODE, Arc::clone(&stop));
        set_up.and_then(|_| flag::register(signal, Arc::clone(&stop))).context("cannot set up a signal handler")?;
    }
    Ok(stop)
}
