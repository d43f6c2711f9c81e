//! ringraft-engine: groups, shards, the state machine and the host of a node.
//!
//! `ARCHITECTURE.md` beside this crate walks the path of a write through it.

pub mod config;
pub(crate) mod convert;
pub mod exit;
pub(crate) mod group;
pub mod host;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod payload;
pub mod shard;
pub mod slots;
pub mod snapshot;
pub mod state_machine;
pub mod topology;
