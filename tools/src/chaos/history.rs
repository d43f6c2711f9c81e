//! The history of a run: checked for linearizability, and written as JSON lines for people.
//!
//! Off the data path.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use ringraft_sim::history::{Call, CallOutcome, History};
use ringraft_sim::linearizability;
use serde_json::{Value, json};

const SHOWN_BYTES: usize = 32;

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

/// What the check of a history decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    /// Keys (or keys that requests join) that it could neither prove nor refute within its bound on work.
    pub undecided: u64,
    /// The same for the second check, which does not believe the positions in the answers.
    pub undecided_without_positions: u64,
}

/// Whether the history can be explained by one order of its calls, once as their positions say and once in any way.
///
/// # Errors
/// The calls that cannot.
pub fn check(history: &History) -> Result<Checked> {
    let with = linearizability::check(history)?;
    let without = linearizability::check_without_positions(history)?;
    Ok(Checked { undecided: with.undecided as u64, undecided_without_positions: without.undecided as u64 })
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

/// Values are unique by their beginning; the rest of a long one is dots.
fn text(bytes: &[u8]) -> Value {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_BYTES)]);
    if bytes.len() > SHOWN_BYTES { json!(format!("{shown} ({} bytes)", bytes.len())) } else { json!(shown) }
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
        Operation::CompareVersion { key, version, value } => {
            json!({ "compare_version": text(key), "version": version, "value": value.as_deref().map(text) })
        }
        Operation::Range { group, start, end, limit, .. } => {
            json!({ "range": group, "start": text(start), "end": text(end), "limit": limit })
        }
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
        OperationResult::ComparedVersion { swapped, version } => json!({ "swapped": swapped, "version": version }),
        OperationResult::Items { items, more } => json!({ "items_bytes": items.len(), "more": more }),
    }
}

#[cfg(test)]
mod tests {
    use ringraft_net::wire::Position;
    use ringraft_sim::history::Ended;

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
    fn a_lost_write_is_found() {
        let position = Position { group: 0, index: 9, position: 0 };
        let read = CallOutcome::Done { position, results: vec![OperationResult::Value(None)] };
        let mut get = put(20, 30, read);
        get.operations = vec![Operation::Get { key: b"k".to_vec() }];
        let history = History { calls: vec![put(0, 10, done()), get] };
        assert!(check(&history).is_err());
        assert!(check(&History { calls: history.calls[..1].to_vec() }).is_ok());
    }

    #[test]
    fn a_call_is_one_line() {
        let line = call_json(&put(1, 2, done())).to_string();
        assert!(!line.contains('\n') && line.contains("\"put\":\"k\"") && line.contains("\"returned\":2"), "{line}");
    }
}
