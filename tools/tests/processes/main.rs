//! Tests with real processes: what a cluster promises while nodes are killed, stopped, damaged or lied to.
//!
//! Off the data path.
//! Invariant: clusters run one at a time (`harness::exclusive`), so that a test's time limits are its own.

mod bad_peers;
mod catch_up;
mod client;
mod closed_pipe;
mod command_line;
mod data_folder;
mod failover;
mod grpc;
mod harness;
mod http;
mod load;
mod operator;
mod scripts;
mod stale_leader;
mod storage_faults;
mod suite;
mod tracing;
mod transfer;
mod watch_and_list;
