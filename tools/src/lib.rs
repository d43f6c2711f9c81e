//! What the binary `ringraft` and the tests with real processes share: clusters of local node processes, and chaos on them.
//!
//! Off the data path.

pub mod admin;
pub mod chaos;
pub mod folder;
pub mod local_cluster;
mod local_members;
pub mod namespace;
pub mod ports;
pub mod probe;
pub mod status;
