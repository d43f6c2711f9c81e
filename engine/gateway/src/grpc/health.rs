//! `grpc.health.v1.Health`: whether this node serves, looked at when somebody asks.
//!
//! Off the data path.
//! Invariant: it serves when its node answers and has applied what was committed before its start, in every replica.
//! What it does not do: know whether there is a leader. A node without one serves stale reads, and calls tell.

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use super::proto::{admin, kv};
use crate::state::State;

/// Between two looks for somebody who watches.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The service.
#[derive(Clone, Debug)]
pub(super) struct HealthService {
    state: State,
}

impl HealthService {
    pub(super) fn new(state: State) -> Self {
        Self { state }
    }

    async fn status(&self, service: &str) -> Option<ServingStatus> {
        let known = ["", kv::kv_service_server::SERVICE_NAME, admin::admin_service_server::SERVICE_NAME];
        if !known.contains(&service) {
            return None;
        }
        let view = self.state.view().await;
        let serves = view.is_some_and(|view| view.replicas.values().all(|replica| replica.serving));
        Some(if serves { ServingStatus::Serving } else { ServingStatus::NotServing })
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        match self.status(&request.get_ref().service).await {
            Some(status) => Ok(Response::new(response(status))),
            None => Err(Status::not_found(format!("there is no service {:?}", request.get_ref().service))),
        }
    }

    /// The first status at once, and each that differs from the one before.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (service, name) = (self.clone(), request.into_inner().service);
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let mut told = None;
            loop {
                let status = service.status(&name).await.unwrap_or(ServingStatus::ServiceUnknown);
                if told != Some(status) && sender.send(Ok(response(status))).await.is_err() {
                    return;
                }
                told = Some(status);
                tokio::select! {
                    () = sleep(LOOK_INTERVAL) => {}
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}
