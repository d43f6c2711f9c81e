//! Changes of a group's members: the leader drives them to a target, one entry at a time.
//!
//! Off the data path. Raft 6, thesis 4; the protocol of it is the core's.
//!
//! ```text
//!   set_target (every replica) ... the leader, every tick: next_step -> entry -> committed -> next_step ...
//!                                  Ready::membership_due -> entry that leaves a joint configuration
//! ```
//! Invariants: only what is in force and the target decide (`plan.rs`), so the next leader carries on; a configuration's
//! bytes are checked before the core sees it; one change is under way at a time.
//! It does not choose targets, and makes no replicas: see `shard/replicas.rs`.

pub(crate) mod encode;
pub(crate) mod plan;

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{Index, Membership, NodeId};
use ringraft_wal::{Disk, record};

use self::plan::{Step, Target, next_step};
use super::Group;
use super::ordering::Input;
use crate::shard::io::{Fatal, Io};

/// Attempts of one leadership to hand over before it goes on with the change itself.
const HANDOVERS_MAX: u32 = 2;

/// How far a leader is with its target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not the leader, or no target is known.
    #[default]
    Idle,
    Settled,
    /// A configuration is proposed and not committed.
    Committing,
    CatchingUp,
    HandingOver,
    Joint,
}

impl Stage {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Settled => "settled",
            Self::Committing => "committing",
            Self::CatchingUp => "catching_up",
            Self::HandingOver => "handing_over",
            Self::Joint => "joint",
        }
    }
}

/// What a replica knows of a change besides its log.
#[derive(Debug, Default)]
pub(crate) struct Drive {
    pub(crate) target: Option<Target>,
    pub(crate) stage: Stage,
    /// Attempts to hand over in this leadership, for the sake of a change.
    handovers: u32,
}

impl Drive {
    /// Whether the next tick would find nothing to do, if nothing happens until then.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.stage, Stage::Idle | Stage::Settled)
    }

    /// A leadership begins or ends.
    pub(crate) fn reset(&mut self) {
        (self.stage, self.handovers) = (Stage::Idle, 0);
    }
}

impl Group {
    /// The members this group is to have; every replica is told, the leader acts.
    pub(crate) fn set_target(&mut self, target: Target) {
        self.drive.target = Some(target);
    }

    /// What it was told last.
    pub(crate) fn target(&self) -> Option<&Target> {
        self.drive.target.as_ref()
    }

    /// A tick: links and streams follow the members, and a leader makes the next step to the target.
    pub(super) fn tick_membership<D: Disk>(&mut self, io: &mut Io<D>) {
        let membership = self.core.membership();
        self.followers.retain(|follower| membership.contains(follower.node));
        self.stop_sending_to_strangers(io);
        self.drive.stage = self.drive(io);
    }

    fn drive<D: Disk>(&mut self, io: &mut Io<D>) -> Stage {
        let Some(target) = self.drive.target.clone().filter(|_| self.is_leader()) else { return Stage::Idle };
        let pending = self.core.memberships().last_index() > self.core.commit_index();
        if pending && !is_active(Mutant::SecondChange) {
            return Stage::Committing;
        }
        if self.is_handing_over() {
            return Stage::HandingOver;
        }
        let (me, bytes_max) = (self.core.config().id, self.catch_up_bytes);
        let has_caught_up = |node| self.core.has_caught_up(node, bytes_max);
        match next_step(self.core.membership(), &target, me, has_caught_up) {
            Step::Settled => Stage::Settled,
            Step::Joint => Stage::Joint,
            Step::CatchUp => Stage::CatchingUp,
            Step::HandOver { to, .. } if self.hand_over_to(&to, io) => Stage::HandingOver,
            Step::Propose(membership) | Step::HandOver { otherwise: membership, .. } => {
                self.advance(Input::Membership(&membership), io);
                Stage::Committing
            }
        }
    }

    /// Hands leadership to the one of `to` that holds most and can be reached; `false`: that was tried often enough.
    fn hand_over_to<D: Disk>(&mut self, to: &[NodeId], io: &mut Io<D>) -> bool {
        if self.drive.handovers >= HANDOVERS_MAX {
            return false;
        }
        let reachable = self.targets(io).into_iter().filter(|node| to.contains(node));
        let candidates: Vec<NodeId> = reachable.collect();
        let Some(target) = candidates.get(self.drive.handovers as usize % candidates.len().max(1)) else {
            return false;
        };
        self.drive.handovers += 1;
        let begun = self.core.transfer_leadership(*target).is_ok();
        if begun {
            self.advance(Input::Nothing, io);
        }
        begun
    }

    /// Writes the entry that brings `membership`, if the core takes it and the log has room; else a later tick tries again.
    pub(super) fn persist_membership<D: Disk>(&mut self, membership: &Membership, io: &mut Io<D>) {
        let Ok(payload) = encode::encode(membership) else { return };
        let length = record::padded_length(payload.len());
        if !io.wal.has_room(length) {
            return;
        }
        let Ok(id) = self.core.propose_membership(length as u32, membership.clone()) else { return };
        self.waiters.open(id, io.now_us);
        match io.wal.append_membership(self.id.0, id.term, id.index, &payload, &mut io.disk) {
            Ok(accepted) => self.flush_mark = accepted.sequence,
            Err(error) => io.fail(Fatal::Wal(error.to_string())),
        }
        self.count_entry(io);
        io.counters.memberships_proposed += 1;
    }

    /// Notes the configuration of a leader's record.
    ///
    /// # Errors
    /// Its payload is no configuration.
    pub(super) fn note_membership(&mut self, index: Index, payload: &[u8]) -> Result<(), String> {
        let membership = encode::decode(payload)
            .map_err(|error| format!("entry {index} of group {} brings no configuration: {error}", self.id))?;
        self.changes.push((index, membership));
        Ok(())
    }
}
