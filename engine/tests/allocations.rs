//! Allocations and copies on the leader's path of a put, counted and bounded.
//!
//! Off the data path.
//! What is counted is everything between a client's bytes in the receive buffer and the reply's bytes in the send
//! buffer: admission, proposal, WAL batch, core, frames to both followers, completion of the flush, responses, apply.
//! Not counted is what the hosts add per flush and system call (the executor's own tasks and sources).

mod cluster;

use cluster::{Cluster, group_of};
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::wire::{Consistency, OperationRef, RequestRef};
use ringraft_raft::NodeId;

const KEYS: usize = 512;
const VALUE_BYTES: usize = 128;

/// What the leader did for some puts.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    puts: u64,
    allocations: u64,
    sent_to_peers: u64,
}

struct Meter {
    cluster: Cluster,
    /// Puts that come in together.
    batch: usize,
    leader: u64,
    keys: Vec<String>,
    next: usize,
    correlation: u32,
    incoming: ReceiveBuffer,
    replies: Vec<u8>,
    counted: Counted,
}

impl Meter {
    fn new(batch: usize) -> Self {
        let mut cluster = Cluster::new(3);
        let keys = (0..).map(|number| format!("key-{number:08}")).filter(|key| group_of(key) == 0).take(KEYS).collect();
        let leader = cluster.leader(0);
        cluster.tick(4);
        Self {
            cluster,
            batch,
            leader,
            keys,
            next: 0,
            correlation: 0,
            incoming: ReceiveBuffer::new(),
            replies: Vec::with_capacity(1 << 16),
            counted: Counted::default(),
        }
    }

    /// Runs `work` on the leader's shard and counts what it allocates.
    fn on_leader<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        let mut result = None;
        let info = allocation_counter::measure(|| result = Some(work(self)));
        self.counted.allocations += info.count_total;
        result.expect("it ran")
    }

    /// One round: a batch of puts comes in, is replicated, flushed, applied and answered.
    fn round(&mut self) {
        let value = [self.correlation as u8; VALUE_BYTES];
        let mut bytes = Vec::new();
        for _ in 0..self.batch {
            let key = self.keys[self.next % KEYS].as_bytes();
            self.next += 1;
            self.correlation += 1;
            let operations = [OperationRef::Put { key, value: &value }];
            let consistency = Consistency::Linearizable;
            let request = RequestRef { client: 0, sequence: 0, acknowledged: 0, consistency, operations: &operations };
            request.append_frame(&mut bytes, self.correlation);
        }
        self.incoming.extend(&bytes);
        let place = self.leader as usize - 1;
        self.on_leader(|meter| {
            let node = &mut meter.cluster.nodes[place];
            node.shard.client_bytes(node.client, &mut meter.incoming).expect("good frames");
            node.shard.turn();
        });
        let leader = self.leader;
        for follower in (1..=3).filter(|node| *node != leader) {
            let sent = self.on_leader(|meter| meter.cluster.nodes[place].shard.peers().take_outgoing(NodeId(follower)));
            let sent = sent.expect("the entry goes out in the same turn");
            self.counted.sent_to_peers += sent.len() as u64;
            let target = &mut self.cluster.nodes[follower as usize - 1].shard;
            target.peer_bytes(NodeId(leader), &sent).expect("frames of a peer");
            target.turn();
            while !target.disk().pending().is_empty() {
                let completion = target.disk().finish(0);
                target.disk_done(completion);
            }
            target.turn();
            self.on_leader(|meter| meter.cluster.nodes[place].shard.peers().give_back(NodeId(follower), sent));
            let target = &mut self.cluster.nodes[follower as usize - 1].shard;
            let response = target.peers().take_outgoing(NodeId(leader)).expect("a response after the flush");
            self.on_leader(|meter| {
                let shard = &mut meter.cluster.nodes[place].shard;
                shard.peer_bytes(NodeId(follower), &response).expect("frames of a peer");
            });
            self.cluster.nodes[follower as usize - 1].shard.peers().give_back(NodeId(leader), response);
        }
        self.on_leader(|meter| {
            let node = &mut meter.cluster.nodes[place];
            while !node.shard.disk().pending().is_empty() {
                let completion = node.shard.disk().finish(0);
                node.shard.disk_done(completion);
            }
            node.shard.turn();
            while let Some(id) = node.shard.clients().next_dirty() {
                assert!(node.shard.clients().take_outgoing(id, &mut meter.replies));
            }
        });
        assert!(!self.replies.is_empty(), "the puts were answered");
        self.replies.clear();
        self.counted.puts += self.batch as u64;
    }
}

#[test]
fn a_put_allocates_nothing_and_is_copied_once_per_destination() {
    for batch in [1, 64] {
        let mut meter = Meter::new(batch);
        // Long enough for every buffer and table to have its size.
        (0..600).for_each(|_| meter.round());
        let record_bytes =
            |meter: &Meter| meter.cluster.nodes[meter.leader as usize - 1].shard.status().wal.record_bytes;
        let before = record_bytes(&meter);
        meter.counted = Counted::default();
        (0..600).for_each(|_| meter.round());
        let Counted { puts, allocations, sent_to_peers } = meter.counted;
        let per_put = |count: u64| count as f64 / puts as f64;
        let logged = per_put(record_bytes(&meter) - before);
        let sent = per_put(sent_to_peers);
        println!(
            "a put of {VALUE_BYTES} bytes, {batch} at once: {:.4} allocations, {logged:.1} bytes of records, \
             {sent:.1} bytes to two followers",
            per_put(allocations),
        );
        assert!(per_put(allocations) < 0.05, "{:?}", meter.counted);
        // One copy into the WAL's buffer and one into each follower's send buffer, frames around them, nothing twice.
        assert!(sent > 2.0 * logged && sent < 2.0 * logged + 256.0 / batch as f64, "{:?}", meter.counted);
    }
}
