//! Scenarios of processes that die or are stopped.
//!
//! Off the data path.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::chaos::stage::{PATIENCE, Stage};

const KEYS: u64 = 100;
/// Less than the patience of a node that stops with what it has to finish.
const STOP_WITHIN: Duration = Duration::from_millis(2_500);
const VALUE_BYTES: usize = 64;

pub(super) fn leader_kill_catchup(stage: &mut Stage<'_>) -> Result<()> {
    let console = stage.console()?;
    console.write(0, KEYS, VALUE_BYTES)?;
    stage.note(format!("{KEYS} keys are written"));
    let old = stage.leader()?;
    let mark = stage.kill(old)?;
    stage.note(format!("node {old}, the leader, is killed"));
    let others = stage.others(&[old]);
    let took = stage.fail_over(mark, &others)?;
    stage.note(format!("first write acknowledged {took:.2?} after the kill"));
    console.verify(0, KEYS, VALUE_BYTES)?;
    stage.note(format!("{KEYS} keys are read back"));
    console.write(KEYS, KEYS, VALUE_BYTES)?;
    stage.note(format!("{KEYS} more keys are written"));
    stage.start(old)?;
    stage.serve()?;
    let applied = stage.ask(&others).replicas(0).map(|(_, replica)| replica.last_applied).max().unwrap_or(0);
    stage.wait("the old leader to catch up", PATIENCE, |stage| {
        let caught_up = stage.ask(&[old]).replicas(0).any(|(_, replica)| replica.last_applied >= applied);
        Ok(caught_up.then_some(()))
    })?;
    stage.note(format!("node {old} is back and has applied entry {applied}"));
    console.verify(0, 2 * KEYS, VALUE_BYTES)
}

pub(super) fn leader_kill(stage: &mut Stage<'_>) -> Result<()> {
    let old = stage.leader()?;
    let mark = stage.kill(old)?;
    let took = stage.first_write(mark)?;
    stage.failed_over(took);
    let others = stage.others(&[old]);
    let new = stage.wait_for_leader_among(&others)?;
    stage.note(format!("node {old} is killed; node {new} leads, first write acknowledged after {took:.2?}"));
    stage.progress(KEYS)
}

pub(super) fn majority(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader()?;
    let killed = stage.others(&[leader]);
    for id in &killed {
        stage.kill(*id)?;
    }
    stage.note(format!("nodes {killed:?} are killed, node {leader} is alone"));
    stage.sleep(Duration::from_secs(3))?;
    ensure!(stage.load()?.first_after_mark().is_none(), "a write was acknowledged without a majority");
    stage.note("nothing was acknowledged for 3 s");
    let mark = stage.load()?.mark();
    stage.start(killed[0])?;
    let took = stage.first_write(mark)?;
    stage.note(format!("node {} is back; first write acknowledged after {took:.2?}", killed[0]));
    stage.progress(KEYS)
}

pub(super) fn all(stage: &mut Stage<'_>) -> Result<()> {
    for round in 1..=3 {
        let ids = stage.ids();
        for id in &ids {
            stage.kill(*id)?;
        }
        stage.note(format!("round {round}: all are killed"));
        stage.sleep(Duration::from_millis(200))?;
        let mark = stage.load()?.mark();
        for id in &ids {
            stage.start(*id)?;
        }
        let took = stage.first_write(mark)?;
        stage.note(format!("round {round}: all are started; first write acknowledged after {took:.2?}"));
        stage.serve()?;
        stage.progress(KEYS)?;
    }
    Ok(())
}

pub(super) fn rolling(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader()?;
    let mut order = stage.others(&[leader]);
    order.push(leader);
    for id in order {
        let took = stage.stop_in_order(id)?;
        // Else it gave up waiting for something.
        ensure!(took < STOP_WITHIN, "node {id} took {took:.2?} to stop in order");
        stage.progress(KEYS)?;
        stage.start(id)?;
        stage.serve()?;
        stage.progress(KEYS)?;
        stage.note(format!("node {id} is stopped in order within {took:.2?} and started again; writes go on"));
    }
    Ok(())
}
