//! Range: a page of keys in their order, of all groups.
//!
//! Off the data path.
//! Invariant: a page ends at its bounds and says where the next one begins.

use ringraft_net::client::{KeyValue, RangeQuery, prefix_end};
use tokio::time::timeout;
use tonic::Status;

use super::call::{Call, Freshness};
use super::proto::kv::{Item, RangeRequest, RangeResponse};
use super::status::{self, Problem};

/// Reads one page.
pub(super) async fn read(call: &Call, message: RangeRequest) -> Result<RangeResponse, Status> {
    let freshness = Freshness::of(message.consistency, message.max_staleness_ms)?;
    let query = query(message);
    let pages = call.state.client().range_with(&query, freshness.consistency, freshness.max_staleness_ms);
    let page = match timeout(call.timeout, pages).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return Err(Problem::from(error).into()),
        Err(_) => return Err(status::too_late()),
    };
    let item = |KeyValue { key, value, version }| Item { key, value, version };
    Ok(RangeResponse {
        more: page.next.is_some(),
        next_start: page.next.unwrap_or_default(),
        items: page.items.into_iter().map(item).collect(),
    })
}

/// The part of the range that has the prefix.
fn query(message: RangeRequest) -> RangeQuery {
    let RangeRequest { start, mut end, prefix, limit, keys_only, .. } = message;
    let (first, behind) = (prefix.clone(), prefix_end(&prefix));
    if end.is_empty() || (!behind.is_empty() && behind < end) {
        end = behind;
    }
    RangeQuery { start: start.max(first), end, limit, keys_only }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_cuts_the_range() {
        let of = |start: &str, end: &str, prefix: &str| {
            let [start, end, prefix] = [start, end, prefix].map(|text| text.as_bytes().to_vec());
            let query = query(RangeRequest { start, end, prefix, ..RangeRequest::default() });
            let text = |bytes| String::from_utf8(bytes).unwrap();
            (text(query.start), text(query.end))
        };
        let expect = |start: &str, end: &str| (start.to_owned(), end.to_owned());
        assert_eq!(of("", "", ""), expect("", ""));
        assert_eq!(of("b", "d", ""), expect("b", "d"));
        assert_eq!(of("", "", "b"), expect("b", "c"));
        assert_eq!(of("bc", "", "b"), expect("bc", "c"));
        assert_eq!(of("a", "bx", "b"), expect("b", "bx"));
        assert_eq!(of("a", "z", "b"), expect("b", "c"));
    }
}
