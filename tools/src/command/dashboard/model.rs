//! What the dashboard shows: rows of nodes and groups from two looks at the cluster.
//!
//! Off the data path.
//! Invariant: a rate is the difference of two counts of the same run of a node over the time between them; what is not
//! known is `None`, never 0.

use std::collections::BTreeMap;
use std::time::Duration;

use ringraft_tools::status::{ClusterStatus, GroupStatus, ShardStatus};
use serde_json::Value;

/// One look at the cluster.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    /// When, since the dashboard began.
    pub(super) at: Duration,
    /// What every shard said.
    pub(super) status: ClusterStatus,
}

/// How long something takes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Latency {
    /// Between the two looks, microseconds.
    pub(super) mean_us: Option<f64>,
    /// The longest of the last minute, microseconds.
    pub(super) max_us: Option<u64>,
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeRow {
    pub(super) node: u64,
    pub(super) shards: usize,
    /// Replicas, and groups it leads.
    pub(super) replicas: usize,
    pub(super) leads: usize,
    pub(super) clients: u64,
    pub(super) writes: Option<f64>,
    pub(super) reads: Option<f64>,
    pub(super) flushes: Option<f64>,
    pub(super) bytes: Option<f64>,
    pub(super) flush: Latency,
    pub(super) commit: Latency,
    /// Requests that wait for an answer.
    pub(super) waiting: u64,
    pub(super) disk: &'static str,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GroupRow {
    pub(super) group: u32,
    /// The leader that serves, and its term.
    pub(super) leader: Option<(u64, u64)>,
    pub(super) committed: u64,
    pub(super) applied: u64,
    pub(super) keys: u64,
    /// Role of each replica, by node.
    pub(super) roles: Vec<(u64, char)>,
    /// Entries a follower lacks of what its leader has, by node.
    pub(super) lags: Vec<(u64, u64)>,
    pub(super) change: String,
}

/// Everything of one frame.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Model {
    pub(super) nodes: Vec<NodeRow>,
    pub(super) groups: Vec<GroupRow>,
    /// Addresses that do not answer.
    pub(super) silent: Vec<String>,
    pub(super) writes: Option<f64>,
    pub(super) reads: Option<f64>,
}

impl Model {
    /// The newest sample, with rates since the one before.
    pub(super) fn new(before: Option<&Sample>, now: &Sample) -> Self {
        let status = &now.status;
        let mut shards: BTreeMap<u64, Vec<&ShardStatus>> = BTreeMap::new();
        for shard in &status.shards {
            shards.entry(shard.node).or_default().push(shard);
        }
        let leaders = status.leaders();
        let nodes: Vec<NodeRow> = shards
            .iter()
            .map(|(node, shards)| {
                let leads = leaders.values().filter(|(leader, _)| leader == node).count();
                node_row(*node, shards, leads, before, now.at)
            })
            .collect();
        let mut groups: BTreeMap<u32, Vec<(u64, &GroupStatus)>> = BTreeMap::new();
        for shard in &status.shards {
            shard.groups.iter().for_each(|group| groups.entry(group.group).or_default().push((shard.node, group)));
        }
        let groups =
            groups.iter().map(|(group, replicas)| group_row(*group, replicas, leaders.get(group).copied())).collect();
        let silent = status.unreachable.iter().map(|silent| silent.address.clone()).collect();
        let sum = |rate: fn(&NodeRow) -> Option<f64>| nodes.iter().filter_map(rate).reduce(|sum, rate| sum + rate);
        let (writes, reads) = (sum(|node| node.writes), sum(|node| node.reads));
        Self { nodes, groups, silent, writes, reads }
    }
}

fn node_row(node: u64, shards: &[&ShardStatus], leads: usize, before: Option<&Sample>, at: Duration) -> NodeRow {
    let difference = |path: &[&str]| {
        let before = before?;
        let mut difference = 0_u64;
        for shard in shards {
            let same = before.status.shards.iter().find(|old| (old.node, old.shard) == (shard.node, shard.shard))?;
            // A count that went back is of another run.
            difference += number(shard, path)?.checked_sub(number(same, path)?)?;
        }
        Some(difference)
    };
    let rate = |path: &[&str]| {
        let seconds = at.checked_sub(before?.at)?.as_secs_f64();
        (seconds > 0.0).then_some(difference(path)? as f64 / seconds)
    };
    let latency = |path: &[&str]| {
        let part = |name| [path, &[name]].concat();
        let (sum_us, count) = (difference(&part("sum_us")), difference(&part("count")));
        let mean_us = count.filter(|count| *count > 0).and_then(|count| Some(sum_us? as f64 / count as f64));
        Latency { mean_us, max_us: shards.iter().filter_map(|shard| number(shard, &part("max_us"))).max() }
    };
    let flag = |path: &[&str]| shards.iter().any(|shard| at_path(shard, path).and_then(Value::as_bool) == Some(true));
    let disk = if flag(&["disk_stalled"]) {
        "stalled"
    } else if flag(&["wal", "full"]) {
        "full"
    } else {
        "ok"
    };
    let groups = || shards.iter().flat_map(|shard| &shard.groups);
    NodeRow {
        node,
        shards: shards.len(),
        replicas: groups().count(),
        leads,
        clients: shards.iter().filter_map(|shard| number(shard, &["clients"])).sum(),
        writes: rate(&["counters", "requests_proposed"]),
        reads: rate(&["counters", "reads"]),
        flushes: rate(&["wal", "flushes"]),
        bytes: rate(&["wal", "bytes_written"]),
        flush: latency(&["wal", "flush_latency"]),
        commit: latency(&["commit_latency"]),
        waiting: groups().filter_map(|group| group.rest.get("waiting").and_then(Value::as_u64)).sum(),
        disk,
    }
}

fn at_path<'a>(shard: &'a ShardStatus, path: &[&str]) -> Option<&'a Value> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(shard.rest.get(*first)?, |value, key| value.get(key))
}

fn number(shard: &ShardStatus, path: &[&str]) -> Option<u64> {
    at_path(shard, path).and_then(Value::as_u64)
}

fn group_row(group: u32, replicas: &[(u64, &GroupStatus)], leader: Option<(u64, u64)>) -> GroupRow {
    let leading = replicas.iter().find(|(node, _)| leader.is_some_and(|(leader, _)| leader == *node));
    let newest = leading.or_else(|| replicas.iter().max_by_key(|(_, replica)| replica.commit_index));
    let of_newest = |field: fn(&GroupStatus) -> u64| newest.map_or(0, |(_, replica)| field(replica));
    let role = |replica: &GroupStatus| match replica.role.as_str() {
        "leader" => 'L',
        "candidate" => 'C',
        "pre_candidate" => 'P',
        _ => 'F',
    };
    let followers = leading.and_then(|(_, leader)| leader.rest.get("followers")?.as_array());
    let last = of_newest(|replica| replica.last_index);
    let lag = |follower: &Value| {
        Some((follower.get("node")?.as_u64()?, last.saturating_sub(follower.get("match_index")?.as_u64()?)))
    };
    let change = leading.and_then(|(_, leader)| leader.rest.get("change")?.as_str()).unwrap_or_default();
    GroupRow {
        group,
        leader,
        committed: of_newest(|replica| replica.commit_index),
        applied: of_newest(|replica| replica.last_applied),
        keys: of_newest(|replica| replica.keys),
        roles: replicas.iter().map(|(node, replica)| (*node, role(replica))).collect(),
        lags: followers.into_iter().flatten().filter_map(lag).collect(),
        change: if matches!(change, "idle" | "settled") { String::new() } else { change.to_owned() },
    }
}

/// A sample for tests: three nodes, two groups, node 3 behind by 12, `writes` so far.
#[cfg(test)]
pub(super) fn sample(seconds: u64, writes: u64) -> Sample {
    use serde_json::json;
    let group = |group: u32, role: &str, applied: u64| {
        let followers = if role == "leader" {
            json!([{ "node": 2, "match_index": 100, "next_index": 101 }, { "node": 3, "match_index": 88, "next_index": 89 }])
        } else {
            json!([])
        };
        json!({
            "group": group, "role": role, "term": 4, "leader": 1, "serving": true, "commit_index": 100,
            "last_applied": applied, "last_index": 100, "state_hash": "00ff", "keys": 42, "waiting": 1,
            "followers": followers, "change": if role == "leader" { "settled" } else { "idle" },
        })
    };
    let shard = |node: u64, role: &str, applied: u64, writes: u64| {
        let busy = if writes > 0 { seconds } else { 0 };
        let flushes = 100 * seconds;
        json!({
            "node": node, "shard": 0, "groups": [group(0, role, applied)], "clients": 3, "disk_stalled": node == 3,
            "commit_latency": { "count": 10 * busy, "sum_us": 15_000 * busy, "max_us": 9_000 * u64::from(busy > 0) },
            "counters": { "requests_proposed": writes, "reads": 10 * seconds },
            "wal": {
                "flushes": flushes, "bytes_written": 1_048_576 * seconds, "full": false,
                "flush_latency": { "count": flushes, "sum_us": 400 * flushes, "max_us": 12_300 },
            },
        })
    };
    let shards = [shard(1, "leader", 100, writes), shard(2, "follower", 99, 0), shard(3, "follower", 88, 0)];
    let unreachable =
        vec![ringraft_tools::status::Unreachable { address: "10.0.0.4:7100".to_owned(), error: "refused".to_owned() }];
    let shards = shards.into_iter().map(|shard| serde_json::from_value(shard).expect("a status")).collect();
    Sample { at: Duration::from_secs(seconds), status: ClusterStatus { shards, unreachable } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_over_time() {
        let (before, now) = (sample(10, 1_000), sample(12, 4_000));
        let model = Model::new(Some(&before), &now);
        assert_eq!(
            (model.nodes[0].writes, model.nodes[1].writes, model.writes),
            (Some(1_500.0), Some(0.0), Some(1_500.0))
        );
        assert_eq!((model.nodes[0].reads, model.reads), (Some(10.0), Some(30.0)));
        assert_eq!((model.nodes[2].flushes, model.nodes[2].bytes), (Some(100.0), Some(1_048_576.0)));
        assert_eq!(Model::new(None, &now).writes, None, "one look gives no rate");
        assert_eq!(Model::new(Some(&now), &sample(13, 5)).nodes[0].writes, None, "the node was started again");
    }

    #[test]
    fn nodes_and_groups_as_they_said() {
        let model = Model::new(None, &sample(1, 1));
        let node = &model.nodes[2];
        assert_eq!(
            (node.node, node.replicas, node.leads, node.clients, node.waiting, node.disk),
            (3, 1, 0, 3, 1, "stalled")
        );
        assert_eq!((model.nodes[0].leads, model.nodes[0].disk), (1, "ok"));
        let group = &model.groups[0];
        assert_eq!((group.leader, group.committed, group.applied, group.keys), (Some((1, 4)), 100, 100, 42));
        assert_eq!(group.roles, [(1, 'L'), (2, 'F'), (3, 'F')]);
        assert_eq!(group.lags, [(2, 0), (3, 12)]);
        assert_eq!((group.change.as_str(), model.silent.as_slice()), ("", &["10.0.0.4:7100".to_owned()][..]));
    }

    #[test]
    fn a_group_without_a_leader_shows_the_newest_replica() {
        let mut now = sample(1, 1);
        now.status.shards[0].groups[0].role = "follower".to_owned();
        let group = Model::new(None, &now).groups.remove(0);
        assert_eq!((group.leader, group.committed, group.lags.len()), (None, 100, 0));
    }
}
