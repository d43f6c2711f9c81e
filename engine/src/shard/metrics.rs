//! What a shard shows once a second, and the times of its flushes.
//!
//! Off the data path but for `submit`.
//! Invariant: a sample is a copy; nothing here decides anything.

use ringraft_wal::Disk;

use super::Shard;
use super::io::Fatal;
use crate::metrics::sample::{GROUPS_MAX, GroupSums, ShardSample};

impl<D: Disk> Shard<D> {
    /// Hands what waits for the disk over, and notes when.
    pub(super) fn submit(&mut self) {
        let before = self.io.wal.submitted_sequence();
        if let Err(error) = self.io.wal.submit(&mut self.io.disk) {
            self.io.fail(Fatal::Wal(error.to_string()));
        }
        for sequence in before + 1..=self.io.wal.submitted_sequence() {
            if let Some(size) = self.io.wal.batch_size(sequence) {
                self.io.metrics.submitted(sequence, size, self.io.now_us);
            }
        }
    }

    /// This shard as it is.
    #[must_use]
    pub fn sample(&self) -> ShardSample {
        let (io, stats) = (&self.io, self.io.wal.stats());
        let mut sums = GroupSums::default();
        self.groups.iter().for_each(|group| group.count_in(&mut sums));
        let groups = self.groups.iter().take(GROUPS_MAX).map(|group| group.sample(io)).collect();
        ShardSample {
            node: self.settings.node.0,
            shard: self.settings.shard,
            groups,
            sums,
            tally: io.metrics.tally,
            counters: io.counters,
            latencies: io.metrics.latencies.clone(),
            waiting_max: io.metrics.waiting.clone(),
            wal: self.wal_status(),
            wal_cache_bytes: stats.cache_bytes as u64,
            flushes_in_flight: io.wal.in_flight() as u64,
            clients: io.clients.open_count() as u64,
            peers_connected: io.peers.nodes().filter(|node| io.peers.is_connected(*node)).count() as u64,
            peer_queue_bytes: io.peers.longest_queue_bytes() as u64,
            peer_messages_dropped: io.peers.dropped(),
            topology_epoch: self.settings.topology.epoch(),
            disk_stalled: self.stalled,
        }
    }
}
