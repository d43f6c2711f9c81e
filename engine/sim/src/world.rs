//! The world: everything there is in one run, and what happens when an event comes.
//!
//! Off the data path.
//!
//! ```text
//!   Events --next--> World::happen --> processes (host.rs), clients (client.rs), disks, network, faults (faults.rs)
//!      ^                  |
//!      +--- scheduled ----+----> Checkers after every turn
//! ```
//!
//! Invariants: one thread, one queue, no clock, no randomness but the seeded streams; each part draws from its own.
//! The phases of a run are in `run.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringraft_net::handshake::Identity;

use crate::checkers::{Checkers, Violation};
use crate::client::SimClient;
use crate::disk::Medium;
use crate::events::{Event, Events};
use crate::history::History;
use crate::nemesis::Hazard;
use crate::network::{Arrival, Due, LinkId, Network, Part, Party, Side};
use crate::node::{Deferred, Node, State};
use crate::operator::Operator;
use crate::plan::Plan;
use crate::random::Random;
use crate::statistics::Statistics;
use crate::trace::{Trace, TraceMode};

/// What went wrong, or nothing.
pub(crate) type Checked = Result<(), Violation>;

/// The streams of randomness besides those of clients and network.
pub(crate) struct Streams {
    pub(crate) disk: Random,
    pub(crate) host: Random,
    pub(crate) nemesis: Random,
    pub(crate) crash: Random,
}

/// Faults that are on at the moment and have no place of their own.
#[derive(Default)]
pub(crate) struct Weather {
    /// Bits flipped in so many of a million parts.
    pub(crate) corrupt_per_million: u32,
    pub(crate) hazard: Option<Hazard>,
    pub(crate) overload: bool,
    /// Blocked ways of each cut, by its number.
    pub(crate) cuts: BTreeMap<u64, Vec<(usize, usize)>>,
    pub(crate) next_cut: u64,
    /// Faults of an earlier epoch are over.
    pub(crate) epoch: u32,
    /// No more faults, crashed nodes come back at once.
    pub(crate) over: bool,
}

/// One run.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) events: Events,
    pub(crate) trace: Trace,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<Node>,
    pub(crate) clients: Vec<SimClient>,
    pub(crate) history: History,
    /// Stale reads that bound how old their answer may be, in milliseconds, by their place in the history.
    pub(crate) bounded: Vec<(usize, u32)>,
    pub(crate) checkers: Checkers,
    pub(crate) operator: Operator,
    pub(crate) streams: Streams,
    pub(crate) weather: Weather,
    pub(crate) statistics: Statistics,
    /// Clients ask for something new.
    pub(crate) asking: bool,
}

impl World {
    /// A world in which nothing has happened yet.
    pub(crate) fn new(plan: Plan, mode: TraceMode) -> Self {
        let seed = plan.seed;
        let topology = Arc::new(plan.initial_topology());
        let nodes = (0..plan.nodes).map(|node| {
            let media = (0..usize::from(plan.shards)).map(|shard| Medium::new(plan.wal_of(node, shard)));
            let ticks = (plan.node_tick_us[node], plan.tick_us);
            Node::new(media.collect(), ticks, node < plan.founders, Arc::clone(&topology))
        });
        // One client more than asks: it looks at everything when the rest is over.
        let clients: Vec<_> = (0..=plan.load.clients).map(|client| SimClient::new(&plan, client)).collect();
        let hosts = plan.nodes + clients.len();
        Self {
            events: Events::default(),
            trace: Trace::new(mode),
            network: Network::new(hosts, plan.latency, Random::stream(seed, "network")),
            nodes: nodes.collect(),
            clients,
            history: History::default(),
            bounded: Vec::new(),
            checkers: Checkers::new(&plan, &topology),
            operator: Operator::new(&plan),
            streams: Streams {
                disk: Random::stream(seed, "disk"),
                host: Random::stream(seed, "host"),
                nemesis: Random::stream(seed, "nemesis"),
                crash: Random::stream(seed, "crash"),
            },
            weather: Weather::default(),
            statistics: Statistics::default(),
            asking: true,
            plan,
        }
    }

    pub(crate) fn now_us(&self) -> u64 {
        self.events.now_us()
    }

    /// A line of the trace.
    pub(crate) fn note(&mut self, text: std::fmt::Arguments<'_>) {
        self.trace.line(self.events.now_us(), text);
    }

    /// Lets events happen until a moment, that moment excluded.
    pub(crate) fn run_until(&mut self, until_us: u64) -> Checked {
        while let Some(event) = self.events.next_before(until_us) {
            self.happen(event)?;
        }
        self.events.advance_to(until_us);
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Checked {
        let now_us = self.events.now_us();
        match event {
            Event::Tick { node, incarnation, shard } => {
                self.trace.event(now_us, 1, node as u64, shard as u64);
                self.tick(node, incarnation, shard)
            }
            Event::Turn { node, incarnation, shard } => {
                self.trace.event(now_us, 2, node as u64, shard as u64);
                self.turn(node, incarnation, shard)
            }
            Event::DiskDone { node, shard, operation } => {
                self.trace.event(now_us, 3, (node << 8 | shard) as u64, operation);
                self.disk_done(node, shard, operation)
            }
            Event::Opened { node, incarnation } => self.opened(node, incarnation),
            Event::Start { node, attempt } => self.start(node, attempt),
            Event::Resume { node, incarnation } => self.resume(node, incarnation),
            Event::StopPatience { node, incarnation } => self.stop_patience(node, incarnation),
            Event::Arrive { link, side } => {
                self.trace.event(now_us, 4, link.0, side as u64);
                self.arrive(link, side)
            }
            Event::Frame { to, shard, datagram } => {
                self.trace.event(now_us, 5, to as u64, datagram);
                self.frame_arrived(to, shard, datagram)
            }
            Event::Dial { .. } | Event::DialPatience { .. } | Event::CloseClient { .. } => self.host_timer(event),
            Event::ClientTick { client, generation } => {
                self.trace.event(now_us, 6, client as u64, u64::from(generation));
                self.client_tick(client, generation)
            }
            Event::ClientAsk { client, generation } => self.client_ask(client, generation),
            Event::Nemesis => self.nemesis(),
            Event::Operator => {
                self.trace.event(now_us, 9, 0, 0);
                self.operator()
            }
            Event::Act(action) => self.act(action),
            Event::Undo { undo, epoch } => self.undo(undo, epoch),
            Event::Check => {
                self.events.after(CHECK_US, Event::Check);
                self.checkers.compare(&self.nodes)
            }
        }
    }

    /// Schedules what a call to the network said is due.
    pub(crate) fn due(&mut self, due: impl IntoIterator<Item = Due>) {
        for (link, side, at_us) in due {
            self.events.at(at_us, Event::Arrive { link, side });
        }
    }

    fn arrive(&mut self, link: LinkId, side: Side) -> Checked {
        let now_us = self.now_us();
        let unreachable = self.is_unpowered(link, side);
        match self.network.arrive(link, side, unreachable, now_us) {
            Arrival::Part(part) => {
                let next = self.network.next_due(link, side);
                self.due(next);
                let part = self.corrupted(part);
                self.deliver(link, side, part)
            }
            Arrival::Later(at_us) => {
                self.events.at(at_us, Event::Arrive { link, side });
                Ok(())
            }
            Arrival::GivenUp => {
                let sender_is_there = self.network.link(link).is_some_and(|found| !found.has_left(side.other()));
                if sender_is_there {
                    let due = self.network.give_up(link, side, now_us);
                    self.due(due);
                    self.deliver(link, side.other(), Part::End)
                } else {
                    self.deliver(link, side, Part::End)
                }
            }
            Arrival::Nothing => {
                let next = self.network.next_due(link, side);
                self.due(next);
                Ok(())
            }
        }
    }

    fn is_unpowered(&self, link: LinkId, side: Side) -> bool {
        match self.network.link(link).map(|link| link.party(side)) {
            Some(Party::Shard { node, .. }) => !self.nodes[node].powered,
            _ => false,
        }
    }

    /// Bytes of a part, perhaps with a bit flipped on the way.
    fn corrupted(&mut self, part: Part) -> Part {
        let per_million = self.weather.corrupt_per_million;
        match part {
            Part::Bytes(mut bytes) if per_million > 0 && self.streams.host.chance(per_million) => {
                let bit = self.streams.host.below(bytes.len() as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.statistics.corrupted_parts += 1;
                Part::Bytes(bytes)
            }
            part => part,
        }
    }

    /// A part of a stream reached its receiver.
    pub(crate) fn deliver(&mut self, link: LinkId, side: Side, part: Part) -> Checked {
        let Some(found) = self.network.link(link) else { return Ok(()) };
        match found.party(side) {
            Party::Client { client, generation } => self.client_part(client, generation, link, part),
            Party::Shard { node, .. } if self.nodes[node].state == State::Paused => {
                self.nodes[node].deferred.push(Deferred::Part(link, side, part));
                Ok(())
            }
            Party::Shard { node, incarnation, shard } => match side {
                Side::Acceptor => self.accepted_part(node, shard, link, part),
                Side::Dialer => self.dialed_part(node, incarnation, shard, link, part),
            },
        }
    }

    /// The address clients and peers know a shard by.
    pub(crate) fn address(node: usize, shard: usize) -> String {
        format!("10.0.0.{}:{}", node + 1, 7_000 + shard)
    }

    /// Who a shard says it is in a handshake, with the members as it knows them.
    pub(crate) fn identity(&self, node: usize, shard: usize) -> Identity {
        let process = self.nodes[node].process.as_ref();
        let machine = process.map(|process| &process.hosts[shard].shard);
        let topology = machine.map_or(&self.nodes[node].kept, |machine| machine.topology());
        Identity {
            cluster: self.plan.cluster(),
            node: node as u64 + 1,
            shard: shard as u16,
            config_digest: self.plan.seed,
            members: machine.map(|machine| machine.admitted()).unwrap_or_default(),
            removed: topology.removed().to_vec(),
        }
    }
}

/// Time between two comparisons of all replicas.
const CHECK_US: u64 = 1_000_000;
