//! What nodes say of themselves, as messages: one node, or all of them asked at once.
//!
//! Off the data path.
//! Invariant: a node that does not answer is told as such and holds up nobody for longer than one question may take.

use std::collections::BTreeMap;

use ringraft_net::wire::{AdminReply, AdminRequest};
use tokio::task::JoinSet;
use tonic::Status;

use super::admin::Topology;
use super::proto::admin::{
    GetClusterStatusResponse, GetNodeInfoResponse, GroupStatus, NodeStatus, ReplicaStatus, ReplicationProgress, Role,
};
use super::status::{self, Problem};
use crate::errors::{Code, Failure};
use crate::state::State;
use crate::view::{ReplicaView, ShardView};

/// The node that is asked.
pub(super) async fn node_info(state: &State) -> Result<GetNodeInfoResponse, Status> {
    let silent = || status::of(Failure::new(Code::Unavailable, "the own node does not answer"));
    let view = state.view_now().await.ok_or_else(silent)?;
    let info = state.client().info().await.map_err(|error| Status::from(Problem::from(error)))?;
    let first = view.replicas.get(&0).map(|replica| replica_status(view.node, replica)).unwrap_or_default();
    Ok(GetNodeInfoResponse {
        id: view.node,
        version: String::from(env!("CARGO_PKG_VERSION")),
        cluster_id: hexadecimal(&info.cluster),
        role: first.role,
        current_term: view.term(0),
        leader_id: view.leader(0).unwrap_or(0),
        commit_index: first.commit_index,
        last_applied: first.last_applied,
        groups_total: view.groups,
        shards: u32::from(view.shards),
        replicas: view.replicas.values().map(|replica| replica_status(view.node, replica)).collect(),
    })
}

/// All nodes and groups.
pub(super) async fn status(state: &State) -> Result<GetClusterStatusResponse, Status> {
    let topology = state.operator().topology().await.map_err(status::of)?;
    let info = state.client().info().await.map_err(|error| Status::from(Problem::from(error)))?;
    let states = states(state).await;
    let mut nodes: BTreeMap<u64, NodeStatus> = BTreeMap::new();
    let mut asked = JoinSet::new();
    for node in topology.nodes {
        for (shard, address) in node.addresses.iter().cloned().enumerate() {
            let (operator, node) = (state.operator().clone(), node.node);
            asked.spawn(async move { (node, shard, operator.status(&address).await) });
        }
        let state = states.get(&node.node).cloned().unwrap_or_default();
        let status = NodeStatus { id: node.node, state, addresses: node.addresses, ..NodeStatus::default() };
        nodes.insert(node.node, status);
    }
    let mut replicas: BTreeMap<u32, Vec<ReplicaStatus>> =
        (0..topology.groups).map(|group| (group, Vec::new())).collect();
    while let Some(joined) = asked.join_next().await {
        let (node, shard, answer) = joined.map_err(|error| Status::internal(error.to_string()))?;
        let Some(view) = answer.ok().and_then(|text| serde_json::from_str::<ShardView>(&text).ok()) else { continue };
        if let Some(status) = nodes.get_mut(&node).filter(|_| shard == 0) {
            status.live = true;
            (status.http_address, status.grpc_address) = (view.http_address, view.grpc_address);
        }
        for replica in &view.groups {
            replicas.entry(replica.group).or_default().push(replica_status(node, replica));
        }
    }
    Ok(GetClusterStatusResponse {
        cluster_id: hexadecimal(&info.cluster),
        epoch: topology.epoch,
        live_nodes: nodes.values().filter(|node| node.live).count() as u32,
        total_nodes: nodes.len() as u32,
        nodes: nodes.into_values().collect(),
        groups: replicas.into_iter().map(|(group, replicas)| group_status(group, replicas)).collect(),
    })
}

/// The state of each node in the topology as the own node knows it; empty when it does not answer.
async fn states(state: &State) -> BTreeMap<u64, String> {
    let own = state.settings().node;
    let answer = state.operator().ask_node(own, 0, &AdminRequest::Topology).await;
    let Ok(AdminReply::Topology { text, .. }) = answer else { return BTreeMap::new() };
    let nodes = Topology::of(&text).map(|topology| topology.nodes).unwrap_or_default();
    nodes.into_iter().map(|node| (node.id, node.state)).collect()
}

/// A group, as the leader of the highest term tells.
fn group_status(group: u32, mut replicas: Vec<ReplicaStatus>) -> GroupStatus {
    replicas.sort_by_key(|replica| replica.node);
    let leaders = replicas.iter().filter(|replica| replica.role == i32::from(Role::Leader));
    let leader = leaders.max_by_key(|replica| replica.current_term);
    let (leader_id, current_term, commit_index) =
        leader.map_or((0, 0, 0), |leader| (leader.node, leader.current_term, leader.commit_index));
    GroupStatus { group, leader_id, current_term, commit_index, replicas }
}

fn replica_status(node: u64, replica: &ReplicaView) -> ReplicaStatus {
    let progress = replica.followers.iter().map(|follower| ReplicationProgress {
        node: follower.node,
        match_index: follower.match_index,
        next_index: follower.next_index,
    });
    ReplicaStatus {
        group: replica.group,
        node,
        role: role_of(node, replica).into(),
        current_term: replica.term,
        leader_id: replica.leader.unwrap_or(0),
        commit_index: replica.commit_index,
        last_applied: replica.last_applied,
        last_index: replica.last_index,
        snapshot_index: replica.snapshot_index,
        keys: replica.keys,
        replication_progress: progress.collect(),
    }
}

fn role_of(node: u64, replica: &ReplicaView) -> Role {
    match replica.role.as_str() {
        "leader" => Role::Leader,
        "candidate" => Role::Candidate,
        "pre_candidate" => Role::PreCandidate,
        "follower" if replica.learners.contains(&node) => Role::Learner,
        "follower" => Role::Follower,
        _ => Role::Unspecified,
    }
}

/// Bytes as text.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(role: &str, term: u64) -> ReplicaView {
        let text = format!(
            r#"{{"group":3,"role":"{role}","term":{term},"leader":null,"serving":true,"commit_index":8,"last_applied":7,
            "last_index":9,"keys":1,"voters":[1,2],"learners":[4],"snapshot_index":0,
            "followers":[{{"node":2,"match_index":5,"next_index":6}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn roles_are_told_apart() {
        let role = |node, role| role_of(node, &replica(role, 1));
        assert_eq!((role(1, "leader"), role(1, "follower")), (Role::Leader, Role::Follower));
        assert_eq!((role(1, "candidate"), role(1, "pre_candidate")), (Role::Candidate, Role::PreCandidate));
        assert_eq!((role(4, "follower"), role(1, "king")), (Role::Learner, Role::Unspecified));
    }

    #[test]
    fn the_leader_of_the_highest_term_tells() {
        let of = |node, role, term| replica_status(node, &replica(role, term));
        let group = group_status(3, vec![of(2, "leader", 6), of(1, "leader", 5), of(3, "follower", 7)]);
        assert_eq!((group.leader_id, group.current_term, group.commit_index), (2, 6, 8));
        assert_eq!(group.replicas.iter().map(|replica| replica.node).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(group.replicas[0].replication_progress[0].match_index, 5);
        assert_eq!(group_status(3, vec![of(3, "follower", 7)]).leader_id, 0);
    }

    #[test]
    fn clusters_have_names() {
        assert_eq!(hexadecimal(&[0, 0xab, 0x10]), "00ab10");
    }
}
