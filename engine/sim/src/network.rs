//! The virtual network: byte streams between clients and shards, and what can go wrong between two hosts.
//!
//! Off the data path.
//! A link is a connection as TCP makes them: bytes of one direction arrive in order, what was sent may be lost only as a
//! suffix, and then the connection is gone. Between two hosts the way can be blocked in either direction (bytes wait and
//! are sent again), slow, or corrupting.
//!
//! Invariants: the moments at which the parts of one stream arrive never decrease; a link that both sides have left is
//! forgotten. It schedules nothing itself: every call returns when the front of a stream is due, if that is new.
//! It does not know frames.

use std::collections::{BTreeMap, VecDeque};

use crate::random::Random;

/// Names a connection; never used twice in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(pub(crate) u64);

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Dialer,
    Acceptor,
}

impl Side {
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Dialer => Self::Acceptor,
            Self::Acceptor => Self::Dialer,
        }
    }
}

/// Who stands at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Client { client: usize, generation: u32 },
    Shard { node: usize, incarnation: u32, shard: usize },
}

/// What comes out of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The dialer wants a connection.
    Open,
    /// The acceptor takes it.
    Opened,
    /// Bytes.
    Bytes(Vec<u8>),
    /// The other side is gone; nothing follows.
    End,
}

/// One direction; named by the side that receives.
#[derive(Debug, Default)]
struct Stream {
    parts: VecDeque<(u64, Part)>,
    last_us: u64,
    bytes: usize,
    scheduled: bool,
    /// Since when nobody acknowledges what is sent.
    unheard_since_us: Option<u64>,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) dialer: Party,
    /// Where it was dialed to; the incarnation is filled in when it is accepted.
    pub(crate) acceptor: Party,
    dialer_left: bool,
    acceptor_left: bool,
    to_dialer: Stream,
    to_acceptor: Stream,
}

impl Link {
    pub(crate) fn party(&self, side: Side) -> Party {
        match side {
            Side::Dialer => self.dialer,
            Side::Acceptor => self.acceptor,
        }
    }

    fn stream(&mut self, receiver: Side) -> &mut Stream {
        match receiver {
            Side::Dialer => &mut self.to_dialer,
            Side::Acceptor => &mut self.to_acceptor,
        }
    }

    pub(crate) fn has_left(&self, side: Side) -> bool {
        match side {
            Side::Dialer => self.dialer_left,
            Side::Acceptor => self.acceptor_left,
        }
    }
}

/// How long bytes take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    /// At least.
    pub(crate) min_us: u64,
    /// And so much more on average.
    pub(crate) jitter_us: u64,
}

/// The way from one host to another.
#[derive(Clone, Copy, Debug, Default)]
struct Way {
    /// Number of faults that block it now.
    blocked: u32,
    slow_until_us: u64,
    slow_us: u64,
}

/// What the front of a stream did when it was due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It is there.
    Part(Part),
    /// The way is blocked; look again then.
    Later(u64),
    /// Nobody acknowledged for too long: the sender's system gives the connection up.
    GivenUp,
    /// Nothing is due.
    Nothing,
}

/// A part of a stream becomes due: (link, receiving side, when).
pub(crate) type Due = (LinkId, Side, u64);

/// How long sent bytes may stay unacknowledged (`TCP_USER_TIMEOUT` of the production sockets).
const USER_TIMEOUT_US: u64 = 10_000_000;
/// How long an idle connection to a host without power stays: keepalive probes of the production sockets.
const KEEPALIVE_US: u64 = 15_000_000;
/// Bytes a socket takes before a write has to wait.
pub(crate) const SOCKET_BYTES: usize = 128 << 10;

/// All connections and ways.
#[derive(Debug)]
pub(crate) struct Network {
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    ways: Vec<Way>,
    hosts: usize,
    latency: Latency,
    random: Random,
    /// Frames outside of any connection: (from node, bytes).
    datagrams: BTreeMap<u64, (usize, Vec<u8>)>,
    next_datagram: u64,
}

impl Network {
    pub(crate) fn new(hosts: usize, latency: Latency, random: Random) -> Self {
        Self {
            links: BTreeMap::new(),
            next_link: 1,
            ways: vec![Way::default(); hosts * hosts],
            hosts,
            latency,
            random,
            datagrams: BTreeMap::new(),
            next_datagram: 1,
        }
    }

    pub(crate) fn link(&self, link: LinkId) -> Option<&Link> {
        self.links.get(&link)
    }

    /// The connections an end of which is this party, or any incarnation of it.
    pub(crate) fn links_of(&self, of: impl Fn(Party) -> bool) -> Vec<(LinkId, Side)> {
        let sides = |(id, link): (&LinkId, &Link)| {
            let ends = [(Side::Dialer, link.dialer), (Side::Acceptor, link.acceptor)];
            let id = *id;
            let mine: Vec<_> = ends
                .into_iter()
                .filter(|(side, party)| of(*party) && !link.has_left(*side))
                .map(|(side, _)| (id, side))
                .collect();
            mine
        };
        self.links.iter().flat_map(sides).collect()
    }

    /// Begins a connection.
    pub(crate) fn dial(&mut self, dialer: Party, acceptor: Party, now_us: u64) -> (LinkId, Option<Due>) {
        let id = LinkId(self.next_link);
        self.next_link += 1;
        let (to_dialer, to_acceptor) = (Stream::default(), Stream::default());
        let link = Link { dialer, acceptor, dialer_left: false, acceptor_left: false, to_dialer, to_acceptor };
        self.links.insert(id, link);
        let due = self.push(id, Side::Acceptor, Part::Open, now_us);
        (id, due)
    }

    /// The listening side takes a connection under its present incarnation.
    pub(crate) fn accept(&mut self, link: LinkId, acceptor: Party, now_us: u64) -> Option<Due> {
        self.links.get_mut(&link)?.acceptor = acceptor;
        self.push(link, Side::Dialer, Part::Opened, now_us)
    }

    /// Sends bytes to the other side.
    pub(crate) fn send(&mut self, link: LinkId, from: Side, bytes: Vec<u8>, now_us: u64) -> Option<Due> {
        if bytes.is_empty() {
            return None;
        }
        self.push(link, from.other(), Part::Bytes(bytes), now_us)
    }

    /// Whether the socket takes more bytes at once.
    pub(crate) fn has_room(&mut self, link: LinkId, from: Side) -> bool {
        self.links.get_mut(&link).is_none_or(|link| link.stream(from.other()).bytes < SOCKET_BYTES)
    }

    /// One side closes: the other reads what was sent before, then the end. What was on its way here is lost.
    pub(crate) fn leave(&mut self, link: LinkId, side: Side, now_us: u64) -> Option<Due> {
        let due = self.push(link, side.other(), Part::End, now_us);
        self.vanish(link, side);
        due
    }

    /// One side is gone without a word.
    pub(crate) fn vanish(&mut self, id: LinkId, side: Side) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match side {
            Side::Dialer => link.dialer_left = true,
            Side::Acceptor => link.acceptor_left = true,
        }
        let stream = link.stream(side);
        stream.parts.clear();
        stream.bytes = 0;
        if link.dialer_left && link.acceptor_left {
            self.links.remove(&id);
        }
    }

    /// One side lost its power: some of what it sent was already on the wire, nothing more arrives, and the other side learns
    /// of it by its keepalive probes.
    pub(crate) fn fall_silent(&mut self, id: LinkId, side: Side, now_us: u64) -> Option<Due> {
        let link = self.links.get_mut(&id)?;
        if !link.has_left(side.other()) {
            let stream = link.stream(side.other());
            let kept = self.random.below(stream.parts.len() as u64 + 1) as usize;
            stream.parts.truncate(kept);
            stream.bytes = stream.parts.iter().map(|(_, part)| part_bytes(part)).sum();
            stream.last_us = stream.last_us.max(now_us + KEEPALIVE_US);
        }
        self.leave(id, side, now_us)
    }

    /// Loses a suffix of what is on the way in both directions, and with it the connection.
    pub(crate) fn sever(&mut self, id: LinkId, now_us: u64) -> Vec<Due> {
        let Some(link) = self.links.get_mut(&id) else { return Vec::new() };
        for side in [Side::Dialer, Side::Acceptor] {
            let stream = link.stream(side);
            let kept = self.random.below(stream.parts.len() as u64 + 1) as usize;
            stream.parts.truncate(kept);
            stream.bytes = stream.parts.iter().map(|(_, part)| part_bytes(part)).sum();
        }
        [Side::Dialer, Side::Acceptor].into_iter().filter_map(|side| self.push(id, side, Part::End, now_us)).collect()
    }

    fn push(&mut self, id: LinkId, receiver: Side, part: Part, now_us: u64) -> Option<Due> {
        let (from, to) = self.hosts_of(id, receiver)?;
        let delay_us = self.delay_us(from, to, now_us);
        let link = self.links.get_mut(&id)?;
        if link.has_left(receiver) {
            // Its system answers with a reset, which the sender reads as the end.
            let sender = receiver.other();
            if link.has_left(sender) || part == Part::End {
                return None;
            }
            return self.push(id, sender, Part::End, now_us + delay_us);
        }
        let stream = link.stream(receiver);
        if stream.parts.back().is_some_and(|(_, last)| *last == Part::End) {
            return None; // nothing follows the end
        }
        let at_us = (now_us + delay_us).max(stream.last_us);
        stream.last_us = at_us;
        stream.bytes += part_bytes(&part);
        stream.parts.push_back((at_us, part));
        if stream.scheduled {
            return None;
        }
        stream.scheduled = true;
        Some((id, receiver, at_us))
    }

    fn hosts_of(&self, id: LinkId, receiver: Side) -> Option<(usize, usize)> {
        let link = self.links.get(&id)?;
        Some((self.host(link.party(receiver.other())), self.host(link.party(receiver))))
    }

    fn host(&self, party: Party) -> usize {
        match party {
            Party::Shard { node, .. } => node,
            Party::Client { client, .. } => self.hosts - 1 - client,
        }
    }

    fn delay_us(&mut self, from: usize, to: usize, now_us: u64) -> u64 {
        let way = self.ways[from * self.hosts + to];
        let mut delay_us = self.latency.min_us + self.random.waiting_us(self.latency.jitter_us);
        if now_us < way.slow_until_us {
            delay_us += self.random.below(way.slow_us.max(1));
        }
        delay_us
    }

    /// The front of a stream is due. The caller must ask [`Network::next_due`] afterwards. `unreachable`: one of the hosts
    /// has no power. Where only the way back is blocked bytes arrive, but nobody hears that they did.
    pub(crate) fn arrive(&mut self, id: LinkId, receiver: Side, unreachable: bool, now_us: u64) -> Arrival {
        let Some((from, to)) = self.hosts_of(id, receiver) else { return Arrival::Nothing };
        let blocked = unreachable || self.is_blocked(from, to);
        let unheard = blocked || self.is_blocked(to, from);
        let again_us = now_us + 200_000 + self.random.below(400_000); // sent again, as TCP does
        let Some(link) = self.links.get_mut(&id) else { return Arrival::Nothing };
        let stream = link.stream(receiver);
        stream.scheduled = false;
        if stream.parts.front().is_none_or(|(at_us, _)| *at_us > now_us) {
            return Arrival::Nothing;
        }
        if unheard {
            let since_us = *stream.unheard_since_us.get_or_insert(now_us);
            if now_us - since_us >= USER_TIMEOUT_US {
                return Arrival::GivenUp;
            }
        } else {
            stream.unheard_since_us = None;
        }
        if blocked {
            stream.scheduled = true;
            return Arrival::Later(again_us);
        }
        let Some((_, part)) = stream.parts.pop_front() else { return Arrival::Nothing };
        stream.bytes -= part_bytes(&part);
        Arrival::Part(part)
    }

    /// The sender's system gave a stream up: what waits is lost, and the receiver learns it in its own time.
    pub(crate) fn give_up(&mut self, id: LinkId, receiver: Side, now_us: u64) -> Option<Due> {
        let stream = self.links.get_mut(&id)?.stream(receiver);
        let at_us = now_us + USER_TIMEOUT_US;
        *stream = Stream { last_us: at_us, scheduled: true, ..Stream::default() };
        stream.parts.push_back((at_us, Part::End));
        Some((id, receiver, at_us))
    }

    /// When the next part of a stream is due, if nothing is scheduled for it.
    pub(crate) fn next_due(&mut self, id: LinkId, receiver: Side) -> Option<Due> {
        let stream = self.links.get_mut(&id)?.stream(receiver);
        let at_us = stream.parts.front()?.0;
        if stream.scheduled {
            return None;
        }
        stream.scheduled = true;
        Some((id, receiver, at_us))
    }

    fn way(&mut self, from: usize, to: usize) -> &mut Way {
        &mut self.ways[from * self.hosts + to]
    }

    pub(crate) fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.ways[from * self.hosts + to].blocked > 0
    }

    /// Adds or takes away one reason for the way to be blocked.
    pub(crate) fn block(&mut self, from: usize, to: usize, blocked: bool) {
        let way = self.way(from, to);
        way.blocked = if blocked { way.blocked + 1 } else { way.blocked.saturating_sub(1) };
    }

    /// Makes a way slow for a while.
    pub(crate) fn slow(&mut self, from: usize, to: usize, slow_us: u64, until_us: u64) {
        let way = self.way(from, to);
        way.slow_us = slow_us;
        way.slow_until_us = until_us;
    }

    /// Everything goes through again.
    pub(crate) fn heal(&mut self) {
        self.ways.fill(Way::default());
    }

    /// Keeps a frame that travels on its own and says when it arrives.
    pub(crate) fn datagram(
        &mut self,
        from: usize,
        to: usize,
        bytes: Vec<u8>,
        extra_us: u64,
        now_us: u64,
    ) -> (u64, u64) {
        let name = self.next_datagram;
        self.next_datagram += 1;
        self.datagrams.insert(name, (from, bytes));
        let delay_us = self.delay_us(from, to, now_us) + extra_us;
        (name, now_us + delay_us)
    }

    /// A frame that travelled on its own has arrived; `None` when the way is blocked: it is lost.
    pub(crate) fn take_datagram(&mut self, name: u64, to: usize) -> Option<(usize, Vec<u8>)> {
        let (from, bytes) = self.datagrams.remove(&name)?;
        (!self.is_blocked(from, to)).then_some((from, bytes))
    }
}

fn part_bytes(part: &Part) -> usize {
    match part {
        Part::Bytes(bytes) => bytes.len(),
        Part::Open | Part::Opened | Part::End => 0,
    }
}
