//! Scenarios of links that drop packets.
//!
//! Off the data path.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::chaos::network::Member;
use crate::chaos::stage::{ELECTION_PATIENCE, Stage};

const WRITES: u64 = 100;
/// Several times the longest election timeout.
const LONG: Duration = Duration::from_secs(5);
/// After it a leader without followers has stepped down, whatever the timers drew.
const STEP_DOWN: Duration = Duration::from_secs(4);

pub(super) fn minority(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    let follower = stage.others(&[leader])[0];
    let others = stage.others(&[follower]);
    stage.split(&[follower], &others)?;
    stage.note(format!("node {follower}, a follower, is cut off"));
    stage.sleep(LONG)?;
    stage.progress(WRITES)?;
    stage.network()?.heal()?;
    stage.sleep(LONG)?;
    let after = stage.leader_and_term()?;
    ensure!(after == (leader, term), "(leader, term) was ({leader}, {term}) before the cut, and is {after:?} after it");
    stage.note(format!("node {follower} is back; node {leader} still leads in term {term}"));
    Ok(())
}

pub(super) fn majority(stage: &mut Stage<'_>) -> Result<()> {
    let old = stage.leader()?;
    let follower = stage.others(&[old])[0];
    let many = stage.others(&[old, follower]);
    let mark = stage.split(&[old, follower], &many)?;
    stage.note(format!("nodes {old} (the leader) and {follower} are cut off from {many:?}; clients reach all"));
    let took = stage.fail_over(mark, &many)?;
    stage.note(format!("first write acknowledged after {took:.2?}"));
    stage.wait("the old leader to step down", ELECTION_PATIENCE, |stage| {
        let stepped_down = stage.ask(&[old]).replicas(0).any(|(_, replica)| replica.role != "leader");
        Ok(stepped_down.then_some(()))
    })?;
    stage.progress(WRITES)?;
    stage.note(format!("node {old} has stepped down; writes go on"));
    stage.network()?.heal()?;
    stage.progress(WRITES)
}

pub(super) fn full(stage: &mut Stage<'_>) -> Result<()> {
    let ids = stage.ids();
    for id in &ids {
        let others = stage.others(&[*id]);
        stage.split(&[*id], &others)?;
    }
    stage.note("every node is alone");
    stage.sleep(STEP_DOWN)?;
    stage.load()?.mark();
    stage.sleep(LONG)?;
    ensure!(stage.load()?.first_after_mark().is_none(), "a write was acknowledged without a majority");
    stage.note(format!("nothing was acknowledged for {LONG:?}"));
    let mark = stage.load()?.mark();
    stage.network()?.heal()?;
    let took = stage.first_write(mark)?;
    stage.note(format!("the links are back; first write acknowledged after {took:.2?}"));
    stage.progress(WRITES)
}

pub(super) fn asymmetric(stage: &mut Stage<'_>) -> Result<()> {
    for deaf in [true, false] {
        let old = stage.leader()?;
        let others = stage.others(&[old]);
        let mark = stage.load()?.mark();
        for other in &others {
            let (leader, other) = (Member::Node(old), Member::Node(*other));
            let (from, to) = if deaf { (other, leader) } else { (leader, other) };
            stage.network()?.cut(from, to)?;
        }
        let what = if deaf { "hears no other node, they hear it" } else { "is heard by no other node, it hears them" };
        stage.note(format!("node {old}, the leader, {what}"));
        let took = stage.fail_over(mark, &others)?;
        stage.note(format!("first write acknowledged after {took:.2?}"));
        stage.progress(WRITES)?;
        stage.network()?.heal()?;
        stage.progress(WRITES)?;
    }
    Ok(())
}

pub(super) fn bridge(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    let others = stage.others(&[leader]);
    let (with_leader, bridge, far) = ([leader, others[0]], others[1], [others[2], others[3]]);
    stage.split(&with_leader, &far)?;
    stage
        .note(format!("nodes {with_leader:?} (the first leads) and {far:?} see each other only through node {bridge}"));
    stage.sleep(LONG)?;
    stage.progress(WRITES)?;
    let during = stage.leader_and_term()?;
    ensure!(during == (leader, term), "the far side deposed a leader that a majority hears: {during:?}");
    stage.note(format!("node {leader} still leads in term {term}; writes go on"));
    // The bridge itself fails: the far side has two nodes and the near side too, so nobody has a majority.
    stage.kill(bridge)?;
    stage.sleep(STEP_DOWN)?;
    stage.load()?.mark();
    stage.sleep(Duration::from_secs(2))?;
    ensure!(stage.load()?.first_after_mark().is_none(), "a write was acknowledged without a majority");
    stage.note(format!("node {bridge} is killed; nothing is acknowledged"));
    stage.start(bridge)?;
    stage.progress(WRITES)?;
    // A leader must be found although the halves do not hear each other's candidates.
    for round in 1..=3 {
        let ids = stage.ids();
        for id in &ids {
            stage.kill(*id)?;
        }
        let mark = stage.load()?.mark();
        for id in &ids {
            stage.start(*id)?;
        }
        let took = stage.first_write(mark)?;
        stage.progress(WRITES)?;
        let (leader, term) = stage.leader_and_term()?;
        stage.sleep(LONG)?;
        let after = stage.leader_and_term()?;
        ensure!(
            after == (leader, term),
            "(leader, term) was ({leader}, {term}), and is {after:?} though nothing failed"
        );
        stage.note(format!("round {round}: all are killed and started; first write acknowledged after {took:.2?}"));
    }
    stage.network()?.heal()?;
    stage.progress(WRITES)
}

pub(super) fn clients(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    stage.network()?.split(&[Member::Clients], &[Member::Node(leader)])?;
    stage.note(format!("clients do not reach node {leader}, the leader"));
    stage.sleep(LONG)?;
    let mark = stage.load()?.mark();
    stage.network()?.heal()?;
    let took = stage.first_write(mark)?;
    let after = stage.leader_and_term()?;
    ensure!(after == (leader, term), "(leader, term) was ({leader}, {term}) before the cut, and is {after:?} after it");
    stage.note(format!("clients reach node {leader} again; first write acknowledged after {took:.2?}"));
    stage.progress(WRITES)
}

pub(super) fn flapping(stage: &mut Stage<'_>) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(stage.seed());
    let ids = stage.ids();
    for _ in 0..15 {
        let one = ids[random.random_range(0..ids.len())];
        let others = stage.others(&[one]);
        let other = others[random.random_range(0..others.len())];
        let network = stage.network()?;
        match random.random_range(0..3) {
            0 => network.cut(Member::Node(one), Member::Node(other))?,
            1 => network.split(&[Member::Node(one)], &[Member::Node(other)])?,
            _ => network.split(&[Member::Node(one)], &others.iter().copied().map(Member::Node).collect::<Vec<_>>())?,
        }
        stage.sleep(Duration::from_millis(random.random_range(100..1_200)))?;
        if random.random_range(0..3) > 0 {
            stage.network()?.heal()?;
            stage.sleep(Duration::from_millis(random.random_range(0..800)))?;
        }
    }
    stage.network()?.heal()?;
    let mark = stage.load()?.mark();
    let took = stage.first_write(mark).context("after the last link recovered")?;
    stage.note(format!("15 cuts; first write acknowledged {took:.2?} after the last link recovered"));
    stage.progress(WRITES)
}
