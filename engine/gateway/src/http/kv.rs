//! `/kv/{key}`: one key, set, read and removed, in the three dialects of the reference documents.
//!
//! Off the data path.
//!
//! ```text
//!   PUT|POST /kv/{key}   {"value": v}             GET|DELETE /kv/{key}              the key is the rest of the path
//!   PUT /kv/put          {"key": k, "value": v}   POST /kv/del {"key": k}           the key is in the body ...
//!   GET /kv/get?key=k                                                               ... or in the query
//! ```
//! A body with a `key`, or a query with one, makes the last path part a verb; without, `put`, `del` and `get` are keys.
//!
//! Invariants: a write is answered behind its commit, with index and term; at a follower it is answered with `307`, before
//! its body is read where the key is known from the path, unless the gateway passes writes on.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::header::{HeaderName, LOCATION, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use ringraft_net::client::key_behind;
use ringraft_net::slots;
use ringraft_net::wire::items;
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use serde_json::{Map, Value};

use super::answer::{self, Answer, Stand, either, insert_bytes, json_ok, json_with, tagged, text_ok};
use super::body::{self, Kind};
use super::headers::{self, Condition};
use super::query::{Query, decoded};
use crate::errors::{Code, Failure};
use crate::state::{Place, State};

/// What all routes of this file begin with.
pub(super) const PREFIX: &str = "/kv/";

/// Longest value that is repeated in a line of text.
const SHOWN_BYTES_MAX: usize = 64;

/// What a write asks for.
struct Wish {
    key: Vec<u8>,
    operation: Operation,
    /// The value, as a line of text shows it.
    shown: String,
    as_json: bool,
}

/// `PUT` and `POST`.
pub(super) async fn set(Shared(state): Shared<State>, request: Request<Body>) -> Response<Body> {
    either(set_or_fail(&state, request).await)
}

async fn set_or_fail(state: &State, request: Request<Body>) -> Answer {
    let (uri, headers, method) = (request.uri().clone(), request.headers().clone(), request.method().clone());
    let query = Query::of(&uri, &["timeout_ms"])?;
    let mut patience = query.timeout()?.unwrap_or(state.settings().request_timeout);
    let (condition, kind) = (Condition::of(&headers)?, body::kind(&headers)?);
    let raw = raw_key(&uri);
    let may_be_verb = kind == Kind::Json && matches!(raw, "put" | "del");
    let path_key = decoded(raw)?;
    if !may_be_verb && let Some(redirect) = redirect(state, &path_key, &uri, &mut patience).await {
        return Ok(redirect);
    }
    let bytes = body::read(request, state.settings()).await?;
    let wish = match kind {
        Kind::Raw => write(path_key, bytes.to_vec(), None, condition, headers::wants_json(&headers))?,
        Kind::Json => wish(raw, path_key, body::json(&bytes)?, (&method, &headers), condition)?,
    };
    if may_be_verb && let Some(redirect) = redirect(state, &wish.key, &uri, &mut patience).await {
        return Ok(redirect);
    }
    carry_out(state, wish, patience).await
}

/// What a JSON body asks for.
fn wish(
    raw: &str,
    path_key: Vec<u8>,
    mut body: body::Write,
    (method, headers): (&Method, &HeaderMap),
    condition: Condition,
) -> Result<Wish, Failure> {
    match (raw, body.take_key()?) {
        ("put", Some(key)) => write(key, body.take_value()?, body.take_expected()?, condition, true),
        ("del", Some(key)) if method == Method::POST => {
            if body.value.is_some() || body.value_base64.is_some() {
                return Err(Failure::bad_request("a delete takes no value"));
            }
            if body.expected.is_some() || body.expected_base64.is_some() {
                let message = "a delete takes no \"expected\": name the version it must have with If-Match";
                return Err(Failure::bad_request(message));
            }
            removal(key, condition, true)
        }
        (_, Some(key)) if key != path_key => {
            Err(Failure::bad_request("the key in the body is not the one in the path; leave it out"))
        }
        (_, _) => {
            let as_json = headers::wants_json(headers);
            write(path_key, body.take_value()?, body.take_expected()?, condition, as_json)
        }
    }
}

fn write(
    key: Vec<u8>,
    value: Vec<u8>,
    expected: Option<Option<Vec<u8>>>,
    condition: Condition,
    as_json: bool,
) -> Result<Wish, Failure> {
    let shown = shown(&value);
    let owned = key.clone();
    let operation = match (expected, condition) {
        (None, Condition::Any) => Operation::Put { key: owned, value },
        (None, Condition::Version(version)) => Operation::CompareVersion { key: owned, version, value: Some(value) },
        (Some(expected), Condition::Any) => Operation::CompareAndSet { key: owned, expected, value },
        (Some(_), Condition::Version(_)) => {
            return Err(Failure::bad_request("\"expected\" and If-Match or If-None-Match exclude each other"));
        }
    };
    Ok(Wish { key, operation, shown, as_json })
}

fn removal(key: Vec<u8>, condition: Condition, as_json: bool) -> Result<Wish, Failure> {
    let owned = key.clone();
    let operation = match condition {
        Condition::Any => Operation::Delete { key: owned },
        Condition::Version(0) => return Err(Failure::bad_request("a delete of an absent key has no use")),
        Condition::Version(version) => Operation::CompareVersion { key: owned, version, value: None },
    };
    Ok(Wish { key, operation, shown: String::new(), as_json })
}

/// `DELETE`.
pub(super) async fn remove(Shared(state): Shared<State>, request: Request<Body>) -> Response<Body> {
    either(remove_or_fail(&state, &request.into_parts().0).await)
}

async fn remove_or_fail(state: &State, head: &axum::http::request::Parts) -> Answer {
    let timeout = Query::of(&head.uri, &["timeout_ms"])?.timeout()?;
    let mut patience = timeout.unwrap_or(state.settings().request_timeout);
    let key = decoded(raw_key(&head.uri))?;
    let wish = removal(key, Condition::of(&head.headers)?, headers::wants_json(&head.headers))?;
    match redirect(state, &wish.key, &head.uri, &mut patience).await {
        Some(redirect) => Ok(redirect),
        None => carry_out(state, wish, patience).await,
    }
}

async fn carry_out(state: &State, wish: Wish, patience: Duration) -> Answer {
    if patience.is_zero() {
        return Err(Failure::new(Code::Unavailable, "this node did not say in time who leads the key's group"));
    }
    let Wish { key, operation, shown, as_json } = wish;
    let operations = vec![operation];
    state.fits(&operations)?;
    let answer = state.client().request_with(operations, Consistency::Linearizable, 0, Some(patience)).await?;
    let stand = Stand { position: answer.position, term: answer.term };
    let Some(result) = answer.value.into_iter().next() else { return Err(no_result()) };
    let written = items::version_at(answer.position.index, answer.position.position);
    let mut body = Map::new();
    insert_bytes(&mut body, "key", &key);
    stand.insert(&mut body);
    let (line, version) = match result {
        OperationResult::Put { replaced } => {
            body.insert("replaced".into(), replaced.into());
            (set_line(&key, &shown, stand), Some(written))
        }
        OperationResult::Compared { swapped: true, .. } => (set_line(&key, &shown, stand), Some(written)),
        OperationResult::Compared { current, .. } => return Ok(stand.mark(unexpected_value(body, current.as_deref()))),
        OperationResult::ComparedVersion { swapped: false, version } => {
            return Ok(stand.mark(unexpected_version(body, version)));
        }
        OperationResult::ComparedVersion { version: 0, .. } => (String::from("✓ Key deleted"), None),
        OperationResult::ComparedVersion { version, .. } => (set_line(&key, &shown, stand), Some(version)),
        OperationResult::Deleted { existed } => {
            body.insert("existed".into(), existed.into());
            (String::from(if existed { "✓ Key deleted" } else { "✓ Key was not there" }), None)
        }
        other => return Err(Failure::new(Code::Internal, format!("answered another operation: {other:?}"))),
    };
    if let Some(version) = version {
        body.insert("version".into(), version.into());
    }
    let response = if as_json { json_ok(&Value::Object(body)) } else { text_ok(line) };
    let response = stand.mark(response);
    Ok(match version {
        Some(version) => tagged(response, version),
        None => response,
    })
}

fn set_line(key: &[u8], shown: &str, stand: Stand) -> String {
    let (index, term) = (stand.position.index, stand.term);
    format!("✓ Committed SET {} = {shown} (index: {index}, term: {term})", self::shown(key))
}

fn unexpected_value(mut body: Map<String, Value>, current: Option<&[u8]>) -> Response<Body> {
    match current {
        Some(current) => insert_bytes(&mut body, "current", current),
        None => _ = body.insert("current".into(), Value::Null),
    }
    precondition_failed(body, "the value is not the expected one")
}

fn unexpected_version(mut body: Map<String, Value>, version: u64) -> Response<Body> {
    body.insert("version".into(), version.into());
    let response = precondition_failed(body, "the version is not the expected one");
    if version == 0 { response } else { tagged(response, version) }
}

fn precondition_failed(mut body: Map<String, Value>, message: &str) -> Response<Body> {
    let failure = Failure::new(Code::PreconditionFailed, message);
    body.extend(answer::object(failure.body()));
    json_with(StatusCode::PRECONDITION_FAILED, &Value::Object(body))
}

/// `GET` and `HEAD`.
pub(super) async fn get(Shared(state): Shared<State>, request: Request<Body>) -> Response<Body> {
    either(get_or_fail(&state, request.uri(), request.headers()).await)
}

async fn get_or_fail(state: &State, uri: &Uri, headers: &HeaderMap) -> Answer {
    const KNOWN: [&str; 4] = ["consistency", "max_staleness_ms", "timeout_ms", "key"];
    let raw = raw_key(uri);
    let query = Query::of(uri, if raw == "get" { &KNOWN } else { &KNOWN[..3] })?;
    let (consistency, staleness) = query.freshness()?;
    let timeout = query.timeout()?;
    let (key, as_json) = match query.bytes("key") {
        Some(key) => (key.to_vec(), true),
        None => (decoded(raw)?, headers::wants_json(headers)),
    };
    if key.is_empty() {
        return Err(Failure::bad_request("the key is empty"));
    }
    let group = slots::group_of_key(&key, state.groups().await?);
    let (start, end) = (key.clone(), key_behind(&key));
    let operation = Operation::Range { group, start, end, limit: 1, keys_only: false };
    let answer = state.client().request_with(vec![operation], consistency, staleness, timeout).await?;
    let stand = Stand { position: answer.position, term: answer.term };
    let Some(OperationResult::Items { items, .. }) = answer.value.into_iter().next() else { return Err(no_result()) };
    let found = items::items(&items).next().transpose();
    let found = found.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
    let Some((value, version)) = found.and_then(|item| Some((item.value?, item.version))) else {
        return Ok(stand.mark(either(Err(Failure::new(Code::KeyNotFound, "the key has no value")))));
    };
    if headers::has_version(headers, version) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(stand.mark(tagged(response, version)));
    }
    Ok(stand.mark(tagged(found_value(&key, value, version, stand, as_json), version)))
}

fn found_value(key: &[u8], value: &[u8], version: u64, stand: Stand, as_json: bool) -> Response<Body> {
    if as_json {
        let mut body = Map::new();
        insert_bytes(&mut body, "key", key);
        insert_bytes(&mut body, "value", value);
        body.insert("version".into(), version.into());
        stand.insert(&mut body);
        return json_ok(&Value::Object(body));
    }
    let is_text = std::str::from_utf8(value).is_ok();
    let content_type = if is_text { "text/plain; charset=utf-8" } else { "application/octet-stream" };
    let mut response = answer::response(StatusCode::OK, content_type, value.to_vec());
    // Values are whatever clients wrote: a browser must not take one for a page.
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The answer to a write that belongs to another node's leader, if this gateway knows where that is; finding out takes of
/// the time that the write has.
async fn redirect(state: &State, key: &[u8], uri: &Uri, patience: &mut Duration) -> Option<Response<Body>> {
    let asked = Instant::now();
    let place = state.place_of(key, *patience).await;
    *patience = patience.saturating_sub(asked.elapsed());
    let Place::Elsewhere { group, leader, http: Some(address), .. } = place else { return None };
    let path = uri.path_and_query().map_or(uri.path(), |path| path.as_str());
    let location = HeaderValue::try_from(format!("http://{address}{path}")).ok()?;
    let message = format!("node {} does not lead group {group}: node {leader} does", state.settings().node);
    let mut body = answer::object(Failure { leader: Some(leader), ..Failure::new(Code::NotLeader, message) }.body());
    body.insert("leaderAddr".into(), address.into());
    body.insert("group".into(), group.into());
    let mut response = json_with(Code::NotLeader.status(), &Value::Object(body));
    let name: HeaderName = LOCATION;
    response.headers_mut().insert(name, location);
    Some(response)
}

/// The last part of the path, as it came.
fn raw_key(uri: &Uri) -> &str {
    uri.path().strip_prefix(PREFIX).unwrap_or_default()
}

/// Bytes as a line of text shows them.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= SHOWN_BYTES_MAX && !text.chars().any(char::is_control) => text.to_owned(),
        _ => format!("({} bytes)", bytes.len()),
    }
}

fn no_result() -> Failure {
    Failure::new(Code::Internal, "answered without a result")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, run};

    fn wished(raw: &str, method: &Method, text: &str) -> Result<Operation, Failure> {
        let body = body::json(text.as_bytes())?;
        let headers = HeaderMap::new();
        let wish = wish(raw, decoded(raw)?, body, (method, &headers), Condition::Any)?;
        Ok(wish.operation)
    }

    fn put(key: &str, value: &str) -> Result<Operation, Failure> {
        Ok(Operation::Put { key: key.into(), value: value.into() })
    }

    #[test]
    fn a_key_in_the_body_makes_the_path_a_verb() {
        assert_eq!(wished("put", &Method::PUT, r#"{"key":"k","value":"v"}"#), put("k", "v"));
        assert_eq!(wished("put", &Method::PUT, r#"{"value":"v"}"#), put("put", "v"));
        assert_eq!(wished("del", &Method::POST, r#"{"key":"k"}"#), Ok(Operation::Delete { key: b"k".to_vec() }));
        assert_eq!(wished("del", &Method::POST, r#"{"value":"v"}"#), put("del", "v"));
        assert_eq!(wished("get", &Method::POST, r#"{"value":"v"}"#), put("get", "v"));
        assert_eq!(wished("a%2Fb", &Method::PUT, r#"{"value":"v"}"#), put("a/b", "v"));
        assert_eq!(wished("a", &Method::PUT, r#"{"key":"a","value":"v"}"#), put("a", "v"));
        for (raw, method, text) in [
            ("a", &Method::PUT, r#"{"key":"b","value":"v"}"#),
            ("del", &Method::PUT, r#"{"key":"k"}"#),
            ("del", &Method::POST, r#"{"key":"k","value":"v"}"#),
            ("del", &Method::POST, r#"{"key":"k","expected":"v"}"#),
            ("del", &Method::POST, r#"{"key":"k","expected":null}"#),
            ("del", &Method::POST, r#"{"key":"k","expectedBase64":"AA=="}"#),
            ("del", &Method::POST, "{}"),
            ("put", &Method::PUT, r#"{"key":"k"}"#),
        ] {
            assert_eq!(wished(raw, method, text).unwrap_err().code, Code::BadRequest, "{raw} {text}");
        }
    }

    #[test]
    fn what_is_too_large_for_the_cluster_is_refused_unsent() {
        run(async {
            let fake = Fake::start().await;
            let state = fake.state(|settings| (settings.request_bytes_max, settings.proxy) = (70 << 10, true));
            let request = Request::put("/kv/k").header("content-type", "text/plain").body(vec![b'v'; 70 << 10].into());
            let refused = set_or_fail(&state, request.unwrap()).await.unwrap_err();
            assert_eq!((refused.code, fake.script().requests), (Code::TooLarge, 0));
        });
    }

    #[test]
    fn conditions_become_comparisons() {
        let operation = |expected, condition| write(b"k".to_vec(), b"v".to_vec(), expected, condition, true);
        let by_version = operation(None, Condition::Version(7)).unwrap().operation;
        assert_eq!(
            by_version,
            Operation::CompareVersion { key: b"k".to_vec(), version: 7, value: Some(b"v".to_vec()) }
        );
        let by_value = operation(Some(None), Condition::Any).unwrap().operation;
        let (key, value) = (b"k".to_vec(), b"v".to_vec());
        assert_eq!(by_value, Operation::CompareAndSet { key, expected: None, value });
        assert!(operation(Some(None), Condition::Version(7)).is_err());
        assert!(removal(b"k".to_vec(), Condition::Version(0), true).is_err());
    }

    #[test]
    fn lines_of_text_are_short_and_printable() {
        assert_eq!(
            (shown(b"john_doe"), shown(b"\xff"), shown(b"a\nb")),
            ("john_doe".into(), "(1 bytes)".into(), "(3 bytes)".into())
        );
        assert_eq!(shown(&[b'x'; 65]), "(65 bytes)");
    }
}
