//! The payload of an entry: the archived bytes of its requests, each behind its length.
//!
//! Data path 4/9 and 8/9.
//! Invariants: reading never panics, whatever the bytes are; the requests together fill the payload exactly; what the
//! writer produced the reader yields unchanged.
//! It does not look into a request, and it keeps no checksum: the WAL record around it has one.
//!
//! ```text
//!  0        4                 4+n      8+n
//!  | n: u32 | archive, n bytes | m: u32 | archive, m bytes | ...      little endian, no alignment, no padding
//! ```

/// Bytes before each request: its length as little-endian u32.
pub const REQUEST_PREFIX_BYTES: usize = 4;

/// Requests in one entry at most: a position and one more must fit in 16 bits of a client id (see `session.rs`).
pub const ENTRY_REQUESTS_MAX: usize = 32_768;

/// Why a payload is not a sequence of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// Fewer than four bytes are left where a length should stand.
    #[error("{left} stray bytes at offset {offset} where a request's length should stand")]
    ShortLength {
        /// Where in the payload.
        offset: usize,
        /// Bytes left there.
        left: usize,
    },
    /// A request is longer than what is left.
    #[error("the request at offset {offset} claims {length} bytes but {left} are left")]
    ShortRequest {
        /// Where in the payload, behind the length.
        offset: usize,
        /// The claimed length.
        length: u32,
        /// Bytes left there.
        left: usize,
    },
    /// A request of no bytes.
    #[error("the request at offset {offset} is empty")]
    EmptyRequest {
        /// Where in the payload, behind the length.
        offset: usize,
    },
    /// More requests than an entry may hold.
    #[error("more than {ENTRY_REQUESTS_MAX} requests in one entry")]
    TooManyRequests,
}

/// What must be written before a request's archive.
///
/// # Panics
/// When the archive is not within `1..=u32::MAX` bytes: frames are bounded far below.
#[must_use]
pub fn request_prefix(archive_bytes: usize) -> [u8; REQUEST_PREFIX_BYTES] {
    assert!(archive_bytes > 0, "a request is never empty");
    u32::try_from(archive_bytes).expect("a request fits in a frame").to_le_bytes()
}

/// Appends one request to a payload.
pub fn push_request(payload: &mut Vec<u8>, archive: &[u8]) {
    payload.extend_from_slice(&request_prefix(archive.len()));
    payload.extend_from_slice(archive);
}

/// The requests of a payload in order; ends after the first error.
#[must_use]
pub fn requests(payload: &[u8]) -> Requests<'_> {
    Requests { payload, offset: 0, count: 0 }
}

/// Iterator over the requests' archives, see [`requests`].
#[derive(Clone, Debug)]
pub struct Requests<'a> {
    payload: &'a [u8],
    offset: usize,
    count: usize,
}

impl<'a> Requests<'a> {
    fn parse(&self) -> Result<&'a [u8], PayloadError> {
        if self.count == ENTRY_REQUESTS_MAX {
            return Err(PayloadError::TooManyRequests);
        }
        let rest = &self.payload[self.offset..];
        let Some((prefix, rest)) = rest.split_first_chunk::<REQUEST_PREFIX_BYTES>() else {
            return Err(PayloadError::ShortLength { offset: self.offset, left: rest.len() });
        };
        let (length, offset) = (u32::from_le_bytes(*prefix), self.offset + REQUEST_PREFIX_BYTES);
        if length == 0 {
            return Err(PayloadError::EmptyRequest { offset });
        }
        rest.get(..length as usize).ok_or(PayloadError::ShortRequest { offset, length, left: rest.len() })
    }
}

impl<'a> Iterator for Requests<'a> {
    type Item = Result<&'a [u8], PayloadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset == self.payload.len() {
            return None;
        }
        let parsed = self.parse();
        match &parsed {
            Ok(archive) => {
                self.offset += REQUEST_PREFIX_BYTES + archive.len();
                self.count += 1;
            }
            Err(_) => self.offset = self.payload.len(),
        }
        Some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let mut payload = Vec::new();
        push_request(&mut payload, b"ab");
        push_request(&mut payload, b"c");
        assert_eq!(payload, [2, 0, 0, 0, b'a', b'b', 1, 0, 0, 0, b'c']);
    }

    #[test]
    fn each_kind_of_damage_has_its_error() {
        let parse = |bytes: &[u8]| requests(bytes).collect::<Result<Vec<_>, _>>().map(|list| list.len());
        assert_eq!(parse(&[]), Ok(0), "a no-op entry has no requests");
        assert_eq!(parse(&[1, 0]), Err(PayloadError::ShortLength { offset: 0, left: 2 }));
        assert_eq!(parse(&[0, 0, 0, 0]), Err(PayloadError::EmptyRequest { offset: 4 }));
        assert_eq!(parse(&[2, 0, 0, 0, 7]), Err(PayloadError::ShortRequest { offset: 4, length: 2, left: 1 }));
        let many: Vec<u8> = [1, 0, 0, 0, 7].repeat(ENTRY_REQUESTS_MAX);
        assert_eq!(parse(&many), Ok(ENTRY_REQUESTS_MAX));
        let too_many: Vec<u8> = [1, 0, 0, 0, 7].repeat(ENTRY_REQUESTS_MAX + 1);
        assert_eq!(parse(&too_many), Err(PayloadError::TooManyRequests));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(archives in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..20)) {
            let mut payload = Vec::new();
            for archive in &archives {
                push_request(&mut payload, archive);
            }
            let read: Vec<Vec<u8>> = requests(&payload).map(|request| request.unwrap().to_vec()).collect();
            prop_assert_eq!(read, archives);
        }

        #[test]
        fn no_bytes_make_it_panic_and_an_error_is_the_last_item(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let items: Vec<_> = requests(&bytes).collect();
            let errors = items.iter().filter(|item| item.is_err()).count();
            prop_assert!(errors <= 1);
            prop_assert!(errors == 0 || items.last().unwrap().is_err());
        }
    }
}
