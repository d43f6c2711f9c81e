//! Random schedules of targets, crashes, restarts, partitions, hanging disks and writes: at the end everything that was
//! acknowledged is there, all replicas are the same, and the members are those that were asked for last.
//!
//! Off the data path.
//! `RINGRAFT_SCHEDULES` says how many are tried (from seed 0, or from `RINGRAFT_SCHEDULE`), each twice as long with snapshots.

mod cluster;

use std::collections::BTreeSet;

use cluster::{Cluster, get, group_of, put, value};
use ringraft_engine::shard::SnapshotSettings;
use ringraft_engine::snapshot::ChunkBytes;
use ringraft_net::wire::{OperationResult, Outcome};

const NODES: u64 = 5;

struct Schedule {
    cluster: Cluster,
    state: u64,
    written: u32,
    /// Correlation and key of writes without an answer.
    asked: Vec<(u32, u32)>,
    acknowledged: BTreeSet<u32>,
}

fn group() -> u32 {
    group_of("{k}")
}

fn key(number: u32) -> String {
    format!("{{k}}{number}")
}

fn eager() -> SnapshotSettings {
    SnapshotSettings {
        identity: 7,
        log_bytes: 2 << 10,
        state_percent: 0,
        log_entries: 16,
        chunk_bytes: ChunkBytes::new(4096).expect("a block"),
        segments_max: 1,
        patience_ticks: 20,
        ..SnapshotSettings::default()
    }
}

impl Schedule {
    fn new(seed: u64) -> Self {
        let snapshots = if seed.is_multiple_of(2) { eager() } else { SnapshotSettings::default() };
        let founders = 1 + seed / 2 % NODES;
        let mut cluster = Cluster::founded(NODES, founders, snapshots);
        let all: Vec<u64> = (1..=founders).collect();
        cluster.retarget(group(), &all, &[]);
        cluster.report_delay_ticks = (seed / 10 % 4 * 15) as usize;
        Self { cluster, state: seed, written: 0, asked: Vec::new(), acknowledged: BTreeSet::new() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.state >> 33) % bound
    }

    fn some_nodes(&mut self) -> Vec<u64> {
        let bits = self.below(1 << NODES);
        (1..=NODES).filter(|node| bits >> (node - 1) & 1 == 1).collect()
    }

    fn step(&mut self) {
        match self.below(16) {
            0 => {
                let (mut voters, learners) = (self.some_nodes(), self.some_nodes());
                let one = 1 + self.below(NODES);
                voters.push(one);
                self.cluster.retarget(group(), &voters, &learners);
            }
            1 => {
                let node = 1 + self.below(NODES);
                if self.cluster.nodes[node as usize - 1].up {
                    self.cluster.crash(node);
                }
            }
            2 | 3 => {
                let node = 1 + self.below(NODES);
                if !self.cluster.nodes[node as usize - 1].up {
                    self.cluster.restart(node);
                }
            }
            4 => {
                let side = self.some_nodes();
                let cut = (1..=NODES).flat_map(|from| (1..=NODES).map(move |to| (from, to)));
                self.cluster.cut = cut.filter(|(from, to)| side.contains(from) != side.contains(to)).collect();
            }
            5 => {
                let (from, to) = (1 + self.below(NODES), 1 + self.below(NODES));
                self.cluster.cut.push((from, to));
            }
            6 => self.cluster.cut.clear(),
            7 => {
                let place = self.below(NODES) as usize;
                self.cluster.nodes[place].flushing = !self.cluster.nodes[place].flushing;
            }
            8..12 => self.write(),
            _ => {
                let ticks = 1 + self.below(12) as u32;
                self.cluster.tick(ticks);
            }
        }
        self.collect();
    }

    fn write(&mut self) {
        for _ in 0..1 + self.below(6) {
            let Some(leader) = self.cluster.find_leader(group()) else { return };
            self.written += 1;
            let correlation = self.cluster.send(leader, &put(&key(self.written), &format!("{:0100}", self.written)));
            self.asked.push((correlation, self.written));
        }
        self.cluster.settle();
    }

    fn collect(&mut self) {
        let (replies, acknowledged) = (&mut self.cluster.replies, &mut self.acknowledged);
        self.asked.retain(|(correlation, key)| match replies.remove(correlation) {
            Some(reply) => {
                let done = matches!(&reply.outcome, Outcome::Done(results) if matches!(results[..], [OperationResult::Put { .. }]));
                if done {
                    acknowledged.insert(*key);
                }
                false
            }
            None => true,
        });
    }

    /// The faults end: the group comes to its target, and nothing was lost.
    fn finish(mut self) -> usize {
        self.cluster.cut.clear();
        for node in 1..=NODES {
            self.cluster.nodes[node as usize - 1].flushing = true;
            if !self.cluster.nodes[node as usize - 1].up {
                self.cluster.restart(node);
            }
        }
        self.cluster.settle_members(group());
        self.write();
        self.cluster.tick(30);
        self.collect();
        let leader = self.cluster.leader(group());
        for number in &self.acknowledged {
            let correlation = self.cluster.send(leader, &get(&key(*number)));
            self.cluster.settle();
            self.cluster.tick(1);
            let answer = self.cluster.replies.remove(&correlation).map(|reply| reply.outcome);
            assert_eq!(answer, value(&format!("{number:0100}")), "key {number} was acknowledged");
        }
        self.cluster.tick(10);
        let views: Vec<_> = self.cluster.nodes.iter().flat_map(|node| node.shard.group_views()).collect();
        let views: Vec<_> = views.iter().filter(|view| view.group == group()).collect();
        for view in &views {
            assert_eq!(
                (view.last_applied, view.state_hash),
                (views[0].last_applied, views[0].state_hash),
                "{views:#?}"
            );
        }
        self.acknowledged.len()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn whatever_happens_on_the_way_nothing_is_lost_and_the_target_is_reached() {
    let (first, count) = (number("RINGRAFT_SCHEDULE", 0), number("RINGRAFT_SCHEDULES", 30));
    let mut acknowledged = 0;
    for seed in first..first + count {
        println!("schedule {seed}");
        let mut schedule = Schedule::new(seed);
        let steps = if seed.is_multiple_of(2) { 160 } else { 80 };
        (0..steps).for_each(|_| schedule.step());
        acknowledged += schedule.finish();
    }
    assert!(acknowledged as u64 > 10 * count, "only {acknowledged} writes were acknowledged");
}
