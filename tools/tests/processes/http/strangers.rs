//! Clients that are wrong, slow, idle, many or gone: the right status, bounded memory, nothing lost.
//!
//! Off the data path.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringraft_tools::local_cluster::Shape;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

use super::{PATIENCE, Reply, call, cluster, connect, exchange, get, http, send};
use crate::harness::{TestCluster, eventually, shape};

fn with(arguments: &[&str]) -> (TestCluster, String) {
    let mut shape: Shape = shape(1);
    shape.node_arguments.extend(arguments.iter().copied().map(String::from));
    let cluster = cluster(&shape);
    let address = http(&cluster, 1);
    (cluster, address)
}

/// (line, headers, body, status, code)
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [u8], u16, &'a str);

#[test]
fn wrong_requests_get_the_right_status() {
    let (_cluster, address) = with(&[]);
    let json = ("Content-Type", "application/json");
    let big = "x".repeat((1 << 20) + 1);
    let long_key = format!("PUT /kv/{}", "k".repeat(4_097));
    let huge = [b"{\"value\":\"".as_slice(), &[b'x'; 9 << 20], b"\"}"].concat();
    let (big, huge) = (json!({ "value": big }).to_string(), huge.as_slice());
    let cases: &[Case<'_>] = &[
        ("PUT /kv/k", &[json], b"{\"value\":", 400, "bad_request"),
        ("PUT /kv/k", &[json], b"", 400, "bad_request"),
        ("PUT /kv/k", &[json], b"\xff\xfe", 400, "bad_request"),
        ("PUT /kv/k", &[json], b"[1]", 400, "bad_request"),
        ("PUT /kv/k", &[json], b"{\"value\":1}", 400, "bad_request"),
        ("PUT /kv/k", &[json], b"{\"value\":\"a\",\"ttl\":1}", 400, "bad_request"),
        ("PUT /kv/put", &[json], b"{\"key\":\"\",\"value\":\"a\"}", 400, "bad_request"),
        ("PUT /kv/k", &[("Content-Type", "application/xml")], b"<value/>", 415, "unsupported_media_type"),
        ("POST /batch", &[("Content-Type", "text/plain")], b"{}", 415, "unsupported_media_type"),
        ("POST /batch", &[json], b"{\"operations\":[]}", 400, "bad_request"),
        ("PUT /kv/k", &[json], big.as_bytes(), 400, "bad_request"),
        (&long_key, &[json], b"{\"value\":\"a\"}", 400, "bad_request"),
        ("PUT /kv/k", &[json], huge, 413, "too_large"),
        ("PUT /kv/k", &[json, ("If-Match", "7")], b"{\"value\":\"a\"}", 400, "bad_request"),
        ("PUT /kv/k?ttl=1", &[json], b"{\"value\":\"a\"}", 400, "bad_request"),
        ("GET /kv/k?consistency=eventual", &[], b"", 400, "bad_request"),
        ("GET /kv/k%2", &[], b"", 400, "bad_request"),
        ("GET /kv?limit=0", &[], b"", 400, "bad_request"),
        ("GET /kv/absent", &[], b"", 404, "key_not_found"),
        ("GET /kv/", &[], b"", 404, "not_found"),
        ("GET /", &[], b"", 404, "not_found"),
        ("GET /../etc/passwd", &[], b"", 404, "not_found"),
        ("PATCH /kv/k", &[], b"", 405, "method_not_allowed"),
        ("DELETE /batch", &[], b"", 405, "method_not_allowed"),
        ("POST /cluster/status", &[], b"", 405, "method_not_allowed"),
    ];
    for (line, headers, body, status, code) in cases {
        let reply = call(&address, line, headers, body);
        let line = &line[..line.len().min(80)];
        assert_eq!((reply.status, reply.code().as_str()), (*status, *code), "{line}: {}", reply.text());
        assert_eq!(reply.json()["retryable"], false, "{line}");
    }
    // What is no HTTP at all.
    let long_head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    for bytes in [
        b"\x00\x01\x02\x03\x04\r\n\r\n".as_slice(),
        b"GET\r\n\r\n",
        long_head.as_bytes(),
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let status = exchange(&address, bytes).map(|reply| reply.status);
        assert!(matches!(status, None | Some(400 | 431)), "{status:?}");
    }
    // A body that is longer than is allowed, of which nobody says how long it will be.
    let head = b"PUT /kv/k HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice();
    let chunk = [b"100000\r\n".as_slice(), &[b'x'; 0x10_0000], b"\r\n"].concat();
    let mut stream = connect(&address);
    stream.write_all(head).unwrap();
    while stream.write_all(&chunk).is_ok() && !has_answer(&stream) {}
    assert_eq!(Reply::read(&mut stream).expect("an answer").status, 413);
    send(&address, "PUT /kv/k", &json!({ "value": "v" })).ok();
    assert_eq!(get(&address, "/kv/k").ok().text(), "v");
}

fn has_answer(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("a socket");
    let found = stream.peek(&mut [0]).is_ok_and(|count| count > 0);
    stream.set_nonblocking(false).expect("a socket");
    found
}

#[test]
fn slow_clients_are_given_up_and_hold_nobody_up() {
    let (_cluster, address) = with(&["--http-head-timeout-ms=5000"]);
    let start = Instant::now();
    let silent = connect(&address);
    let mut half_a_head = connect(&address);
    half_a_head.write_all(b"PUT /kv/k HTTP/1.1\r\nHost: x\r\n").unwrap();
    let mut half_a_preface = connect(&address);
    half_a_preface.write_all(b"PR").unwrap();
    let mut half_a_body = connect(&address);
    half_a_body.write_all(b"PUT /kv/k HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"value\"").unwrap();
    send(&address, "PUT /kv/k", &json!({ "value": "v" })).ok();
    assert!(start.elapsed() < Duration::from_millis(4_900), "nobody waits for them");
    for mut stream in [silent, half_a_head, half_a_preface] {
        let status = Reply::read(&mut stream).map(|reply| reply.status);
        assert!(matches!(status, None | Some(408)), "{status:?}");
    }
    let late = Reply::read(&mut half_a_body).expect("an answer");
    assert_eq!((late.status, late.code().as_str()), (408, "request_timeout"));
    assert_eq!(get(&address, "/kv/k").ok().text(), "v");
}

#[test]
fn too_many_requests_are_refused_at_once_and_probes_are_not() {
    let (_cluster, address) = with(&["--http-requests-max=2"]);
    let mut slow: Vec<_> = (0..2).map(|_| connect(&address)).collect();
    for stream in &mut slow {
        stream.write_all(SLOW_PUT).unwrap();
    }
    let refused =
        eventually(Duration::from_secs(5), || Some(get(&address, "/kv/k")).filter(|reply| reply.status == 429));
    let refused = refused.expect("a refusal");
    assert_eq!((refused.code().as_str(), refused.header("retry-after")), ("overloaded", "1"));
    assert_eq!(refused.json()["retryable"], true);
    get(&address, "/readyz").ok();
    get(&address, "/cluster/status").ok();
    for mut stream in slow {
        stream.write_all(b"{\"value\":\"v\"}").unwrap();
        assert_eq!(Reply::read(&mut stream).expect("an answer").status, 200);
    }
    assert_eq!(get(&address, "/kv/k").ok().text(), "v");
}

#[test]
fn clients_that_disconnect_leave_nothing_behind() {
    let (_cluster, address) = with(&["--http-requests-max=8"]);
    for turn in 0..100 {
        let mut stream = connect(&address);
        let whole = b"PUT /kv/gone HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"value\":\"v\"}";
        // In the head, in the body, and before the answer.
        stream.write_all(&whole[..[20, 60, whole.len()][turn % 3]]).unwrap();
    }
    // All places are free again, soon: eight requests that take their time find one each.
    let all_free = eventually(PATIENCE, || {
        let mut slow: Vec<_> = (0..8).map(|_| connect(&address)).collect();
        for stream in &mut slow {
            stream.write_all(SLOW_PUT).unwrap();
        }
        std::thread::sleep(Duration::from_millis(100));
        let statuses = slow.into_iter().map(|mut stream| {
            // One that was refused may be closed already.
            let _ = stream.write_all(b"{\"value\":\"v\"}");
            Reply::read(&mut stream).map(|reply| reply.status)
        });
        let statuses: Vec<_> = statuses.collect();
        statuses.iter().all(|status| *status == Some(200)).then_some(())
    });
    all_free.expect("eight places");
}

/// The head of a request whose body of 13 bytes comes later.
const SLOW_PUT: &[u8] = b"PUT /kv/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 13\r\n\r\n";

/// Memory of a process, in bytes.
fn resident_bytes(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).expect("a process");
    text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("its pages") * 4_096
}

/// Idle connections.
const IDLE: usize = 5_000;
/// What one of them may cost.
const IDLE_BYTES_MAX: u64 = 24 << 10;

#[test]
fn five_thousand_idle_connections_cost_little_and_hold_nobody_up() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    let (mut cluster, address) = with(&[]);
    let pid = cluster.running_pid(1).expect("it runs");
    get(&address, "/kv/k");
    let before = resident_bytes(pid);
    let request = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut idle = Vec::with_capacity(IDLE);
    for _ in 0..IDLE {
        let mut stream = connect(&address);
        stream.write_all(request).unwrap();
        idle.push(stream);
    }
    for stream in &idle {
        let mut begin = [0; 12];
        while stream.peek(&mut begin).unwrap() < begin.len() {}
        assert_eq!(&begin, b"HTTP/1.1 200");
    }
    let each = (resident_bytes(pid).saturating_sub(before)) / IDLE as u64;
    println!("an idle connection costs {each} bytes");
    assert!(each < IDLE_BYTES_MAX, "{each} bytes each");
    let start = Instant::now();
    for number in 0..50 {
        send(&address, "PUT /kv/k", &json!({ "value": number.to_string() })).ok();
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    for stream in idle.iter_mut().step_by(500) {
        stream.write_all(b"GET /kv/k HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let reply = Reply::read(stream).expect("the connection is alive");
        assert!(reply.text().ends_with("49"), "{}", reply.text());
    }
}
