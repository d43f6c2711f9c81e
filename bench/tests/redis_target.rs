//! The Redis target against a server of our own that can be made to misbehave.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ringraft_bench::clock::MonotonicClock;
use ringraft_bench::recorder::ErrorKind;
use ringraft_bench::targets::redis::RedisTarget;
use ringraft_bench::targets::resp::{Reply, parse};
use ringraft_bench::targets::{Completion, Seen, Target};
use ringraft_bench::workload::{KeyDistribution, OperationKind, Workload, WorkloadOptions, mark_of};

/// Reads one command; `None` at the end of the stream.
fn command(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut wanted = None;
    loop {
        while let Some((reply, consumed)) = parse(buffer).unwrap() {
            match reply {
                Reply::Array(count) => wanted = Some(count),
                Reply::Bulk(Some(word)) => words.push(word.to_vec()),
                other => panic!("unexpected {other:?}"),
            }
            buffer.drain(..consumed);
            if wanted == Some(words.len()) {
                return Some(words);
            }
        }
        let mut bytes = [0; 4096];
        let count = stream.read(&mut bytes).ok()?;
        if count == 0 {
            return None;
        }
        buffer.extend_from_slice(&bytes[..count]);
    }
}

fn answer(words: &[Vec<u8>], store: &mut HashMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let bulk = |value: &[u8]| [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat();
    match words[0].as_slice() {
        b"CONFIG" => {
            let value: &[u8] = if words[2] == b"appendonly" { b"yes" } else { b"everysec" };
            [b"*2\r\n".to_vec(), bulk(&words[2]), bulk(value)].concat()
        }
        b"INFO" => bulk(b"# Server\r\nredis_version:7.7.7\r\nos:none\r\n"),
        b"SET" => {
            store.insert(words[1].clone(), words[2].clone());
            b"+OK\r\n".to_vec()
        }
        b"GET" => store.get(&words[1]).map_or(b"$-1\r\n".to_vec(), |value| bulk(value)),
        _ => b"-ERR unknown\r\n".to_vec(),
    }
}

struct Server {
    address: String,
    /// Connections are closed instead of answered.
    hang_up: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
}

/// A Redis per connection, each with its own data, that answers in pieces of three bytes.
fn serve() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (hang_up, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (hang_up_flag, accepted_count) = (Arc::clone(&hang_up), Arc::clone(&accepted));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            accepted_count.fetch_add(1, Ordering::SeqCst);
            let hang_up = Arc::clone(&hang_up_flag);
            std::thread::spawn(move || {
                let (mut buffer, mut store) = (Vec::new(), HashMap::new());
                while let Some(words) = command(&mut stream, &mut buffer) {
                    if hang_up.load(Ordering::SeqCst) {
                        return;
                    }
                    for piece in answer(&words, &mut store).chunks(3) {
                        if stream.write_all(piece).is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Server { address, hang_up, accepted }
}

fn workload(read_percent: u8) -> Workload {
    let distribution = KeyDistribution::Uniform;
    Workload::new(WorkloadOptions { keys: 4, distribution, value_bytes: 40, read_percent, deletes: false, seed: 3 })
}

/// Polls until there are so many completions.
fn collect(target: &mut RedisTarget, count: usize) -> Vec<Completion> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut completions = Vec::new();
    while completions.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} completions came", completions.len());
        target.poll(Duration::from_millis(5), &mut completions).unwrap();
    }
    completions
}

#[test]
fn puts_and_gets_with_answers_in_pieces() {
    let server = serve();
    let mut target = RedisTarget::connect(&server.address, 1, MonotonicClock::start()).unwrap();
    let facts = target.facts();
    assert_eq!(facts.settings["version"], "7.7.7");
    assert_eq!(facts.settings["appendfsync"], "everysec");
    assert_eq!(facts.warnings.len(), 1, "everysec is not durable, which must be said");

    let mut puts = workload(0);
    puts.put_of(1);
    let mark = mark_of(puts.current().value);
    target.submit(&puts.current(), 7, 0).unwrap();
    for (tag, key) in [(8, *b"key-000000000001"), (9, *b"key-000000000002")] {
        let get = ringraft_bench::workload::Operation { kind: OperationKind::Get, key: &key, value: &[] };
        target.submit(&get, tag, 0).unwrap();
    }
    let results: Vec<_> = collect(&mut target, 3).iter().map(|end| (end.tag, end.result)).collect();
    assert_eq!(results, [(7, Ok(Seen::Written)), (8, Ok(Seen::Value { length: 40, mark })), (9, Ok(Seen::Missing))]);
}

#[test]
fn a_broken_connection_fails_its_operations_and_is_made_anew() {
    let server = serve();
    let mut target = RedisTarget::connect(&server.address, 2, MonotonicClock::start()).unwrap();
    let mut puts = workload(0);
    puts.put_of(1);
    server.hang_up.store(true, Ordering::SeqCst);
    for tag in 0..10 {
        target.submit(&puts.current(), tag, 0).unwrap();
    }
    let mut ends = collect(&mut target, 10);
    ends.sort_by_key(|end| end.tag);
    for (tag, end) in ends.iter().enumerate() {
        assert_eq!((end.tag, end.result), (tag as u64, Err(ErrorKind::Disconnected)));
    }
    server.hang_up.store(false, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(10);
    while target.submit(&puts.current(), 42, 0).is_err() {
        assert!(Instant::now() < deadline, "not connected again");
        target.poll(Duration::from_millis(5), &mut Vec::new()).unwrap();
    }
    assert_eq!(collect(&mut target, 1)[0].result, Ok(Seen::Written));
    assert!(server.accepted.load(Ordering::SeqCst) >= 3);
}

#[test]
fn nobody_there_is_a_clear_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = RedisTarget::connect(&address, 1, MonotonicClock::start()).err().unwrap().to_string();
    assert!(error.contains(&address) && error.contains("refused"), "{error}");
    let error = RedisTarget::connect("no port", 1, MonotonicClock::start()).err().unwrap().to_string();
    assert!(error.contains("HOST:PORT"), "{error}");
}
