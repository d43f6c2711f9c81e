//! The metrics of a node: recorded by its shards, published once a second, shown as Prometheus text.
//!
//! Off the data path but for `record.rs`.
//!
//! ```text
//!   shard: Recorder, Tally of each group   plain numbers, no atomics, no locks
//!     | once a second, after the tick
//!   NodeBoard: one ShardSample per shard   swapped whole
//!     | whenever somebody asks, in his thread
//!   NodeSample -> render -> text
//! ```
//! Invariants: recording decides nothing; reading touches no shard; the number of series is bounded by [`GROUPS_MAX`]
//! groups, the nodes and the shards there are.
//! Names and meanings stand in `list.rs`, and for people in `engine/METRICS.md`.

pub mod exposition;
pub mod histogram;
pub mod list;
pub mod record;
pub mod sample;

pub use self::exposition::{CONTENT_TYPE, render};
pub use self::list::{Kind, METRICS, Metric};
pub use self::sample::{GROUPS_MAX, NodeSample, ProcessSample, ShardSample};

#[cfg(test)]
mod tests;
