//! One run: the phases, from an empty cluster to the last comparison.
//!
//! Off the data path.
//!
//! ```text
//!   start --> faults and load --> heal --> load without faults --> calls end --> members settle (settle.rs)
//!         --> converge --> read everything --> compare
//! ```
//!
//! Invariant: each phase ends within a bounded simulated time, or the run has found a violation of liveness.

use std::collections::BTreeMap;

use ringraft_net::wire::{Consistency, Operation, OperationResult};

use crate::checkers::Violation;
use crate::checkers::disk_logs;
use crate::checkers::log_replay::{self, Replayed};
use crate::checkers::staleness;
use crate::events::Event;
use crate::history::CallOutcome;
use crate::linearizability;
use crate::load;
use crate::nemesis::Action;
use crate::node::Lost;
use crate::plan::Plan;
use crate::statistics::Statistics;
use crate::trace::TraceMode;
use crate::world::{Checked, World};

/// What a run found.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What does not hold, if anything.
    pub violation: Option<Violation>,
    /// Hash of everything that happened.
    pub trace_hash: u64,
    /// The last things that happened, if lines were kept.
    pub lines: Vec<String>,
    /// Counts.
    pub statistics: Statistics,
}

/// Load without faults before the clients stop asking.
const CALM_US: u64 = 3_000_000;
/// Replicas must agree so long after faults and load are over.
const CONVERGE_US: u64 = 30_000_000;
/// New writes and reads must succeed within this.
const PROBE_US: u64 = 15_000_000;
/// Rounds of probes.
const PROBES_MAX: usize = 3;
/// Between two looks at whether a phase is over.
const STEP_US: u64 = 50_000;

/// Runs a plan with the nemesis, or with the actions of a scenario.
#[must_use]
pub(crate) fn run(plan: Plan, script: &[(u64, Action)], mode: TraceMode) -> Outcome {
    let mut world = World::new(plan, mode);
    let violation = phases(&mut world, script).err();
    if let Some(violation) = &violation {
        let text = violation.to_string();
        world.note(format_args!("violation: {text}"));
    }
    (0..world.plan.nodes).for_each(|node| world.count_reads(node));
    let mut statistics = std::mem::take(&mut world.statistics);
    statistics.simulated_us = world.now_us();
    statistics.events = world.trace.events();
    statistics.entries = world.checkers.archive().count();
    Outcome { violation, trace_hash: world.trace.digest(), lines: world.trace.lines().cloned().collect(), statistics }
}

fn phases(world: &mut World, script: &[(u64, Action)]) -> Checked {
    begin(world, script);
    let faults_until_us = world.plan.faults_until_us;
    world.run_until(faults_until_us)?;
    world.heal()?;
    world.run_until(faults_until_us + CALM_US)?;
    world.asking = false;
    end_of_calls(world)?;
    world.settle()?;
    converge(world, false)?;
    probe(world)?;
    converge(world, true)?;
    world.checkers.compare(&world.nodes)?;
    compare(world)
}

fn begin(world: &mut World, script: &[(u64, Action)]) {
    for node in 0..world.plan.founders {
        let delay_us = world.streams.host.below(100_000);
        world.start_after(node, delay_us);
    }
    for client in 0..world.plan.load.clients {
        let delay_us = world.streams.host.below(500_000);
        world.events.after(delay_us, Event::ClientAsk { client, generation: 0 });
    }
    world.events.at(1_000_000, Event::Check);
    if world.plan.members.is_some() {
        world.events.at(world.plan.faults_from_us, Event::Operator);
    }
    if script.is_empty() {
        world.events.at(world.plan.faults_from_us, Event::Nemesis);
    }
    for (at_us, action) in script {
        world.events.at(*at_us, Event::Act(*action));
    }
}

/// Every call ends, by its deadline at the latest.
fn end_of_calls(world: &mut World) -> Checked {
    let patience_us = world.plan.load.request_timeout_us + 2_000_000;
    let until_us = world.now_us() + patience_us;
    while world.clients.iter().any(|client| !client.open.is_empty()) {
        if world.now_us() >= until_us {
            let open: Vec<usize> = world.clients.iter().flat_map(|client| client.open.values().copied()).collect();
            return Err(Violation::new("every call ends", format!("still open after their deadlines: calls {open:?}")));
        }
        let step_us = world.now_us() + STEP_US;
        world.run_until(step_us)?;
    }
    Ok(())
}

/// All replicas that live agree, and every group has a leader. Before every group was `written` to, the leader may be one
/// whose disk stands still: with nothing to write it cannot know.
fn converge(world: &mut World, written: bool) -> Checked {
    let until_us = world.now_us() + CONVERGE_US;
    loop {
        let Some(reason) = world.why_not_converged(written) else { return Ok(()) };
        if world.now_us() >= until_us {
            return Err(Violation::new("convergence after faults end", reason));
        }
        let step_us = world.now_us() + STEP_US;
        world.run_until(step_us)?;
    }
}

impl World {
    /// What is missing for all replicas to agree.
    fn why_not_converged(&self, written: bool) -> Option<String> {
        for (place, node) in self.nodes.iter().enumerate() {
            let excused = node.lost.is_some() || !node.may_start();
            if !node.is_well() && !excused {
                return Some(format!("node {} does not run: {:?}", place + 1, node.state));
            }
        }
        let may_wait = |group: &u32| written || !self.is_led_by_a_lost_node(*group);
        (0..self.plan.groups).filter(may_wait).find_map(|group| self.why_not_equal(group))
    }

    fn is_led_by_a_lost_node(&self, group: u32) -> bool {
        let lost = self.nodes.iter().filter(|node| node.lost.is_some());
        let hosts = lost.filter_map(|node| node.process.as_ref()).flat_map(|process| &process.hosts);
        let mut views = hosts.flat_map(|host| host.shard.group_views());
        views.any(|view| view.group == group && view.role == ringraft_raft::Role::Leader)
    }

    fn why_not_equal(&self, group: u32) -> Option<String> {
        let running = self.nodes.iter().enumerate().filter(|(_, node)| node.is_well());
        let views: Vec<_> = running
            .filter_map(|(place, node)| Some((place, node.process.as_ref()?)))
            .flat_map(|(place, process)| process.hosts.iter().map(move |host| (place, host)))
            .flat_map(|(place, host)| host.shard.group_views().map(move |view| (place, view)))
            .filter(|(_, view)| view.group == group)
            .collect();
        let Some((leader, first)) = views.iter().find(|(_, view)| view.role == ringraft_raft::Role::Leader) else {
            return Some(format!("group {group} has no leader"));
        };
        for (place, view) in &views {
            let same = view.last == first.last
                && view.commit_index == first.last.index
                && view.last_applied == first.last.index
                && view.durable_index == first.last.index
                && view.state_hash == first.state_hash;
            if !same {
                let (one, other) = (leader + 1, place + 1);
                let followers = self.followers_of(*leader, group);
                return Some(format!(
                    "group {group}: node {one} leads with {first:?}, node {other} has {view:?}; it sees {followers}"
                ));
            }
        }
        None
    }
}

impl World {
    /// What a leader knows of its followers, for the report.
    fn followers_of(&self, node: usize, group: u32) -> String {
        let hosts = self.nodes[node].process.iter().flat_map(|process| &process.hosts);
        let groups = hosts.flat_map(|host| host.shard.status().groups);
        groups.filter(|status| status.group == group).map(|status| format!("{:?}", status.followers)).collect()
    }
}

/// One write in every group and a read of every key, by a client of its own. A write of unknown outcome is asked for again,
/// as a client would: a leader whose slow disk stands still for too long may give up with it.
fn probe(world: &mut World) -> Checked {
    let mut asked = Vec::new();
    for group in 0..world.plan.groups {
        let key = (0..).map(|number: u32| format!("probe{number}").into_bytes());
        let mine = |key: &Vec<u8>| ringraft_net::slots::group_of_key(key, world.plan.groups) == group;
        let Some(key) = key.into_iter().find(mine) else { continue };
        asked.push(vec![Operation::Put { key, value: format!("probe of group {group}").into_bytes() }]);
    }
    for (_, keys) in load::all_keys(&world.plan.load.clone()) {
        asked.push(keys.into_iter().map(|key| Operation::Get { key }).collect());
    }
    for _ in 0..PROBES_MAX {
        asked = probe_once(world, asked)?;
    }
    asked.first().map_or(Ok(()), |call| {
        let text = format!("of unknown outcome {PROBES_MAX} times: {call:?}");
        Err(Violation::new("service after faults end", text))
    })
}

/// The same for the next round: values tell calls apart.
fn marked(operation: &Operation) -> Operation {
    let mut operation = operation.clone();
    if let Operation::Put { value, .. } = &mut operation {
        value.push(b'+');
    }
    operation
}

/// Asks for all of it, and waits; what has an unknown outcome.
fn probe_once(world: &mut World, asked: Vec<Vec<Operation>>) -> Result<Vec<Vec<Operation>>, Violation> {
    let client = world.plan.load.clients;
    let deadline_us = world.now_us() + PROBE_US;
    let first = world.history.calls.len();
    for operations in asked {
        world.submit(client, operations, (Consistency::Linearizable, 0), Some(deadline_us))?;
    }
    while !world.clients[client].open.is_empty() && world.now_us() < deadline_us + 1_000_000 {
        let step_us = world.now_us() + STEP_US;
        world.run_until(step_us)?;
    }
    let mut again = Vec::new();
    for call in &world.history.calls[first..] {
        match call.ended.as_ref().map(|ended| &ended.outcome) {
            Some(CallOutcome::Done { .. }) => {}
            Some(CallOutcome::Unknown) => again.push(call.operations.iter().map(marked).collect()),
            _ => {
                let text = format!("not done in time: {call:?}");
                world.describe_leaders();
                return Err(Violation::new("service after faults end", text));
            }
        }
    }
    Ok(again)
}

/// Reads the logs back from the disks, replays what was committed and compares everything that was said with it.
fn compare(world: &mut World) -> Checked {
    let archive = world.checkers.archive();
    let sound = |node: &crate::node::Node| node.is_well() && node.lost != Some(Lost::Damaged);
    let mut sound_nodes = 0;
    for (place, node) in world.nodes.iter_mut().enumerate().filter(|(_, node)| sound(node)) {
        sound_nodes += 1;
        let hosts = node.process.iter().flat_map(|process| &process.hosts);
        for (host, medium) in hosts.zip(&mut node.media) {
            disk_logs::check(place, medium, host.shard.group_views(), archive)?;
        }
    }
    if sound_nodes == 0 {
        return Err(Violation::new("the plan", "no sound node is left"));
    }
    let mut logs: BTreeMap<u32, Replayed> = BTreeMap::new();
    for group in 0..world.plan.groups {
        let replayed = log_replay::replay(group, archive.entries(group), world.plan.limits)?;
        world.checkers.compare_states(group, &replayed)?;
        logs.insert(group, replayed);
    }
    log_replay::compare(&world.history, &logs)?;
    compare_reads(world, &logs)?;
    staleness::check(&world.history, &world.bounded, world.plan.slowest_clock_percent())?;
    check_linearizability(world, &logs)
}

/// The last reads of every key give what the log says at their place; a call of unknown outcome may still have written
/// behind it.
fn compare_reads(world: &World, logs: &BTreeMap<u32, Replayed>) -> Checked {
    let prober = world.plan.load.clients as u32;
    for call in world.history.calls.iter().filter(|call| call.client == prober) {
        let Some(CallOutcome::Done { position, results }) = call.ended.as_ref().map(|ended| &ended.outcome) else {
            continue;
        };
        for (operation, result) in call.operations.iter().zip(results) {
            let (Operation::Get { key }, OperationResult::Value(found)) = (operation, result) else { continue };
            let group = ringraft_net::slots::group_of_key(key, world.plan.groups);
            let expected = logs.get(&group).and_then(|log| log.value_at(key, position.index));
            if found.as_ref() != expected {
                let key = String::from_utf8_lossy(key);
                let text = format!("key {key} reads {found:?} in the end, its log says {expected:?}");
                return Err(Violation::new("acknowledged is never lost", text));
            }
        }
    }
    Ok(())
}

/// The answers of all clients fit one order of their calls.
fn check_linearizability(world: &mut World, logs: &BTreeMap<u32, Replayed>) -> Checked {
    let unfinished = world.history.calls.iter().filter(|call| call.ended.is_none()).count() as u64;
    let restarted = world.clients.iter().any(|client| client.generation > 0);
    if unfinished > 0 && !restarted {
        let text = format!("{unfinished} calls of clients that never stopped have no end");
        return Err(Violation::new("every call ends", text));
    }
    let now_us = world.now_us();
    log_replay::resolve(&mut world.history, logs, now_us)?;
    let summary = linearizability::check(&world.history);
    let summary = summary.map_err(|violation| Violation::new("linearizability", violation.to_string()))?;
    world.statistics.undecided += summary.undecided as u64;
    Ok(())
}
