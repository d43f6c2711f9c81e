//! The Raft protocol of one group as a pure state machine: events in, [`Ready`] out.
//!
//! Data path 5/9 and 7/9. The crate is `no_std`, has no dependencies, no `unsafe`, no clock and no randomness of its own, so
//! the same events in the same order always give the same output. It never sees a payload: an entry is (term, index,
//! length), and the host keeps the records.
//!
//! Included: elections with pre-vote, check-quorum and leader stickiness; replication with a window in bytes and
//! conflict-term back-off; ReadIndex and leader leases; compaction and snapshots; changes of membership by joint
//! consensus; leadership transfer. Deliberately absent: the choice of when to compact, who is to be a member, who is to lead.
//!
//! # The host's contract
//!
//! 1. **Events, then `ready`.** After the events of a turn ([`RaftCore::tick`], [`RaftCore::step`],
//!    [`RaftCore::step_append`], [`RaftCore::propose`], [`RaftCore::durable`], ...) call [`RaftCore::ready`] and do what
//!    it says, in the order persist, send, apply, reply. Any number of events may share one `ready`.
//!    A new leader takes proposals from its first `ready` on.
//! 2. **Records go to the log at once, in the order the core made them.** The record of `propose` when it returns; those
//!    of `entries[skip..]` when `step_append` returns, replacing the host's entries from `truncate_from` on; the empty
//!    record of [`Ready::noop`] before anything else of that `Ready`.
//! 3. **[`Ready::hard_state`] goes to the same log, in the same order.** The log is flushed in order: when something is
//!    durable, so is all that was appended before it. The core relies on it, for votes as well as for entries that were
//!    replaced and came back.
//! 4. **[`Ready::messages`] may go at once**, before anything is durable. The host adds the records that an
//!    `AppendEntries` names, verbatim; if they are not at hand it may read them and send later, as long as this node still
//!    leads in that term, or call [`RaftCore::unreachable`].
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
//! 10. **Restart**: make the core from the recovered hard state and log, both durable: [`LogTerms::after`] the snapshot
//!     that was loaded, then the entries behind it, and [`Memberships`] of the snapshot's configuration and those the
//!     entries bring. It is a follower, and nothing behind the snapshot is committed until a leader says so; a host
//!     serves nothing before that. Unless the node never took part in the group, [`RaftCore::restarted`] is called first.
//! 11. **A leader whose own flushes stop completing must be told**: [`RaftCore::step_down_for`] a follower that can be
//!     reached, or [`RaftCore::step_down`]. The core has no clock to see it.
//! 12. A record or hard state that cannot be written ends the core: it is never used again.
//!
//! ## Compaction and snapshots
//!
//! 13. **[`RaftCore::compact`] up to what a durable snapshot covers**, and to no more than is applied. From then on the host
//!     is never asked for records at or below that index; it may keep them.
//! 14. **[`Ready::snapshots`]: send each of these members the newest snapshot**, beside the messages, in any pieces. It must
//!     reach at least the index before [`RaftCore::first_index`]. When the last piece was sent the host says
//!     [`RaftCore::snapshot_sent`], when it gives up [`RaftCore::snapshot_failed`]; until then the member gets heartbeats
//!     only. One attempt per member at a time; both calls may come after the leadership ended.
//! 15. **A snapshot that came in takes the place of the log.** When its last piece is durable in its own file the host
//!     calls [`RaftCore::install_snapshot`]. On `Replaced` the first thing it appends to its log, behind the hard state of
//!     the next `Ready`, is a mark that voids the group's earlier records; what is in `after_flush` waits for it as for a
//!     record. The state machine becomes that of the snapshot, its applied index the snapshot's, and nothing that waits
//!     for earlier entries is served from it; what was appended but not applied is forgotten. On `Held` and `Ignored`
//!     nothing changes.
//!
//! ## Membership
//!
//! 16. **A configuration travels in its entry.** The host encodes what it gives to [`RaftCore::propose_membership`] into the
//!     record, and finds it again in the records it steps ([`IncomingEntries::changes`]) and recovers. It is in force
//!     when the entry is in the log, committed or not; [`RaftCore::memberships`] tells the one at any index, which goes
//!     into a snapshot at that index.
//! 17. **[`Ready::membership_due`]: the leader's host proposes that configuration.** It ends a joint one, and is asked for
//!     again, every tick, until it was proposed. [`ChangeError::Pending`] means later, not never.
//! 18. **A new member is a learner first** and becomes a voter when [`RaftCore::has_caught_up`] says so; the host watches.
//!     A node that is in no configuration any more may be told to stop; the core only stops leading. Links to members
//!     that come, and records for them, are the host's.
//!
//! 19. **A replica that is made for a group knows no members**: an empty [`Membership`]. It listens until entries or a
//!     snapshot bring a configuration. If the node gave up an earlier replica of the group, the host says so with
//!     [`RaftCore::withhold_votes_until`] at every start.
//!
//! ## Leadership transfer
//!
//! 20. **[`RaftCore::transfer_leadership`] to a voter that can be reached.** Until it ended proposals are refused with
//!     [`ProposeError::Transferring`]: the host lets them wait, bounded, or refuses them. It ended when
//!     [`RaftCore::transfer_target`] is `None`: another leads, or this node leads on after an election timeout.
//! 21. **A node on its way out steps no `TimeoutNow`**, nor does one that could not write what a leader writes.
//!
//! ## Leases
//!
//! 21. **[`RaftCore::observe_time`] before every event**, from a clock that goes on while the process is paused, and
//!     [`RaftCore::tick`] never faster than once in `tick_us`: a tick that is late counts once. [`RaftCore::holds_lease`]
//!     counts for requests that came in before the time that was observed last. A host that tells no time has no leases.
//!
//! ## Idle groups
//!
//! 22. **A [`Doze`] stands in for an idle core** ([`RaftCore::doze`], after a `ready`): it takes the ticks that are due and
//!     heartbeats, and says what the core would. When it cannot, and before anything else is brought, the host calls
//!     [`RaftCore::wake`]. A host need not do that.
//!
//! # A host in thirty lines
//!
//! Three nodes whose disks flush at once and whose network is a list. Production does the same with a write-ahead log and
//! sockets.
//!
//! ```
//! use ringraft_raft::*;
//!
//! let nodes = [NodeId(1), NodeId(2), NodeId(3)];
//! let mut cores = nodes.map(|id| {
//!     let config = Config::new(id, 42).validate().unwrap();
//!     RaftCore::new(config, Memberships::new(Membership::new(nodes.to_vec())), HardState::default(), LogTerms::new())
//! });
//! let mut logs = [vec![], vec![], vec![]]; // the records; a core needs no more of them than this
//! let (mut ready, mut network) = (Ready::new(), Vec::new());
//! cores[0].campaign();
//! for turn in 0..30 {
//!     let (node, core, log) = (nodes[turn % 3], &mut cores[turn % 3], &mut logs[turn % 3]);
//!     if let Ok(id) = core.propose(100) {
//!         // Only the leader may; its record is appended at once.
//!         log.push(EntryMeta { term: id.term, length: 100 });
//!     }
//!     while core.ready(&mut ready) {
//!         // Persist: the no-op's record and the hard state join the records that are there already.
//!         log.extend(ready.noop.map(|id| EntryMeta { term: id.term, length: NOOP_LENGTH }));
//!         // Send what needs no flush; the host adds the records.
//!         for (to, message) in ready.messages.drain(..) {
//!             let records = match message {
//!                 Message::AppendEntries { prev, count, .. } => log[prev.index as usize..][..count as usize].to_vec(),
//!                 _ => vec![],
//!             };
//!             network.push((node, to, message, records));
//!         }
//!         // The flush is done: tell it, then send what waited for it.
//!         if let Some(hard_state) = ready.hard_state {
//!             core.hard_state_durable(hard_state);
//!         }
//!         core.durable(core.last());
//!         network.extend(ready.after_flush.drain(..).map(|(to, message)| (node, to, message, vec![])));
//!         // Apply up to ready.commit_index, reply.
//!     }
//!     for (from, to, message, records) in network.drain(..) {
//!         let (core, log) = (&mut cores[to.0 as usize - 1], &mut logs[to.0 as usize - 1]);
//!         let Message::AppendEntries { term, prev, leader_commit, .. } = message else {
//!             core.step(from, message);
//!             continue;
//!         };
//!         let incoming = IncomingEntries { term, prev, leader_commit, entries: &records, changes: &[] };
//!         let outcome = core.step_append(from, &incoming);
//!         if let AppendOutcome::Accepted { skip, truncate_from } = outcome {
//!             log.truncate(truncate_from.map_or(log.len(), |index| index as usize - 1));
//!             log.extend(&records[skip..]);
//!         }
//!     }
//! }
//! assert_eq!(cores[1].leader(), Some(NodeId(1)));
//! assert!(cores.iter().all(|core| core.commit_index() > 1));
//! ```

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod append;
mod change;
mod config;
mod core;
mod doze;
mod election;
mod ids;
mod invariants;
mod lease;
mod log;
mod membership;
mod message;
pub mod mutants;
mod pace;
mod prng;
mod progress;
mod quorum;
mod read_index;
mod ready;
mod replication;
mod snapshot;
mod transfer;

pub use crate::{
    config::{Config, ConfigError, ValidConfig},
    core::{NOOP_LENGTH, RaftCore},
    doze::{DOZE_PEERS_MAX, Doze, Dozed},
    ids::{EntryId, GroupId, Index, NodeId, Term},
    log::LogTerms,
    membership::{Membership, Memberships},
    message::{AppendResult, EntryMeta, HardState, IncomingEntries, Message},
    ready::{
        AppendOutcome, ChangeError, InstallOutcome, ProgressState, ProposeError, ReadContext, ReadError, ReadReady,
        Ready, Role, TransferError,
    },
};
