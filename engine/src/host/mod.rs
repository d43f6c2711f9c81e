//! The glommio host: one executor per shard, a watchdog, signals. It moves bytes and decides nothing.
//!
//! Data path 1/9 and 9/9, and the disk of 6a/9.
//! Rules of this host, because glommio 0.9 can park with a runnable task when its preemption timer fires and can lose
//! a wake that comes from another thread:
//! 1. the preemption timer is out of reach (one hour);
//! 2. there is one task queue, of latency class `NotImportant` (glommio's default queue);
//! 3. nothing wakes an executor from another thread: no channels into it, signals set a flag that the ticker reads;
//! 4. long work goes in slices that end in an await on the reactor.
//!
//! `engine/tests/executor_stress.rs` runs an executor built by [`executor_builder`] under CPU contention.

mod accept;
mod clock;
mod executor;
mod load;
mod peer;
mod signal;
mod start;
pub mod watchdog;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use tracing::{error, info};

use crate::config::ValidNodeConfig;
use crate::exit;
use crate::identity::Identity;
use crate::shard::io::Fatal;

/// Why a node ended other than by a graceful stop.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The data directory cannot be used.
    #[error("{0}")]
    Identity(#[from] crate::identity::IdentityError),
    /// The executor cannot be built: io_uring is not there or not allowed.
    #[error(
        "cannot start the io_uring executor of shard {shard}: {reason}; run `ringraft doctor` \
         (usual causes: kernel older than 5.8, kernel.io_uring_disabled, a container's seccomp profile, `ulimit -l`)"
    )]
    Executor {
        /// The shard.
        shard: u16,
        /// What glommio said.
        reason: String,
    },
    /// A shard could not start.
    #[error("shard {shard} cannot start: {reason}")]
    Start {
        /// The shard.
        shard: u16,
        /// What is wrong and what to do.
        reason: String,
        /// The exit code that tells scripts what it was.
        exit_code: i32,
    },
    /// A shard stopped because going on would be wrong.
    #[error("shard {shard} stopped: {fatal}")]
    Fatal {
        /// The shard.
        shard: u16,
        /// Why.
        fatal: Fatal,
    },
    /// A thread or signal handler could not be set up.
    #[error("cannot set up {what}: {reason}")]
    Setup {
        /// What.
        what: &'static str,
        /// Why not.
        reason: String,
    },
}

impl HostError {
    /// The process exit code, as listed in `tools/RUNBOOK.md`.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Identity(error) => error.exit_code(),
            Self::Executor { .. } | Self::Setup { .. } => exit::CANNOT_START,
            Self::Start { exit_code, .. } => *exit_code,
            Self::Fatal { fatal: Fatal::Wal(_), .. } => exit::WAL_POISONED,
            Self::Fatal { fatal: Fatal::Unreadable { .. }, .. } => exit::DATA_CORRUPT,
            Self::Fatal { fatal: Fatal::Diverged { .. } | Fatal::Conflict { .. }, .. } => exit::STATE_DIVERGED,
        }
    }
}

/// The executor every shard runs on, with the preemption timer out of reach. `cpu` pins it to one core.
#[must_use]
pub fn executor_builder(name: &str, cpu: Option<usize>, spin_before_park: Duration) -> LocalExecutorBuilder {
    let placement = cpu.map_or(Placement::Unbound, Placement::Fixed);
    LocalExecutorBuilder::new(placement)
        .name(name)
        .preempt_timer(Duration::from_secs(3600))
        .spin_before_park(spin_before_park)
        .ring_depth(1024)
        .io_memory(1 << 20)
}

/// Runs a node until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps the node from starting or going on; [`HostError::exit_code`] is meant for the process.
pub fn run(config: ValidNodeConfig) -> Result<(), HostError> {
    end_on_panic();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| HostError::Setup { what: "a signal handler", reason: error.to_string() })?;
    }
    let identity = Identity::open(&config)?;
    let created = identity.created();
    let config = Arc::new(config);
    let counters: Vec<watchdog::TurnCounter> = (0..config.shards).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let executors: Vec<_> = (0..config.shards)
        .map(|shard| {
            let counter = Arc::clone(&counters[usize::from(shard)]);
            start::spawn(shard, created, Arc::clone(&config), counter, Arc::clone(&stop))
        })
        .collect::<Result<_, _>>()?;
    let done = Arc::new(AtomicBool::new(false));
    watchdog::start(counters, Duration::from_millis(config.watchdog_ms), Arc::clone(&done), hang)
        .map_err(|error| HostError::Setup { what: "the watchdog", reason: error.to_string() })?;
    let result = join_all(executors);
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    drop(identity);
    info!(node = config.id, "stopped");
    result
}

/// A panic anywhere is a bug: the process ends at once, nothing goes on with half a state.
fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        eprintln!("ringraft: the process ends after a panic (exit code 101); restart it, and report this with the log");
        std::process::exit(101);
    }));
}

fn join_all(executors: Vec<start::ShardThread>) -> Result<(), HostError> {
    let mut result = Ok(());
    for (shard, executor) in executors.into_iter().enumerate() {
        let shard = shard as u16;
        let ended = match executor.join() {
            Ok(ended) => ended,
            Err(error) => Err(HostError::Executor { shard, reason: error.to_string() }),
        };
        if let Err(error) = ended {
            error!(%error, "a shard stopped");
            result = result.and(Err(error));
        }
    }
    result
}

/// Ends the process: a shard has not turned for too long and nothing in here can help it.
fn hang(shard: usize, limit: Duration) {
    eprintln!(
        "ringraft: shard {shard} has not turned for {limit:?}: the process ends (exit code {}); \
         restart it, and report this with the log",
        exit::SHARD_STALLED
    );
    std::process::exit(exit::SHARD_STALLED);
}
