//! Scenarios of disks that fill up: what is refused, what goes on, and that service resumes by itself.
//!
//! Off the data path.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::chaos::stage::{PATIENCE, Stage};

const WRITES: u64 = 100;
/// Too little for one more file of the log.
const LEFT_BYTES: u64 = 2 << 20;
const VALUE_BYTES: usize = 64 << 10;
/// Values that surely fill the files a node has ready.
const VALUES: u64 = 1_600;
const VALUES_AT_ONCE: u64 = 64;

pub(super) fn leader(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader()?;
    stage.image(leader)?.fill(LEFT_BYTES)?;
    stage.note(format!("the disk of node {leader}, the leader, is filled up"));
    let values = write_until_full(stage, leader)?;
    stage.note(format!("its log has no place after {values} values of {} KiB", VALUE_BYTES >> 10));
    stage.sleep(Duration::from_secs(3))?;
    let mark = stage.load()?.mark();
    stage.image(leader)?.empty()?;
    let took = stage.first_write(mark)?;
    stage.note(format!("the disk has space again; first write acknowledged after {took:.2?}"));
    stage.console()?.verify(0, values, VALUE_BYTES)?;
    stage.progress(WRITES)
}

pub(super) fn follower(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    let follower = stage.others(&[leader])[0];
    stage.image(follower)?.fill(LEFT_BYTES)?;
    stage.note(format!("the disk of node {follower}, a follower, is filled up"));
    let values = write_until_full(stage, follower)?;
    stage.note(format!("its log has no place after {values} values of {} KiB", VALUE_BYTES >> 10));
    stage.progress(WRITES).context("while a follower's disk is full")?;
    let during = stage.leader_and_term()?;
    ensure!(during == (leader, term), "a full follower changed (leader, term) from ({leader}, {term}) to {during:?}");
    stage.image(follower)?.empty()?;
    stage.wait("the follower to catch up", PATIENCE, |stage| {
        let full = is_full(stage, follower);
        Ok((!full).then_some(()))
    })?;
    stage.console()?.verify(0, values, VALUE_BYTES)?;
    stage.progress(WRITES)
}

/// Writes values until the log of the node has no place left; how many were acknowledged.
fn write_until_full(stage: &mut Stage<'_>, node: u64) -> Result<u64> {
    let console = stage.short_console()?;
    let mut written = 0;
    while written < VALUES {
        if let Err(error) = console.write(written, VALUES_AT_ONCE, VALUE_BYTES) {
            ensure!(is_full(stage, node), "a write failed although the disk is not full: {error:#}");
            break;
        }
        written += VALUES_AT_ONCE;
    }
    ensure!(is_full(stage, node), "the disk does not fill");
    Ok(written)
}

fn is_full(stage: &Stage<'_>, node: u64) -> bool {
    stage.ask(&[node]).shards.iter().any(|shard| shard.rest["wal"]["full"] == true)
}
