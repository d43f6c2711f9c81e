//! Client: from operations to answers, whatever happens to nodes and connections in between.
//!
//! Off the data path of a node; the first and last step of a client's.
//!
//! ```text
//!   caller ── submit ──▶ Core ── poll_action, next_writable, outgoing ──▶ driver: sockets and clock
//!          ◀─ next_completion ─┘ ◀── connected, receive, disconnected, tick ──┘
//! ```
//!
//! [`Core`] decides and does no I/O; a driver (the load generator's event loop, or `tokio`) owns sockets and clock.
//!
//! | what happens | read | write in a session | write without |
//! |---|---|---|---|
//! | `NotLeader`, `Moved`, `Unavailable`, `Overloaded` | again | again | again |
//! | connection breaks before the request was sent | again | again | again |
//! | connection breaks after it was sent | again | again, same sequence | `OutcomeUnknown` |
//! | `OutcomeUnknown` from the server | again | again, same sequence | `OutcomeUnknown` |
//! | `SessionExpired` | - | again in a new session if surely not applied, else `SessionExpired` | - |
//! | deadline | `DeadlineExceeded` | `DeadlineExceeded { outcome_unknown }` | `DeadlineExceeded { outcome_unknown }` |
//!
//! Invariants: every accepted submission completes exactly once, at its deadline at the latest (as far as `tick` is called
//! when asked for); a write in a session takes effect at most once, however often it is sent; memory is bounded by
//! `in_flight_max` requests and `pending_bytes_max`; nodes that join are found and nodes that left are forgotten (`welcome`).
//!
//! It does not resolve names, and does not keep the order of requests that are outstanding together.

mod address;
mod completion;
mod connection;
mod core;
mod dispatch;
mod incoming;
mod pages;
mod routing;
mod session;
mod slab;
mod timers;
pub mod tokio;
pub mod watch;
mod welcome;

pub use self::address::Address;
pub use self::completion::{Completion, Results};
pub use self::core::{Action, ConnectionId, Core, CoreStatistics, Submission};
pub use self::pages::{KeyValue, PAGE_BYTES_MAX, PAGE_KEYS, RangePage, RangeQuery, key_behind, prefix_end};

use crate::{
    limits::Limits,
    wire::{RefusalCode, RequestError},
};
use std::{net::SocketAddr, time::Duration};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Some addresses to begin with; the others are learnt from the first that answers.
    pub endpoints: Vec<SocketAddr>,
    /// The cluster it must be; `None`: whichever answers.
    pub cluster: Option<[u8; 16]>,
    /// Connections to each shard that is asked.
    pub connections: usize,
    /// Requests submitted and not completed at most, up to [`IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
    /// Bytes of their frames at most.
    pub pending_bytes_max: usize,
    /// Exactly-once writes. Without, a write whose connection breaks ends as `OutcomeUnknown`.
    pub sessions: bool,
    /// Writes of a session from the lowest unanswered on; must not exceed the servers' bound.
    pub session_window_max: usize,
    /// How long a request may take in all, unless it says otherwise.
    pub request_timeout: Duration,
    /// How long a connection may take to be made and welcomed.
    pub connect_timeout: Duration,
    /// How long a connection may owe an answer without sending anything before it is given up.
    pub stall_timeout: Duration,
    /// First pause after something did not work.
    pub backoff_min: Duration,
    /// Longest pause.
    pub backoff_max: Duration,
    /// The node to ask for reads that any replica may answer, while it can be reached; `None`: all of them in turn.
    pub near: Option<u64>,
    /// Of the jitter.
    pub seed: u64,
    /// Bounds of requests and frames.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            endpoints: Vec::new(),
            cluster: None,
            connections: 1,
            in_flight_max: 4_096,
            pending_bytes_max: 64 << 20,
            sessions: true,
            session_window_max: 4_096,
            request_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(1),
            stall_timeout: Duration::from_millis(1_500),
            backoff_min: Duration::from_millis(2),
            backoff_max: Duration::from_millis(100),
            near: None,
            seed: 1,
            limits: Limits::CLIENT,
        }
    }
}

/// Most requests a client can have in flight.
pub const IN_FLIGHT_MAX: usize = 1 << 15;

/// Options that contradict themselves.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    /// Nobody to ask.
    #[error("no endpoint was given")]
    NoEndpoint,
    /// A value out of bounds.
    #[error("{name} must be {allowed}, not {value}")]
    OutOfBounds {
        /// Name of the option.
        name: &'static str,
        /// What is allowed.
        allowed: &'static str,
        /// What it is.
        value: String,
    },
}

impl Options {
    fn validate(&self) -> Result<(), OptionsError> {
        if self.endpoints.is_empty() {
            return Err(OptionsError::NoEndpoint);
        }
        let counts = [
            ("connections", self.connections, "1 to 1024", 1..=1024),
            ("in_flight_max", self.in_flight_max, "1 to 32768", 1..=IN_FLIGHT_MAX),
            ("session_window_max", self.session_window_max, "1 to 32768", 1..=IN_FLIGHT_MAX),
            ("pending_bytes_max", self.pending_bytes_max, "at least 4096", 4096..=usize::MAX),
        ];
        for (name, value, allowed, range) in counts {
            if !range.contains(&value) {
                return Err(OptionsError::OutOfBounds { name, allowed, value: value.to_string() });
            }
        }
        let times = [
            ("request_timeout", self.request_timeout),
            ("connect_timeout", self.connect_timeout),
            ("stall_timeout", self.stall_timeout),
            ("backoff_min", self.backoff_min),
        ];
        for (name, value) in times {
            if value < Duration::from_micros(1) || value > Duration::from_secs(86_400) {
                let allowed = "1 us to a day";
                return Err(OptionsError::OutOfBounds { name, allowed, value: format!("{value:?}") });
            }
        }
        if self.backoff_max < self.backoff_min || self.backoff_max > Duration::from_secs(86_400) {
            let (allowed, value) = ("from backoff_min to a day", format!("{:?}", self.backoff_max));
            return Err(OptionsError::OutOfBounds { name: "backoff_max", allowed, value });
        }
        Ok(())
    }
}

/// Why a request has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Its time is over.
    #[error("no answer before the deadline{}", if *.outcome_unknown { "; it may have been or may yet be applied" } else { "; it was not applied" })]
    DeadlineExceeded {
        /// It may have been applied, or may yet be.
        outcome_unknown: bool,
    },
    /// Not sent: this client has too much in flight.
    #[error("too much in flight in this client ({what})")]
    Overloaded {
        /// Which bound.
        what: &'static str,
    },
    /// Never valid.
    #[error("bad request: {message}")]
    BadRequest {
        /// What is wrong with it.
        message: String,
    },
    /// Sent, and its session ended before an answer came: it may have been applied.
    #[error("the session expired; the request may have been applied")]
    SessionExpired,
    /// Sent, and the connection broke or the server does not know: it may have been or may yet be applied.
    #[error("the outcome is unknown: it may have been or may yet be applied")]
    OutcomeUnknown,
    /// The cluster does not want this client, or is not the one it means.
    #[error("refused by the cluster ({code:?}): {message}")]
    Refused {
        /// Why, for programs.
        code: RefusalCode,
        /// Why, for people.
        message: String,
    },
    /// The client was closed.
    #[error("the client is closed{}", if *.outcome_unknown { "; the request may have been applied" } else { "" })]
    Closed {
        /// It may have been applied, or may yet be.
        outcome_unknown: bool,
    },
}

impl ClientError {
    /// It was surely not applied, and the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::DeadlineExceeded { outcome_unknown: false } | Self::Overloaded { .. })
    }

    /// It may have been applied, or may yet be.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        matches!(
            self,
            Self::DeadlineExceeded { outcome_unknown: true }
                | Self::SessionExpired
                | Self::OutcomeUnknown
                | Self::Closed { outcome_unknown: true }
        )
    }

    /// No request of this client will succeed.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::Closed { .. })
    }
}

impl From<RequestError> for ClientError {
    fn from(error: RequestError) -> Self {
        Self::BadRequest { message: error.to_string() }
    }
}
