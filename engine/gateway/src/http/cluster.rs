//! `/health`, `/livez`, `/readyz`, `/cluster/status` and `/cluster/nodes`: how the node and its cluster are.
//!
//! Off the data path.
//! Invariants: what is said of the cluster is what the own node knows, but for the progress of replication, which only a
//! leader knows and is asked for; a node that does not answer makes an answer poorer, never late by more than a second.
//! It judges nothing that clients build on.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{Response, StatusCode, Uri};
use ringraft_net::slots;
use ringraft_net::wire::Topology;
use serde_json::{Map, Value, json};

use super::answer::{Answer, either, json_ok, json_with};
use super::query::Query;
use crate::errors::{Code, Failure};
use crate::state::State;
use crate::time;
use crate::view::{FollowerView, ReplicaView, ShardView, View};

/// The group that every node is a member of: what stands for the cluster where the documents know one group alone.
const FIRST_GROUP: u32 = 0;

pub(super) async fn livez() -> Response<Body> {
    json_ok(&json!({ "status": "ok" }))
}

/// Ready to serve: it has what it knew to be committed, its disk works, and it knows a leader of every group it has.
pub(super) async fn readyz(Shared(state): Shared<State>) -> Response<Body> {
    let node = state.settings().node;
    let reasons = match state.view().await {
        Some(view) => unready(&view),
        None => vec![String::from("the shards of this node do not answer")],
    };
    if reasons.is_empty() {
        return json_ok(&json!({ "status": "ok", "id": node }));
    }
    json_with(StatusCode::SERVICE_UNAVAILABLE, &json!({ "status": "not ready", "id": node, "reasons": reasons }))
}

fn unready(view: &View) -> Vec<String> {
    let mut reasons = Vec::new();
    if view.disk_stalled {
        reasons.push(String::from("flushes have stopped"));
    }
    for replica in view.replicas.values() {
        if !replica.serving {
            reasons.push(format!("group {} has not applied what was committed", replica.group));
        } else if replica.leader.is_none() {
            reasons.push(format!("group {} has no leader", replica.group));
        }
    }
    if view.replicas.is_empty() {
        reasons.push(String::from("this node has no replicas"));
    }
    reasons
}

pub(super) async fn status(Shared(state): Shared<State>, uri: Uri) -> Response<Body> {
    let answer = async {
        Query::of(&uri, &[])?;
        Ok(json_ok(&Value::Object(status_of(&state).await?)))
    };
    either(answer.await)
}

/// The union of what the documents show of a node and of a cluster, with a row for each group.
pub(super) async fn status_of(state: &State) -> Result<Map<String, Value>, Failure> {
    let view = seen(state).await?;
    let topology = state.operator().topology().await?;
    let members: BTreeSet<u64> = topology.nodes.iter().map(|node| node.node).collect();
    let live = view.nodes.values().filter(|node| node.alive && members.contains(&node.node)).count();
    let first = view.replicas.get(&FIRST_GROUP);
    let leader = view.leader(FIRST_GROUP);
    let progress = progress(state, &view, &topology).await;
    let since = first.and_then(|replica| replica.leader_since_us);
    let elected = since.and_then(|since| state.time_of(since)).map(time::rfc3339);
    let groups: Vec<_> = (0..view.groups).filter_map(|group| group_row(&view, group)).collect();
    let status = json!({
        "id": view.node,
        "role": first.map(|replica| replica.role.as_str()),
        "currentTerm": view.term(FIRST_GROUP),
        "leaderId": leader,
        "commitIndex": first.map(|replica| replica.commit_index),
        "lastApplied": first.map(|replica| replica.last_applied),
        "leader": leader,
        "liveNodes": live,
        "totalNodes": members.len(),
        "electedAt": elected,
        "replicationProgress": progress,
        "groups": groups,
    });
    Ok(super::answer::object(status))
}

async fn seen(state: &State) -> Result<std::sync::Arc<View>, Failure> {
    let view = state.view_now().await;
    view.ok_or_else(|| Failure::new(Code::Unavailable, "the shards of this node do not answer"))
}

fn group_row(view: &View, group: u32) -> Option<Value> {
    if let Some(replica) = view.replicas.get(&group) {
        return Some(json!({
            "group": group,
            "role": replica.role,
            "term": replica.term,
            "leaderId": replica.leader,
            "serving": replica.serving,
            "commitIndex": replica.commit_index,
            "lastApplied": replica.last_applied,
            "lastIndex": replica.last_index,
            "snapshotIndex": replica.snapshot_index,
            "keys": replica.keys,
            "voters": replica.voters,
            "learners": replica.learners,
            "replicationProgress": by_node(&replica.followers),
        }));
    }
    let elsewhere = view.elsewhere.get(&group)?;
    Some(json!({ "group": group, "role": null, "term": elsewhere.term, "leaderId": elsewhere.leader }))
}

fn by_node(followers: &[FollowerView]) -> Value {
    let row = |follower: &FollowerView| {
        let progress = json!({ "matchIndex": follower.match_index, "nextIndex": follower.next_index });
        (follower.node.to_string(), progress)
    };
    Value::Object(followers.iter().map(row).collect())
}

/// How far the members of the first group are: its leader says, wherever it is.
async fn progress(state: &State, view: &View, topology: &Topology) -> Value {
    let here = view.replicas.get(&FIRST_GROUP).filter(|replica| replica.role == "leader");
    if let Some(replica) = here {
        return by_node(&replica.followers);
    }
    match leaders_replica(state, view.leader(FIRST_GROUP), topology).await {
        Some(replica) => by_node(&replica.followers),
        None => Value::Object(Map::new()),
    }
}

async fn leaders_replica(state: &State, leader: Option<u64>, topology: &Topology) -> Option<ReplicaView> {
    let node = topology.nodes.iter().find(|node| Some(node.node) == leader)?;
    let shard = slots::shard_of_group(FIRST_GROUP, topology.shards);
    let text = state.operator().status(node.addresses.get(usize::from(shard))?).await.ok()?;
    let shard: ShardView = serde_json::from_str(&text).ok()?;
    shard.groups.into_iter().find(|replica| replica.group == FIRST_GROUP && replica.role == "leader")
}

pub(super) async fn nodes(Shared(state): Shared<State>, uri: Uri) -> Response<Body> {
    let answer = async {
        Query::of(&uri, &[])?;
        Ok(json_ok(&json!({ "nodes": nodes_of(&state).await? })))
    };
    either(answer.await)
}

/// A row for each node of the cluster.
pub(super) async fn nodes_of(state: &State) -> Result<Vec<Value>, Failure> {
    let view = seen(state).await?;
    let topology = state.operator().topology().await?;
    let led = |node: u64| topology.leaders.iter().filter(|leader| **leader == Some(node)).count();
    let first = view.leader(FIRST_GROUP);
    let row = |info: &ringraft_net::wire::NodeInfo| {
        let known = view.node(info.node);
        let alive = known.is_some_and(|known| known.alive);
        let known_text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
        json!({
            "id": info.node,
            "address": info.addresses.first(),
            "addresses": info.addresses,
            "httpAddr": known_text(known.map(|known| &known.http_address)),
            "grpcAddr": known_text(known.map(|known| &known.grpc_address)),
            "status": if alive { "up" } else { "down" },
            "alive": alive,
            "leader": first == Some(info.node),
            "groupsLed": led(info.node),
            "release": known_text(known.map(|known| &known.release)),
            "requestsPerSecond": known.map(|known| known.requests_per_second),
        })
    };
    Ok(topology.nodes.iter().map(row).collect())
}

/// `GET /admin/status`: the same, the nodes, and everything that the shards of this node say.
pub(super) async fn admin_status(Shared(state): Shared<State>, uri: Uri) -> Response<Body> {
    let answer = async {
        Query::of(&uri, &[])?;
        let mut status = status_of(&state).await?;
        status.insert("nodes".into(), nodes_of(&state).await?.into());
        status.insert("shards".into(), shards(&state).await?.into());
        Ok(json_ok(&Value::Object(status)))
    };
    let answer: Answer = answer.await;
    either(answer)
}

async fn shards(state: &State) -> Result<Vec<Value>, Failure> {
    let (_, texts) = state.operator().own_status(None).await?;
    let read = |text: &String| serde_json::from_str(text);
    let read: Result<_, _> = texts.iter().map(read).collect();
    read.map_err(|error| Failure::new(Code::Internal, error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn replica(group: u32, serving: bool, leader: Option<u64>) -> ReplicaView {
        let text = json!({
            "group": group, "role": "follower", "term": 3, "leader": leader, "serving": serving, "commit_index": 5,
            "last_applied": 5, "last_index": 6, "keys": 1, "voters": [1, 2, 3], "learners": [], "snapshot_index": 0,
            "followers": [{ "node": 2, "match_index": 4, "next_index": 5 }],
        });
        serde_json::from_value(text).unwrap()
    }

    fn view(replicas: Vec<ReplicaView>) -> View {
        let replicas: BTreeMap<_, _> = replicas.into_iter().map(|replica| (replica.group, replica)).collect();
        View { node: 1, groups: 2, shards: 1, replicas, ..View::default() }
    }

    #[test]
    fn a_node_is_ready_when_it_serves_and_knows_the_leaders() {
        assert_eq!(unready(&view(vec![replica(0, true, Some(2))])), Vec::<String>::new());
        assert_eq!(unready(&view(vec![replica(0, false, None), replica(1, true, None)])).len(), 2);
        assert_eq!(unready(&View { disk_stalled: true, ..view(vec![]) }).len(), 2);
    }

    #[test]
    fn progress_is_keyed_by_node() {
        let row = group_row(&view(vec![replica(0, true, Some(2))]), 0).unwrap();
        assert_eq!(row["replicationProgress"], json!({ "2": { "matchIndex": 4, "nextIndex": 5 } }));
        assert_eq!(group_row(&view(vec![]), 1), None);
    }
}
