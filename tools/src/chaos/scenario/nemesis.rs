//! Everything at random: one fault upon another, and mending in between.
//!
//! Off the data path.
//! The seed decides what is done and in which order; what the cluster makes of it depends on the machine.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::seq::{IndexedRandom, SliceRandom};
use rand::{Rng, SeedableRng};

use crate::chaos::disk::{Loss, Settings};
use crate::chaos::network::Member;
use crate::chaos::stage::Stage;

const ROUNDS: u32 = 40;
const WRITES: u64 = 100;

pub(super) fn random(stage: &mut Stage<'_>) -> Result<()> {
    let mut random = SmallRng::seed_from_u64(stage.seed().wrapping_mul(0x9E37_79B9_7F4A_7C15));
    for round in 1..=ROUNDS {
        let what = fault(stage, &mut random)?;
        stage.note(format!("{round:>3}  {what}"));
        stage.sleep(Duration::from_millis(random.random_range(50..1_500)))?;
    }
    stage.heal()?;
    let mark = stage.load()?.mark();
    let took = stage.first_write(mark).context("after everything was mended")?;
    stage.note(format!("all mended; first write acknowledged after {took:.2?}"));
    stage.progress(WRITES)
}

fn fault(stage: &mut Stage<'_>, random: &mut SmallRng) -> Result<String> {
    let (mut running, down) = (stage.running(&stage.ids()), stage.down());
    running.shuffle(random);
    // Without a majority little happens: not for long.
    let outnumbered = down.len() >= running.len();
    if running.is_empty() || outnumbered && random.random() {
        return start(stage, &down);
    }
    let node = running[0];
    let some = running[..random.random_range(1..=running.len())].to_vec();
    match random.random_range(0..100) {
        0..12 => kill(stage, &[node]),
        12..16 => kill(stage, &some),
        16..26 => lose_power(stage, &[node], random),
        26..32 => lose_power(stage, &some, random),
        32..42 => pause(stage, node),
        42..60 => cut(stage, node, random),
        60..68 => disk(stage, node, Settings { stalled: true, ..Settings::default() }, "stalls"),
        68..74 => {
            let delay = Duration::from_millis(random.random_range(1..20));
            disk(stage, node, Settings { delay, ..Settings::default() }, &format!("is slower by {delay:?}"))
        }
        74..80 => disk(stage, node, Settings::default(), "is in order"),
        80..85 => {
            stage.network()?.heal()?;
            Ok(String::from("all links are mended"))
        }
        85..90 if !down.is_empty() => start(stage, &down[..1]),
        90..96 => serve_with_a_majority(stage, random),
        _ => {
            stage.heal()?;
            Ok(String::from("everything is mended"))
        }
    }
}

/// Mends a majority by chance; the others stay as they are, and must not keep it from serving. But clients reach all:
/// the leader may be another node that is fit to lead, and then only it can answer.
fn serve_with_a_majority(stage: &mut Stage<'_>, random: &mut SmallRng) -> Result<String> {
    let mut ids = stage.ids();
    ids.shuffle(random);
    ids.truncate(ids.len() / 2 + 1);
    let mark = stage.load()?.mark();
    stage.mend(&ids)?;
    stage.network()?.heal_of(Member::Clients)?;
    let took = stage.first_write(mark).with_context(|| format!("with nodes {ids:?} in order and connected"))?;
    Ok(format!("nodes {ids:?} are in order and connected; first write acknowledged after {took:.2?}"))
}

fn kill(stage: &mut Stage<'_>, ids: &[u64]) -> Result<String> {
    for id in ids {
        // A process that waits for a stalled disk cannot be killed.
        stage.disk(*id)?.power_on();
        stage.kill(*id)?;
    }
    Ok(format!("kill of {ids:?}"))
}

fn lose_power(stage: &mut Stage<'_>, ids: &[u64], random: &mut SmallRng) -> Result<String> {
    let losses: Vec<(u64, Loss)> = ids.iter().map(|id| (*id, loss(random))).collect();
    let (_, lost) = if random.random() { stage.cut_power(&losses)? } else { stage.cut_power_now(&losses)? };
    Ok(format!("loss of power of {ids:?}: {} unflushed sectors are lost, {} are not", lost.sectors, lost.kept))
}

fn loss(random: &mut SmallRng) -> Loss {
    if random.random() { Loss::All } else { Loss::SomeSectors(random.random()) }
}

fn pause(stage: &mut Stage<'_>, id: u64) -> Result<String> {
    if stage.is_paused(id) {
        stage.resume(id)?;
        return Ok(format!("node {id} wakes"));
    }
    stage.pause(id)?;
    Ok(format!("node {id} sleeps"))
}

fn cut(stage: &mut Stage<'_>, node: u64, random: &mut SmallRng) -> Result<String> {
    let others = stage.others(&[node]);
    let other = *others.choose(random).context("a cluster of one has no links")?;
    let (one, two) = (Member::Node(node), Member::Node(other));
    let network = stage.network()?;
    match random.random_range(0..4) {
        0 => {
            network.cut(one, two)?;
            Ok(format!("node {other} does not hear node {node}"))
        }
        1 => {
            network.split(&[one], &[two])?;
            Ok(format!("no link between {node} and {other}"))
        }
        2 => {
            network.split(&[Member::Clients], &[one])?;
            Ok(format!("clients do not reach node {node}"))
        }
        _ => {
            network.split(&[one], &others.iter().copied().map(Member::Node).collect::<Vec<_>>())?;
            Ok(format!("node {node} is cut off"))
        }
    }
}

fn disk(stage: &mut Stage<'_>, id: u64, settings: Settings, what: &str) -> Result<String> {
    stage.fault(id, settings)?;
    Ok(format!("the disk of node {id} {what}"))
}

fn start(stage: &mut Stage<'_>, ids: &[u64]) -> Result<String> {
    for id in ids {
        stage.start(*id)?;
    }
    Ok(format!("start of {ids:?}"))
}
