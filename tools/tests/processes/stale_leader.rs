//! A leader that was stopped (SIGSTOP) and wakes must not answer a read from before its successor's writes.
//!
//! Off the data path.

use std::thread;
use std::time::Duration;

use ringraft_net::frame::FrameKind;
use ringraft_net::wire::{self, Consistency, Operation, OperationResult, Outcome, Request};
use ringraft_tools::probe::Connection;
use rustix::process::Signal;

use crate::client::Session;
use crate::harness::{START_PATIENCE, TestCluster, eventually, shape};

const KEY: &str = "watched";
const READERS: usize = 20;

#[test]
fn a_leader_that_slept_through_an_election_serves_no_stale_read() {
    let mut cluster = TestCluster::start(&shape(3));
    let endpoints = cluster.file().endpoints();
    for round in 0..3 {
        let (old_value, new_value) = (format!("old-{round}"), format!("new-{round}"));
        Session::without(&endpoints).put(KEY, &old_value).expect("a write");
        let old = cluster.leader(0);
        let address = cluster.address(old);
        let mut readers: Vec<Connection> =
            (0..READERS).map(|_| Connection::open(&address).expect("a connection").0).collect();
        cluster.signal(old, Signal::STOP).expect("the leader is stopped");
        let (new, took) = cluster.wait_for_new_leader(old);
        println!("round {round}: node {old} stopped, node {new} leads after {took:?}");
        Session::without(&cluster.addresses_without(&[old])).put(KEY, &new_value).expect("a write to the new leader");
        // These lie in the sleeper's sockets when it wakes: it still believes to lead.
        readers.iter_mut().for_each(ask);
        cluster.signal(old, Signal::CONT).expect("the old leader wakes");
        let answers: Vec<Option<Outcome>> = readers.iter_mut().map(answer).collect();
        for outcome in answers.iter().flatten() {
            assert_not_stale(outcome, &new_value);
        }
        let told = answers.iter().flatten().count();
        println!("round {round}: {told} of {READERS} readers were answered: {:?}", answers.first());
        let after = eventually(START_PATIENCE, || Connection::open(&address).ok());
        let mut after = after.expect("the woken node takes connections").0;
        ask(&mut after);
        if let Some(outcome) = answer(&mut after) {
            assert_not_stale(&outcome, &new_value);
        }
        thread::sleep(Duration::from_millis(200));
    }
    cluster.wait_for_equal_replicas(Duration::from_secs(30));
}

fn ask(reader: &mut Connection) {
    let operations = vec![Operation::Get { key: KEY.into() }];
    let request = Request { consistency: Consistency::Linearizable, operations, ..Request::default() };
    let mut bytes = Vec::new();
    request.append_frame(&mut bytes, 1);
    reader.send(&bytes).expect("the socket takes a request");
}

/// What came; nothing when the connection was closed or stays silent.
fn answer(reader: &mut Connection) -> Option<Outcome> {
    let frame = reader.receive().ok()?;
    (frame.kind == FrameKind::Reply).then(|| wire::view_reply(&frame.head).expect("a reply").to_owned_reply().outcome)
}

fn assert_not_stale(outcome: &Outcome, newest: &str) {
    if let Outcome::Done(results) = outcome {
        let fresh = OperationResult::Value(Some(newest.as_bytes().to_vec()));
        assert_eq!(results.as_slice(), [fresh], "a stale read");
    }
}
