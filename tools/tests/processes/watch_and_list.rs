//! Watches and listings of a real cluster through the client library, while leaders are killed.
//!
//! Off the data path.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringraft_net::client::tokio::Client;
use ringraft_net::client::watch::{WatchFrom, WatchMessage};
use ringraft_net::client::{Options, RangeQuery};
use ringraft_tools::local_cluster::Shape;
use serde_json::Value;
use tokio::runtime::Builder;

use crate::harness::{TestCluster, ringraft, shape, text};

const PATIENCE: Duration = Duration::from_secs(60);
const KEYS: u32 = 40;
const ROUNDS: u32 = 3;

fn value(round: u32, number: u32) -> String {
    format!("{round}-{number}")
}

/// Writes every key once; each write is repeated by the client until it is done.
async fn write(client: &Client, round: u32) {
    for number in 0..KEYS {
        client.put(format!("key-{number:03}"), value(round, number)).await.expect("a write in a session");
    }
}

#[test]
fn a_watch_goes_on_without_gaps_or_duplicates_when_leaders_are_killed() {
    let mut cluster = TestCluster::start(&Shape { groups: 4, ..shape(3) });
    let endpoints = cluster.file().endpoints();
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let options = Options { request_timeout: PATIENCE, ..Options::default() };
        let client = Client::connect(&endpoints, options).await.expect("a client");
        let mut watch = client.watch("key-", WatchFrom::Index(1)).await.expect("a watch");
        let mut seen: BTreeMap<Vec<u8>, Vec<(u64, Vec<u8>)>> = BTreeMap::new();
        let deadline = Instant::now() + PATIENCE;
        for round in 0..ROUNDS {
            write(&client, round).await;
            client.put("other", "not watched").await.expect("a write");
            let told = |seen: &BTreeMap<_, Vec<_>>| seen.values().map(Vec::len).sum::<usize>() as u32;
            while told(&seen) < (round + 1) * KEYS {
                assert!(Instant::now() < deadline, "{} changes of round {round}", told(&seen));
                match watch.next().await.expect("it goes on").expect("no error") {
                    WatchMessage::Change(change) => {
                        let value = change.value.expect("only puts");
                        seen.entry(change.key).or_default().push((change.version, value));
                    }
                    WatchMessage::Started { .. } => {}
                    gap @ WatchMessage::Compacted { .. } => panic!("{gap:?}"),
                }
            }
            let leader = cluster.leader(round % 4);
            cluster.kill(leader).expect("a leader is killed");
            cluster.start_node(leader).expect("it starts again");
        }
        assert_eq!(seen.len() as u32, KEYS);
        for (key, changes) in &seen {
            let number: u32 = String::from_utf8_lossy(&key[4..]).parse().expect("a number");
            let values: Vec<_> = changes.iter().map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
            assert_eq!(values, (0..ROUNDS).map(|round| value(round, number)).collect::<Vec<_>>());
            assert!(changes.windows(2).all(|pair| pair[0].0 < pair[1].0), "versions grow");
        }
        // The list has the same keys, values and versions.
        cluster.serve();
        let page = client.range(&RangeQuery::prefix("key-")).await.expect("a page");
        let listed: Vec<_> = page.items.into_iter().map(|item| (item.key, (item.version, item.value))).collect();
        let last = seen.into_iter().map(|(key, changes)| (key, changes.into_iter().next_back().expect("a change")));
        assert_eq!(listed, last.collect::<Vec<_>>());
    });
}

#[test]
fn list_and_watch_on_the_command_line() {
    let cluster = TestCluster::start(&Shape { groups: 4, ..shape(3) });
    let endpoints = cluster.file().endpoints().join(",");
    let run = |arguments: &[&str]| {
        let output = ringraft(&[arguments, &["--endpoints", &endpoints]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        text(&output)
    };
    for number in 0..7 {
        run(&["put", &format!("user:{number}"), &format!("name {number}")]);
    }
    run(&["put", "other", "x"]);
    assert_eq!(run(&["list", "--prefix", "user:", "--limit", "2"]), "user:0\tname 0\nuser:1\tname 1\n");
    assert_eq!(run(&["list", "--prefix", "user:", "--limit", "2", "--after", "user:5", "--keys-only"]), "user:6\n");
    assert_eq!(run(&["list", "--end", "user:1", "--consistency", "follower"]), "other\tx\nuser:0\tname 0\n");
    let all: Value = serde_json::from_str(&run(&["list", "--limit", "0", "--json"])).expect("JSON");
    assert_eq!((all["keys"].as_array().map(Vec::len), &all["more"]), (Some(8), &Value::from(false)));
    assert!(all["keys"][0]["version"].as_u64().is_some_and(|version| version > 0));
    let told = run(&["watch", "user:", "--from", "1", "--count", "7", "--json"]);
    let changes: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let puts: Vec<_> = changes.iter().filter(|line| line["type"] == "put").collect();
    assert_eq!(puts.len(), 7);
    assert!(puts.iter().all(|put| put["key"].as_str().is_some_and(|key| key.starts_with("user:"))));
}
