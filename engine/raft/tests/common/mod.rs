//! A virtual cluster: several cores, each with a log that is flushed on command, and a network that is a list.
//!
//! Off the data path; tests only.
//!
//! ```text
//!   core --Ready--> Node { wal: [record, record | record ...] }   --> network: [envelope, ...] --> step
//!                                        flushed ^                     deliver, drop, duplicate, reorder
//! ```
//!
//! Relations: the host's contract of the crate is kept to the letter, as sloppily as it allows: a crash may keep any
//! prefix of the records that were not flushed; `Oracle` sees everything and checks what must hold between nodes.
//!
//! Deliberately absent: time; ticks are commands.

#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod doze;
pub mod oracle;
pub mod solo;

use oracle::Oracle;
use ringraft_raft::{
    AppendOutcome, ChangeError, Config, EntryId, EntryMeta, HardState, IncomingEntries, Index, InstallOutcome,
    LogTerms, Membership, Memberships, Message, NOOP_LENGTH, NodeId, ProposeError, RaftCore, ReadContext, ReadError,
    Ready, Role, Term,
};
use std::collections::BTreeMap;

/// An entry as the hosts hold it; the payload is what the cores never see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    pub id: EntryId,
    pub length: u32,
    pub payload: u64,
}

/// What is in a write-ahead log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    Entry(Entry),
    HardState(HardState),
    /// The entries up to here are in a snapshot of this node's own.
    Base(EntryId),
    /// A snapshot took the place of everything: the entries it stands for.
    Snapshot(Vec<Entry>),
}

/// A snapshot on its way: the entries it stands for.
#[derive(Clone, Debug)]
pub struct SnapshotOnItsWay {
    pub from: NodeId,
    pub to: NodeId,
    pub term: Term,
    pub entries: Vec<Entry>,
}

/// What a node finds on its disk.
pub struct Recovered {
    pub base: EntryId,
    pub entries: Vec<Entry>,
    pub hard_state: HardState,
}

/// One node: a core while it is up, and its disk.
pub struct Node {
    pub id: NodeId,
    pub config: Config,
    pub core: Option<RaftCore>,
    pub wal: Vec<Record>,
    pub flushed: usize,
    /// The log as the host sees it, durable or not, compacted or not; `entries[index - 1]`.
    pub entries: Vec<Entry>,
    /// Up to here the entries are only in a snapshot.
    pub base: EntryId,
    /// Messages with the number of records they wait for.
    pub waiting: Vec<(usize, NodeId, Message)>,
    /// Reads by context, with what was committed anywhere when they began.
    pub reads: BTreeMap<ReadContext, Index>,
    pub applied: Index,
    ready: Ready,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Envelope {
    pub from: NodeId,
    pub to: NodeId,
    pub message: Message,
    pub entries: Vec<Entry>,
}

/// The cluster.
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, Node>,
    pub membership: Membership,
    pub network: Vec<Envelope>,
    pub snapshots: Vec<SnapshotOnItsWay>,
    /// The configurations that entries bring, by payload.
    pub changes: BTreeMap<u64, Membership>,
    /// Links that lose everything: (from, to).
    pub cut: Vec<(NodeId, NodeId)>,
    pub oracle: Oracle,
    pub trace: Vec<String>,
    payloads: u64,
}

/// A small configuration: elections after 10 to 20 ticks, heartbeats every 2.
pub fn small_config(id: NodeId, seed: u64) -> Config {
    Config {
        election_ticks_min: 10,
        election_ticks_max: 20,
        heartbeat_ticks: 2,
        append_bytes_max: 1000,
        inflight_bytes_max: 4000,
        catch_up_bytes_per_tick: 300,
        uncommitted_bytes_max: 10_000,
        ..Config::new(id, seed)
    }
}

impl Node {
    pub fn core(&mut self) -> &mut RaftCore {
        self.core.as_mut().expect("the node is up")
    }

    fn append(&mut self, entry: Entry) {
        self.entries.truncate(entry.id.index as usize - 1);
        assert_eq!(self.entries.len() as u64 + 1, entry.id.index, "records are appended without gaps");
        self.entries.push(entry);
        self.wal.push(Record::Entry(entry));
    }

    /// Replays what is flushed.
    pub fn recovered(&self) -> Recovered {
        let mut found = Recovered { base: EntryId::ZERO, entries: Vec::new(), hard_state: HardState::default() };
        for record in &self.wal[..self.flushed] {
            match record {
                Record::Entry(entry) => {
                    found.entries.truncate(entry.id.index as usize - 1);
                    found.entries.push(*entry);
                }
                Record::HardState(state) => found.hard_state = *state,
                Record::Base(base) => found.base = found.base.max(*base),
                Record::Snapshot(entries) => {
                    found.entries.clone_from(entries);
                    found.base = entries.last().map_or(EntryId::ZERO, |entry| entry.id);
                }
            }
        }
        found
    }
}

impl Cluster {
    pub fn new(count: u64, seed: u64) -> Self {
        Self::with(&Membership::new((1..=count).map(NodeId).collect()), |id| small_config(id, seed))
    }

    pub fn with(membership: &Membership, config: impl Fn(NodeId) -> Config) -> Self {
        Self::with_spares(membership, 0, config)
    }

    /// A cluster beside which `spares` more nodes run that are no members yet.
    pub fn with_spares(membership: &Membership, spares: u64, config: impl Fn(NodeId) -> Config) -> Self {
        let mut cluster = Self {
            nodes: BTreeMap::new(),
            membership: membership.clone(),
            network: Vec::new(),
            snapshots: Vec::new(),
            changes: BTreeMap::new(),
            cut: Vec::new(),
            oracle: Oracle::default(),
            trace: Vec::new(),
            payloads: 0,
        };
        let members = membership.members();
        let last = members.last().map_or(0, |node| node.0);
        for id in members.into_iter().chain((last + 1..=last + spares).map(NodeId)) {
            let node = Node {
                id,
                config: config(id),
                core: None,
                wal: Vec::new(),
                flushed: 0,
                entries: Vec::new(),
                base: EntryId::ZERO,
                waiting: Vec::new(),
                reads: BTreeMap::new(),
                applied: 0,
                ready: Ready::new(),
            };
            cluster.nodes.insert(id, node);
            cluster.start(id);
        }
        cluster
    }

    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&NodeId(id)).expect("a node of the cluster")
    }

    pub fn core(&mut self, id: u64) -> &mut RaftCore {
        self.node(id).core()
    }

    pub fn is_up(&self, id: NodeId) -> bool {
        self.nodes[&id].core.is_some()
    }

    pub fn leader(&self) -> Option<NodeId> {
        let leads = |node: &&Node| node.core.as_ref().is_some_and(|core| core.role() == Role::Leader);
        let mut leaders: Vec<_> = self.nodes.values().filter(leads).collect();
        leaders.sort_by_key(|node| node.core.as_ref().map(RaftCore::term));
        leaders.last().map(|node| node.id)
    }

    fn note(&mut self, line: String) {
        self.trace.push(line);
    }

    /// Starts a node from what its disk holds.
    pub fn start(&mut self, id: NodeId) {
        let Recovered { base, entries, hard_state } = self.nodes[&id].recovered();
        let memberships = self.memberships_of(&entries, base.index);
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let mut log = LogTerms::after(base);
        for entry in &entries[base.index as usize..] {
            assert_eq!(log.push(EntryMeta { term: entry.id.term, length: entry.length }), entry.id);
        }
        let config = node.config.validate().expect("a valid configuration");
        let core = node.core.insert(RaftCore::new(config, memberships, hard_state, log));
        if hard_state.current_term > 0 {
            core.restarted();
        }
        node.entries = entries;
        node.base = base;
        node.applied = base.index;
        self.run(id);
    }

    /// The configurations of a log that begins at `base`.
    fn memberships_of(&self, entries: &[Entry], base: Index) -> Memberships {
        let changes = |entry: &Entry| Some((entry.id.index, self.changes.get(&entry.payload)?.clone()));
        let (before, behind): (Vec<_>, Vec<_>) =
            entries.iter().filter_map(changes).partition(|(index, _)| *index <= base);
        let at_base = before.last().map_or(&self.membership, |(_, membership)| membership);
        let mut memberships = Memberships::new(at_base.clone());
        behind.into_iter().for_each(|(index, membership)| memberships.push(index, membership));
        memberships
    }

    /// Every node, member or not.
    pub fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    /// Power is lost: of the records that were not flushed, `keep` survive.
    pub fn crash(&mut self, id: NodeId, keep: usize) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        node.core = None;
        node.flushed = (node.flushed + keep).min(node.wal.len());
        node.wal.truncate(node.flushed);
        node.waiting.clear();
        node.reads.clear();
    }

    /// Everything `ready` asks for, until it asks for nothing.
    pub fn run(&mut self, id: NodeId) {
        loop {
            let node = self.nodes.get_mut(&id).expect("a node of the cluster");
            let Some(core) = node.core.as_mut() else { return };
            let mut ready = std::mem::take(&mut node.ready);
            let more = core.ready(&mut ready);
            assert_eq!(more, !ready.is_empty());
            self.obey(id, &mut ready);
            self.node(id.0).ready = ready;
            if !more {
                return;
            }
        }
    }

    fn obey(&mut self, id: NodeId, ready: &mut Ready) {
        if let Some((role, leader, term)) = ready.role {
            let leader = leader.map_or_else(|| "nobody".into(), |leader| leader.to_string());
            self.note(format!("{id} is {role} in term {term}, led by {leader}"));
        }
        if let Some(noop) = ready.noop {
            let payload = self.next_payload();
            self.node(id.0).append(Entry { id: noop, length: NOOP_LENGTH, payload });
        }
        if ready.role.is_some_and(|(role, ..)| role == Role::Leader) {
            let node = &self.nodes[&id];
            self.oracle.leads(id, ready.role.map_or(0, |(.., term)| term), &node.entries);
        }
        if let Some(hard_state) = ready.hard_state {
            self.node(id.0).wal.push(Record::HardState(hard_state));
            let vote = hard_state.voted_for.map_or_else(|| "nobody".into(), |node| node.to_string());
            self.note(format!("{id} writes term={} vote={vote}", hard_state.current_term));
        }
        for (to, message) in ready.messages.drain(..) {
            self.send(id, to, message);
        }
        let records = self.node(id.0).wal.len();
        for (to, message) in ready.after_flush.drain(..) {
            if self.node(id.0).flushed < records {
                self.note(format!("{id} holds for {to}: {message}"));
            }
            self.node(id.0).waiting.push((records, to, message));
        }
        self.send_flushed(id);
        if let Some(index) = ready.commit_index {
            self.apply(id, index);
        }
        for read in &ready.reads {
            self.note(format!("{id} may read {}.{} at {}", read.context.term, read.context.sequence, read.index));
            let floor = self.node(id.0).reads.remove(&read.context).expect("only contexts that were given out");
            assert!(read.index >= floor, "a read of {id} misses what was committed before it: {read:?} < {floor}");
        }
        for to in ready.snapshots.drain(..) {
            self.send_snapshot(id, to);
        }
        if let Some(membership) = ready.membership_due.take() {
            let _ = self.change(id.0, membership);
        }
        if ready.reads_failed {
            self.node(id.0).reads.clear();
            self.note(format!("{id} fails its reads"));
        }
    }

    fn apply(&mut self, id: NodeId, index: Index) {
        self.note(format!("{id} commits {index}"));
        let durable: Vec<_> = self.nodes.values().map(|node| (node.id, node.recovered().entries)).collect();
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let membership = node.core().membership().clone();
        assert!(index > node.applied, "the commit index rises");
        let fresh = &node.entries[node.applied as usize..index as usize];
        self.oracle.commits(id, fresh, &durable, &membership);
        node.applied = index;
    }

    fn send_flushed(&mut self, id: NodeId) {
        let node = self.node(id.0);
        let flushed = node.flushed;
        let (now, later) = std::mem::take(&mut node.waiting).into_iter().partition(|(records, ..)| *records <= flushed);
        node.waiting = later;
        let now: Vec<(usize, NodeId, Message)> = now;
        for (_, to, message) in now {
            self.send(id, to, message);
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: Message) {
        self.note(format!("{from} -> {to}: {message}"));
        if self.cut.contains(&(from, to)) {
            return;
        }
        let mut entries = Vec::new();
        if let Message::AppendEntries { prev, count, .. } = message {
            let start = prev.index as usize;
            entries.extend(&self.nodes[&from].entries[start..start + count as usize]);
        }
        self.network.push(Envelope { from, to, message, entries });
    }

    /// Flushes the next `records` records and tells the core.
    pub fn flush(&mut self, id: NodeId, records: usize) {
        let node = self.nodes.get_mut(&id).expect("a node of the cluster");
        let Some(core) = node.core.as_mut() else { return };
        let end = (node.flushed.saturating_add(records)).min(node.wal.len());
        let batch = &node.wal[node.flushed..end];
        node.flushed = end;
        let hard_state = batch.iter().rev().find_map(|record| match record {
            Record::HardState(hard_state) => Some(*hard_state),
            _ => None,
        });
        let entry = batch.iter().rev().find_map(|record| match record {
            Record::Entry(entry) => Some(entry.id),
            _ => None,
        });
        if let Some(hard_state) = hard_state {
            core.hard_state_durable(hard_state);
        }
        if let Some(entry) = entry {
            core.durable(entry);
        }
        self.send_flushed(id);
        self.run(id);
    }

    /// Hands an envelope to its node.
    pub fn hand_over(&mut self, envelope: Envelope) {
        let Envelope { from, to, message, entries } = envelope;
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let Some(core) = node.core.as_mut() else { return };
        let Message::AppendEntries { term, prev, leader_commit, .. } = message else {
            doze::step(core, from, message);
            return self.run(to);
        };
        let metas: Vec<_> = entries.iter().map(|e| EntryMeta { term: e.id.term, length: e.length }).collect();
        let change = |entry: &Entry| Some((entry.id.index, self.changes.get(&entry.payload)?.clone()));
        let changes: Vec<_> = entries.iter().filter_map(change).collect();
        let incoming = IncomingEntries { term, prev, leader_commit, entries: &metas, changes: &changes };
        let outcome = core.step_append(from, &incoming);
        if let AppendOutcome::Accepted { skip, truncate_from } = outcome {
            if let Some(index) = truncate_from {
                assert!(index > node.applied, "what was applied is never truncated");
                let gone = node.entries.get(index as usize - 1..).unwrap_or_default();
                self.oracle.truncates(to, gone);
                self.trace.push(format!("{to} truncates from {index}"));
                node.entries.truncate(index as usize - 1);
            }
            for (offset, entry) in entries[..skip].iter().enumerate() {
                assert_eq!(node.entries[prev.index as usize + offset], *entry, "what is held is the same");
            }
            entries[skip..].iter().for_each(|entry| node.append(*entry));
        }
        self.run(to);
    }

    fn send_snapshot(&mut self, from: NodeId, to: NodeId) {
        let node = self.node(from.0);
        let (term, base) = (node.core().term(), node.base);
        let entries = node.entries[..base.index as usize].to_vec();
        self.note(format!("{from} -> {to}: snapshot up to {base}"));
        self.snapshots.push(SnapshotOnItsWay { from, to, term, entries });
    }

    /// The node takes a snapshot of what it has applied and compacts its log up to `index`.
    pub fn compact(&mut self, id: u64, index: Index) {
        let node = self.node(id);
        let index = index.min(node.applied);
        if node.core.is_none() || index <= node.base.index {
            return;
        }
        node.base = node.entries[index as usize - 1].id;
        node.wal.push(Record::Base(node.base));
        node.core().compact(index);
        self.note(format!("n{id} compacts up to {index}"));
        self.run(NodeId(id));
    }

    /// Hands the oldest snapshot on its way to its node, on whose disk it is durable before the core hears of it.
    pub fn deliver_snapshot(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let SnapshotOnItsWay { from, to, term, entries } = self.snapshots.remove(0);
        let reaches = self.is_up(to) && !self.cut.contains(&(from, to));
        if let Some(core) = self.node(from.0).core.as_mut() {
            if reaches {
                core.snapshot_sent(to, entries.len() as u64);
            } else {
                core.snapshot_failed(to);
            }
            self.run(from);
        }
        if !reaches {
            return;
        }
        let last = entries.last().map_or(EntryId::ZERO, |entry| entry.id);
        let membership = self.memberships_of(&entries, last.index).current().clone();
        let node = self.nodes.get_mut(&to).expect("a node of the cluster");
        if node.core().install_snapshot(from, term, last, membership) == InstallOutcome::Replaced {
            assert!(last.index > node.applied, "a snapshot never takes state back");
            node.entries.clone_from(&entries);
            node.base = last;
            node.applied = last.index;
            node.wal.push(Record::Snapshot(entries));
            self.note(format!("{to} begins anew at {last}"));
        }
        self.run(to);
    }

    /// Proposes a change of membership.
    pub fn change(&mut self, id: u64, membership: Membership) -> Result<EntryId, ChangeError> {
        let payload = self.next_payload();
        let entry = self.core(id).propose_membership(100, membership.clone())?;
        self.note(format!("n{id} proposes {membership:?} as {entry}"));
        self.changes.insert(payload, membership);
        self.node(id).append(Entry { id: entry, length: 100, payload });
        self.run(NodeId(id));
        Ok(entry)
    }

    /// Delivers the message at `position` of the network.
    pub fn deliver_at(&mut self, position: usize) {
        if position < self.network.len() {
            let envelope = self.network.remove(position);
            self.hand_over(envelope);
        }
    }

    /// Delivers what is on the way, and what comes of it, until the network is empty.
    pub fn deliver(&mut self) {
        while !self.network.is_empty() {
            self.deliver_at(0);
        }
    }

    /// Delivers and flushes until nothing is left to do.
    pub fn settle(&mut self) {
        loop {
            self.deliver();
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            for id in &ids {
                self.flush(*id, usize::MAX);
            }
            let idle = |node: &Node| node.core.is_none() || node.flushed == node.wal.len();
            let idle = self.network.is_empty() && self.nodes.values().all(idle);
            if idle && self.snapshots.is_empty() {
                return;
            }
            self.deliver_snapshot();
        }
    }

    pub fn tick(&mut self, id: NodeId) {
        if self.is_up(id) {
            doze::tick(self.core(id.0));
            self.run(id);
        }
    }

    pub fn tick_all(&mut self) {
        for id in self.ids() {
            self.tick(id);
        }
    }

    pub fn campaign(&mut self, id: u64) {
        self.core(id).campaign();
        self.run(NodeId(id));
    }

    /// Campaigns and settles; the node must win.
    pub fn elect(&mut self, id: u64) {
        self.campaign(id);
        self.settle();
        assert_eq!(self.core(id).role(), Role::Leader);
    }

    pub fn propose(&mut self, id: u64, length: u32) -> Result<EntryId, ProposeError> {
        let payload = self.next_payload();
        let node = self.node(id);
        let entry = node.core().propose(length)?;
        node.append(Entry { id: entry, length, payload });
        self.run(NodeId(id));
        Ok(entry)
    }

    /// Starts a read without a `ready` after it.
    pub fn read(&mut self, id: u64) -> Result<ReadContext, ReadError> {
        let floor = self.oracle.committed.len() as u64;
        let node = self.node(id);
        let context = node.core().read_index()?;
        let known = node.reads.entry(context).or_insert(floor);
        *known = floor.max(*known);
        Ok(context)
    }

    /// Takes the messages that match out of the network.
    pub fn take(&mut self, matches: impl Fn(&Envelope) -> bool) -> Vec<Envelope> {
        let (taken, kept) = std::mem::take(&mut self.network).into_iter().partition(matches);
        self.network = kept;
        taken
    }

    fn next_payload(&mut self) -> u64 {
        self.payloads += 1;
        self.payloads
    }
}
