//! The gateway: HTTP/JSON and gRPC beside the shards of a node, on one thread of its own.
//!
//! Off the data path: it is an ordinary client of the cluster, through `ringraft_net::client`.
//!
//! ```text
//!   http client ──┐                                            ┌─▶ shard of the leader
//!   grpc client ──┼─▶ one tokio thread: axum routes ── Client ─┤
//!   prometheus  ──┘        (http/, grpc/)          own node ◀──┴─▶ status of the own node: `view.rs`
//!                              └── telemetry/: spans ──▶ collector
//! ```
//!
//! Invariants: nothing here runs on a shard's thread or wakes it other than by its socket; connections, requests at once,
//! bodies and waits are bounded by [`Settings`]; a write is answered when it is committed, or with a code that says whether
//! it may have been; it stops by [`Running::stop`], after the requests that are under way.
//!
//! It keeps no state of the cluster but a view of it that is at most a moment old.

mod errors;
#[cfg(test)]
mod fake;
pub mod grpc;
pub mod http;
mod listen;
mod operator;
mod running;
mod settings;
mod state;
mod telemetry;
mod time;
mod view;

pub use errors::{Code, Failure};
pub use operator::{AdminAnswer, Operator};
pub use running::{Addresses, Running, StartError, start};
pub use settings::{Settings, Sources};
pub use state::{Place, State};
pub use telemetry::{Change, Telemetry};
pub use view::{ElsewhereView, FollowerView, NodeView, ReplicaView, View};
