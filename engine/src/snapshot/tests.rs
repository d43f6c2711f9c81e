//! Tests of the chunks: their bytes, what is seen of damage, where they stand in a file.
//!
//! Off the data path.

use proptest::prelude::*;
use ringraft_net::wire::{Operation, Request};
use ringraft_raft::{EntryId, GroupId, NodeId};

use super::*;
use crate::limits::Limits;
use crate::payload;
use crate::state_machine::{SnapshotHead, StateLoader, StateMachine};

const EXPECTED: Expected = Expected { group: GroupId(3), identity: 0x1122_3344, limits_digest: 77 };

fn nodes(ids: &[u64]) -> Vec<NodeId> {
    ids.iter().copied().map(NodeId).collect()
}

fn head_of(chunk_bytes: u32) -> FileHead {
    FileHead {
        identity: EXPECTED.identity,
        limits_digest: EXPECTED.limits_digest,
        source: NodeId(2),
        chunk_bytes: ChunkBytes::new(chunk_bytes).unwrap(),
        state: SnapshotHead { last: EntryId::new(5, 99), state_hash: 0xabcd, key_count: 6, session_count: 7 },
        members: Members::new(nodes(&[1, 2, 3]), nodes(&[3, 4]), nodes(&[9])).unwrap(),
    }
}

/// The chunks of a stream that comes in portions.
fn chunks(group: GroupId, head: &FileHead, stream: &[u8], portion: usize) -> Vec<Vec<u8>> {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut emit = |chunk: &[u8]| chunks.push(chunk.to_vec());
    let mut writer = ChunkWriter::new(group, head, &mut emit);
    for bytes in stream.chunks(portion) {
        writer.push(bytes, &mut emit);
    }
    let written = writer.finish(&mut emit);
    let bytes = chunks.iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!(written, Written { chunks: chunks.len() as u64, bytes });
    chunks
}

fn file(stream: &[u8]) -> Vec<Vec<u8>> {
    chunks(EXPECTED.group, &head_of(4096), stream, usize::MAX)
}

fn stream(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|number| (number * 7 + number / 251) as u8).collect()
}

/// Reads all chunks; the head and the stream.
fn read<T: AsRef<[u8]>>(chunks: &[T]) -> Result<(Option<FileHead>, Vec<u8>, bool), ChunkError> {
    let (mut reader, mut head, mut stream) = (ChunkReader::new(EXPECTED), None, Vec::new());
    for chunk in chunks {
        match reader.take(chunk.as_ref())? {
            Chunk::Head(found) => head = Some(found),
            Chunk::Data(bytes) => stream.extend_from_slice(bytes),
            Chunk::End => assert!(reader.is_complete()),
        }
    }
    Ok((head, stream, reader.is_complete()))
}

fn problem<T: AsRef<[u8]>>(chunks: &[T]) -> ChunkProblem {
    read(chunks).unwrap_err().problem
}

/// The bytes up to the zeros at the end.
fn without_zeros(chunk: &[u8]) -> &[u8] {
    &chunk[..chunk.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)]
}

#[test]
fn golden_bytes() {
    let file = file(b"stream");
    let head: [&[u8]; 7] = [
        b"RSNP\xe7\x21\0\xf9\x01\0\x01\0",
        &[108, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0],
        &[99, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0x44, 0x33, 0x22, 0x11, 0, 16, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[0xcd, 0xab, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 9],
    ];
    let data: [&[u8]; 4] = [
        b"RSNP\xd7\x84\x1d\xd2\x01\0\x02\0",
        &[6, 0, 0, 0, 3, 0, 0, 0, 0xe7, 0x21, 0, 0xf9],
        &[99, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        b"stream",
    ];
    let end: [&[u8]; 4] = [
        b"RSNP\x7d\x00\xf3\x2b\x01\0\x03\0",
        &[24, 0, 0, 0, 3, 0, 0, 0, 0xe7, 0x21, 0, 0xf9],
        &[99, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0],
        &[3, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0, 199, 57, 173, 225],
    ];
    assert_eq!(file.iter().map(Vec::len).collect::<Vec<_>>(), [4096; 3]);
    let found: Vec<&[u8]> = file.iter().map(|chunk| without_zeros(chunk)).collect();
    assert_eq!(found, [head.concat(), data.concat(), end.concat()]);
}

#[test]
fn streams_of_any_length_come_back_and_stand_where_the_layout_says() {
    for bytes in [0, 1, 4047, 4048, 4049, 2 * 4048, 50_000] {
        for chunk_bytes in [4096, 8192, 256 << 10] {
            let (head, stream) = (head_of(chunk_bytes), stream(bytes));
            let chunks = chunks(GroupId(3), &head, &stream, 1000);
            assert_eq!(read(&chunks).unwrap(), (Some(head.clone()), stream, true));
            let file = chunks.concat();
            let layout = Layout::new(head.chunk_bytes, file.len() as u64).unwrap();
            assert_eq!(layout.chunks(), chunks.len() as u64);
            for (sequence, chunk) in (0..).zip(&chunks) {
                let place = layout.place(sequence).unwrap();
                assert_eq!(file[place.start as usize..place.end as usize], *chunk);
                assert_eq!(chunk_length(&file[place.start as usize..]), Ok(chunk.len()));
            }
            assert_eq!((layout.place(chunks.len() as u64), layout.place(u64::MAX)), (None, None));
        }
    }
    let size = ChunkBytes::default();
    assert_eq!((Layout::new(size, 4096), Layout::new(size, 8193)), (None, None));
    let sizes = [0, 1, 4095, 4097, (4 << 20) + 4096, u32::MAX].map(ChunkBytes::new);
    assert_eq!(sizes, [None; 6]);
    assert_eq!(ChunkBytes::new(4 << 20), Some(ChunkBytes::MAX));
}

#[test]
fn a_transfer_goes_on_where_it_broke() {
    let (file, stream) = (file(&stream(20_000)), stream(20_000));
    let (mut reader, mut received) = (ChunkReader::new(EXPECTED), Vec::new());
    let layout = Layout::new(ChunkBytes::new(4096).unwrap(), file.concat().len() as u64).unwrap();
    while !reader.is_complete() {
        let next = reader.next_sequence();
        assert_eq!(layout.place(next).unwrap().start, reader.offset());
        let mut damaged = file[next as usize].clone();
        damaged[20] ^= 1;
        let error = reader.take(&damaged).unwrap_err();
        assert!(error.is_retryable() && !error.is_fatal());
        assert_eq!((error.sequence, error.offset), (next, reader.offset()));
        for other in (0..file.len() as u64).filter(|other| *other != next) {
            let error = reader.take(&file[other as usize]).unwrap_err();
            assert!(next == 0 || error.problem == ChunkProblem::Sequence { found: other }, "{error}");
            assert!(error.is_retryable(), "{error}");
        }
        if let Chunk::Data(bytes) = reader.take(&file[next as usize]).unwrap() {
            received.extend_from_slice(bytes);
        }
    }
    assert_eq!(received, stream);
    assert_eq!(reader.take(&file[0]).unwrap_err().problem, ChunkProblem::BehindEnd);
}

#[test]
fn a_snapshot_of_something_else_is_refused_by_name() {
    let refused = |expected: Expected| {
        let error = ChunkReader::new(expected).take(&file(b"x")[0]).unwrap_err();
        assert!(!error.is_retryable());
        error.to_string()
    };
    let says = |text: &str| format!("the snapshot is wrong in chunk 0 (at byte 0): it is of another snapshot: {text}");
    assert_eq!(refused(Expected { group: GroupId(4), ..EXPECTED }), says("the group is 3, not 4"));
    let identity = says("the identity of the cluster is 287454020, not 1");
    assert_eq!(refused(Expected { identity: 1, ..EXPECTED }), identity);
    assert_eq!(refused(Expected { limits_digest: 1, ..EXPECTED }), says("the digest of the limits is 77, not 1"));
}

#[test]
fn chunks_of_two_snapshots_do_not_mix() {
    let (one, stream) = (file(&stream(20_000)), stream(20_000));
    let mixed = |change: fn(&mut FileHead)| {
        let mut head = head_of(4096);
        change(&mut head);
        let other = chunks(GroupId(3), &head, &stream, usize::MAX);
        match problem(&[&one[..2], &other[2..]].concat()) {
            ChunkProblem::Other { what, .. } => what,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(mixed(|head| head.state.last.index += 1), "the last index");
    assert_eq!(mixed(|head| head.state.last.term += 1), "the last term");
    assert_eq!(mixed(|head| head.source = NodeId(3)), "the checksum of the head");
    // The same head twice, as of a node that took the same snapshot again with its keys in another order.
    let other = file(&stream.iter().rev().copied().collect::<Vec<_>>());
    let what = problem(&[&one[..2], &other[2..]].concat());
    assert!(matches!(what, ChunkProblem::End { what: "checksum of checksums", .. }), "{what}");
}

/// A chunk with some of its bytes changed and a checksum that is right.
fn forged(chunk: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut chunk = chunk.to_vec();
    change(&mut chunk);
    let payload_bytes = u32::from_le_bytes(chunk[12..16].try_into().unwrap()) as usize;
    let end = chunk.len().min(48 + payload_bytes);
    chunk[end..].fill(0);
    let crc = crc32c::crc32c(&chunk[8..end]);
    chunk[4..8].copy_from_slice(&crc.to_le_bytes());
    chunk
}

#[test]
fn intact_chunks_that_cannot_be_are_refused() {
    let whole = file(&stream(9_000));
    let forge_first = |change: fn(&mut Vec<u8>)| problem(&[forged(&whole[0], change)]);
    assert_eq!(forge_first(|chunk| chunk[8] = 2), ChunkProblem::Version(2));
    assert_eq!(forge_first(|chunk| chunk[10] = 9), ChunkProblem::Kind(9));
    assert_eq!(forge_first(|chunk| chunk[10] = 2), ChunkProblem::Kind(2));
    assert!(matches!(forge_first(|chunk| chunk[20] = 2), ChunkProblem::Other { .. }));
    assert_eq!(forge_first(|chunk| chunk[40] = 2), ChunkProblem::Sequence { found: 2 });
    let head = |problem| ChunkProblem::Head(problem);
    assert_eq!(forge_first(|chunk| chunk[12] = 50), head(HeadProblem::Length { bytes: 50 }));
    assert_eq!(forge_first(|chunk| chunk[12] = 109), head(HeadProblem::Length { bytes: 109 }));
    assert_eq!(forge_first(|chunk| chunk[96] = 4), head(HeadProblem::Length { bytes: 108 }));
    assert_eq!(forge_first(|chunk| chunk[99] = 4), head(HeadProblem::Members(MembersError::TooMany)));
    assert_eq!(forge_first(|chunk| chunk[52] = 1), head(HeadProblem::ChunkBytes(4097)));
    assert_eq!(forge_first(|chunk| chunk[148] = 2), head(HeadProblem::Members(MembersError::VoterAndLearner(2))));
    assert_eq!(forge_first(|chunk| chunk[108] = 7), head(HeadProblem::Members(MembersError::Order)));
    let forge = |at: usize, change: fn(&mut Vec<u8>)| {
        let mut file = whole.clone();
        file[at] = forged(&file[at], change);
        problem(&file)
    };
    assert_eq!(forge(1, |chunk| chunk[12..16].fill(0)), ChunkProblem::Payload { payload_bytes: 0, expected: 4048 });
    assert_eq!(forge(2, |chunk| chunk[14] = 255), ChunkProblem::Length { payload_bytes: 0xff_0fd0 });
    assert_eq!(forge(1, |chunk| chunk[10] = 3), ChunkProblem::Payload { payload_bytes: 4048, expected: 24 });
    assert_eq!(forge(1, |chunk| chunk[12] -= 1), ChunkProblem::BehindLast);
    let wrong_end =
        |at: usize| match problem(&[&whole[..4], &[forged(&whole[4], |chunk| chunk[48 + at] ^= 1)]].concat()) {
            ChunkProblem::End { what, .. } => what,
            other => panic!("{other:?}"),
        };
    assert_eq!(
        [0, 8, 16, 20].map(wrong_end),
        ["number of chunks", "number of bytes", "checksum of checksums", "last word"]
    );
    let mut padded = whole.clone();
    padded[3][4095] = 1;
    assert_eq!(problem(&padded), ChunkProblem::Padding);
    let short = [&whole[..3], &whole[4..]].concat();
    assert_eq!(problem(&short), ChunkProblem::Sequence { found: 4 });
    assert_eq!(problem(&[&whole[0][..4095]]), ChunkProblem::Size { bytes: 4095, expected: 4096 });
    assert_eq!(problem(&[[0; 4096]]), ChunkProblem::Magic { zero: true });
}

/// An entry that puts one key.
fn put(key: u64, value: &[u8]) -> Vec<u8> {
    let operations = vec![Operation::Put { key: key.to_le_bytes().to_vec(), value: value.to_vec() }];
    let (mut archive, mut entry) = (Vec::new(), Vec::new());
    Request { operations, ..Request::default() }.append_to(&mut archive);
    payload::push_request(&mut entry, &archive);
    entry
}

#[test]
fn a_state_goes_through_a_file_while_it_changes() {
    let limits = Limits::default();
    let mut machine = StateMachine::new(EXPECTED.group, limits);
    for index in 1..=2_000 {
        machine.apply_entry(index, 4, &put(index % 1_500, &stream(index as usize % 700)), |_, _| {}).unwrap();
    }
    let state = machine.begin_snapshot().unwrap();
    assert_eq!(state.last, EntryId::new(4, 2_000));
    let head = FileHead { state, limits_digest: limits.digest(), ..head_of(16 << 10) };
    let (mut file, mut slice, mut more) = (Vec::<Vec<u8>>::new(), Vec::new(), true);
    let mut emit = |chunk: &[u8]| file.push(chunk.to_vec());
    let mut writer = ChunkWriter::new(EXPECTED.group, &head, &mut emit);
    while more {
        slice.clear();
        more = machine.snapshot_slice(&mut slice, 3_000);
        writer.push(&slice, &mut emit);
        let index = machine.last_applied() + 1;
        machine.apply_entry(index, 4, &put(index % 1_500, b"later"), |_, _| {}).unwrap();
    }
    writer.finish(&mut emit);
    let mut reader = ChunkReader::new(Expected { limits_digest: limits.digest(), ..EXPECTED });
    let Chunk::Head(found) = reader.take(&file[0]).unwrap() else { panic!() };
    let mut loader = StateLoader::new(EXPECTED.group, limits, found.state);
    for chunk in &file[1..] {
        if let Chunk::Data(bytes) = reader.take(chunk).unwrap() {
            loader.push(bytes).unwrap();
        }
    }
    assert!(reader.is_complete());
    let mut loaded = loader.finish().unwrap();
    assert_eq!((loaded.snapshot_head(), loaded.recompute_digest().hash), (state, state.state_hash));
    for index in 2_001..=machine.last_applied() {
        loaded.apply_entry(index, 4, &put(index % 1_500, b"later"), |_, _| {}).unwrap();
    }
    assert_eq!(loaded.digest(), machine.digest());
}

#[test]
fn members_are_checked() {
    let members = |voters: &[u64], outgoing: &[u64], learners: &[u64]| {
        Members::new(nodes(voters), nodes(outgoing), nodes(learners)).map(drop)
    };
    assert_eq!(members(&[1, 2], &[1], &[3]), Ok(()));
    assert_eq!(members(&[], &[1], &[]), Err(MembersError::NoVoter));
    assert_eq!(members(&[2, 1], &[], &[]), Err(MembersError::Order));
    assert_eq!(members(&[1], &[2, 2], &[]), Err(MembersError::Order));
    assert_eq!(members(&[1], &[2], &[2]), Err(MembersError::VoterAndLearner(2)));
    let many: Vec<u64> = (1..=129).collect();
    assert_eq!(members(&many, &[], &[]), Err(MembersError::TooMany));
    let full = Members::new(nodes(&many[1..]), nodes(&many[1..]), (200..328).map(NodeId).collect()).unwrap();
    let head = FileHead { members: full, ..head_of(4096) };
    let written = chunks(GroupId(3), &head, b"x", 1);
    assert_eq!((written[0].len(), read(&written).unwrap().0), (4096, Some(head)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_portions_make_no_difference(bytes in 0..30_000_usize, portion in 1..9_000_usize) {
        let stream = stream(bytes);
        prop_assert_eq!(chunks(GroupId(3), &head_of(8192), &stream, portion), chunks(GroupId(3), &head_of(8192), &stream, usize::MAX));
    }

    #[test]
    fn a_changed_byte_is_seen_in_its_chunk(
        bytes in 0..20_000_usize, at in any::<prop::sample::Index>(), change in 1..=255_u8
    ) {
        let mut file = file(&stream(bytes));
        let at = at.index(file.len() * 4096);
        file[at / 4096][at % 4096] ^= change;
        let error = read(&file).unwrap_err();
        prop_assert_eq!(error.sequence, (at / 4096) as u64);
        prop_assert!(error.is_retryable(), "{}", error);
    }

    #[test]
    fn a_chunk_lost_repeated_or_moved_is_seen(
        bytes in 0..20_000_usize, from in any::<prop::sample::Index>(), to in any::<prop::sample::Index>(), kind in 0..3
    ) {
        let whole = file(&stream(bytes));
        let (from, to, mut file) = (from.index(whole.len()), to.index(whole.len()), whole.clone());
        match kind {
            0 => drop(file.remove(from)),
            1 => file.insert(to, whole[from].clone()),
            _ => file.swap(from, to),
        }
        let complete = read(&file).is_ok_and(|(_, _, complete)| complete);
        prop_assert_eq!(complete, file == whole);
    }

    #[test]
    fn no_bytes_make_it_panic(
        mut bytes in prop::collection::vec(prop_oneof![0..4_u8, any::<u8>()], 48..300), whole in any::<bool>(), chunk in 0..3_usize
    ) {
        let _ = ChunkReader::new(EXPECTED).take(&bytes);
        bytes[..4].copy_from_slice(b"RSNP");
        bytes[13] = 0;
        bytes[14..16].fill(0);
        bytes.resize(4096, 0);
        let file = file(b"some bytes");
        if whole {
            bytes[8..44].copy_from_slice(&file[chunk][8..44]);
        }
        let mut reader = ChunkReader::new(EXPECTED);
        file[..chunk].iter().for_each(|chunk| drop(reader.take(chunk).unwrap()));
        let _ = reader.take(&forged(&bytes, |_| {}));
    }
}
