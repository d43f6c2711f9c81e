//! The list against its rules, the text against samples, and `engine/METRICS.md` against the list.
//!
//! Off the data path.

use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use super::list::{Kind, METRICS};
use super::record::{Recorder, Rejection, Tally};
use super::sample::{
    FollowerSample, GROUPS_MAX, GroupSample, GroupSums, NodeSample, ProcessSample, ShardSample, State,
};
use super::{Metric, render};
use crate::shard::io::Counters;
use crate::shard::status::{LatencyStatus, WalStatus};

const WAL: WalStatus = WalStatus {
    durable_sequence: 0,
    flushes: 5,
    flush_latency: LatencyStatus { count: 0, sum_us: 0, max_us: 0 },
    bytes_written: 0,
    record_bytes: 0,
    segments: 0,
    pool_free: 0,
    full: false,
    pool_empty: 0,
};

fn shard(number: u16, groups: &[GroupSample], recorder: &Recorder) -> Arc<ShardSample> {
    let mut sums = GroupSums::default();
    for group in groups {
        sums.states[group.state as usize] += 1;
        sums.without_leader += u64::from(group.leader == 0);
        sums.keys += group.keys;
        sums.apply_lag_max = sums.apply_lag_max.max(group.apply_lag());
        let lags = group.followers.iter().map(|follower| follower.lag);
        sums.follower_lag_max = lags.fold(sums.follower_lag_max, u64::max);
    }
    Arc::new(ShardSample {
        node: 3,
        shard: number,
        groups: groups.iter().take(GROUPS_MAX).cloned().collect(),
        sums,
        tally: recorder.tally,
        counters: Counters { reads: 7, ..Counters::default() },
        latencies: recorder.latencies.clone(),
        waiting_max: recorder.waiting.clone(),
        wal: WAL,
        wal_cache_bytes: 0,
        flushes_in_flight: 0,
        clients: 2,
        peers_connected: 2,
        peer_queue_bytes: 0,
        peer_messages_dropped: 0,
        topology_epoch: 1,
        disk_stalled: false,
    })
}

fn group(group: u32, state: State, commits: u64) -> GroupSample {
    let tally = Tally { commits, ..Tally::default() };
    GroupSample { group, state, term: 4, commit_index: 12, applied_index: 10, tally, ..GroupSample::default() }
}

/// A node of two shards that leads group 1 and follows in group 0.
fn node() -> NodeSample {
    let mut recorder = Recorder::default();
    recorder.tally.commits = 9;
    recorder.tally.reject(Rejection::Overloaded);
    recorder.latencies.commit.record(900);
    recorder.latencies.commit.record(2_500_000);
    let mut led = group(1, State::Leader, 5);
    led.leader = 3;
    led.tally.reject(Rejection::Overloaded);
    led.followers = vec![FollowerSample { node: 1, lag: 0, state: 1 }, FollowerSample { node: 2, lag: 40, state: 2 }];
    let shards = vec![
        shard(0, &[group(0, State::Follower, 4)], &recorder),
        shard(1, std::slice::from_ref(&led), &Recorder::default()),
    ];
    NodeSample::new(shards, ProcessSample { cpu_us: 1_500_000, ..ProcessSample::default() })
}

#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|candidate| candidate == line), "no line `{line}` in\n{text}");
}

#[test]
fn names_follow_their_rules() {
    for (place, metric) in METRICS.iter().enumerate() {
        let name = metric.name;
        let known = ["raft_", "ringraft_", "process_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(known && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
        assert!(METRICS[..place].iter().all(|other| other.name != name), "{name} stands there twice");
        assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
    }
    for name in ["raft_term_current", "raft_state", "raft_log_entries_total", "raft_commits_total"] {
        assert!(METRICS.iter().any(|metric| metric.name == name), "{name}");
    }
}

#[test]
fn the_text_has_the_node_and_each_group() {
    let text = render(node());
    for line in [
        "# TYPE raft_commits counter",
        "raft_commits_total 9",
        "raft_commits_total{group=\"0\"} 4",
        "raft_commits_total{group=\"1\"} 5",
        "# TYPE raft_state gauge",
        "raft_state 0",
        "raft_state{group=\"1\"} 2",
        "raft_term_current 4",
        "ringraft_groups{state=\"leader\"} 1",
        "ringraft_groups{state=\"learner\"} 0",
        "ringraft_groups_without_leader 1",
        "ringraft_reads_total 14",
        "ringraft_requests_rejected_total{reason=\"overloaded\"} 1",
        "ringraft_requests_rejected_total{reason=\"disk_full\"} 0",
        "ringraft_group_requests_rejected_total{group=\"1\",reason=\"overloaded\"} 1",
        "ringraft_follower_lag_entries{group=\"1\",follower=\"2\"} 40",
        "ringraft_follower_state{group=\"1\",follower=\"2\"} 2",
        "ringraft_follower_lag_max_entries 40",
        "ringraft_apply_lag_max_entries 2",
        "ringraft_shard_groups{shard=\"1\"} 1",
        "ringraft_wal_flushes_total 10",
        "# UNIT ringraft_commit_latency_seconds seconds",
        "ringraft_commit_latency_seconds_bucket{le=\"0.000768\"} 0",
        "ringraft_commit_latency_seconds_bucket{le=\"0.001024\"} 1",
        "ringraft_commit_latency_seconds_bucket{le=\"+Inf\"} 2",
        "ringraft_commit_latency_seconds_count 2",
        "ringraft_commit_latency_seconds_sum 2.5009",
        "ringraft_commit_latency_max_seconds 2.5",
        "process_cpu_seconds_total 1.5",
    ] {
        has(&text, line);
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn every_metric_is_there_before_anything_happened() {
    let groups = [GroupSample { followers: vec![FollowerSample::default()], ..group(0, State::Leader, 0) }];
    let text = render(NodeSample::new(vec![shard(0, &groups, &Recorder::default())], ProcessSample::default()));
    for metric in METRICS {
        let is_its_own = |line: &&str| line.starts_with(metric.name) && !line.contains("NaN");
        assert!(text.lines().any(|line| is_its_own(&line)), "{} is missing in\n{text}", metric.name);
    }
}

#[test]
fn too_many_groups_are_shown_as_sums_and_the_worst() {
    let groups: Vec<_> = (0..GROUPS_MAX as u32 + 1).map(|number| group(number, State::Leader, 1)).collect();
    let text = render(NodeSample::new(vec![shard(0, &groups, &Recorder::default())], ProcessSample::default()));
    has(&text, "ringraft_groups{state=\"leader\"} 65");
    has(&text, "ringraft_apply_lag_max_entries 2");
    has(&text, "raft_term_current 4");
    assert!(!text.contains("{group="), "{text}");
    let fewer = NodeSample::new(vec![shard(0, &groups[1..], &Recorder::default())], ProcessSample::default());
    assert!(render(fewer).contains("{group=\"64\"}"));
}

fn row(metric: &Metric) -> String {
    let kind = match metric.kind() {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    format!("| `{}` | {kind} | {} | {} | {} |\n", metric.name, metric.unit(), metric.labels(), metric.help)
}

/// Between these lines the document is made of the list.
const BEGIN: &str = "<!-- metrics-begin -->\n";
const END: &str = "<!-- metrics-end -->\n";

/// `RINGRAFT_WRITE_DOCUMENTS=1` writes what is missing.
#[test]
fn the_document_lists_every_metric() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("METRICS.md");
    let document = std::fs::read_to_string(&path).expect("METRICS.md");
    let (head, rest) = document.split_once(BEGIN).expect("its beginning");
    let (table, tail) = rest.split_once(END).expect("its end");
    let mut expected = String::from("\n| name | kind | unit | labels | meaning |\n|---|---|---|---|---|\n");
    METRICS.iter().for_each(|metric| expected.push_str(&row(metric)));
    expected.push('\n');
    if table != expected && std::env::var_os("RINGRAFT_WRITE_DOCUMENTS").is_some() {
        let mut whole = String::new();
        write!(whole, "{head}{BEGIN}{expected}{END}{tail}").expect("a String takes any text");
        std::fs::write(&path, whole).expect("METRICS.md can be written");
        return;
    }
    assert_eq!(table, expected, "RINGRAFT_WRITE_DOCUMENTS=1 cargo test -p ringraft-engine writes it");
}
