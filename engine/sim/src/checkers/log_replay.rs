//! The committed log, replayed from index 1: acknowledged is there, refused is not, everything applied once.
//!
//! Off the data path.
//! The archive of a group is replayed twice: through the production state machine, whose answers must be the ones the
//! clients got, and through a plain map, whose state must be the one the production machine ends in. That the disks hold the
//! same log is for `disk_logs`.
//! Invariants checked: an acknowledged call stands at the place its answer named and gave that answer; a call that was
//! told to have failed took no effect; no call took effect twice; the final values are what the log says.

use std::collections::BTreeMap;

use ringraft_engine::limits::Limits;
use ringraft_engine::payload;
use ringraft_engine::state_machine::StateMachine;
use ringraft_engine::topology::Topology;
use ringraft_net::wire::{self, Operation, OperationResult, OutcomeRef, Position};
use ringraft_raft::{GroupId, Index};

use super::Violation;
use super::archive::Archived;
use crate::history::{CallOutcome, Ended, History};
use crate::world::Checked;

/// The values at the end of a replayed log.
pub(crate) type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// The entry that set a key, and the value.
type Write = (Index, Option<Vec<u8>>);

/// What took effect in a group's log.
pub(crate) struct Replayed {
    /// State hash before the first entry and after each.
    pub(crate) hashes: Vec<u64>,
    /// Values by key.
    pub(crate) values: Values,
    /// What every key was set to, in order: the entry and the value, `None` when it was deleted.
    writes: BTreeMap<Vec<u8>, Vec<Write>>,
    /// Every request that took effect or read something: place, operations, results.
    effects: BTreeMap<(Index, u32), (Vec<Operation>, Vec<OperationResult>)>,
}

/// Replays the committed entries of one group.
pub(crate) fn replay(group: u32, entries: &[Archived], limits: Limits) -> Result<Replayed, Violation> {
    let mut machine = StateMachine::new(GroupId(group), limits);
    let hashes = vec![machine.digest().hash];
    let mut replayed = Replayed { hashes, values: Values::new(), writes: BTreeMap::new(), effects: BTreeMap::new() };
    for (index, entry) in (1..).zip(entries) {
        let payload = entry.payload();
        let mut outcomes = Vec::new();
        let mut own = 0;
        let applied = machine.apply_entry(index, entry.term, payload, |at, outcome| {
            // An answer that names another place is the first one's, given again.
            let is_first = (at.index, at.position) == (index, own);
            own += 1;
            if let OutcomeRef::Done(results) = outcome
                && is_first
            {
                let results: Vec<OperationResult> =
                    results.iter().map(|result| OperationResult::from(*result)).collect();
                outcomes.push((at, results));
            }
        });
        applied.map_err(|error| Violation::new("the log can be applied", format!("group {group}: {error}")))?;
        replayed.hashes.push(machine.digest().hash);
        let requests: Vec<&[u8]> = payload::requests(payload).filter_map(Result::ok).collect();
        for (at, results) in outcomes {
            let request = requests.get(at.position as usize).and_then(|bytes| wire::view_request(bytes).ok());
            let Some(request) = request else { continue };
            let operations: Vec<Operation> = request.operations().map(Operation::from).collect();
            if matches!(operations.first(), Some(Operation::OpenSession { .. })) {
                continue;
            }
            apply_plainly(&mut replayed.values, &operations, &results, at)?;
            replayed.note_writes(&operations, at.index);
            replayed.effects.insert((at.index, at.position), (operations, results));
        }
    }
    for (key, value) in &replayed.values {
        if machine.get(key) != Some(value) {
            let text = format!("group {group}: key {} differs from a plain map", String::from_utf8_lossy(key));
            return Err(Violation::new("the state machine applies the log", text));
        }
    }
    if machine.key_count() != replayed.values.len() {
        let text = format!("group {group}: {} keys, a plain map has {}", machine.key_count(), replayed.values.len());
        return Err(Violation::new("the state machine applies the log", text));
    }
    Ok(replayed)
}

impl Replayed {
    fn note_writes(&mut self, operations: &[Operation], index: Index) {
        for (key, value) in self.values.clone_of(operations) {
            let writes = self.writes.entry(key).or_default();
            if writes.last().and_then(|(_, last)| last.as_ref()) != value.as_ref() {
                writes.push((index, value));
            }
        }
    }

    /// The value of a key after the entry `index`.
    pub(crate) fn value_at(&self, key: &[u8], index: Index) -> Option<&Vec<u8>> {
        let writes = self.writes.get(key)?;
        writes.iter().rev().find(|(written, _)| *written <= index)?.1.as_ref()
    }
}

/// Applies a request to a plain map and compares what it gives.
fn apply_plainly(values: &mut Values, operations: &[Operation], results: &[OperationResult], at: Position) -> Checked {
    let mut after = values.clone_of(operations);
    let mut given = Vec::new();
    for operation in operations {
        given.push(match operation {
            Operation::Put { key, value } => {
                OperationResult::Put { replaced: after.insert(key.clone(), Some(value.clone())).flatten().is_some() }
            }
            Operation::Get { key } => OperationResult::Value(after.get(key).cloned().flatten()),
            Operation::Delete { key } => {
                OperationResult::Deleted { existed: after.insert(key.clone(), None).flatten().is_some() }
            }
            Operation::CompareAndSet { key, expected, value } => {
                let current = after.get(key).cloned().flatten();
                let swapped = current == *expected;
                if swapped {
                    after.insert(key.clone(), Some(value.clone()));
                }
                OperationResult::Compared { swapped, current: if swapped { None } else { current } }
            }
            // No load asks for the last two: a plain map has no versions.
            Operation::OpenSession { .. } | Operation::CompareVersion { .. } | Operation::Range { .. } => continue,
        });
    }
    let refused = |result: &OperationResult| matches!(result, OperationResult::Compared { swapped: false, .. });
    if operations.len() > 1
        && let Some(failed) = given.iter().position(refused)
    {
        // All or nothing: the failed comparison says what it found, the others that they did not happen.
        let same = results.len() == given.len()
            && results.get(failed) == given.get(failed)
            && results
                .iter()
                .enumerate()
                .all(|(place, result)| place == failed || *result == OperationResult::NotApplied);
        return if same { Ok(()) } else { Err(differs(at, operations, &given, results)) };
    }
    if given != results {
        return Err(differs(at, operations, &given, results));
    }
    for (key, value) in after {
        match value {
            Some(value) => values.insert(key, value),
            None => values.remove(&key),
        };
    }
    Ok(())
}

fn differs(
    at: Position,
    operations: &[Operation],
    expected: &[OperationResult],
    found: &[OperationResult],
) -> Violation {
    let text = format!("at {at:?} {operations:?} gave {found:?}, a plain map gives {expected:?}");
    Violation::new("the state machine applies the log", text)
}

/// The values of the keys that some operations touch.
trait CloneOf {
    fn clone_of(&self, operations: &[Operation]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>>;
}

impl CloneOf for Values {
    fn clone_of(&self, operations: &[Operation]) -> BTreeMap<Vec<u8>, Option<Vec<u8>>> {
        let keys = operations.iter().filter_map(|operation| match operation {
            Operation::Put { key, .. }
            | Operation::Get { key }
            | Operation::Delete { key }
            | Operation::CompareAndSet { key, .. }
            | Operation::CompareVersion { key, .. } => Some(key),
            Operation::OpenSession { .. } | Operation::Range { .. } => None,
        });
        keys.map(|key| (key.clone(), self.get(key).cloned())).collect()
    }
}

/// Compares what the clients were told with what the logs say.
pub(crate) fn compare(history: &History, logs: &BTreeMap<u32, Replayed>) -> Checked {
    let effects = effects_by_value(logs)?;
    for (number, call) in history.calls.iter().enumerate() {
        let Some(unique) = call.operations.iter().find_map(value_of) else { continue };
        let places = effects.get(unique);
        match call.ended.as_ref().map(|ended| &ended.outcome) {
            Some(CallOutcome::Done { position, results }) => {
                let found = logs
                    .get(&position.group)
                    .and_then(|log| log.effects.get(&(position.index, position.position)))
                    .filter(|(operations, _)| *operations == call.operations);
                let Some((_, given)) = found else {
                    let text =
                        format!("call {number} ({call:?}) was acknowledged and is not there; it is at {places:?}");
                    return Err(Violation::new("acknowledged is never lost", text));
                };
                if given != results {
                    let text = format!("call {number} ({call:?}): the log gives {given:?}");
                    return Err(Violation::new("answers are what the log says", text));
                }
            }
            Some(CallOutcome::Failed) => {
                if let Some(place) = places {
                    let text = format!("call {number} ({call:?}) was told to have failed and stands at {place:?}");
                    return Err(Violation::new("what failed has no effect", text));
                }
            }
            Some(CallOutcome::Unknown) | None => {}
        }
    }
    Ok(())
}

/// Gives every call whose outcome its client does not know the outcome that the log shows: then the order of the whole
/// history is known, and no search has to guess. A delete writes no value that could be found, its outcome stays unknown.
pub(crate) fn resolve(history: &mut History, logs: &BTreeMap<u32, Replayed>, now: u64) -> Checked {
    let effects = effects_by_value(logs)?;
    for call in &mut history.calls {
        let known = call.ended.as_ref().is_some_and(|ended| ended.outcome != CallOutcome::Unknown);
        let Some(value) = call.operations.iter().find_map(value_of).filter(|_| !known) else { continue };
        let outcome = match effects.get(value) {
            None => CallOutcome::Failed,
            Some((group, index, position)) => {
                let effect = logs.get(group).and_then(|log| log.effects.get(&(*index, *position)));
                let results = effect.map(|(_, results)| results.clone()).unwrap_or_default();
                CallOutcome::Done { position: Position { group: *group, index: *index, position: *position }, results }
            }
        };
        call.ended = Some(Ended { returned: now, outcome });
    }
    Ok(())
}

fn value_of(operation: &Operation) -> Option<&Vec<u8>> {
    match operation {
        Operation::Put { value, .. } | Operation::CompareAndSet { value, .. } => Some(value),
        _ => None,
    }
}

/// The cluster writes its own keys by compare-and-set, and may do so twice.
fn is_of_the_cluster(operation: &Operation) -> bool {
    operation.as_operation_ref().key().is_some_and(|key| key.starts_with(Topology::RESERVED))
}

/// Where written values were executed: group, index, position.
type Places<'a> = BTreeMap<&'a Vec<u8>, (u32, Index, u32)>;

/// Where each written value was executed; a value executed twice is a request applied twice.
fn effects_by_value(logs: &BTreeMap<u32, Replayed>) -> Result<Places<'_>, Violation> {
    let mut found = BTreeMap::new();
    for (group, log) in logs {
        for ((index, position), (operations, _)) in &log.effects {
            for value in operations.iter().filter(|operation| !is_of_the_cluster(operation)).filter_map(value_of) {
                if let Some(before) = found.insert(value, (*group, *index, *position)) {
                    let text =
                        format!("{operations:?} was executed at {before:?} and at {:?}", (group, index, position));
                    return Err(Violation::new("applied exactly once", text));
                }
            }
        }
    }
    Ok(found)
}
