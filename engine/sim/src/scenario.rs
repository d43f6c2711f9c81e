//! Hand-written schedules: the situations that broke other systems, each with a name.
//!
//! Off the data path.
//! A scenario is a calm plan and a few actions at given moments; its seed decides only timing and load. It ends with the
//! same phases and checks as a drawn run, and must besides have served a given share of its calls.

use crate::checkers::Violation;
use crate::disk::{Damage, Ending};
use crate::nemesis::{Action, Cut, Hazard, Target};
use crate::node::Trap;
use crate::operator::Wish;
use crate::plan::Plan;
use crate::run::{self, Outcome};
use crate::trace::TraceMode;

const SECOND_US: u64 = 1_000_000;
const MILLISECOND_US: u64 = 1_000;
const LEADER: Target = Target::Leader(0);

/// One named schedule.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// Its name on the command line.
    pub name: &'static str,
    /// What it does.
    pub about: &'static str,
    /// So many of a hundred calls must be done.
    pub done_percent_min: u64,
    plan: fn(u64) -> Plan,
    script: fn() -> Vec<(u64, Action)>,
}

fn three(seed: u64) -> Plan {
    Plan::calm(seed, 3, 1, 2)
}

fn five(seed: u64) -> Plan {
    Plan::calm(seed, 5, 1, 2)
}

fn skewed(seed: u64) -> Plan {
    let mut plan = three(seed);
    plan.node_tick_us = vec![plan.tick_us * 9 / 10, plan.tick_us, plan.tick_us * 11 / 10];
    plan.consensus.lease_drift_percent = 20;
    plan
}

/// Clocks at the drift that leases allow for, elections in quick succession, everybody reads what is written most.
fn leased(seed: u64) -> Plan {
    let mut plan = skewed(seed);
    plan.consensus.lease_drift_percent = 19;
    plan.consensus.election_ticks_max = 30;
    plan.load.clients = 8;
    plan.load.pause_us = 10 * MILLISECOND_US;
    plan.load.cold_tags = 1;
    plan.load.reads = [0, 4, 1];
    plan.load.request_timeout_us = 500 * MILLISECOND_US;
    plan
}

/// Three nodes of five groups, and three that may join.
fn with_spares(seed: u64) -> Plan {
    Plan::calm(seed, 3, 1, 5).with_spares(3)
}

/// Machines to replace every founder, and the first one of those again.
fn with_many_spares(seed: u64) -> Plan {
    Plan::calm(seed, 3, 2, 4).with_spares(4)
}

fn busy(seed: u64) -> Plan {
    let mut plan = three(seed);
    plan.waiting_max = 12;
    plan.load.clients = 10;
    plan.load.pause_us = 10 * MILLISECOND_US;
    plan.load.outstanding_max = 8;
    plan
}

fn small_cache(seed: u64) -> Plan {
    let mut plan = three(seed);
    plan.wal.cache_bytes_max = 0;
    plan.load.pause_us = 10 * MILLISECOND_US;
    plan
}

fn slow_reads(seed: u64) -> Plan {
    let mut plan = small_cache(seed);
    plan.disk.read_us = 40 * MILLISECOND_US;
    plan.load.clients = 6;
    plan
}

/// `count` times the same, `gap_us` apart, from `from_us` on.
fn again(from_us: u64, gap_us: u64, count: u64, action: Action) -> Vec<(u64, Action)> {
    (0..count).map(|time| (from_us + time * gap_us, action)).collect()
}

const fn at(seconds: u64, action: Action) -> (u64, Action) {
    (seconds * SECOND_US, action)
}

fn pause_leader_replay_old_acks() -> Vec<(u64, Action)> {
    let hazard =
        Hazard { lost_per_million: 0, doubled_per_million: 500_000, late_per_million: 700_000, late_us: 4 * SECOND_US };
    let mut script = vec![(2 * SECOND_US, Action::Datagrams { hazard, for_us: 9 * SECOND_US })];
    script.extend(again(3 * SECOND_US, 3 * SECOND_US, 3, Action::Pause { target: LEADER, for_us: 2 * SECOND_US }));
    script
}

fn isolated_leaders() -> Vec<(u64, Action)> {
    again(2 * SECOND_US, 2 * SECOND_US, 8, Action::Cut { cut: Cut::Isolate(LEADER), for_us: 1_500 * MILLISECOND_US })
}

fn paused_leaders() -> Vec<(u64, Action)> {
    again(2 * SECOND_US, 2 * SECOND_US, 8, Action::Pause { target: LEADER, for_us: 1_300 * MILLISECOND_US })
}

fn crash_all_under_load() -> Vec<(u64, Action)> {
    let crash = Action::CrashAll { ending: Ending::PowerLost, down_us: 300 * MILLISECOND_US };
    again(3 * SECOND_US, 2 * SECOND_US, 4, crash)
}

fn crash_leaders_inside_writes() -> Vec<(u64, Action)> {
    let traps = [Trap::WriteSubmitted, Trap::WriteDone, Trap::Elected, Trap::SegmentStarted, Trap::BeforeSend];
    let trap = |trap| Action::Trap { target: LEADER, trap, ending: Ending::PowerLost, down_us: 500 * MILLISECOND_US };
    (2..).zip(traps).map(|(second, kind)| at(2 * second, trap(kind))).collect()
}

fn stall_leader_disk() -> Vec<(u64, Action)> {
    let stall = |for_us| Action::Stall { target: LEADER, for_us };
    vec![at(3, stall(SECOND_US)), at(5, stall(5 * SECOND_US))]
}

fn stall_follower_disk() -> Vec<(u64, Action)> {
    vec![at(2, Action::Stall { target: Target::Follower(0), for_us: 10 * SECOND_US })]
}

fn disk_stalls_for_ever() -> Vec<(u64, Action)> {
    vec![at(4, Action::StallForEver { target: LEADER })]
}

fn corrupt_minority() -> Vec<(u64, Action)> {
    let damage = |damage| Action::Damage { target: Target::Node(1), damage };
    let crash = Action::Crash { target: Target::Node(1), ending: Ending::Killed, down_us: 200 * MILLISECOND_US };
    vec![at(4, damage(Damage::BitFlip)), at(5, damage(Damage::Misdirected)), at(6, crash)]
}

fn wiped_node_stays_away() -> Vec<(u64, Action)> {
    vec![at(4, Action::Wipe { target: LEADER })]
}

fn disk_fills_and_empties() -> Vec<(u64, Action)> {
    vec![
        at(3, Action::FullEverywhere { for_us: 4 * SECOND_US }),
        at(9, Action::Full { target: LEADER, for_us: SECOND_US }),
    ]
}

fn disk_hangs_while_full() -> Vec<(u64, Action)> {
    vec![at(3, Action::FullEverywhere { for_us: 4 * SECOND_US }), at(6, Action::StallForEver { target: LEADER })]
}

fn one_way() -> Vec<(u64, Action)> {
    let cut = |cut| Action::Cut { cut, for_us: 3 * SECOND_US };
    vec![at(3, cut(Cut::Deaf(LEADER))), at(8, cut(Cut::Mute(LEADER)))]
}

fn bridge() -> Vec<(u64, Action)> {
    vec![at(3, Action::Cut { cut: Cut::Bridge(Target::Follower(0)), for_us: 7 * SECOND_US })]
}

fn flapping() -> Vec<(u64, Action)> {
    vec![at(3, Action::Flap { target: Target::Follower(0), period_us: 400 * MILLISECOND_US, times: 9 })]
}

fn clients_cut_from_leader() -> Vec<(u64, Action)> {
    vec![at(4, Action::Cut { cut: Cut::Clients(LEADER), for_us: 3 * SECOND_US })]
}

fn overload() -> Vec<(u64, Action)> {
    vec![at(4, Action::Overload { for_us: 4 * SECOND_US })]
}

fn rolling_restart() -> Vec<(u64, Action)> {
    vec![at(3, Action::Rolling { ending: Ending::Killed, gap_us: SECOND_US })]
}

fn graceful_stops() -> Vec<(u64, Action)> {
    again(3 * SECOND_US, 4 * SECOND_US, 2, Action::Stop { target: LEADER, down_us: 100 * MILLISECOND_US })
}

/// Leadership is asked for by every node in turn.
fn transfers() -> Vec<(u64, Action)> {
    let ask = |turn: u64| (2 * SECOND_US + turn * 250 * MILLISECOND_US, Action::Transfer { group: 0, to: turn % 4 });
    (0..36).map(ask).collect()
}

/// The node that is to lead is killed: before it hears of it, with its vote half written, when it has just won.
fn transfers_to_a_node_that_dies() -> Vec<(u64, Action)> {
    let (ending, down_us) = (Ending::Killed, 100 * MILLISECOND_US);
    let mut script = Vec::new();
    for turn in 0..9 {
        let at_us = 2 * SECOND_US + turn * 1_200 * MILLISECOND_US;
        let target = Target::Node(turn as usize % 3);
        let death = match turn / 3 {
            0 => (at_us + 100, Action::Crash { target, ending, down_us }),
            1 => (at_us - 1, Action::Trap { target, trap: Trap::Voted, ending, down_us }),
            _ => (at_us - 1, Action::Trap { target, trap: Trap::Elected, ending, down_us }),
        };
        script.extend([death, (at_us, Action::Transfer { group: 0, to: turn % 3 + 1 })]);
    }
    script
}

fn grow_and_shrink() -> Vec<(u64, Action)> {
    let wishes = [Wish::Add, Wish::Add, Wish::Add, Wish::Remove, Wish::Remove, Wish::Remove];
    (1..).zip(wishes).map(|(turn, wish)| at(2 * turn, Action::Change(wish))).collect()
}

fn replace_everybody() -> Vec<(u64, Action)> {
    (1..=4).map(|turn| at(2 * turn, Action::Change(Wish::Replace))).collect()
}

/// Machines burn while others lose their power.
fn replace_burnt_nodes() -> Vec<(u64, Action)> {
    let mut script: Vec<(u64, Action)> =
        (1..=3).map(|turn| at(4 * turn - 2, Action::Change(Wish::ReplaceBurnt))).collect();
    let crash = Action::CrashAll { ending: Ending::PowerLost, down_us: 200 * MILLISECOND_US };
    script.extend(again(3 * SECOND_US, 3 * SECOND_US, 3, crash));
    script
}

/// Whoever a change depends on is killed or cut off, again and again.
fn faults_inside_changes() -> Vec<(u64, Action)> {
    let target = Target::Changing;
    let crash = Action::Crash { target, ending: Ending::PowerLost, down_us: 300 * MILLISECOND_US };
    let cut = Action::Cut { cut: Cut::Isolate(target), for_us: 900 * MILLISECOND_US };
    let mut script = vec![at(2, Action::Change(Wish::Add)), at(3, Action::Change(Wish::Replace))];
    script.extend([at(5, Action::Change(Wish::Remove)), at(6, Action::Change(Wish::Add))]);
    script.extend(again(2_300 * MILLISECOND_US, 1_400 * MILLISECOND_US, 7, crash));
    script.extend(again(3 * SECOND_US, 1_400 * MILLISECOND_US, 7, cut));
    script
}

fn lagging_follower() -> Vec<(u64, Action)> {
    let away = Action::Crash { target: Target::Follower(0), ending: Ending::Killed, down_us: 6 * SECOND_US };
    vec![at(2, away)]
}

fn paused_follower() -> Vec<(u64, Action)> {
    vec![at(3, Action::Pause { target: Target::Follower(0), for_us: 3 * SECOND_US })]
}

fn damaged_bytes() -> Vec<(u64, Action)> {
    vec![at(2, Action::CorruptBytes { per_million: 20_000, for_us: 8 * SECOND_US })]
}

const fn scenario(
    name: &'static str,
    done_percent_min: u64,
    plan: fn(u64) -> Plan,
    script: fn() -> Vec<(u64, Action)>,
    about: &'static str,
) -> Scenario {
    Scenario { name, about, done_percent_min, plan, script }
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    scenario("calm", 99, three, Vec::new, "nothing goes wrong"),
    scenario(
        "pause-leader-replay-old-acks",
        40,
        three,
        pause_leader_replay_old_acks,
        "leaders stand still while old messages arrive twice and late",
    ),
    scenario("crash-all-under-load", 50, three, crash_all_under_load, "every node loses its power, four times"),
    scenario(
        "crash-leaders-inside-writes",
        50,
        three,
        crash_leaders_inside_writes,
        "leaders lose their power between the steps of a write, an election, the making of a segment",
    ),
    scenario("stall-leader-disk", 50, three, stall_leader_disk, "a leader's disk stands still for 1 s, then for 5 s"),
    scenario("stall-for-ever", 60, three, disk_stalls_for_ever, "a leader's disk never answers again"),
    scenario("corrupt-minority", 80, three, corrupt_minority, "durable blocks of one node go bad, then it restarts"),
    scenario("wiped-node", 60, three, wiped_node_stays_away, "a leader comes back with an empty folder"),
    scenario("enospc-comes-and-goes", 40, busy, disk_fills_and_empties, "no segment can be made for a while"),
    scenario(
        "hang-while-full",
        30,
        busy,
        disk_hangs_while_full,
        "a leader's disk is full, then it never answers again",
    ),
    scenario("one-way-partition", 50, three, one_way, "a leader hears nothing, later nobody hears it"),
    scenario("bridge", 50, three, bridge, "two nodes reach each other only through the third"),
    scenario("flapping", 60, five, flapping, "a node comes and goes every 400 ms"),
    scenario("clients-cut-from-leader", 50, three, clients_cut_from_leader, "clients do not reach the leader"),
    scenario("clock-skew", 60, skewed, rolling_restart, "clocks 10% slow and fast, nodes restart one by one"),
    scenario(
        "lease-isolated-leader",
        20,
        leased,
        isolated_leaders,
        "leaders that hold leases hear nobody, clients reach them",
    ),
    scenario(
        "lease-paused-leader",
        20,
        leased,
        paused_leaders,
        "leaders that hold leases stand still for longer than that",
    ),
    scenario(
        "lease-transfers",
        50,
        leased,
        transfers,
        "leadership is handed over four times a second, reads go by lease",
    ),
    scenario("overload", 30, busy, overload, "clients ask 12 times as much for 4 s"),
    scenario("rolling-restart", 60, three, rolling_restart, "nodes are killed one by one"),
    scenario("graceful-stops", 60, three, graceful_stops, "leaders are asked to stop"),
    scenario("transfer-under-load", 90, busy, transfers, "the leader is asked to hand over four times a second"),
    scenario(
        "transfer-to-a-node-that-dies",
        60,
        three,
        transfers_to_a_node_that_dies,
        "leaders hand over to nodes that are killed meanwhile",
    ),
    scenario("grow-and-shrink", 90, with_spares, grow_and_shrink, "three nodes join, then three leave"),
    scenario("replace-everybody", 90, with_many_spares, replace_everybody, "nodes are replaced while they run"),
    scenario(
        "replace-burnt-nodes",
        50,
        with_many_spares,
        replace_burnt_nodes,
        "machines burn down and are replaced while everybody loses power",
    ),
    scenario(
        "faults-inside-changes",
        50,
        with_spares,
        faults_inside_changes,
        "nodes join and leave; whoever that depends on is killed or cut off",
    ),
    scenario("lagging-follower", 90, small_cache, lagging_follower, "a follower is away and catches up from disks"),
    scenario(
        "catch-up-from-slow-disks",
        90,
        slow_reads,
        paused_follower,
        "a follower stands still; what it missed has left the caches and every read takes 40 ms",
    ),
    scenario(
        "catch-up-after-a-stall",
        90,
        slow_reads,
        stall_follower_disk,
        "a follower's disk stands still and the leader's probes have to be read from a slow one",
    ),
    scenario("damaged-bytes", 60, three, damaged_bytes, "bits flip on the wire"),
];

/// Runs a scenario.
#[must_use]
pub fn run_scenario(scenario: &Scenario, seed: u64, mode: TraceMode) -> Outcome {
    let mut outcome = crate::runner::caught(|| run::run((scenario.plan)(seed), &(scenario.script)(), mode));
    let (calls, done) = (outcome.statistics.calls, outcome.statistics.done);
    if outcome.violation.is_none() && done * 100 < calls * scenario.done_percent_min {
        let seen = format!("{done} of {calls} calls were done, at least {}% must be", scenario.done_percent_min);
        outcome.violation = Some(Violation::new("service during faults", seen));
    }
    outcome
}
