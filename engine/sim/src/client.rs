//! The simulated clients: the production client core with virtual sockets, and what became of every call.
//!
//! Off the data path of a node.
//! Invariants: every call stands in the history from the moment it is handed to the core; a call ends once; a client that
//! is started anew leaves its calls without an end, which means their outcome is unknown.
//! What they ask is in `load.rs`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use ringraft_net::client::{Action, Address, ClientError, ConnectionId, Core, Options, Submission};
use ringraft_net::wire::{Consistency, Operation, OperationRef};

use crate::checkers::Violation;
use crate::events::Event;
use crate::history::{Call, CallOutcome, Ended};
use crate::load::Asking;
use crate::network::{LinkId, Part, Party, Side};
use crate::plan::Plan;
use crate::world::{Checked, World};

/// One client.
pub(crate) struct SimClient {
    pub(crate) core: Core,
    pub(crate) generation: u32,
    links: BTreeMap<ConnectionId, LinkId>,
    connections: BTreeMap<LinkId, ConnectionId>,
    /// The moment for which a tick is scheduled.
    tick_at_us: u64,
    /// Calls that did not end, by tag: their place in the history.
    pub(crate) open: BTreeMap<u64, usize>,
    pub(crate) asking: Asking,
}

impl SimClient {
    pub(crate) fn new(plan: &Plan, client: usize) -> Self {
        Self {
            core: new_core(plan, client, 0),
            generation: 0,
            links: BTreeMap::new(),
            connections: BTreeMap::new(),
            tick_at_us: u64::MAX,
            open: BTreeMap::new(),
            asking: Asking::new(plan, client),
        }
    }
}

fn new_core(plan: &Plan, client: usize, generation: u32) -> Core {
    let address = |node| World::address(node, 0).parse::<SocketAddr>().expect("an address of the plan");
    let mut endpoints: Vec<SocketAddr> = (0..plan.nodes).map(address).collect();
    endpoints.rotate_left(client % plan.nodes);
    let options = Options {
        endpoints,
        cluster: Some(plan.cluster()),
        connections: plan.load.connections,
        sessions: plan.load.sessions,
        session_window_max: plan.limits.session_window_max as usize,
        request_timeout: Duration::from_micros(plan.load.request_timeout_us),
        seed: plan.seed ^ (client as u64 + 1) << 8 ^ u64::from(generation),
        limits: plan.limits.client(),
        ..Options::default()
    };
    Core::new(options).expect("the plan keeps the bounds of the client's options")
}

impl World {
    /// Does what the core asks for until it asks for nothing.
    pub(crate) fn pump(&mut self, client: usize) -> Checked {
        loop {
            let mut quiet = true;
            while let Some(action) = self.clients[client].core.poll_action() {
                quiet = false;
                self.client_action(client, action)?;
            }
            while let Some(connection) = self.clients[client].core.next_writable() {
                quiet = false;
                self.client_send(client, connection);
            }
            if quiet {
                break;
            }
        }
        self.completed(client)?;
        self.schedule_tick(client);
        Ok(())
    }

    fn client_action(&mut self, client: usize, action: Action) -> Checked {
        let now_us = self.now_us();
        match action {
            Action::Connect { connection, address } => {
                let Address::Socket(SocketAddr::V4(v4)) = address else {
                    return Err(Violation::new("the plan", format!("a client dials {address}")));
                };
                let (node, shard) = (usize::from(v4.ip().octets()[3]) - 1, usize::from(v4.port()) - 7_000);
                let place = &mut self.clients[client];
                let dialer = Party::Client { client, generation: place.generation };
                let acceptor = Party::Shard { node, incarnation: 0, shard };
                let (link, due) = self.network.dial(dialer, acceptor, now_us);
                place.links.insert(connection, link);
                place.connections.insert(link, connection);
                self.due(due);
            }
            Action::Close { connection } => {
                let place = &mut self.clients[client];
                if let Some(link) = place.links.remove(&connection) {
                    place.connections.remove(&link);
                    let due = self.network.leave(link, Side::Dialer, now_us);
                    self.due(due);
                }
            }
        }
        Ok(())
    }

    fn client_send(&mut self, client: usize, connection: ConnectionId) {
        let now_us = self.now_us();
        let place = &mut self.clients[client];
        let Some(link) = place.links.get(&connection).copied() else { return };
        let Some(outgoing) = place.core.outgoing(connection) else { return };
        if !self.network.has_room(link, Side::Dialer) {
            return; // sent when the server has read something, or lost with the connection
        }
        let bytes = outgoing.pending().to_vec();
        outgoing.sent(bytes.len());
        let due = self.network.send(link, Side::Dialer, bytes, now_us);
        self.due(due);
    }

    /// Something came for a client.
    pub(crate) fn client_part(&mut self, client: usize, generation: u32, link: LinkId, part: Part) -> Checked {
        let now_us = self.now_us();
        let place = &mut self.clients[client];
        if place.generation != generation {
            return Ok(());
        }
        let Some(connection) = place.connections.get(&link).copied() else { return Ok(()) };
        match part {
            Part::Open => {}
            Part::Opened => place.core.connected(connection, now_us),
            Part::Bytes(bytes) => {
                place.core.receive(connection, &bytes, now_us);
                self.room_at_server(link);
            }
            Part::End => {
                place.links.remove(&connection);
                place.connections.remove(&link);
                place.core.disconnected(connection, now_us);
                let due = self.network.leave(link, Side::Dialer, now_us);
                self.due(due);
            }
        }
        self.client_send(client, connection);
        self.pump(client)
    }

    pub(crate) fn client_tick(&mut self, client: usize, generation: u32) -> Checked {
        let now_us = self.now_us();
        let place = &mut self.clients[client];
        if place.generation != generation || place.tick_at_us > now_us {
            return Ok(());
        }
        place.tick_at_us = u64::MAX;
        place.core.tick(now_us);
        self.pump(client)
    }

    fn schedule_tick(&mut self, client: usize) {
        let now_us = self.now_us();
        let place = &mut self.clients[client];
        let Some(at_us) = place.core.next_deadline_us() else { return };
        let at_us = at_us.max(now_us + 1);
        if at_us < place.tick_at_us {
            place.tick_at_us = at_us;
            let generation = place.generation;
            self.events.at(at_us, Event::ClientTick { client, generation });
        }
    }

    /// Hands a call to the core; its tag is its place in the history.
    pub(crate) fn submit(
        &mut self,
        client: usize,
        operations: Vec<Operation>,
        (consistency, max_staleness_ms): (Consistency, u32),
        deadline_us: Option<u64>,
    ) -> Checked {
        let now_us = self.now_us();
        let tag = self.history.calls.len() as u64;
        let borrowed: Vec<OperationRef<'_>> = operations.iter().map(Operation::as_operation_ref).collect();
        let submission = Submission { tag, operations: &borrowed, consistency, max_staleness_ms, deadline_us };
        match self.clients[client].core.submit(&submission, now_us) {
            Ok(()) => {
                self.clients[client].open.insert(tag, tag as usize);
                if max_staleness_ms > 0 {
                    self.bounded.push((tag as usize, max_staleness_ms));
                }
                let (client_number, ended) = (client as u32, None);
                let call = Call { client: client_number, invoked: now_us, operations, consistency, ended };
                self.history.calls.push(call);
                self.statistics.calls += 1;
            }
            Err(ClientError::Overloaded { .. }) => self.statistics.refused_by_client += 1,
            Err(error) => return Err(Violation::new("clients ask what is allowed", error.to_string())),
        }
        self.pump(client)
    }

    /// Writes down what became of calls.
    fn completed(&mut self, client: usize) -> Checked {
        let now_us = self.now_us();
        let place = &mut self.clients[client];
        while let Some(completion) = place.core.next_completion() {
            let (tag, position) = (completion.tag, completion.position);
            let outcome = match completion.result {
                Ok(results) => CallOutcome::Done { position, results: results.into_owned() },
                Err(error) if error.is_outcome_unknown() => CallOutcome::Unknown,
                Err(ClientError::BadRequest { message }) => {
                    return Err(Violation::new("clients ask what is allowed", message));
                }
                Err(_) => CallOutcome::Failed,
            };
            let Some(call) = place.open.remove(&tag) else {
                let text = format!("client {client}: a call ended twice or was never made: tag {tag}, {outcome:?}");
                return Err(Violation::new("every call ends once", text));
            };
            let call = &mut self.history.calls[call];
            match &outcome {
                CallOutcome::Done { results, .. } => {
                    self.statistics.done += 1;
                    place.asking.learn(&call.operations, results);
                }
                CallOutcome::Failed => self.statistics.failed += 1,
                CallOutcome::Unknown => self.statistics.unknown += 1,
            }
            self.trace.event(now_us, 7, tag, position.index << 2 | outcome_code(&outcome));
            call.ended = Some(Ended { returned: now_us, outcome });
        }
        Ok(())
    }

    /// The client's process ends and is started again: nobody hears what became of its calls.
    pub(crate) fn restart_client(&mut self, client: usize) -> Checked {
        let now_us = self.now_us();
        let place = &mut self.clients[client];
        place.generation += 1;
        place.core = new_core(&self.plan, client, place.generation);
        place.open.clear();
        place.tick_at_us = u64::MAX;
        place.links.clear();
        let links: Vec<LinkId> = std::mem::take(&mut place.connections).into_keys().collect();
        for link in links {
            let due = self.network.leave(link, Side::Dialer, now_us);
            self.due(due);
        }
        let generation = self.clients[client].generation;
        self.events.after(1_000, Event::ClientAsk { client, generation });
        Ok(())
    }
}

fn outcome_code(outcome: &CallOutcome) -> u64 {
    match outcome {
        CallOutcome::Done { .. } => 0,
        CallOutcome::Failed => 1,
        CallOutcome::Unknown => 2,
    }
}
