//! Scenarios of disks that are slow, stall, fail, or lose what was not flushed.
//!
//! Off the data path.

use std::thread;
use std::time::Duration;

use anyhow::{Error, Result, anyhow, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ringraft_engine::exit;

use crate::chaos::disk::{Loss, Lost, Settings};
use crate::chaos::stage::{PATIENCE, Stage};

const WRITES: u64 = 100;
const VERY_SLOW: Duration = Duration::from_millis(100);
const SLOWER: Duration = Duration::from_millis(10);
/// Longer than a leader's patience with its disk.
const STALL: Duration = Duration::from_secs(8);

pub(super) fn slow_leader(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    stage.fault(leader, Settings { delay: SLOWER, ..Settings::default() })?;
    let before = stage.load()?.acknowledged();
    stage.sleep(Duration::from_secs(5))?;
    let writes = stage.load()?.acknowledged() - before;
    let after = stage.leader_and_term()?;
    ensure!(after == (leader, term), "a slow disk changed (leader, term) from ({leader}, {term}) to {after:?}");
    ensure!(writes >= WRITES, "only {writes} writes in 5 s");
    stage.note(format!("node {leader}, the leader, has a disk slower by {SLOWER:?}: {writes} writes in 5 s"));
    Ok(())
}

/// Flushes so slow that heartbeats, if they waited for them, would come too late.
pub(super) fn slow_all(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    let before = stage.load()?.acknowledged();
    for id in stage.ids() {
        stage.fault(id, Settings { delay: VERY_SLOW, ..Settings::default() })?;
    }
    stage.sleep(STALL)?;
    let writes = stage.load()?.acknowledged() - before;
    let after = stage.leader_and_term()?;
    ensure!(after == (leader, term), "slow disks changed (leader, term) from ({leader}, {term}) to {after:?}");
    ensure!(writes >= WRITES, "only {writes} writes in {STALL:?}");
    stage.note(format!(
        "all disks are slower by {VERY_SLOW:?}: {writes} writes in {STALL:?}; node {leader} still leads"
    ));
    Ok(())
}

pub(super) fn stalled_all(stage: &mut Stage<'_>) -> Result<()> {
    for id in stage.ids() {
        stage.fault(id, Settings { stalled: true, ..Settings::default() })?;
    }
    stage.load()?.mark();
    stage.sleep(STALL)?;
    ensure!(stage.load()?.first_after_mark().is_none(), "a write was acknowledged that no disk has");
    stage.note(format!("no disk answers for {STALL:?}, and nothing is acknowledged"));
    let mark = stage.load()?.mark();
    for id in stage.ids() {
        stage.fault(id, Settings::default())?;
    }
    let took = stage.first_write(mark)?;
    stage.note(format!("all disks answer; first write acknowledged after {took:.2?}"));
    stage.progress(WRITES)
}

pub(super) fn stalled_leader(stage: &mut Stage<'_>) -> Result<()> {
    let old = stage.leader()?;
    let mark = stage.fault(old, Settings { stalled: true, ..Settings::default() })?;
    stage.note(format!("the disk of node {old}, the leader, answers nothing"));
    let others = stage.others(&[old]);
    let took = stage.fail_over(mark, &others)?;
    stage.note(format!("first write acknowledged after {took:.2?}"));
    stage.sleep(STALL.saturating_sub(took))?;
    stage.progress(WRITES)?;
    stage.fault(old, Settings::default())?;
    stage.note(format!("the disk of node {old} answers again"));
    stage.progress(WRITES)
}

pub(super) fn stalled_follower(stage: &mut Stage<'_>) -> Result<()> {
    let (leader, term) = stage.leader_and_term()?;
    let follower = stage.others(&[leader])[0];
    stage.fault(follower, Settings { stalled: true, ..Settings::default() })?;
    stage.note(format!("the disk of node {follower}, a follower, answers nothing"));
    let before = stage.load()?.acknowledged();
    stage.sleep(STALL)?;
    let writes = stage.load()?.acknowledged() - before;
    stage.fault(follower, Settings::default())?;
    stage.sleep(Duration::from_secs(2))?;
    let after = stage.leader_and_term()?;
    ensure!(after == (leader, term), "a stalled follower changed (leader, term) from ({leader}, {term}) to {after:?}");
    ensure!(writes >= WRITES, "only {writes} writes while it stalled");
    stage.note(format!("{writes} writes while it stalled; node {leader} still leads in term {term}"));
    Ok(())
}

pub(super) fn flush_failure(stage: &mut Stage<'_>) -> Result<()> {
    let fault = Settings { fail_flushes: true, ..Settings::default() };
    for role in ["the leader", "a follower"] {
        poison(stage, role, "a flush", fault)?;
    }
    Ok(())
}

pub(super) fn write_failure(stage: &mut Stage<'_>) -> Result<()> {
    poison(stage, "the leader", "a write", Settings { fail_writes: true, ..Settings::default() })
}

/// A node whose disk failed must end, and come back with all it had promised.
fn poison(stage: &mut Stage<'_>, role: &str, what: &str, fault: Settings) -> Result<()> {
    let leader = stage.leader()?;
    let node = if role == "the leader" { leader } else { stage.others(&[leader])[0] };
    let mark = stage.fault(node, fault)?;
    stage.expect_exit(node, exit::WAL_POISONED)?;
    stage.note(format!("{what} of node {node}, {role}, fails: it ends with exit code {}", exit::WAL_POISONED));
    if node == leader {
        let others = stage.others(&[node]);
        let took = stage.fail_over(mark, &others)?;
        stage.note(format!("first write acknowledged {took:.2?} after the fault"));
    }
    stage.progress(WRITES)?;
    stage.start(node)?;
    stage.serve()?;
    stage.progress(WRITES)?;
    stage.note(format!("writes go on; node {node} is back on a disk in order"));
    Ok(())
}

pub(super) fn read_failure(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader()?;
    let follower = stage.others(&[leader])[0];
    stage.kill(follower)?;
    stage.fault(follower, Settings { fail_reads: true, ..Settings::default() })?;
    stage.start_as_it_is(follower)?;
    stage.expect_exit(follower, exit::CANNOT_START)?;
    stage.note(format!("node {follower} does not start on a disk that cannot be read"));
    stage.progress(WRITES)?;
    stage.start(follower)?;
    stage.serve()?;
    stage.note(format!("node {follower} is back on a disk in order"));
    stage.progress(WRITES)
}

pub(super) fn power_loss(stage: &mut Stage<'_>) -> Result<()> {
    for round in 1..=3 {
        let ids = stage.ids();
        let losses: Vec<(u64, Loss)> = ids.iter().map(|id| (*id, loss_of(stage, round, *id))).collect();
        let (_, lost) = stage.cut_power(&losses)?;
        stage.note(format!(
            "round {round}: all nodes lose power, {} unflushed sectors are lost, {} are not",
            lost.sectors, lost.kept
        ));
        stage.sleep(Duration::from_millis(300))?;
        let mark = stage.load()?.mark();
        for id in &ids {
            stage.start(*id)?;
        }
        let took = stage.first_write(mark)?;
        stage.note(format!("round {round}: all are back; first write acknowledged after {took:.2?}"));
        stage.serve()?;
        stage.progress(WRITES)?;
    }
    Ok(())
}

pub(super) fn lying(stage: &mut Stage<'_>) -> Result<()> {
    let ids = stage.ids();
    for id in &ids {
        stage.fault(*id, Settings { lie: true, ..Settings::default() })?;
    }
    stage.progress(WRITES)?;
    stage.cut_power_now(&ids.iter().map(|id| (*id, Loss::All)).collect::<Vec<_>>())?;
    stage.note("all nodes lose power, and with it what their disks said was flushed");
    for id in &ids {
        stage.start(*id)?;
    }
    stage.serve()
}

const GROWING_BYTES: usize = 64 << 10;
/// More than the rest of one file of the log takes.
const GROWING_MAX: u64 = 2_000;

/// Power is lost while files of the log are made: zeros, lengths and names are on their way, not only records.
pub(super) fn growing(stage: &mut Stage<'_>) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(stage.seed());
    let mut written = 0;
    for round in 1..=4 {
        let console = stage.short_console()?;
        let (next, lost) = thread::scope(|scope| {
            let writer = scope.spawn(|| console.write_while_it_works(written, GROWING_MAX, GROWING_BYTES));
            let lost = lose_all_at(stage, Duration::from_millis(random.random_range(1_000..5_000)), round);
            Ok::<_, Error>((writer.join().map_err(|_| anyhow!("a writer panicked"))?, lost?))
        })?;
        stage.note(format!(
            "round {round}: after {} values of {} KiB all nodes lose power, {} unflushed sectors and {} names",
            next - written,
            GROWING_BYTES >> 10,
            lost.sectors,
            lost.names
        ));
        written = next;
        for id in stage.ids() {
            stage.start(id)?;
        }
        stage.serve()?;
        stage.console()?.verify(0, written, GROWING_BYTES)?;
    }
    stage.progress(WRITES)
}

fn lose_all_at(stage: &mut Stage<'_>, time: Duration, round: u64) -> Result<Lost> {
    stage.sleep(time)?;
    let losses: Vec<(u64, Loss)> = stage.ids().iter().map(|id| (*id, loss_of(stage, round, *id))).collect();
    let (_, lost) = if round.is_multiple_of(2) { stage.cut_power(&losses)? } else { stage.cut_power_now(&losses)? };
    Ok(lost)
}

/// The first round loses everything, the others tear what was being written.
fn loss_of(stage: &Stage<'_>, round: u64, id: u64) -> Loss {
    if round == 1 { Loss::All } else { Loss::SomeSectors(stage.seed() ^ (round << 8) ^ id) }
}

pub(super) fn power_loss_leader(stage: &mut Stage<'_>) -> Result<()> {
    for round in 1..=3 {
        let old = stage.leader()?;
        let loss = loss_of(stage, round, old);
        let (before, lost) = stage.cut_power(&[(old, loss)])?;
        let took = stage.first_write(before)?;
        stage.failed_over(took);
        stage.note(format!(
            "round {round}: node {old}, the leader, loses power and {} unflushed sectors ({} stay); first write after {took:.2?}",
            lost.sectors, lost.kept
        ));
        stage.start(old)?;
        stage.serve()?;
        stage.progress(WRITES)?;
    }
    Ok(())
}

const MISSED: u64 = 6_000;
const MISSED_BYTES: usize = 4 << 10;

pub(super) fn slow_recovery(stage: &mut Stage<'_>) -> Result<()> {
    let leader = stage.leader()?;
    let follower = stage.others(&[leader])[0];
    stage.kill(follower)?;
    let console = stage.console()?;
    console.write(0, MISSED, MISSED_BYTES)?;
    stage.note(format!(
        "node {follower}, a follower, is killed and misses {} MiB",
        (MISSED * MISSED_BYTES as u64) >> 20
    ));
    stage.fault(follower, Settings { delay: SLOWER, ..Settings::default() })?;
    stage.start_as_it_is(follower)?;
    let (before, start) = (stage.load()?.acknowledged(), stage.load()?.now());
    stage.wait("the follower to catch up", PATIENCE, |stage| {
        let status = stage.ask(&stage.ids());
        let committed = status.replicas(0).map(|(_, replica)| replica.commit_index).max().unwrap_or(0);
        let applied =
            status.replicas(0).find(|(node, _)| *node == follower).map_or(0, |(_, replica)| replica.last_applied);
        // Close behind is caught up: the load goes on.
        Ok((applied > 0 && applied + WRITES >= committed).then_some(()))
    })?;
    let took = Duration::from_nanos(stage.load()?.now() - start);
    let writes = stage.load()?.acknowledged() - before;
    stage.note(format!("it catches up in {took:.2?} with a disk slower by {SLOWER:?}; {writes} writes meanwhile"));
    ensure!(writes > 0, "nobody was served while a follower caught up");
    stage.progress(WRITES)
}
