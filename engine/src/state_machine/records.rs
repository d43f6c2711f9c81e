//! The records of a snapshot's stream, as bytes.
//!
//! Off the data path.
//! Invariants: a record is what one key, one session or one kept answer is, and nothing that depends on where it stood
//! in memory; reading never panics, whatever the bytes are, and a length is held against the limits before it is used.
//!
//! ```text
//!  key      0   1              5                9         17
//!           | 1 | key length   | value length   | version | key | value |
//!  session  0   1        9              17          25             29
//!           | 2 | client | acknowledged | last used | answers: u32 |   as many answers follow at once
//!  answer   0   1            5       13            17
//!           | 3 | ahead: u32 | place | body length | results, one after the other |
//!  result   | 0x10 put, +1 replaced | 0x20 deleted, +1 existed | 0x30 no value | 0x31, u32 length, value |
//!           | 0x40 compared, +1 swapped | 0x42 the same, u32 length, value found | 0x50, client | 0x60 not applied |
//!           | 0x70 version compared, +1 swapped, u64 version |
//! ```
//! Integers are little endian, lengths u32, all others u64; places are `index << 16 | position`; an answer's sequence is
//! `acknowledged + ahead`.
//! There are no checksums: the chunks around the stream have them, and the state's hash is compared in the end.

use ringraft_net::wire::OperationResultRef;

use crate::limits::Limits;

const KEY: u8 = 1;
const SESSION: u8 = 2;
const ANSWER: u8 = 3;

const KEY_HEADER_BYTES: usize = 17;
const SESSION_BYTES: usize = 29;
const ANSWER_HEADER_BYTES: usize = 17;

/// Longest result without its value.
const RESULT_BYTES_MAX: u64 = 9;

/// What may stand in the fields of a record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    key_bytes_max: u64,
    value_bytes_max: u64,
    body_bytes_max: u64,
}

impl Bounds {
    pub(super) fn new(limits: &Limits) -> Self {
        let value_bytes_max = u64::from(limits.value_bytes_max);
        let results = RESULT_BYTES_MAX * u64::from(limits.operations_max.max(1));
        // A single get answers with any value, several with `answer_bytes_max` together, before one that is compared.
        let body_bytes_max = results + u64::from(limits.answer_bytes_max) + value_bytes_max;
        Self { key_bytes_max: limits.key_bytes_max.into(), value_bytes_max, body_bytes_max }
    }
}

/// Why bytes are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The first byte is not one of a record's.
    #[error("there is no kind of record {0}")]
    Kind(u8),
    /// A length is zero where that cannot be, or beyond its limit.
    #[error("its {what} has {bytes} bytes; 1 to {bytes_max} are allowed")]
    Length {
        /// Whose length.
        what: &'static str,
        /// As it stands there.
        bytes: u64,
        /// The limit.
        bytes_max: u64,
    },
    /// The body of an answer is not a sequence of results.
    #[error("its results cannot be understood at byte {at} of them")]
    Results {
        /// Where in the body.
        at: usize,
    },
}

/// One record, borrowed from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record<'a> {
    Key { key: &'a [u8], value: &'a [u8], version: u64 },
    Session { client: u64, acknowledged: u64, last_used: u64, answers: u32 },
    Answer { ahead: u32, place: u64, body: &'a [u8] },
}

/// Where records are written: `Vec<u8>` and `VecDeque<u8>`.
pub(super) trait Out: for<'a> Extend<&'a u8> {}
impl<T: for<'a> Extend<&'a u8>> Out for T {}

/// Appends a live key.
#[inline]
pub(super) fn append_key(out: &mut impl Out, key: &[u8], value: &[u8], version: u64) {
    let mut header = [0; KEY_HEADER_BYTES];
    header[0] = KEY;
    header[1..5].copy_from_slice(&(key.len() as u32).to_le_bytes());
    header[5..9].copy_from_slice(&(value.len() as u32).to_le_bytes());
    header[9..17].copy_from_slice(&version.to_le_bytes());
    out.extend(&header);
    out.extend(key);
    out.extend(value);
}

/// Appends a session; `answers` answers must follow.
pub(super) fn append_session(out: &mut impl Out, client: u64, acknowledged: u64, last_used: u64, answers: u32) {
    out.extend(&[SESSION]);
    for word in [client, acknowledged, last_used] {
        out.extend(&word.to_le_bytes());
    }
    out.extend(&answers.to_le_bytes());
}

/// Appends a kept answer of the session before it.
pub(super) fn append_answer(out: &mut impl Out, ahead: u32, place: u64, results: &[OperationResultRef<'_>]) {
    let body_bytes: usize = results.iter().map(result_bytes).sum();
    out.extend(&[ANSWER]);
    out.extend(&ahead.to_le_bytes());
    out.extend(&place.to_le_bytes());
    out.extend(&(body_bytes as u32).to_le_bytes());
    for result in results {
        append_result(out, result);
    }
}

fn result_bytes(result: &OperationResultRef<'_>) -> usize {
    match *result {
        OperationResultRef::Value(Some(value)) | OperationResultRef::Compared { current: Some(value), .. } => {
            5 + value.len()
        }
        OperationResultRef::Session { .. } | OperationResultRef::ComparedVersion { .. } => 9,
        _ => 1,
    }
}

fn append_result(out: &mut impl Out, result: &OperationResultRef<'_>) {
    let code = match *result {
        OperationResultRef::Put { replaced } => 0x10 | u8::from(replaced),
        OperationResultRef::Deleted { existed } => 0x20 | u8::from(existed),
        OperationResultRef::Value(value) => 0x30 | u8::from(value.is_some()),
        OperationResultRef::Compared { swapped, current } => {
            0x40 | u8::from(swapped) | u8::from(current.is_some()) << 1
        }
        OperationResultRef::Session { .. } => 0x50,
        OperationResultRef::NotApplied => 0x60,
        OperationResultRef::ComparedVersion { swapped, .. } => 0x70 | u8::from(swapped),
        OperationResultRef::Items { .. } => unreachable!("a range is not for the log"),
    };
    out.extend(&[code]);
    match *result {
        OperationResultRef::Value(Some(value)) | OperationResultRef::Compared { current: Some(value), .. } => {
            out.extend(&(value.len() as u32).to_le_bytes());
            out.extend(value);
        }
        OperationResultRef::Session { client: number }
        | OperationResultRef::ComparedVersion { version: number, .. } => {
            out.extend(&number.to_le_bytes());
        }
        _ => {}
    }
}

/// Bytes that must be there before more can be said of the record at the start of `bytes`: its whole length as soon as
/// its header is there.
pub(super) fn wanted(bytes: &[u8], bounds: &Bounds) -> Result<usize, RecordError> {
    let header_bytes = match bytes.first() {
        None => return Ok(1),
        Some(&KEY) => KEY_HEADER_BYTES,
        Some(&SESSION) => SESSION_BYTES,
        Some(&ANSWER) => ANSWER_HEADER_BYTES,
        Some(&kind) => return Err(RecordError::Kind(kind)),
    };
    if bytes.len() < header_bytes {
        return Ok(header_bytes);
    }
    match bytes[0] {
        KEY => {
            let key = checked("key", bytes, 1, 1, bounds.key_bytes_max)?;
            Ok(header_bytes + key + checked("value", bytes, 5, 0, bounds.value_bytes_max)?)
        }
        SESSION => Ok(header_bytes),
        _ => Ok(header_bytes + checked("answer", bytes, 13, 1, bounds.body_bytes_max)?),
    }
}

fn checked(what: &'static str, bytes: &[u8], at: usize, least: u64, bytes_max: u64) -> Result<usize, RecordError> {
    let length = u64::from(read_u32(bytes, at));
    let allowed = (least..=bytes_max).contains(&length);
    if allowed { Ok(length as usize) } else { Err(RecordError::Length { what, bytes: length, bytes_max }) }
}

/// Reads a record of exactly the length that [`wanted`] answered for it.
pub(super) fn decode(record: &[u8]) -> Record<'_> {
    match record[0] {
        KEY => {
            let (key, value) = record[KEY_HEADER_BYTES..].split_at(read_u32(record, 1) as usize);
            Record::Key { key, value, version: read_u64(record, 9) }
        }
        SESSION => Record::Session {
            client: read_u64(record, 1),
            acknowledged: read_u64(record, 9),
            last_used: read_u64(record, 17),
            answers: read_u32(record, 25),
        },
        _ => Record::Answer {
            ahead: read_u32(record, 1),
            place: read_u64(record, 5),
            body: &record[ANSWER_HEADER_BYTES..],
        },
    }
}

/// The results in the body of an answer, at most `count_max` of them.
pub(super) fn results(body: &[u8], count_max: usize) -> Result<Vec<OperationResultRef<'_>>, RecordError> {
    let (mut results, mut rest) = (Vec::new(), body);
    while !rest.is_empty() {
        let error = RecordError::Results { at: body.len() - rest.len() };
        let (result, behind) = result(rest).filter(|_| results.len() < count_max).ok_or(error)?;
        results.push(result);
        rest = behind;
    }
    Ok(results)
}

/// The result at the start of `bytes` and what is behind it.
fn result(bytes: &[u8]) -> Option<(OperationResultRef<'_>, &[u8])> {
    let (&code, rest) = bytes.split_first()?;
    let flag = code & 1 == 1;
    Some(match code {
        0x10 | 0x11 => (OperationResultRef::Put { replaced: flag }, rest),
        0x20 | 0x21 => (OperationResultRef::Deleted { existed: flag }, rest),
        0x30 => (OperationResultRef::Value(None), rest),
        0x31 => {
            let (value, rest) = value(rest)?;
            (OperationResultRef::Value(Some(value)), rest)
        }
        0x40 | 0x41 => (OperationResultRef::Compared { swapped: flag, current: None }, rest),
        0x42 | 0x43 => {
            let (value, rest) = value(rest)?;
            (OperationResultRef::Compared { swapped: flag, current: Some(value) }, rest)
        }
        0x50 => {
            let (client, rest) = rest.split_first_chunk()?;
            (OperationResultRef::Session { client: u64::from_le_bytes(*client) }, rest)
        }
        0x60 => (OperationResultRef::NotApplied, rest),
        0x70 | 0x71 => {
            let (version, rest) = rest.split_first_chunk()?;
            (OperationResultRef::ComparedVersion { swapped: flag, version: u64::from_le_bytes(*version) }, rest)
        }
        _ => return None,
    })
}

fn value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word))
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_bytes() {
        let mut out = Vec::new();
        append_key(&mut out, b"key", b"value", 0x0102_0304_0506_0708);
        append_session(&mut out, 9, 5, 0x1_0000, 2);
        append_answer(&mut out, 3, 0x1_0001, &[OperationResultRef::Put { replaced: true }]);
        let expected: [&[u8]; 3] = [
            &[1, 3, 0, 0, 0, 5, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, b'k', b'e', b'y', b'v', b'a', b'l', b'u', b'e'],
            &[2, 9, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2, 0, 0, 0],
            &[3, 3, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x11],
        ];
        assert_eq!(out, expected.concat());
    }

    #[test]
    fn every_kind_of_result_comes_back_and_is_cut_short_nowhere() {
        use OperationResultRef::*;
        let written = [
            Put { replaced: true },
            Put { replaced: false },
            Deleted { existed: true },
            Value(None),
            Value(Some(b"")),
            Value(Some(b"value")),
            Compared { swapped: true, current: None },
            Compared { swapped: false, current: None },
            Compared { swapped: false, current: Some(b"other") },
            NotApplied,
            ComparedVersion { swapped: true, version: 0x0102_0304_0506_0708 },
            ComparedVersion { swapped: false, version: 0 },
            Session { client: 0x1122_3344_5566_7788 },
        ];
        let mut out = Vec::new();
        append_answer(&mut out, 1, 2, &written);
        let bounds = Bounds::new(&Limits::default());
        assert_eq!(wanted(&out, &bounds), Ok(out.len()));
        let Record::Answer { ahead: 1, place: 2, body } = decode(&out) else { panic!() };
        assert_eq!(results(body, written.len()).unwrap(), written);
        assert_eq!(results(body, written.len() - 1), Err(RecordError::Results { at: body.len() - 9 }));
        assert_eq!(results(&body[..body.len() - 1], 99), Err(RecordError::Results { at: body.len() - 9 }));
        assert_eq!(results(&[0x10, 0x12], 99), Err(RecordError::Results { at: 1 }));
    }

    #[test]
    fn lengths_are_checked_before_they_are_believed() {
        let bounds = Bounds::new(&Limits { key_bytes_max: 4, value_bytes_max: 9, ..Limits::default() });
        let key = |key: usize, value: usize| {
            let mut out = Vec::new();
            append_key(&mut out, &vec![1; key], &vec![2; value], 3);
            wanted(&out[..KEY_HEADER_BYTES], &bounds)
        };
        assert_eq!((key(1, 0), key(4, 9)), (Ok(18), Ok(30)));
        assert_eq!(key(0, 0), Err(RecordError::Length { what: "key", bytes: 0, bytes_max: 4 }));
        assert_eq!(key(5, 0), Err(RecordError::Length { what: "key", bytes: 5, bytes_max: 4 }));
        assert_eq!(key(4, 10), Err(RecordError::Length { what: "value", bytes: 10, bytes_max: 9 }));
        let answer = [&[3_u8][..], &[0; 12], &[255; 4]].concat();
        assert!(matches!(wanted(&answer, &bounds), Err(RecordError::Length { what: "answer", .. })));
        assert_eq!(wanted(&[9], &bounds), Err(RecordError::Kind(9)));
        assert_eq!((wanted(&[], &bounds), wanted(&[2], &bounds)), (Ok(1), Ok(SESSION_BYTES)));
    }
}
