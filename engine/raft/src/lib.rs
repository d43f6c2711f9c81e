//! The Raft protocol of one group as a pure state machine: events in, [`Ready`] out.
//!
//! Data path 5/9 and 7/9. The crate is `no_std`, has no dependencies, no `unsafe`, no clock and no randomness of its own, so
//! the same events in the same order always give the same output. It never sees a payload: an entry is (term, index,
//! length), and the host keeps the records.
//!
//! Included: elections with pre-vote, check-quorum and leader stickiness; replication with a window in bytes and
//! conflict-term back-off; ReadIndex; plain and joint quorums. Deliberately absent: leader leases, snapshots, membership
//! changes and leadership transfer (the seams are [`LogTerms::after`] and [`Membership::with`]).
//!
//! # The host's contract
//!
//! 1. **One event, one `ready`.** After every call that may change something ([`RaftCore::tick`], [`RaftCore::step`],
//!    [`RaftCore::step_append`], [`RaftCore::durable`], [`RaftCore::hard_state_durable`], [`RaftCore::campaign`],
//!    [`RaftCore::step_down`]) call [`RaftCore::ready`] and do what it says before the next call. Several calls of
//!    [`RaftCore::propose`], [`RaftCore::read_index`], or of the same kind of response in one turn may share one `ready`,
//!    as long as no call but `propose` that makes records (`step_append`) is among them twice without its records
//!    appended in between.
//! 2. **Records go to the log at once, in the order the core made them.** The record of `propose` when it returns; those
//!    of `entries[skip..]` when `step_append` returns, replacing the host's entries from `truncate_from` on; the empty
//!    record of [`Ready::noop`] before anything else of that `Ready`.
//! 3. **[`Ready::hard_state`] goes to the same log, in the same order.** The log is flushed in order: when something is
//!    durable, so is all that was appended before it. The core relies on it, for votes as well as for entries that were
//!    replaced and came back.
//! 4. **[`Ready::messages`] may go at once**, before anything is durable. The host adds the records that an
//!    `AppendEntries` names, verbatim; if it no longer has them it may read them and send later, or call
//!    [`RaftCore::unreachable`].
//! 5. **[`Ready::after_flush`] goes when everything appended up to that `Ready` is durable**, hard state and records; at
//!    once when nothing is waiting. It may be dropped, never sent early. An `AppendEntriesResponse` may be replaced by a
//!    later one to the same leader in the same term.
//! 6. **What became durable is told**: [`RaftCore::hard_state_durable`] and [`RaftCore::durable`], in the order of the log,
//!    the latter with the last record's id. Without it a leader does not count itself and a candidate never wins.
//! 7. **[`Ready::commit_index`]: apply up to it, in order.** The entries may not be durable on this node yet.
//! 8. **[`Ready::reads`]: serve the reads of a context once its index is applied. Then, if [`Ready::reads_failed`] is set,
//!    fail every read that is still waiting for its context.** A read whose context came stays valid after the leadership
//!    ended.
//! 9. **Messages may be lost, repeated, reordered and delayed; they may not be altered.** The host checks bytes before it
//!    steps them. When it knows that messages to a peer were lost it says so with [`RaftCore::unreachable`]; if it does
//!    not know, the core finds out in the time of an election timeout.
//! 10. **Restart**: make the core from the recovered hard state and log, both durable. It is a follower, and nothing is
//!     committed until a leader says so; a host serves nothing before that.
//! 11. **A leader whose own flushes stop completing must be told**: [`RaftCore::step_down`]. The core has no clock to see it.
//! 12. A record or hard state that cannot be written ends the core: it is never used again.
//!
//! # A host in thirty lines
//!
//! Three nodes whose disks and network are lists. Production does the same with a write-ahead log and sockets.
//!
//! ```
//! use ringraft_raft::{Config, HardState, LogTerms, Membership, Message, NodeId, RaftCore, Ready, Role};
//!
//! let nodes = [NodeId(1), NodeId(2), NodeId(3)];
//! let mut cores = nodes.map(|id| {
//!     let config = Config::new(id, 42).validate().unwrap();
//!     RaftCore::new(config, Membership::new(nodes.to_vec()), HardState::default(), LogTerms::new())
//! });
//! // What a real host keeps as records: here the metas of the entries, which are all that a follower's core needs.
//! let mut logs: [Vec<ringraft_raft::EntryMeta>; 3] = Default::default();
//! let (mut ready, mut network) = (Ready::new(), Vec::new());
//! cores[0].campaign();
//! loop {
//!     let mut idle = true;
//!     for (position, core) in cores.iter_mut().enumerate() {
//!         while core.ready(&mut ready) {
//!             idle = false;
//!             let noop = ready.noop.map(|id| ringraft_raft::EntryMeta { term: id.term, length: ringraft_raft::NOOP_LENGTH });
//!             logs[position].extend(noop); // persist: records and hard state, in order ...
//!             for (to, message) in ready.messages.drain(..) {
//!                 let Message::AppendEntries { prev, count, .. } = message else { network.push((core.config().id, to, message, vec![])); continue };
//!                 let range = prev.index as usize..prev.index as usize + count as usize;
//!                 network.push((core.config().id, to, message, logs[position][range].to_vec())); // ... send ...
//!             }
//!             // ... flush ...
//!             ready.hard_state.map(|hard_state| core.hard_state_durable(hard_state));
//!             core.durable(core.last());
//!             network.extend(ready.after_flush.drain(..).map(|(to, message)| (core.config().id, to, message, vec![])));
//!             // ... apply up to ready.commit_index, reply.
//!         }
//!     }
//!     for (from, to, message, entries) in network.drain(..) {
//!         idle = false;
//!         let position = to.0 as usize - 1;
//!         let Message::AppendEntries { term, prev, leader_commit, .. } = message else { cores[position].step(from, message); continue };
//!         if let ringraft_raft::AppendOutcome::Accepted { skip, .. } = cores[position].step_append(from, term, prev, leader_commit, &entries) {
//!             logs[position].truncate(prev.index as usize + skip);
//!             logs[position].extend(&entries[skip..]);
//!         }
//!     }
//!     if idle { break }
//! }
//! assert_eq!((cores[0].role(), cores[0].commit_index()), (Role::Leader, 1));
//! assert_eq!(cores[1].leader(), Some(NodeId(1)));
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod append;
mod config;
mod core;
mod election;
mod ids;
mod invariants;
mod log;
mod membership;
mod message;
mod prng;
mod progress;
mod quorum;
mod read_index;
mod ready;
mod replication;

pub use crate::{
    config::{Config, ConfigError, ValidConfig},
    core::{NOOP_LENGTH, RaftCore},
    ids::{EntryId, GroupId, Index, NodeId, Term},
    log::LogTerms,
    membership::Membership,
    message::{AppendResult, EntryMeta, HardState, Message},
    ready::{AppendOutcome, ProgressState, ProposeError, ReadContext, ReadError, ReadReady, Ready, Role},
};
