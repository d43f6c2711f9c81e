//! etcd v3: KV Put, DeleteRange and linearizable Range over gRPC.
//!
//! Off the data path.
//!
//! The messages are declared by hand, with only the fields that are used: etcd's API is stable and the rest would only
//! cost decoding.

use tonic::transport::Channel;

use super::grpc::{Api, Empty, GrpcTarget, kind_of, unary};
use super::{Seen, TargetFacts};
use crate::recorder::ErrorKind;
use crate::workload::mark_of;

/// An etcd cluster under load.
pub type EtcdTarget = GrpcTarget<EtcdApi>;

/// The calls of etcd.
#[derive(Clone, Copy, Debug)]
pub struct EtcdApi;

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The header (revision, member) is skipped by the decoder.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

/// `serializable` stays false: a linearizable read.
#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "vec", tag = "5")]
    value: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

/// Without a range end: one key.
#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRangeRequest {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeleteRangeResponse {
    #[prost(int64, tag = "2")]
    deleted: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct MemberListResponse {
    #[prost(message, repeated, tag = "2")]
    members: Vec<Empty>,
}

impl Api for EtcdApi {
    async fn put(self, channel: Channel, key: Vec<u8>, value: Vec<u8>) -> Result<Seen, ErrorKind> {
        let answer: Result<PutResponse, _> = unary(channel, "/etcdserverpb.KV/Put", PutRequest { key, value }).await;
        answer.map(|_| Seen::Written).map_err(|status| kind_of(&status))
    }

    async fn get(self, channel: Channel, key: Vec<u8>) -> Result<Seen, ErrorKind> {
        let answer: Result<RangeResponse, _> = unary(channel, "/etcdserverpb.KV/Range", RangeRequest { key }).await;
        let answer = answer.map_err(|status| kind_of(&status))?;
        Ok(answer
            .kvs
            .first()
            .map_or(Seen::Missing, |found| Seen::Value { length: found.value.len(), mark: mark_of(&found.value) }))
    }

    async fn delete(self, channel: Channel, key: Vec<u8>) -> Result<Seen, ErrorKind> {
        let request = DeleteRangeRequest { key };
        let answer: Result<DeleteRangeResponse, _> = unary(channel, "/etcdserverpb.KV/DeleteRange", request).await;
        let answer = answer.map_err(|status| kind_of(&status))?;
        Ok(if answer.deleted > 0 { Seen::Deleted } else { Seen::Missing })
    }

    /// Version and number of members.
    async fn ask(self, channel: Channel, facts: &mut TargetFacts) -> Result<(), tonic::Status> {
        let status: StatusResponse = unary(channel.clone(), "/etcdserverpb.Maintenance/Status", Empty {}).await?;
        let members: MemberListResponse = unary(channel, "/etcdserverpb.Cluster/MemberList", Empty {}).await?;
        facts.nodes = members.members.len();
        facts.settings.insert("version".to_owned(), status.version);
        Ok(())
    }
}
