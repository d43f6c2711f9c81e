//! Properties of the frame parser: any split, any damage, any bytes.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use ringraft_net::frame::{self, FrameError, FrameKind, HEADER_BYTES};
use ringraft_net::limits::Limits;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Owned {
    kind: FrameKind,
    correlation: u32,
    head: Vec<u8>,
    tail: Vec<u8>,
}

fn owned() -> impl Strategy<Value = Owned> {
    let kind = prop::sample::select(FrameKind::ALL.to_vec());
    let bytes = || prop::collection::vec(any::<u8>(), 0..60);
    (kind, any::<u32>(), bytes(), bytes()).prop_map(|(kind, correlation, head, tail)| Owned {
        kind,
        correlation,
        head,
        tail,
    })
}

fn write(frames: &[Owned]) -> Vec<u8> {
    let mut out = Vec::new();
    for owned in frames {
        let mut writer = frame::begin(&mut out, owned.kind, owned.correlation);
        writer.bytes().extend_from_slice(&owned.head);
        writer.end_head();
        writer.bytes().extend_from_slice(&owned.tail);
        writer.finish();
    }
    out
}

/// Takes all whole frames from the front of `bytes`.
fn take(bytes: &mut Vec<u8>, limits: &Limits, found: &mut Vec<Owned>) -> Result<(), FrameError> {
    while let Some(parsed) = frame::parse(bytes, limits)? {
        let (head, tail) = (parsed.head.to_vec(), parsed.tail.to_vec());
        found.push(Owned { kind: parsed.kind, correlation: parsed.correlation, head, tail });
        let total = parsed.total_bytes;
        bytes.drain(..total);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_frames(
        frames in prop::collection::vec(owned(), 0..8),
        cuts in prop::collection::vec(1usize..50, 1..60),
    ) {
        let stream = write(&frames);
        let mut cuts = cuts.into_iter().cycle();
        let (mut at, mut buffer, mut found) = (0, Vec::new(), Vec::new());
        while at < stream.len() {
            let end = (at + cuts.next().unwrap()).min(stream.len());
            buffer.extend_from_slice(&stream[at..end]);
            at = end;
            take(&mut buffer, &Limits::CLIENT, &mut found).unwrap();
            prop_assert!(frame::bytes_needed(&buffer, &Limits::CLIENT).unwrap() > buffer.len());
        }
        prop_assert_eq!(found, frames);
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn one_damaged_byte_is_an_error_or_in_the_tail(owned in owned(), at in any::<usize>(), flip in 1u8..) {
        let mut bytes = write(std::slice::from_ref(&owned));
        let at = at % bytes.len();
        bytes[at] ^= flip;
        let head_end = HEADER_BYTES + owned.head.len();
        match frame::parse(&bytes, &Limits::CLIENT) {
            Err(error) => {
                prop_assert!(at < head_end, "{error} for a damaged tail");
                prop_assert!(error.is_fatal());
            }
            Ok(None) => prop_assert!(false, "waits for bytes that will not come"),
            Ok(Some(parsed)) => {
                prop_assert!(at >= head_end, "byte {at} of the header or head was not missed");
                prop_assert_eq!(parsed.head, &owned.head[..]);
                prop_assert_ne!(parsed.tail, &owned.tail[..]);
            }
        }
    }

    #[test]
    fn damage_is_found_as_soon_as_the_header_is_there(owned in owned(), at in 0..HEADER_BYTES, flip in 1u8..) {
        let mut bytes = write(&[owned]);
        bytes[at] ^= flip;
        bytes.truncate(HEADER_BYTES);
        // A checksum of the head needs the head.
        if !(16..20).contains(&at) {
            prop_assert!(frame::parse(&bytes, &Limits::CLIENT).is_err());
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), prefix in any::<bool>()) {
        let mut all = if prefix { vec![0x52, 0x52, 1] } else { Vec::new() };
        all.extend(bytes);
        let _ = frame::parse(&all, &Limits::CLIENT);
        let _ = frame::bytes_needed(&all, &Limits::CLIENT);
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_at_its_header(owned in owned(), over in 1usize..20) {
        let mut bytes = write(&[owned]);
        let limits = Limits { frame_bytes_max: bytes.len().saturating_sub(over), ..Limits::CLIENT };
        bytes.truncate(HEADER_BYTES);
        let refused = matches!(frame::parse(&bytes, &limits), Err(FrameError::TooLarge { .. }));
        prop_assert!(refused);
    }
}

#[test]
fn an_unfinished_frame_takes_its_bytes_back() {
    let mut out = vec![1, 2, 3];
    let mut writer = frame::begin(&mut out, FrameKind::Append, 0);
    writer.bytes().extend_from_slice(b"head");
    writer.end_head();
    drop(writer);
    assert_eq!(out, [1, 2, 3]);
}

#[test]
fn garbage_is_refused_at_its_first_bytes_with_a_hint() {
    let error = frame::parse(b"GET / HTTP/1.1", &Limits::CLIENT).unwrap_err();
    assert_eq!(error, FrameError::Magic { found: 0x4547 });
    assert!(error.to_string().contains("is the address that of a ringraft shard?"));
    assert_eq!(frame::parse(b"\x16\x03", &Limits::CLIENT), Err(FrameError::Magic { found: 0x0316 }));
    assert_eq!(frame::parse(b"RR\x02", &Limits::CLIENT), Err(FrameError::Version { found: 2 }));
    assert_eq!(frame::parse(b"RR", &Limits::CLIENT), Ok(None));
}

#[test]
fn an_unknown_kind_is_told_apart_from_damage() {
    let mut bytes = write(&[Owned { kind: FrameKind::Goodbye, correlation: 0, head: vec![], tail: vec![] }]);
    bytes[3] = 99;
    assert!(matches!(frame::parse(&bytes, &Limits::CLIENT), Err(FrameError::HeaderChecksum { .. })));
    frame::set_correlation(&mut bytes, 7);
    assert_eq!(frame::parse(&bytes, &Limits::CLIENT), Err(FrameError::Kind { found: 99 }));
}
