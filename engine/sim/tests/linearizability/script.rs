//! Writing histories by hand, and what operations mean, said in the plainest way.
//!
//! Off the data path.

use std::collections::BTreeMap;

use ringraft_net::wire::{Consistency, Operation, OperationResult, Position};
use ringraft_sim::history::{Call, CallOutcome, Ended, History};

pub(crate) type State = BTreeMap<Vec<u8>, Vec<u8>>;

pub(crate) fn put(key: &str, value: &str) -> Operation {
    Operation::Put { key: key.into(), value: value.into() }
}

pub(crate) fn get(key: &str) -> Operation {
    Operation::Get { key: key.into() }
}

pub(crate) fn delete(key: &str) -> Operation {
    Operation::Delete { key: key.into() }
}

pub(crate) fn compare(key: &str, expected: Option<&str>, value: &str) -> Operation {
    Operation::CompareAndSet { key: key.into(), expected: expected.map(Into::into), value: value.into() }
}

pub(crate) fn found(value: &str) -> OperationResult {
    OperationResult::Value(Some(value.into()))
}

pub(crate) const ABSENT: OperationResult = OperationResult::Value(None);
pub(crate) const NEW: OperationResult = OperationResult::Put { replaced: false };
pub(crate) const REPLACED: OperationResult = OperationResult::Put { replaced: true };
pub(crate) const SWAPPED: OperationResult = OperationResult::Compared { swapped: true, current: None };

/// A history in the making, all in group 0.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) history: History,
}

impl Script {
    fn call(&mut self, invoked: u64, operations: Vec<Operation>, ended: Option<Ended>) -> &mut Self {
        let client = self.history.calls.len() as u32;
        let consistency = Consistency::Linearizable;
        self.history.calls.push(Call { client, invoked, operations, consistency, ended });
        self
    }

    /// A write, answered with its place `(index, position)`.
    pub(crate) fn write(
        &mut self,
        (invoked, returned): (u64, u64),
        (index, position): (u64, u32),
        operations: Vec<Operation>,
        results: Vec<OperationResult>,
    ) -> &mut Self {
        let outcome = CallOutcome::Done { position: Position { group: 0, index, position }, results };
        self.call(invoked, operations, Some(Ended { returned, outcome }))
    }

    /// A read, answered with the index it saw.
    pub(crate) fn read(&mut self, span: (u64, u64), index: u64, key: &str, result: OperationResult) -> &mut Self {
        self.write(span, (index, u32::MAX), vec![get(key)], vec![result])
    }

    /// The last call was a stale read.
    pub(crate) fn stale(&mut self) -> &mut Self {
        self.history.calls.last_mut().expect("a call").consistency = Consistency::Stale;
        self
    }

    /// A write nobody answered.
    pub(crate) fn unknown(&mut self, invoked: u64, operations: Vec<Operation>) -> &mut Self {
        self.call(invoked, operations, None)
    }

    /// A write that certainly failed.
    pub(crate) fn failed(&mut self, (invoked, returned): (u64, u64), operations: Vec<Operation>) -> &mut Self {
        self.call(invoked, operations, Some(Ended { returned, outcome: CallOutcome::Failed }))
    }
}

/// Executes a request: all of it, or nothing when a compare-and-set finds another value.
pub(crate) fn execute(state: &mut State, operations: &[Operation]) -> Vec<OperationResult> {
    if let [operation] = operations {
        return vec![execute_one(state, operation)];
    }
    let mut after = state.clone();
    let results: Vec<_> = operations.iter().map(|operation| execute_one(&mut after, operation)).collect();
    let refused = |result: &OperationResult| matches!(result, OperationResult::Compared { swapped: false, .. });
    if let Some(at) = results.iter().position(refused) {
        let not_applied = |(place, result): (usize, &OperationResult)| {
            if place == at { result.clone() } else { OperationResult::NotApplied }
        };
        return results.iter().enumerate().map(not_applied).collect();
    }
    *state = after;
    results
}

fn execute_one(state: &mut State, operation: &Operation) -> OperationResult {
    match operation.clone() {
        Operation::Put { key, value } => OperationResult::Put { replaced: state.insert(key, value).is_some() },
        Operation::Get { key } => OperationResult::Value(state.get(&key).cloned()),
        Operation::Delete { key } => OperationResult::Deleted { existed: state.remove(&key).is_some() },
        Operation::CompareAndSet { key, expected, value } => {
            let current = state.get(&key).cloned();
            if current != expected {
                return OperationResult::Compared { swapped: false, current };
            }
            state.insert(key, value);
            SWAPPED
        }
        Operation::OpenSession { .. } => panic!("sessions have no state here"),
        other @ (Operation::CompareVersion { .. } | Operation::Range { .. }) => panic!("not modelled: {other:?}"),
    }
}
