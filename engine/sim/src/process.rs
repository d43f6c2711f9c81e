//! The life of a node's process: start, recovery, pause, graceful stop.
//!
//! Off the data path of a product; the counterpart of `engine/src/host/start.rs`.
//! Invariants: a process serves nothing before the production recovery has accepted its disks; a node that refuses its own
//! disk stays down, and that is a violation unless the disk was damaged; what recovery gives back is compared with what
//! the node had reported durable.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ringraft_engine::shard::board::NodeBoard;
use ringraft_engine::shard::{Shard, ShardSettings};
use ringraft_engine::snapshot::{FileLoader, load_newest};
use ringraft_raft::NodeId;

use crate::checkers::Violation;
use crate::disk::{Ending, OpenError, SimDisk};
use crate::events::Event;
use crate::network::{LinkId, Part, Side};
use crate::node::{Deferred, Host, Lost, Process, State, Trap};
use crate::world::{Checked, World};

/// Segments a disk has room for while it is not full.
const SPACE_SEGMENTS: u32 = 1 << 16;
/// How long a graceful stop may take (as in the production host).
const STOP_PATIENCE_US: u64 = 3_000_000;
/// After so long a start that met a full disk is tried again.
const FULL_RETRY_US: u64 = 1_000_000;
/// The keeper of the topology looks so often whether there is a newer one to write (as in the production host).
const KEEPER_US: u64 = 200_000;
/// A brand-new group's preferred leader waits this long (as in the production host).
const FIRST_ELECTION_TICKS: u32 = 8;

impl World {
    /// Somebody starts the process of a node that is down.
    pub(crate) fn start(&mut self, node: usize, attempt: u32) -> Checked {
        let place = &mut self.nodes[node];
        if place.state != State::Down || place.starts != attempt || place.refused.is_some() || !place.may_start() {
            return Ok(());
        }
        if place.lost == Some(Lost::Wiped) {
            // `identity.rs`: a folder that holds no node is not used without --init, which nobody gives twice.
            place.refused = Some(String::from("its folder holds no node"));
            self.statistics.refused_starts += 1;
            self.note(format_args!("n{} refuses to start over an empty folder", node + 1));
            return Ok(());
        }
        place.state = State::Opening;
        place.incarnation += 1;
        place.powered = true;
        place.may_fail = false;
        let incarnation = place.incarnation;
        let delay_us = self.streams.host.magnitude(2_000, self.plan.open_us);
        let wanted_us = self.now_us() + delay_us;
        let stalled_until_us = self.nodes[node].trouble.stalled_until_us;
        if stalled_until_us == u64::MAX {
            return Ok(()); // it reads for ever
        }
        self.events.at(wanted_us.max(stalled_until_us), Event::Opened { node, incarnation });
        Ok(())
    }

    /// The process has read its folder.
    pub(crate) fn opened(&mut self, node: usize, incarnation: u32) -> Checked {
        let place = &mut self.nodes[node];
        if place.incarnation != incarnation || place.state != State::Opening {
            return Ok(());
        }
        if place.trouble.stalled_until_us == u64::MAX {
            return Ok(());
        }
        place.trip(Trap::Opening);
        if place.is_tripped() {
            let steps = self.streams.crash.below(4) as u32;
            for medium in &mut self.nodes[node].media {
                let _: Result<(), OpenError> = medium.open(SPACE_SEGMENTS, Some(steps));
            }
            return self.spring(node);
        }
        if place.trouble.failing_reads > 0 {
            if place.trouble.failing_reads != u32::MAX {
                place.trouble.failing_reads -= 1;
            }
            return self.cannot_start(node, "a read failed", Some(FULL_RETRY_US));
        }
        let shards = usize::from(self.plan.shards);
        let mut hosts = Vec::new();
        for shard in 0..shards {
            match self.open_shard(node, shard)? {
                Ok(host) => hosts.push(host),
                Err(OpenError::NoSpace) => return self.cannot_start(node, "no space", Some(FULL_RETRY_US)),
                Err(OpenError::Refused(error)) => return self.refused(node, shard, &error.to_string()),
                Err(OpenError::NoBeginning(error)) => return self.refused(node, shard, &error.to_string()),
            }
        }
        self.checkers.process_starts(node, hosts.iter().map(|host| &host.shard))?;
        let board = NodeBoard::new(Arc::clone(&self.nodes[node].kept));
        self.nodes[node].process = Some(Process { hosts, board, stopping: false, stopping_ticks: 0, removed: false });
        self.nodes[node].state = State::Running;
        self.statistics.starts += 1;
        self.note(format_args!("n{} runs (incarnation {incarnation})", node + 1));
        self.begin_tasks(node)
    }

    fn open_shard(&mut self, node: usize, shard: usize) -> Result<Result<Host, OpenError>, Violation> {
        let (settings, consensus) = (self.settings(node, shard), self.plan.consensus);
        let mut consensus = consensus;
        consensus.tick_us = self.plan.tick_us;
        consensus.seed = self.plan.seed ^ (node as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let place = &mut self.nodes[node];
        let space = if place.trouble.full { place.media[shard].file_count() } else { SPACE_SEGMENTS };
        let medium = &mut place.media[shard];
        let opened = medium.open(space, None).and_then(|()| medium.recover().map_err(OpenError::Refused));
        let recovered = match opened {
            Ok(recovered) => recovered,
            Err(error) => return Ok(Err(error)),
        };
        let (config, limits) = (medium.config().clone(), self.plan.limits);
        let read =
            |name, loader: &mut FileLoader| loader.push(medium.snapshot(name)).map_err(|error| error.to_string());
        let loaded = match load_newest(&recovered, settings.snapshots.identity, limits, read, |_, _| {}) {
            Ok(loaded) => loaded,
            Err(error) => return Ok(Err(OpenError::NoBeginning(error))),
        };
        let restored = Shard::restore(settings, &consensus, limits, config, (recovered, loaded), SimDisk::default());
        let machine = restored.map_err(|error| {
            Violation::new("the plan", format!("the consensus settings are out of bounds: {error}"))
        })?;
        Ok(Ok(Host {
            shard: machine,
            turn_scheduled: false,
            tick_missed: false,
            completions: VecDeque::new(),
            senders: Vec::new(),
            followed: None,
            incoming: BTreeMap::new(),
            clients: BTreeMap::new(),
        }))
    }

    fn settings(&self, node: usize, shard: usize) -> ShardSettings {
        let plan = &self.plan;
        let place = &self.nodes[node];
        let initial = if place.founder { plan.initial_topology().memberships() } else { Vec::new() };
        ShardSettings {
            node: NodeId(node as u64 + 1),
            shard: shard as u16,
            shards: plan.shards,
            groups: plan.groups,
            initial,
            topology: Arc::clone(&place.kept),
            shared: Arc::default(),
            limits: plan.limits.client(),
            waiting_max: plan.waiting_max,
            connections_max: plan.connections_max,
            reply_bytes_max: plan.reply_bytes_max,
            peer_queue_bytes_max: plan.peer_queue_bytes_max,
            disk_stall_ticks: plan.disk_stall_ticks(),
            digest_ticks: plan.ticks(1_000_000),
            report_ticks: plan.ticks(plan.report_us),
            leader_priority: plan.leader_priority(node),
            snapshots: plan.snapshots,
            watches: ringraft_engine::shard::WatchSettings::default(),
            incarnation: u64::from(place.incarnation),
            first_election_ticks: FIRST_ELECTION_TICKS,
        }
    }

    fn begin_tasks(&mut self, node: usize) -> Checked {
        let (incarnation, tick_us) = (self.nodes[node].incarnation, self.nodes[node].tick_us);
        for shard in 0..usize::from(self.plan.shards) {
            let first_us = 1 + self.streams.host.below(tick_us);
            self.events.after(first_us, Event::Tick { node, incarnation, shard });
            self.exchange(node, shard);
            self.hand_to_disk(node, shard);
            self.raise(node, shard);
            self.observe(node, shard)?;
        }
        Ok(())
    }

    /// A shard meets the others of its node; then its links follow the topology, and so does the file of it.
    pub(crate) fn exchange(&mut self, node: usize, shard: usize) {
        let now_us = self.now_us();
        let place = &mut self.nodes[node];
        let Some(process) = &mut place.process else { return };
        let host = &mut process.hosts[shard];
        host.shard.exchange(&mut process.board);
        let is_removed = host.shard.is_removed() && !process.removed;
        if now_us >= place.kept_us + KEEPER_US {
            (place.kept, place.kept_us) = (Arc::clone(process.board.topology()), now_us);
        }
        let epoch = process.board.topology().epoch();
        self.statistics.topologies = self.statistics.topologies.max(epoch);
        self.follow_peers(node, shard);
        if is_removed {
            self.leave_cluster(node);
        }
    }

    /// The node was removed: its process stops gracefully, for good.
    fn leave_cluster(&mut self, node: usize) {
        self.note(format_args!("n{} was removed from the cluster", node + 1));
        let incarnation = self.nodes[node].incarnation;
        let Some(process) = &mut self.nodes[node].process else { return };
        (process.removed, process.stopping) = (true, true);
        process.hosts.iter_mut().for_each(|host| host.shard.begin_stop());
        self.events.after(STOP_PATIENCE_US, Event::StopPatience { node, incarnation });
    }

    /// A start that failed for a reason that may pass.
    fn cannot_start(&mut self, node: usize, reason: &str, again_us: Option<u64>) -> Checked {
        self.note(format_args!("n{} cannot start: {reason}", node + 1));
        self.statistics.failed_starts += 1;
        self.end_process(node, Ending::Killed, again_us)
    }

    /// Recovery does not accept the disk.
    fn refused(&mut self, node: usize, shard: usize, reason: &str) -> Checked {
        self.note(format_args!("n{} shard {shard} refuses its disk: {reason}", node + 1));
        self.statistics.refused_starts += 1;
        if self.nodes[node].lost != Some(Lost::Damaged) {
            let text = format!("node {} shard {shard} refuses a disk nobody damaged: {reason}", node + 1);
            return Err(Violation::new("recovery accepts what a crash leaves", text));
        }
        self.nodes[node].refused = Some(reason.to_owned());
        self.end_process(node, Ending::Killed, None)
    }

    /// The process stands still: no ticks, no turns; what comes for it waits.
    pub(crate) fn pause(&mut self, node: usize, for_us: u64) {
        let place = &mut self.nodes[node];
        if place.state != State::Running {
            return;
        }
        place.state = State::Paused;
        let incarnation = place.incarnation;
        self.events.after(for_us, Event::Resume { node, incarnation });
    }

    /// The process goes on: everything that waited is there at once, the ticker ticks once for the whole pause if
    /// it was to tick in it.
    pub(crate) fn resume(&mut self, node: usize, incarnation: u32) -> Checked {
        let place = &mut self.nodes[node];
        if place.incarnation != incarnation || place.state != State::Paused {
            return Ok(());
        }
        place.state = State::Running;
        let deferred = std::mem::take(&mut place.deferred);
        self.note(format_args!("n{} goes on; {} things waited", node + 1, deferred.len()));
        let ticks_first = self.streams.host.chance(500_000);
        let shards = usize::from(self.plan.shards);
        for shard in 0..shards {
            let delay_us = if ticks_first { 0 } else { self.streams.host.below(2_000) };
            let host = self.nodes[node].host(incarnation, shard);
            if host.is_some_and(|host| std::mem::take(&mut host.tick_missed)) {
                self.events.after(delay_us, Event::Tick { node, incarnation, shard });
            }
        }
        for shard in 0..shards {
            if let Some(host) = self.nodes[node].host(incarnation, shard) {
                host.turn_scheduled = false;
            }
            self.raise(node, shard);
        }
        self.read_what_waited(node, incarnation, deferred)
    }

    /// Readers wake in any order, connection by connection, and turns run in between.
    fn read_what_waited(&mut self, node: usize, incarnation: u32, deferred: Vec<Deferred>) -> Checked {
        let mut by_link: BTreeMap<LinkId, Vec<(Side, Part)>> = BTreeMap::new();
        for waited in deferred {
            match waited {
                Deferred::Part(link, side, part) => by_link.entry(link).or_default().push((side, part)),
                Deferred::Event(event) => self.events.after(0, event),
            }
        }
        let mut links: Vec<_> = by_link.into_iter().collect();
        self.streams.host.shuffle(&mut links);
        for (link, parts) in links {
            for (side, part) in parts {
                self.deliver(link, side, part)?;
            }
            let shard = self.streams.host.below(u64::from(self.plan.shards)) as usize;
            if self.streams.host.chance(300_000) {
                self.turn(node, incarnation, shard)?;
            }
        }
        Ok(())
    }

    /// SIGTERM: new requests are refused, the process ends when what it has is done.
    pub(crate) fn stop_gracefully(&mut self, node: usize, down_us: u64) {
        let incarnation = self.nodes[node].incarnation;
        let Some(process) = &mut self.nodes[node].process else { return };
        process.stopping = true;
        for host in &mut process.hosts {
            host.shard.begin_stop();
        }
        self.events.after(STOP_PATIENCE_US, Event::StopPatience { node, incarnation });
        self.start_after(node, STOP_PATIENCE_US + down_us);
    }

    /// A graceful stop took too long.
    pub(crate) fn stop_patience(&mut self, node: usize, incarnation: u32) -> Checked {
        let place = &self.nodes[node];
        if place.incarnation != incarnation || !place.process.as_ref().is_some_and(|process| process.stopping) {
            return Ok(());
        }
        self.note(format_args!("n{} stops without waiting longer", node + 1));
        self.nodes[node].removed = self.nodes[node].process.as_ref().is_some_and(|process| process.removed);
        self.end_process(node, Ending::Killed, None)
    }
}
