//! `kv.v1.KVService`: messages to operations, results to messages.
//!
//! Off the data path.
//! Invariant: a write that was not applied because a comparison failed is an answer, not an error.

use std::sync::Arc;

use ringraft_net::slots;
use ringraft_net::wire::{Operation, OperationResult, items};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Request, Response, Status};

use super::batch;
use super::call::{Call, Freshness, unexpected, version};
use super::proto::kv::compare_and_set_request::Expected;
use super::proto::kv::kv_service_server::KvService;
use super::proto::kv::{
    CompareAndSetRequest, CompareAndSetResponse, DeleteBatchRequest, DeleteBatchResponse, DeleteRequest,
    DeleteResponse, GetBatchRequest, GetBatchResponse, GetRequest, GetResponse, PutBatchRequest, PutBatchResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, WatchRequest,
};
use super::range;
use super::status;
use super::watch::{Events, Watches};
use crate::errors::{Code, Failure};
use crate::state::State;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct KvApi {
    state: State,
    permits: Arc<Semaphore>,
    watches: Watches,
}

impl KvApi {
    pub(super) fn new(state: State) -> Self {
        let permits = Arc::new(Semaphore::new(state.settings().requests_max));
        Self { state, permits, watches: Watches::new() }
    }

    /// A call, its message, and the right to be one of `requests_max`.
    fn take<T>(&self, request: Request<T>) -> Result<(Call, T, SemaphorePermit<'_>), Status> {
        let full = |_| status::of(Failure::new(Code::Overloaded, "this node serves as many calls as it may"));
        let permit = self.permits.try_acquire().map_err(full)?;
        Ok((Call::of(&self.state, request.metadata())?, request.into_inner(), permit))
    }
}

#[tonic::async_trait]
impl KvService for KvApi {
    type WatchStream = Events;

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (call, PutRequest { key, value }, _permit) = self.take(request)?;
        let (position, result) = call.write(Operation::Put { key, value }).await?;
        let OperationResult::Put { replaced } = result else { return Err(unexpected(&result)) };
        let version = version(&position);
        Ok(Response::new(PutResponse { position: Some(position), replaced, version }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (call, GetRequest { key, consistency, max_staleness_ms, with_version }, _permit) = self.take(request)?;
        let freshness = Freshness::of(consistency, max_staleness_ms)?;
        if with_version {
            return get_with_version(&call, key, freshness).await.map(Response::new);
        }
        let (position, result) = call.ask_one(Operation::Get { key }, freshness).await?;
        let OperationResult::Value(value) = result else { return Err(unexpected(&result)) };
        let (found, value) = (value.is_some(), value.unwrap_or_default());
        Ok(Response::new(GetResponse { position: Some(position), found, value, version: 0 }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (call, DeleteRequest { key, expected_version }, _permit) = self.take(request)?;
        let operation = match expected_version {
            Some(version) => Operation::CompareVersion { key, version, value: None },
            None => Operation::Delete { key },
        };
        let (position, result) = call.write(operation).await?;
        let (existed, current_version) = match result {
            OperationResult::Deleted { existed } => (existed, 0),
            OperationResult::ComparedVersion { swapped, version } => {
                (swapped && expected_version != Some(0), if swapped { 0 } else { version })
            }
            other => return Err(unexpected(&other)),
        };
        Ok(Response::new(DeleteResponse { position: Some(position), existed, current_version }))
    }

    async fn compare_and_set(
        &self,
        request: Request<CompareAndSetRequest>,
    ) -> Result<Response<CompareAndSetResponse>, Status> {
        let (call, CompareAndSetRequest { key, value, expected }, _permit) = self.take(request)?;
        let operation = match expected {
            Some(Expected::ExpectedValue(expected)) => {
                Operation::CompareAndSet { key, expected: Some(expected), value }
            }
            Some(Expected::ExpectedAbsent(true)) => Operation::CompareAndSet { key, expected: None, value },
            Some(Expected::ExpectedVersion(version)) => Operation::CompareVersion { key, version, value: Some(value) },
            Some(Expected::ExpectedAbsent(false)) | None => {
                return Err(status::bad_request("expected_value, expected_absent or expected_version must be given"));
            }
        };
        let (position, result) = call.write(operation).await?;
        let (swapped, current, version) = match result {
            OperationResult::Compared { swapped, current } => {
                (swapped, current, if swapped { version(&position) } else { 0 })
            }
            OperationResult::ComparedVersion { swapped, version } => (swapped, None, version),
            other => return Err(unexpected(&other)),
        };
        Ok(Response::new(CompareAndSetResponse { position: Some(position), swapped, current, version }))
    }

    async fn put_batch(&self, request: Request<PutBatchRequest>) -> Result<Response<PutBatchResponse>, Status> {
        let (call, message, _permit) = self.take(request)?;
        Ok(Response::new(PutBatchResponse { items: batch::put(&call, message.items).await? }))
    }

    async fn get_batch(&self, request: Request<GetBatchRequest>) -> Result<Response<GetBatchResponse>, Status> {
        let (call, GetBatchRequest { keys, consistency, max_staleness_ms }, _permit) = self.take(request)?;
        let freshness = Freshness::of(consistency, max_staleness_ms)?;
        Ok(Response::new(GetBatchResponse { items: batch::get(&call, keys, freshness).await? }))
    }

    async fn delete_batch(
        &self,
        request: Request<DeleteBatchRequest>,
    ) -> Result<Response<DeleteBatchResponse>, Status> {
        let (call, message, _permit) = self.take(request)?;
        Ok(Response::new(DeleteBatchResponse { items: batch::delete(&call, message.keys).await? }))
    }

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        let (call, message, _permit) = self.take(request)?;
        range::read(&call, message).await.map(Response::new)
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (call, message, _permit) = self.take(request)?;
        self.watches.begin(&call, message).await.map(Response::new)
    }
}

/// The range of one key tells its version, which a get does not.
async fn get_with_version(call: &Call, key: Vec<u8>, freshness: Freshness) -> Result<GetResponse, Status> {
    let group = slots::group_of_key(&key, call.groups().await?);
    let mut end = key.clone();
    end.push(0);
    let operation = Operation::Range { group, start: key, end, limit: 1, keys_only: false };
    let (position, result) = call.ask_one(operation, freshness).await?;
    let OperationResult::Items { items: bytes, .. } = &result else { return Err(unexpected(&result)) };
    let item = items::items(bytes).next().transpose().map_err(|_| unexpected(&result))?;
    let (found, version) = (item.is_some(), item.map_or(0, |item| item.version));
    let value = item.and_then(|item| item.value).unwrap_or_default().to_vec();
    Ok(GetResponse { position: Some(position), found, value, version })
}
