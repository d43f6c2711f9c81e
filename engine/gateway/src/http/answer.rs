//! Answers: JSON, values as they are, and errors with their status.
//!
//! Off the data path.
//! Invariant: every error has a JSON body with `code`, `message` and `retryable`, whatever the route.
//! It decides no outcome.

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode};
use axum::response::IntoResponse;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ringraft_net::wire::Position;
use serde_json::{Map, Value, json};

use crate::errors::{Code, Failure};

/// The group of an answer.
pub(super) const GROUP: HeaderName = HeaderName::from_static("x-ringraft-group");
/// The index of an answer in its group's log.
pub(super) const INDEX: HeaderName = HeaderName::from_static("x-ringraft-index");
/// The term of the group.
pub(super) const TERM: HeaderName = HeaderName::from_static("x-ringraft-term");

/// What a handler gives.
pub(super) type Answer = Result<Response<Body>, Failure>;

impl Code {
    /// The status that HTTP gives it.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::NotFound | Self::KeyNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
            Self::NotLeader => StatusCode::TEMPORARY_REDIRECT,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::OutcomeUnknown => StatusCode::GATEWAY_TIMEOUT,
            Self::NotAllowed => StatusCode::CONFLICT,
            Self::Compacted => StatusCode::GONE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response<Body> {
        // Without a place to go to there is nothing to redirect to.
        let status = if self.code == Code::NotLeader { StatusCode::SERVICE_UNAVAILABLE } else { self.code.status() };
        self.mark(json_with(status, &self.body()))
    }
}

impl Failure {
    /// Puts into the head of a response when to ask again.
    pub(super) fn mark(&self, mut response: Response<Body>) -> Response<Body> {
        if let Some(after) = self.retry_after {
            let seconds = after.max(Duration::from_secs(1)).as_secs();
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// What the body of its answer says.
    pub(super) fn body(&self) -> Value {
        let mut body = Map::new();
        body.insert("code".into(), self.code.name().into());
        body.insert("message".into(), self.message.as_str().into());
        body.insert("retryable".into(), self.code.is_retryable().into());
        if let Some(leader) = self.leader {
            body.insert("leaderId".into(), leader.into());
        }
        Value::Object(body)
    }
}

/// A response of these bytes.
pub(super) fn response(status: StatusCode, content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// JSON with a status.
pub(super) fn json_with(status: StatusCode, body: &Value) -> Response<Body> {
    response(status, "application/json", body.to_string())
}

/// JSON of what went well.
pub(super) fn json_ok(body: &Value) -> Response<Body> {
    json_with(StatusCode::OK, body)
}

/// One line for people.
pub(super) fn text_ok(line: String) -> Response<Body> {
    response(StatusCode::OK, "text/plain; charset=utf-8", line + "\n")
}

/// Where an answer stands in the history of its group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) position: Position,
    pub(super) term: u64,
}

impl Stand {
    /// Puts it into the head of a response.
    pub(super) fn mark(self, mut response: Response<Body>) -> Response<Body> {
        let headers = response.headers_mut();
        headers.insert(GROUP, self.position.group.into());
        headers.insert(INDEX, self.position.index.into());
        headers.insert(TERM, self.term.into());
        response
    }

    /// Puts it into a JSON object.
    pub(super) fn insert(self, body: &mut Map<String, Value>) {
        body.insert("group".into(), self.position.group.into());
        body.insert("index".into(), self.position.index.into());
        body.insert("term".into(), self.term.into());
    }
}

/// The version of a value, as `ETag` has it.
pub(super) fn tag(version: u64) -> HeaderValue {
    HeaderValue::try_from(format!("\"{version}\"")).unwrap_or_else(|_| HeaderValue::from_static("\"\""))
}

/// Puts the version of a value into the head of a response.
pub(super) fn tagged(mut response: Response<Body>, version: u64) -> Response<Body> {
    response.headers_mut().insert(ETAG, tag(version));
    response
}

/// Puts bytes into a JSON object: as text if they are UTF-8, else as `nameBase64`.
pub(super) fn insert_bytes(body: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => body.insert(name.to_owned(), text.into()),
        Err(_) => body.insert(format!("{name}Base64"), STANDARD.encode(bytes).into()),
    };
}

/// A handler's answer, right or wrong.
pub(super) fn either(answer: Answer) -> Response<Body> {
    answer.unwrap_or_else(Failure::into_response)
}

/// An object out of pairs.
pub(super) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => Map::from_iter([(String::from("value"), json!(other))]),
    }
}
