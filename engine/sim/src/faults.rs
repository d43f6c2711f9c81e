//! What each fault does to the world, and how it ends.
//!
//! Off the data path.
//! Invariants: only a minority of the nodes is ever lost for good (damaged, wiped, dead or for ever stalled disks), so that
//! every acknowledged write still stands on a whole majority; after [`World::heal`] no fault begins or comes back, but the
//! lost stay lost.

use ringraft_engine::topology::NodeState;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::slots;
use ringraft_net::wire::AdminRequest;
use ringraft_raft::Role;

use crate::disk::Ending;
use crate::events::Event;
use crate::nemesis::{self, Action, Cut, Target, Undo};
use crate::network::{Party, Side};
use crate::node::{Lost, SetTrap, State};
use crate::plan::Fault;
use crate::world::{Checked, World};

/// What is planned for a leader that changes members happens within this.
const AMBUSH_US: u64 = 150_000;

impl World {
    /// The nemesis draws its next fault, if it is still allowed to.
    pub(crate) fn nemesis(&mut self) -> Checked {
        if self.weather.over || self.now_us() >= self.plan.faults_until_us {
            return Ok(());
        }
        let random = &mut self.streams.nemesis;
        let pause_us = 1 + random.waiting_us(self.plan.fault_pause_us);
        self.events.after(pause_us, Event::Nemesis);
        let Some(class) = random.weighted(&self.plan.faults) else { return Ok(()) };
        let fault = Fault::ALL[class];
        let action = nemesis::draw(fault, &self.plan, random);
        *self.statistics.faults.entry(fault).or_default() += 1;
        self.act(action)
    }

    /// A leader has just proposed other members: something may happen to it before that is done.
    pub(crate) fn ambush(&mut self, node: usize) {
        let per_million = self.plan.members.as_ref().map_or(0, |members| members.ambush_per_million);
        let random = &mut self.streams.nemesis;
        if self.weather.over || self.events.now_us() >= self.plan.faults_until_us || !random.chance(per_million) {
            return;
        }
        let action = nemesis::draw_inside_change(Target::Node(node), &self.plan, random);
        let delay_us = random.magnitude(100, AMBUSH_US);
        *self.statistics.faults.entry(Fault::InsideChange).or_default() += 1;
        self.events.after(delay_us, Event::Act(action));
    }

    /// The node an action is meant for.
    fn aim(&mut self, target: Target) -> usize {
        let leads = |world: &Self, node: usize, group: u32| {
            let process = world.nodes[node].process.as_ref();
            let hosts = process.into_iter().flat_map(|process| &process.hosts);
            hosts.flat_map(|host| host.shard.group_views()).any(|view| view.group == group && view.role == Role::Leader)
        };
        let any = self.streams.nemesis.below(self.plan.nodes as u64) as usize;
        let (group, leader) = match target {
            Target::Node(node) => return node,
            Target::Changing => return self.whom_a_change_needs().unwrap_or(any),
            Target::Leader(group) => (group, true),
            Target::Follower(group) => (group, false),
        };
        let order = (0..self.plan.nodes).map(|step| (any + step) % self.plan.nodes);
        let up: Vec<usize> = order.filter(|node| self.nodes[*node].process.is_some()).collect();
        up.into_iter().find(|node| leads(self, *node, group) == leader).unwrap_or(any)
    }

    /// The leader of a group whose configuration is joint or not committed; else a node that joins or leaves; else the
    /// leader of group 0.
    fn whom_a_change_needs(&mut self) -> Option<usize> {
        let mut changing = Vec::new();
        let mut control = None;
        for (place, node) in self.nodes.iter().enumerate() {
            let hosts = node.process.iter().flat_map(|process| &process.hosts);
            let views = hosts.flat_map(|host| host.shard.replicas().filter_map(|group| host.shard.membership(group)));
            for view in views.filter(|view| view.leads) {
                if view.members.is_joint() || !view.is_committed() {
                    changing.push(place);
                }
                control = if view.group == 0 { Some(place) } else { control };
            }
        }
        if let Some(newest) = self.newest_topology() {
            let moving = newest.nodes().iter().filter(|node| node.state != NodeState::Active);
            changing.extend(moving.map(|node| node.id.0 as usize - 1));
        }
        if changing.is_empty() { control } else { Some(*self.streams.nemesis.pick(&changing)) }
    }

    /// Does one action.
    pub(crate) fn act(&mut self, action: Action) -> Checked {
        self.note(format_args!("fault: {action:?}"));
        self.trace.event(self.events.now_us(), 8, 0, 0);
        match action {
            Action::Crash { target, ending, down_us } => {
                let node = self.aim(target);
                self.crash(node, ending, down_us)
            }
            Action::CrashAll { ending, down_us } => {
                for node in 0..self.plan.nodes {
                    let later_us = self.streams.nemesis.below(down_us + 1);
                    self.crash(node, ending, down_us + later_us)?;
                }
                Ok(())
            }
            Action::Trap { target, trap, ending, down_us } => {
                let node = self.aim(target);
                self.nodes[node].trap = Some(SetTrap { trap, ending, down_us, tripped: false });
                Ok(())
            }
            Action::Pause { target, for_us } => {
                let node = self.aim(target);
                self.pause(node, for_us);
                Ok(())
            }
            Action::Stop { target, down_us } => {
                let node = self.aim(target);
                self.stop_gracefully(node, down_us);
                Ok(())
            }
            Action::Rolling { ending, gap_us } => {
                for node in 0..self.plan.nodes {
                    let at_us = self.now_us() + gap_us * node as u64 * 2;
                    let crash = Action::Crash { target: Target::Node(node), ending, down_us: gap_us };
                    self.events.at(at_us, Event::Act(crash));
                }
                Ok(())
            }
            Action::Overload { for_us } => {
                self.weather.overload = true;
                self.undo_after(for_us, Undo::Overload);
                Ok(())
            }
            Action::RestartClient { client } => self.restart_client(client),
            Action::Transfer { group, to } => {
                self.ask_for_transfer(group, to);
                Ok(())
            }
            Action::Change(wish) => {
                self.operator.wish(wish);
                Ok(())
            }
            _ if is_of_network(action) => {
                self.act_on_network(action);
                Ok(())
            }
            _ => self.act_on_disk(action),
        }
    }

    /// An operator connects to the group's leader, asks it to hand over, and does not wait for the answer.
    fn ask_for_transfer(&mut self, group: u32, to: u64) {
        let node = self.aim(Target::Leader(group));
        let shard = slots::shard_of_group(group, self.plan.shards).into();
        let (mut bytes, mut received) = (Vec::new(), ReceiveBuffer::new());
        AdminRequest::Transfer { group, to }.append_frame(&mut bytes, 1);
        received.extend(&bytes);
        let place = &mut self.nodes[node];
        let incarnation = place.incarnation;
        if place.state != State::Running {
            return;
        }
        let Some(host) = place.host(incarnation, shard) else { return };
        let Some(operator) = host.shard.clients().open() else { return };
        host.shard.client_bytes(operator, &mut received).expect("a good frame is taken");
        host.shard.clients().close(operator);
        self.statistics.transfers += 1;
        self.raise(node, shard);
    }

    fn crash(&mut self, node: usize, ending: Ending, down_us: u64) -> Checked {
        if self.weather.over || self.nodes[node].state == State::Down {
            return Ok(());
        }
        self.statistics.crashes += 1;
        self.note(format_args!("n{} crashes: {ending:?}", node + 1));
        self.end_process(node, ending, Some(down_us))
    }

    fn undo_after(&mut self, for_us: u64, undo: Undo) {
        let epoch = self.weather.epoch;
        self.events.after(for_us, Event::Undo { undo, epoch });
    }

    fn act_on_network(&mut self, action: Action) {
        let now_us = self.now_us();
        match action {
            Action::Cut { cut, for_us } => {
                let number = self.cut(cut);
                self.undo_after(for_us, Undo::Cut(number));
            }
            Action::Flap { target, period_us, times } => {
                let node = self.aim(target);
                self.flap(node, period_us, times);
            }
            Action::Slow { target, slow_us, for_us } => {
                let node = self.aim(target);
                for other in 0..self.plan.nodes {
                    self.network.slow(node, other, slow_us, now_us + for_us);
                    self.network.slow(other, node, slow_us, now_us + for_us);
                }
            }
            Action::SlowEverything { slow_us, for_us } => {
                let hosts = self.plan.nodes + self.clients.len();
                for pair in 0..hosts * hosts {
                    self.network.slow(pair / hosts, pair % hosts, slow_us, now_us + for_us);
                }
            }
            Action::Sever { target } => {
                let node = self.aim(target);
                let mine = |party| matches!(party, Party::Shard { node: of, .. } if of == node);
                for (link, side) in self.network.links_of(mine) {
                    if side == Side::Dialer || self.streams.nemesis.chance(500_000) {
                        let due = self.network.sever(link, now_us);
                        self.due(due);
                    }
                }
            }
            Action::CorruptBytes { per_million, for_us } => {
                self.weather.corrupt_per_million = per_million;
                self.undo_after(for_us, Undo::CorruptBytes);
            }
            Action::Datagrams { hazard, for_us } => {
                self.weather.hazard = Some(hazard);
                self.undo_after(for_us, Undo::Datagrams);
            }
            _ => {}
        }
    }

    /// Blocks the ways of a cut and numbers it.
    fn cut(&mut self, cut: Cut) -> u64 {
        let nodes = self.plan.nodes;
        let pairs = |from: &dyn Fn(usize) -> bool, to: &dyn Fn(usize) -> bool| {
            let all = (0..nodes * nodes).map(|pair| (pair / nodes, pair % nodes));
            all.filter(|(one, other)| one != other && from(*one) && to(*other)).collect::<Vec<_>>()
        };
        let both = |inside: &dyn Fn(usize) -> bool| {
            let mut ways = pairs(inside, &|node| !inside(node));
            ways.extend(pairs(&|node| !inside(node), inside));
            ways
        };
        let ways = match cut {
            Cut::Halves(target) => {
                let (node, size) = (self.aim(target), (nodes - 1) / 2);
                both(&|other| (other + nodes - node) % nodes < size)
            }
            Cut::Isolate(target) => {
                let node = self.aim(target);
                let mut ways = both(&|other| other == node);
                for client in self.clients_hosts().filter(|client| client % 2 == 0) {
                    ways.extend([(client, node), (node, client)]);
                }
                ways
            }
            Cut::Ring => {
                let apart = |one: usize, other: usize| (one + nodes - other) % nodes;
                let all = (0..nodes * nodes).map(|pair| (pair / nodes, pair % nodes));
                all.filter(|(one, other)| nodes > 3 && (2..=nodes - 2).contains(&apart(*one, *other))).collect()
            }
            Cut::Bridge(target) => {
                let bridge = self.aim(target);
                let left = |node: usize| node != bridge && (node + nodes - bridge) % nodes <= nodes / 2;
                let right = |node: usize| node != bridge && !left(node);
                let mut ways = pairs(&left, &right);
                ways.extend(pairs(&right, &left));
                ways
            }
            Cut::Deaf(target) => {
                let node = self.aim(target);
                pairs(&|other| other != node, &|other| other == node)
            }
            Cut::Mute(target) => {
                let node = self.aim(target);
                pairs(&|other| other == node, &|other| other != node)
            }
            Cut::OneWay(from, to) => vec![(from, to)], // of a single node: itself, which nothing uses
            Cut::Clients(target) => {
                let node = self.aim(target);
                self.clients_hosts().flat_map(|client| [(client, node), (node, client)]).collect()
            }
        };
        for (from, to) in &ways {
            self.network.block(*from, *to, true);
        }
        let number = self.weather.next_cut;
        self.weather.next_cut += 1;
        self.weather.cuts.insert(number, ways);
        number
    }

    fn clients_hosts(&self) -> impl Iterator<Item = usize> + use<> {
        self.plan.nodes..self.plan.nodes + self.clients.len()
    }

    fn flap(&mut self, node: usize, period_us: u64, times: u32) {
        if times == 0 {
            return;
        }
        let number = self.cut(Cut::Isolate(Target::Node(node)));
        self.undo_after(period_us, Undo::Cut(number));
        self.undo_after(2 * period_us, Undo::Flap { node, period_us, times: times - 1 });
    }

    fn act_on_disk(&mut self, action: Action) -> Checked {
        let now_us = self.now_us();
        match action {
            Action::Stall { target, for_us } => {
                let node = self.aim(target);
                let trouble = &mut self.nodes[node].trouble;
                trouble.stalled_until_us = trouble.stalled_until_us.max(now_us + for_us);
            }
            Action::SlowDisk { target, slow_us, for_us } => {
                let node = self.aim(target);
                self.nodes[node].trouble.slow_us = slow_us;
                self.undo_after(for_us, Undo::SlowDisk(node));
            }
            Action::WriteErrors { target, count } => {
                let node = self.aim(target);
                let trouble = &mut self.nodes[node].trouble;
                trouble.failing_writes = trouble.failing_writes.max(count);
            }
            Action::ReadErrors { target, count } => {
                let node = self.aim(target);
                let trouble = &mut self.nodes[node].trouble;
                trouble.failing_reads = trouble.failing_reads.max(count);
            }
            Action::CreateErrors { target, count } => {
                let node = self.aim(target);
                let trouble = &mut self.nodes[node].trouble;
                trouble.failing_creates = trouble.failing_creates.max(count);
            }
            Action::SnapshotErrors { target, count } => {
                let node = self.aim(target);
                let trouble = &mut self.nodes[node].trouble;
                trouble.failing_snapshot_writes = trouble.failing_snapshot_writes.max(count);
            }
            Action::Full { target, for_us } => {
                let node = self.aim(target);
                self.nodes[node].trouble.full = true;
                self.undo_after(for_us, Undo::Full(node));
            }
            Action::FullEverywhere { for_us } => {
                for node in 0..self.plan.nodes {
                    self.nodes[node].trouble.full = true;
                    self.undo_after(for_us, Undo::Full(node));
                }
            }
            _ => return self.lose_for_good(action),
        }
        Ok(())
    }

    /// A fault that a node does not come back from; only as long as a majority is left.
    fn lose_for_good(&mut self, action: Action) -> Checked {
        let (target, lost) = match action {
            Action::StallForEver { target } => (target, Lost::Stalled),
            Action::DeadDisk { target } => (target, Lost::DeadDisk),
            Action::Damage { target, .. } => (target, Lost::Damaged),
            Action::Wipe { target } => (target, Lost::Wiped),
            _ => return Ok(()),
        };
        let node = self.aim(target);
        let others = (0..self.plan.nodes).filter(|other| *other != node && self.nodes[*other].lost.is_some()).count();
        let was = self.nodes[node].lost.clone();
        if others + 1 > (self.plan.nodes - 1) / 2 || was.as_ref().is_some_and(|was| *was != lost) {
            return Ok(());
        }
        let place = &mut self.nodes[node];
        match action {
            Action::StallForEver { .. } => place.trouble.stalled_until_us = u64::MAX,
            Action::DeadDisk { .. } => {
                place.trouble.failing_writes = u32::MAX;
                place.trouble.failing_reads = u32::MAX;
                place.trouble.failing_snapshot_writes = u32::MAX;
            }
            Action::Damage { damage, .. } => {
                let shard = self.streams.crash.below(u64::from(self.plan.shards)) as usize;
                let Some(where_) = place.media[shard].damage(damage, &mut self.streams.crash) else { return Ok(()) };
                self.statistics.damages += 1;
                self.note(format_args!("n{} shard {shard}: {where_}", node + 1));
            }
            _ => {
                place.lost = Some(lost);
                place.media.iter_mut().for_each(crate::disk::Medium::wipe);
                self.checkers.wiped(node);
                self.end_process(node, Ending::PowerLost, Some(100_000))?;
                return Ok(());
            }
        }
        self.nodes[node].lost = Some(lost);
        Ok(())
    }

    /// A fault ends, unless everything was healed meanwhile.
    pub(crate) fn undo(&mut self, undo: Undo, epoch: u32) -> Checked {
        if epoch != self.weather.epoch {
            return Ok(());
        }
        match undo {
            Undo::Cut(number) => {
                for (from, to) in self.weather.cuts.remove(&number).unwrap_or_default() {
                    self.network.block(from, to, false);
                }
            }
            Undo::CorruptBytes => self.weather.corrupt_per_million = 0,
            Undo::Datagrams => self.weather.hazard = None,
            Undo::SlowDisk(node) => self.nodes[node].trouble.slow_us = 0,
            Undo::Full(node) => self.nodes[node].trouble.full = false,
            Undo::Overload => self.weather.overload = false,
            Undo::Flap { node, period_us, times } => self.flap(node, period_us, times),
        }
        Ok(())
    }

    /// No more faults: what can recover recovers; what is lost stays lost.
    pub(crate) fn heal(&mut self) -> Checked {
        self.note(format_args!("all faults end"));
        self.weather.epoch += 1;
        self.weather.over = true;
        self.weather.corrupt_per_million = 0;
        self.weather.hazard = None;
        self.weather.overload = false;
        self.weather.cuts.clear();
        self.network.heal();
        let now_us = self.now_us();
        for node in 0..self.plan.nodes {
            let place = &mut self.nodes[node];
            place.trap = None;
            place.trouble.full = false;
            place.trouble.slow_us = 0;
            place.trouble.failing_creates = 0;
            place.trouble.failing_snapshot_writes = 0;
            if place.trouble.stalled_until_us != u64::MAX {
                place.trouble.stalled_until_us = place.trouble.stalled_until_us.min(now_us);
            }
            if place.lost != Some(Lost::DeadDisk) {
                place.trouble.failing_writes = 0;
                place.trouble.failing_reads = 0;
            }
            let incarnation = place.incarnation;
            match place.state {
                State::Down if place.may_start() => self.start_after(node, 100_000),
                State::Down => {}
                State::Paused => self.resume(node, incarnation)?,
                State::Opening | State::Running => {}
            }
        }
        Ok(())
    }
}

fn is_of_network(action: Action) -> bool {
    matches!(
        action,
        Action::Cut { .. }
            | Action::Flap { .. }
            | Action::Slow { .. }
            | Action::SlowEverything { .. }
            | Action::Sever { .. }
            | Action::CorruptBytes { .. }
            | Action::Datagrams { .. }
    )
}
