//! The scenarios: what each does, what it needs, whether it is in the short set.
//!
//! Off the data path.
//! Relation: a scenario's function has only the steps. Before it the cluster serves under load; after it everything is
//! mended and checked (`verdict`).

mod disk;
mod full_disk;
mod kill;
mod members;
mod nemesis;
mod partition;
mod pause;

use anyhow::Result;

use super::rights::Need;
use super::stage::Stage;

/// A scenario.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    /// Nodes of its cluster.
    pub nodes: u64,
    /// Its Raft groups.
    pub groups: u32,
    /// Executors of each node.
    pub shards: u16,
    /// What the machine must have.
    pub needs: &'static [Need],
    /// Further arguments of all nodes.
    pub arguments: &'static [&'static str],
    /// Further arguments of each node.
    pub node_arguments: &'static [&'static [&'static str]],
    /// Whether it is part of the short set.
    pub in_short_set: bool,
    /// Whether acknowledged writes are lost on purpose: then the check must say so, or it is no check.
    pub loses_writes: bool,
    /// The steps.
    pub steps: fn(&mut Stage<'_>) -> Result<()>,
}

const fn scenario(name: &'static str, about: &'static str, steps: fn(&mut Stage<'_>) -> Result<()>) -> Scenario {
    Scenario {
        name,
        about,
        nodes: 3,
        groups: 1,
        shards: 1,
        needs: &[],
        arguments: &[],
        node_arguments: &[],
        in_short_set: false,
        loses_writes: false,
        steps,
    }
}

impl Scenario {
    const fn nodes(self, nodes: u64) -> Self {
        Self { nodes, ..self }
    }

    const fn groups(self, groups: u32) -> Self {
        Self { groups, ..self }
    }

    const fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    const fn arguments(self, arguments: &'static [&'static str]) -> Self {
        Self { arguments, ..self }
    }

    const fn node_arguments(self, node_arguments: &'static [&'static [&'static str]]) -> Self {
        Self { node_arguments, ..self }
    }

    const fn short(self) -> Self {
        Self { in_short_set: true, ..self }
    }
}

const NETWORK: &[Need] = &[Need::Network];
const NETWORK_AND_DISK: &[Need] = &[Need::Network, Need::Disk];
const DISK: &[Need] = &[Need::Disk];

/// Nodes whose timers run 12 percent fast, right and 12 percent slow.
const SKEWED: &[&[&str]] = &[&["--tick-ms=22"], &["--tick-ms=25"], &["--tick-ms=28"]];

/// A flush apart from the write, so that it can fail alone.
const FDATASYNC: &[&str] = &["--flush-method=fdatasync"];
/// What a follower missed is read from the log, not from memory.
const SMALL_CACHE: &[&str] = &["--cache-bytes-max=1MiB"];
/// Every bound is met all the time.
const TIGHT: &[&str] = &[
    "--cache-bytes-max=1MiB",
    "--batch-bytes-max=128KiB",
    "--entry-bytes-max=4KiB",
    "--append-bytes-max=4KiB",
    "--inflight-bytes-max=4KiB",
    "--uncommitted-bytes-max=4KiB",
    "--proposals-max=4",
    "--sessions-max=3",
    "--session-window-max=1",
    "--flushes-in-flight-max=1",
];
/// Both methods.
const FLUSH_METHODS: &[&[&str]] = &[&["--flush-method=fdatasync"], &["--flush-method=dsync"], &["--flush-method=auto"]];

/// All scenarios, in the order in which `all` runs them.
pub const SCENARIOS: &[Scenario] = &[
    scenario(
        "leader-kill-catchup",
        "100 keys, kill -9 of the leader, reads and 100 more keys on the next one, the old one comes back and catches up",
        kill::leader_kill_catchup,
    )
    .short(),
    scenario("leader-kill", "kill -9 of the leader: the time to the first write of the next one", kill::leader_kill),
    scenario("majority-kill", "kill -9 of two nodes of three: nothing is acknowledged until one is back", kill::majority),
    scenario("kill-all", "kill -9 of all nodes at once, three times", kill::all).short(),
    scenario("rolling-restart", "every node is stopped in order and started again, the leader last", kill::rolling),
    scenario(
        "membership",
        "three nodes become seven and three again, two of the first leave; then one with a wiped disk is replaced",
        members::grow_and_shrink,
    )
    .groups(4)
    .short(),
    scenario("pause-leader", "the leader sleeps (SIGSTOP) through an election and wakes, three times", pause::leader)
        .short(),
    scenario("pause-follower", "a follower sleeps for long and wakes", pause::follower),
    scenario("clock-skew", "timers 12% fast and slow: no needless election; then a kill of each", pause::clock_skew)
        .node_arguments(SKEWED),
    scenario("minority-partition", "a follower is cut off: nobody notices, and no term is inflated", partition::minority)
        .needs(NETWORK),
    scenario("majority-partition", "the leader and one more of five are cut off from the majority", partition::majority)
        .nodes(5)
        .needs(NETWORK)
        .short(),
    scenario("full-partition", "every node is alone: nothing is acknowledged", partition::full).needs(NETWORK),
    scenario("asymmetric-partition", "the leader hears nobody; then nobody hears the leader", partition::asymmetric)
        .needs(NETWORK)
        .short(),
    scenario("bridge", "two halves of five see each other only through one node", partition::bridge)
        .nodes(5)
        .needs(NETWORK),
    scenario("client-partition", "clients cannot reach the leader, which goes on to lead", partition::clients)
        .needs(NETWORK),
    scenario("flapping-partition", "links between random nodes fail and recover for a while", partition::flapping)
        .needs(NETWORK),
    scenario("slow-disk-leader", "every request of the leader's disk takes 10 ms longer", disk::slow_leader).needs(DISK),
    scenario("slow-disks", "every request of every disk takes 100 ms longer", disk::slow_all).needs(DISK),
    scenario("stalled-disks", "no disk answers anything for 8 seconds", disk::stalled_all).needs(DISK),
    scenario("stalled-disk-leader", "the leader's disk answers nothing for 8 seconds", disk::stalled_leader)
        .needs(DISK)
        .short(),
    scenario("stalled-disk-follower", "a follower's disk answers nothing for 8 seconds", disk::stalled_follower)
        .needs(DISK),
    scenario("flush-failure", "a flush of the leader's disk fails, then one of a follower's", disk::flush_failure)
        .needs(DISK)
        .arguments(FDATASYNC)
        .short(),
    scenario("write-failure", "a write of the leader's disk fails", disk::write_failure).needs(DISK),
    scenario("read-failure", "a node starts on a disk that cannot be read, then on one that can", disk::read_failure)
        .needs(DISK),
    scenario("power-loss", "all nodes lose power at once, and what was not flushed, three times", disk::power_loss)
        .needs(DISK)
        .node_arguments(FLUSH_METHODS)
        .short(),
    scenario("power-loss-leader", "the leader loses power, and what was not flushed, three times", disk::power_loss_leader)
        .needs(DISK)
        .node_arguments(FLUSH_METHODS),
    scenario("power-loss-growing", "all nodes lose power while their logs grow by new files, four times", disk::growing)
        .needs(DISK)
        .node_arguments(FLUSH_METHODS),
    Scenario {
        loses_writes: true,
        ..scenario("lying-disks", "disks that only say they flush lose power: the check must find it", disk::lying)
    }
    .needs(DISK)
    .short(),
    scenario("slow-follower-recovery", "a follower that missed much comes back with a slow disk", disk::slow_recovery)
        .needs(DISK)
        .arguments(SMALL_CACHE),
    scenario("full-disk", "the leader's disk fills up and is emptied", full_disk::leader).needs(&[Need::Image]),
    scenario("full-disk-follower", "a follower's disk fills up and is emptied", full_disk::follower)
        .needs(&[Need::Image]),
    scenario("nemesis", "40 random faults of processes, links and disks, one upon another", nemesis::random)
        .needs(NETWORK_AND_DISK),
    Scenario {
        groups: 4,
        shards: 2,
        ..scenario("nemesis-groups", "the same on four groups and two shards", nemesis::random)
    }
    .needs(NETWORK_AND_DISK),
    scenario("nemesis-tight", "the same on nodes whose bounds are all but closed", nemesis::random)
        .needs(NETWORK_AND_DISK)
        .arguments(TIGHT),
    scenario("nemesis-five", "the same on five nodes", nemesis::random).nodes(5).needs(NETWORK_AND_DISK),
];

/// The scenario of that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        for (number, scenario) in SCENARIOS.iter().enumerate() {
            assert!(SCENARIOS[..number].iter().all(|other| other.name != scenario.name), "{}", scenario.name);
            assert_eq!(find(scenario.name).map(|found| found.name), Some(scenario.name));
        }
    }
}
