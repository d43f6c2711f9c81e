//! The host of one shard: what the tasks of a production executor do with sockets, disk and ticker, with virtual ones.
//!
//! Off the data path of a product; the counterpart of `engine/src/host/executor.rs`, whose steps it repeats.
//! Invariants: like there, disk completions are given to the shard at the start of a turn, bytes leave only at the end of
//! one, nothing leaves after a fatal error, and a tick that is late comes once.
//! It decides nothing that the production host does not decide; connections are in `sockets.rs`.

use ringraft_engine::shard::io::Fatal;

use crate::checkers::Violation;
use crate::disk::{Ending, OperationKind, Verdict};
use crate::events::Event;
use crate::network::Party;
use crate::node::{Host, Lost, SetTrap, State, Trap};
use crate::world::{Checked, World};

/// A slice of work ended: the next turn comes after the reactor was polled.
const NEXT_SLICE_US: u64 = 20;
/// A graceful stop waits so many ticks for the marks at the end of an idle log (as in the production host).
const MARK_TICKS: u32 = 10;

impl World {
    /// There is work for a shard's turn task.
    pub(crate) fn raise(&mut self, node: usize, shard: usize) {
        let place = &mut self.nodes[node];
        let (incarnation, paused) = (place.incarnation, place.state == State::Paused);
        let Some(host) = place.host(incarnation, shard) else { return };
        if host.turn_scheduled || paused {
            return;
        }
        host.turn_scheduled = true;
        let delay_us = 1 + self.streams.host.waiting_us(self.plan.turn_us);
        self.events.after(delay_us, Event::Turn { node, incarnation, shard });
    }

    /// Shows a shard the clock of its node.
    pub(crate) fn show_clock(&mut self, node: usize, shard: usize) {
        let now_us = self.now_us();
        let place = &mut self.nodes[node];
        if place.state != State::Running {
            return;
        }
        let (clock_us, incarnation) = (place.clock_us(now_us), place.incarnation);
        if let Some(host) = place.host(incarnation, shard) {
            host.shard.observe_time(clock_us);
        }
    }

    pub(crate) fn tick(&mut self, node: usize, incarnation: u32, shard: usize) -> Checked {
        let place = &mut self.nodes[node];
        let (paused, tick_us) = (place.state == State::Paused, place.tick_us);
        let Some(host) = place.host(incarnation, shard) else { return Ok(()) };
        if paused {
            host.tick_missed = true; // resuming ticks once
            return Ok(());
        }
        self.show_clock(node, shard);
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        let host = &mut process.hosts[shard];
        host.shard.tick();
        self.exchange(node, shard);
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return Ok(()) };
        self.checkers.tick(node, shard, &host.shard)?;
        self.events.after(tick_us, Event::Tick { node, incarnation, shard });
        self.hand_to_disk(node, shard);
        self.raise(node, shard);
        self.observe(node, shard)?;
        if self.nodes[node].is_tripped() {
            return self.spring(node);
        }
        self.end_if_drained(node)
    }

    pub(crate) fn turn(&mut self, node: usize, incarnation: u32, shard: usize) -> Checked {
        let paused = self.nodes[node].state == State::Paused;
        self.show_clock(node, shard);
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return Ok(()) };
        host.turn_scheduled = false;
        if paused {
            return Ok(());
        }
        while let Some(completion) = host.completions.pop_front() {
            host.shard.disk_done(completion);
        }
        host.shard.turn();
        let (fatal, again) = (host.shard.fatal().cloned(), host.shard.wants_turn());
        self.statistics.turns += 1;
        self.hand_to_disk(node, shard);
        self.observe(node, shard)?;
        if let Some(fatal) = fatal {
            return self.failed(node, shard, &fatal);
        }
        if self.nodes[node].trap.is_some_and(|set| set.trap == Trap::BeforeSend) {
            return self.spring(node);
        }
        self.send_all(node, shard)?;
        if self.nodes[node].is_tripped() {
            return self.spring(node);
        }
        if again && let Some(host) = self.nodes[node].host(incarnation, shard) {
            host.turn_scheduled = true;
            self.events.after(NEXT_SLICE_US, Event::Turn { node, incarnation, shard });
        }
        Ok(())
    }

    /// Lets the checkers look at a shard.
    pub(crate) fn observe(&mut self, node: usize, shard: usize) -> Checked {
        let seen = self.checkers.observe(node, shard, &self.nodes, self.events.now_us())?;
        self.statistics.elections += u64::from(seen.elected);
        if seen.elected {
            self.note(format_args!("n{} shard {shard} leads {}", node + 1, seen.text));
            self.nodes[node].trip(Trap::Elected);
        }
        if seen.changing {
            self.ambush(node);
        }
        if seen.voting {
            self.nodes[node].trip(Trap::Voted);
        }
        Ok(())
    }

    /// Sends what the turn queued: peers first, as in production.
    fn send_all(&mut self, node: usize, shard: usize) -> Checked {
        let incarnation = self.nodes[node].incarnation;
        loop {
            let Some(host) = self.nodes[node].host(incarnation, shard) else { return Ok(()) };
            let Some(peer) = host.shard.peers().next_dirty() else { break };
            self.send_to_peer(node, shard, peer.0 as usize - 1)?;
        }
        loop {
            let Some(host) = self.nodes[node].host(incarnation, shard) else { return Ok(()) };
            let Some(id) = host.shard.clients().next_dirty() else { break };
            if !self.operator_hears(node, id)? {
                self.send_to_client(node, shard, id);
            }
        }
        Ok(())
    }

    /// Hands the shard's disk operations to its disk.
    pub(crate) fn hand_to_disk(&mut self, node: usize, shard: usize) {
        let incarnation = self.nodes[node].incarnation;
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return };
        for operation in host.shard.disk().take() {
            let kind = OperationKind::of(&operation);
            let name = self.nodes[node].media[shard].begin(operation);
            let pace = self.plan.disk;
            let (mean_us, trap) = match kind {
                OperationKind::Write => (pace.write_us, Some(Trap::WriteSubmitted)),
                OperationKind::Read => (pace.read_us, None),
                OperationKind::Create => (pace.create_us, Some(Trap::SegmentStarted)),
                OperationKind::SnapshotWrite | OperationKind::SnapshotChange => {
                    (pace.write_us, Some(Trap::SnapshotSubmitted))
                }
                OperationKind::SnapshotRead => (pace.read_us, None),
            };
            let mean_us = mean_us * self.plan.disk_percent[node] / 100;
            let random = &mut self.streams.disk;
            let extra_us = random.below(self.nodes[node].trouble.slow_us + 1);
            let delay_us = mean_us / 4 + random.waiting_us(mean_us) + extra_us;
            self.statistics.disk_operations += 1;
            self.events.after(delay_us, Event::DiskDone { node, shard, operation: name });
            if let Some(trap) = trap {
                self.nodes[node].trip(trap);
            }
        }
    }

    /// A disk operation comes to its end, whether or not the process is still there.
    pub(crate) fn disk_done(&mut self, node: usize, shard: usize, operation: u64) -> Checked {
        let now_us = self.now_us();
        let place = &mut self.nodes[node];
        let Some(kind) = place.media[shard].kind(operation) else { return Ok(()) };
        if place.trouble.stalled_until_us > now_us {
            if place.trouble.stalled_until_us != u64::MAX {
                let extra_us = 1 + self.streams.disk.waiting_us(self.plan.disk.write_us);
                let at_us = self.nodes[node].trouble.stalled_until_us + extra_us;
                self.events.at(at_us, Event::DiskDone { node, shard, operation });
            }
            return Ok(());
        }
        let verdict = self.verdict(node, kind);
        let place = &mut self.nodes[node];
        let Some(completion) = place.media[shard].finish(operation, verdict, &mut self.streams.disk) else {
            return Ok(());
        };
        if verdict == Verdict::Failed {
            place.may_fail |= !kind.is_of_snapshot(); // such an error fails a snapshot, it is no reason to stop
            self.note(format_args!("n{} shard {shard}: a disk {kind:?} fails", node + 1));
        }
        match kind {
            OperationKind::Write => self.nodes[node].trip(Trap::WriteDone),
            OperationKind::Create => self.nodes[node].trip(Trap::SegmentDone),
            OperationKind::SnapshotWrite | OperationKind::SnapshotChange => self.nodes[node].trip(Trap::SnapshotDone),
            OperationKind::Read | OperationKind::SnapshotRead => {}
        }
        if self.nodes[node].is_tripped() {
            return self.spring(node);
        }
        let incarnation = self.nodes[node].incarnation;
        if let Some(host) = self.nodes[node].host(incarnation, shard) {
            host.completions.push_back(completion);
        }
        self.raise(node, shard);
        Ok(())
    }

    /// How an operation ends by the present trouble of the disk.
    fn verdict(&mut self, node: usize, kind: OperationKind) -> Verdict {
        let trouble = &mut self.nodes[node].trouble;
        let failing = match kind {
            OperationKind::Write => &mut trouble.failing_writes,
            OperationKind::Read | OperationKind::SnapshotRead => &mut trouble.failing_reads,
            OperationKind::Create | OperationKind::SnapshotWrite if trouble.full => return Verdict::NoSpace,
            OperationKind::Create => &mut trouble.failing_creates,
            OperationKind::SnapshotWrite | OperationKind::SnapshotChange => &mut trouble.failing_snapshot_writes,
        };
        if *failing == 0 {
            return Verdict::Sound;
        }
        if *failing != u32::MAX {
            *failing -= 1;
        }
        self.statistics.disk_errors += 1;
        Verdict::Failed
    }

    /// A shard says that the node must stop.
    fn failed(&mut self, node: usize, shard: usize, fatal: &Fatal) -> Checked {
        self.note(format_args!("n{} shard {shard} stops: {fatal}", node + 1));
        self.statistics.stops_with_error += 1;
        let place = &self.nodes[node];
        let damaged = place.lost == Some(Lost::Damaged);
        let excused = match fatal {
            Fatal::Wal(_) => place.may_fail || damaged,
            Fatal::Unreadable { .. } => damaged,
            Fatal::Conflict { .. } | Fatal::Diverged { .. } | Fatal::Topology(_) => false,
        };
        if !excused {
            let text =
                format!("node {} shard {shard} stopped although nothing was done to its disk: {fatal}", node + 1);
            return Err(Violation::new("no stop without a cause", text));
        }
        let (low, high) = self.plan.away_us;
        let down_us = self.streams.nemesis.magnitude(low, high);
        self.end_process(node, Ending::Killed, Some(down_us))
    }

    /// The crash that waited happens.
    pub(crate) fn spring(&mut self, node: usize) -> Checked {
        let Some(SetTrap { trap, ending, down_us, .. }) = self.nodes[node].trap.take() else { return Ok(()) };
        self.note(format_args!("n{} crashes at {trap:?}", node + 1));
        self.statistics.traps_sprung += 1;
        self.end_process(node, ending, Some(down_us))
    }

    /// A gracefully stopping process ends when every shard is drained.
    fn end_if_drained(&mut self, node: usize) -> Checked {
        let Some(process) = &mut self.nodes[node].process else { return Ok(()) };
        process.stopping_ticks += u32::from(process.stopping);
        let waited_for_marks = process.stopping_ticks > MARK_TICKS * process.hosts.len() as u32;
        let may_end = |host: &Host| host.shard.is_drained() && (host.shard.is_marked() || waited_for_marks);
        if !process.stopping || !process.hosts.iter().all(may_end) {
            return Ok(());
        }
        self.note(format_args!("n{} stopped gracefully", node + 1));
        self.nodes[node].removed = self.nodes[node].process.as_ref().is_some_and(|process| process.removed);
        self.end_process(node, Ending::Killed, None)
    }

    /// The process is gone: disks keep what they keep, connections end or fall silent. `down_us`: it is started again.
    pub(crate) fn end_process(&mut self, node: usize, ending: Ending, down_us: Option<u64>) -> Checked {
        self.count_reads(node);
        let place = &mut self.nodes[node];
        if let Some(process) = &place.process {
            let shards = process.hosts.iter().map(|host| &host.shard);
            self.checkers.process_ends(node, shards);
        }
        for medium in &mut place.media {
            medium.crash(ending, &mut self.streams.crash);
        }
        place.process = None;
        place.state = State::Down;
        place.deferred.clear();
        place.trap = None;
        place.may_fail = false;
        place.powered = ending != Ending::PowerLost;
        let now_us = self.now_us();
        if ending == Ending::PowerLost {
            self.nodes[node].booted_us = now_us;
        }
        let mine = self.network.links_of(|party| is_of_node(party, node));
        for (link, side) in mine {
            let due = match ending {
                Ending::PowerLost => self.network.fall_silent(link, side, now_us),
                Ending::Killed => self.network.leave(link, side, now_us),
            };
            self.due(due);
        }
        if let Some(down_us) = down_us {
            self.start_after(node, down_us);
        }
        Ok(())
    }

    /// Adds up what a process, which is about to go, counted itself.
    pub(crate) fn count_reads(&mut self, node: usize) {
        for host in self.nodes[node].process.iter().flat_map(|process| &process.hosts) {
            let counters = host.shard.status().counters;
            self.statistics.lease_reads += counters.lease_reads;
            self.statistics.follower_reads += counters.follower_reads;
            self.statistics.memberships_proposed += counters.memberships_proposed;
            self.statistics.replicas_created += counters.replicas_created;
            self.statistics.replicas_dropped += counters.replicas_dropped;
        }
    }

    /// Somebody starts the process after a while.
    pub(crate) fn start_after(&mut self, node: usize, down_us: u64) {
        self.nodes[node].starts += 1;
        let attempt = self.nodes[node].starts;
        self.events.after(down_us, Event::Start { node, attempt });
    }
}

fn is_of_node(party: Party, node: usize) -> bool {
    matches!(party, Party::Shard { node: of, .. } if of == node)
}
