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
mod keeper;
mod load;
mod observer;
mod peer;
mod pulse;
pub mod reload;
mod signal;
mod start;
pub mod watchdog;

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use glommio::{LocalExecutorBuilder, Placement};
use ringraft_raft::Membership;
use tracing::{error, info};

use self::reload::{Reload, Reloader};
use crate::config::ValidNodeConfig;
use crate::exit;
use crate::identity::Identity;
use crate::shard::board::NodeBoard;
use crate::shard::io::Fatal;
use crate::topology::Topology;

pub use self::observer::{Change, Observer};

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
    /// The topology this node kept cannot be used.
    #[error("{directory}: {reason}", directory = directory.display())]
    Topology {
        /// The data directory.
        directory: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The cluster removed this node; it has stopped gracefully.
    #[error(
        "node {node} was removed from the cluster: its data may be deleted; to use the machine again, let it join with an \
         empty data directory and a new id"
    )]
    Removed {
        /// This node.
        node: u64,
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
            Self::Topology { .. } => exit::DATA_CORRUPT,
            Self::Removed { .. } => exit::REMOVED,
            Self::Start { exit_code, .. } => *exit_code,
            Self::Fatal { fatal: Fatal::Wal(_), .. } => exit::WAL_POISONED,
            Self::Fatal { fatal: Fatal::Unreadable { .. } | Fatal::Topology(_), .. } => exit::DATA_CORRUPT,
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

/// Runs a node until it is told to stop by SIGTERM or SIGINT; `reload` is used at SIGHUP and when an
/// operator asks, `observer` shows the node to other threads.
///
/// # Errors
/// Whatever keeps the node from starting or going on; [`HostError::exit_code`] is meant for the process.
pub fn run(config: ValidNodeConfig, reload: Reload, observer: &Observer) -> Result<(), HostError> {
    let identity = Identity::open(&config)?;
    run_as(config, identity, reload, observer)
}

/// The same over a data directory that is open already, as [`Identity::join`] leaves it.
///
/// # Errors
/// See [`run`].
pub fn run_as(
    config: ValidNodeConfig,
    identity: Identity,
    reload: Reload,
    observer: &Observer,
) -> Result<(), HostError> {
    end_on_panic();
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| HostError::Setup { what: "a signal handler", reason: error.to_string() })?;
    }
    let reloader = Reloader::new(reload, config.clone())?;
    let node = Arc::new(NodeContext::new(&config, &identity, Arc::clone(&stop))?);
    observer.attach(&node);
    let config = Arc::new(config);
    let counters: Vec<watchdog::TurnCounter> = (0..config.shards).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let executors: Vec<_> = (0..config.shards)
        .map(|shard| {
            let counter = Arc::clone(&counters[usize::from(shard)]);
            start::spawn(shard, Arc::clone(&config), counter, Arc::clone(&node))
        })
        .collect::<Result<_, _>>()?;
    let done = Arc::new(AtomicBool::new(false));
    watchdog::start(counters, Duration::from_millis(config.watchdog_ms), Arc::clone(&done), hang)
        .map_err(|error| HostError::Setup { what: "the watchdog", reason: error.to_string() })?;
    keeper::start(Arc::clone(&node), Arc::clone(&done), reloader)
        .map_err(|error| HostError::Setup { what: "the keeper of the topology", reason: error.to_string() })?;
    let result = join_all(executors);
    done.store(true, Ordering::Relaxed);
    drop(identity);
    info!(node = config.id, "stopped");
    if result.is_ok() && node.removed.load(Ordering::Relaxed) {
        return Err(HostError::Removed { node: config.id });
    }
    result
}

/// What the executors of a node share, off the data path.
struct NodeContext {
    /// This start made the node.
    created: bool,
    data_directory: PathBuf,
    /// The members that every group began with; none if this node joined later.
    initial: Vec<Membership>,
    /// See [`Identity::shared`].
    shared: Arc<Vec<(String, String)>>,
    /// See [`Identity::cluster_digest`].
    config_digest: u64,
    /// Locked by each shard once a tick, never across an await.
    board: Mutex<NodeBoard>,
    stop: Arc<AtomicBool>,
    removed: AtomicBool,
}

impl NodeContext {
    fn new(config: &ValidNodeConfig, identity: &Identity, stop: Arc<AtomicBool>) -> Result<Self, HostError> {
        let data_directory = config.data_dir.clone();
        let unusable = |reason: String| HostError::Topology { directory: config.data_dir.clone(), reason };
        let founded = config.initial_topology().map_err(|error| unusable(error.to_string()))?;
        let kept = Topology::read_file(&data_directory).map_err(|error| unusable(error.to_string()))?;
        if kept.is_none() && identity.joined() {
            let name = crate::topology::file::NAME;
            return Err(unusable(format!(
                "{name} is missing, and this node joined its cluster by it: replace the node"
            )));
        }
        let initial = if identity.joined() { Vec::new() } else { founded.memberships() };
        let topology = kept.unwrap_or(founded);
        if (topology.groups(), topology.shards()) != (config.groups, config.shards) {
            return Err(unusable(String::from("the topology has other numbers of groups or shards than the node")));
        }
        Ok(Self {
            created: identity.created(),
            data_directory,
            initial,
            shared: Arc::new(identity.shared()),
            config_digest: identity.cluster_digest(),
            board: Mutex::new(NodeBoard::new(Arc::new(topology)).with_services(config.services())),
            stop,
            removed: AtomicBool::new(false),
        })
    }

    /// The board, for as long as the guard lives: a panic elsewhere ends the process anyway.
    fn board(&self) -> MutexGuard<'_, NodeBoard> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A panic anywhere is a bug: the process ends at once, nothing goes on with half a state.
fn end_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        tell("ringraft: the process ends after a panic (exit code 101); restart it, and report this with the log");
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
    tell(&format!(
        "ringraft: shard {shard} has not turned for {limit:?}: the process ends (exit code {}); \
         restart it, and report this with the log",
        exit::SHARD_STALLED
    ));
    std::process::exit(exit::SHARD_STALLED);
}

/// The last words on standard error, which nobody may read any more.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
