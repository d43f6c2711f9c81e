//! The history of a run: checked for linearizability, and written as JSON lines for people.
//!
//! Off the data path.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use ringraft_sim::history::{Call, CallOutcome, Ended, History};
use serde_json::{Value, json};

/// What a history consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Those that were done.
    pub done: u64,
    /// Those that certainly had no effect.
    pub failed: u64,
    /// Those whose outcome nobody knows.
    pub unknown: u64,
}

impl Counts {
    /// Counts.
    #[must_use]
    pub fn of(history: &History) -> Self {
        let mut counts = Self::default();
        for call in &history.calls {
            counts.calls += 1;
            match call.ended.as_ref().map(|ended| &ended.outcome) {
                Some(CallOutcome::Done { .. }) => counts.done += 1,
                Some(CallOutcome::Failed) => counts.failed += 1,
                Some(CallOutcome::Unknown) | None => counts.unknown += 1,
            }
        }
        counts
    }
}

/// Whether every acknowledged write of a key that is written once was read back at the end.
///
/// # Errors
/// The first write that was lost.
pub fn check(history: &History) -> Result<()> {
    let mut last_read = BTreeMap::new();
    for call in &history.calls {
        let Some(Ended { returned, outcome: CallOutcome::Done { results, .. } }) = &call.ended else { continue };
        if let ([Operation::Get { key }], [OperationResult::Value(value)]) = (&call.operations[..], &results[..]) {
            let latest = last_read.entry(key).or_insert((*returned, value));
            *latest = (*latest).max((*returned, value));
        }
    }
    for call in &history.calls {
        let Some(Ended { outcome: CallOutcome::Done { .. }, .. }) = &call.ended else { continue };
        if let [Operation::Put { key, value }] = &call.operations[..]
            && key.starts_with(b"fresh-")
        {
            let read = last_read.get(key).and_then(|(_, read)| read.as_ref());
            ensure!(read == Some(value), "an acknowledged write is lost: {}, read back {read:?}", call_json(call));
        }
    }
    Ok(())
}

/// Whether the call asked for a change.
#[must_use]
pub fn is_write(operations: &[Operation]) -> bool {
    operations.iter().any(|operation| !matches!(operation, Operation::Get { .. }))
}

/// The longest time within `from..to` (of the history's clock) in which no write was acknowledged.
#[must_use]
pub fn longest_gap(history: &History, from: u64, to: u64) -> u64 {
    let acknowledged = history.calls.iter().filter(|call| is_write(&call.operations)).filter_map(|call| {
        let ended = call.ended.as_ref()?;
        matches!(ended.outcome, CallOutcome::Done { .. }).then_some(ended.returned)
    });
    let mut times: Vec<u64> = acknowledged.filter(|time| (from..=to).contains(time)).chain([from, to]).collect();
    times.sort_unstable();
    times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

/// Writes every call as one line of JSON.
///
/// # Errors
/// When the file cannot be written.
pub fn save(history: &History, path: &Path) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut out = BufWriter::new(file);
    let written = history.calls.iter().try_for_each(|call| writeln!(out, "{}", call_json(call)));
    written.and_then(|()| out.flush()).with_context(|| format!("cannot write {}", path.display()))
}

fn call_json(call: &Call) -> Value {
    let operations: Vec<Value> = call.operations.iter().map(operation_json).collect();
    let mut object = json!({ "client": call.client, "invoked": call.invoked, "operations": operations });
    if call.consistency == Consistency::Stale {
        object["stale"] = json!(true);
    }
    let Some(ended) = &call.ended else { return object };
    object["returned"] = json!(ended.returned);
    match &ended.outcome {
        CallOutcome::Done { position, results } => {
            object["position"] = json!([position.group, position.index, position.position]);
            object["results"] = results.iter().map(result_json).collect();
        }
        CallOutcome::Failed => object["failed"] = json!(true),
        CallOutcome::Unknown => object["unknown"] = json!(true),
    }
    object
}

fn text(bytes: &[u8]) -> Value {
    json!(String::from_utf8_lossy(bytes))
}

fn operation_json(operation: &Operation) -> Value {
    match operation {
        Operation::Put { key, value } => json!({ "put": text(key), "value": text(value) }),
        Operation::Get { key } => json!({ "get": text(key) }),
        Operation::Delete { key } => json!({ "delete": text(key) }),
        Operation::CompareAndSet { key, expected, value } => {
            json!({ "cas": text(key), "expected": expected.as_deref().map(text), "value": text(value) })
        }
        Operation::OpenSession { group } => json!({ "open_session": group }),
    }
}

fn result_json(result: &OperationResult) -> Value {
    match result {
        OperationResult::Put { replaced } => json!({ "replaced": replaced }),
        OperationResult::Value(value) => json!({ "value": value.as_deref().map(text) }),
        OperationResult::Deleted { existed } => json!({ "existed": existed }),
        OperationResult::Compared { swapped, current } => {
            json!({ "swapped": swapped, "current": current.as_deref().map(text) })
        }
        OperationResult::Session { client } => json!({ "session": client }),
        OperationResult::NotApplied => json!("not applied"),
    }
}

#[cfg(test)]
mod tests {
    use ringraft_net::wire::Position;

    use super::*;

    fn put(invoked: u64, returned: u64, outcome: CallOutcome) -> Call {
        Call {
            client: 0,
            invoked,
            operations: vec![Operation::Put { key: b"k".to_vec(), value: b"v".to_vec() }],
            consistency: Consistency::Linearizable,
            ended: Some(Ended { returned, outcome }),
        }
    }

    fn done() -> CallOutcome {
        CallOutcome::Done { position: Position::default(), results: vec![OperationResult::Put { replaced: false }] }
    }

    #[test]
    fn the_longest_gap_is_between_acknowledged_writes() {
        let calls = vec![put(0, 10, done()), put(10, 60, CallOutcome::Unknown), put(60, 70, done())];
        let history = History { calls };
        assert_eq!(longest_gap(&history, 0, 100), 60);
        assert_eq!(longest_gap(&history, 65, 100), 30);
        assert_eq!(Counts::of(&history), Counts { calls: 3, done: 2, failed: 0, unknown: 1 });
    }

    #[test]
    fn a_call_is_one_line() {
        let line = call_json(&put(1, 2, done())).to_string();
        assert!(!line.contains('\n') && line.contains("\"put\":\"k\"") && line.contains("\"returned\":2"), "{line}");
    }
}
