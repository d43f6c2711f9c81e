//! Records: the unit of the log, byte for byte the same on disk and on the wire.
//!
//! Data path 4/9 (written in place), 6a/9 and 6b/9 (the same bytes to disk and to followers).
//!
//! ```text
//!  0        4         8      9       10       12       16          24          32
//!  | crc32c | length  | kind | flags | count  | group  | term      | index     | payload ... | zeros to 8 |
//! ```
//!
//! All integers are little endian. `length` counts header and payload, without the zeros behind. `crc32c` covers the
//! bytes `4..length`. Invariant: bytes that [`parse`] accepts are exactly the bytes a writer built; the zeros behind are
//! checked too.
//! It does not know what a payload means.

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 32;
/// Records start and end at multiples of this.
pub const ALIGNMENT: usize = 8;
/// No record is longer than this, whatever a configuration says: bounds what a parser waits for.
pub const LENGTH_MAX: usize = 16 << 20;
/// Bytes of a hard state record, header included.
pub(crate) const HARD_STATE_BYTES: usize = HEADER_BYTES + 16;
/// Bytes of a seal record, header included.
pub(crate) const SEAL_BYTES: usize = HEADER_BYTES + 16;
/// Bytes of a snapshot mark record, header included.
pub(crate) const SNAPSHOT_MARK_BYTES: usize = HEADER_BYTES + 24;
/// Bytes of a beginning record, header included.
pub(crate) const BEGINNING_BYTES: usize = HEADER_BYTES + 8;
/// This record is the second copy of a hard state.
pub(crate) const FLAG_COPY: u8 = 1;
/// This snapshot mark or beginning was written before, in an earlier segment.
pub(crate) const FLAG_CARRIED: u8 = 2;
/// This entry brings a configuration of its group; it has no requests.
pub const FLAG_MEMBERSHIP: u8 = 4;

const _: () = assert!(HEADER_BYTES.is_multiple_of(ALIGNMENT) && HARD_STATE_BYTES.is_multiple_of(ALIGNMENT));
const _: () = assert!(SNAPSHOT_MARK_BYTES.is_multiple_of(ALIGNMENT) && BEGINNING_BYTES.is_multiple_of(ALIGNMENT));

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// One log entry of a group: a batch of client requests.
    Entry = 1,
    /// A group's current term and vote.
    HardState = 2,
    /// The end of a segment; names the next one.
    Seal = 3,
    /// Filler up to a block boundary.
    Pad = 4,
    /// A snapshot of a group is durable in its file.
    SnapshotMark = 5,
    /// A group's log begins anew.
    Beginning = 6,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            1 => Some(Self::Entry),
            2 => Some(Self::HardState),
            3 => Some(Self::Seal),
            4 => Some(Self::Pad),
            5 => Some(Self::SnapshotMark),
            6 => Some(Self::Beginning),
            _ => None,
        }
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The length field is below the header's or above what may be.
    #[error("record length {0} is out of bounds")]
    Length(u32),
    /// The checksum does not match.
    #[error("record checksum {found:08x} does not match its bytes ({computed:08x})")]
    Checksum {
        /// In the header.
        found: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// The kind is not known to this version.
    #[error("record kind {0} is unknown")]
    Kind(u8),
    /// No entry has these flags, or not with requests.
    #[error("an entry with flags {0:#x} that do not fit it")]
    Flags(u8),
    /// The bytes behind the record, up to the next multiple of eight, are not zero.
    #[error("the padding behind the record is not zero")]
    Padding,
    /// A record of another kind or length was expected here.
    #[error("the record is not one that may stand here")]
    Unexpected,
}

/// The header of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    /// CRC32C over the bytes `4..length`.
    pub crc32c: u32,
    /// Header and payload, without padding.
    pub length: u32,
    /// [`Kind`] as a byte.
    pub kind: u8,
    /// Bit 0: second copy of a hard state. Bit 1: carried snapshot mark or beginning. Bit 2: entry with a configuration.
    pub flags: u8,
    /// Requests in an entry.
    pub count: u16,
    /// The group it belongs to.
    pub group: u32,
    /// The term of the entry, or of the last one a snapshot covers, or the hard state's current term.
    pub term: u64,
    /// The index of the entry, or of the last one a snapshot covers.
    pub index: u64,
}

impl RecordHeader {
    pub(crate) fn encode(&self, out: &mut [u8]) {
        out[0..4].copy_from_slice(&self.crc32c.to_le_bytes());
        out[4..8].copy_from_slice(&self.length.to_le_bytes());
        out[8] = self.kind;
        out[9] = self.flags;
        out[10..12].copy_from_slice(&self.count.to_le_bytes());
        out[12..16].copy_from_slice(&self.group.to_le_bytes());
        out[16..24].copy_from_slice(&self.term.to_le_bytes());
        out[24..32].copy_from_slice(&self.index.to_le_bytes());
    }
}

/// A verified record.
#[derive(Clone, Copy, Debug)]
pub struct RecordView<'a> {
    /// What it is.
    pub kind: Kind,
    /// Bit 0: second copy of a hard state. Bit 1: carried snapshot mark or beginning. Bit 2: entry with a configuration.
    pub flags: u8,
    /// Requests in an entry.
    pub count: u16,
    /// The group it belongs to.
    pub group: u32,
    /// The term of the entry, or of the last one a snapshot covers, or the hard state's current term.
    pub term: u64,
    /// The index of the entry, or of the last one a snapshot covers.
    pub index: u64,
    /// The bytes behind the header.
    pub payload: &'a [u8],
    /// The whole record with its padding, as it goes to disk and over the wire.
    pub bytes: &'a [u8],
}

/// Bytes a record with this payload takes, header and padding included.
#[must_use]
pub const fn padded_length(payload_bytes: usize) -> usize {
    (HEADER_BYTES + payload_bytes).next_multiple_of(ALIGNMENT)
}

/// Reads the header of bytes that were verified before.
///
/// # Panics
/// If there are fewer than [`HEADER_BYTES`].
#[must_use]
pub fn header(bytes: &[u8]) -> RecordHeader {
    RecordHeader {
        crc32c: read_u32(bytes, 0),
        length: read_u32(bytes, 4),
        kind: bytes[8],
        flags: bytes[9],
        count: u16::from_le_bytes([bytes[10], bytes[11]]),
        group: read_u32(bytes, 12),
        term: read_u64(bytes, 16),
        index: read_u64(bytes, 24),
    }
}

/// The payload of a record that was verified before.
///
/// # Panics
/// If `bytes` does not begin with a whole record.
#[must_use]
pub fn payload(bytes: &[u8]) -> &[u8] {
    &bytes[HEADER_BYTES..read_u32(bytes, 4) as usize]
}

/// The requests of an entry that was verified before: its payload, or nothing if that is a configuration.
///
/// # Panics
/// If `bytes` does not begin with a whole record.
#[must_use]
pub fn requests(bytes: &[u8]) -> &[u8] {
    if bytes[9] & FLAG_MEMBERSHIP == 0 { payload(bytes) } else { &[] }
}

/// Bytes of the first record of `bytes`, padding included, for bytes that were verified before.
///
/// # Panics
/// If there are fewer than 8 bytes.
#[must_use]
pub fn padded_record_length(bytes: &[u8]) -> usize {
    (read_u32(bytes, 4) as usize).next_multiple_of(ALIGNMENT)
}

/// Checks and reads the record at the start of `bytes`; returns it with the bytes it takes, `None` if more are needed.
///
/// # Errors
/// The bytes are not a record: bounds, checksum, kind or padding.
pub fn parse(bytes: &[u8]) -> Result<Option<(RecordView<'_>, usize)>, RecordError> {
    if bytes.len() < 8 {
        return Ok(None);
    }
    let length = read_u32(bytes, 4);
    if (length as usize) < HEADER_BYTES || length as usize > LENGTH_MAX {
        return Err(RecordError::Length(length));
    }
    let padded = (length as usize).next_multiple_of(ALIGNMENT);
    if bytes.len() < padded {
        return Ok(None);
    }
    let length = length as usize;
    let header = header(bytes);
    let computed = crc32c::crc32c(&bytes[4..length]);
    if computed != header.crc32c {
        return Err(RecordError::Checksum { found: header.crc32c, computed });
    }
    let kind = Kind::from_byte(header.kind).ok_or(RecordError::Kind(header.kind))?;
    if kind == Kind::Entry && !matches!((header.flags, header.count), (0, _) | (FLAG_MEMBERSHIP, 0)) {
        return Err(RecordError::Flags(header.flags));
    }
    if bytes[length..padded].iter().any(|byte| *byte != 0) {
        return Err(RecordError::Padding);
    }
    let view = RecordView {
        kind,
        flags: header.flags,
        count: header.count,
        group: header.group,
        term: header.term,
        index: header.index,
        payload: &bytes[HEADER_BYTES..length],
        bytes: &bytes[..padded],
    };
    Ok(Some((view, padded)))
}

/// Appends one entry record built from `payload` to `out`; for tests and tools, the hot path builds in place.
///
/// # Panics
/// If the record would be longer than [`LENGTH_MAX`].
pub fn encode_entry(out: &mut Vec<u8>, group: u32, term: u64, index: u64, count: u16, payload: &[u8]) {
    encode(
        out,
        RecordHeader { crc32c: 0, length: 0, kind: Kind::Entry as u8, flags: 0, count, group, term, index },
        payload,
    );
}

/// Appends one entry record that brings the configuration `payload`, as [`encode_entry`] does.
///
/// # Panics
/// If the record would be longer than [`LENGTH_MAX`].
pub fn encode_membership(out: &mut Vec<u8>, group: u32, term: u64, index: u64, payload: &[u8]) {
    let (kind, flags) = (Kind::Entry as u8, FLAG_MEMBERSHIP);
    encode(out, RecordHeader { crc32c: 0, length: 0, kind, flags, count: 0, group, term, index }, payload);
}

fn encode(out: &mut Vec<u8>, header: RecordHeader, payload: &[u8]) {
    assert!(HEADER_BYTES + payload.len() <= LENGTH_MAX, "the record is too long");
    let start = out.len();
    out.resize(start + padded_length(payload.len()), 0);
    let record = &mut out[start..];
    record[HEADER_BYTES..HEADER_BYTES + payload.len()].copy_from_slice(payload);
    finish(record, HEADER_BYTES + payload.len(), header);
}

/// Writes header and checksum of a record whose payload is in place, and zeroes its padding.
pub(crate) fn finish(record: &mut [u8], length: usize, header: RecordHeader) {
    let padded = length.next_multiple_of(ALIGNMENT);
    record[length..padded].fill(0);
    RecordHeader { length: length as u32, ..header }.encode(record);
    let crc = crc32c::crc32c(&record[4..length]);
    record[0..4].copy_from_slice(&crc.to_le_bytes());
}

/// Writes a hard state record of [`HARD_STATE_BYTES`].
pub(crate) fn write_hard_state(out: &mut [u8], group: u32, state: HardState, copy: bool) {
    let body = &mut out[HEADER_BYTES..HARD_STATE_BYTES];
    body.fill(0);
    if let Some(node) = state.voted_for {
        body[0..8].copy_from_slice(&node.to_le_bytes());
        body[8] = 1;
    }
    let flags = if copy { FLAG_COPY } else { 0 };
    let term = state.current_term;
    let header =
        RecordHeader { crc32c: 0, length: 0, kind: Kind::HardState as u8, flags, count: 0, group, term, index: 0 };
    finish(out, HARD_STATE_BYTES, header);
}

/// Writes a seal record of [`SEAL_BYTES`].
pub(crate) fn write_seal(out: &mut [u8], next_file: u32, next_segment: u64) {
    let body = &mut out[HEADER_BYTES..SEAL_BYTES];
    body.fill(0);
    body[0..4].copy_from_slice(&next_file.to_le_bytes());
    body[8..16].copy_from_slice(&next_segment.to_le_bytes());
    let header =
        RecordHeader { crc32c: 0, length: 0, kind: Kind::Seal as u8, flags: 0, count: 0, group: 0, term: 0, index: 0 };
    finish(out, SEAL_BYTES, header);
}

/// Writes a pad record that takes exactly `bytes`, a multiple of eight of at least [`HEADER_BYTES`].
pub(crate) fn write_pad(out: &mut [u8], bytes: usize) {
    out[HEADER_BYTES..bytes].fill(0);
    let header =
        RecordHeader { crc32c: 0, length: 0, kind: Kind::Pad as u8, flags: 0, count: 0, group: 0, term: 0, index: 0 };
    finish(out, bytes, header);
}

/// A group's term and vote, as the WAL keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term seen.
    pub current_term: u64,
    /// The node voted for in it.
    pub voted_for: Option<u64>,
}

/// Reads a hard state record.
pub(crate) fn hard_state(view: &RecordView<'_>) -> Result<HardState, RecordError> {
    if view.kind != Kind::HardState || view.payload.len() != 16 {
        return Err(RecordError::Unexpected);
    }
    let voted_for = (view.payload[8] != 0).then(|| read_u64(view.payload, 0));
    Ok(HardState { current_term: view.term, voted_for })
}

/// What the log says of one snapshot of a group: its file is durable and covers all entries up to `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotMark {
    /// Term of the last entry it covers.
    pub term: u64,
    /// Index of the last entry it covers.
    pub index: u64,
    /// Size of its file.
    pub file_bytes: u64,
    /// Hash of the state in it.
    pub state_hash: u64,
    /// What the group had in the log before is void: the snapshot came from the leader, and the next entry is the one
    /// behind `index`.
    pub replaces_log: bool,
}

/// Writes a snapshot mark record of [`SNAPSHOT_MARK_BYTES`].
pub(crate) fn write_snapshot_mark(out: &mut [u8], group: u32, mark: &SnapshotMark, carried: bool) {
    let body = &mut out[HEADER_BYTES..SNAPSHOT_MARK_BYTES];
    body.fill(0);
    body[0..8].copy_from_slice(&mark.file_bytes.to_le_bytes());
    body[8..16].copy_from_slice(&mark.state_hash.to_le_bytes());
    body[16] = u8::from(mark.replaces_log);
    let flags = if carried { FLAG_CARRIED } else { 0 };
    let (kind, term, index) = (Kind::SnapshotMark as u8, mark.term, mark.index);
    finish(out, SNAPSHOT_MARK_BYTES, RecordHeader { crc32c: 0, length: 0, kind, flags, count: 0, group, term, index });
}

/// Reads a snapshot mark record.
pub(crate) fn snapshot_mark(view: &RecordView<'_>) -> Result<SnapshotMark, RecordError> {
    let sound = view.kind == Kind::SnapshotMark && view.payload.len() == 24 && view.index > 0 && view.payload[16] <= 1;
    if !sound {
        return Err(RecordError::Unexpected);
    }
    Ok(SnapshotMark {
        term: view.term,
        index: view.index,
        file_bytes: read_u64(view.payload, 0),
        state_hash: read_u64(view.payload, 8),
        replaces_log: view.payload[16] == 1,
    })
}

/// A group's log begins anew: whatever it had before is void, entries and snapshot marks; terms and votes stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// Whether the replica goes on here, with an empty log. If not the node holds none, until another beginning.
    pub held: bool,
    /// Term of the entry up to which the earlier logs of this replica may have been acknowledged; 0 if there was none.
    pub term: u64,
    /// Its index.
    pub index: u64,
}

/// Writes a beginning record of [`BEGINNING_BYTES`].
pub(crate) fn write_beginning(out: &mut [u8], group: u32, beginning: &Beginning, carried: bool) {
    let body = &mut out[HEADER_BYTES..BEGINNING_BYTES];
    body.fill(0);
    body[0] = u8::from(beginning.held);
    let flags = if carried { FLAG_CARRIED } else { 0 };
    let (kind, term, index) = (Kind::Beginning as u8, beginning.term, beginning.index);
    finish(out, BEGINNING_BYTES, RecordHeader { crc32c: 0, length: 0, kind, flags, count: 0, group, term, index });
}

/// Reads a beginning record.
pub(crate) fn beginning(view: &RecordView<'_>) -> Result<Beginning, RecordError> {
    match (view.kind, view.payload) {
        (Kind::Beginning, [held @ (0 | 1), 0, 0, 0, 0, 0, 0, 0]) => {
            Ok(Beginning { held: *held == 1, term: view.term, index: view.index })
        }
        _ => Err(RecordError::Unexpected),
    }
}

/// Reads a seal record: the next file and segment.
pub(crate) fn seal(view: &RecordView<'_>) -> Result<(u32, u64), RecordError> {
    if view.kind != Kind::Seal || view.payload.len() != 16 {
        return Err(RecordError::Unexpected);
    }
    Ok((read_u32(view.payload, 0), read_u64(view.payload, 8)))
}

/// Checksum and length: what a batch's digest covers.
pub(crate) fn head(record: &[u8]) -> [u8; 8] {
    let mut head = [0; 8];
    head.copy_from_slice(&record[..8]);
    head
}

pub(crate) fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(crate) fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from(read_u32(bytes, at)) | u64::from(read_u32(bytes, at + 4)) << 32
}
