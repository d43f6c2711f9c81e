//! Puts the scanned segments in order and decides where the log ends, and whether that end may be believed.
//!
//! Off the data path.
//!
//! The log is the chain with the highest segment id that is unbroken down to the oldest segment its last batch still
//! needs. Segments above it that do not link are leftovers of a torn tail, *unless* any header anywhere calls a batch
//! behind the chain's end durable: then it is corruption. Segments below are dead. Nothing else is decided here.

use std::collections::BTreeMap;

use ringraft_raft::mutants::{Mutant, is_active};

use super::recovered::{Cursor, Recovered, RecoveredSegment};
use super::scan::{Claim, ScannedRecord, SegmentScan, StopReason};
use super::{Damage, LostRange, Note, RecoveryError};
use crate::config::ValidConfig;
use crate::disk::FileNumber;

/// One segment of the log, with the last batch of it that counts.
struct Part {
    place: usize,
    last_sequence: u64,
}

/// Where a chain going down from one segment breaks: the scan whose end is the damaged place.
struct Break {
    place: usize,
    sequence: u64,
    /// The segment that is not there at all.
    missing: Option<u64>,
}

pub(super) fn link(config: &ValidConfig, scans: &[SegmentScan], file_count: u32) -> Result<Recovered, RecoveryError> {
    let order = newest_first(scans)?;
    let mut parts = Vec::new();
    let mut first_break = None;
    for top in 0..order.len() {
        match chain_down(scans, &order[top..]) {
            Ok(found) => {
                parts = found;
                break;
            }
            Err(broken) => {
                first_break.get_or_insert(broken);
            }
        }
    }
    let end = parts.first().map_or(0, |part| part.last_sequence);
    let live_first = parts.last().and_then(|part| scans[part.place].segment_id).unwrap_or(0);
    let claims = claims_beyond(scans, &parts, live_first);
    let durable = claims.iter().map(|(_, claim)| claim.durable_max).max().unwrap_or(0);
    if durable > end && !is_active(Mutant::CorruptionTakenForTorn) {
        return Err(damage(config, scans, &parts, first_break.as_ref(), &claims, durable));
    }
    if let Some(scan) = parts.first().map(|part| &scans[part.place])
        && let StopReason::Version(version) = scan.stop
    {
        let offset = scan.stop_block * config.block_bytes as u64;
        return Err(RecoveryError::Version { file: scan.file, offset, version });
    }
    let newest = parts.first().and_then(|part| scans[part.place].segment_id).unwrap_or(0);
    if let Some(scan) = scans.iter().find(|scan| !is_plausible(scan, (live_first, newest), end)) {
        let (file, sequence, reason) = (scan.file, end + 1, StopReason::Contradiction);
        let damage = Damage { file, offset: 0, sequence, durable_sequence: end, reason, lost: Vec::new() };
        return Err(RecoveryError::Corruption(Box::new(damage)));
    }
    if let Some(StopReason::Sealed { next, .. }) = parts.first().map(|part| scans[part.place].stop)
        && next.0 >= file_count
    {
        return Err(RecoveryError::Uncounted { file: next, counted: file_count });
    }
    assemble(config, scans, &parts, file_count)
}

/// What programs write: ids and sequences go up together, so a segment behind the log's newest begins behind its end; and
/// ids are within what a header's `live_segments` can span. A log gone on from behind anything else could not be read again.
fn is_plausible(scan: &SegmentScan, (live_first, newest): (u64, u64), end: u64) -> bool {
    let ids = scan.segment_id.into_iter().chain(scan.claims.keys().copied());
    let in_reach = ids.max().unwrap_or(0).saturating_sub(live_first) < u64::from(u32::MAX);
    let behind = scan.segment_id.is_none_or(|segment_id| segment_id <= newest || scan.first_sequence() > end);
    in_reach && behind
}

/// Places of the scans that begin with a batch, highest segment id first.
fn newest_first(scans: &[SegmentScan]) -> Result<Vec<usize>, RecoveryError> {
    let mut order: Vec<(u64, usize)> =
        scans.iter().enumerate().filter_map(|(place, scan)| Some((scan.segment_id?, place))).collect();
    order.sort_unstable_by(|left, right| right.cmp(left));
    for pair in order.windows(2) {
        if pair[0].0 == pair[1].0 {
            let (file, other) = (scans[pair[1].1].file, scans[pair[0].1].file);
            return Err(RecoveryError::DuplicateSegment { file, other, segment_id: pair[0].0 });
        }
    }
    Ok(order.into_iter().map(|(_, place)| place).collect())
}

/// The unbroken chain from the first of `order` down to the oldest segment it needs, newest first.
fn chain_down(scans: &[SegmentScan], order: &[usize]) -> Result<Vec<Part>, Break> {
    let top = &scans[order[0]];
    let Some(last) = top.batches.last().map(|batch| batch.header) else {
        return Err(Break { place: order[0], sequence: 1, missing: None });
    };
    let needed = last.live_segment();
    let mut parts = vec![Part { place: order[0], last_sequence: last.sequence }];
    let mut below = order[1..].iter();
    loop {
        let current = &scans[parts[parts.len() - 1].place];
        let first = current.batches[0].header;
        if first.segment_id == needed {
            return Ok(parts);
        }
        let wanted = first.sequence - 1;
        // Segments that begin behind the wanted batch were left over by a torn tail that this chain replaced.
        let found = below.find(|place| scans[**place].first_sequence() <= wanted);
        let Some(place) = found.copied().filter(|place| scans[*place].segment_id >= Some(needed)) else {
            return Err(Break { place: parts[parts.len() - 1].place, sequence: wanted, missing: Some(needed) });
        };
        match scans[place].batch(wanted) {
            Some(batch) if batch.header.header_crc == first.previous_crc => {
                parts.push(Part { place, last_sequence: wanted });
            }
            _ => {
                let end = scans[place].batches.last().map_or(1, |batch| batch.header.sequence + 1);
                return Err(Break { place, sequence: end.min(wanted), missing: None });
            }
        }
    }
}

/// What every header that is not part of the chain, and not of a dead segment, claims.
fn claims_beyond(scans: &[SegmentScan], parts: &[Part], live_first: u64) -> Vec<(usize, Claim)> {
    let mut claims = Vec::new();
    for (place, scan) in scans.iter().enumerate() {
        let in_chain = parts.iter().any(|part| part.place == place);
        let segment_id = scan.segment_id.filter(|segment_id| *segment_id >= live_first && !in_chain);
        if segment_id.is_some() {
            claims.push((place, claim_of_batches(scan)));
        }
        for (segment_id, claim) in &scan.claims {
            if *segment_id >= live_first {
                claims.push((place, claim.clone()));
            }
        }
    }
    claims
}

fn claim_of_batches(scan: &SegmentScan) -> Claim {
    let mut first_indexes = BTreeMap::new();
    for record in &scan.records {
        if let ScannedRecord::Entry { group, index, .. } = record {
            let first = first_indexes.entry(*group).or_insert(*index);
            *first = (*first).min(*index);
        }
    }
    let durable_max = scan.batches.last().map_or(0, |batch| batch.header.durable_sequence);
    Claim { sequence_min: scan.first_sequence(), durable_max, first_indexes }
}

/// Names the damaged place and what is lost there.
fn damage(
    config: &ValidConfig,
    scans: &[SegmentScan],
    parts: &[Part],
    first_break: Option<&Break>,
    claims: &[(usize, Claim)],
    durable_sequence: u64,
) -> RecoveryError {
    let end = parts.first().map_or(0, |part| part.last_sequence);
    let sequence = first_break.map_or(end + 1, |broken| broken.sequence);
    let (file, offset, reason) = damaged_place(config, scans, parts, first_break, claims);
    let mut last_indexes: BTreeMap<u32, u64> = BTreeMap::new();
    for part in parts.iter().rev() {
        for record in scans[part.place].records_up_to(part.last_sequence) {
            match record {
                ScannedRecord::Entry { group, index, .. } => {
                    last_indexes.insert(*group, *index);
                }
                ScannedRecord::SnapshotMark { group, mark, carried: false } if mark.replaces_log => {
                    last_indexes.insert(*group, mark.index);
                }
                ScannedRecord::SnapshotMark { group, mark, .. } => {
                    let last = last_indexes.entry(*group).or_default();
                    *last = (*last).max(mark.index);
                }
                ScannedRecord::Beginning { group, carried: false, .. } => {
                    last_indexes.insert(*group, 0);
                }
                ScannedRecord::Beginning { .. } | ScannedRecord::HardState { .. } => {}
            }
        }
    }
    let mut lost = Vec::new();
    for (_, claim) in claims {
        for (group, first_after) in &claim.first_indexes {
            let first_index = last_indexes.get(group).map_or(1, |last| last + 1);
            if *first_after > first_index && !lost.iter().any(|range: &LostRange| range.group == *group) {
                lost.push(LostRange { group: *group, first_index, last_index: Some(first_after - 1) });
            }
        }
    }
    if lost.is_empty() {
        let open = |(group, last): (&u32, &u64)| LostRange { group: *group, first_index: last + 1, last_index: None };
        lost = last_indexes.iter().map(open).collect();
    }
    RecoveryError::Corruption(Box::new(Damage { file, offset, sequence, durable_sequence, reason, lost }))
}

/// The file, the byte and what stands there.
fn damaged_place(
    config: &ValidConfig,
    scans: &[SegmentScan],
    parts: &[Part],
    first_break: Option<&Break>,
    claims: &[(usize, Claim)],
) -> (FileNumber, u64, StopReason) {
    if let Some(segment_id) = first_break.and_then(|broken| broken.missing) {
        // Its file is one that no batch begins; one that still holds other batches of it if there is such a file.
        let headless = |scan: &&SegmentScan| scan.segment_id.is_none();
        let with_rest = scans.iter().filter(headless).find(|scan| scan.claims.contains_key(&segment_id));
        let file = with_rest.or_else(|| scans.iter().find(headless)).map_or(FileNumber(0), |scan| scan.file);
        return (file, 0, StopReason::SegmentMissing { segment_id });
    }
    let place = first_break
        .map(|broken| broken.place)
        .or_else(|| parts.first().map(|part| part.place))
        .or_else(|| claims.first().map(|(place, _)| *place))
        .unwrap_or(0);
    let scan = &scans[place];
    match scan.stop {
        StopReason::Sealed { next, .. } if (next.0 as usize) < scans.len() => {
            let next_scan = &scans[next.0 as usize];
            (next, 0, if next_scan.stop_block == 0 { next_scan.stop } else { scan.stop })
        }
        reason => (scan.file, scan.stop_block * config.block_bytes as u64, reason),
    }
}

/// Builds the result from the chain.
fn assemble(
    config: &ValidConfig,
    scans: &[SegmentScan],
    parts: &[Part],
    file_count: u32,
) -> Result<Recovered, RecoveryError> {
    let mut recovered = Recovered::empty(config, file_count);
    for part in parts.iter().rev() {
        let scan = &scans[part.place];
        recovered.segments.push(RecoveredSegment { id: scan.segment_id.unwrap_or(0), file: scan.file });
        recovered.notes.extend(scan.notes.iter().cloned());
        for record in scan.records_up_to(part.last_sequence) {
            recovered.apply(record)?;
        }
    }
    let in_log = |file: FileNumber| parts.iter().any(|part| scans[part.place].file == file);
    let mut free: Vec<&SegmentScan> = scans.iter().filter(|scan| !in_log(scan.file)).collect();
    free.sort_by_key(|scan| (scan.segment_id, scan.file)); // never used ones first, then the oldest
    recovered.free_files = free.into_iter().map(|scan| scan.file).collect();
    let ids = scans.iter().flat_map(|scan| scan.segment_id.into_iter().chain(scan.claims.keys().copied()));
    recovered.next_segment_id = ids.max().unwrap_or(0) + 1;
    let Some(top) = parts.first() else { return Ok(recovered) };
    let scan = &scans[top.place];
    let segment_id = scan.segment_id.unwrap_or(0);
    if let Some(last) = scan.batches.last().map(|batch| batch.header) {
        recovered.next_sequence = last.sequence + 1;
        recovered.previous_crc = last.header_crc;
    }
    let mut torn = scan.claims.contains_key(&segment_id);
    for other in scans {
        if let Some(other_id) = other.segment_id.filter(|other_id| *other_id > segment_id) {
            torn = true;
            recovered.notes.push(Note::LeftoverSegment { file: other.file, segment_id: other_id });
        }
        torn |= other.claims.keys().any(|claimed| *claimed > segment_id);
    }
    let finished = matches!(scan.stop, StopReason::Full | StopReason::Sealed { .. });
    torn |= !finished && !scan.stop.is_untouched();
    if torn {
        let offset = scan.stop_block * config.block_bytes as u64;
        let (file, sequence) = (scan.file, recovered.next_sequence);
        recovered.notes.push(Note::TornTail { file, offset, sequence, reason: scan.stop });
    } else if !finished {
        recovered.cursor = Some(Cursor { segment_id, file: scan.file, next_block: scan.stop_block });
    }
    Ok(recovered)
}
