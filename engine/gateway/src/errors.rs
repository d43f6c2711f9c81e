//! Errors of requests: one code for programs, one sentence for people, and whether trying again is safe.
//!
//! Off the data path.
//! Invariant: `retryable` is said only of what was surely not done, so that a client that tries again by it never does
//! something twice; what may have been done is [`Code::OutcomeUnknown`] and nothing else.
//! It does not choose how a code looks on the wire: `http` and `grpc` do.

use std::time::Duration;

use ringraft_net::client::ClientError;
use ringraft_net::wire::AdminRefusal;

/// What went wrong, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// The request is malformed, or out of a bound.
    BadRequest,
    /// No such route, node or group.
    NotFound,
    /// The key has no value.
    KeyNotFound,
    /// The route does not know the method.
    MethodNotAllowed,
    /// The body is longer than is allowed.
    TooLarge,
    /// The body did not come in time.
    RequestTimeout,
    /// The body's type is none that the route takes.
    UnsupportedMediaType,
    /// The version or value is not the expected one.
    PreconditionFailed,
    /// This node does not lead the key's group.
    NotLeader,
    /// A bound of the node is reached.
    Overloaded,
    /// Nobody could serve it in time: no leader, or no majority.
    Unavailable,
    /// It may have been done or may yet be.
    OutcomeUnknown,
    /// The cluster does not admit it.
    NotAllowed,
    /// An event asked for is no longer kept.
    Compacted,
    /// The node contradicted itself.
    Internal,
}

impl Code {
    /// Its name in answers.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::NotFound => "not_found",
            Self::KeyNotFound => "key_not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::TooLarge => "too_large",
            Self::RequestTimeout => "request_timeout",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::PreconditionFailed => "precondition_failed",
            Self::NotLeader => "not_leader",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::NotAllowed => "not_allowed",
            Self::Compacted => "compacted",
            Self::Internal => "internal",
        }
    }

    /// It was surely not done, and the same request may succeed later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::NotLeader | Self::Overloaded | Self::Unavailable | Self::RequestTimeout)
    }
}

/// Why a request was not answered with what it asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Failure {
    /// For programs.
    pub code: Code,
    /// For people.
    pub message: String,
    /// A good time to wait before asking again.
    pub retry_after: Option<Duration>,
    /// Who leads the group, if that is why.
    pub leader: Option<u64>,
}

impl Failure {
    /// A failure with its sentence.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let retry_after = matches!(code, Code::Overloaded | Code::Unavailable).then_some(Duration::from_secs(1));
        Self { code, message: message.into(), retry_after, leader: None }
    }

    /// A request that can never be done.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(Code::BadRequest, message)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let code = match &error {
            error if error.is_outcome_unknown() => Code::OutcomeUnknown,
            ClientError::Overloaded { .. } => Code::Overloaded,
            ClientError::BadRequest { .. } => Code::BadRequest,
            ClientError::Refused { .. } => Code::Internal,
            _ => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// What became of something an operator asked for and that was refused.
impl From<(AdminRefusal, String)> for Failure {
    fn from((refusal, message): (AdminRefusal, String)) -> Self {
        let code = match refusal {
            AdminRefusal::UnknownGroup | AdminRefusal::UnknownNode => Code::NotFound,
            AdminRefusal::NotAVoter | AdminRefusal::NotAllowed => Code::NotAllowed,
            AdminRefusal::Failed => Code::Internal,
            refusal if refusal.is_retryable() => Code::Unavailable,
            _ => Code::Internal,
        };
        Self::new(code, message)
    }
}
