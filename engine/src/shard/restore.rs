//! From what recovery found in the WAL to a shard that can take events.
//!
//! Off the data path (start).
//! Invariants: everything in the recovered log is durable, so a core starts with all of it; a replica comes back as a
//! follower; nothing is applied before a leader says what is committed, the entries are then read back from the WAL.

use std::collections::BTreeMap;

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{
    Config, ConfigError, EntryMeta, GroupId, HardState, LogTerms, Membership, Memberships, NodeId, RaftCore, Term,
};
use ringraft_wal::{Disk, Recovered, RecoveredGroup, ValidConfig as WalConfig, Wal, record};

use super::{Shard, ShardSettings};
use crate::group::Group;
use crate::group::snapshots::{Snapshots, membership_of};
use crate::limits::Limits;
use crate::snapshot::Loaded;
use crate::state_machine::StateMachine;

/// The consensus settings of every group of a shard; times are in ticks.
#[derive(Clone, Copy, Debug)]
pub struct ConsensusSettings {
    /// See `ringraft_raft::Config`.
    pub election_ticks_min: u32,
    /// See `ringraft_raft::Config`.
    pub election_ticks_max: u32,
    /// See `ringraft_raft::Config`.
    pub heartbeat_ticks: u32,
    /// Bytes of entries in one AppendEntries.
    pub append_bytes_max: u32,
    /// Bytes on their way to one follower.
    pub inflight_bytes_max: u64,
    /// Bytes proposed and not yet committed.
    pub uncommitted_bytes_max: u64,
    /// Bytes of requests in one entry.
    pub entry_bytes_max: usize,
    /// Seeds the election jitter; different on every node.
    pub seed: u64,
}

impl<D: Disk> Shard<D> {
    /// A shard over what recovery found.
    ///
    /// `loaded` holds what was loaded from the snapshots of groups that have one, see [`Loaded`].
    ///
    /// # Errors
    /// The consensus settings are out of their bounds.
    pub fn restore(
        settings: ShardSettings,
        consensus: &ConsensusSettings,
        limits: Limits,
        wal_config: WalConfig,
        recovered: Recovered,
        mut loaded: BTreeMap<u32, Loaded>,
        mut disk: D,
    ) -> Result<Self, ConfigError> {
        let mut groups = Vec::new();
        let empty = RecoveredGroup::default();
        for group in (u32::from(settings.shard)..settings.groups).step_by(usize::from(settings.shards)) {
            let found = recovered.groups.get(&group).unwrap_or(&empty);
            let files = recovered.snapshots.iter().filter(|file| file.name.group == group);
            let snapshots =
                Snapshots::new(settings.snapshots, limits.digest(), files.map(|file| file.name.index).collect());
            let place = (GroupId(group), limits);
            groups.push(restore_group(&settings, consensus, place, found, loaded.remove(&group), snapshots)?);
        }
        let wal = Wal::new(wal_config, recovered, &mut disk);
        Ok(Self::new(settings, groups, wal, disk))
    }
}

fn restore_group(
    settings: &ShardSettings,
    consensus: &ConsensusSettings,
    (group, limits): (GroupId, Limits),
    found: &RecoveredGroup,
    loaded: Option<Loaded>,
    snapshots: Snapshots,
) -> Result<Group, ConfigError> {
    let config = Config {
        id: settings.node,
        election_ticks_min: consensus.election_ticks_min,
        election_ticks_max: consensus.election_ticks_max,
        heartbeat_ticks: consensus.heartbeat_ticks,
        append_bytes_max: consensus.append_bytes_max,
        inflight_bytes_max: consensus.inflight_bytes_max,
        uncommitted_bytes_max: consensus.uncommitted_bytes_max,
        seed: consensus.seed ^ (u64::from(group.0) << 32) ^ settings.node.0,
    };
    let mut voters = settings.peers.clone();
    voters.push(settings.node);
    let (machine, membership) = match loaded {
        Some(loaded) => (loaded.machine, membership_of(&loaded.head.members)),
        None => (StateMachine::new(group, limits), Membership::new(voters)),
    };
    let base = machine.last_applied_id();
    let mut log = LogTerms::after(base);
    for entry in found.entries.iter().filter(|entry| entry.index > base.index) {
        let length = record::padded_length(entry.length as usize - record::HEADER_BYTES) as u32;
        log.push(EntryMeta { term: entry.term, length });
    }
    let hard_state = hard_state(found, log.last().term);
    let core = RaftCore::new(config.validate()?, Memberships::new(membership), hard_state, log);
    Ok(Group::new(group, core, machine, limits, snapshots, consensus.entry_bytes_max))
}

/// The recovered hard state; a log may reach into a newer term than it when the crash came between the two records of
/// one turn, the term then counts and no vote of it was given away.
fn hard_state(found: &RecoveredGroup, last_term: Term) -> HardState {
    let stored = found.hard_state.map_or_else(HardState::default, |stored| HardState {
        current_term: stored.current_term,
        voted_for: stored.voted_for.map(NodeId).filter(|_| !is_active(Mutant::VoteNotKept)),
    });
    if last_term > stored.current_term {
        return HardState { current_term: last_term, voted_for: None };
    }
    stored
}
