//! A timer that ticks while a shard's log is opened, and nothing but the disk would wake its executor.
//!
//! Off the data path.
//! An executor can miss a wake, and then sleeps until something else wakes it. A shard that serves has its tick for that.

use std::time::Duration;

use glommio::task::JoinHandle;
use glommio::timer::sleep;

/// A missed wake costs so much.
const PERIOD: Duration = Duration::from_millis(20);

/// Ticks until it is dropped.
pub(super) struct Pulse(JoinHandle<()>);

impl Pulse {
    pub(super) fn begin() -> Self {
        let ticks = async {
            loop {
                sleep(PERIOD).await;
            }
        };
        Self(glommio::spawn_local(ticks).detach())
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
