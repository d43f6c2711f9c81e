//! The fake cluster behind real sockets, for tests.
//!
//! Off the data path.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../fake/mod.rs"]
pub(crate) mod fake;

use fake::{Accepting, Cluster};
use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::{LocalSet, spawn_local};

pub(crate) type Shared = Rc<RefCell<Cluster>>;

/// Three nodes with one shard each.
pub(crate) async fn serve(groups: u32) -> (Shared, Vec<SocketAddr>) {
    serve_slowly(groups, Duration::ZERO).await
}

/// As [`serve`]; every answer takes so long at least.
pub(crate) async fn serve_slowly(groups: u32, pause: Duration) -> (Shared, Vec<SocketAddr>) {
    let listeners = listeners(3).await;
    let addresses = addresses(&listeners);
    let shards: Vec<_> = addresses.iter().map(|&address| vec![address]).collect();
    let cluster = Rc::new(RefCell::new(Cluster::new(groups, &shards)));
    accept(&cluster, 1, listeners, &Rc::new(Notify::new()), pause);
    (cluster, addresses)
}

pub(crate) async fn listeners(count: usize) -> Vec<TcpListener> {
    let mut listeners = Vec::new();
    for _ in 0..count {
        listeners.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    listeners
}

pub(crate) fn addresses(listeners: &[TcpListener]) -> Vec<SocketAddr> {
    listeners.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

/// Nodes from `first` on begin to accept; `cut` breaks the connections they have.
pub(crate) fn accept(cluster: &Shared, first: u64, listeners: Vec<TcpListener>, cut: &Rc<Notify>, pause: Duration) {
    for (node, listener) in (first..).zip(listeners) {
        let (cluster, cut) = (Rc::clone(cluster), Rc::clone(cut));
        spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (cluster, cut) = (Rc::clone(&cluster), Rc::clone(&cut));
                spawn_local(async move {
                    tokio::select! {
                        () = cut.notified() => {}
                        () = connection(cluster, node, stream, pause) => {}
                    }
                });
            }
        });
    }
}

async fn connection(cluster: Shared, node: u64, mut stream: TcpStream, pause: Duration) {
    let (mut accepting, mut bytes) = (Accepting::default(), vec![0; 10_000]);
    while let Ok(count @ 1..) = stream.read(&mut bytes).await {
        let mut answer = Vec::new();
        let alive = accepting.receive(&mut cluster.borrow_mut(), node, 0, &bytes[..count], &mut answer);
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
        if stream.write_all(&answer).await.is_err() || !alive {
            return;
        }
    }
}

pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        tokio::time::timeout(Duration::from_secs(20), test).await.expect("the test hangs");
    });
}
