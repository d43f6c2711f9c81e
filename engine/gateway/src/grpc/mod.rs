//! gRPC: keys and values, what operators ask, health and reflection, as routes that HTTP's are merged with.
//!
//! Off the data path.
//!
//! ```text
//!   proto/*.proto ──build.rs──▶ proto::{kv, admin}: messages and service traits
//!   call ──▶ kv.rs, batch.rs, watch.rs, admin.rs ──▶ State ──▶ answer, or status.rs: code and details
//! ```
//!
//! Invariants: a call's deadline is the deadline of what it asks the cluster for; messages are bounded before they are
//! decoded; an answer to a write comes after its commit; an error says whether what was asked may have been done.
//! What it does not do: redirect. A node passes calls on to the leader, whose id it tells when something went wrong.

mod admin;
mod batch;
mod call;
mod cluster;
mod deadline;
mod health;
mod kv;
mod range;
mod status;
mod watch;

use axum::Router;
use tonic::server::NamedService;
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::Builder as ReflectionBuilder;

use self::health::HealthService;
use self::proto::admin::admin_service_server::AdminServiceServer;
use self::proto::kv::kv_service_server::KvServiceServer;
use crate::state::State;

/// Code generated from the `.proto` files.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, reason = "generated")]
pub mod proto {
    /// `kv.v1`.
    pub mod kv {
        tonic::include_proto!("kv.v1");
    }

    /// `admin.v1`.
    pub mod admin {
        tonic::include_proto!("admin.v1");
    }
}

/// The `.proto` files, compiled.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Bytes of an answer: a batch of gets, a range.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The routes of the gRPC services.
pub fn router(state: &State) -> Router {
    let bytes_max = state.settings().body_bytes_max;
    let kv = KvServiceServer::new(kv::KvApi::new(state.clone()))
        .max_decoding_message_size(bytes_max)
        .max_encoding_message_size(ANSWER_BYTES_MAX);
    let admin = AdminServiceServer::new(admin::AdminApi::new(state.clone())).max_decoding_message_size(bytes_max);
    let health = HealthServer::new(HealthService::new(state.clone())).max_decoding_message_size(bytes_max);
    let mut routes = Router::new()
        .route_service(&path_of(&kv), kv)
        .route_service(&path_of(&admin), admin)
        .route_service(&path_of(&health), health);
    // Both versions: older tools know but the first.
    if let Ok(reflection) = reflection().build_v1alpha() {
        routes = routes.route_service(&path_of(&reflection), reflection);
    }
    if let Ok(reflection) = reflection().build_v1() {
        routes = routes.route_service(&path_of(&reflection), reflection);
    }
    routes
}

fn reflection() -> ReflectionBuilder<'static> {
    ReflectionBuilder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

fn path_of<S: NamedService>(_service: &S) -> String {
    format!("/{}/{{*method}}", S::NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reflection_knows_the_files() {
        assert!(reflection().build_v1().is_ok() && reflection().build_v1alpha().is_ok());
    }
}
