//! The nemesis: draws faults for as long as faults are allowed.
//!
//! Off the data path.
//! What a fault does is in `faults.rs`; scenarios name the same actions by hand.
//! Invariant: nothing here looks at anything but the plan, its own stream and who leads: two runs of a seed draw alike.

use crate::disk::{Damage, Ending};
use crate::node::Trap;
use crate::operator::Wish;
use crate::plan::{Fault, Plan};
use crate::random::Random;

/// Which node an action is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This one, from 0.
    Node(usize),
    /// Whoever leads the group now.
    Leader(u32),
    /// Some other member of the group.
    Follower(u32),
    /// Whoever a change of members depends on now: the leader of a group that changes, a node that joins, the leader of
    /// group 0.
    Changing,
}

/// Who cannot reach whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Two sides; the node's own side is the minority.
    Halves(Target),
    /// One node alone.
    Isolate(Target),
    /// Each node reaches only its neighbours.
    Ring,
    /// Two nodes reach each other only through the third.
    Bridge(Target),
    /// Nothing reaches the node; what it sends arrives.
    Deaf(Target),
    /// Nothing the node sends arrives; it hears everybody.
    Mute(Target),
    /// One way between two nodes.
    OneWay(usize, usize),
    /// The clients do not reach the node, the other nodes do.
    Clients(Target),
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Crash {
        target: Target,
        ending: Ending,
        down_us: u64,
    },
    CrashAll {
        ending: Ending,
        down_us: u64,
    },
    Trap {
        target: Target,
        trap: Trap,
        ending: Ending,
        down_us: u64,
    },
    Pause {
        target: Target,
        for_us: u64,
    },
    Stop {
        target: Target,
        down_us: u64,
    },
    Rolling {
        ending: Ending,
        gap_us: u64,
    },
    Cut {
        cut: Cut,
        for_us: u64,
    },
    Flap {
        target: Target,
        period_us: u64,
        times: u32,
    },
    Slow {
        target: Target,
        slow_us: u64,
        for_us: u64,
    },
    SlowEverything {
        slow_us: u64,
        for_us: u64,
    },
    Sever {
        target: Target,
    },
    CorruptBytes {
        per_million: u32,
        for_us: u64,
    },
    Datagrams {
        hazard: Hazard,
        for_us: u64,
    },
    Stall {
        target: Target,
        for_us: u64,
    },
    StallForEver {
        target: Target,
    },
    SlowDisk {
        target: Target,
        slow_us: u64,
        for_us: u64,
    },
    WriteErrors {
        target: Target,
        count: u32,
    },
    ReadErrors {
        target: Target,
        count: u32,
    },
    CreateErrors {
        target: Target,
        count: u32,
    },
    SnapshotErrors {
        target: Target,
        count: u32,
    },
    Full {
        target: Target,
        for_us: u64,
    },
    FullEverywhere {
        for_us: u64,
    },
    Damage {
        target: Target,
        damage: Damage,
    },
    Wipe {
        target: Target,
    },
    DeadDisk {
        target: Target,
    },
    Overload {
        for_us: u64,
    },
    RestartClient {
        client: usize,
    },
    /// An operator asks the group's leader to hand over to this node; 0: to whoever it likes.
    Transfer {
        group: u32,
        to: u64,
    },
    /// The operator is to add, remove or replace a node.
    Change(Wish),
}

/// What happens to frames between peers that travel on their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hazard {
    pub(crate) lost_per_million: u32,
    pub(crate) doubled_per_million: u32,
    pub(crate) late_per_million: u32,
    pub(crate) late_us: u64,
}

/// The end of a fault.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Undo {
    /// The ways of this cut (by its number) are free again.
    Cut(u64),
    CorruptBytes,
    Datagrams,
    SlowDisk(usize),
    Full(usize),
    Overload,
    /// The next half of a flap.
    Flap {
        node: usize,
        period_us: u64,
        times: u32,
    },
}

/// Draws one action of a class.
pub(crate) fn draw(fault: Fault, plan: &Plan, random: &mut Random) -> Action {
    let (nodes, groups, clients) = (plan.nodes, plan.groups, plan.load.clients);
    let target = draw_target(nodes, groups, random);
    let down_us = random.magnitude(plan.away_us.0, plan.away_us.1);
    let for_us = random.magnitude(50_000, 6_000_000);
    let ending = if random.chance(500_000) { Ending::Killed } else { Ending::PowerLost };
    let first = random.below(nodes as u64) as usize;
    let other = (first + 1 + random.below((nodes as u64 - 1).max(1)) as usize) % nodes;
    match fault {
        Fault::Kill => Action::Crash { target, ending: Ending::Killed, down_us },
        Fault::PowerLoss => Action::Crash { target, ending: Ending::PowerLost, down_us },
        Fault::PowerLossOfAll => Action::CrashAll { ending, down_us: down_us / 4 },
        Fault::Trap => Action::Trap { target, trap: *random.pick(&Trap::ALL), ending, down_us },
        Fault::Pause => Action::Pause { target, for_us: random.magnitude(50_000, 8_000_000) },
        Fault::GracefulStop => Action::Stop { target, down_us },
        Fault::RollingRestart => Action::Rolling { ending, gap_us: random.magnitude(100_000, 3_000_000) },
        Fault::Partition => {
            let cuts = [Cut::Halves(target), Cut::Isolate(target), Cut::Ring, Cut::Bridge(target)];
            Action::Cut { cut: *random.pick(&cuts), for_us }
        }
        Fault::OneWayPartition => {
            let cuts = [Cut::Deaf(target), Cut::Mute(target), Cut::OneWay(first, other)];
            Action::Cut { cut: *random.pick(&cuts), for_us }
        }
        Fault::ClientsCut => Action::Cut { cut: Cut::Clients(target), for_us },
        Fault::Flapping => {
            let period_us = random.magnitude(20_000, 1_500_000);
            Action::Flap { target, period_us, times: random.between(2, 12) as u32 }
        }
        Fault::Slow if random.chance(500_000) => {
            Action::SlowEverything { slow_us: random.magnitude(5_000, 400_000), for_us }
        }
        Fault::Slow => Action::Slow { target, slow_us: random.magnitude(5_000, 2_000_000), for_us },
        Fault::Sever => Action::Sever { target },
        Fault::CorruptBytes => Action::CorruptBytes { per_million: random.magnitude(500, 50_000) as u32, for_us },
        Fault::Datagrams => {
            let hazard = Hazard {
                lost_per_million: random.below(300_000) as u32,
                doubled_per_million: random.below(300_000) as u32,
                late_per_million: random.below(300_000) as u32,
                late_us: random.magnitude(1_000, 3_000_000),
            };
            Action::Datagrams { hazard, for_us }
        }
        Fault::Overload => Action::Overload { for_us: for_us / 2 },
        Fault::Transfer => {
            let group = random.below(u64::from(groups)) as u32;
            Action::Transfer { group, to: random.below(nodes as u64 + 1) }
        }
        Fault::InsideChange => draw_inside_change(Target::Changing, plan, random),
        Fault::ClientRestart => Action::RestartClient { client: random.below(clients as u64) as usize },
        _ => draw_disk_fault(fault, target, for_us, random),
    }
}

/// Draws what happens to somebody on whom a change of members depends.
pub(crate) fn draw_inside_change(target: Target, plan: &Plan, random: &mut Random) -> Action {
    let down_us = random.magnitude(plan.away_us.0, plan.away_us.1);
    let for_us = random.magnitude(50_000, 6_000_000);
    let ending = if random.chance(500_000) { Ending::Killed } else { Ending::PowerLost };
    match random.below(7) {
        0 | 1 => Action::Crash { target, ending, down_us },
        2 => Action::Cut { cut: Cut::Isolate(target), for_us },
        3 => Action::Cut { cut: Cut::Halves(target), for_us },
        4 => Action::Pause { target, for_us },
        5 => Action::Trap { target, trap: *random.pick(&Trap::ALL), ending, down_us },
        _ => Action::CrashAll { ending, down_us: down_us / 4 },
    }
}

fn draw_disk_fault(fault: Fault, target: Target, for_us: u64, random: &mut Random) -> Action {
    let count = random.between(1, 3) as u32;
    match fault {
        Fault::DiskStall => {
            Action::Stall { target, for_us: *random.pick(&[300_000, 1_000_000, 4_000_000, 10_000_000]) }
        }
        Fault::DiskSlow => Action::SlowDisk { target, slow_us: random.magnitude(1_000, 200_000), for_us },
        Fault::WriteError if random.chance(200_000) => Action::CreateErrors { target, count },
        Fault::WriteError if random.chance(200_000) => Action::SnapshotErrors { target, count },
        Fault::WriteError => Action::WriteErrors { target, count },
        Fault::ReadError => Action::ReadErrors { target, count },
        Fault::DiskFull if random.chance(300_000) => Action::FullEverywhere { for_us },
        Fault::DiskFull => Action::Full { target, for_us },
        Fault::Damage => {
            let kinds = [
                Damage::BitFlip,
                Damage::BitFlip,
                Damage::Zeroed,
                Damage::Misdirected,
                Damage::MetaLost,
                Damage::MetaOld,
                Damage::FileCut,
                Damage::SnapshotBitFlip,
            ];
            Action::Damage { target, damage: *random.pick(&kinds) }
        }
        Fault::Wipe => Action::Wipe { target },
        Fault::DeadDisk => Action::DeadDisk { target },
        _ => Action::StallForEver { target },
    }
}

fn draw_target(nodes: usize, groups: u32, random: &mut Random) -> Target {
    let group = random.below(u64::from(groups)) as u32;
    match random.below(4) {
        0 | 1 => Target::Leader(group),
        2 => Target::Follower(group),
        _ => Target::Node(random.below(nodes as u64) as usize),
    }
}
