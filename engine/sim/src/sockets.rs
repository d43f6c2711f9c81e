//! The sockets of a shard: its senders to peers, accepted links of peers, connections of clients.
//!
//! Off the data path of a product; the counterpart of `engine/src/host/{peer,accept,executor}.rs`.
//! The handshakes, frames, queues and pauses are the production ones; only the bytes' way is virtual.
//! Invariants: nothing of a connection reaches the shard before its handshake is done; after a break the shard is told
//! and the sender dials again after a growing pause; what a socket does not take at once waits in `rest`.

use std::sync::Arc;

use ringraft_engine::shard::clients::ConnectionId;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame;
use ringraft_net::handshake::{Acceptor, Dialer, HandshakeError};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, PeerMessage, RefusalCode, Refused, Role as Who};
use ringraft_raft::NodeId;

use crate::events::Event;
use crate::nemesis::Hazard;
use crate::network::{LinkId, Part, Party, Side};
use crate::node::{Deferred, Incoming, Role, Sender, Stage, State};
use crate::trace::Trace;
use crate::world::{Checked, World};

/// A dialer's patience with connecting and with the handshake (as in the production host).
const DIAL_PATIENCE_US: u64 = 3_000_000;
/// What was answered before a bad frame may still go out (as in the production host).
const LAST_REPLIES_US: u64 = 20_000;

impl World {
    fn sender(&mut self, node: usize, shard: usize, peer: usize) -> Option<&mut Sender> {
        let incarnation = self.nodes[node].incarnation;
        let host = self.nodes[node].host(incarnation, shard)?;
        host.senders.iter_mut().find(|sender| sender.peer == peer)
    }

    /// A timer of a process; it waits while the process stands still.
    pub(crate) fn host_timer(&mut self, event: Event) -> Checked {
        let (node, incarnation) = match &event {
            Event::Dial { node, incarnation, .. }
            | Event::DialPatience { node, incarnation, .. }
            | Event::CloseClient { node, incarnation, .. } => (*node, *incarnation),
            _ => return Ok(()),
        };
        if !self.nodes[node].is(incarnation) {
            return Ok(());
        }
        if self.nodes[node].state == State::Paused {
            self.nodes[node].deferred.push(Deferred::Event(event));
            return Ok(());
        }
        match event {
            Event::Dial { shard, peer, .. } => self.dial_peer(node, shard, peer),
            Event::DialPatience { shard, peer, link, .. } => {
                let sender = self.sender(node, shard, peer);
                if sender.is_some_and(|sender| sender.link() == Some(link) && !matches!(sender.stage, Stage::Up(_))) {
                    self.lose_peer(node, shard, peer);
                }
            }
            Event::CloseClient { shard, link, .. } => self.close_client(node, shard, link),
            _ => {}
        }
        Ok(())
    }

    /// Senders to exactly the peers of the shard.
    pub(crate) fn follow_peers(&mut self, node: usize, shard: usize) {
        let (incarnation, now_us) = (self.nodes[node].incarnation, self.now_us());
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return };
        let topology = Arc::clone(host.shard.topology());
        if host.followed.as_ref().is_some_and(|followed| Arc::ptr_eq(followed, &topology)) {
            return;
        }
        host.followed = Some(topology);
        let wanted: Vec<usize> = host.shard.peers().nodes().map(|peer| peer.0 as usize - 1).collect();
        let (kept, gone): (Vec<Sender>, Vec<Sender>) =
            std::mem::take(&mut host.senders).into_iter().partition(|sender| wanted.contains(&sender.peer));
        let new: Vec<usize> =
            wanted.into_iter().filter(|peer| kept.iter().all(|sender| sender.peer != *peer)).collect();
        host.senders = kept;
        let seed = (node as u64 + 1) << 16 | shard as u64;
        host.senders.extend(new.iter().map(|peer| Sender::new(*peer, seed)));
        for sender in &gone {
            host.shard.peer_disconnected(NodeId(sender.peer as u64 + 1));
        }
        for link in gone.iter().filter_map(Sender::link) {
            let due = self.network.leave(link, Side::Dialer, now_us);
            self.due(due);
        }
        for peer in new {
            let delay_us = self.streams.host.below(1_000);
            self.events.after(delay_us, Event::Dial { node, incarnation, shard, peer });
        }
    }

    fn dial_peer(&mut self, node: usize, shard: usize, peer: usize) {
        let (incarnation, now_us) = (self.nodes[node].incarnation, self.now_us());
        if self.sender(node, shard, peer).is_none_or(|sender| sender.link().is_some()) {
            return;
        }
        let dialer = Party::Shard { node, incarnation, shard };
        let acceptor = Party::Shard { node: peer, incarnation: 0, shard };
        let (link, due) = self.network.dial(dialer, acceptor, now_us);
        self.due(due);
        if let Some(sender) = self.sender(node, shard, peer) {
            sender.stage = Stage::Dialing(link);
        }
        self.events.after(DIAL_PATIENCE_US, Event::DialPatience { node, incarnation, shard, peer, link });
    }

    /// The link to a peer, or the attempt at one, is over: the shard is told, and it is dialed again after a pause.
    fn lose_peer(&mut self, node: usize, shard: usize, peer: usize) {
        let (incarnation, now_us) = (self.nodes[node].incarnation, self.now_us());
        let Some(sender) = self.sender(node, shard, peer) else { return };
        let link = sender.link();
        let was_up = matches!(sender.stage, Stage::Up(_));
        sender.stage = Stage::Idle;
        let rest = sender.rest.take();
        let pause_us = sender.backoff.next_us();
        if let Some(host) = self.nodes[node].host(incarnation, shard)
            && was_up
        {
            let peer = NodeId(peer as u64 + 1);
            if let Some(bytes) = rest {
                host.shard.peers().give_back(peer, bytes);
            }
            host.shard.peer_disconnected(peer);
        }
        if let Some(link) = link {
            let due = self.network.leave(link, Side::Dialer, now_us);
            self.due(due);
        }
        self.events.after(pause_us, Event::Dial { node, incarnation, shard, peer });
        self.hand_to_disk(node, shard);
        self.raise(node, shard);
    }

    /// Something came for the dialing side of a link between nodes.
    pub(crate) fn dialed_part(
        &mut self,
        node: usize,
        incarnation: u32,
        shard: usize,
        link: LinkId,
        part: Part,
    ) -> Checked {
        let now_us = self.now_us();
        let identity = self.identity(node, shard);
        if !self.nodes[node].is(incarnation) {
            return Ok(());
        }
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return Ok(()) };
        let Some(sender) = host.senders.iter_mut().find(|sender| sender.link() == Some(link)) else { return Ok(()) };
        let peer = sender.peer;
        match (&mut sender.stage, part) {
            (Stage::Dialing(_), Part::Opened) => {
                sender.stage = Stage::Greeting(link, ReceiveBuffer::new());
                let mut hello = Vec::new();
                Dialer::peer(&identity, peer as u64 + 1).start(&mut hello);
                let due = self.network.send(link, Side::Dialer, hello, now_us);
                self.due(due);
            }
            (Stage::Greeting(_, buffer), Part::Bytes(bytes)) => {
                buffer.extend(&bytes);
                match Dialer::peer(&identity, peer as u64 + 1).receive(buffer.filled()) {
                    Ok(None) => {}
                    Ok(Some(_)) => {
                        sender.stage = Stage::Up(link);
                        sender.backoff.reset();
                        host.shard.peer_connected(NodeId(peer as u64 + 1));
                        self.statistics.links += 1;
                        self.raise(node, shard);
                    }
                    Err(error) => {
                        if is_removal(&error) {
                            host.shard.refused_as_removed();
                        }
                        self.lose_peer(node, shard, peer);
                    }
                }
            }
            // Peers never send on this connection after the handshake: any byte, and the end, end it.
            (_, Part::End | Part::Bytes(_)) => self.lose_peer(node, shard, peer),
            _ => {}
        }
        Ok(())
    }

    /// Sends what is queued for a peer, if its link takes it.
    pub(crate) fn send_to_peer(&mut self, node: usize, shard: usize, peer: usize) -> Checked {
        let (incarnation, now_us) = (self.nodes[node].incarnation, self.now_us());
        let to = NodeId(peer as u64 + 1);
        loop {
            let Some(host) = self.nodes[node].host(incarnation, shard) else { return Ok(()) };
            let Some(sender) = host.senders.iter_mut().find(|sender| sender.peer == peer) else { return Ok(()) };
            let Stage::Up(link) = sender.stage else { return Ok(()) };
            if sender.rest.is_some() {
                return Ok(());
            }
            let Some(bytes) = host.shard.peers().take_outgoing(to) else { return Ok(()) };
            self.checkers.sends(node, peer, &bytes, &host.shard)?;
            if self.trace.prints() {
                print_messages(&mut self.trace, now_us, (node, peer), &bytes);
            }
            if !self.network.has_room(link, Side::Dialer) {
                sender.rest = Some(bytes);
                return Ok(());
            }
            let sent = bytes.clone();
            host.shard.peers().give_back(to, bytes);
            match self.weather.hazard {
                Some(hazard) => self.send_loose(node, shard, peer, &sent, hazard),
                None => {
                    let due = self.network.send(link, Side::Dialer, sent, now_us);
                    self.due(due);
                }
            }
        }
    }

    /// Sends every frame on its own way: lost, twice, late, before those that were sent earlier.
    fn send_loose(&mut self, node: usize, shard: usize, peer: usize, bytes: &[u8], hazard: Hazard) {
        let now_us = self.now_us();
        self.statistics.datagrams += 1;
        let mut start = 0;
        while let Ok(Some(parsed)) = frame::parse(&bytes[start..], &Limits::PEER) {
            let one = &bytes[start..start + parsed.total_bytes];
            start += parsed.total_bytes;
            let random = &mut self.streams.host;
            if random.chance(hazard.lost_per_million) {
                continue;
            }
            let copies = 1 + u32::from(random.chance(hazard.doubled_per_million));
            for _ in 0..copies {
                let late = self.streams.host.chance(hazard.late_per_million);
                let extra_us = if late { self.streams.host.below(hazard.late_us + 1) } else { 0 };
                let (datagram, at_us) = self.network.datagram(node, peer, one.to_vec(), extra_us, now_us);
                self.events.at(at_us, Event::Frame { to: peer, shard, datagram });
            }
        }
    }

    /// The socket of a sender has room again.
    fn finish_peer(&mut self, node: usize, shard: usize, link: LinkId) -> Checked {
        let (incarnation, now_us) = (self.nodes[node].incarnation, self.now_us());
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return Ok(()) };
        let Some(sender) = host.senders.iter_mut().find(|sender| sender.link() == Some(link)) else { return Ok(()) };
        let peer = sender.peer;
        let Some(bytes) = sender.rest.take() else { return Ok(()) };
        let due = self.network.send(link, Side::Dialer, bytes.clone(), now_us);
        host.shard.peers().give_back(NodeId(peer as u64 + 1), bytes);
        self.due(due);
        self.send_to_peer(node, shard, peer)?;
        self.raise(node, shard); // a full queue may have lost messages: the cores are told now that there is room
        Ok(())
    }

    /// Something came for the accepting side of a link.
    pub(crate) fn accepted_part(&mut self, node: usize, shard: usize, link: LinkId, part: Part) -> Checked {
        let now_us = self.now_us();
        let incarnation = self.nodes[node].incarnation;
        let Some(host) = self.nodes[node].host(incarnation, shard) else {
            let due = self.network.leave(link, Side::Acceptor, now_us); // nobody listens
            self.due(due);
            return Ok(());
        };
        match part {
            Part::Open => {
                host.incoming.insert(link, Incoming::new());
                let due = self.network.accept(link, Party::Shard { node, incarnation, shard }, now_us);
                self.due(due);
            }
            Part::Bytes(bytes) => {
                let Some(incoming) = host.incoming.get_mut(&link) else { return Ok(()) };
                incoming.buffer.extend(&bytes);
                self.room_at_sender(link)?;
                self.read(node, shard, link);
                self.hand_to_disk(node, shard);
                self.raise(node, shard);
            }
            Part::End => self.end_incoming(node, shard, link),
            Part::Opened => {}
        }
        Ok(())
    }

    /// Bytes left a socket: whoever waits to send on it goes on.
    fn room_at_sender(&mut self, link: LinkId) -> Checked {
        if let Some(Party::Shard { node, incarnation, shard }) = self.network.link(link).map(|link| link.dialer)
            && self.nodes[node].is(incarnation)
            && self.nodes[node].state == State::Running
        {
            return self.finish_peer(node, shard, link);
        }
        Ok(())
    }

    /// Takes what an accepted connection has received.
    fn read(&mut self, node: usize, shard: usize, link: LinkId) {
        let incarnation = self.nodes[node].incarnation;
        self.show_clock(node, shard);
        loop {
            let Some(host) = self.nodes[node].host(incarnation, shard) else { return };
            let Some(incoming) = host.incoming.get_mut(&link) else { return };
            match incoming.role {
                Role::Unknown => {
                    if !self.greet(node, shard, link) {
                        return;
                    }
                }
                Role::Peer(from) => {
                    match host.shard.peer_bytes(from, incoming.buffer.filled()) {
                        Ok(taken) => incoming.buffer.consume(taken),
                        Err(_) => {
                            self.statistics.links_refused += 1;
                            self.drop_incoming(node, shard, link);
                        }
                    }
                    return;
                }
                Role::Client(id) => {
                    if host.shard.client_bytes(id, &mut incoming.buffer).is_err() {
                        incoming.role = Role::Leaving(id);
                        self.events.after(LAST_REPLIES_US, Event::CloseClient { node, incarnation, shard, link });
                    }
                    return;
                }
                Role::Leaving(_) => return,
            }
        }
    }

    /// Reads the first frame of an accepted connection and answers it; `true`: there may be more to read.
    fn greet(&mut self, node: usize, shard: usize, link: LinkId) -> bool {
        let now_us = self.now_us();
        let identity = self.identity(node, shard);
        let Some(process) = &mut self.nodes[node].process else { return false };
        let stopping = process.stopping;
        let host = &mut process.hosts[shard];
        let topology = host.shard.client_topology();
        let Some(incoming) = host.incoming.get_mut(&link) else { return false };
        let mut answer = Vec::new();
        if stopping {
            let refused = Refused { code: RefusalCode::Stopping, message: String::from("this node is stopping") };
            refused.append_frame(&mut answer);
            let due = self.network.send(link, Side::Acceptor, answer, now_us);
            self.due(due);
            self.drop_incoming(node, shard, link);
            return false;
        }
        let seen = Acceptor::new(&identity).receive(incoming.buffer.filled(), || topology, &mut answer);
        let role = match seen {
            Ok(None) => return false,
            Ok(Some(accepted)) => {
                incoming.buffer.consume(accepted.consumed);
                match accepted.hello.role {
                    Who::Peer => Some(Role::Peer(NodeId(accepted.hello.node))),
                    Who::Client => host.shard.clients().open().map(|id| {
                        host.clients.insert(id.slot, (id, link));
                        Role::Client(id)
                    }),
                }
            }
            Err(_) => None,
        };
        let due = self.network.send(link, Side::Acceptor, answer, now_us);
        if let Some(role) = role {
            incoming.role = role;
        }
        self.due(due);
        if role.is_none() {
            self.drop_incoming(node, shard, link);
        }
        role.is_some()
    }

    /// The other side of an accepted connection closed it.
    fn end_incoming(&mut self, node: usize, shard: usize, link: LinkId) {
        let incarnation = self.nodes[node].incarnation;
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return };
        let Some(incoming) = host.incoming.get_mut(&link) else { return };
        match incoming.role {
            Role::Client(id) => {
                incoming.role = Role::Leaving(id);
                self.events.after(LAST_REPLIES_US, Event::CloseClient { node, incarnation, shard, link });
            }
            Role::Leaving(_) => {}
            Role::Peer(_) | Role::Unknown => self.drop_incoming(node, shard, link),
        }
    }

    /// Forgets a client's connection.
    fn close_client(&mut self, node: usize, shard: usize, link: LinkId) {
        let incarnation = self.nodes[node].incarnation;
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return };
        if let Some(Role::Leaving(id) | Role::Client(id)) = host.incoming.get(&link).map(|incoming| incoming.role) {
            host.shard.clients().close(id);
            host.clients.remove(&id.slot);
        }
        self.drop_incoming(node, shard, link);
    }

    fn drop_incoming(&mut self, node: usize, shard: usize, link: LinkId) {
        let (incarnation, now_us) = (self.nodes[node].incarnation, self.now_us());
        if let Some(host) = self.nodes[node].host(incarnation, shard) {
            host.incoming.remove(&link);
        }
        let due = self.network.leave(link, Side::Acceptor, now_us);
        self.due(due);
    }

    /// Sends a client's replies if its socket takes them; else they wait.
    pub(crate) fn send_to_client(&mut self, node: usize, shard: usize, id: ConnectionId) {
        let (incarnation, now_us) = (self.nodes[node].incarnation, self.now_us());
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return };
        let Some((_, link)) = host.clients.get(&id.slot).copied().filter(|(known, _)| *known == id) else { return };
        let Some(incoming) = host.incoming.get_mut(&link) else { return };
        if !incoming.rest.is_empty() {
            return;
        }
        let mut bytes = Vec::new();
        if !host.shard.clients().take_outgoing(id, &mut bytes) {
            self.statistics.overflowed_connections += 1;
            return self.close_client(node, shard, link);
        }
        if self.network.has_room(link, Side::Acceptor) {
            let due = self.network.send(link, Side::Acceptor, bytes, now_us);
            self.due(due);
        } else {
            incoming.rest = bytes;
        }
    }

    /// A client read from its socket: what waited for room goes out.
    pub(crate) fn room_at_server(&mut self, link: LinkId) {
        let now_us = self.now_us();
        let Some(Party::Shard { node, incarnation, shard }) = self.network.link(link).map(|link| link.acceptor) else {
            return;
        };
        if self.nodes[node].state != State::Running {
            return;
        }
        let Some(host) = self.nodes[node].host(incarnation, shard) else { return };
        let Some(incoming) = host.incoming.get_mut(&link) else { return };
        let bytes = std::mem::take(&mut incoming.rest);
        if bytes.is_empty() {
            return;
        }
        let role = incoming.role;
        let due = self.network.send(link, Side::Acceptor, bytes, now_us);
        self.due(due);
        if let Role::Client(id) | Role::Leaving(id) = role {
            self.send_to_client(node, shard, id);
        }
    }

    /// A frame that travelled on its own reached a node.
    pub(crate) fn frame_arrived(&mut self, to: usize, shard: usize, datagram: u64) -> Checked {
        let Some((from, bytes)) = self.network.take_datagram(datagram, to) else { return Ok(()) };
        let place = &mut self.nodes[to];
        if place.state != State::Running {
            return Ok(()); // lost
        }
        let incarnation = place.incarnation;
        self.show_clock(to, shard);
        let Some(host) = self.nodes[to].host(incarnation, shard) else { return Ok(()) };
        if host.shard.peer_bytes(NodeId(from as u64 + 1), &bytes).is_err() {
            self.statistics.links_refused += 1;
        }
        self.hand_to_disk(to, shard);
        self.raise(to, shard);
        Ok(())
    }
}

/// Whether a peer refused the link since it knows that this node was removed.
fn is_removal(error: &HandshakeError) -> bool {
    matches!(error, HandshakeError::Refused(refused) if refused.code == RefusalCode::Removed)
}

/// A line for every message of some frames between two nodes.
fn print_messages(trace: &mut Trace, now_us: u64, (from, to): (usize, usize), bytes: &[u8]) {
    let mut start = 0;
    while let Ok(Some(parsed)) = frame::parse(&bytes[start..], &Limits::PEER) {
        start += parsed.total_bytes;
        if let Ok(PeerMessage { group, term, body }) = wire::view_peer_message(parsed.head) {
            trace.line(now_us, format_args!("n{} > n{} group {group} term {term}: {body:?}", from + 1, to + 1));
        }
    }
}
