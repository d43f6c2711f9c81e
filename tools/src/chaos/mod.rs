//! Chaos: clusters of real processes whose machines, links and disks fail, under clients whose every call is checked.
//!
//! Off the data path.
//! A scenario is a list of steps on a [`stage::Stage`]: a running cluster, a load that records what it was told, and the
//! means to break things. When the steps are done everything is healed, and the same things must hold after each
//! scenario: the history is linearizable, the replicas are equal, no node ended in a way the scenario did not ask for.
//!
//! ```text
//!   runner ── rights ──▶ skipped: reason
//!     │
//!     └▶ stage ── cluster   processes of `ringraft node`
//!         │   ├── network   namespaces, bridge, dropped packets
//!         │   ├── disk      FUSE: errors, delays, stalls, lost writes;  image: a small ext4
//!         │   └── load      clients ──▶ history
//!         ├▶ scenario::*    the steps
//!         └▶ verdict        heal, converge, read back, check
//! ```
//!
//! What it does not do: break the simulator's way (bits, blocks, clocks). `ringraft-sim` does.

pub mod console;
pub mod disk;
pub mod history;
pub mod image;
pub mod journal;
pub mod load;
pub mod network;
mod program;
pub mod rights;
pub mod runner;
pub mod scenario;
pub mod stage;
pub mod verdict;
