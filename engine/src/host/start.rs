//! From a configuration to running shards: recover the WAL, restore the groups, listen, start the tasks.
//!
//! Off the data path.
//! Invariants: nothing listens before recovery is done; a shard that fails makes the others stop too; only the start that
//! creates the node makes a log, since a node that ran and whose log is gone must not come back as if it had none.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use glommio::net::TcpListener;
use ringraft_wal::glommio::{Completions, FlushMethod, OpenError, Opened};
use tracing::{error, info};

use super::accept::{self, Local};
use super::clock;
use super::executor::Host;
use super::load;
use super::pulse::Pulse;
use super::signal::Signal;
use super::watchdog::TurnCounter;
use super::{HostError, NodeContext, executor_builder};
use crate::config::{FlushMethod as FlushSetting, ValidNodeConfig};
use crate::exit;
use crate::shard::restore::ConsensusSettings;
use crate::shard::{Shard, ShardSettings};
use crate::snapshot::Loaded;

/// One executor's thread.
pub(super) type ShardThread = glommio::ExecutorJoinHandle<Result<(), HostError>>;

/// Rounds of the start-up test that chooses the flush method.
const MEASURE_ROUNDS: usize = 64;

/// Starts the executor of one shard.
pub(super) fn spawn(
    shard: u16,
    config: Arc<ValidNodeConfig>,
    counter: TurnCounter,
    node: Arc<NodeContext>,
) -> Result<ShardThread, HostError> {
    let cpu = config.cpu(shard);
    let spin = Duration::from_micros(config.spin_before_park_us);
    executor_builder(&format!("shard-{shard}"), cpu, spin)
        .ring_depth(config.io_ring_depth as usize)
        .io_memory(config.io_memory_bytes as usize)
        .spawn(move || async move {
            let result = run_shard(shard, &config, counter, Arc::clone(&node)).await;
            if let Err(error) = &result {
                error!(shard, %error, "the shard stops, and the node with it");
            }
            node.stop.store(true, Ordering::Relaxed);
            result
        })
        .map_err(|error| HostError::Executor { shard, reason: error.to_string() })
}

async fn run_shard(
    shard: u16,
    config: &ValidNodeConfig,
    counter: TurnCounter,
    node: Arc<NodeContext>,
) -> Result<(), HostError> {
    let work = Signal::default();
    let notify = work.clone();
    let completions = Completions::new(move || notify.raise());
    let pulse = Pulse::begin();
    let opened = open_wal(shard, node.created, config, completions.clone()).await?;
    drop(pulse);
    let start_error = |reason: String| HostError::Start { shard, reason, exit_code: exit::CANNOT_START };
    let loaded = load::load_snapshots(shard, config, &opened.recovered, &counter)?;
    let machine = restore(shard, config, &node, opened, loaded).map_err(start_error)?;
    let listener = listen(shard, config).map_err(start_error)?;
    let local = Rc::new(Local {
        cluster: config.cluster_id.0,
        node: config.id,
        shard,
        config_digest: node.config_digest,
        seed: config.id << 16 | u64::from(shard),
    });
    let host = Host::new(machine, work, completions, counter, (node, Rc::clone(&local)));
    host.exchange(); // the links
    let acceptor = glommio::spawn_local(accept::accept_forever(Rc::clone(&host), Rc::clone(&local), listener)).detach();
    let tick = Duration::from_millis(config.tick_ms);
    glommio::spawn_local(Rc::clone(&host).tick_forever(tick)).detach();
    glommio::spawn_local(Rc::clone(&host).turn_forever()).detach();
    info!(node = config.id, shard, "serving");
    host.finished.wait().await;
    acceptor.cancel();
    let failed = host.failed.borrow_mut().take();
    failed.map_or(Ok(()), |fatal| Err(HostError::Fatal { shard, fatal }))
}

async fn open_wal(
    shard: u16,
    created: bool,
    config: &ValidNodeConfig,
    completions: Completions,
) -> Result<Opened, HostError> {
    let directory = config.wal_directory().join(format!("shard-{shard}"));
    if !created && !has_log(&directory) {
        return Err(log_is_gone(shard, &directory));
    }
    let failed = |error: OpenError| {
        let exit_code = match &error {
            OpenError::Recovery { .. } => exit::DATA_CORRUPT,
            OpenError::Locked { .. } => exit::LOCKED,
            _ => exit::CANNOT_START,
        };
        HostError::Start { shard, reason: error.to_string(), exit_code }
    };
    let wal = config.wal(shard);
    let method = match config.flush_method {
        FlushSetting::Fdatasync => FlushMethod::Fdatasync,
        FlushSetting::Dsync => FlushMethod::DsyncWrite,
        FlushSetting::Auto => {
            std::fs::create_dir_all(&directory).map_err(|error| HostError::Start {
                shard,
                reason: format!("cannot create {}: {error}", directory.display()),
                exit_code: exit::CANNOT_START,
            })?;
            let measured = ringraft_wal::glommio::measure(&directory, wal.block_bytes, MEASURE_ROUNDS).await;
            measured.map_err(failed)?.better()
        }
    };
    let started = Instant::now();
    let opened = ringraft_wal::glommio::open(&directory, &wal, method, completions).await.map_err(failed)?;
    let seconds = started.elapsed().as_secs_f64();
    let live = || opened.recovered.groups.values().flat_map(|group| &group.entries);
    let (entries, bytes) = (live().count(), live().map(|entry| u64::from(entry.length)).sum());
    let rate = load::gigabytes_per_second(bytes, seconds);
    let directory = directory.display();
    info!(shard, ?method, entries, bytes, seconds, gigabytes_per_second = rate, %directory, "the write-ahead log is open");
    for note in &opened.recovered.notes {
        info!(shard, %note, "recovery");
    }
    Ok(opened)
}

/// Whether anything of a log is there; what is wrong with it is for its recovery to say.
fn has_log(directory: &Path) -> bool {
    let Ok(mut entries) = std::fs::read_dir(directory) else { return false };
    entries.any(|entry| {
        entry.is_ok_and(|entry| {
            let name = entry.file_name();
            name == ringraft_wal::meta::FILE_NAME || Path::new(&name).extension().is_some_and(|last| last == "segment")
        })
    })
}

fn log_is_gone(shard: u16, directory: &Path) -> HostError {
    let reason = format!(
        "{}: the write-ahead log is missing, and this node exists. Mount or restore its folder, or replace this replica; \
         only if the node never served, remove its data directory and start it with --init",
        directory.display()
    );
    HostError::Start { shard, reason, exit_code: exit::DATA_CORRUPT }
}

fn restore(
    shard: u16,
    config: &ValidNodeConfig,
    node: &NodeContext,
    opened: Opened,
    loaded: BTreeMap<u32, Loaded>,
) -> Result<Shard<ringraft_wal::glommio::GlommioDisk>, String> {
    let limits = config.limits();
    let settings = ShardSettings {
        node: config.node(),
        shard,
        shards: config.shards,
        groups: config.groups,
        topology: Arc::clone(node.board().topology()),
        initial: node.initial.clone(),
        shared: Arc::clone(&node.shared),
        limits: limits.client(),
        waiting_max: config.proposals_max as usize,
        connections_max: config.connections_max as usize,
        reply_bytes_max: config.reply_bytes_max as usize,
        peer_queue_bytes_max: config.peer_queue_bytes_max as usize,
        disk_stall_ticks: config.ticks(config.disk_stall_ms),
        digest_ticks: config.ticks(config.digest_ms),
        report_ticks: config.ticks(REPORT_MS),
        leader_priority: config.leader_priority,
        snapshots: config.snapshots(),
        watches: config.watches(),
        incarnation: clock::incarnation(),
        first_election_ticks: FIRST_ELECTION_TICKS,
    };
    let consensus = ConsensusSettings {
        election_ticks_min: config.election_ticks_min,
        election_ticks_max: config.election_ticks_max,
        heartbeat_ticks: config.heartbeat_ticks,
        append_bytes_max: config.append_bytes_max,
        inflight_bytes_max: config.inflight_bytes_max,
        catch_up_bytes_per_tick: config.catch_up_bytes_per_tick(),
        uncommitted_bytes_max: config.uncommitted_bytes_max,
        entry_bytes_max: config.entry_bytes_max as usize,
        catch_up_bytes: config.catch_up_bytes,
        tick_us: config.tick_ms * 1_000,
        lease_drift_percent: config.lease_drift_percent(),
        seed: config.cluster_digest() ^ config.id.wrapping_mul(0x9E37_79B9_7F4A_7C15),
    };
    Shard::restore(settings, &consensus, limits, config.wal(shard), (opened.recovered, loaded), opened.disk)
        .map_err(|error| error.to_string())
}

/// A brand-new group's preferred leader waits this long for the links to stand.
const FIRST_ELECTION_TICKS: u32 = 8;

/// Time between two reports to other nodes.
const REPORT_MS: u64 = 1_000;

/// The first address of a name.
pub(super) fn resolve(address: &str) -> Result<SocketAddr, String> {
    let mut found = address.to_socket_addrs().map_err(|error| format!("cannot resolve {address}: {error}"))?;
    found.next().ok_or_else(|| format!("{address} resolves to no address"))
}

fn listen(shard: u16, config: &ValidNodeConfig) -> Result<TcpListener, String> {
    let address = config.listen_address(shard);
    let resolved = resolve(&address)?;
    ringraft_net::glommio::listen(resolved)
        .map_err(|error| format!("cannot listen on {address}: {error}; is another process using the port?"))
}
