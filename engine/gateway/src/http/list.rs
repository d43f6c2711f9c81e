//! `GET /kv`: the keys of the whole cluster in their order, page by page.
//!
//! Off the data path.
//! Invariants: a page has at most `limit` keys; its `next`, as `cursor` of the same question, gives the page behind it;
//! each group is read at its own moment, so a page is no snapshot.
//! It merges nothing: the client does.

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::{Response, Uri};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ringraft_net::client::{KeyValue, RangeQuery};
use serde_json::{Map, Value, json};

use super::answer::{Answer, either, insert_bytes, json_ok};
use super::query::Query;
use crate::errors::Failure;
use crate::state::State;

/// Keys of a page.
const LIMIT_MAX: u64 = 10_000;
/// Keys of a page that names no limit.
const LIMIT: u32 = 1_000;

const KNOWN: [&str; 8] = ["prefix", "start", "end", "limit", "cursor", "keys_only", "consistency", "max_staleness_ms"];

pub(super) async fn list(Shared(state): Shared<State>, uri: Uri) -> Response<Body> {
    either(list_or_fail(&state, &uri).await)
}

async fn list_or_fail(state: &State, uri: &Uri) -> Answer {
    let query = Query::of(uri, &KNOWN)?;
    let (consistency, staleness) = query.freshness()?;
    let asked = range(&query)?;
    let page = state.client().range_with(&asked, consistency, staleness).await?;
    let items: Vec<_> = page.items.iter().map(|item| shown(item, asked.keys_only)).collect();
    let next = page.next.map(|next| URL_SAFE_NO_PAD.encode(next));
    Ok(json_ok(&json!({ "items": items, "next": next })))
}

fn range(query: &Query) -> Result<RangeQuery, Failure> {
    let (start, end) = (query.bytes("start"), query.bytes("end"));
    let mut range = match query.bytes("prefix") {
        Some(_) if start.is_some() || end.is_some() => {
            return Err(Failure::bad_request("prefix goes with neither start nor end"));
        }
        Some(prefix) => RangeQuery::prefix(prefix),
        None => RangeQuery {
            start: start.unwrap_or_default().to_vec(),
            end: end.unwrap_or_default().to_vec(),
            ..RangeQuery::default()
        },
    };
    if let Some(cursor) = query.text("cursor")? {
        let cursor = URL_SAFE_NO_PAD.decode(cursor);
        let cursor = cursor.map_err(|_| Failure::bad_request("cursor is none: it is the \"next\" of a page"))?;
        range.start = range.start.max(cursor);
    }
    range.limit = match query.number("limit", LIMIT_MAX)? {
        Some(0) => return Err(Failure::bad_request("limit must be at least 1")),
        limit => limit.map_or(LIMIT, |limit| u32::try_from(limit).unwrap_or(LIMIT)),
    };
    range.keys_only = query.switch("keys_only")?;
    Ok(range)
}

fn shown(item: &KeyValue, keys_only: bool) -> Value {
    let mut body = Map::new();
    insert_bytes(&mut body, "key", &item.key);
    if !keys_only {
        insert_bytes(&mut body, "value", &item.value);
    }
    body.insert("version".into(), item.version.into());
    Value::Object(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(text: &str) -> Result<RangeQuery, Failure> {
        range(&Query::of(&format!("/kv?{text}").parse().unwrap(), &KNOWN).unwrap())
    }

    #[test]
    fn prefixes_ranges_and_cursors() {
        let query = asked("prefix=a&limit=2&keys_only=true").unwrap();
        let expected = RangeQuery { start: b"a".to_vec(), end: b"b".to_vec(), limit: 2, keys_only: true };
        assert_eq!(query, expected);
        assert_eq!(
            asked("start=a&end=c").unwrap(),
            RangeQuery { end: b"c".to_vec(), limit: LIMIT, keys_only: false, ..expected }
        );
        let cursor = URL_SAFE_NO_PAD.encode("ab");
        assert_eq!(asked(&format!("prefix=a&cursor={cursor}")).unwrap().start, b"ab");
        let before = URL_SAFE_NO_PAD.encode("A");
        assert_eq!(asked(&format!("prefix=a&cursor={before}")).unwrap().start, b"a", "never outside of the range");
        for text in ["prefix=a&start=b", "limit=0", "limit=10001", "cursor=%21", "keys_only=2"] {
            assert!(asked(text).is_err(), "{text}");
        }
    }
}
