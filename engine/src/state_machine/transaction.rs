//! Requests of several operations: all of them take effect, in their order, or none does.
//!
//! Data path 8/9.
//! Invariants: an operation sees the effects of those before it in its request; when a comparison finds another
//! value or version than it expects, or the results do not fit in an answer, the store is as it was before the request.
//! What undoing needs is kept only for requests that can fail (those with a comparison or a get).
//!
//! A failed comparison makes the answer: `Compared {swapped: false, current}` at its place, with the value it saw, or
//! `ComparedVersion` with the version, and `NotApplied` at all others.

use ringraft_net::wire::{ArchivedRequest, OperationRef, OperationResult, OperationResultRef};

use super::store::{Item, Store};

/// Why a request of several operations had no effect and has no results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the results of this request do not fit in one reply; ask for fewer keys at once")]
pub(super) struct AnswerTooLarge;

/// What a key was before the request.
struct Undo<'a> {
    key: &'a [u8],
    previous: Option<Item>,
}

/// Executes a request of several operations.
pub(super) fn execute(
    store: &mut Store,
    request: &ArchivedRequest,
    version: u64,
    answer_bytes_max: usize,
) -> Result<Vec<OperationResult>, AnswerTooLarge> {
    let can_fail = request.operations().any(|operation| {
        use OperationRef::{CompareAndSet, CompareVersion, Get};
        matches!(operation, CompareAndSet { .. } | CompareVersion { .. } | Get { .. })
    });
    if !can_fail {
        return Ok(request.operations().map(|operation| write(store, operation, version)).collect());
    }
    let mut undo = Vec::new();
    let result = execute_undoable(store, request, version, answer_bytes_max, &mut undo);
    match result {
        Ok(results) => Ok(results),
        Err(failure) => {
            for Undo { key, previous } in undo.into_iter().rev() {
                store.restore(key, previous);
            }
            match failure {
                Failure::AnswerTooLarge => Err(AnswerTooLarge),
                Failure::Compared { at, result } => {
                    let mut results = vec![OperationResult::NotApplied; request.operations().len()];
                    results[at] = result;
                    Ok(results)
                }
            }
        }
    }
}

/// A put or delete that needs no undoing.
fn write(store: &mut Store, operation: OperationRef<'_>, version: u64) -> OperationResult {
    match operation {
        OperationRef::Put { key, value } => OperationResult::Put { replaced: store.put(key, value, version) },
        OperationRef::Delete { key } => OperationResult::Deleted { existed: store.delete(key) },
        _ => unreachable!("operations that can fail go another way"),
    }
}

enum Failure {
    AnswerTooLarge,
    Compared { at: usize, result: OperationResult },
}

fn execute_undoable<'a>(
    store: &mut Store,
    request: &'a ArchivedRequest,
    version: u64,
    answer_bytes_max: usize,
    undo: &mut Vec<Undo<'a>>,
) -> Result<Vec<OperationResult>, Failure> {
    let mut results = Vec::with_capacity(request.operations().len());
    let mut answer_bytes = 0;
    for (at, operation) in request.operations().enumerate() {
        results.push(match operation {
            OperationRef::Put { key, value } => {
                OperationResult::Put { replaced: set(store, key, value, version, undo) }
            }
            OperationRef::Get { key } => {
                let value = store.get(key);
                answer_bytes += value.map_or(0, <[u8]>::len);
                if answer_bytes > answer_bytes_max {
                    return Err(Failure::AnswerTooLarge);
                }
                OperationResult::Value(value.map(<[u8]>::to_vec))
            }
            OperationRef::Delete { key } => {
                let previous = store.take(key);
                let existed = previous.is_some();
                undo.push(Undo { key, previous });
                OperationResult::Deleted { existed }
            }
            OperationRef::CompareAndSet { key, expected, value } => {
                let current = store.get(key);
                if current != expected {
                    let current = current.map(<[u8]>::to_vec);
                    return Err(Failure::Compared {
                        at,
                        result: OperationResult::Compared { swapped: false, current },
                    });
                }
                set(store, key, value, version, undo);
                OperationResult::Compared { swapped: true, current: None }
            }
            OperationRef::CompareVersion { key, version: expected, value } => {
                let found = store.version(key);
                if found != expected {
                    let result = OperationResult::ComparedVersion { swapped: false, version: found };
                    return Err(Failure::Compared { at, result });
                }
                match value {
                    Some(value) => _ = set(store, key, value, version, undo),
                    None => undo.push(Undo { key, previous: store.take(key) }),
                }
                OperationResult::ComparedVersion { swapped: true, version: value.map_or(0, |_| version) }
            }
            OperationRef::OpenSession { .. } | OperationRef::Range { .. } => unreachable!("validated: it stands alone"),
        });
    }
    Ok(results)
}

fn set<'a>(store: &mut Store, key: &'a [u8], value: &[u8], version: u64, undo: &mut Vec<Undo<'a>>) -> bool {
    let previous = store.take(key);
    let replaced = previous.is_some();
    undo.push(Undo { key, previous });
    store.put(key, value, version);
    replaced
}

/// Reads every key of a request of gets.
pub(super) fn read<'a>(
    store: &'a Store,
    request: &ArchivedRequest,
    answer_bytes_max: usize,
) -> Result<Vec<OperationResultRef<'a>>, AnswerTooLarge> {
    let mut answer_bytes = 0;
    request
        .operations()
        .map(|operation| {
            let value = operation.key().and_then(|key| store.get(key));
            answer_bytes += value.map_or(0, <[u8]>::len);
            if answer_bytes > answer_bytes_max { Err(AnswerTooLarge) } else { Ok(OperationResultRef::Value(value)) }
        })
        .collect()
}
