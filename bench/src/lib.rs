//! The load generator of ringraft: open and closed loop, HDR latencies, the same load for rivals.
//!
//! Off the data path: it stands outside of the servers and looks at them as any client does.
//!
//! One generator thread runs one event loop ([`driver`]) over one [`targets::Target`] at a time.
//! The loop decides when an operation is due and what its latency is; a target only turns operations into bytes and
//! bytes into completions, so that every system is measured by the same code.
//!
//! Invariants:
//! - open loop: latency runs from the *intended* start, which is arithmetic and never moves ([`schedule`]);
//! - nothing is unbounded: slots, socket buffers, histograms have fixed limits, and what does not fit waits in the
//!   schedule, which takes no memory;
//! - histograms and server figures cover the same window: from the end of the warm-up to the end of the run.
//!
//! What it does not do: start or stop servers (the binary's `bench` subcommand does), or compare runs of different
//! moments: ratios are only meaningful within one report. `METHODOLOGY.md` says what the figures mean.

pub mod arguments;
pub mod clock;
pub mod driver;
pub mod duration;
pub mod hgrm;
pub mod host;
pub mod plot;
pub mod progress;
pub mod recorder;
pub mod report;
pub mod run;
pub mod samples;
pub mod schedule;
pub mod system;
pub mod table;
pub mod targets;
pub mod workload;

pub use arguments::{BenchArgs, Protocol, TargetName};
pub use report::{Floor, Report};
pub use run::{BenchError, Ended, Sampled, prepare_output, run, run_sampled, run_until};
pub use system::ServerProcess;
