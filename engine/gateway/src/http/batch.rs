//! `POST /batch`: many puts, gets and deletes in one request.
//!
//! Off the data path.
//!
//! The operations on keys of one group are one request to it, all or nothing; those of several groups are several, at the
//! same time. A batch is never redirected: its groups may have several leaders.
//!
//! Invariant: there is one result for each operation, in their order; it says whether it was done, was not, or may have
//! been.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{Request, Response, StatusCode};
use ringraft_net::client::tokio::Answer as Answered;
use ringraft_net::slots;
use ringraft_net::wire::{Operation, OperationResult};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use super::answer::{Answer, Stand, either, insert_bytes, json_with};
use super::body::{self, bytes_of};
use super::query::Query;
use crate::errors::{Code, Failure};
use crate::state::State;

/// Operations of one batch.
const OPERATIONS_MAX: usize = 10_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    operations: Vec<Member>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Member {
    op: Verb,
    #[serde(default, deserialize_with = "body::some")]
    key: Option<String>,
    #[serde(default, deserialize_with = "body::some")]
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "body::some")]
    value: Option<String>,
    #[serde(default, deserialize_with = "body::some")]
    value_base64: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Put,
    Get,
    Delete,
}

impl Member {
    fn into_operation(self) -> Result<Operation, Failure> {
        let key = bytes_of("key", self.key, self.key_base64)?;
        let key = key.ok_or_else(|| Failure::bad_request("an operation has no \"key\""))?;
        let value = bytes_of("value", self.value, self.value_base64)?;
        match (self.op, value) {
            (Verb::Put, Some(value)) => Ok(Operation::Put { key, value }),
            (Verb::Put, None) => Err(Failure::bad_request("a put has no \"value\"")),
            (Verb::Get, None) => Ok(Operation::Get { key }),
            (Verb::Delete, None) => Ok(Operation::Delete { key }),
            (Verb::Get | Verb::Delete, Some(_)) => Err(Failure::bad_request("only a put has a \"value\"")),
        }
    }
}

/// Which operations of a batch go to one group.
type Parts = BTreeMap<u32, Vec<usize>>;

pub(super) async fn batch(Shared(state): Shared<State>, request: Request<Body>) -> Response<Body> {
    either(batch_or_fail(&state, request).await)
}

async fn batch_or_fail(state: &State, request: Request<Body>) -> Answer {
    let query = Query::of(request.uri(), &["consistency", "max_staleness_ms", "timeout_ms"])?;
    let ((consistency, staleness), timeout) = (query.freshness()?, query.timeout()?);
    let headers = request.headers().clone();
    let bytes = body::read(request, state.settings()).await?;
    let batch: Batch = body::object_of(&headers, &bytes)?;
    if batch.operations.is_empty() || batch.operations.len() > OPERATIONS_MAX {
        return Err(Failure::bad_request(format!("a batch has 1 to {OPERATIONS_MAX} operations")));
    }
    let operations: Vec<_> = batch.operations.into_iter().map(Member::into_operation).collect::<Result<_, _>>()?;
    let groups = state.groups().await?;
    let mut parts = Parts::new();
    for (place, operation) in operations.iter().enumerate() {
        let key = operation.as_operation_ref().key().unwrap_or_default();
        parts.entry(slots::group_of_key(key, groups)).or_default().push(place);
    }
    let mut asked = JoinSet::new();
    for (group, places) in parts {
        let client = state.client().clone();
        let part: Vec<_> = places.iter().map(|place| operations[*place].clone()).collect();
        let fits = state.fits(&part);
        asked.spawn(async move {
            let answered = match fits {
                Ok(()) => client.request_with(part, consistency, staleness, timeout).await.map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            (group, places, answered)
        });
    }
    let mut results = vec![Value::Null; operations.len()];
    let mut failures = Vec::new();
    while let Some(answered) = asked.join_next().await {
        let (group, places, answered) = answered.map_err(|error| Failure::new(Code::Internal, error.to_string()))?;
        let told = tell(group, answered);
        failures.extend(told.as_ref().err().cloned());
        fill(&mut results, &operations, &places, &told);
    }
    let none_done = results.iter().all(|result| result.get("error").is_some());
    let body = json!({ "results": results });
    Ok(match telling(&failures).filter(|_| none_done) {
        Some(failure) => failure.mark(json_with(failure.code.status(), &body)),
        None => json_with(status_of(&failures, none_done), &body),
    })
}

type Told = Result<(Stand, Vec<OperationResult>), Failure>;

fn tell(group: u32, answered: Result<Answered<Vec<OperationResult>>, Failure>) -> Told {
    let answer = answered?;
    debug_assert_eq!(answer.position.group, group);
    let stand = Stand { position: answer.position, term: answer.term };
    Ok((stand, answer.value))
}

/// Puts the results of one group where they belong.
fn fill(results: &mut [Value], operations: &[Operation], places: &[usize], told: &Told) {
    for (at, place) in places.iter().enumerate() {
        let key = operations[*place].as_operation_ref().key().unwrap_or_default();
        let mut body = Map::new();
        insert_bytes(&mut body, "key", key);
        match told {
            Ok((stand, done)) => {
                stand.insert(&mut body);
                insert_result(&mut body, done.get(at));
            }
            Err(failure) => _ = body.insert("error".into(), failure.body()),
        }
        results[*place] = Value::Object(body);
    }
}

fn insert_result(body: &mut Map<String, Value>, result: Option<&OperationResult>) {
    match result {
        Some(OperationResult::Put { replaced }) => _ = body.insert("replaced".into(), (*replaced).into()),
        Some(OperationResult::Deleted { existed }) => _ = body.insert("existed".into(), (*existed).into()),
        Some(OperationResult::Value(Some(value))) => {
            body.insert("found".into(), true.into());
            insert_bytes(body, "value", value);
        }
        Some(OperationResult::Value(None)) => _ = body.insert("found".into(), false.into()),
        _ => {
            let failure = Failure::new(Code::Internal, "answered another operation");
            body.insert("error".into(), failure.body());
        }
    }
}

/// What is said of a batch of which nothing is known to be done. A part that may have been done speaks for all: nobody may
/// take the batch for one that can be sent again. Then what makes sending it again useless, then what takes longest to pass.
fn telling(failures: &[Failure]) -> Option<&Failure> {
    let rank = |failure: &&Failure| match failure.code {
        Code::OutcomeUnknown => 0,
        Code::Internal => 1,
        Code::TooLarge => 2,
        code if !code.is_retryable() => 3,
        Code::Overloaded => 5,
        _ => 4,
    };
    failures.iter().min_by_key(|failure| (rank(failure), failure.code.name()))
}

/// All done: 200; else each result says it for itself.
fn status_of(failures: &[Failure], none_done: bool) -> StatusCode {
    match failures {
        [] if none_done => StatusCode::INTERNAL_SERVER_ERROR,
        [] => StatusCode::OK,
        [..] => StatusCode::MULTI_STATUS,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::header::RETRY_AFTER;

    use super::*;
    use crate::fake::{Fake, run};

    fn operations(text: &str) -> Result<Vec<Operation>, Failure> {
        let batch: Batch = body::json(text.as_bytes())?;
        batch.operations.into_iter().map(Member::into_operation).collect()
    }

    #[test]
    fn batches_are_read_strictly() {
        let text = r#"{"operations":[{"op":"put","key":"a","value":"1"},{"op":"get","keyBase64":"/w=="},
                                     {"op":"delete","key":"b"}]}"#;
        let expected = [
            Operation::Put { key: b"a".to_vec(), value: b"1".to_vec() },
            Operation::Get { key: vec![255] },
            Operation::Delete { key: b"b".to_vec() },
        ];
        assert_eq!(operations(text).unwrap(), expected);
        for member in [
            r#"{"op":"put","key":"a"}"#,
            r#"{"op":"put","value":"a"}"#,
            r#"{"op":"get","key":"a","value":"1"}"#,
            r#"{"op":"cas","key":"a"}"#,
            r#"{"key":"a"}"#,
            r#"{"op":"get","key":"a","ttl":1}"#,
        ] {
            assert!(operations(&format!("{{\"operations\":[{member}]}}")).is_err(), "{member}");
        }
    }

    #[test]
    fn a_part_too_large_for_its_group_is_refused_unsent() {
        run(async {
            let fake = Fake::start().await;
            let state = fake.state(|settings| settings.request_bytes_max = 70 << 10);
            let put = json!({ "op": "put", "key": "k", "value": "v".repeat(36 << 10) });
            let body = json!({ "operations": [put, put] }).to_string();
            let request = Request::post("/batch").body(body.into()).unwrap();
            let response = batch_or_fail(&state, request).await.unwrap();
            assert_eq!((response.status(), fake.script().requests), (StatusCode::PAYLOAD_TOO_LARGE, 0));
        });
    }

    #[test]
    fn the_status_says_how_much_was_done() {
        let failures = [Failure::new(Code::OutcomeUnknown, "lost")];
        assert_eq!(status_of(&[], false), StatusCode::OK);
        assert_eq!(status_of(&[], true), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(status_of(&failures, false), StatusCode::MULTI_STATUS);
        assert_eq!(telling(&[]), None);
    }

    #[test]
    fn of_several_failures_the_same_one_tells_whichever_came_first() {
        let told = |codes: &[Code]| {
            let failures: Vec<_> = codes.iter().map(|code| Failure::new(*code, "why")).collect();
            telling(&failures).map(|failure| failure.code)
        };
        for (codes, expected) in [
            ([Code::Overloaded, Code::OutcomeUnknown, Code::Unavailable], Code::OutcomeUnknown),
            ([Code::TooLarge, Code::BadRequest, Code::OutcomeUnknown], Code::OutcomeUnknown),
            ([Code::Overloaded, Code::TooLarge, Code::Unavailable], Code::TooLarge),
            ([Code::Overloaded, Code::BadRequest, Code::Unavailable], Code::BadRequest),
            ([Code::Overloaded, Code::Unavailable, Code::Overloaded], Code::Unavailable),
        ] {
            let [a, b, c] = codes;
            for turned in [[a, b, c], [b, c, a], [c, a, b], [c, b, a]] {
                assert_eq!(told(&turned), Some(expected), "{turned:?}");
            }
        }
    }

    #[test]
    fn what_may_be_sent_again_later_says_when() {
        for (code, told) in [(Code::Unavailable, true), (Code::Overloaded, true), (Code::OutcomeUnknown, false)] {
            let response = Failure::new(code, "why").mark(json_with(code.status(), &Value::Null));
            assert_eq!(response.headers().contains_key(RETRY_AFTER), told, "{code:?}");
        }
    }
}
