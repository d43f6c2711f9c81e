//! HTTP against a live cluster: a client of a few lines, so that tests may send what no library would.
//!
//! Off the data path.
//! Invariant: every wait has a deadline.

mod documents;
mod keys;
mod operators;
mod strangers;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use ringraft_tools::local_cluster::{Http, Shape};
use serde_json::{Value, json};

use crate::harness::{TestCluster, eventually, shape};

/// Longest wait for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The answer to a request that must have gone well.
    pub(crate) fn ok(self) -> Self {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text());
        self
    }

    /// The code of an error; it must be one.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        assert!(body["message"].is_string() && body["retryable"].is_boolean(), "{body}");
        body["code"].as_str().expect("a code").to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn read(stream: &mut TcpStream) -> Option<Self> {
        let mut bytes = Vec::new();
        // A server that closes early may reset the connection behind its answer.
        let _ = stream.read_to_end(&mut bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let pairs = lines.filter_map(|line| line.split_once(':'));
        let headers = pairs.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
        Some(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }
}

/// A connection that gives up in time.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// Sends bytes as they are; `None`: closed without an answer.
pub(crate) fn exchange(address: &str, bytes: &[u8]) -> Option<Reply> {
    let mut stream = connect(address);
    // The other side may have heard enough.
    let _ = stream.write_all(bytes);
    Reply::read(&mut stream)
}

/// One request.
pub(crate) fn call(address: &str, line: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut bytes = format!("{line} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        bytes += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || line.starts_with('P') {
        bytes += &format!("Content-Length: {}\r\n", body.len());
    }
    let bytes = [bytes.as_bytes(), b"\r\n", body].concat();
    exchange(address, &bytes).unwrap_or_else(|| panic!("{line}: closed without an answer"))
}

pub(crate) fn get(address: &str, path: &str) -> Reply {
    call(address, &format!("GET {path}"), &[], b"")
}

/// One request with JSON.
pub(crate) fn send(address: &str, line: &str, body: &Value) -> Reply {
    call(address, line, &[("Content-Type", "application/json")], body.to_string().as_bytes())
}

/// A cluster that serves HTTP.
pub(crate) fn cluster(shape: &Shape) -> TestCluster {
    TestCluster::start(&Shape { http: Http::Free, ..shape.clone() })
}

/// Three nodes; the first leads every group.
pub(crate) fn three() -> TestCluster {
    let cluster = cluster(&shape(3));
    lead(&cluster, 1, 0);
    cluster
}

/// Where a node serves HTTP.
pub(crate) fn http(cluster: &TestCluster, id: u64) -> String {
    let node = cluster.file().nodes.iter().find(|node| node.id == id);
    node.and_then(|node| node.http.clone()).expect("a node with HTTP")
}

/// Makes a node lead a group, and all nodes know it.
pub(crate) fn lead(cluster: &TestCluster, id: u64, group: u32) {
    let any = http(cluster, id);
    let done = eventually(PATIENCE, || {
        let reply = send(&any, "POST /admin/transfer", &json!({ "group": group, "to": id }));
        (reply.status == 200).then_some(())
    });
    done.expect("a transfer");
    for node in &cluster.file().nodes {
        let address = http(cluster, node.id);
        let known = eventually(PATIENCE, || {
            let status = get(&address, "/cluster/status");
            let row = (status.status == 200).then(|| status.json())?["groups"][group as usize].clone();
            (row["leaderId"] == id && get(&address, "/readyz").status == 200).then_some(())
        });
        known.unwrap_or_else(|| panic!("node {} does not know that node {id} leads", node.id));
    }
    // The addresses of others come with their reports, once a second.
    let heard = eventually(PATIENCE, || {
        let all = cluster.file().nodes.iter().all(|node| {
            let nodes = get(&http(cluster, node.id), "/cluster/nodes").json();
            let rows = nodes["nodes"].as_array().cloned().unwrap_or_default();
            !rows.is_empty() && rows.iter().all(|row| row["httpAddr"].is_string())
        });
        all.then_some(())
    });
    heard.expect("the nodes hear of each other");
}
