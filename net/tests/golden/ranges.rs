//! Golden bytes of ranges, versions and watches.
//!
//! Off the data path.

use super::{check, key, position, request};
use ringraft_net::wire::items::{ItemRef, push};
use ringraft_net::wire::{
    self, Operation, OperationResult, Outcome, Reply, Request, WatchEnd, WatchEvent, WatchRequest,
};

fn items() -> Vec<u8> {
    let mut items = Vec::new();
    push(&mut items, &ItemRef { key: b"key", value: Some(b"value"), version: 0x0102_0003 });
    push(&mut items, &ItemRef { key: b"gone", value: None, version: 0x0103_0000 });
    items
}

#[test]
fn operations() {
    let set = Operation::CompareVersion { key: key(), version: 0x0102_0003, value: Some(b"value".to_vec()) };
    let remove = Operation::CompareVersion { key: key(), version: 0x0102_0003, value: None };
    check(
        "compare version",
        r"
            5252 01 04 60000000 00000000 01000000 a91919db e66945b0
            6b657976616c75656b657905f4ffffff03000000030002010000000001e6ffffff0500000005e2ffffff030000000300
            02010000000000000000000000000011000000000000002200000000000000210000000000000000b3ffffff02000000
        ",
        |out| _ = request(vec![set, remove]).append_frame(out, 1),
    );
    let range =
        Operation::Range { group: 3, start: b"a".to_vec(), end: b"bc".to_vec(), limit: 0x0405, keys_only: true };
    let range = Request { operations: vec![range], ..Request::default() };
    check(
        "range",
        r"
            5252 01 04 3e000000 00000000 02000000 2c5da461 22749084
            6162630603000000f8ffffff01000000f1ffffff02000000050400000100000000000000000000000000000000000000
            000000000000cdffffff01000000
        ",
        |out| _ = range.append_frame(out, 2),
    );
}

#[test]
fn results() {
    let done = |results| Reply { position: position(), outcome: Outcome::Done(results), term: 0x0506 };
    let compared = done(vec![OperationResult::ComparedVersion { swapped: true, version: 0x0102_0003 }]);
    check(
        "compared version",
        r"
            5252 01 05 3a000000 00000000 01000000 38560cd7 e5b2e50b
            06010300020100000000000300000002010000000000000400000000e4ffffff01000000000000000000000000000000
            0000
            0605000000000000
        ",
        |out| _ = compared.append_frame(out, 1),
    );
    let listed = done(vec![OperationResult::Items { items: items(), more: true }]);
    check(
        "items",
        r"
            5252 01 05 66000000 00000000 02000000 cff892f1 e603fbba
            030002010000000003000000050000006b657976616c7565000003010000000004000000ffffffff676f6e6507d3ffff
            ff2c00000001000300000002010000000000000400000000e4ffffff010000000000000000000000000000000000
            0605000000000000
        ",
        |out| _ = listed.append_frame(out, 2),
    );
}

#[test]
fn watches() {
    let watch = WatchRequest { group: 3, from: 0x0102, prefix: b"user:".to_vec() };
    check(
        "watch",
        r"
            5252 01 14 19000000 00000000 0d0c0b0a 9da2fb7d 8f677779
            757365723a030000000201000000000000efffffff05000000
        ",
        |out| _ = watch.append_frame(out, 0x0A0B_0C0D),
    );
    let changes = WatchEvent::Changes { group: 3, next: 0x0104, items: items() };
    check(
        "changes",
        r"
            5252 01 15 42000000 00000000 0d0c0b0a d98de218 db9c156a
            030002010000000003000000050000006b657976616c7565000003010000000004000000ffffffff676f6e6500030000
            000401000000000000c7ffffff2c00000000
        ",
        |out| _ = changes.as_event_ref().append_frame(out, 0x0A0B_0C0D),
    );
    let message = String::from("forgotten");
    let ended = WatchEvent::Ended { group: 3, end: WatchEnd::Compacted, index: 0x0105, message };
    check(
        "ended",
        r"
            5252 01 15 1f000000 00000000 0d0c0b0a 1c44734f 2fe33e45
            666f72676f7474656e010300000001050100000000000089000000e9ffffff
        ",
        |out| _ = ended.as_event_ref().append_frame(out, 0x0A0B_0C0D),
    );
    check(
        "unwatch",
        r"
            5252 01 16 00000000 00000000 0d0c0b0a 00000000 23d64346
        ",
        |out| _ = wire::append_unwatch(out, 0x0A0B_0C0D),
    );
}
