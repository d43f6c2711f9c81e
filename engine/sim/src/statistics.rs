//! Counts of one run, and their sum over many.
//!
//! Off the data path.
//! Invariant: adding is associative, so that the order in which seeds end does not matter.

use std::collections::BTreeMap;

use crate::plan::Fault;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident;)+) => {
        /// What happened in a run, or in many.
        #[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct Statistics {
            $($(#[$doc])* pub $name: u64,)+
            /// Faults drawn, by class.
            pub faults: BTreeMap<Fault, u64>,
        }

        impl Statistics {
            /// Adds another run's counts.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
                for (fault, count) in &other.faults {
                    *self.faults.entry(*fault).or_default() += count;
                }
            }

            /// Name and value of every counter.
            #[must_use]
            pub fn counters(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

counters! {
    /// Calls handed to clients' cores.
    calls;
    /// Calls that were done.
    done;
    /// Calls that certainly had no effect.
    failed;
    /// Calls of unknown outcome.
    unknown;
    /// Calls the client's own bounds refused.
    refused_by_client;
    /// Components of keys whose linearizability could not be decided within the checker's bound.
    undecided;
    /// Reads that leaders answered by their leases.
    lease_reads;
    /// Reads that followers answered after asking their leaders.
    follower_reads;
    /// Times a replica became leader.
    elections;
    /// Leaders asked to hand over.
    transfers;
    /// Nodes that were granted to join.
    nodes_added;
    /// Nodes that were told to leave.
    nodes_removed;
    /// Nodes whose machine burnt down.
    nodes_burnt;
    /// Changes of the topology.
    topologies;
    /// Configurations that leaders proposed.
    memberships_proposed;
    /// Replicas that nodes made.
    replicas_created;
    /// Replicas that nodes gave up.
    replicas_dropped;
    /// Processes that recovered and served.
    starts;
    /// Starts refused because of lost or damaged files.
    refused_starts;
    /// Starts that failed for a passing reason.
    failed_starts;
    /// Crashes by the nemesis.
    crashes;
    /// Crashes inside an operation.
    traps_sprung;
    /// Nodes that stopped with an error that was injected.
    stops_with_error;
    /// Disk operations.
    disk_operations;
    /// Disk operations that failed.
    disk_errors;
    /// Places damaged behind the program's back.
    damages;
    /// Links between nodes that came to stand.
    links;
    /// Links closed because of damaged or foreign frames.
    links_refused;
    /// Parts of streams in which a bit was flipped.
    corrupted_parts;
    /// Sends that travelled frame by frame, outside of a connection.
    datagrams;
    /// Connections closed because the client did not read.
    overflowed_connections;
    /// Entries committed.
    entries;
    /// Turns of shards.
    turns;
    /// Events.
    events;
    /// Simulated time in microseconds.
    simulated_us;
}
