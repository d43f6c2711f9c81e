//! The end of every scenario: all is mended, and what must hold whatever happened is checked.
//!
//! Off the data path.
//! Invariants checked: the cluster serves again by itself; every key written can be read; the history is linearizable;
//! replicas that applied the same have the same state; no node panicked; the memory of each stayed within bounds.

use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result, ensure};
use ringraft_sim::history::History;

use super::history::{self, Checked, Counts};
use super::runner::HISTORY;
use super::stage::{PATIENCE, Stage};
use crate::status::ClusterStatus;

/// Writes that must be acknowledged after everything is mended.
const WRITES_AFTER: u64 = 100;

/// More than the bounds of all queues and caches of a node and the little that is written here come to.
const MEMORY_BYTES_MAX: u64 = 1 << 30;

/// What was seen.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Summary {
    /// Calls of the clients.
    pub counts: Counts,
    /// What their check could not decide.
    pub checked: Checked,
    /// Longest time without an acknowledged write.
    pub longest_gap_ms: u64,
    /// Highest resident memory of a node, since its last start.
    pub memory_bytes: u64,
    /// Packets dropped by cuts.
    pub packets_dropped: u64,
    /// Disk requests that met a fault.
    pub disk_faults: u64,
}

/// The history cannot be explained by one order of its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotLinearizable;

impl fmt::Display for NotLinearizable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the history is not linearizable")
    }
}

/// Mends and checks; the history is left in `folder`.
///
/// # Errors
/// What does not hold.
pub fn judge(stage: &mut Stage<'_>, folder: &Path) -> Result<Summary> {
    stage.heal().context("after everything was mended")?;
    stage.progress(WRITES_AFTER).context("after everything was mended")?;
    let packets_dropped = stage.network.as_ref().map_or(Ok(0), super::network::Network::dropped)?;
    let disk_faults = stage.disks.values().map(super::disk::FaultyDisk::faults_met).sum();
    let memory_bytes = check_memory(stage)?;
    let end = stage.load()?.now();
    let (history, read_back) = stage.load.take().context("the load was stopped before")?.finish()?;
    history::save(&history, &folder.join(HISTORY))?;
    read_back?;
    let counts = Counts::of(&history);
    let longest_gap_ms = history::longest_gap(&history, first(&history), end) / 1_000_000;
    stage.note(format!("all mended; {} calls, {} of them with unknown outcome", counts.calls, counts.unknown));
    wait_for_equal_replicas(stage)?;
    for log in stage.logs() {
        check_log(&log)?;
    }
    let checked = history::check(&history).context(NotLinearizable)?;
    Ok(Summary { counts, checked, longest_gap_ms, memory_bytes, packets_dropped, disk_faults })
}

/// The highest resident memory of a node.
fn check_memory(stage: &mut Stage<'_>) -> Result<u64> {
    let mut highest = 0;
    for id in stage.ids() {
        let pid = stage.cluster.running_pid(id).with_context(|| format!("node {id} does not run"))?;
        let status =
            fs::read_to_string(format!("/proc/{pid}/status")).context("cannot read the status of a process")?;
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        let bytes = kibibytes.and_then(|number| number.parse::<u64>().ok()).context("no VmHWM")? << 10;
        ensure!(bytes <= MEMORY_BYTES_MAX, "node {id} took {} MiB of memory", bytes >> 20);
        highest = highest.max(bytes);
    }
    Ok(highest)
}

fn first(history: &History) -> u64 {
    history.calls.iter().map(|call| call.invoked).min().unwrap_or(0)
}

fn wait_for_equal_replicas(stage: &mut Stage<'_>) -> Result<()> {
    let ids = stage.ids();
    let groups = stage.cluster.file().groups;
    stage.wait("equal replicas", PATIENCE, |stage| {
        let status = stage.ask(&ids);
        (0..groups).try_for_each(|group| differing(&status, group))?;
        Ok((0..groups).all(|group| are_equal(&status, group, ids.len())).then_some(()))
    })
}

/// Replicas that applied the same must have the same state, at any time.
fn differing(status: &ClusterStatus, group: u32) -> Result<()> {
    let replicas: Vec<_> = status.replicas(group).collect();
    for (number, (node, replica)) in replicas.iter().enumerate() {
        for (other, twin) in &replicas[..number] {
            ensure!(
                replica.last_applied != twin.last_applied || replica.state_hash == twin.state_hash,
                "nodes {other} and {node} differ in group {group} at index {}: state hashes {} and {}",
                replica.last_applied,
                twin.state_hash,
                replica.state_hash
            );
        }
    }
    Ok(())
}

fn are_equal(status: &ClusterStatus, group: u32, nodes: usize) -> bool {
    let states: Vec<_> =
        status.replicas(group).map(|(_, replica)| (replica.last_applied, replica.last_index)).collect();
    states.len() == nodes && states.iter().all(|state| *state == states[0] && state.0 == state.1)
}

fn check_log(path: &Path) -> Result<()> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = String::from_utf8_lossy(&text);
    let panic = text.lines().find(|line| line.contains("panicked at"));
    ensure!(panic.is_none(), "{}: {}", path.display(), panic.unwrap_or_default());
    Ok(())
}
