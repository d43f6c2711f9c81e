//! What operators see and do over HTTP, and what the description of the routes says of it.
//!
//! Off the data path.

use std::collections::BTreeSet;
use std::time::Duration;

use ringraft_tools::local_cluster::Shape;
use serde_json::{Value, json};

use super::{PATIENCE, call, cluster, get, http, send};
use crate::harness::{eventually, ringraft, shape, text};

#[test]
fn every_group_has_a_row_and_every_node_its_addresses() {
    let cluster = cluster(&Shape { groups: 3, shards: 2, ..shape(3) });
    let heard = eventually(PATIENCE, || {
        let nodes = get(&http(&cluster, 2), "/cluster/nodes").ok().json()["nodes"].clone();
        let all = nodes.as_array().unwrap().iter().all(|row| row["httpAddr"].is_string() && row["alive"] == true);
        all.then_some(nodes)
    });
    let status = get(&http(&cluster, 2), "/cluster/status").ok().json();
    let groups = status["groups"].as_array().unwrap();
    assert_eq!(groups.iter().map(|row| row["group"].as_u64()).collect::<Vec<_>>(), [Some(0), Some(1), Some(2)]);
    assert_eq!((&status["liveNodes"], &status["totalNodes"]), (&json!(3), &json!(3)));
    let elected = status["electedAt"].as_str().unwrap();
    assert!(elected.len() == 20 && elected.ends_with('Z'), "{elected}");
    let nodes = heard.expect("the nodes hear of each other");
    for (row, node) in nodes.as_array().unwrap().iter().zip(&cluster.file().nodes) {
        assert_eq!(row["httpAddr"], json!(node.http));
        assert_eq!(row["addresses"], json!(node.addresses));
        assert_eq!(row["grpcAddr"], row["httpAddr"], "one port");
    }
    // The leaders find their places in the first seconds.
    let all_led = eventually(PATIENCE, || {
        let nodes = get(&http(&cluster, 1), "/cluster/nodes").ok().json()["nodes"].clone();
        let led: u64 = nodes.as_array().unwrap().iter().filter_map(|row| row["groupsLed"].as_u64()).sum();
        (led == 3).then_some(())
    });
    all_led.expect("every group has a leader");
    let admin = get(&http(&cluster, 1), "/admin/status").ok().json();
    assert_eq!(admin["shards"].as_array().map(Vec::len), Some(2));
    let directory =
        cluster.node_directory(1).parent().expect("the folder of the cluster").to_string_lossy().into_owned();
    let leaders: Value =
        serde_json::from_str(&text(&ringraft(&["cluster", "leader", "--dir", &directory, "--json"]))).unwrap();
    for row in leaders.as_array().unwrap() {
        assert_eq!(row["http"], json!(http(&cluster, row["id"].as_u64().unwrap())));
        assert!(row["native"].is_string() && row["grpc"].is_string(), "{row}");
    }
}

#[test]
fn a_node_that_joins_serves_http_too() {
    let mut cluster = cluster(&Shape { groups: 2, ..shape(3) });
    let id = cluster.add_node(None, Duration::from_secs(60), |_| {}).expect("a node joins");
    let address = http(&cluster, id);
    for asked in [&address, &http(&cluster, 1)] {
        let whole = eventually(PATIENCE, || {
            let status = get(asked, "/cluster/status");
            let status = (status.status == 200).then(|| status.json())?;
            let groups = status["groups"].as_array()?.len();
            (status["totalNodes"] == 4 && status["liveNodes"] == 4 && groups == 2).then_some(())
        });
        whole.unwrap_or_else(|| panic!("{}", get(asked, "/cluster/status").text()));
    }
    let written = eventually(PATIENCE, || {
        let reply = send(&address, "PUT /kv/k", &json!({ "value": "v" }));
        let place = reply.header("location").trim_start_matches("http://").split('/').next().unwrap_or_default();
        let reply = if reply.status == 307 { send(place, "PUT /kv/k", &json!({ "value": "v" })) } else { reply };
        (reply.status == 200).then_some(())
    });
    written.expect("a leader");
    assert_eq!(get(&address, "/kv/k").ok().text(), "v");
}

#[test]
fn leaders_hand_over_and_replicas_take_snapshots() {
    let cluster = cluster(&shape(3));
    let address = http(&cluster, 1);
    for to in [json!(2), json!("node3"), json!("1")] {
        let reply = eventually(PATIENCE, || {
            Some(send(&address, "POST /admin/transfer", &json!({ "to": to }))).filter(|reply| reply.status == 200)
        });
        let reply = reply.expect("a transfer").json();
        let id = to.as_u64().unwrap_or_else(|| to.as_str().unwrap().trim_start_matches("node").parse().unwrap());
        assert_eq!(reply["leaderId"], json!(id));
    }
    send(&address, "PUT /kv/k?timeout_ms=5000", &json!({ "value": "v" }));
    let taken = call(&address, "POST /admin/snapshot", &[], b"").ok().json();
    assert!(taken["snapshots"][0]["index"].as_u64() > Some(0), "{taken}");
    let other = send(&address, "POST /admin/snapshot", &json!({ "node": 2, "group": 0 })).ok().json();
    assert_eq!(other["node"], 2);
    for (line, body, status, code) in [
        ("POST /admin/transfer", json!({ "to": 9 }), 404, "not_found"),
        ("POST /admin/transfer", json!({ "group": 9 }), 404, "not_found"),
        ("POST /admin/transfer", json!({ "too": 9 }), 400, "bad_request"),
        ("POST /admin/snapshot", json!({ "node": 9, "group": 0 }), 404, "not_found"),
        ("POST /admin/nodes", json!({ "id": "node" , "address": "h:1" }), 400, "bad_request"),
        ("POST /admin/nodes", json!({ "id": 1, "address": "nowhere" }), 400, "bad_request"),
        ("POST /admin/nodes", json!({ "id": 1, "address": "127.0.0.1:9" }), 409, "not_allowed"),
        ("DELETE /admin/nodes/9", json!({}), 409, "not_allowed"),
        ("DELETE /admin/nodes", json!({}), 400, "bad_request"),
    ] {
        let reply = send(&address, line, &body);
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{line} {body}: {}", reply.text());
    }
}

/// The routes as a client meets them.
#[test]
fn the_description_names_every_route_and_no_other() {
    let cluster = cluster(&shape(1));
    let address = http(&cluster, 1);
    let described = get(&address, "/openapi.json").ok().json();
    assert_eq!(described["openapi"], "3.1.0");
    for (path, methods) in described["paths"].as_object().unwrap() {
        let path = path.replace("{key}", "some").replace("{id}", "x");
        let described: BTreeSet<_> = methods.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        let wrong = call(&address, &format!("PATCH {path}"), &[], b"");
        assert_eq!((wrong.status, wrong.code().as_str()), (405, "method_not_allowed"), "{path}");
        let allowed: BTreeSet<_> = wrong.header("allow").split(',').map(|method| method.trim().to_owned()).collect();
        let missing: Vec<_> = described.difference(&allowed).collect();
        assert!(missing.is_empty(), "{path} does not take {missing:?}");
        // What is beside the description: HEAD beside GET, and keys called put, del and get.
        let more: BTreeSet<_> =
            allowed.difference(&described).map(String::as_str).filter(|method| *method != "HEAD").collect();
        assert!(more.is_empty() || matches!(path.as_str(), "/kv/put" | "/kv/del" | "/kv/get"), "{path}: {more:?}");
    }
}
