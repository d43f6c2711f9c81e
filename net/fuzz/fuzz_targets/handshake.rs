//! Any frames as either side of a handshake: refused, unfinished or accepted, never more.
//!
//! Off the data path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::handshake::{Acceptor, Dialer, Identity};
use ringraft_net::wire::Topology;

fn frame_of(kind: FrameKind, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = frame::begin(&mut bytes, kind, 0);
    writer.bytes().extend_from_slice(body);
    writer.end_head();
    writer.finish();
    bytes
}

fuzz_target!(|data: &[u8]| {
    let identity = Identity { cluster: [7; 16], node: 1, shard: 0, config_digest: 9, members: vec![1, 2, 3], removed: vec![] };
    let acceptor = Acceptor::new(&identity);
    let dialers = [Dialer::peer(&identity, 2), Dialer::client([7; 16], 2, 0)];
    let framed = [FrameKind::Hello, FrameKind::Welcome, FrameKind::Refused].map(|kind| frame_of(kind, data));
    for bytes in framed.iter().map(Vec::as_slice).chain([data]) {
        let mut answer = Vec::new();
        if let Ok(Some(_)) = acceptor.receive(bytes, Topology::default, &mut answer) {
            assert!(!answer.is_empty(), "who is accepted is welcomed");
        }
        for dialer in &dialers {
            if let Ok(Some((_, consumed))) = dialer.receive(bytes) {
                assert!(consumed <= bytes.len());
            }
        }
    }
});
