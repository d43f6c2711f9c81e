//! Any committed bytes are applied or refused; what is kept about the state as it goes is what the state gives.
//!
//! Off the data path.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringraft_engine::limits::Limits;
use ringraft_engine::payload;
use ringraft_engine::state_machine::StateMachine;
use ringraft_net::wire::{Consistency, Operation, Request, view_request};
use ringraft_raft::GroupId;

const ENTRIES_MAX: u64 = 40;

fn operation(input: &mut Unstructured<'_>) -> Result<Operation> {
    let key = vec![b'k', input.int_in_range(0..=3)?];
    let value = vec![input.arbitrary()?; input.int_in_range(0..=40)?];
    Ok(match input.int_in_range(0..=6)? {
        0 => Operation::Get { key },
        1 => Operation::Delete { key },
        2 => Operation::CompareAndSet { key, expected: input.arbitrary()?, value },
        4 => {
            Operation::CompareVersion { key, version: input.int_in_range(0..=3_u64)? << 16, value: input.arbitrary()? }
        }
        5 => Operation::Range {
            group: 0,
            start: input.arbitrary()?,
            end: input.arbitrary()?,
            limit: input.arbitrary()?,
            keys_only: input.arbitrary()?,
        },
        3 if input.ratio(1, 3)? => Operation::OpenSession { group: input.int_in_range(0..=1)? },
        _ => Operation::Put { key, value },
    })
}

fn archive(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    if input.ratio(1, 8)? {
        return Ok([input.arbitrary()?, vec![1]].concat());
    }
    let mut operations = Vec::new();
    for _ in 0..input.int_in_range(0..=4)? {
        operations.push(operation(input)?);
    }
    // A session's id is its place in the log plus one: index << 16 | position.
    let client =
        if input.arbitrary()? { 0 } else { (input.int_in_range(0..=4_u64)? << 16) + input.int_in_range(0..=3_u64)? };
    let (sequence, acknowledged) = (input.int_in_range(0..=6)?, input.int_in_range(0..=6)?);
    let request = Request { client, sequence, acknowledged, consistency: Consistency::Linearizable, operations };
    let mut bytes = Vec::new();
    request.append_to(&mut bytes);
    if input.ratio(1, 16)? {
        let at = input.choose_index(bytes.len())?;
        bytes[at] = input.arbitrary()?;
    }
    Ok(bytes)
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let limits = Limits {
        sessions_max: 3,
        session_window_max: 4,
        sessions_bytes_max: 2_000,
        answer_bytes_max: 60,
        ..Limits::default()
    };
    let mut machine = StateMachine::new(GroupId(0), limits);
    for index in 1..=ENTRIES_MAX {
        if input.is_empty() {
            break;
        }
        let mut bytes = Vec::new();
        for _ in 0..input.int_in_range(0..=3)? {
            let archive = archive(input)?;
            if let Ok(request) = view_request(&archive) {
                while machine.wants_order(request) {
                    machine.build_order();
                }
                machine.read(request, |_| {});
            }
            payload::push_request(&mut bytes, &archive);
        }
        if input.ratio(1, 20)? {
            bytes = input.arbitrary()?;
        }
        let applied = machine.apply_entry(index, 1, &bytes, |at, _| assert!(at.index <= index));
        assert_eq!(machine.digest(), machine.recompute_digest());
        if applied.is_err() {
            assert_eq!(machine.last_applied(), index - 1);
            break;
        }
    }
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let _ = payload::requests(data).count();
    let _ = run(&mut Unstructured::new(data));
});
