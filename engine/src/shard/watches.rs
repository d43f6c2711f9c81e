//! Watches of clients: to the replica of their group, within the bounds of the shard.
//!
//! Off the data path.
//! Invariant: a watch that cannot begin is told why, at once.
//! What a watch is told, `group::watches` decides.

use ringraft_net::wire::{WatchEnd, WatchRequest};
use ringraft_raft::GroupId;
use ringraft_wal::Disk;

use super::Shard;
use super::clients::Asker;
use crate::group::watches::end_watch;

/// How many may watch, and how far back.
#[derive(Clone, Copy, Debug)]
pub struct WatchSettings {
    /// Watches of all clients of a shard at once.
    pub watches_max: usize,
    /// Bytes of the latest changes kept in a shard; each group has an equal part.
    pub ring_bytes: usize,
}

/// The part of a group in [`WatchSettings::ring_bytes`], however many groups there are.
const RING_BYTES_MIN: usize = 16 << 10;

impl WatchSettings {
    /// Bytes of the latest changes kept for each of `groups` groups on nodes of `shards` shards.
    pub(super) fn bytes_of_group(&self, groups: u32, shards: u16) -> usize {
        let groups_here = groups.div_ceil(u32::from(shards.max(1))).max(1) as usize;
        (self.ring_bytes / groups_here).max(RING_BYTES_MIN)
    }
}

impl Default for WatchSettings {
    /// What a node's configuration says by default.
    fn default() -> Self {
        Self { watches_max: 1_024, ring_bytes: 4 << 20 }
    }
}

impl<D: Disk> Shard<D> {
    /// Takes a client's wish to hear the changes of a group.
    pub(super) fn watch(&mut self, asker: Asker, request: WatchRequest) {
        let group = GroupId(request.group);
        let mut end = |end, message: &str| end_watch(asker, group.0, end, 0, message, &mut self.io.clients);
        if group.0 >= self.settings.groups {
            let message = format!("there is no group {group}; groups are 0 to {}", self.settings.groups - 1);
            return end(WatchEnd::BadRequest, &message);
        }
        if self.stopping {
            return end(WatchEnd::Unavailable, "this node is stopping; ask another");
        }
        match self.groups.get_mut(group) {
            Some(replica) => replica.watch(request, asker, &mut self.io),
            None => end(WatchEnd::NotHere, "this shard has no replica of the group; ask another node"),
        }
    }

    /// Ends a watch, if there is one.
    pub(super) fn unwatch(&mut self, asker: Asker) {
        let group = self.groups.iter().find(|group| group.watches(asker)).map(|group| group.id());
        if let Some(replica) = group.and_then(|group| self.groups.get_mut(group)) {
            replica.unwatch(asker, &mut self.io);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_share_the_memory_and_each_has_some() {
        let settings = WatchSettings { watches_max: 1, ring_bytes: 1 << 20 };
        assert_eq!(settings.bytes_of_group(1, 1), 1 << 20);
        assert_eq!(settings.bytes_of_group(9, 2), (1 << 20) / 5);
        assert_eq!(settings.bytes_of_group(16_384, 1), RING_BYTES_MIN);
    }
}
