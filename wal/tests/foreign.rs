//! Bytes nobody vouches for: records, headers, `wal.meta`, images of segment files. An error or something sound, no panic.
//!
//! Off the data path.
//! The same, for hours and with coverage: `wal/fuzz`.
#![allow(clippy::unwrap_used)] // a test may panic

mod common;

use common::{BLOCK, Log, Model, config, three_segments};
use proptest::prelude::*;
use ringraft_wal::batch::BatchHeader;
use ringraft_wal::mem::MemDisk;
use ringraft_wal::meta::Meta;
use ringraft_wal::{FileNumber, Recovery, record};

/// A change of one block of one of the first three files.
#[derive(Clone, Debug)]
enum Edit {
    Flip {
        at: usize,
        mask: u8,
    },
    Bytes {
        at: usize,
        bytes: Vec<u8>,
    },
    CopyOf {
        file: u32,
        block: usize,
    },
    /// The header says something else and its checksum is right.
    Header {
        at: usize,
        byte: u8,
    },
}

fn edit() -> impl Strategy<Value = (u32, usize, Edit)> {
    let edit = prop_oneof![
        (0..BLOCK, 1..=255_u8).prop_map(|(at, mask)| Edit::Flip { at, mask }),
        (0..BLOCK, prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Edit::Bytes { at, bytes }),
        (0..3_u32, 0..32_usize).prop_map(|(file, block)| Edit::CopyOf { file, block }),
        (0..60_usize, any::<u8>()).prop_map(|(at, byte)| Edit::Header { at, byte }),
    ];
    (0..3_u32, 0..32_usize, edit)
}

fn apply(disk: &mut MemDisk, file: u32, block: usize, edit: &Edit) {
    let range = |block: usize| block * BLOCK..(block + 1) * BLOCK;
    let source = match edit {
        Edit::CopyOf { file, block } => disk.files()[&FileNumber(*file)][range(*block)].to_vec(),
        _ => Vec::new(),
    };
    let target = &mut disk.files_mut().get_mut(&FileNumber(file)).unwrap()[range(block)];
    match edit {
        Edit::Flip { at, mask } => target[*at] ^= mask,
        Edit::Bytes { at, bytes } => {
            let length = bytes.len().min(BLOCK - at);
            target[*at..at + length].copy_from_slice(&bytes[..length]);
        }
        Edit::CopyOf { .. } => target.copy_from_slice(&source),
        Edit::Header { at, byte } => {
            target[*at] = *byte;
            let crc = crc32c::crc32c(&target[..60]);
            target[60..64].copy_from_slice(&crc.to_le_bytes());
        }
    }
}

/// Files that are shown piece by piece while they are read are the same log.
fn check_pieces(disk: &MemDisk, pieces: &[usize]) -> Result<(), TestCaseError> {
    let mut recovery = Recovery::new(&config(), disk.files().len() as u32);
    let mut in_pieces = || {
        for (file, image) in disk.files() {
            let (mut scan, mut read) = (recovery.begin_segment(*file), 0);
            for piece in pieces.iter().chain([&image.len()]) {
                read = (read + piece).min(image.len());
                scan.advance(&image[scan.from() as usize..read]);
            }
            recovery.end_segment(scan)?;
        }
        std::mem::replace(&mut recovery, Recovery::new(&config(), 0)).finish()
    };
    prop_assert_eq!(format!("{:?}", in_pieces()), format!("{:?}", disk.recover(&config())));
    Ok(())
}

/// What was recovered can be read and gone on from.
fn go_on(disk: MemDisk) -> Result<(), TestCaseError> {
    let Ok((mut log, recovered)) = Log::open(config(), disk) else { return Ok(()) };
    for file in recovered.replay_order() {
        recovered.replay_segment(file, &log.disk.files()[&file], &mut |_| {}).unwrap();
    }
    let last =
        recovered.groups.get(&1).and_then(|found| found.entries.back()).map_or((1, 0), |last| (last.term, last.index));
    if last.1 < u64::MAX && log.try_entry(1, last.0, last.1 + 1, 60).is_ok() {
        log.flush();
        let again = log.disk.recover(&log.config).unwrap();
        prop_assert_eq!(again.groups[&1].entries.back().map(|entry| entry.index), Some(last.1 + 1));
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_are_records_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200), fix in any::<bool>()) {
        let mut bytes = bytes;
        if fix && bytes.len() >= record::HEADER_BYTES {
            let length = bytes.len() as u32;
            bytes[4..8].copy_from_slice(&length.to_le_bytes());
            let crc = crc32c::crc32c(&bytes[4..]);
            bytes[..4].copy_from_slice(&crc.to_le_bytes());
        }
        if let Ok(Some((view, consumed))) = record::parse(&bytes) {
            prop_assert!(consumed <= bytes.len() && view.payload.len() < consumed);
        }
        if let Ok(header) = BatchHeader::decode(&bytes) {
            prop_assert!(header.durable_sequence < header.sequence);
        }
    }

    #[test]
    fn any_bytes_are_a_meta_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..9000), edits in prop::collection::vec((0..8192_usize, any::<u8>()), 0..6)) {
        let _ = Meta::decode(&bytes);
        let written = Meta::new(&config(), 9);
        let mut file = written.encode();
        edits.iter().for_each(|(at, byte)| file[*at] = *byte);
        if let Ok(meta) = Meta::decode(&file) {
            prop_assert_eq!(meta, written, "what passes its checksum is what was written");
        }
    }

    #[test]
    fn any_images_are_a_log_or_an_error(blocks in prop::collection::vec((0..64_usize, prop::collection::vec(any::<u8>(), 0..BLOCK), any::<bool>()), 0..20), pieces in prop::collection::vec(0..3_000_usize, 0..20)) {
        let mut disk = MemDisk::new(&config(), 2);
        for (place, bytes, header) in blocks {
            let file = FileNumber(place as u32 / 32);
            let start = place % 32 * BLOCK;
            let target = &mut disk.files_mut().get_mut(&file).unwrap()[start..start + BLOCK];
            target[..bytes.len()].copy_from_slice(&bytes);
            if header {
                target[..8].copy_from_slice(b"RWAL\x01\x00\x00\x00");
                target[52..56].copy_from_slice(&common::identity().checksum().to_le_bytes());
                let crc = crc32c::crc32c(&target[..60]);
                target[60..64].copy_from_slice(&crc.to_le_bytes());
            }
        }
        check_pieces(&disk, &pieces)?;
        go_on(disk)?;
    }

    #[test]
    fn a_changed_log_is_a_log_or_an_error(edits in prop::collection::vec(edit(), 0..6), pieces in prop::collection::vec(0..3_000_usize, 0..20)) {
        let (log, _) = three_segments();
        let mut disk = log.crashed();
        edits.iter().for_each(|(file, block, edit)| apply(&mut disk, *file, *block, edit));
        check_pieces(&disk, &pieces)?;
        go_on(disk)?;
    }

    /// Without checksums made right again nothing is read that was not written.
    #[test]
    fn a_damaged_log_is_never_another_one(edits in prop::collection::vec(edit(), 1..6)) {
        let (log, model) = three_segments();
        let mut disk = log.crashed();
        for (file, block, edit) in edits.iter().filter(|(_, _, edit)| !matches!(edit, Edit::Header { .. })) {
            apply(&mut disk, *file, *block, edit);
        }
        if let Ok(recovered) = disk.recover(&log.config) {
            let found = Model::of(&recovered).groups.remove(&1).unwrap_or_default().entries;
            prop_assert!(model.groups[&1].entries.starts_with(&found));
        }
    }
}
