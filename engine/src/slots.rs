//! Which slots a group serves; the opposite direction is `ringraft_net::slots`, which clients share.
//!
//! Off the data path.
//! Invariants: every slot is in exactly one range; the lengths of two ranges differ by at most one.
//!
//! ```text
//!  slots   0 ......... 5461 | 5462 ......... 10922 | 10923 ......... 16383
//!  groups         0         |           1          |           2              (three groups)
//! ```

use std::ops::Range;

use ringraft_net::slots::{SLOTS, group_of_slot};
use ringraft_raft::GroupId;

/// The group that serves `slot` in a cluster of `groups` groups.
#[must_use]
pub fn group_of(slot: u16, groups: u32) -> GroupId {
    GroupId(group_of_slot(slot, groups))
}

/// The slots of `group` in a cluster of `groups` groups.
///
/// # Panics
/// When `group` is not below `groups` or `groups` is not in `1..=SLOTS`.
#[must_use]
pub fn slots_of(group: GroupId, groups: u32) -> Range<u32> {
    assert!((1..=u32::from(SLOTS)).contains(&groups), "{groups} groups are not within 1..={SLOTS}");
    assert!(group.0 < groups, "group {} is not below {groups}", group.0);
    // The smallest slot with `slot * groups / SLOTS >= group`.
    let first_slot = |group: u32| (group * u32::from(SLOTS)).div_ceil(groups);
    first_slot(group.0)..first_slot(group.0 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_cover_every_slot_once_and_agree_with_group_of() {
        let slots = u32::from(SLOTS);
        for groups in [1, 2, 3, 5, 7, 16, 100, 1000, 5461, 16_383, 16_384] {
            let mut next = 0;
            for group in 0..groups {
                let range = slots_of(GroupId(group), groups);
                assert_eq!(range.start, next, "groups {groups}, group {group}");
                let length = range.len() as u32;
                assert!(length == slots / groups || length == slots / groups + 1, "groups {groups}: length {length}");
                for slot in range.clone() {
                    assert_eq!(group_of(slot as u16, groups), GroupId(group));
                }
                next = range.end;
            }
            assert_eq!(next, slots);
        }
    }
}
