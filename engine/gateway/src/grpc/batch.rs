//! Batches: items by group, one request for each group, results in the order of the items.
//!
//! Off the data path.
//! Invariants: the items of one group are one request, all or nothing; every item has a result or an error, also when
//! other groups end otherwise; at most [`ITEMS_MAX`] items.

use std::collections::BTreeMap;

use ringraft_net::limits::OPERATIONS_MAX;
use ringraft_net::slots;
use ringraft_net::wire::{Operation, OperationResult};
use tokio::task::JoinSet;
use tonic::Status;

use super::call::{Call, Freshness, unexpected, version};
use super::proto::kv::{
    DeleteResponse, GetResponse, ItemError, KeyValue, Position, PutResponse, delete_batch_response, get_batch_response,
    put_batch_response,
};
use super::status::{self, Problem};

/// Items of a batch: as many as one group takes at once, should they all be of one.
const ITEMS_MAX: usize = OPERATIONS_MAX;

type Outcome = Result<(Position, OperationResult), ItemError>;

/// Several puts.
pub(super) async fn put(call: &Call, items: Vec<KeyValue>) -> Result<Vec<put_batch_response::Item>, Status> {
    use put_batch_response::{Item, item::Result as Answer};
    let operations = items.into_iter().map(|KeyValue { key, value }| Operation::Put { key, value }).collect();
    let item = |outcome: Outcome| {
        let result = match outcome {
            Ok((position, OperationResult::Put { replaced })) => {
                let version = version(&position);
                Answer::Done(PutResponse { position: Some(position), replaced, version })
            }
            Ok((_, other)) => Answer::Error(strange(&other)),
            Err(error) => Answer::Error(error),
        };
        Item { result: Some(result) }
    };
    Ok(run(call, operations, Freshness::default()).await?.into_iter().map(item).collect())
}

/// Several gets.
pub(super) async fn get(
    call: &Call,
    keys: Vec<Vec<u8>>,
    freshness: Freshness,
) -> Result<Vec<get_batch_response::Item>, Status> {
    use get_batch_response::{Item, item::Result as Answer};
    let operations = keys.into_iter().map(|key| Operation::Get { key }).collect();
    let item = |outcome: Outcome| {
        let result = match outcome {
            Ok((position, OperationResult::Value(value))) => {
                let (found, value) = (value.is_some(), value.unwrap_or_default());
                Answer::Done(GetResponse { position: Some(position), found, value, version: 0 })
            }
            Ok((_, other)) => Answer::Error(strange(&other)),
            Err(error) => Answer::Error(error),
        };
        Item { result: Some(result) }
    };
    Ok(run(call, operations, freshness).await?.into_iter().map(item).collect())
}

/// Several deletes.
pub(super) async fn delete(call: &Call, keys: Vec<Vec<u8>>) -> Result<Vec<delete_batch_response::Item>, Status> {
    use delete_batch_response::{Item, item::Result as Answer};
    let operations = keys.into_iter().map(|key| Operation::Delete { key }).collect();
    let item = |outcome: Outcome| {
        let result = match outcome {
            Ok((position, OperationResult::Deleted { existed })) => {
                Answer::Done(DeleteResponse { position: Some(position), existed, current_version: 0 })
            }
            Ok((_, other)) => Answer::Error(strange(&other)),
            Err(error) => Answer::Error(error),
        };
        Item { result: Some(result) }
    };
    Ok(run(call, operations, Freshness::default()).await?.into_iter().map(item).collect())
}

/// Asks each group for its part, all at once.
async fn run(call: &Call, operations: Vec<Operation>, freshness: Freshness) -> Result<Vec<Outcome>, Status> {
    if operations.len() > ITEMS_MAX {
        let message = format!("a batch has at most {ITEMS_MAX} items, not {}", operations.len());
        return Err(status::bad_request(message));
    }
    let mut outcomes: Vec<Option<Outcome>> = operations.iter().map(|_| None).collect();
    let mut asked = JoinSet::new();
    for (group, (places, part)) in split(operations, call.groups().await?) {
        let call = call.clone();
        asked.spawn(async move { (group, places, call.ask(part, freshness).await) });
    }
    while let Some(joined) = asked.join_next().await {
        let (group, places, answer) = joined.map_err(|error| Status::internal(error.to_string()))?;
        match answer {
            Ok((position, results)) => {
                for (place, result) in places.into_iter().zip(results) {
                    outcomes[place] = Some(Ok((position, result)));
                }
            }
            Err(error) => {
                let error = item_error(&error.in_group(group, None));
                places.into_iter().for_each(|place| outcomes[place] = Some(Err(error.clone())));
            }
        }
    }
    let missing = || Err(strange(&OperationResult::NotApplied));
    Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(missing)).collect())
}

/// Places in the batch, and what stands there.
type Part = (Vec<usize>, Vec<Operation>);

fn split(operations: Vec<Operation>, groups: u32) -> BTreeMap<u32, Part> {
    let mut parts: BTreeMap<u32, Part> = BTreeMap::new();
    for (place, operation) in operations.into_iter().enumerate() {
        let key = operation.as_operation_ref().key().unwrap_or_default();
        let part = parts.entry(slots::group_of_key(key, groups)).or_default();
        part.0.push(place);
        part.1.push(operation);
    }
    parts
}

fn item_error(problem: &Problem) -> ItemError {
    ItemError {
        reason: problem.reason.clone(),
        message: problem.message.clone(),
        retryable: problem.retryable,
        outcome_unknown: problem.outcome_unknown,
    }
}

fn strange(result: &OperationResult) -> ItemError {
    let message = unexpected(result).message().to_owned();
    ItemError { reason: "INTERNAL".to_owned(), message, retryable: false, outcome_unknown: false }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_keep_their_places() {
        let keys: Vec<Vec<u8>> = (0..100_u32).map(|number| format!("key-{number}").into_bytes()).collect();
        let parts = split(keys.iter().map(|key| Operation::Get { key: key.clone() }).collect(), 4);
        assert_eq!(parts.len(), 4);
        let mut seen = Vec::new();
        for (group, (places, operations)) in parts {
            assert_eq!(places.len(), operations.len());
            for (place, operation) in places.into_iter().zip(operations) {
                assert_eq!(operation, Operation::Get { key: keys[place].clone() });
                assert_eq!(slots::group_of_key(&keys[place], 4), group);
                seen.push(place);
            }
        }
        seen.sort_unstable();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }
}
