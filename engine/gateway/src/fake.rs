//! A node that is asked for its status and little else, for tests.
//!
//! Off the data path; tests only.
//! Invariant: it counts what it is asked and answers no request of a client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use ringraft_net::client::Options;
use ringraft_net::client::tokio::Client;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::handshake::{Acceptor, Identity};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, NodeInfo, Topology};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::time::{sleep, timeout};

use crate::settings::{Settings, Sources};
use crate::state::State;

/// The node.
pub(crate) const NODE: u64 = 1;
/// Another one, which does not exist but has an address.
pub(crate) const OTHER: u64 = 2;

const CLUSTER: [u8; 16] = [7; 16];

/// What it does and what it was asked.
#[derive(Debug)]
pub(crate) struct Script {
    /// It says that this node leads.
    pub(crate) leader: u64,
    /// It answers questions for its status.
    pub(crate) answers: bool,
    /// Such questions.
    pub(crate) statuses: usize,
    /// Requests of clients.
    pub(crate) requests: usize,
}

/// Runs a test on a runtime of its own.
pub(crate) fn run<F: Future<Output = ()>>(test: F) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { timeout(Duration::from_secs(50), test).await.expect("the test hangs") });
}

/// Waits until something has come about.
pub(crate) async fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        sleep(Duration::from_millis(1)).await;
    }
}

/// A node with one shard and one group.
#[derive(Clone, Debug)]
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = Script { leader: NODE, answers: true, statuses: 0, requests: 0 };
        let fake = Self { address: listener.local_addr().unwrap(), script: Arc::new(Mutex::new(script)) };
        let accepting = fake.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = accepting.clone();
                tokio::spawn(async move { fake.connection(stream).await });
            }
        });
        fake
    }

    pub(crate) fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap()
    }

    /// A gateway's state beside it.
    pub(crate) fn state(&self, change: impl FnOnce(&mut Settings)) -> State {
        let mut settings = Settings { node: NODE, endpoints: vec![self.address], ..Settings::default() };
        settings.request_timeout = Duration::from_secs(60);
        change(&mut settings);
        let endpoints = settings.endpoints.clone();
        let options = Options { endpoints, request_timeout: settings.request_timeout, ..Options::default() };
        let client = Client::start(Options { in_flight_max: settings.requests_max, ..options }).unwrap();
        State::new(settings, Sources::default(), client)
    }

    async fn connection(&self, mut stream: TcpStream) {
        let identity = Identity {
            cluster: CLUSTER,
            node: NODE,
            shard: 0,
            config_digest: 0,
            members: vec![NODE, OTHER],
            removed: Vec::new(),
        };
        let (mut received, mut greeted, mut bytes) = (Vec::new(), false, vec![0; 64 << 10]);
        while let Ok(count @ 1..) = stream.read(&mut bytes).await {
            received.extend_from_slice(&bytes[..count]);
            let mut out = Vec::new();
            if !greeted {
                let accepted = Acceptor::new(&identity).receive(&received, || self.topology(), &mut out).unwrap();
                if let Some(accepted) = accepted {
                    received.drain(..accepted.consumed);
                    greeted = true;
                }
            }
            while let Some(frame) = frame::parse(&received, &Limits::CLIENT).unwrap().filter(|_| greeted) {
                let (kind, correlation, total_bytes) = (frame.kind, frame.correlation, frame.total_bytes);
                received.drain(..total_bytes);
                self.asked(kind, correlation, &mut out);
            }
            if stream.write_all(&out).await.is_err() {
                return;
            }
        }
    }

    fn asked(&self, kind: FrameKind, correlation: u32, out: &mut Vec<u8>) {
        let mut script = self.script();
        match kind {
            FrameKind::Status => {
                script.statuses += 1;
                if script.answers {
                    wire::append_status_reply(out, correlation, &status(script.leader));
                }
            }
            _ => script.requests += 1,
        }
    }

    fn topology(&self) -> Topology {
        let node = |node| NodeInfo { node, addresses: vec![self.address.to_string()] };
        Topology { epoch: 1, groups: 1, shards: 1, nodes: vec![node(NODE)], leaders: vec![Some(NODE)] }
    }
}

fn status(leader: u64) -> String {
    let role = if leader == NODE { "leader" } else { "follower" };
    let text = json!({
        "now_us": 1,
        "disk_stalled": false,
        "groups": [{
            "group": 0, "role": role, "term": 1, "leader": leader, "serving": true, "commit_index": 1,
            "last_applied": 1, "last_index": 1, "keys": 0, "voters": [NODE, OTHER], "learners": [],
            "snapshot_index": 0, "followers": [],
        }],
        "nodes": [{
            "node": OTHER, "alive": true, "release": "", "requests_per_second": 0, "http_address": "other:80",
        }],
    });
    text.to_string()
}
