//! The one trait every measured system is behind, so that one loop measures them all.
//!
//! Off the data path.
//!
//! Invariants: `submit` only queues bytes, `poll` sends and receives them, so that operations of one turn share system
//! calls; every accepted operation yields exactly one completion (a broken connection completes its operations as
//! failed), except those outstanding when the target is dropped; what a target queues is bounded, beyond it `submit`
//! says [`Busy`].

pub mod etcd;
pub mod grpc;
pub mod http1;
pub mod pipelined;
pub mod redis;
pub mod resp;
pub mod ringraft;
pub mod ringraft_grpc;
pub mod ringraft_http;
pub mod socket;

use std::collections::BTreeMap;
use std::time::Duration;

use thiserror::Error;

use crate::recorder::ErrorKind;
use crate::workload::Operation;

/// The target takes no more now: poll, then try again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// What a successful operation saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A put was acknowledged.
    Written,
    /// A key that existed was deleted; one that did not is `Missing`.
    Deleted,
    /// A get or a delete found nothing.
    Missing,
    /// A get found a value of this length and mark (`workload::mark_of`).
    Value {
        /// Bytes of the value.
        length: usize,
        /// Its first eight bytes.
        mark: u64,
    },
}

/// The end of one operation.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    /// The tag given to `submit`.
    pub tag: u64,
    /// When its answer had arrived, nanoseconds of the run's clock.
    pub at_ns: u64,
    /// What it saw, or why it failed.
    pub result: Result<Seen, ErrorKind>,
}

/// Why a target cannot go on at all. Failures of single operations are completions.
#[derive(Debug, Error)]
pub enum TargetError {
    /// An address that cannot be used.
    #[error("{address}: {reason}")]
    Address {
        /// As given.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// No connection could be made at the start.
    #[error("cannot connect to {address}: {reason}")]
    Connect {
        /// Where to.
        address: String,
        /// What the system said.
        reason: String,
    },
    /// The peer does not speak the protocol or does not want us.
    #[error("{address}: {reason}")]
    Handshake {
        /// Who.
        address: String,
        /// What was wrong.
        reason: String,
    },
    /// The event loop failed.
    #[error("the event loop failed: {0}")]
    Loop(#[from] std::io::Error),
}

/// What a target knows about the system behind it, for the report.
#[derive(Clone, Debug, Default)]
pub struct TargetFacts {
    /// Nodes of the system.
    pub nodes: usize,
    /// Replication groups, where there are such.
    pub groups: Option<u32>,
    /// Connections the load went over.
    pub connections: usize,
    /// Settings that decide what the figures mean (version, durability).
    pub settings: BTreeMap<String, String>,
    /// Reasons to read the figures with care.
    pub warnings: Vec<String>,
}

/// A system under load.
pub trait Target {
    /// Queues an operation. Its completion carries `tag`; connections are chosen by tag.
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, now_ns: u64) -> Result<(), Busy>;

    /// Sends what is queued, then waits until something arrives or `timeout` has passed, and appends completions.
    fn poll(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> Result<(), TargetError>;

    /// What is known about the system, settled once connected.
    fn facts(&self) -> TargetFacts;
}
