//! The simulator: production shards, WAL writer and WAL recovery over a virtual disk, network and clock.
//!
//! Off the data path.
//!
//! A run is a function of one number, its seed: cluster, load, timing and faults are drawn from it, and two runs of a seed
//! do the same to the last event (`trace_hash`). What runs is the production code from the frame to the flush: `Shard` with
//! its groups, cores, log writer, state machine and queues, the recovery, the handshakes, the client core with its retries
//! and sessions. What is simulated is what these are driven by:
//!
//! | simulated | how it fails |
//! |---|---|
//! | process | killed or without power at any event, inside a write or the making of a segment; paused; stopped |
//! | disk | slow, stalled for a while or for ever, failing, full; unfinished blocks survive a crash in part; damage, wipe |
//! | network | streams that break and lose a suffix, late, blocked one or both ways, flipped bits; loose frames |
//! | clock | ticks up to 10% too long or too short; none while paused |
//! | clients | reads, writes, compare-and-set, several at once, retries, overload, restarts |
//! | operator | adds, removes and replaces nodes, running or burnt down, in a third of the seeds; asks for other leaders |
//!
//! What is not simulated: the kernel's scheduling within one executor (a turn is one event), glommio and io_uring
//! themselves (`engine/tests`, `tools/tests` run those), memory that runs out, and damage of the very last batch of a log
//! that no later one calls durable (`wal/FORMAT.md`, row 27), which no single disk can notice.
//!
//! The checkers and the properties they hold the run to are listed in `checkers/mod.rs`.

mod checkers;
mod client;
mod disk;
mod events;
mod faults;
pub mod history;
mod host;
pub mod linearizability;
mod load;
pub mod matrix;
#[cfg(feature = "mutants")]
pub mod mutation;
mod nemesis;
mod network;
mod node;
mod operator;
mod plan;
mod process;
mod random;
mod run;
pub mod runner;
pub mod scenario;
mod settle;
mod sockets;
mod statistics;
mod trace;
mod world;

pub use checkers::Violation;
pub use plan::Fault;
pub use run::Outcome;
pub use statistics::Statistics;
pub use trace::TraceMode;

/// Runs one seed.
#[must_use]
pub fn run_seed(seed: u64, mode: TraceMode) -> Outcome {
    runner::caught(|| run::run(plan::Plan::draw(seed), &[], mode))
}
