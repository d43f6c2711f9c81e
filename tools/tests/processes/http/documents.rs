//! Every example of the reference documents' API sections, as they write it, against a live cluster.
//!
//! Off the data path.
//!
//! The commands are theirs, to the letter, and run by a shell; only their hosts and ports are replaced by those of the
//! cluster. Where the answer differs from what a document shows, the row says so.

use std::process::Command;

use serde_json::Value;

use super::{get, http, three};
use crate::harness::TestCluster;

/// Where the documents' addresses lead: their node 1 is ours, which leads.
const HOSTS: [(&str, u64); 7] = [
    ("127.0.0.1:9101", 1),
    ("127.0.0.1:9102", 2),
    ("127.0.0.1:9103", 3),
    ("localhost:8001", 1),
    ("localhost:8000", 2),
    ("localhost:8080", 1),
    ("localhost:8082", 2),
];

/// What an answer must be.
#[derive(Debug)]
enum Body {
    /// This, to the byte.
    Is(&'static str),
    /// A text that begins so.
    Begins(&'static str),
    /// JSON with these members of these values.
    Has(&'static [(&'static str, &'static str)]),
    /// Anything.
    Any,
}

use Body::{Any, Begins, Has, Is};

/// (command, status, body)
const EXAMPLES: &[(&str, u16, Body)] = &[
    // Distributed Key-Value Store (Raft, Go stdlib)
    (
        r#"curl -X PUT http://127.0.0.1:9101/kv/put -H 'Content-Type: application/json' -d '{"key":"a","value":"1"}'"#,
        200,
        Has(&[("key", "\"a\""), ("replaced", "false"), ("group", "0")]),
    ),
    ("curl http://127.0.0.1:9102/kv/get?key=a", 200, Has(&[("key", "\"a\""), ("value", "\"1\"")])),
    (
        "curl http://127.0.0.1:9103/cluster/status",
        200,
        Has(&[
            ("id", "3"),
            ("role", "\"follower\""),
            ("leaderId", "1"),
            ("currentTerm", "*"),
            ("commitIndex", "*"),
            ("lastApplied", "*"),
        ]),
    ),
    ("curl http://127.0.0.1:9101/cluster/status", 200, Has(&[("id", "1"), ("role", "\"leader\""), ("leaderId", "1")])),
    // Its follower write behaviour: 307, Location, leaderId and leaderAddr; with -L curl follows it.
    (
        r#"curl -X PUT http://127.0.0.1:9102/kv/put -d '{"key":"a","value":"2"}'"#,
        307,
        Has(&[("leaderId", "1"), ("leaderAddr", "*")]),
    ),
    (
        r#"curl -X POST http://127.0.0.1:9103/kv/del -d '{"key":"a"}'"#,
        307,
        Has(&[("leaderId", "1"), ("leaderAddr", "*")]),
    ),
    (r#"curl -L -X PUT http://127.0.0.1:9102/kv/put -d '{"key":"a","value":"2"}'"#, 200, Has(&[("replaced", "true")])),
    (
        r#"curl -X POST http://127.0.0.1:9101/kv/del -d '{"key":"a"}'"#,
        200,
        Has(&[("key", "\"a\""), ("existed", "true")]),
    ),
    ("curl http://127.0.0.1:9103/kv/get?key=a", 404, Has(&[("code", "\"key_not_found\"")])),
    // Its stale follower reads are a mode here.
    ("curl 'http://127.0.0.1:9103/kv/get?key=a&consistency=stale'", 404, Has(&[("code", "\"key_not_found\"")])),
    // Between nodes there is another protocol here: net/PROTOCOL.md.
    ("curl -X POST http://127.0.0.1:9101/raft/requestVote -d '{}'", 404, Has(&[("code", "\"not_found\"")])),
    ("curl -X POST http://127.0.0.1:9101/raft/appendEntries -d '{}'", 404, Has(&[("code", "\"not_found\"")])),
    ("curl -X POST http://127.0.0.1:9101/raft/installSnapshot -d '{}'", 404, Has(&[("code", "\"not_found\"")])),
    // KVStore-raft-consensus. It answers a write before its commit and says so; here it is committed.
    (
        "curl -X POST http://localhost:8001/kv/mykey \\\n  -H \"Content-Type: application/json\" \\\n  -d '{\"value\": \"myvalue\"}'",
        200,
        Begins("✓ Committed SET mykey = myvalue (index: "),
    ),
    ("curl http://localhost:8001/kv/mykey", 200, Is("myvalue")),
    ("curl -X DELETE http://localhost:8001/kv/mykey", 200, Is("✓ Key deleted\n")),
    (
        r#"curl -X POST http://localhost:8001/kv/username -H "Content-Type: application/json" -d '{"value": "john_doe"}'"#,
        200,
        Begins("✓ Committed SET username = john_doe (index: "),
    ),
    ("curl http://localhost:8001/kv/username", 200, Is("john_doe")),
    ("curl -X DELETE http://localhost:8001/kv/username", 200, Is("✓ Key deleted\n")),
    ("curl http://localhost:8001/health", 200, Has(&[("status", "\"ok\"")])),
    (
        "curl http://localhost:8000/cluster/status",
        200,
        Has(&[
            ("leader", "1"),
            ("currentTerm", "*"),
            ("liveNodes", "3"),
            ("totalNodes", "3"),
            ("electedAt", "*"),
            ("replicationProgress", "*"),
        ]),
    ),
    ("curl http://localhost:8000/cluster/nodes", 200, Has(&[("nodes", "*")])),
    // Raft Production Implementation
    (
        r#"curl -X PUT http://localhost:8080/kv/mykey -d '{"value": "myvalue"}'"#,
        200,
        Begins("✓ Committed SET mykey = myvalue"),
    ),
    ("curl http://localhost:8080/kv/mykey", 200, Is("myvalue")),
    ("curl -X DELETE http://localhost:8080/kv/mykey", 200, Is("✓ Key deleted\n")),
    ("curl http://localhost:8080/admin/status", 200, Has(&[("leader", "1"), ("nodes", "*"), ("shards", "*")])),
    ("curl http://localhost:8080/metrics", 200, Any),
    // Decided at once; the node joins when it is started.
    (
        r#"curl -X POST http://localhost:8080/admin/nodes -d '{"id": "node4", "address": "localhost:8084"}'"#,
        202,
        Has(&[("id", "4"), ("accepted", "true")]),
    ),
    ("curl -X DELETE http://localhost:8082/admin/nodes/node4", 202, Has(&[("id", "4"), ("accepted", "true")])),
    // The keys `put`, `del` and `get` are keys when nothing names another one.
    (r#"curl -X PUT http://localhost:8080/kv/put -d '{"value": "v"}'"#, 200, Begins("✓ Committed SET put = v")),
    (r#"curl -X POST http://localhost:8080/kv/del -d '{"value": "w"}'"#, 200, Begins("✓ Committed SET del = w")),
    (r#"curl -X POST http://localhost:8080/kv/get -d '{"value": "x"}'"#, 200, Begins("✓ Committed SET get = x")),
    ("curl http://localhost:8080/kv/put", 200, Is("v")),
    ("curl http://localhost:8080/kv/get", 200, Is("x")),
    ("curl -X DELETE http://localhost:8080/kv/del", 200, Is("✓ Key deleted\n")),
];

/// Status and body of a command.
fn run(cluster: &TestCluster, example: &str) -> (u16, String) {
    let mut command = example.to_owned();
    for (host, node) in HOSTS {
        command = command.replace(host, &http(cluster, node));
    }
    // The shell takes `?` for a pattern when a file matches; it is run where none does.
    let command = command.replacen("curl", "curl -sS --max-time 20 -w '\\n%{http_code}'", 1);
    let output = Command::new("bash").args(["-c", &command]).output().expect("bash and curl");
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().expect("a status"), body.to_owned())
}

fn check(example: &str, body: &str, expected: &Body) {
    match expected {
        Is(text) => assert_eq!(body, *text, "{example}"),
        Begins(text) => assert!(body.starts_with(text), "{example}: {body}"),
        Has(members) => {
            let json: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{example}: {error}: {body}"));
            for (name, value) in *members {
                let found = &json[name];
                let is_it = match *value {
                    "*" => !found.is_null(),
                    value => serde_json::from_str::<Value>(value).is_ok_and(|value| *found == value),
                };
                assert!(is_it, "{example}: {name} is {found}, not {value}");
            }
        }
        Any => {}
    }
}

#[test]
fn every_example_of_the_documents_is_answered_as_they_say() {
    let cluster = three();
    for (example, status, body) in EXAMPLES {
        let (found, text) = run(&cluster, example);
        assert_eq!(found, *status, "{example}: {text}");
        check(example, &text, body);
    }
    let progress = get(&http(&cluster, 2), "/cluster/status").json()["replicationProgress"].clone();
    for node in ["2", "3"] {
        let row = &progress[node];
        assert!(row["matchIndex"].as_u64() < row["nextIndex"].as_u64(), "{progress}");
    }
}
