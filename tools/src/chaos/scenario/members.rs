//! Scenarios in which nodes join and leave.
//!
//! Off the data path.
//! Replicas are compared at the end on all nodes, so there are as many then as a group has replicas.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::super::stage::Stage;

/// Longest a change may take.
const CHANGE_PATIENCE: Duration = Duration::from_secs(120);
/// Clients that begin at the end know only founding nodes: one of them stays.
const STAYS: u64 = 3;
/// Writes acknowledged between two changes.
const WRITES: u64 = 200;

pub(super) fn grow_and_shrink(stage: &mut Stage<'_>) -> Result<()> {
    for _ in 0..4 {
        add(stage, None)?;
    }
    for _ in 0..4 {
        let oldest = oldest(stage)?;
        stage.cluster.remove_node(oldest, CHANGE_PATIENCE, |_| {})?;
        stage.note(format!("node {oldest} is removed: {} nodes", stage.ids().len()));
        stage.progress(WRITES)?;
    }
    let wiped = oldest(stage)?;
    stage.kill(wiped)?;
    let data = stage.cluster.data_directory(wiped);
    fs::remove_dir_all(&data).with_context(|| format!("cannot wipe {}", data.display()))?;
    stage.note(format!("node {wiped} is killed and its disk wiped"));
    add(stage, Some(wiped))
}

fn add(stage: &mut Stage<'_>, replaced: Option<u64>) -> Result<()> {
    let id = stage.cluster.add_node(replaced, CHANGE_PATIENCE, |_| {})?;
    let old = replaced.map(|old| format!(" in the place of node {old}")).unwrap_or_default();
    stage.note(format!("node {id} has joined{old}: {} nodes", stage.ids().len()));
    stage.progress(WRITES)
}

fn oldest(stage: &Stage<'_>) -> Result<u64> {
    stage.others(&[STAYS]).into_iter().min().context("the cluster has no other nodes")
}
