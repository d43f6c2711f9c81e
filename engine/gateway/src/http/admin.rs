//! `/admin/...`: what operators ask: nodes come and go, leaders hand over, replicas take snapshots.
//!
//! Off the data path.
//! Invariants: every question goes to whoever decides it, whichever node it came to; a change of nodes is answered when it
//! is decided and goes on by itself; asking again is always safe.
//! It decides nothing.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State as Shared};
use axum::http::{Request, Response, StatusCode, Uri};
use ringraft_net::wire::{AdminReply, AdminRequest};
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, either, json_ok, json_with};
use super::body;
use super::query::Query;
use crate::errors::{Code, Failure};
use crate::state::State;

/// The group that decides which nodes there are.
const CONTROL_GROUP: u32 = 0;

/// An id as the documents write one: a number, or a name that ends in one (`node4`).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum NodeName {
    Number(u64),
    Name(String),
}

impl NodeName {
    fn id(&self) -> Result<u64, Failure> {
        let id = match self {
            Self::Number(id) => Some(*id),
            Self::Name(name) => id_of(name),
        };
        let problem = || Failure::bad_request("a node's id is a number from 1, or a name that ends in one");
        id.filter(|id| *id > 0).ok_or_else(problem)
    }
}

/// The number that a name ends in: `node4`, `node-4` and `4` are 4.
fn id_of(name: &str) -> Option<u64> {
    let digits = name.trim_start_matches(|letter: char| letter.is_ascii_alphabetic() || matches!(letter, '-' | '_'));
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewNode {
    id: NodeName,
    /// Of its first shard; the others follow port by port.
    #[serde(default, deserialize_with = "body::some")]
    address: Option<String>,
    /// Of all its shards.
    #[serde(default, deserialize_with = "body::some")]
    addresses: Option<Vec<String>>,
    /// The node whose place it takes.
    #[serde(default, deserialize_with = "body::some")]
    replace: Option<NodeName>,
    /// Identity of its data directory.
    #[serde(default, deserialize_with = "body::some")]
    instance: Option<u64>,
}

/// `POST /admin/nodes`.
pub(super) async fn add_node(Shared(state): Shared<State>, request: Request<Body>) -> Response<Body> {
    let answer = async {
        Query::of(request.uri(), &[])?;
        let new: NewNode = read(&state, request).await?;
        let shards = state.operator().topology().await?.shards;
        let (node, instance) = (new.id.id()?, new.instance.unwrap_or(0));
        let addresses = addresses(new.address, new.addresses, shards)?;
        let request = match new.replace {
            Some(old) => AdminRequest::ReplaceNode { old: old.id()?, node, addresses, instance },
            None => AdminRequest::AddNode { node, addresses, instance },
        };
        change(&state, node, request).await
    };
    either(answer.await)
}

/// `DELETE /admin/nodes/{id}`.
pub(super) async fn remove_node(Shared(state): Shared<State>, Path(name): Path<String>, uri: Uri) -> Response<Body> {
    let answer = async {
        Query::of(&uri, &[])?;
        let node = NodeName::Name(name).id()?;
        change(&state, node, AdminRequest::RemoveNode { node }).await
    };
    either(answer.await)
}

/// `DELETE /admin/nodes?id=`.
pub(super) async fn remove_named(Shared(state): Shared<State>, uri: Uri) -> Response<Body> {
    let answer = async {
        let query = Query::of(&uri, &["id"])?;
        let name = query.text("id")?.ok_or_else(|| Failure::bad_request("which node? DELETE /admin/nodes/4"))?;
        let node = NodeName::Name(name.to_owned()).id()?;
        change(&state, node, AdminRequest::RemoveNode { node }).await
    };
    either(answer.await)
}

async fn change(state: &State, node: u64, request: AdminRequest) -> Answer {
    let patience = state.settings().request_timeout;
    match state.operator().ask_leader(CONTROL_GROUP, &request, patience).await? {
        AdminReply::Topology { text, .. } => {
            let topology: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
            Ok(json_with(StatusCode::ACCEPTED, &json!({ "id": node, "accepted": true, "topology": topology })))
        }
        other => Err(unexpected(&other)),
    }
}

fn addresses(first: Option<String>, all: Option<Vec<String>>, shards: u16) -> Result<Vec<String>, Failure> {
    match (first, all) {
        (None, Some(all)) if all.len() == usize::from(shards) => Ok(all),
        (None, Some(all)) => {
            let message = format!("{} addresses for {shards} shards: give one for each", all.len());
            Err(Failure::bad_request(message))
        }
        (Some(first), None) => {
            let problem = || Failure::bad_request(format!("address {first:?} is not host:port"));
            let (host, port) = first.rsplit_once(':').ok_or_else(problem)?;
            let port: u16 = port.parse().map_err(|_| problem())?;
            let last = port.checked_add(shards.saturating_sub(1)).filter(|_| port > 0 && !host.is_empty());
            Ok((port..=last.ok_or_else(problem)?).map(|port| format!("{host}:{port}")).collect())
        }
        (None, None) => Err(Failure::bad_request("the body has no \"address\"")),
        (Some(_), Some(_)) => Err(Failure::bad_request("address and addresses exclude each other")),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Transfer {
    #[serde(default, deserialize_with = "body::some")]
    group: Option<u32>,
    #[serde(default, deserialize_with = "body::some")]
    to: Option<NodeName>,
}

/// `POST /admin/transfer`.
pub(super) async fn transfer(Shared(state): Shared<State>, request: Request<Body>) -> Response<Body> {
    let answer = async {
        Query::of(request.uri(), &[])?;
        let wish: Transfer = read(&state, request).await?;
        let (group, to) = (wish.group.unwrap_or(CONTROL_GROUP), wish.to.map_or(Ok(0), |to| to.id())?);
        let patience = state.settings().request_timeout;
        match state.operator().ask_leader(group, &AdminRequest::Transfer { group, to }, patience).await? {
            AdminReply::Transferred { group, leader, term } => {
                Ok(json_ok(&json!({ "group": group, "leaderId": leader, "term": term })))
            }
            other => Err(unexpected(&other)),
        }
    };
    either(answer.await)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Snapshot {
    #[serde(default, deserialize_with = "body::some")]
    group: Option<u32>,
    #[serde(default, deserialize_with = "body::some")]
    node: Option<NodeName>,
}

/// `POST /admin/snapshot`.
pub(super) async fn snapshot(Shared(state): Shared<State>, request: Request<Body>) -> Response<Body> {
    let answer = async {
        Query::of(request.uri(), &[])?;
        let wish: Snapshot = read(&state, request).await?;
        let node = wish.node.map_or(Ok(state.settings().node), |node| node.id())?;
        let groups = match wish.group {
            Some(group) => vec![group],
            None if node == state.settings().node => groups_here(&state).await?,
            None => return Err(Failure::bad_request("which group of that node? {\"node\": 2, \"group\": 0}")),
        };
        let mut taken = BTreeMap::new();
        for group in groups {
            match state.operator().ask_node(node, group, &AdminRequest::Snapshot { group }).await? {
                AdminReply::SnapshotTaken { group, index } => _ = taken.insert(group, index),
                other => return Err(unexpected(&other)),
            }
        }
        let rows: Vec<_> = taken.iter().map(|(group, index)| json!({ "group": group, "index": index })).collect();
        Ok(json_ok(&json!({ "node": node, "snapshots": rows })))
    };
    either(answer.await)
}

async fn groups_here(state: &State) -> Result<Vec<u32>, Failure> {
    let view = state.view_now().await;
    let view = view.ok_or_else(|| Failure::new(Code::Unavailable, "the shards of this node do not answer"))?;
    Ok(view.replicas.keys().copied().collect())
}

async fn read<T: serde::de::DeserializeOwned>(state: &State, request: Request<Body>) -> Result<T, Failure> {
    let headers = request.headers().clone();
    body::object_or_nothing(&headers, &body::read(request, state.settings()).await?)
}

fn unexpected(reply: &AdminReply) -> Failure {
    Failure::new(Code::Internal, format!("answered another question: {reply:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_or_names_that_end_in_one() {
        for (name, id) in [("4", Some(4)), ("node4", Some(4)), ("node-12", Some(12)), ("n_1", Some(1))] {
            assert_eq!(id_of(name), id, "{name}");
        }
        for name in ["", "node", "4x", "+4", "n4-5", "99999999999999999999"] {
            assert_eq!(id_of(name), None, "{name}");
        }
        assert!(NodeName::Number(0).id().is_err() && NodeName::Name("n0".into()).id().is_err());
    }

    #[test]
    fn shards_follow_port_by_port() {
        let first = |text: &str, shards| addresses(Some(text.to_owned()), None, shards);
        assert_eq!(first("h:7100", 2).unwrap(), ["h:7100", "h:7101"]);
        for (text, shards) in [("h", 1), (":7100", 1), ("h:0", 1), ("h:x", 1), ("h:65535", 2)] {
            assert!(first(text, shards).is_err(), "{text}");
        }
        let all = vec![String::from("a:1"), String::from("b:1")];
        assert_eq!(addresses(None, Some(all.clone()), 2).unwrap(), all);
        assert!(addresses(None, Some(all.clone()), 3).is_err() && addresses(None, None, 1).is_err());
        assert!(addresses(Some(String::from("h:1")), Some(all), 2).is_err());
    }
}
