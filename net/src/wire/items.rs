//! Items: keys with their values and versions, one behind the other as plain bytes: answers to ranges, changes of a watch.
//!
//! Off the data path (the ring of recent changes is written beside it, data path 8/9).
//! Invariants: what [`push`] wrote [`items`] yields unchanged; reading never panics, whatever the bytes are; a list is
//! well-formed when its items fill it exactly.
//!
//! ```text
//!   0         8            12             16
//!   | version | key length | value length | key | value | the next item ...      u64, u32, u32, little endian
//! ```
//! A value length of 2^32 - 1 says that there is none: the key was removed. It bounds nothing: frames do.

/// A key and what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemRef<'a> {
    /// The key.
    pub key: &'a [u8],
    /// Its value, empty when only keys were asked for; `None`: the key was removed.
    pub value: Option<&'a [u8]>,
    /// Which request wrote it: the index of its entry, then 16 bits of its position in it. Not 0, higher with every write.
    pub version: u64,
}

/// The bytes are not a list of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{left} bytes at byte {at} of a list of keys are none; run the same release on both sides")]
pub struct ItemsError {
    /// Where in the list.
    pub at: usize,
    /// Bytes from there on.
    pub left: usize,
}

impl ItemsError {
    /// The same bytes will never be valid.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// The connection they came from must be closed.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }
}

/// Bytes of an item before its key.
pub const ITEM_HEADER_BYTES: usize = 16;

/// The value length of an item without a value.
const NO_VALUE: u32 = u32::MAX;

/// The index of the entry that a version is of.
#[must_use]
pub fn index_of_version(version: u64) -> u64 {
    version >> 16
}

/// The version of what the request at a position of an entry writes.
#[must_use]
pub fn version_at(index: u64, position: u32) -> u64 {
    index << 16 | u64::from(position & 0xffff)
}

/// Appends an item.
#[inline]
pub fn push(out: &mut Vec<u8>, item: &ItemRef<'_>) {
    let value = item.value.unwrap_or_default();
    let mut header = [0; ITEM_HEADER_BYTES];
    header[0..8].copy_from_slice(&item.version.to_le_bytes());
    header[8..12].copy_from_slice(&(item.key.len() as u32).to_le_bytes());
    let value_length = item.value.map_or(NO_VALUE, |value| value.len() as u32);
    header[12..16].copy_from_slice(&value_length.to_le_bytes());
    out.reserve(ITEM_HEADER_BYTES + item.key.len() + value.len());
    out.extend_from_slice(&header);
    out.extend_from_slice(item.key);
    out.extend_from_slice(value);
}

/// The items of a list in order; ends after the first error.
#[must_use]
pub fn items(bytes: &[u8]) -> Items<'_> {
    Items { bytes, at: 0 }
}

/// All items of a list.
///
/// # Errors
/// When it is not well-formed.
pub fn all_items(bytes: &[u8]) -> Result<Vec<ItemRef<'_>>, ItemsError> {
    items(bytes).collect()
}

/// Iterator over a list, see [`items`].
#[derive(Clone, Copy, Debug)]
pub struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Items<'a> {
    /// Where the next item begins.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.at
    }

    fn read(&self) -> Option<(ItemRef<'a>, usize)> {
        let (header, rest) = self.bytes[self.at..].split_first_chunk::<ITEM_HEADER_BYTES>()?;
        let [version, lengths] =
            [&header[..8], &header[8..]].map(|half| half.first_chunk().copied().unwrap_or_default());
        let (version, lengths) = (u64::from_le_bytes(version), u64::from_le_bytes(lengths));
        let (key_length, value_length) = (lengths as u32, (lengths >> 32) as u32);
        let (key, rest) = rest.split_at_checked(key_length as usize)?;
        let value = match value_length {
            NO_VALUE => None,
            length => Some(rest.get(..length as usize)?),
        };
        let bytes = ITEM_HEADER_BYTES + key.len() + value.map_or(0, <[u8]>::len);
        Some((ItemRef { key, value, version }, bytes))
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<ItemRef<'a>, ItemsError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.bytes.len() {
            return None;
        }
        let read = self.read().ok_or(ItemsError { at: self.at, left: self.bytes.len() - self.at });
        self.at = read.as_ref().map_or(self.bytes.len(), |(_, bytes)| self.at + bytes);
        Some(read.map(|(item, _)| item))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        push(&mut bytes, &ItemRef { key: b"k", value: Some(b"vw"), version: 0x0102_0003 });
        push(&mut bytes, &ItemRef { key: b"l", value: None, version: 1 });
        let expected: [&[u8]; 2] = [
            &[3, 0, 2, 1, 0, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, b'k', b'v', b'w'],
            &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 255, 255, 255, 255, b'l'],
        ];
        assert_eq!(bytes, expected.concat());
        assert_eq!(all_items(&bytes[..18]), Err(ItemsError { at: 0, left: 18 }));
        assert_eq!(all_items(&bytes[..20]), Err(ItemsError { at: 19, left: 1 }));
        assert_eq!((index_of_version(0x0102_0003), version_at(0x0102, 3)), (0x0102, 0x0102_0003));
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            written in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..20), prop::option::of(prop::collection::vec(any::<u8>(), 0..20)), any::<u64>()),
                0..9
            )
        ) {
            let refs: Vec<_> = written
                .iter()
                .map(|(key, value, version)| ItemRef { key, value: value.as_deref(), version: *version })
                .collect();
            let mut bytes = Vec::new();
            refs.iter().for_each(|item| push(&mut bytes, item));
            prop_assert_eq!(all_items(&bytes), Ok(refs));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let read: Vec<_> = items(&bytes).collect();
            prop_assert!(read.iter().rev().skip(1).all(Result::is_ok));
        }
    }
}
