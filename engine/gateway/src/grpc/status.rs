//! Errors as gRPC statuses: the code, and details for programs, as `proto/kv/v1/kv.proto` promises them.
//!
//! Off the data path.
//! Invariant: every status says whether trying again is safe and whether what was asked may have been done; the two are
//! never true together.

use std::collections::HashMap;
use std::time::Duration;

use ringraft_net::client::ClientError;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code as GrpcCode, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::errors::{Code, Failure};
use crate::view::View;

const DOMAIN: &str = "ringraft";
const DEADLINE_EXCEEDED: &str = "DEADLINE_EXCEEDED";

/// What is to be said of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: GrpcCode,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) retryable: bool,
    pub(super) outcome_unknown: bool,
    pub(super) retry_after: Option<Duration>,
    pub(super) leader: Option<u64>,
    pub(super) leader_address: Option<String>,
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self {
            code: grpc_code(failure.code),
            reason: failure.code.name().to_ascii_uppercase(),
            message: failure.message,
            retryable: failure.code.is_retryable(),
            outcome_unknown: failure.code == Code::OutcomeUnknown,
            retry_after: failure.retry_after,
            leader: failure.leader,
            leader_address: None,
        }
    }
}

impl From<ClientError> for Problem {
    fn from(error: ClientError) -> Self {
        let deadline = matches!(error, ClientError::DeadlineExceeded { .. });
        let problem = Self::from(Failure::from(error));
        if deadline {
            Self { code: GrpcCode::DeadlineExceeded, reason: DEADLINE_EXCEEDED.to_owned(), ..problem }
        } else {
            problem
        }
    }
}

impl Problem {
    /// With who leads the group, as far as known.
    pub(super) fn in_group(mut self, group: u32, view: Option<&View>) -> Self {
        let leader = view.and_then(|view| view.leader(group));
        let node = leader.and_then(|leader| view.and_then(|view| view.node(leader)));
        let addresses = node.map(|node| [&node.grpc_address, &node.http_address]);
        let address = addresses.into_iter().flatten().find(|address| !address.is_empty());
        self.leader = self.leader.or(leader);
        self.leader_address = address.cloned();
        self
    }

    fn facts(&self) -> HashMap<String, String> {
        let mut facts = HashMap::from([
            ("retryable".to_owned(), self.retryable.to_string()),
            ("outcome-unknown".to_owned(), self.outcome_unknown.to_string()),
        ]);
        facts.extend(self.leader.map(|leader| ("leader-id".to_owned(), leader.to_string())));
        facts.extend(self.leader_address.clone().map(|address| ("leader-address".to_owned(), address)));
        facts
    }

    /// As trailers, for clients that do not decode details.
    fn trailers(&self, facts: &HashMap<String, String>) -> MetadataMap {
        let mut trailers = MetadataMap::new();
        let named = facts.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in named.chain([("reason", self.reason.as_str())]) {
            let key = tonic::metadata::AsciiMetadataKey::from_bytes(format!("{DOMAIN}-{name}").as_bytes());
            if let (Ok(key), Ok(value)) = (key, MetadataValue::try_from(value)) {
                trailers.insert(key, value);
            }
        }
        trailers
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let facts = problem.facts();
        let trailers = problem.trailers(&facts);
        let mut details = ErrorDetails::with_error_info(problem.reason, DOMAIN, facts);
        if let Some(delay) = problem.retry_after {
            details.set_retry_info(Some(delay));
        }
        Self::with_error_details_and_metadata(problem.code, problem.message, details, trailers)
    }
}

fn grpc_code(code: Code) -> GrpcCode {
    match code {
        Code::BadRequest | Code::MethodNotAllowed | Code::UnsupportedMediaType => GrpcCode::InvalidArgument,
        Code::NotFound | Code::KeyNotFound => GrpcCode::NotFound,
        Code::TooLarge | Code::Overloaded => GrpcCode::ResourceExhausted,
        Code::PreconditionFailed | Code::NotAllowed => GrpcCode::FailedPrecondition,
        Code::NotLeader | Code::Unavailable | Code::RequestTimeout => GrpcCode::Unavailable,
        Code::OutcomeUnknown => GrpcCode::Unknown,
        Code::Compacted => GrpcCode::OutOfRange,
        Code::Internal => GrpcCode::Internal,
    }
}

/// A failure as it is.
pub(super) fn of(failure: Failure) -> Status {
    Problem::from(failure).into()
}

/// What can never succeed.
pub(super) fn bad_request(message: impl Into<String>) -> Status {
    of(Failure::bad_request(message))
}

/// A question about which nothing is decided was not answered in time.
pub(super) fn too_late() -> Status {
    Problem::from(ClientError::DeadlineExceeded { outcome_unknown: false }).into()
}

/// Something was asked for and not answered in time: it may have been done.
pub(super) fn lost() -> Status {
    Problem::from(ClientError::DeadlineExceeded { outcome_unknown: true }).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(status: &'a Status, name: &str) -> Option<&'a str> {
        status.metadata().get(name).map(|value| value.to_str().unwrap())
    }

    #[test]
    fn every_error_of_the_client_has_its_code() {
        let errors = [
            (ClientError::DeadlineExceeded { outcome_unknown: true }, GrpcCode::DeadlineExceeded, "false", "true"),
            (ClientError::DeadlineExceeded { outcome_unknown: false }, GrpcCode::DeadlineExceeded, "true", "false"),
            (ClientError::Overloaded { what: "x" }, GrpcCode::ResourceExhausted, "true", "false"),
            (ClientError::BadRequest { message: "x".into() }, GrpcCode::InvalidArgument, "false", "false"),
            (ClientError::SessionExpired, GrpcCode::Unknown, "false", "true"),
            (ClientError::OutcomeUnknown, GrpcCode::Unknown, "false", "true"),
            (ClientError::Closed { outcome_unknown: true }, GrpcCode::Unknown, "false", "true"),
            (ClientError::Closed { outcome_unknown: false }, GrpcCode::Unavailable, "true", "false"),
        ];
        for (error, code, retryable, outcome_unknown) in errors {
            let status = Status::from(Problem::from(error.clone()));
            assert_eq!(status.code(), code, "{error}");
            assert_eq!(text(&status, "ringraft-retryable"), Some(retryable), "{error}");
            assert_eq!(text(&status, "ringraft-outcome-unknown"), Some(outcome_unknown), "{error}");
            let info = status.get_details_error_info().unwrap();
            assert_eq!((info.domain.as_str(), info.metadata["retryable"].as_str()), (DOMAIN, retryable));
            assert_eq!(Some(info.reason.as_str()), text(&status, "ringraft-reason"));
        }
    }

    #[test]
    fn a_good_time_to_ask_again_is_told() {
        let status = of(Failure::new(Code::Overloaded, "full"));
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
        assert_eq!(status.message(), "full");
    }

    #[test]
    fn the_leader_is_told_where_known() {
        let node = crate::view::NodeView { node: 2, http_address: "h:1".into(), ..Default::default() };
        let elsewhere = crate::view::ElsewhereView { group: 5, leader: 2, term: 1 };
        let view = View { nodes: [(2, node)].into(), elsewhere: [(5, elsewhere)].into(), ..View::default() };
        let status = Status::from(Problem::from(ClientError::OutcomeUnknown).in_group(5, Some(&view)));
        assert_eq!(text(&status, "ringraft-leader-id"), Some("2"));
        assert_eq!(text(&status, "ringraft-leader-address"), Some("h:1"));
        let status = Status::from(Problem::from(ClientError::OutcomeUnknown).in_group(6, Some(&view)));
        assert_eq!(text(&status, "ringraft-leader-id"), None);
    }
}
