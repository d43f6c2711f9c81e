//! The simulator: production shards, WAL writer and WAL recovery over a virtual disk, network and clock.
//!
//! Off the data path.

pub mod history;
pub mod linearizability;
