//! `admin.v1.AdminService`: what operators ask, of the leader of a group or of one node.
//!
//! Off the data path.
//! Invariant: a change is answered when it is committed; what was refused is an error with the cluster's own sentence.

use std::collections::HashMap;

use ringraft_net::wire::{AdminReply, AdminRequest};
use serde::Deserialize;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

use super::call::Call;
use super::cluster;
use super::proto::admin::admin_service_server::AdminService;
use super::proto::admin::{
    AddNodeRequest, ChangeResponse, GetClusterStatusRequest, GetClusterStatusResponse, GetNodeInfoRequest,
    GetNodeInfoResponse, JoinRequest, JoinResponse, NodeStatus, RemoveNodeRequest, ReplaceNodeRequest,
    TakeSnapshotRequest, TakeSnapshotResponse, TransferLeadershipRequest, TransferLeadershipResponse,
};
use super::status::{self, Problem};
use crate::errors::{Code, Failure};
use crate::state::State;

/// The group whose leader decides about nodes.
const CONTROL_GROUP: u32 = 0;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct AdminApi {
    state: State,
}

impl AdminApi {
    pub(super) fn new(state: State) -> Self {
        Self { state }
    }

    /// Asks the leader of a group.
    async fn ask<T>(&self, message: &Request<T>, group: u32, asked: &AdminRequest) -> Result<AdminReply, Status> {
        let timeout = Call::of(&self.state, message.metadata())?.timeout;
        self.state.operator().ask_leader(group, asked, timeout).await.map_err(status::of)
    }

    /// Asks for a change of nodes.
    async fn change<T>(&self, message: &Request<T>, asked: &AdminRequest) -> Result<Change, Status> {
        match self.ask(message, CONTROL_GROUP, asked).await? {
            AdminReply::Topology { text, shared } => Ok(Change { topology: Topology::of(&text)?, shared }),
            other => Err(unexpected(&other)),
        }
    }

    /// The address of each shard: given one by one, or port by port from the first.
    async fn addresses(&self, given: Vec<String>) -> Result<Vec<String>, Status> {
        let shards = self.state.operator().topology().await.map_err(status::of)?.shards;
        shard_addresses(given, shards).map_err(status::bad_request)
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn get_node_info(
        &self,
        message: Request<GetNodeInfoRequest>,
    ) -> Result<Response<GetNodeInfoResponse>, Status> {
        let Call { timeout: patience, .. } = Call::of(&self.state, message.metadata())?;
        let told = timeout(patience, cluster::node_info(&self.state)).await;
        told.unwrap_or_else(|_| Err(status::too_late())).map(Response::new)
    }

    async fn get_cluster_status(
        &self,
        message: Request<GetClusterStatusRequest>,
    ) -> Result<Response<GetClusterStatusResponse>, Status> {
        let Call { timeout: patience, .. } = Call::of(&self.state, message.metadata())?;
        let told = timeout(patience, cluster::status(&self.state)).await;
        told.unwrap_or_else(|_| Err(status::too_late())).map(Response::new)
    }

    async fn add_node(&self, message: Request<AddNodeRequest>) -> Result<Response<ChangeResponse>, Status> {
        let AddNodeRequest { id: node, addresses, instance } = message.get_ref().clone();
        let addresses = self.addresses(addresses).await?;
        let change = self.change(&message, &AdminRequest::AddNode { node, addresses, instance }).await?;
        Ok(Response::new(change.into_response()))
    }

    async fn join(&self, message: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let JoinRequest { node_id, address, instance } = message.get_ref().clone();
        let id = node_number(&node_id).map_err(status::bad_request)?;
        let addresses = self.addresses(vec![address]).await?;
        let change = self.change(&message, &AdminRequest::AddNode { node: id, addresses, instance }).await?;
        let info = self.state.client().info().await.map_err(|error| Status::from(Problem::from(error)))?;
        Ok(Response::new(JoinResponse {
            id,
            cluster_id: cluster::hexadecimal(&info.cluster),
            epoch: change.topology.epoch,
            shared_settings: change.shared.into_iter().collect::<HashMap<_, _>>(),
            nodes: change.topology.nodes.into_iter().map(Node::into_status).collect(),
        }))
    }

    async fn remove_node(&self, message: Request<RemoveNodeRequest>) -> Result<Response<ChangeResponse>, Status> {
        let node = message.get_ref().id;
        let change = self.change(&message, &AdminRequest::RemoveNode { node }).await?;
        Ok(Response::new(change.into_response()))
    }

    async fn replace_node(&self, message: Request<ReplaceNodeRequest>) -> Result<Response<ChangeResponse>, Status> {
        let ReplaceNodeRequest { old_id: old, id: node, addresses, instance } = message.get_ref().clone();
        let addresses = self.addresses(addresses).await?;
        let change = self.change(&message, &AdminRequest::ReplaceNode { old, node, addresses, instance }).await?;
        Ok(Response::new(change.into_response()))
    }

    async fn transfer_leadership(
        &self,
        message: Request<TransferLeadershipRequest>,
    ) -> Result<Response<TransferLeadershipResponse>, Status> {
        let TransferLeadershipRequest { group, to } = *message.get_ref();
        match self.ask(&message, group, &AdminRequest::Transfer { group, to }).await? {
            AdminReply::Transferred { group, leader, term } => {
                Ok(Response::new(TransferLeadershipResponse { group, leader_id: leader, term }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn take_snapshot(
        &self,
        message: Request<TakeSnapshotRequest>,
    ) -> Result<Response<TakeSnapshotResponse>, Status> {
        let Call { timeout: patience, .. } = Call::of(&self.state, message.metadata())?;
        let TakeSnapshotRequest { group, node } = *message.get_ref();
        let asked = AdminRequest::Snapshot { group };
        let answer = timeout(patience, async {
            let node = if node == 0 { self.leader(group).await? } else { node };
            self.state.operator().ask_node(node, group, &asked).await.map_err(status::of)
        });
        match answer.await.unwrap_or_else(|_| Err(status::lost()))? {
            AdminReply::SnapshotTaken { group, index } => Ok(Response::new(TakeSnapshotResponse { group, index })),
            other => Err(unexpected(&other)),
        }
    }
}

impl AdminApi {
    /// The leader of a group, as the own node knows it.
    async fn leader(&self, group: u32) -> Result<u64, Status> {
        let topology = self.state.operator().topology().await.map_err(status::of)?;
        let missing = || status::of(Failure::new(Code::NotFound, format!("there is no group {group}")));
        let leader = topology.leaders.get(group as usize).ok_or_else(missing)?;
        leader.ok_or_else(|| status::of(Failure::new(Code::Unavailable, format!("group {group} has no leader now"))))
    }
}

/// The nodes behind a change, and what they share.
struct Change {
    topology: Topology,
    shared: Vec<(String, String)>,
}

impl Change {
    fn into_response(self) -> ChangeResponse {
        let nodes = self.topology.nodes.into_iter().map(Node::into_status).collect();
        ChangeResponse { epoch: self.topology.epoch, nodes }
    }
}

/// What matters here of the text of a topology (`engine/src/topology`).
#[derive(Debug, Deserialize)]
pub(super) struct Topology {
    pub(super) epoch: u64,
    pub(super) nodes: Vec<Node>,
}

/// A node of it.
#[derive(Debug, Deserialize)]
pub(super) struct Node {
    pub(super) id: u64,
    pub(super) addresses: Vec<String>,
    pub(super) state: String,
}

impl Topology {
    /// Reads a text.
    pub(super) fn of(text: &str) -> Result<Self, Status> {
        let strange = |error| status::of(Failure::new(Code::Internal, format!("the topology cannot be read: {error}")));
        serde_json::from_str(text).map_err(strange)
    }
}

impl Node {
    /// Without what only the node itself tells.
    pub(super) fn into_status(self) -> NodeStatus {
        let Self { id, addresses, state } = self;
        NodeStatus { id, state, addresses, ..NodeStatus::default() }
    }
}

fn unexpected(reply: &AdminReply) -> Status {
    status::of(Failure::new(Code::Internal, format!("answered another question: {reply:?}")))
}

/// A node's number: alone, or at the end of a name.
fn node_number(name: &str) -> Result<u64, String> {
    let digits = name.len() - name.bytes().rev().take_while(u8::is_ascii_digit).count();
    match name[digits..].parse::<u64>() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("{name:?} is no node: a number from 1 on is wanted, alone or at the end of a name")),
    }
}

/// The address of each shard: given one by one, or port by port from the first.
fn shard_addresses(given: Vec<String>, shards: u16) -> Result<Vec<String>, String> {
    let parsed: Option<Vec<(&str, u16)>> = given.iter().map(|address| host_and_port(address)).collect();
    match parsed.as_deref() {
        Some(&[(host, port)]) if u32::from(port) + u32::from(shards) <= 1 << 16 => {
            Ok((0..shards).map(|shard| format!("{host}:{}", port + shard)).collect())
        }
        Some(&[(_, port)]) => Err(format!("port {port} leaves no ports for {shards} shards")),
        Some(all) if all.len() == usize::from(shards) => Ok(given),
        Some(all) => Err(format!("{} addresses were given, nodes of this cluster have {shards} shards", all.len())),
        None => Err(format!("{given:?}: host:port is wanted")),
    }
}

fn host_and_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    /// The same question of all three calls that are no changes.
    async fn asked(api: &AdminApi, grpc_timeout: &'static str) -> Vec<tonic::Code> {
        fn with<T>(message: T, grpc_timeout: &'static str) -> Request<T> {
            let mut request = Request::new(message);
            request.metadata_mut().insert("grpc-timeout", grpc_timeout.parse().unwrap());
            request
        }
        let info = api.get_node_info(with(GetNodeInfoRequest::default(), grpc_timeout)).await.unwrap_err();
        let status = api.get_cluster_status(with(GetClusterStatusRequest::default(), grpc_timeout)).await.unwrap_err();
        let wish = TakeSnapshotRequest { group: 0, node: 1 };
        let snapshot = api.take_snapshot(with(wish, grpc_timeout)).await.unwrap_err();
        vec![info.code(), status.code(), snapshot.code()]
    }

    #[test]
    fn every_call_has_the_deadline_it_names() {
        run(async {
            let fake = Fake::start().await;
            fake.script().answers = false;
            let api = AdminApi::new(fake.state(|_| {}));
            assert_eq!(asked(&api, "soon").await, [tonic::Code::InvalidArgument; 3]);
            assert_eq!(asked(&api, "1m").await, [tonic::Code::DeadlineExceeded; 3]);
        });
    }

    #[test]
    fn nodes_are_numbered() {
        for (name, number) in [("4", Ok(4)), ("node4", Ok(4)), ("node-12", Ok(12)), ("n1", Ok(1))] {
            assert_eq!(node_number(name), number, "{name}");
        }
        for name in ["", "node", "0", "node0", "4x", "99999999999999999999"] {
            assert!(node_number(name).is_err(), "{name}");
        }
    }

    #[test]
    fn addresses_of_shards() {
        let of = |given: &[&str], shards| shard_addresses(given.iter().copied().map(String::from).collect(), shards);
        assert_eq!(of(&["a:7100"], 2).unwrap(), ["a:7100", "a:7101"]);
        assert_eq!(of(&["[::1]:7100"], 1).unwrap(), ["[::1]:7100"]);
        assert_eq!(of(&["a:1", "b:2"], 2).unwrap(), ["a:1", "b:2"]);
        for (bad, shards) in [
            (&["a"][..], 1),
            (&["a:x"], 1),
            (&[":1"], 1),
            (&["a:0"], 1),
            (&["a:65535"], 2),
            (&["a:1", "b:2"], 3),
            (&[], 1),
        ] {
            assert!(of(bad, shards).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_text_of_a_topology_is_read() {
        let text = r#"{"format":1,"epoch":7,"shards":1,"replication_factor":3,"removed":[],"placements":[[1]],
            "nodes":[{"id":1,"seat":1,"addresses":["a:1"],"instance":9,"state":"active"}]}"#;
        let topology = Topology::of(text).unwrap();
        let node = topology.nodes.into_iter().next().unwrap().into_status();
        assert_eq!((topology.epoch, node.id, node.state.as_str(), node.live), (7, 1, "active", false));
        assert_eq!(Topology::of("{}").unwrap_err().code(), tonic::Code::Internal);
    }
}
