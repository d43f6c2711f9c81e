//! What the binary `ringraft` and the tests with real processes share: clusters of local node processes, and chaos on them.
//!
//! Off the data path.

#![warn(clippy::print_stdout, clippy::print_stderr)]

// First: its macros stand in for those of std.
#[macro_use]
pub mod output;

pub mod admin;
pub mod chaos;
pub mod folder;
pub mod local_cluster;
mod local_members;
pub mod namespace;
pub mod ports;
pub mod probe;
pub mod status;
