//! Any bytes are no frame, a part of one, or one; what was written is read back.
//!
//! Off the data path.
#![no_main]

use libfuzzer_sys::arbitrary::Unstructured;
use libfuzzer_sys::fuzz_target;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;

fn parse(bytes: &[u8]) {
    for limits in [Limits::CLIENT, Limits::PEER] {
        let needed = frame::bytes_needed(bytes, &limits);
        if let Ok(Some(parsed)) = frame::parse(bytes, &limits) {
            assert!(parsed.total_bytes <= bytes.len());
            assert_eq!(needed, Ok(parsed.total_bytes), "both agree on its length");
        }
    }
}

fn write_and_damage(input: &mut Unstructured<'_>) -> Option<()> {
    let kind = *input.choose(&FrameKind::ALL).ok()?;
    let correlation = input.arbitrary().ok()?;
    let head: Vec<u8> = input.arbitrary().ok()?;
    let tail: Vec<u8> = input.arbitrary().ok()?;
    let mut bytes = Vec::new();
    let mut writer = frame::begin(&mut bytes, kind, correlation);
    writer.bytes().extend_from_slice(&head);
    writer.end_head();
    writer.bytes().extend_from_slice(&tail);
    writer.finish();
    let parsed = frame::parse(&bytes, &Limits::PEER).expect("a frame").expect("the whole of it");
    assert_eq!((parsed.kind, parsed.correlation, parsed.head, parsed.tail), (kind, correlation, &head[..], &tail[..]));
    while !input.is_empty() {
        let at = input.choose_index(bytes.len()).ok()?;
        bytes[at] = input.arbitrary().ok()?;
        parse(&bytes);
    }
    Some(())
}

fuzz_target!(|data: &[u8]| {
    parse(data);
    let _ = write_and_damage(&mut Unstructured::new(data));
});
