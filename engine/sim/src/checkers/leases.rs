//! Nobody is elected while another holds a lease, running or paused, by the clock of its own node.
//!
//! Off the data path.
//! A leader of an earlier term than the holder's, whose votes were long on their way, commits nothing and breaks no lease.
//! Stronger than what clients can see: it needs no read at the right moment. A process that is gone holds nothing.

use ringraft_raft::Term;

use super::{Replica, Violation};
use crate::node::Node;
use crate::world::Checked;

/// Checks that no other replica of a new leader's group holds a lease in an earlier term.
pub(crate) fn check(elected: Replica, term: Term, shard: usize, nodes: &[Node], now_us: u64) -> Checked {
    for (place, node) in nodes.iter().enumerate().filter(|(place, _)| *place != elected.node) {
        let Some(process) = &node.process else { continue };
        let clock_us = node.clock_us(now_us);
        let machine = &process.hosts[shard].shard;
        let is_earlier = machine.membership(elected.group).is_some_and(|view| view.term < term);
        if is_earlier && machine.holds_lease(elected.group, clock_us) {
            let seen =
                format!("{elected} is elected while node {} holds a lease at {clock_us} of its clock", place + 1);
            return Err(Violation::new("nobody is elected while a lease is held", seen));
        }
    }
    Ok(())
}
