//! Watches over real sockets, in a cluster whose nodes come and go.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod served;

use ringraft_net::client::Options;
use ringraft_net::client::tokio::Client;
use ringraft_net::client::watch::tokio::Watch;
use ringraft_net::client::watch::{WatchFrom, WatchMessage};
use ringraft_net::wire::NodeInfo;
use ringraft_net::wire::items::{ItemRef, push, version_at};
use served::{Shared, accept, addresses, fake::Cluster, listeners, run};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Notify;

/// Nodes 1 to 3, and a switch that breaks their connections.
async fn begin() -> (Shared, Vec<SocketAddr>, Rc<Notify>) {
    let (sockets, cut) = (listeners(3).await, Rc::new(Notify::new()));
    let addresses = addresses(&sockets);
    let shards: Vec<_> = addresses.iter().map(|&address| vec![address]).collect();
    let cluster = Rc::new(Cluster::new(1, &shards).into());
    accept(&cluster, 1, sockets, &cut, Duration::ZERO);
    (cluster, addresses, cut)
}

/// Nodes 4 to 6 join, and they alone have the group.
async fn join(cluster: &Shared) {
    let sockets = listeners(3).await;
    let mut state = cluster.borrow_mut();
    for (node, address) in (4..).zip(addresses(&sockets)) {
        state.topology.nodes.push(NodeInfo { node, addresses: vec![address.to_string()] });
    }
    state.topology.epoch += 1;
    state.leaders = vec![5];
    state.watched_at = Some(BTreeSet::from([4, 5, 6]));
    accept(cluster, 4, sockets, &Rc::new(Notify::new()), Duration::ZERO);
}

async fn next(watch: &mut Watch) -> WatchMessage {
    watch.next().await.unwrap().unwrap()
}

#[test]
fn a_group_that_only_new_nodes_have_is_found_there() {
    run(async {
        let (cluster, addresses, _cut) = begin().await;
        let client = Client::connect(&addresses, Options::default()).await.unwrap();
        join(&cluster).await;
        // The old nodes answer, and their links stay.
        let mut watch = client.watch("", WatchFrom::Now).await.unwrap();
        assert_eq!(next(&mut watch).await, WatchMessage::Started { group: 0, index: 1 });
        assert_eq!(client.info().await.unwrap().nodes, [1, 2, 3, 4, 5, 6]);
    });
}

#[test]
fn a_client_that_only_watches_follows_when_all_nodes_are_replaced() {
    run(async {
        let (cluster, addresses, cut) = begin().await;
        let client = Client::connect(&addresses, Options::default()).await.unwrap();
        let mut watch = client.watch("", WatchFrom::Now).await.unwrap();
        assert_eq!(next(&mut watch).await, WatchMessage::Started { group: 0, index: 1 });
        join(&cluster).await;
        let version = version_at(5, 0);
        {
            let mut cluster = cluster.borrow_mut();
            cluster.topology.nodes.retain(|info| info.node > 3);
            let mut items = Vec::new();
            push(&mut items, &ItemRef { key: b"k", value: Some(b"v"), version });
            cluster.told = (6, items);
        }
        cut.notify_waiters();
        let WatchMessage::Change(change) = next(&mut watch).await else { panic!("it had started") };
        assert_eq!((change.index, change.version), (5, version));
        assert_eq!(client.info().await.unwrap().nodes, [4, 5, 6]);
    });
}
