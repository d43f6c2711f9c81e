//! Keys over HTTP: bytes as they are, versions, comparisons, batches, listings, and where writes go.
//!
//! Off the data path.

use std::collections::BTreeSet;

use ringraft_tools::local_cluster::Shape;
use serde_json::{Value, json};

use super::{PATIENCE, call, cluster, get, http, lead, send, three};
use crate::harness::{eventually, shape};

const JSON: (&str, &str) = ("Accept", "application/json");
const RAW: (&str, &str) = ("Content-Type", "application/octet-stream");

#[test]
fn values_are_bytes_and_keys_too() {
    let cluster = cluster(&shape(1));
    let address = http(&cluster, 1);
    let value: Vec<u8> = (0..=255).collect();
    call(&address, "PUT /kv/raw%00%ff%2Fkey", &[RAW], &value).ok();
    let reply = get(&address, "/kv/raw%00%FF/key").ok();
    assert_eq!((reply.body.as_slice(), reply.header("content-type")), (value.as_slice(), "application/octet-stream"));
    let shown = call(&address, "GET /kv/raw%00%FF/key", &[JSON], b"").ok().json();
    assert!(shown["keyBase64"].is_string() && shown["valueBase64"].is_string(), "{shown}");
    let again = json!({ "valueBase64": shown["valueBase64"] });
    send(&address, "PUT /kv/other", &again).ok();
    assert_eq!(get(&address, "/kv/other").ok().body, value);
    send(&address, "PUT /kv/empty", &json!({ "value": "" })).ok();
    assert_eq!(get(&address, "/kv/empty").ok().body, b"");
    let head = call(&address, "HEAD /kv/other", &[], b"").ok();
    assert_eq!((head.body.len(), head.header("content-length")), (0, "256"));
    call(&address, "PUT /kv/text", &[("Content-Type", "text/plain")], "ä".as_bytes()).ok();
    assert_eq!(get(&address, "/kv/text").ok().header("content-type"), "text/plain; charset=utf-8");
}

#[test]
fn writes_say_where_they_stand_and_versions_guard_them() {
    let cluster = cluster(&shape(1));
    let address = http(&cluster, 1);
    let put = |headers: &[(&str, &str)], value: &str| {
        let headers = [headers, &[JSON]].concat();
        call(&address, "PUT /kv/k", &headers, json!({ "value": value }).to_string().as_bytes())
    };
    let first = put(&[("If-None-Match", "*")], "1").ok();
    let tag = first.header("etag").to_owned();
    let body = first.json();
    assert_eq!(format!("\"{}\"", body["version"]), tag);
    assert_eq!(first.header("x-ringraft-index"), body["index"].to_string());
    assert!(body["index"].as_u64() > Some(0) && body["term"].as_u64() > Some(0), "{body}");
    let refused = put(&[("If-None-Match", "*")], "2");
    assert_eq!((refused.status, refused.code().as_str(), refused.header("etag")), (412, "precondition_failed", &*tag));
    assert_eq!(refused.json()["retryable"], false);
    let read = get(&address, "/kv/k").ok();
    assert_eq!((read.text().as_str(), read.header("etag")), ("1", &*tag));
    assert_eq!(call(&address, "GET /kv/k", &[("If-None-Match", &tag)], b"").status, 304);
    let second = put(&[("If-Match", &tag)], "2").ok();
    assert_ne!(second.header("etag"), tag);
    assert_eq!(put(&[("If-Match", &tag)], "3").status, 412);
    assert_eq!(call(&address, "DELETE /kv/k", &[("If-Match", &tag)], b"").status, 412);
    assert_eq!(get(&address, "/kv/k").ok().text(), "2");
    let newest = second.header("etag").to_owned();
    call(&address, "DELETE /kv/k", &[("If-Match", &newest)], b"").ok();
    let gone = get(&address, "/kv/k");
    assert_eq!((gone.status, gone.code().as_str()), (404, "key_not_found"));
    // By value.
    let expect =
        |expected: Value, value: &str| send(&address, "PUT /kv/k", &json!({ "value": value, "expected": expected }));
    expect(Value::Null, "a").ok();
    let refused = expect(Value::Null, "b");
    assert_eq!((refused.status, refused.json()["current"].clone()), (412, json!("a")));
    expect(json!("a"), "b").ok();
    assert_eq!(get(&address, "/kv/k").ok().text(), "b");
}

#[test]
fn batches_and_listings_span_groups() {
    let cluster = cluster(&Shape { groups: 4, ..shape(1) });
    let address = http(&cluster, 1);
    let put = |number: u64| json!({ "op": "put", "key": format!("list/{number:03}"), "value": number.to_string() });
    let operations: Vec<_> = (0..100).map(put).collect();
    let done = send(&address, "POST /batch", &json!({ "operations": operations })).ok().json();
    let groups: BTreeSet<_> = done["results"].as_array().unwrap().iter().map(|row| row["group"].as_u64()).collect();
    assert_eq!((done["results"].as_array().unwrap().len(), groups.len()), (100, 4));
    let mixed = json!({ "operations": [
        { "op": "get", "key": "list/007" }, { "op": "delete", "key": "list/008" }, { "op": "get", "key": "absent" },
        { "op": "delete", "key": "absent" },
    ] });
    let results = send(&address, "POST /batch", &mixed).ok().json()["results"].clone();
    assert_eq!((&results[0]["found"], &results[0]["value"]), (&json!(true), &json!("7")));
    assert_eq!((&results[1]["existed"], &results[3]["existed"]), (&json!(true), &json!(false)));
    assert_eq!(results[2]["found"], false);
    let (mut keys, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = get(&address, &format!("/kv?prefix=list/&limit=30{cursor}")).ok().json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 30);
        keys.extend(items.iter().map(|item| item["key"].as_str().unwrap().to_owned()));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let expected: Vec<_> = (0..100).filter(|number| *number != 8).map(|number| format!("list/{number:03}")).collect();
    assert_eq!(keys, expected);
    let page = get(&address, "/kv?start=list/010&end=list/012&keys_only=true").ok().json();
    assert_eq!(page["items"].as_array().unwrap().len(), 2);
    assert!(page["items"][0]["value"].is_null() && page["next"].is_null(), "{page}");
    assert!(page["items"][0]["version"].as_u64().unwrap() >> 16 > 0);
}

#[test]
fn every_consistency_reads_at_every_node() {
    let cluster = three();
    let put = send(&http(&cluster, 1), "PUT /kv/k", &json!({ "value": "v" })).ok();
    for node in 1..=3 {
        let address = http(&cluster, node);
        for consistency in ["linearizable", "lease", "follower"] {
            let read = get(&address, &format!("/kv/k?consistency={consistency}")).ok();
            assert_eq!((read.text().as_str(), read.header("etag")), ("v", put.header("etag")), "{node} {consistency}");
        }
        let stale =
            || Some(get(&address, "/kv/k?consistency=stale&max_staleness_ms=10000")).filter(|read| read.status == 200);
        assert_eq!(eventually(PATIENCE, stale).expect("it arrives").text(), "v");
    }
}

#[test]
fn a_follower_names_the_leader_and_follows_a_change_of_leaders() {
    let cluster = three();
    for leader in [1, 3] {
        lead(&cluster, leader, 0);
        let follower = http(&cluster, 2);
        let body = json!({ "value": format!("by {leader}") });
        let redirected = send(&follower, "PUT /kv/k%20ey?timeout_ms=3000", &body);
        let (address, json) = (http(&cluster, leader), redirected.json());
        assert_eq!((redirected.status, redirected.code().as_str()), (307, "not_leader"));
        assert_eq!(redirected.header("location"), format!("http://{address}/kv/k%20ey?timeout_ms=3000"));
        assert_eq!((&json["leaderId"], &json["leaderAddr"]), (&json!(leader), &json!(address)));
        assert_eq!(call(&follower, "DELETE /kv/x", &[], b"").status, 307);
        send(&address, "PUT /kv/k%20ey", &body).ok();
        assert_eq!(get(&follower, "/kv/k%20ey").ok().text(), format!("by {leader}"));
        // A batch may concern many leaders, and is carried out wherever it comes.
        let batch = json!({ "operations": [{ "op": "put", "key": "b", "value": "1" }] });
        send(&follower, "POST /batch", &batch).ok();
    }
}

#[test]
fn a_proxy_passes_writes_on_and_survives_the_leader() {
    let mut shape = shape(3);
    shape.node_arguments.push(String::from("--http-proxy=on"));
    let mut cluster = cluster(&shape);
    lead(&cluster, 1, 0);
    let address = http(&cluster, 2);
    send(&address, "PUT /kv/k", &json!({ "value": "1" })).ok();
    cluster.kill(1).expect("it ran");
    // In a session of the gateway's own: done once, whatever happens in between, or not at all.
    let written = eventually(PATIENCE, || {
        let reply = send(&address, "PUT /kv/k?timeout_ms=10000", &json!({ "value": "2" }));
        assert!(matches!(reply.status, 200 | 503 | 504), "{} {}", reply.status, reply.text());
        (reply.status == 200).then_some(())
    });
    written.expect("a new leader");
    assert_eq!(get(&address, "/kv/k").ok().text(), "2");
}

#[test]
fn without_a_majority_nothing_is_acknowledged() {
    let mut cluster = three();
    send(&http(&cluster, 1), "PUT /kv/k", &json!({ "value": "1" })).ok();
    for node in [2, 3] {
        cluster.kill(node).expect("it ran");
    }
    let address = http(&cluster, 1);
    let reply = send(&address, "PUT /kv/k?timeout_ms=1500", &json!({ "value": "2" }));
    let known = [(504, "outcome_unknown", false), (503, "unavailable", true)];
    let (code, retryable) = (reply.code(), reply.json()["retryable"] == true);
    assert!(known.contains(&(reply.status, code.as_str(), retryable)), "{} {}", reply.status, reply.text());
    let read = get(&address, "/kv/k?timeout_ms=500");
    assert_eq!((read.status, read.code().as_str()), (503, "unavailable"));
    assert!(!read.header("retry-after").is_empty());
    let stale = get(&address, "/kv/k?consistency=stale").ok();
    assert!(matches!(stale.text().as_str(), "1" | "2"), "{}", stale.text());
    assert_eq!(get(&address, "/livez").status, 200);
    let unready = eventually(PATIENCE, || (get(&address, "/readyz").status == 503).then_some(()));
    unready.expect("a leader without a majority steps down");
}
