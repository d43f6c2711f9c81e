//! What the binary `ringraft` and the tests with real processes share: clusters of local node processes.
//!
//! Off the data path.

pub mod local_cluster;
pub mod ports;
pub mod probe;
pub mod status;
