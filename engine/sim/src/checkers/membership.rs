//! Members that change: whose copies and votes count, and what a replica may forget (Raft 6, thesis 4).
//!
//! Off the data path.
//!
//! ```text
//!   archive   initial members | entries ... | configuration | entries ... | configuration | ...
//!                             |<- in force at a committed index: the last one at or below it ->|
//! ```
//!
//! Properties:
//! - what is committed is on the disks of a quorum, of both majorities of a joint configuration; a configuration is
//!   committed by its own quorum;
//! - whoever becomes leader got the votes of a quorum of the configuration it stands for;
//! - a replica's configurations are those of its log and snapshot: at its commit index the one in force there, behind it
//!   what its own entries bring; a leader has one of the latter at most;
//! - a replica is given up only when a configuration without its node was in force behind everything it held; who gave one
//!   up votes for nobody, and promises nobody to, before it holds as much again.
//!
//! Relations: votes are read from the frames that carry them (`promises`), committed configurations from the archive.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use ringraft_engine::shard::inspect::{GroupView, configuration_of};
use ringraft_engine::topology::Topology;
use ringraft_raft::{EntryId, Index, Membership, Memberships, NodeId, Role, Term};

use super::archive::Archive;
use super::{Replica, Violation};
use crate::world::Checked;

/// A vote for the candidate at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Vote {
    /// It counts.
    Given(usize),
    /// It would be given: an answer to a pre-vote.
    Promised(usize),
}

/// What is known of the members of every group.
#[derive(Debug)]
pub(crate) struct Members {
    initial: Vec<Membership>,
    /// Committed configurations by group, each with the index of its entry.
    committed: Vec<Vec<(Index, Membership)>>,
    /// Up to where the archive was read, by group.
    read: Vec<Index>,
    /// Places of the nodes that voted: by group, term and place of the candidate.
    votes: BTreeMap<(u32, Term, usize), BTreeSet<usize>>,
    /// The last entry of logs that were given up, by node and group.
    forgotten: BTreeMap<(usize, u32), EntryId>,
    /// The last change that each replica was seen to propose, by node and group.
    proposed: BTreeMap<(usize, u32), Index>,
}

impl Members {
    pub(crate) fn new(topology: &Topology) -> Self {
        let initial = topology.memberships();
        let groups = initial.len();
        Self {
            initial,
            committed: vec![Vec::new(); groups],
            read: vec![0; groups],
            votes: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            proposed: BTreeMap::new(),
        }
    }

    /// Reads what came into the archive; the entries that bring a configuration.
    pub(crate) fn learn(&mut self, group: u32, archive: &Archive) -> Result<Vec<EntryId>, Violation> {
        let read = &mut self.read[group as usize];
        let mut news = Vec::new();
        while *read < archive.last_index(group) {
            *read += 1;
            let Some(entry) = archive.get(group, *read) else { break };
            let configuration = configuration_of(entry.record()).map_err(|error| {
                Violation::new("configurations can be read", format!("group {group}, entry {read}: {error}"))
            })?;
            if let Some(configuration) = configuration {
                self.committed[group as usize].push((*read, configuration));
                news.push(EntryId { term: entry.term, index: *read });
            }
        }
        Ok(news)
    }

    /// The configuration in force at a committed index.
    pub(crate) fn at(&self, group: u32, index: Index) -> &Membership {
        let committed = &self.committed[group as usize];
        let behind = committed.partition_point(|(change, _)| *change <= index);
        behind.checked_sub(1).map_or(&self.initial[group as usize], |place| &committed[place].1)
    }

    /// Compares the configurations of a replica with those of its log.
    pub(crate) fn replica<'a>(
        &self,
        replica: Replica,
        view: &GroupView,
        found: &Memberships,
        record: impl Fn(Index) -> Option<Cow<'a, [u8]>>,
    ) -> Checked {
        let broken = |seen: String| Err(Violation::new("the members are those of the log", seen));
        let (commit, group) = (view.commit_index, replica.group);
        let (expected, here) = (self.at(group, commit), found.at(commit));
        // Who joined knows nobody before the first entry that says so.
        let knows_nobody = here.voters().is_empty() && found.changes().iter().all(|(index, _)| *index > commit);
        let is_young =
            self.committed[group as usize].iter().all(|(index, _)| *index > commit || *index <= view.base.index);
        if here != expected && !(knows_nobody && is_young && view.base.index == 0) {
            return broken(format!(
                "{replica} takes {here:?} for its members at index {commit}, they are {expected:?}"
            ));
        }
        let uncommitted = found.changes().iter().filter(|(index, _)| *index > commit);
        for (index, membership) in uncommitted.clone() {
            let brought = record(*index).and_then(|bytes| configuration_of(&bytes).ok().flatten());
            if brought.as_ref() != Some(membership) {
                return broken(format!("{replica} has {membership:?} of entry {index}, which brings {brought:?}"));
            }
        }
        // A new leader does not know yet how far others have committed.
        let known = self.read[group as usize];
        let pending: Vec<Index> = uncommitted.map(|(index, _)| *index).filter(|index| *index > known).collect();
        if view.role == Role::Leader && pending.len() > 1 {
            let seen = format!("{replica} leads with several changes that nobody has committed: {pending:?}");
            return Err(Violation::new("one change of members at a time", seen));
        }
        Ok(())
    }

    /// A node says that it votes for a candidate, or would.
    pub(crate) fn vote(&mut self, voter: Replica, term: Term, vote: Vote, last: EntryId) -> Checked {
        let (Vote::Given(candidate) | Vote::Promised(candidate)) = vote;
        if let Vote::Given(candidate) = vote {
            self.votes.entry((voter.group, term, candidate)).or_default().insert(voter.node);
        }
        let held = self.forgotten.get(&(voter.node, voter.group)).copied().unwrap_or(EntryId::ZERO);
        if last >= held {
            return Ok(());
        }
        let seen = format!(
            "{voter} votes in term {term} for node {} with a log up to {last}; the one it gave up went up to {held}",
            candidate + 1
        );
        Err(Violation::new("who gave up a log votes for nobody without it", seen))
    }

    /// A replica that is there again has what the one before it had, or knows up to where that was.
    pub(crate) fn remembers(&self, replica: Replica, last: EntryId, withheld_until: EntryId) -> Checked {
        let held = self.forgotten.get(&(replica.node, replica.group)).copied().unwrap_or(EntryId::ZERO);
        if last >= held || withheld_until >= held {
            return Ok(());
        }
        let seen =
            format!("{replica}, at {last}, would vote from {withheld_until} on; its earlier log went up to {held}");
        Err(Violation::new("who gave up a log votes for nobody without it", seen))
    }

    /// Whether a replica leads and has proposed another change since the last look.
    pub(crate) fn proposes(&mut self, replica: Replica, view: &GroupView, found: &Memberships) -> bool {
        let (place, index) = ((replica.node, replica.group), found.last_index());
        let leads = view.role == Role::Leader && index > view.commit_index;
        leads && self.proposed.insert(place, index) != Some(index)
    }

    /// Looks at the votes of a new leader.
    pub(crate) fn elected(&self, replica: Replica, term: Term, membership: &Membership) -> Checked {
        let none = BTreeSet::new();
        let votes = self.votes.get(&(replica.group, term, replica.node)).unwrap_or(&none);
        let voted = |node: NodeId| node.0 as usize == replica.node + 1 || votes.contains(&(node.0 as usize - 1));
        if membership.has_quorum(voted) {
            return Ok(());
        }
        let votes: Vec<usize> = votes.iter().map(|place| place + 1).collect();
        let seen =
            format!("{replica} leads in term {term} by the votes of nodes {votes:?}, the members are {membership:?}");
        Err(Violation::new("a leader has the votes of a quorum", seen))
    }

    /// A replica is gone whose log reached up to `last`, of which it may have acknowledged what was durable, up to `promised`.
    pub(crate) fn given_up(&mut self, replica: Replica, last: EntryId, promised: EntryId) -> Checked {
        let held = self.forgotten.entry((replica.node, replica.group)).or_default();
        *held = (*held).max(promised);
        let node = NodeId(replica.node as u64 + 1);
        let later = self.committed[replica.group as usize].iter().filter(|(index, _)| *index > last.index);
        let mut in_force = later.map(|(_, membership)| membership).chain([self.at(replica.group, last.index)]);
        if in_force.any(|membership| !membership.contains(node)) {
            return Ok(());
        }
        let seen = format!("{replica} was given up with a log up to {last}, and was a member ever since");
        Err(Violation::new("members keep their replicas", seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkers::archive::Archived;
    use crate::checkers::testing::{entry_record, view};
    use ringraft_raft::HardState;
    use ringraft_wal::record;

    const REPLICA: Replica = Replica { node: 0, group: 0 };

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    fn configuration(index: Index, voters: &[u64], outgoing: &[u64]) -> (Vec<u8>, Membership) {
        let mut payload = 1_u32.to_le_bytes().to_vec();
        for list in [voters, outgoing, &[]] {
            payload.extend_from_slice(&(list.len() as u32).to_le_bytes());
        }
        for node in voters.iter().chain(outgoing) {
            payload.extend_from_slice(&node.to_le_bytes());
        }
        let mut bytes = Vec::new();
        record::encode_membership(&mut bytes, 0, 1, index, &payload);
        (bytes, Membership::with(ids(voters), ids(outgoing), Vec::new()))
    }

    /// Members 1, 2, 3 at first; entry 2 brings 2, 3, 4 beside them, entry 3 leaves those alone.
    fn known() -> (Members, Archive) {
        let nodes = (1..=3).map(|node| (NodeId(node), vec![format!("h{node}:1")]));
        let mut members = Members::new(&Topology::initial(nodes, 1, 1, 3).unwrap());
        let mut archive = Archive::new(1);
        archive.push(0, Archived::new(1, &entry_record(1, 1, b"x")));
        archive.push(0, Archived::new(1, &configuration(2, &[2, 3, 4], &[1, 2, 3]).0));
        archive.push(0, Archived::new(1, &configuration(3, &[2, 3, 4], &[]).0));
        let news = members.learn(0, &archive).unwrap();
        assert_eq!(news, [EntryId { term: 1, index: 2 }, EntryId { term: 1, index: 3 }]);
        (members, archive)
    }

    fn at(commit: Index, role: Role) -> GroupView {
        GroupView { role, hard_state: HardState { current_term: 1, voted_for: None }, ..view(EntryId::ZERO, commit, 4) }
    }

    #[test]
    fn the_configuration_in_force_is_the_last_committed_one() {
        let (members, _) = known();
        let joint = Membership::with(ids(&[2, 3, 4]), ids(&[1, 2, 3]), Vec::new());
        assert_eq!(members.at(0, 1), &Membership::new(ids(&[1, 2, 3])));
        assert_eq!(members.at(0, 2), &joint);
        assert_eq!(members.at(0, 9), &Membership::new(ids(&[2, 3, 4])));
    }

    #[test]
    fn a_replica_whose_members_are_not_those_of_its_log_is_seen() {
        let (members, archive) = known();
        let record = |index| archive.get(0, index).map(|entry| Cow::Owned(entry.record().to_vec()));
        let found = |changes: &[Index], commit, role| {
            let mut held = Memberships::new(Membership::new(ids(&[1, 2, 3])));
            for index in changes {
                let (voters, outgoing): (&[u64], &[u64]) =
                    if *index == 2 { (&[2, 3, 4], &[1, 2, 3]) } else { (&[2, 3, 4], &[]) };
                held.push(*index, configuration(*index, voters, outgoing).1);
            }
            let checked = members.replica(REPLICA, &at(commit, role), &held, record);
            checked.err().map(|violation| violation.property)
        };
        assert_eq!(found(&[2, 3], 3, Role::Leader), None);
        assert_eq!(found(&[2, 3], 2, Role::Leader), None);
        assert_eq!(found(&[2, 3], 1, Role::Follower), None);
        assert_eq!(found(&[2, 3], 1, Role::Leader), None, "others have committed them");
        let other = Some(String::from("the members are those of the log"));
        assert_eq!(found(&[2], 3, Role::Follower), other, "the last one is missing");
        assert_eq!(found(&[4], 1, Role::Follower), other, "no entry brings it");
        let unknown = Memberships::new(Membership::new(Vec::new()));
        assert!(members.replica(REPLICA, &at(1, Role::Follower), &unknown, record).is_ok(), "it joined just now");
        assert!(members.replica(REPLICA, &at(2, Role::Follower), &unknown, record).is_err());
        let young = Members::new(&Topology::initial([(NodeId(1), vec![String::from("h:1")])], 1, 1, 1).unwrap());
        let mut held = Memberships::new(Membership::new(ids(&[1])));
        held.push(2, configuration(2, &[2, 3, 4], &[1, 2, 3]).1);
        assert!(young.replica(REPLICA, &at(1, Role::Leader), &held, record).is_ok());
        held.push(3, configuration(3, &[2, 3, 4], &[]).1);
        let several = young.replica(REPLICA, &at(1, Role::Leader), &held, record).unwrap_err();
        assert_eq!(several.property, "one change of members at a time");
    }

    #[test]
    fn a_joint_leader_needs_both_majorities() {
        let (mut members, _) = known();
        let joint = Membership::with(ids(&[1, 4, 5]), ids(&[1, 2, 3]), Vec::new());
        let voted = |members: &mut Members, node| {
            members.vote(Replica { node, group: 0 }, 7, Vote::Given(0), EntryId::ZERO).is_ok()
        };
        assert!(voted(&mut members, 3));
        assert!(members.elected(REPLICA, 7, &joint).is_err(), "nodes 1 and 4 are no majority of 1, 2, 3");
        assert!(voted(&mut members, 1));
        assert!(members.elected(REPLICA, 7, &joint).is_ok());
        assert!(members.elected(REPLICA, 8, &joint).is_err(), "votes of another term");
    }

    #[test]
    fn a_replica_goes_when_a_configuration_without_it_is_in_force_behind_it() {
        let (mut members, _) = known();
        let last = |index| EntryId { term: 1, index };
        assert!(members.given_up(Replica { node: 0, group: 0 }, last(2), last(2)).is_ok(), "entry 3 leaves node 1 out");
        assert!(
            members.given_up(Replica { node: 1, group: 0 }, last(2), last(2)).is_err(),
            "node 2 is a member ever since"
        );
        let voter = Replica { node: 0, group: 0 };
        assert!(members.vote(voter, 9, Vote::Promised(1), last(1)).is_err(), "it held more");
        assert!(members.remembers(voter, last(1), last(1)).is_err());
        assert!(
            members.remembers(voter, last(1), last(3)).is_ok() && members.remembers(voter, last(2), last(0)).is_ok()
        );
        assert!(members.vote(voter, 9, Vote::Given(1), last(2)).is_ok());
    }
}
