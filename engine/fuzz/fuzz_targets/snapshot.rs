//! Any chunks are taken or refused, any stream is loaded or refused; what is loaded is a sound state, and what a machine
//! writes while it goes on comes back as it was.
//!
//! Off the data path.
//! Chunks have checksums that are right, so that what is in them is reached.
#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringraft_engine::limits::Limits;
use ringraft_engine::payload;
use ringraft_engine::snapshot::{Chunk, ChunkBytes, ChunkReader, ChunkWriter, Expected, FileHead, Members};
use ringraft_engine::state_machine::{SnapshotHead, StateLoader, StateMachine};
use ringraft_net::wire::{Operation, Request};
use ringraft_raft::{EntryId, GroupId, NodeId};

const GROUP: GroupId = GroupId(0);
const IDENTITY: u32 = 7;
const STEPS_MAX: usize = 60;

fn limits() -> Limits {
    Limits {
        sessions_max: 3,
        session_window_max: 4,
        sessions_bytes_max: 2_000,
        answer_bytes_max: 60,
        ..Limits::default()
    }
}

fn request(input: &mut Unstructured<'_>) -> Result<Request> {
    let mut operations = Vec::new();
    for _ in 0..input.int_in_range(1..=3)? {
        let key = vec![b'k', input.int_in_range(0..=30)?];
        let value = vec![input.arbitrary()?; input.int_in_range(0..=40)?];
        operations.push(match input.int_in_range(0..=4)? {
            0 => Operation::Get { key },
            1 => Operation::Delete { key },
            2 => Operation::CompareAndSet { key, expected: input.arbitrary()?, value },
            3 if operations.is_empty() => Operation::OpenSession { group: 0 },
            _ => Operation::Put { key, value },
        });
    }
    // A session's id is its place in the log plus one: index << 16 | position.
    let client = if input.arbitrary()? { 0 } else { (input.int_in_range(0..=9_u64)? << 16) + 1 };
    let (sequence, acknowledged) = (input.int_in_range(0..=6)?, input.int_in_range(0..=6)?);
    Ok(Request { client, sequence, acknowledged, operations, ..Request::default() })
}

/// The chunks of a snapshot that is taken while requests are applied, and the hash of the state at its beginning.
fn written(input: &mut Unstructured<'_>) -> Result<(Vec<Vec<u8>>, u64)> {
    let mut machine = StateMachine::new(GROUP, limits());
    let apply = |machine: &mut StateMachine, input: &mut Unstructured<'_>| -> Result<()> {
        let (mut archive, mut entry) = (Vec::new(), Vec::new());
        request(input)?.append_to(&mut archive);
        payload::push_request(&mut entry, &archive);
        machine.apply_entry(machine.last_applied() + 1, 1, &entry, |_, _| {}).expect("a sound entry");
        Ok(())
    };
    for _ in 0..input.int_in_range(0..=20)? {
        apply(&mut machine, input)?;
    }
    let state = machine.begin_snapshot().expect("none runs");
    let head = FileHead {
        identity: IDENTITY,
        limits_digest: limits().digest(),
        source: NodeId(1),
        chunk_bytes: ChunkBytes::new(4096).expect("a block"),
        state,
        members: Members::new(vec![NodeId(1), NodeId(2)], vec![NodeId(3)], vec![NodeId(4)]).expect("members"),
    };
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut emit = |chunk: &[u8]| chunks.push(chunk.to_vec());
    let mut writer = ChunkWriter::new(GROUP, &head, &mut emit);
    let mut slice = Vec::new();
    for step in 0.. {
        let bytes_max = if step < STEPS_MAX { input.int_in_range(0..=300)? } else { usize::MAX };
        slice.clear();
        let more = machine.snapshot_slice(&mut slice, bytes_max);
        writer.push(&slice, &mut emit);
        if !more {
            break;
        }
        if step < STEPS_MAX {
            apply(&mut machine, input)?;
        }
    }
    writer.finish(&mut emit);
    assert_eq!(machine.digest(), machine.recompute_digest());
    Ok((chunks, state.state_hash))
}

/// Reads and loads; the state's hash when everything was in order.
fn load(chunks: &[Vec<u8>]) -> Option<u64> {
    let mut reader = ChunkReader::new(Expected { group: GROUP, identity: IDENTITY, limits_digest: limits().digest() });
    let mut loader = None;
    for chunk in chunks {
        let next = reader.next_sequence();
        match reader.take(chunk) {
            Ok(Chunk::Head(head)) => loader = Some(StateLoader::new(GROUP, limits(), head.state)),
            Ok(Chunk::Data(bytes)) => loader.as_mut()?.push(bytes).ok()?,
            Ok(Chunk::End) => {}
            Err(error) => {
                assert_eq!((error.sequence, reader.next_sequence()), (next, next));
                assert!(!error.to_string().is_empty());
            }
        }
    }
    if !reader.is_complete() {
        return None;
    }
    let machine = loader?.finish().ok()?;
    assert_eq!(machine.digest(), machine.recompute_digest());
    Some(machine.digest().hash)
}

/// Changes a chunk and makes its checksum right.
fn forge(input: &mut Unstructured<'_>, chunk: &mut Vec<u8>) -> Result<()> {
    for _ in 0..input.int_in_range(1..=4)? {
        let used = chunk.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 8;
        let at = input.int_in_range(0..=used.min(chunk.len() - 1))?;
        chunk[at] = input.arbitrary()?;
    }
    let payload_bytes = u32::from_le_bytes([chunk[12], chunk[13], chunk[14], chunk[15]]) as usize;
    let end = chunk.len().min(payload_bytes.saturating_add(48));
    chunk[end..].fill(0);
    let crc = crc32c::crc32c(&chunk[8..end]);
    chunk[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let (mut chunks, hash) = written(input)?;
    assert_eq!(load(&chunks), Some(hash), "what was written comes back");
    for _ in 0..input.int_in_range(0..=3)? {
        let at = input.choose_index(chunks.len())?;
        match input.int_in_range(0..=3)? {
            0 => drop(chunks.remove(at)),
            1 => chunks.insert(at, chunks[at].clone()),
            _ => forge(input, &mut chunks[at])?,
        }
        if chunks.is_empty() {
            return Ok(());
        }
    }
    load(&chunks);
    Ok(())
}

fuzz_target!(|data: &[u8]| {
    let head = SnapshotHead { last: EntryId::new(1, 1 << 20), state_hash: 0, key_count: 9, session_count: 3 };
    let mut loader = StateLoader::new(GROUP, limits(), head);
    let (first, second) = data.split_at(data.len() / 2);
    if loader.push(first).and_then(|()| loader.push(second)).is_ok() {
        let _ = loader.finish();
    }
    let _ = run(&mut Unstructured::new(data));
});
