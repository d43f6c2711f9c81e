//! The tokio adapter against a small server over real sockets.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod served;

use ringraft_net::client::tokio::{Client, ConnectError};
use ringraft_net::client::{ClientError, Options, RangeQuery};
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use served::{fake::Verdict, run, serve, serve_slowly};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::spawn_local;

#[test]
fn every_operation() {
    run(async {
        let (cluster, addresses) = serve(4).await;
        let client = Client::connect(&addresses, Options::default()).await.unwrap();
        assert!(!client.put("a", "1").await.unwrap().value);
        let again = client.put("a", "2").await.unwrap();
        assert!(again.value && again.position.index > 0);
        assert_eq!(again.term, 7, "as the server says");
        assert_eq!(client.get("a").await.unwrap().value, Some(b"2".to_vec()));
        assert_eq!(client.get_stale("a").await.unwrap().value, Some(b"2".to_vec()));
        assert_eq!(client.get("b").await.unwrap().value, None);
        assert_eq!(client.compare_and_set("a", Some(b"2".to_vec()), "3").await.unwrap().value, Ok(()));
        assert_eq!(client.compare_and_set("a", None, "4").await.unwrap().value, Err(Some(b"3".to_vec())));
        assert!(client.delete("a").await.unwrap().value);
        let operations =
            vec![Operation::Put { key: b"a".to_vec(), value: b"5".to_vec() }, Operation::Get { key: b"a".to_vec() }];
        let answer = client.request(operations, Consistency::Linearizable).await.unwrap();
        assert_eq!(
            answer.value,
            [OperationResult::Put { replaced: false }, OperationResult::Value(Some(b"5".to_vec()))]
        );
        assert_eq!(client.status(2, 0).await.unwrap(), "{\"node\":2,\"shard\":0}");
        let info = client.info().await.unwrap();
        assert_eq!((info.groups, info.shards, info.nodes), (4, 1, vec![1, 2, 3]));
        assert_eq!(info.cluster, cluster.borrow().id);
        let error = client.get("").await.unwrap_err();
        assert!(matches!(error, ClientError::BadRequest { .. }));
    });
}

#[test]
fn pages_of_all_groups_in_order_and_versions() {
    run(async {
        let (_cluster, addresses) = serve(7).await;
        let client = Client::connect(&addresses, Options::default()).await.unwrap();
        for number in 0..100 {
            client.put(format!("key-{number:03}"), format!("{number}")).await.unwrap();
        }
        client.put("other", "x").await.unwrap();
        let (mut query, mut found) = (RangeQuery::prefix("key-").limit(17), Vec::new());
        loop {
            let page = client.range(&query).await.unwrap();
            assert!(page.items.len() <= 17);
            found.extend(page.items.into_iter().map(|item| String::from_utf8(item.key).unwrap()));
            let Some(cursor) = page.next else { break };
            query = query.after(cursor);
        }
        assert_eq!(found, (0..100).map(|number| format!("key-{number:03}")).collect::<Vec<_>>());
        assert_eq!(client.prefix("", 0).await.unwrap().items.len(), 101);
        let put = client.put("other", "y").await.unwrap();
        let read = client.get_versioned("other", Consistency::Linearizable, 0).await.unwrap().value.unwrap();
        assert_eq!((&read.value[..], read.version), (&b"y"[..], put.position.index << 16));
        let refused = client.compare_version_and_set("other", read.version - 1, "z").await.unwrap().value;
        assert_eq!((refused.swapped, refused.version), (false, read.version));
        let swapped = client.compare_version_and_set("other", read.version, "z").await.unwrap().value;
        assert!(swapped.swapped && swapped.version > read.version);
        assert!(client.compare_version_and_delete("other", swapped.version).await.unwrap().value.swapped);
        assert_eq!(client.get_versioned("other", Consistency::Stale, 0).await.unwrap().value, None);
        let created = client.compare_version_and_set("other", 0, "new").await.unwrap().value;
        assert!(created.swapped && created.version > swapped.version);
    });
}

#[test]
fn many_at_once_through_mishaps() {
    run(async {
        let (cluster, addresses) = serve(8).await;
        let options = Options { connections: 2, stall_timeout: Duration::from_millis(200), ..Options::default() };
        let client = Client::connect(&addresses, options).await.unwrap();
        {
            let mut cluster = cluster.borrow_mut();
            cluster.leaders = (0..8).map(|group| group % 3 + 1).collect();
            for turn in 0..400 {
                cluster.script.push_back(match turn % 40 {
                    7 => Verdict::ApplyAndBreak,
                    17 => Verdict::Break,
                    27 => Verdict::Ignore,
                    37 => Verdict::ApplySilently,
                    _ => Verdict::Apply,
                });
            }
        }
        let tasks: Vec<_> = (0..50)
            .map(|task| {
                let client = client.clone();
                spawn_local(async move {
                    for turn in 0..20 {
                        let value = format!("{task}-{turn}");
                        client.put(format!("key-{task}"), value.clone()).await.unwrap();
                        assert_eq!(client.get(format!("key-{task}")).await.unwrap().value, Some(value.into_bytes()));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let cluster = cluster.borrow();
        assert_eq!(cluster.applied.len(), 1_000);
        assert!(cluster.applied.values().all(|&times| times == 1), "exactly once");
    });
}

#[test]
fn large_values_both_ways() {
    run(async {
        let (_cluster, addresses) = serve(1).await;
        let client = Client::connect(&addresses, Options::default()).await.unwrap();
        let value: Vec<u8> = (0..1 << 20).map(|byte: u32| (byte >> 3) as u8).collect();
        let puts: Vec<_> = (0..20)
            .map(|key| {
                let (client, value) = (client.clone(), value.clone());
                spawn_local(async move { client.put(format!("key-{key}"), value).await })
            })
            .collect();
        for put in puts {
            put.await.unwrap().unwrap();
        }
        for key in 0..20 {
            assert_eq!(client.get(format!("key-{key}")).await.unwrap().value.as_ref(), Some(&value));
        }
    });
}

#[test]
fn nobody_there() {
    run(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let options = Options { request_timeout: Duration::from_millis(100), ..Options::default() };
        let error = Client::connect(&[address], options).await.unwrap_err();
        assert!(matches!(error, ConnectError::NoAnswer { .. }), "{error}");
        let error = Client::connect(&Vec::<SocketAddr>::new(), Options::default()).await.unwrap_err();
        assert_eq!(error.to_string(), "no endpoint was given");
    });
}

/// A listener whose queue is full: who connects to it hears nothing.
fn black_hole() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    let socket = || socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let listener = socket();
    listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let waiting = (0..8).map(|_| {
        let socket = socket();
        socket.set_nonblocking(true).unwrap();
        let _ = socket.connect(&address);
        socket
    });
    let waiting = waiting.collect();
    (listener, waiting, address.as_socket().unwrap())
}

#[test]
fn dials_that_are_given_up_end() {
    run(async {
        let (_listener, _waiting, address) = black_hole();
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let connect_timeout = Duration::from_millis(20);
        let client =
            Client::start(Options { endpoints: vec![address], connect_timeout, ..Options::default() }).unwrap();
        while client.info().await.unwrap().statistics.connects < 12 {
            tokio::time::sleep(connect_timeout).await;
        }
        let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks() - before;
        assert!(tasks <= 5, "the driver, and dials that are under way: {tasks}");
    });
}

#[test]
fn calls_that_wait_for_the_cluster_are_bounded() {
    run(async {
        let (_listener, _waiting, address) = black_hole();
        let request_timeout = Duration::from_secs(60);
        let client =
            Client::start(Options { endpoints: vec![address], request_timeout, ..Options::default() }).unwrap();
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..1_100 {
            let client = client.clone();
            calls.spawn_local(async move { client.prefix("", 0).await });
        }
        let first = calls.join_next().await.unwrap().unwrap();
        assert!(matches!(first, Err(ClientError::Overloaded { .. })), "{first:?}");
        calls.shutdown().await;
        // Those that nobody waits for make room.
        let again = tokio::time::timeout(Duration::from_millis(50), client.prefix("", 0)).await;
        assert!(again.is_err(), "{again:?}");
    });
}

#[test]
fn a_page_of_many_rounds_has_one_deadline() {
    run(async {
        let (cluster, addresses) = serve_slowly(16, Duration::from_millis(600)).await;
        // All keys are of one group, which has to be asked four times.
        for key in 0..100 {
            let key = format!("{{t}}{key:03}").into_bytes();
            cluster.borrow_mut().versions.insert(key.clone(), 1 << 16);
            cluster.borrow_mut().store.insert(key, Vec::new());
        }
        let options = Options { request_timeout: Duration::from_secs(2), ..Options::default() };
        let client = Client::connect(&addresses, options).await.unwrap();
        let error = client.range(&RangeQuery::prefix("{t}").limit(100)).await.unwrap_err();
        assert_eq!(error, ClientError::DeadlineExceeded { outcome_unknown: false });
    });
}

#[test]
fn the_wrong_cluster() {
    run(async {
        let (_cluster, addresses) = serve(1).await;
        let options = Options { cluster: Some([9; 16]), ..Options::default() };
        let error = Client::connect(&addresses, options).await.unwrap_err();
        assert!(matches!(error, ConnectError::Refused(ClientError::Refused { .. })), "{error}");
    });
}

#[test]
fn the_driver_ends_with_the_last_handle() {
    run(async {
        let (_cluster, addresses) = serve(1).await;
        let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let client = Client::connect(&addresses, Options::default()).await.unwrap();
        client.put("a", "1").await.unwrap();
        let clone = client.clone();
        drop(client);
        assert!(clone.get("a").await.unwrap().value.is_some());
        drop(clone);
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(tokio::runtime::Handle::current().metrics().num_alive_tasks(), before);
    });
}

#[test]
fn shards_are_where_the_topology_says() {
    run(async {
        let (cluster, addresses) = serve(6).await;
        cluster.borrow_mut().tells_leaders = false;
        cluster.borrow_mut().leaders = vec![1, 2, 3, 1, 2, 3];
        let client = Client::connect(&addresses[..1], Options::default()).await.unwrap();
        for key in 0..60 {
            client.put(format!("key-{key}"), format!("{key}")).await.unwrap();
        }
        let nodes: BTreeSet<_> = cluster.borrow().received.iter().map(|received| received.node).collect();
        assert_eq!(nodes.len(), 3, "learnt from one endpoint");
        let info = client.info().await.unwrap();
        assert_eq!(info.leaders, [1, 2, 3, 1, 2, 3].map(Some));
    });
}
