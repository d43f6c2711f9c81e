//! From what recovery found in the WAL to a shard that can take events.
//!
//! Off the data path (start).
//! Invariants: everything in the recovered log is durable, so a core starts with all of it; a replica comes back as a
//! follower; nothing is applied before a leader says what is committed, the entries are then read back from the WAL.

use std::collections::BTreeMap;

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{
    Config, ConfigError, EntryMeta, GroupId, HardState, Index, LogTerms, Membership, Memberships, NodeId, RaftCore,
    Term,
};
use ringraft_wal::{Disk, Recovered, RecoveredGroup, ValidConfig as WalConfig, Wal, record};

use super::groups::Groups;
use super::{ConfigurationError, Shard, ShardSettings, replicas};
use crate::group::Group;
use crate::group::membership::encode::{self, membership_of};
use crate::group::snapshots::Snapshots;
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
    /// What a follower that lags gets of the log per tick at least; 0: as much as it takes.
    pub catch_up_bytes_per_tick: u64,
    /// Bytes proposed and not yet committed.
    pub uncommitted_bytes_max: u64,
    /// Bytes of requests in one entry.
    pub entry_bytes_max: usize,
    /// A new member may lack so many bytes of what is committed when it gets its vote.
    pub catch_up_bytes: u64,
    /// Length of a tick: ticks come no faster.
    pub tick_us: u64,
    /// Clocks of two nodes differ in rate by so much at most; 100: no leases.
    pub lease_drift_percent: u32,
    /// Seeds the election jitter; different on every node.
    pub seed: u64,
}

impl<D: Disk> Shard<D> {
    /// A shard over what recovery found.
    ///
    /// `loaded` holds what was loaded from the snapshots of groups that have one, see [`Loaded`].
    ///
    /// # Errors
    /// The consensus settings are out of their bounds, or an entry brings no configuration that can be read.
    pub fn restore(
        settings: ShardSettings,
        consensus: &ConsensusSettings,
        limits: Limits,
        wal_config: WalConfig,
        (recovered, mut loaded): (Recovered, BTreeMap<u32, Loaded>),
        mut disk: D,
    ) -> Result<Self, RestoreError> {
        let mut groups = Groups::new(settings.shard, settings.shards, settings.groups);
        let empty = RecoveredGroup::default();
        for group in groups.ids() {
            let found = recovered.groups.get(&group.0).unwrap_or(&empty);
            if !is_held(&settings, group, found) {
                continue;
            }
            let files = recovered.snapshots.iter().filter(|file| file.name.group == group.0);
            let snapshots =
                Snapshots::new(settings.snapshots, limits.digest(), files.map(|file| file.name.index).collect());
            let place = (group, limits);
            groups.insert(make_group(&settings, consensus, place, found, loaded.remove(&group.0), snapshots)?);
        }
        let files: Vec<_> = recovered.snapshots.iter().map(|file| file.name).collect();
        let wal = Wal::new(wal_config, recovered, &mut disk);
        let mut shard = Self::new(settings, (*consensus, limits), groups, wal, disk);
        shard.note_leftovers(files.into_iter());
        Ok(shard)
    }
}

/// Why what recovery found makes no shard.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// The consensus settings are out of their bounds.
    #[error(transparent)]
    Settings(#[from] ConfigError),
    /// An entry brings what this program does not know as a configuration.
    #[error("entry {index} of group {group} brings a configuration that cannot be read: {error}; replace this replica")]
    Configuration {
        /// The group.
        group: u32,
        /// The entry.
        index: Index,
        /// What is wrong with it.
        error: ConfigurationError,
    },
}

/// Whether this node holds a replica of the group: the log says, or the beginning of the cluster does.
fn is_held(settings: &ShardSettings, group: GroupId, found: &RecoveredGroup) -> bool {
    let initial = settings.initial.get(group.0 as usize);
    let is_founder = initial.is_some_and(|members| members.contains(settings.node));
    let is_there = is_founder || !found.entries.is_empty() || !found.marks.is_empty();
    found.beginning.map_or(is_there, |beginning| beginning.held)
}

/// A replica over what recovery found of it.
pub(super) fn make_group(
    settings: &ShardSettings,
    consensus: &ConsensusSettings,
    (group, limits): (GroupId, Limits),
    found: &RecoveredGroup,
    loaded: Option<Loaded>,
    snapshots: Snapshots,
) -> Result<Group, RestoreError> {
    let config = Config {
        id: settings.node,
        election_ticks_min: consensus.election_ticks_min,
        election_ticks_max: consensus.election_ticks_max,
        heartbeat_ticks: consensus.heartbeat_ticks,
        append_bytes_max: consensus.append_bytes_max,
        inflight_bytes_max: consensus.inflight_bytes_max,
        catch_up_bytes_per_tick: consensus.catch_up_bytes_per_tick,
        uncommitted_bytes_max: consensus.uncommitted_bytes_max,
        tick_us: consensus.tick_us,
        lease_drift_percent: consensus.lease_drift_percent,
        seed: consensus.seed ^ (u64::from(group.0) << 32) ^ settings.node.0,
    };
    let (machine, base_members) = match loaded {
        Some(loaded) => (loaded.machine, membership_of(&loaded.head.members)),
        None => (StateMachine::new(group, limits), first_members(settings, group, found)),
    };
    let base = machine.last_applied_id();
    let mut log = LogTerms::after(base);
    for entry in found.entries.iter().filter(|entry| entry.index > base.index) {
        let length = record::padded_length(entry.length as usize - record::HEADER_BYTES) as u32;
        log.push(EntryMeta { term: entry.term, length });
    }
    let mut memberships = Memberships::new(base_members);
    for (index, payload) in found.memberships.iter().filter(|(index, _)| *index > base.index) {
        let failed = |error| RestoreError::Configuration { group: group.0, index: *index, error };
        memberships.push(*index, encode::decode(payload).map_err(failed)?);
    }
    let hard_state = hard_state(found, log.last().term);
    let mut core = RaftCore::new(config.validate()?, memberships, hard_state, log);
    if !is_active(Mutant::ForgetfulVotes) {
        core.withhold_votes_until(replicas::floor(found.beginning));
    }
    if hard_state.current_term > 0 {
        core.restarted();
    }
    let mut group = Group::new((group, settings.incarnation), core, machine, limits, snapshots, consensus);
    group.keep_recent(settings.watches.bytes_of_group(settings.groups, settings.shards));
    Ok(group)
}

/// The members at the very beginning of a log: those of the brand-new group, unless this replica was made later.
fn first_members(settings: &ShardSettings, group: GroupId, found: &RecoveredGroup) -> Membership {
    let initial = settings.initial.get(group.0 as usize).filter(|_| found.beginning.is_none());
    initial.cloned().unwrap_or_else(|| Membership::new(Vec::new()))
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
