//! The part of a plan that lets nodes come and go: spare nodes, how often the operator acts, and how far he may go.
//!
//! Off the data path.
//! A third of the seeds has it. The budget of faults that lose data counts by the members of a group then, which change:
//! such seeds draw no damage, wipe or dead disk of the nemesis, and no disk that stands still for ever. Instead the
//! operator lets a machine burn down and replaces it, one at a time: the next one burns when the cluster has removed the
//! one before, so that of the voters of every configuration in use, three or more, at most one is ever lost.
//! Relations: it draws from a stream of its own, last of all, so that a seed without it is what it was.

use super::{Fault, Plan, SECOND_US};
use crate::random::Random;

/// How nodes come and go.
#[derive(Clone, Debug)]
pub(crate) struct Members {
    /// Pause of the operator between two changes, on average.
    pub(crate) pause_us: u64,
    /// So many nodes stay at least.
    pub(crate) floor: usize,
    /// Weights: a node is added, removed, replaced while it runs, replaced after it burnt down.
    pub(crate) jobs: [u32; 4],
    /// So many of a million leaders that propose other members come to harm before that is done.
    pub(crate) ambush_per_million: u32,
}

/// Replicas of a group, once there are as many nodes.
const REPLICATION_FACTOR: u32 = 3;
/// Faults after which a node's data is gone, which members that change have no budget for.
const LOSING: [Fault; 4] = [Fault::Damage, Fault::Wipe, Fault::DeadDisk, Fault::DiskStallForEver];

impl Members {
    /// Changes at the pace of a script.
    pub(crate) fn scripted() -> Self {
        Self { pause_us: u64::MAX, floor: 1, jobs: [0; 4], ambush_per_million: 0 }
    }
}

/// Lets members change in a third of the plans.
pub(super) fn draw(plan: &mut Plan) {
    let random = &mut Random::stream(plan.seed, "members");
    if !random.chance(333_333) {
        return;
    }
    let floor = if plan.founders < 3 || random.chance(200_000) { random.between(1, 2) } else { 3 } as usize;
    let losses = u32::from(floor >= 3);
    plan.members = Some(Members {
        pause_us: random.magnitude(SECOND_US / 2, 6 * SECOND_US),
        floor,
        jobs: [
            random.between(1, 3) as u32,
            random.between(0, 3) as u32,
            random.between(0, 2) as u32,
            losses * random.between(0, 2) as u32,
        ],
        ambush_per_million: *random.pick(&[0, 100_000, 400_000]),
    });
    plan.groups = random.between(u64::from(plan.shards).max(2), 5) as u32;
    plan.report_us = *random.pick(&[SECOND_US / 4, SECOND_US / 2, SECOND_US]);
    let spares = random.between(2, 4) as usize;
    plan.make_room(spares, random);
    for fault in LOSING {
        plan.set_weight(fault, 0);
    }
    plan.set_weight(Fault::InsideChange, if random.chance(700_000) { 12 } else { 0 });
    plan.fault_pause_us = random.magnitude(SECOND_US / 2, 6 * SECOND_US);
    plan.faults_until_us += random.between(10 * SECOND_US, 30 * SECOND_US);
}

impl Plan {
    /// Places for nodes that may join.
    fn make_room(&mut self, spares: usize, random: &mut Random) {
        self.nodes += spares;
        self.replication_factor = REPLICATION_FACTOR;
        // A newcomer is like one of those that are there: the drift of clocks that leases allow for stays what it was.
        for _ in 0..spares {
            let like = random.below(self.founders as u64) as usize;
            self.node_tick_us.push(self.node_tick_us[like]);
            self.disk_percent.push(self.disk_percent[like]);
        }
    }

    fn set_weight(&mut self, fault: Fault, weight: u32) {
        let classes = Fault::ALL.iter().zip(&mut self.faults);
        classes.filter(|(class, _)| **class == fault).for_each(|(_, now)| *now = weight);
    }

    /// The same plan with spare nodes, for a script that lets them join.
    pub(crate) fn with_spares(mut self, spares: usize) -> Self {
        let random = &mut Random::stream(self.seed, "members");
        self.make_room(spares, random);
        self.members = Some(Members::scripted());
        self.report_us = SECOND_US / 2;
        self
    }
}
