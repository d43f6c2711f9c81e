//! Connections that are wrong, broken or hostile: each gets a clear answer or a closed connection, and nothing is lost.
//!
//! Off the data path.

use std::fs::{self, File};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ringraft_net::frame::{self, FrameKind};
use ringraft_net::wire::{self, Hello, Operation, PROTOCOL_VERSION, Request, Role};
use ringraft_tools::ports;
use ringraft_tools::probe::{Connection, client_hello};
use tempfile::TempDir;

use crate::client::Session;
use crate::harness::{TestCluster, binary, eventually, folder, shape};

const PATIENCE: Duration = Duration::from_secs(20);

fn refusal(address: &str, hello: &Hello) -> String {
    let answer = Connection::connect(address).and_then(|mut connection| connection.greet(hello));
    match answer {
        Ok(welcome) => panic!("welcomed by node {}: {hello:?}", welcome.node),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn a_wrong_hello_is_refused_with_the_reason() {
    let cluster = TestCluster::start(&shape(1));
    let address = cluster.address(1);
    let (_, welcome) = Connection::open(&address).expect("a right hello is welcome");
    let peer = Hello { cluster: welcome.cluster, role: Role::Peer, node: 2, to_node: 1, to_shard: 0, ..client_hello() };
    let newer = PROTOCOL_VERSION + 1;
    let versions = format!("version {PROTOCOL_VERSION}, the other side {newer}");
    let cases = [
        (Hello { cluster: [7; 16], ..client_hello() }, "07070707"),
        (Hello { protocol: newer, ..client_hello() }, versions.as_str()),
        (Hello { to_node: 9, ..client_hello() }, "node 9 was dialed"),
        (Hello { to_shard: 5, ..client_hello() }, "shard 5 was dialed"),
        (Hello { cluster: [7; 16], ..peer.clone() }, "07070707"),
        (Hello { protocol: 0, ..peer.clone() }, "protocol version"),
        (peer, "node 2 is no other member"),
    ];
    for (hello, expected) in cases {
        let said = refusal(&address, &hello);
        assert!(said.contains(expected), "{hello:?} was refused with {said:?}, not {expected:?}");
    }
    Session::without(&[address]).put("key", "value").expect("the node still serves");
}

/// A header that is right in itself; body bytes may follow.
fn header(kind: FrameKind, head_length: u32, version: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::begin(&mut bytes, kind, 1).finish();
    bytes[2] = version;
    bytes[4..8].copy_from_slice(&head_length.to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[..20]);
    bytes[20..24].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn request_with_a_flipped_bit() -> Vec<u8> {
    let operations = vec![Operation::Put { key: b"flipped".to_vec(), value: b"value".to_vec() }];
    let mut bytes = Vec::new();
    Request { operations, ..Request::default() }.append_frame(&mut bytes, 1);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes
}

/// Sends bytes and waits for the end of the connection; the text of a refusal before it, if there is one.
fn outcome(address: &str, greet: bool, bytes: &[u8]) -> String {
    let mut connection = Connection::connect(address).expect("a connection");
    if greet {
        connection.greet(&client_hello()).expect("a welcome");
    }
    // The node may close before everything is sent.
    let _ = connection.send(bytes);
    let mut said = String::new();
    loop {
        match connection.receive_or_end() {
            Ok(Some(answer)) if answer.kind == FrameKind::Refused => {
                said.push_str(&wire::view_refused(&answer.head).expect("a refusal").message);
            }
            Ok(Some(answer)) => panic!("answered garbage with {:?}", answer.kind),
            Ok(None) => return said,
            Err(error) => {
                let reset = format!("{error:#}").contains("reset");
                assert!(reset, "the connection was not closed: {error:#}; said: {said}");
                return said;
            }
        }
    }
}

#[test]
fn garbage_and_oversize_frames_end_only_their_connection() {
    let cluster = TestCluster::start(&shape(1));
    let address = cluster.address(1);
    let mut session = Session::without(std::slice::from_ref(&address));
    session.put("key", "value").expect("a write");
    let garbage: Vec<u8> = (0..100_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let cases: [(&str, bool, Vec<u8>, &str); 8] = [
        ("garbage first", false, garbage.clone(), "not a ringraft frame"),
        ("garbage later", true, garbage, ""),
        ("http", false, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), "not a ringraft frame"),
        ("another frame version", false, header(FrameKind::Hello, 0, 9), "version 9"),
        ("oversize first", false, header(FrameKind::Hello, 1 << 30, 1), "at most"),
        ("oversize later", true, header(FrameKind::Request, 64 << 20, 1), ""),
        ("no hello", false, request_frame(), "not Hello"),
        ("a flipped bit", true, request_with_a_flipped_bit(), ""),
    ];
    for (name, greet, bytes, expected) in cases {
        let said = outcome(&address, greet, &bytes);
        assert!(said.contains(expected), "{name}: said {said:?}, not {expected:?}");
        assert_eq!(session.get("key").expect("a read").as_deref(), Some("value"), "after {name}");
    }
    assert_eq!(session.get("flipped").expect("a read"), None, "a damaged request must not be done");
}

fn request_frame() -> Vec<u8> {
    let mut bytes = Vec::new();
    Request { operations: vec![Operation::Get { key: b"key".to_vec() }], ..Request::default() }
        .append_frame(&mut bytes, 1);
    bytes
}

#[test]
fn a_node_of_another_cluster_is_kept_out_and_says_so() {
    let mut cluster = TestCluster::start(&shape(3));
    let endpoints = cluster.file().endpoints();
    let term = cluster.serve().leaders()[&0].1;
    let stray = Stray::start(&endpoints);
    let told = eventually(PATIENCE, || stray.log().contains("belongs to cluster").then_some(()));
    assert!(told.is_some(), "the stray's log does not tell: {}", stray.log());
    Session::without(&endpoints).put("key", "value").expect("the cluster serves on");
    assert_eq!(cluster.serve().leaders()[&0].1, term, "the stray must not move the term");
}

/// A node that means another cluster, at the addresses of this one.
struct Stray {
    child: Child,
    folder: TempDir,
}

impl Stray {
    fn start(endpoints: &[String]) -> Self {
        let folder = folder();
        let log = File::create(folder.path().join("log")).expect("a log");
        let port = ports::free_run(1).expect("a port");
        let peers = format!("1=127.0.0.1:{port},2={},3={}", endpoints[1], endpoints[2]);
        let mut command = Command::new(binary());
        command.args(["node", "--init", "--id=1", "--cluster-id=0123456789abcdef0123456789abcdef", "--peers", &peers]);
        command.args(["--segment-bytes=32MiB", "--segment-pool=1", "--stop-on-stdin-end", "--data-dir"]);
        let child = command.arg(folder.path().join("data")).stdin(Stdio::piped()).stderr(log).spawn();
        Self { child: child.expect("the stray starts"), folder }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Stray {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
