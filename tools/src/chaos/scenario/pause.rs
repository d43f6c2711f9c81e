//! Scenarios of processes that sleep, and of clocks that differ.
//!
//! Off the data path.
//! A process that sleeps cannot tell that time passed: it wakes in the belief to lead, with requests in its sockets.
//! A clock cannot be given another rate for one process here. What a node does with its clock is to count ticks, so a node
//! whose ticks are longer or shorter is one whose clock is slow or fast.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::chaos::stage::Stage;

const WRITES: u64 = 100;
const QUIET: Duration = Duration::from_secs(5);

pub(super) fn leader(stage: &mut Stage<'_>) -> Result<()> {
    for round in 1..=3 {
        let old = stage.leader()?;
        let mark = stage.pause(old)?;
        stage.note(format!("round {round}: node {old}, the leader, sleeps"));
        let others = stage.others(&[old]);
        let took = stage.fail_over(mark, &others)?;
        stage.note(format!("first write acknowledged after {took:.2?}"));
        stage.progress(WRITES)?;
        stage.resume(old)?;
        stage.progress(WRITES)?;
        let woken = stage.leader()?;
        stage.note(format!("round {round}: node {old} is awake; node {woken} leads"));
    }
    Ok(())
}

pub(super) fn follower(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    let follower = stage.others(&[leader])[0];
    stage.pause(follower)?;
    stage.note(format!("node {follower}, a follower, sleeps"));
    stage.sleep(QUIET)?;
    stage.progress(WRITES)?;
    stage.resume(follower)?;
    stage.sleep(QUIET)?;
    let after = stage.leader_and_term()?;
    ensure!(after == (leader, term), "a sleeping follower changed (leader, term) from ({leader}, {term}) to {after:?}");
    stage.note(format!("node {follower} is awake; node {leader} still leads in term {term}"));
    Ok(())
}

pub(super) fn clock_skew(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    stage.sleep(2 * QUIET)?;
    let after = stage.leader_and_term()?;
    ensure!(after == (leader, term), "clocks alone changed (leader, term) from ({leader}, {term}) to {after:?}");
    stage.note(format!("node {leader} leads in term {term} for {:?}", 2 * QUIET));
    // Each in turn leads with its own clock, or votes with it.
    for id in stage.ids() {
        let mark = stage.kill(id)?;
        let took = stage.first_write(mark)?;
        stage.start(id)?;
        stage.serve()?;
        stage.progress(WRITES)?;
        stage.note(format!("node {id} is killed and started; first write after {took:.2?}"));
    }
    Ok(())
}
