//! Network namespaces: threads and child processes that live in one.
//!
//! Off the data path.
//! Relations: a namespace belongs to a thread; threads and processes started from it inherit it. So work runs on a thread
//! of its own, and the caller stays where it was.
//! What it does not do: make namespaces. `chaos::network` does.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where `ip netns` keeps the names.
pub const FOLDER: &str = "/run/netns";

/// Moves the calling thread into a namespace.
///
/// # Errors
/// When there is no such namespace or the rights are missing.
pub fn enter(name: &str) -> Result<()> {
    let path = Path::new(FOLDER).join(name);
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .with_context(|| format!("cannot enter network namespace {name}"))
}

/// Does `work` inside of a namespace, or right here when there is none.
///
/// # Errors
/// Those of [`enter`] and of the work.
pub fn inside<T: Send>(name: Option<&str>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let Some(name) = name else { return work() };
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            enter(name)?;
            work()
        });
        worker.join().map_err(|_| anyhow!("a thread in network namespace {name} panicked"))?
    })
}
