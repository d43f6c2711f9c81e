//! ringraft over gRPC: `kv.v1.KVService` of the nodes' gateways.
//!
//! Off the data path.
//!
//! The messages are declared by hand, with only the fields that are used, as those of etcd are, so that both cost the
//! generator the same; `engine/gateway/proto` has them whole.

use ringraft_net::wire::Consistency;
use tonic::transport::Channel;

use super::grpc::{Api, Empty, GrpcTarget, kind_of, unary};
use super::{Seen, TargetFacts};
use crate::recorder::ErrorKind;
use crate::workload::mark_of;

/// A ringraft cluster under load through its gateways.
pub type RingraftGrpcTarget = GrpcTarget<RingraftApi>;

/// The calls of ringraft.
#[derive(Clone, Copy, Debug)]
pub struct RingraftApi {
    /// How fresh reads are.
    pub consistency: Consistency,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The position is skipped by the decoder.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct GetRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(int32, tag = "2")]
    consistency: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct GetResponse {
    #[prost(bool, tag = "2")]
    found: bool,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteResponse {
    #[prost(bool, tag = "2")]
    existed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ClusterStatusResponse {
    #[prost(uint32, tag = "4")]
    total_nodes: u32,
    #[prost(message, repeated, tag = "6")]
    groups: Vec<Empty>,
}

impl Api for RingraftApi {
    async fn put(self, channel: Channel, key: Vec<u8>, value: Vec<u8>) -> Result<Seen, ErrorKind> {
        let answer: Result<PutResponse, _> = unary(channel, "/kv.v1.KVService/Put", PutRequest { key, value }).await;
        answer.map(|_| Seen::Written).map_err(|status| kind_of(&status))
    }

    async fn get(self, channel: Channel, key: Vec<u8>) -> Result<Seen, ErrorKind> {
        let request = GetRequest { key, consistency: number_of(self.consistency) };
        let answer: Result<GetResponse, _> = unary(channel, "/kv.v1.KVService/Get", request).await;
        let GetResponse { found, value } = answer.map_err(|status| kind_of(&status))?;
        Ok(if found { Seen::Value { length: value.len(), mark: mark_of(&value) } } else { Seen::Missing })
    }

    async fn delete(self, channel: Channel, key: Vec<u8>) -> Result<Seen, ErrorKind> {
        let answer: Result<DeleteResponse, _> = unary(channel, "/kv.v1.KVService/Delete", DeleteRequest { key }).await;
        let answer = answer.map_err(|status| kind_of(&status))?;
        Ok(if answer.existed { Seen::Deleted } else { Seen::Missing })
    }

    /// Number of nodes and groups.
    async fn ask(self, channel: Channel, facts: &mut TargetFacts) -> Result<(), tonic::Status> {
        let status: ClusterStatusResponse = unary(channel, "/admin.v1.AdminService/GetClusterStatus", Empty {}).await?;
        facts.nodes = status.total_nodes as usize;
        facts.groups = u32::try_from(status.groups.len()).ok();
        facts.settings.insert("reads".to_owned(), self.consistency.name().to_owned());
        Ok(())
    }
}

/// As `kv.v1.Consistency` numbers them.
fn number_of(consistency: Consistency) -> i32 {
    match consistency {
        Consistency::Linearizable => 1,
        Consistency::Lease => 2,
        Consistency::Follower => 3,
        Consistency::Stale => 4,
    }
}
