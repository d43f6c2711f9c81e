//! What is wrong with a history, and with which calls, in lines a person can read.
//!
//! Off the data path.
//! It decides nothing.

use std::fmt;

use ringraft_net::wire::{Consistency, Operation, OperationResult};

use crate::history::{Call, CallOutcome, Ended};

/// The promise that was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A call is not one: results that do not belong to its operations, or a return before the invocation.
    Malformed,
    /// Two writes name the same place in the log.
    SamePlace,
    /// One session was given to two calls.
    SessionTwice,
    /// A key was answered by two groups.
    TwoGroups,
    /// The order of the positions contradicts the order in time.
    PositionsAgainstTime,
    /// No order of the calls that respects their order in time explains their results.
    NotLinearizable,
    /// The results can be explained, but not in the order of the positions.
    PositionsAgainstResults,
    /// A stale read returned what was never current at the index it names, or anywhere.
    StaleRead,
}

/// A broken promise and the calls that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub rule: Rule,
    /// What was seen.
    pub reason: String,
    /// The calls involved: their places in [`crate::history::History::calls`].
    pub calls: Vec<usize>,
    lines: Vec<String>,
}

/// Calls shown at most.
const CALLS_SHOWN_MAX: usize = 12;

/// Bytes of a key or value shown at most.
const BYTES_SHOWN_MAX: usize = 48;

impl Violation {
    pub(super) fn of<'a>(
        rule: Rule,
        reason: impl Into<String>,
        calls: impl IntoIterator<Item = (usize, &'a Call)>,
    ) -> Self {
        let mut violation = Self { rule, reason: reason.into(), calls: Vec::new(), lines: Vec::new() };
        violation.add(calls);
        violation
    }

    /// Adds calls that help to understand it; one that is there already is not added again.
    pub(super) fn add<'a>(&mut self, calls: impl IntoIterator<Item = (usize, &'a Call)>) {
        for (number, call) in calls {
            if self.calls.len() < CALLS_SHOWN_MAX && !self.calls.contains(&number) {
                self.calls.push(number);
                self.lines.push(describe(number, call));
            }
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self.rule {
            Rule::Malformed => "malformed call",
            Rule::SamePlace => "two writes at one place of the log",
            Rule::SessionTwice => "a session given twice",
            Rule::TwoGroups => "a key in two groups",
            Rule::PositionsAgainstTime => "positions contradict time",
            Rule::NotLinearizable => "not linearizable",
            Rule::PositionsAgainstResults => "positions contradict results",
            Rule::StaleRead => "a stale read of what never was",
        };
        write!(formatter, "{rule}: {}", self.reason)?;
        for line in &self.lines {
            write!(formatter, "\n  {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Violation {}

/// One line about a call.
fn describe(number: usize, call: &Call) -> String {
    let operations: Vec<String> = call.operations.iter().map(operation_text).collect();
    let stale = if call.consistency == Consistency::Stale { "stale " } else { "" };
    let asked = format!("{stale}{}", operations.join(", "));
    let (client, invoked) = (call.client, call.invoked);
    match &call.ended {
        None => format!("call {number} of client {client}, from {invoked}, never answered: {asked}"),
        Some(Ended { returned, outcome: CallOutcome::Failed }) => {
            format!("call {number} of client {client}, from {invoked} to {returned}: {asked} -> failed")
        }
        Some(Ended { returned, outcome: CallOutcome::Unknown }) => {
            format!("call {number} of client {client}, from {invoked} to {returned}: {asked} -> outcome unknown")
        }
        Some(Ended { returned, outcome: CallOutcome::Done { position, results } }) => {
            let results: Vec<String> = results.iter().map(result_text).collect();
            let place = match position.position {
                u32::MAX => format!("after {}:{}", position.group, position.index),
                place => format!("at {}:{}:{place}", position.group, position.index),
            };
            let results = results.join(", ");
            format!("call {number} of client {client}, from {invoked} to {returned}, {place}: {asked} -> {results}")
        }
    }
}

fn operation_text(operation: &Operation) -> String {
    match operation {
        Operation::Put { key, value } => format!("put {} {}", bytes_text(key), bytes_text(value)),
        Operation::Get { key } => format!("get {}", bytes_text(key)),
        Operation::Delete { key } => format!("delete {}", bytes_text(key)),
        Operation::CompareAndSet { key, expected, value } => {
            format!("cas {} {} {}", bytes_text(key), optional_text(expected.as_deref()), bytes_text(value))
        }
        Operation::OpenSession { group } => format!("open session in group {group}"),
        Operation::CompareVersion { key, version, value } => {
            format!("compare version {} {version} {}", bytes_text(key), optional_text(value.as_deref()))
        }
        Operation::Range { group, start, end, limit, .. } => {
            format!("range of group {group} {} {} {limit}", bytes_text(start), bytes_text(end))
        }
    }
}

/// A result as text.
pub(super) fn result_text(result: &OperationResult) -> String {
    match result {
        OperationResult::Put { replaced: true } => String::from("replaced"),
        OperationResult::Put { replaced: false } => String::from("new"),
        OperationResult::Value(value) => optional_text(value.as_deref()),
        OperationResult::Deleted { existed: true } => String::from("deleted"),
        OperationResult::Deleted { existed: false } => String::from("was absent"),
        OperationResult::Compared { swapped: true, .. } => String::from("swapped"),
        OperationResult::Compared { swapped: false, current } => {
            format!("not swapped, found {}", optional_text(current.as_deref()))
        }
        OperationResult::Session { client } => format!("session {client}"),
        OperationResult::NotApplied => String::from("not applied"),
        OperationResult::ComparedVersion { swapped, version } => format!("swapped {swapped}, version {version}"),
        OperationResult::Items { items, more } => format!("{} bytes of keys, more: {more}", items.len()),
    }
}

fn optional_text(bytes: Option<&[u8]>) -> String {
    bytes.map_or_else(|| String::from("(absent)"), bytes_text)
}

/// Bytes in quotes, long ones cut.
pub(super) fn bytes_text(bytes: &[u8]) -> String {
    match bytes.get(..BYTES_SHOWN_MAX) {
        Some(start) if bytes.len() > BYTES_SHOWN_MAX => {
            format!("\"{}...\" ({} bytes)", start.escape_ascii(), bytes.len())
        }
        _ => format!("\"{}\"", bytes.escape_ascii()),
    }
}
