//! Slots: which group, shard and node a key belongs to.
//!
//! Data path 2/9: the function every router and every client shares.
//!
//! The slot is CRC16/XMODEM of the key, or of its `{tag}` when it has one, modulo 16,384: the Redis Cluster function, so
//! that related keys can be kept together by naming them `user:{42}:name` and `user:{42}:mail`.
//!
//! ```text
//! key ──crc16──▶ slot 0..16384 ──slot * groups / 16384──▶ group ──group mod shards──▶ shard (the same on every node)
//! ```
//!
//! Invariants: every slot has exactly one group, groups own contiguous ranges of slots whose sizes differ by at most one,
//! and the mapping is a function of `(key, groups, shards)` alone.
//!
//! It does not know who leads a group, nor move slots between groups.

use crc::{CRC_16_XMODEM, Crc, Table};

/// Number of hash slots of a cluster.
pub const SLOTS: u16 = 16_384;

const CRC16: Crc<u16, Table<16>> = Crc::<u16, Table<16>>::new(&CRC_16_XMODEM);

/// The part of a key that decides its slot: what stands between the first `{` and the next `}` when that is not empty,
/// else the whole key.
#[must_use]
pub fn hash_tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let after_open = &key[open + 1..];
    match after_open.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &after_open[..length],
        _ => key,
    }
}

/// The slot of a key, `0..SLOTS`.
#[must_use]
pub fn slot(key: &[u8]) -> u16 {
    CRC16.checksum(hash_tag(key)) % SLOTS
}

/// The group that owns a slot when the cluster has `groups` groups (`1..=SLOTS`).
#[must_use]
pub fn group_of_slot(slot: u16, groups: u32) -> u32 {
    // Programmer errors: both come from validated configuration, never from the wire.
    assert!(slot < SLOTS, "slot {slot} out of range");
    assert!(groups >= 1 && groups <= u32::from(SLOTS), "groups must be 1..={SLOTS}, not {groups}");
    u32::from(slot) * groups / u32::from(SLOTS)
}

/// The group that owns a key.
#[must_use]
pub fn group_of_key(key: &[u8], groups: u32) -> u32 {
    group_of_slot(slot(key), groups)
}

/// The shard that hosts a group's replica, on every node alike.
#[must_use]
pub fn shard_of_group(group: u32, shards: u16) -> u16 {
    assert!(shards >= 1, "a node has at least one shard");
    // The remainder is smaller than a u16, so nothing is cut off.
    (group % u32::from(shards)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_slots_of_redis_cluster() {
        assert_eq!(slot(b"123456789"), 0x31C3 % SLOTS);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"bar"), 5_061);
        assert_eq!(slot(b"hello"), 866);
    }

    #[test]
    fn tags() {
        assert_eq!(hash_tag(b"user:{42}:name"), b"42");
        assert_eq!(hash_tag(b"foo{}bar"), b"foo{}bar");
        assert_eq!(hash_tag(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hash_tag(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hash_tag(b"foo{bar"), b"foo{bar");
        assert_eq!(slot(b"{user1000}.following"), slot(b"{user1000}.followers"));
    }

    #[test]
    fn groups_own_contiguous_ranges_of_nearly_equal_size() {
        for groups in [1, 2, 3, 7, 16, 1000, 16_384] {
            let mut sizes = vec![0u32; groups as usize];
            let mut previous = 0;
            for slot in 0..SLOTS {
                let group = group_of_slot(slot, groups);
                assert!(group == previous || group == previous + 1);
                previous = group;
                sizes[group as usize] += 1;
            }
            let (min, max) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(*min >= 1 && max - min <= 1, "{groups} groups: {min}..{max}");
        }
    }
}
