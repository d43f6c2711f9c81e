//! Shows and checks a WAL folder: for `ringraft wal inspect` and `ringraft wal verify`.
//!
//! Off the data path.
//! Plain reads through the page cache, nothing is written, no lock is taken: on the folder of a running node the end of
//! the log may look torn. Invariant: [`verify`] decides exactly as a start would, because it runs the same recovery.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use crate::config::{Config, Identity, ValidConfig};
use crate::disk::FileNumber;
use crate::folder;
use crate::meta::{self, Meta};
use crate::record::{Beginning, FLAG_MEMBERSHIP, HardState, Kind, RecordView, SnapshotMark};
use crate::recovery::scan::{self, SegmentScan};
use crate::recovery::{Note, Recovery, RecoveryError};
use crate::snapshots::SnapshotFile;

/// What to show.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Only this segment file.
    pub file: Option<u32>,
    /// Show every record, not only batches.
    pub records: bool,
    /// Only records of this group.
    pub group: Option<u32>,
}

/// Why a folder cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// A file cannot be read, or the output not written.
    #[error("{what}: {error}")]
    Io {
        /// The file.
        what: String,
        /// The error.
        error: io::Error,
    },
    /// The folder is not a sound WAL.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentReport {
    /// The file's number.
    pub file: u32,
    /// The segment in it; `None` if no batch begins it.
    pub segment_id: Option<u64>,
    /// Sequence of its first batch.
    pub first_sequence: u64,
    /// Sequence of its last intact batch.
    pub last_sequence: u64,
    /// Intact batches.
    pub batches: u64,
    /// Bytes up to the end of the last intact batch.
    pub bytes: u64,
    /// Why they end there.
    pub stop: String,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// The group.
    pub group: u32,
    /// First and last index.
    pub entries: Option<(u64, u64)>,
    /// Term of the last entry.
    pub last_term: u64,
    /// Bytes of all its records.
    pub bytes: u64,
    /// The latest hard state.
    pub hard_state: Option<HardState>,
    /// The newest two snapshot marks, oldest first.
    pub marks: Vec<SnapshotMark>,
    /// The latest beginning.
    pub beginning: Option<Beginning>,
    /// Indexes of the entries that bring a configuration.
    pub memberships: Vec<u64>,
}

/// What [`verify`] found.
#[derive(Clone, Debug)]
pub struct Report {
    /// Whose WAL it is.
    pub identity: Identity,
    /// Unit of direct I/O.
    pub block_bytes: u64,
    /// Size of the segment files.
    pub segment_bytes: u64,
    /// Segment files that were made.
    pub files: u32,
    /// Each file.
    pub segments: Vec<SegmentReport>,
    /// The finished snapshot files.
    pub snapshots: Vec<SnapshotFile>,
    /// Each group; empty if there is an error.
    pub groups: Vec<GroupReport>,
    /// The last batch of the log.
    pub last_sequence: u64,
    /// What is worth knowing but no error.
    pub notes: Vec<Note>,
    /// Why a node would not start.
    pub error: Option<RecoveryError>,
}

impl Report {
    /// Whether a node would start from this folder.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.error.is_none()
    }
}

fn failed(what: &Path) -> impl FnOnce(io::Error) -> InspectError {
    move |error| InspectError::Io { what: what.display().to_string(), error }
}

/// Reads `wal.meta` and derives a configuration to read the folder with.
fn read_meta(directory: &Path) -> Result<(Meta, ValidConfig), InspectError> {
    let path = directory.join(meta::FILE_NAME);
    let meta = match fs::read(&path) {
        Ok(bytes) => Meta::decode(&bytes)?,
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && folder::has_segments(directory).map_err(failed(directory))? =>
        {
            return Err(RecoveryError::MetaMissing.into());
        }
        Err(error) => return Err(failed(&path)(error)),
    };
    let defaults = Config::default();
    let block_bytes = meta.block_bytes as usize;
    let room = usize::try_from(meta.segment_bytes).unwrap_or(usize::MAX);
    let config = Config {
        block_bytes,
        segment_bytes: meta.segment_bytes,
        batch_bytes_max: defaults.batch_bytes_max.min(room / 2),
        record_bytes_max: defaults.record_bytes_max.min(room.saturating_sub(5 * block_bytes)),
        ..defaults
    };
    let config = config.validate(meta.identity).map_err(|_| RecoveryError::Meta)?;
    Ok((meta, config))
}

fn read_segment(directory: &Path, meta: &Meta, file: FileNumber) -> Result<Vec<u8>, InspectError> {
    let path = directory.join(file.to_string());
    let opened = File::open(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => RecoveryError::MissingFile { file, expected: meta.file_count }.into(),
        _ => failed(&path)(error),
    })?;
    let mut image = Vec::with_capacity(meta.segment_bytes as usize);
    // One byte more than expected shows a file that grew.
    opened.take(meta.segment_bytes + 1).read_to_end(&mut image).map_err(failed(&path))?;
    Ok(image)
}

/// Checks a folder the way a start does, without changing it.
///
/// # Errors
/// The folder cannot be read, or `wal.meta` is damaged. Damage in the log is in the report.
pub fn verify(directory: &Path) -> Result<Report, InspectError> {
    let (meta, config) = read_meta(directory)?;
    let mut report = Report {
        identity: meta.identity,
        block_bytes: u64::from(meta.block_bytes),
        segment_bytes: meta.segment_bytes,
        files: meta.file_count,
        segments: Vec::new(),
        snapshots: folder::snapshots(directory).map_err(failed(directory))?.0,
        groups: Vec::new(),
        last_sequence: 0,
        notes: Vec::new(),
        error: None,
    };
    report.error = folder::uncounted(directory, meta.file_count).map_err(failed(directory))?;
    let mut recovery = Recovery::new(&config, meta.file_count);
    report.snapshots.iter().for_each(|file| recovery.snapshot(*file));
    for number in 0..meta.file_count {
        let file = FileNumber(number);
        let image = match read_segment(directory, &meta, file) {
            Ok(image) => image,
            Err(InspectError::Recovery(error)) => {
                report.error.get_or_insert(error);
                continue;
            }
            Err(error) => return Err(error),
        };
        match scan::scan(&config, file, &image) {
            Ok(scanned) => {
                report.segments.push(segment_report(&config, &scanned));
                recovery.scanned(scanned);
            }
            Err(error) => {
                report.error.get_or_insert(error);
            }
        }
    }
    if report.error.is_some() {
        return Ok(report);
    }
    match recovery.finish() {
        Ok(recovered) => {
            report.last_sequence = recovered.last_sequence();
            report.groups = recovered.groups.iter().map(|(group, found)| group_report(*group, found)).collect();
            report.notes = recovered.notes;
        }
        Err(error) => report.error = Some(error),
    }
    Ok(report)
}

fn segment_report(config: &ValidConfig, scanned: &SegmentScan) -> SegmentReport {
    SegmentReport {
        file: scanned.file.0,
        segment_id: scanned.segment_id,
        first_sequence: scanned.first_sequence(),
        last_sequence: scanned.batches.last().map_or(0, |batch| batch.header.sequence),
        batches: scanned.batches.len() as u64,
        bytes: scanned.stop_block * config.block_bytes as u64,
        stop: scanned.stop.to_string(),
    }
}

fn group_report(group: u32, found: &crate::RecoveredGroup) -> GroupReport {
    let (first, last) = (found.entries.front(), found.entries.back());
    GroupReport {
        group,
        entries: first.zip(last).map(|(first, last)| (first.index, last.index)),
        last_term: last.map_or(0, |last| last.term),
        bytes: found.entries.iter().map(|entry| u64::from(entry.length)).sum(),
        hard_state: found.hard_state,
        marks: found.marks.clone(),
        beginning: found.beginning,
        memberships: found.memberships.iter().map(|(index, _)| *index).collect(),
    }
}

/// Writes what stands in the segment files, as text: one line per batch, and per record if asked.
///
/// # Errors
/// A file cannot be read or belongs to another WAL; the output cannot be written.
pub fn dump(directory: &Path, options: &DumpOptions, out: &mut dyn Write) -> Result<(), InspectError> {
    let written = |error| InspectError::Io { what: String::from("the output"), error };
    let (meta, config) = read_meta(directory)?;
    writeln!(
        out,
        "{}; {} segment files of {} bytes, blocks of {} bytes",
        meta.identity, meta.file_count, meta.segment_bytes, meta.block_bytes
    )
    .map_err(written)?;
    for number in 0..meta.file_count {
        if options.file.is_some_and(|file| file != number) {
            continue;
        }
        let file = FileNumber(number);
        let image = read_segment(directory, &meta, file)?;
        let scanned = scan::scan(&config, file, &image)?;
        dump_segment(&config, options, &image, &scanned, out).map_err(written)?;
    }
    Ok(())
}

fn dump_segment(
    config: &ValidConfig,
    options: &DumpOptions,
    image: &[u8],
    scanned: &SegmentScan,
    out: &mut dyn Write,
) -> io::Result<()> {
    match scanned.segment_id {
        Some(segment_id) => writeln!(out, "{}: segment {segment_id}", scanned.file)?,
        None => writeln!(out, "{}: no segment", scanned.file)?,
    }
    for batch in &scanned.batches {
        let header = &batch.header;
        let offset = u64::from(header.block_offset) * config.block_bytes as u64;
        writeln!(
            out,
            "  {offset:>12}  batch {:>8}  durable {:>8}  records {:>6}  bytes {:>8}  oldest segment {}  crc {:08x}",
            header.sequence,
            header.durable_sequence,
            header.record_count,
            header.used_bytes(),
            header.live_segment(),
            header.header_crc
        )?;
        if options.records {
            let start = offset as usize + crate::batch::HEADER_BYTES;
            dump_records(options, &image[start..start + header.body_length as usize], start, out)?;
        }
    }
    let end = scanned.stop_block * config.block_bytes as u64;
    writeln!(out, "  {end:>12}  end: {}", scanned.stop)?;
    for (segment_id, claim) in &scanned.claims {
        writeln!(
            out,
            "                behind it: headers of segment {segment_id} from batch {} on, calling {} durable",
            claim.sequence_min, claim.durable_max
        )?;
    }
    Ok(())
}

fn dump_records(options: &DumpOptions, body: &[u8], start: usize, out: &mut dyn Write) -> io::Result<()> {
    let mut offset = 0;
    while offset < body.len() {
        let at = start + offset;
        let (view, consumed) = match crate::record::parse(&body[offset..]) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return writeln!(out, "  {at:>12}    a record that is cut short"),
            Err(error) => return writeln!(out, "  {at:>12}    {error}"),
        };
        offset += consumed;
        let tagged = matches!(view.kind, Kind::Entry | Kind::HardState | Kind::SnapshotMark | Kind::Beginning);
        if options.group.is_some_and(|group| !tagged || group != view.group) {
            continue;
        }
        match view.kind {
            Kind::Entry => dump_entry(&view, at, out)?,
            Kind::HardState => {
                let voted_for = crate::record::hard_state(&view).ok().and_then(|state| state.voted_for);
                let vote = voted_for.map_or_else(|| String::from("none"), |node| node.to_string());
                let copy = if view.flags & crate::record::FLAG_COPY == 0 { "" } else { " (copy)" };
                writeln!(out, "  {at:>12}    hard state group {} term {} vote {vote}{copy}", view.group, view.term)?;
            }
            Kind::Seal => {
                let (file, segment) = crate::record::seal(&view).unwrap_or_default();
                writeln!(out, "  {at:>12}    seal: {} continues as segment {segment}", FileNumber(file))?;
            }
            Kind::Pad => writeln!(out, "  {at:>12}    filler of {consumed} bytes")?,
            Kind::SnapshotMark => dump_snapshot_mark(&view, at, out)?,
            Kind::Beginning => dump_beginning(&view, at, out)?,
        }
    }
    Ok(())
}

fn dump_entry(view: &RecordView<'_>, at: usize, out: &mut dyn Write) -> io::Result<()> {
    let RecordView { group, term, index, count, payload, .. } = view;
    let bytes = payload.len();
    if view.flags & FLAG_MEMBERSHIP != 0 {
        return writeln!(out, "  {at:>12}    configuration group {group} term {term} index {index} payload {bytes}");
    }
    writeln!(out, "  {at:>12}    entry group {group} term {term} index {index} requests {count} payload {bytes}")
}

fn dump_beginning(view: &RecordView<'_>, at: usize, out: &mut dyn Write) -> io::Result<()> {
    let Ok(Beginning { held, term, index }) = crate::record::beginning(view) else {
        return writeln!(out, "  {at:>12}    a beginning that cannot be read");
    };
    let what = if held { "begins anew" } else { "is given up" };
    let carried = if view.flags & crate::record::FLAG_CARRIED == 0 { "" } else { " (carried)" };
    let group = view.group;
    writeln!(
        out,
        "  {at:>12}    the log of group {group} {what}, the one before up to term {term} index {index}{carried}"
    )
}

fn dump_snapshot_mark(view: &RecordView<'_>, at: usize, out: &mut dyn Write) -> io::Result<()> {
    let Ok(mark) = crate::record::snapshot_mark(view) else {
        return writeln!(out, "  {at:>12}    a snapshot mark that cannot be read");
    };
    let replaces = if mark.replaces_log { ", replaces the log" } else { "" };
    let carried = if view.flags & crate::record::FLAG_CARRIED == 0 { "" } else { " (carried)" };
    writeln!(
        out,
        "  {at:>12}    snapshot mark group {} term {} index {}: {} bytes, state {:016x}{replaces}{carried}",
        view.group, mark.term, mark.index, mark.file_bytes, mark.state_hash
    )
}
