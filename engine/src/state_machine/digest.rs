//! The rolling hash of a group's state: what replicas compare at equal index.
//!
//! Data path 8/9 (a few multiplications per request).
//! Invariants: the hash is a function of the state alone, not of how it came about or of any map's order; a change of one
//! part costs that part's hash, never a pass over the state; the functions never change within a format version, since
//! replicas of different releases compare their hashes.
//! It detects faults (memory, bugs, lost or doubled applies), not attackers.
//!
//! ```text
//!  state hash = combine( XOR over live keys     xxh3(key . value, seed = combine(version, key length)),
//!                        XOR over sessions      combine(client, acknowledged, last used)
//!                        XOR over kept answers  combine(client, sequence, place in the log, content) )
//! ```

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The hash of the state after `index` was applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize)]
pub struct StateDigest {
    /// Last applied index.
    pub index: u64,
    /// Hash of keys, values, versions and sessions.
    pub hash: u64,
}

/// Odd constants with well-spread bits (fractions of the golden ratio and of square roots).
const WORD_A: u64 = 0x9e37_79b9_7f4a_7c15;
const WORD_B: u64 = 0xbb67_ae85_84ca_a73b;

/// Mixes two words into one; the order matters.
#[inline]
pub(super) fn combine(left: u64, right: u64) -> u64 {
    let product = u128::from(left ^ WORD_A) * u128::from(right.rotate_left(32) ^ WORD_B);
    // Without the addition a factor of zero would hide the other one.
    ((product >> 64) as u64 ^ product as u64).wrapping_add(left.rotate_left(17)).wrapping_add(right)
}

/// Hash of a live key: `bytes` is the key followed by the value.
#[inline]
pub(super) fn item_hash(bytes: &[u8], key_bytes: usize, version: u64) -> u64 {
    xxh3_64_with_seed(bytes, combine(version, key_bytes as u64))
}

/// Hash of arbitrary bytes with a seed.
#[inline]
pub(super) fn bytes_hash(bytes: &[u8], seed: u64) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_values() {
        // Replicas of different releases compare these: a change is a new format version.
        let values = [combine(0, 0), combine(1, 2), item_hash(b"keyvalue", 3, 1 << 16)];
        assert_eq!(values, [3_278_408_782_988_935_348, 15_134_475_258_474_601_035, 3_603_332_463_217_431_469]);
    }

    #[test]
    fn order_lengths_and_zero_factors_matter() {
        assert_ne!(combine(1, 2), combine(2, 1));
        assert_ne!(combine(WORD_A, 1), combine(WORD_A, 2));
        assert_ne!(combine(1, WORD_B.rotate_left(32)), combine(2, WORD_B.rotate_left(32)));
        assert_ne!(item_hash(b"abc", 1, 7), item_hash(b"abc", 2, 7));
        assert_ne!(item_hash(b"abc", 1, 7), item_hash(b"abc", 1, 8));
    }
}
