//! What clients asked and what they were told: the input of every check of client-visible behaviour.
//!
//! Off the data path.
//! Written by the simulator's clients and by the chaos runner's, read by `linearizability` and the exactly-once checker.
//!
//! Relations: `invoked <= returned`; one `Call` per request as the caller meant it, however often it was retried; calls of
//! one client may overlap.

use ringraft_net::wire::{Consistency, Operation, OperationResult, Position};

/// All calls of a run.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// In any order.
    pub calls: Vec<Call>,
}

/// One request of a client, from invocation to answer.
#[derive(Clone, Debug)]
pub struct Call {
    /// Which client, from 0.
    pub client: u32,
    /// When it was handed to the client library, on the one clock of the run (microseconds, or finer: only the order counts).
    pub invoked: u64,
    /// The operations, all or nothing, all of one group.
    pub operations: Vec<Operation>,
    /// What a read asked for.
    pub consistency: Consistency,
    /// How it ended; `None`: the run was over first, so the outcome is unknown.
    pub ended: Option<Ended>,
}

/// The end of a call.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When.
    pub returned: u64,
    /// How.
    pub outcome: CallOutcome,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// It took effect exactly once, between invocation and return.
    Done {
        /// The place in the group's log that the answer named.
        position: Position,
        /// One for each operation.
        results: Vec<OperationResult>,
    },
    /// It certainly had no effect.
    Failed,
    /// It may have taken effect, once, at any time after its invocation, also after the return.
    Unknown,
}
