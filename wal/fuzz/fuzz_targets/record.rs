//! Any bytes as records, a batch header or `wal.meta`: an error or something sound.
//!
//! Off the data path.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringraft_wal::batch::BatchHeader;
use ringraft_wal::meta::Meta;
use ringraft_wal::record;

fuzz_target!(|data: &[u8]| {
    let mut rest = data;
    while let Ok(Some((view, consumed))) = record::parse(rest) {
        assert!(consumed > 0 && consumed <= rest.len());
        assert!(view.payload.len() < consumed);
        rest = &rest[consumed..];
    }
    // The checksum made right, so that what is behind it is reached.
    let mut bytes = data.to_vec();
    if bytes.len() >= record::HEADER_BYTES {
        let length = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]) as usize;
        if let Some(covered) = bytes.get(4..length) {
            let crc = crc32c::crc32c(covered);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
        }
        let _ = record::parse(&bytes);
    }
    if let Ok(header) = BatchHeader::decode(data) {
        assert!(header.durable_sequence < header.sequence);
        assert!(header.live_segment() >= 1);
        let _ = header.blocks(512);
    }
    if let Ok(meta) = Meta::decode(data) {
        assert_eq!(Meta::decode(&meta.encode()), Ok(meta));
    }
});
