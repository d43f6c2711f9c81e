//! What nodes say about themselves, and what that means for the whole cluster.
//!
//! Off the data path.
//! Invariant: every question has a deadline; a node that does not answer is listed, it does not hold up the others.

use std::collections::BTreeMap;
use std::thread;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::probe;

/// One shard of one node, as it answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Node id.
    pub node: u64,
    /// Shard of that node.
    pub shard: u16,
    /// Replicas that live there.
    pub groups: Vec<GroupStatus>,
    /// Everything else it said, as it said it.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

/// One replica of one group.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Group id.
    pub group: u32,
    /// `follower`, `pre_candidate`, `candidate` or `leader`.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The leader it knows.
    pub leader: Option<u64>,
    /// Whether it has applied what was committed before its start.
    pub serving: bool,
    /// Highest committed entry it knows.
    pub commit_index: u64,
    /// Highest applied entry.
    pub last_applied: u64,
    /// Last entry of its log.
    pub last_index: u64,
    /// State hash at `last_applied`.
    pub state_hash: String,
    /// Keys it holds.
    pub keys: u64,
    /// Everything else it said.
    #[serde(flatten)]
    pub rest: BTreeMap<String, Value>,
}

impl GroupStatus {
    /// A leader that has applied an entry of its own term: it takes writes and reads.
    #[must_use]
    pub fn is_serving_leader(&self) -> bool {
        self.role == "leader" && self.serving
    }
}

/// A shard that did not answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Unreachable {
    /// Where it should be.
    pub address: String,
    /// What happened.
    pub error: String,
}

/// All shards of a cluster that were asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// Those that answered, by node and shard.
    pub shards: Vec<ShardStatus>,
    /// Those that did not.
    pub unreachable: Vec<Unreachable>,
}

impl ClusterStatus {
    /// The leader of each group that serves: the one of the highest term, should an old one not know yet.
    #[must_use]
    pub fn leaders(&self) -> BTreeMap<u32, (u64, u64)> {
        let mut leaders: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
        for shard in &self.shards {
            for group in shard.groups.iter().filter(|group| group.is_serving_leader()) {
                let known = leaders.entry(group.group).or_insert((group.term, shard.node));
                *known = (*known).max((group.term, shard.node));
            }
        }
        leaders.into_iter().map(|(group, (term, node))| (group, (node, term))).collect()
    }

    /// Groups out of `0..groups` without a leader that serves.
    #[must_use]
    pub fn groups_without_leader(&self, groups: u32) -> Vec<u32> {
        let leaders = self.leaders();
        (0..groups).filter(|group| !leaders.contains_key(group)).collect()
    }

    /// The replicas of a group: (node, what it says).
    pub fn replicas(&self, group: u32) -> impl Iterator<Item = (u64, &GroupStatus)> {
        let all = self.shards.iter().flat_map(|shard| shard.groups.iter().map(|status| (shard.node, status)));
        all.filter(move |(_, status)| status.group == group)
    }

    /// One sentence for an error message.
    #[must_use]
    pub fn why_not_serving(&self, unserved: &[u32]) -> String {
        let mut parts = Vec::new();
        if !unserved.is_empty() {
            let shown: Vec<String> = unserved.iter().take(8).map(u32::to_string).collect();
            parts.push(format!("{} group(s) without a leader that serves: {}", unserved.len(), shown.join(", ")));
        }
        for silent in &self.unreachable {
            parts.push(format!("{} does not answer: {}", silent.address, silent.error));
        }
        parts.join("; ")
    }
}

/// Asks one shard.
///
/// # Errors
/// When it does not answer in time or answers something else.
pub fn shard(address: &str) -> Result<ShardStatus> {
    let text = probe::status_json(address)?;
    serde_json::from_str(&text).with_context(|| format!("{address} answered with a status this version does not know"))
}

/// Asks all shards at once.
#[must_use]
pub fn cluster(addresses: &[String]) -> ClusterStatus {
    let answers: Vec<Result<ShardStatus>> = thread::scope(|scope| {
        let asked: Vec<_> = addresses.iter().map(|address| scope.spawn(move || shard(address))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow::anyhow!("panicked")))).collect()
    });
    let mut status = ClusterStatus { shards: Vec::new(), unreachable: Vec::new() };
    for (address, answer) in addresses.iter().zip(answers) {
        match answer {
            Ok(shard) => status.shards.push(shard),
            Err(error) => {
                status.unreachable.push(Unreachable { address: address.clone(), error: format!("{error:#}") });
            }
        }
    }
    status.shards.sort_by_key(|shard| (shard.node, shard.shard));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(node: u64, role: &str, term: u64) -> ShardStatus {
        let group = serde_json::json!({
            "group": 0, "role": role, "term": term, "leader": null, "serving": true, "commit_index": 1,
            "last_applied": 1, "last_index": 1, "state_hash": "0", "keys": 0, "elections": 7,
        });
        serde_json::from_value(serde_json::json!({ "node": node, "shard": 0, "groups": [group], "clients": 3 }))
            .unwrap()
    }

    #[test]
    fn the_leader_of_the_highest_term_counts() {
        let shards = vec![replica(1, "leader", 4), replica(2, "leader", 5), replica(3, "follower", 5)];
        let status = ClusterStatus { shards, unreachable: Vec::new() };
        assert_eq!(status.leaders().get(&0), Some(&(2, 5)));
        assert_eq!(status.groups_without_leader(2), [1]);
    }

    #[test]
    fn what_is_not_known_here_is_passed_on() {
        let text = serde_json::to_value(replica(1, "leader", 4)).unwrap();
        assert_eq!(text["clients"], 3);
        assert_eq!(text["groups"][0]["elections"], 7);
    }
}
