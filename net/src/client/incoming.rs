//! Incoming: from bytes of a connection to completions and changes of course.
//!
//! Off the data path of a node.
//!
//! Invariants: an answer counts only for the try it belongs to, on the connection that try was sent on; bytes that are
//! no frame, or a frame nobody may send here, end the connection and nothing else.
//!
//! It sends nothing itself: `dispatch` does.

use super::{
    Address, ClientError,
    connection::State,
    core::{ConnectionId, Core},
    dispatch::REDIRECTS_AT_ONCE,
    slab::{Kind, Place},
};
use crate::{
    frame::{self, Frame, FrameKind},
    wire::{self, ArchivedOutcome, ArchivedReply, Outcome},
};

impl Core {
    /// Bytes came on a connection.
    pub fn receive(&mut self, connection: ConnectionId, bytes: &[u8], now_us: u64) {
        let Some(place) = self.place_of(connection) else { return };
        let state = &mut self.connections[place as usize];
        state.heard_us = now_us;
        let mut buffer = std::mem::take(&mut state.incoming);
        let result = if buffer.filled().is_empty() {
            self.process(place, bytes, now_us).map(|consumed| buffer.extend(&bytes[consumed..]))
        } else {
            buffer.extend(bytes);
            self.process(place, buffer.filled(), now_us).map(|consumed| buffer.consume(consumed))
        };
        if self.place_of(connection).is_none() {
            // It was closed by what it brought.
            return;
        }
        self.connections[place as usize].incoming = buffer;
        if let Err(problem) = result {
            self.give_up(place, &problem, now_us);
        }
    }

    /// Handles all whole frames; how many bytes they were.
    fn process(&mut self, place: u32, bytes: &[u8], now_us: u64) -> Result<usize, String> {
        let mut consumed = 0;
        if self.connections[place as usize].state == State::Greeting {
            consumed = self.greet(place, bytes, now_us)?;
        }
        if self.connections[place as usize].state != State::Ready {
            return Ok(consumed);
        }
        let limits = self.options.limits;
        while let Some(parsed) = frame::parse(&bytes[consumed..], &limits).map_err(|error| error.to_string())? {
            consumed += parsed.total_bytes;
            self.handle(place, &parsed, now_us)?;
        }
        Ok(consumed)
    }

    fn handle(&mut self, place: u32, parsed: &Frame<'_>, now_us: u64) -> Result<(), String> {
        match parsed.kind {
            FrameKind::Reply => {
                let Some(index) = self.sent_on(place, parsed.correlation) else { return Ok(()) };
                if self.slab.get(index).kind == Kind::Status {
                    return Err(String::from("a status request was answered with a Reply"));
                }
                let reply = wire::view_reply(parsed.head).map_err(|error| error.to_string())?;
                self.reply(index, place, reply, now_us)
            }
            FrameKind::StatusReply => {
                let Some(index) = self.sent_on(place, parsed.correlation) else { return Ok(()) };
                let slot = self.slab.get(index);
                if slot.kind != Kind::Status {
                    return Err(String::from("a request was answered with a StatusReply"));
                }
                let (tag, abandoned) = (slot.tag, matches!(slot.place, Place::Abandoned { .. }));
                let json = std::str::from_utf8(parsed.head).map_err(|_| "status is not UTF-8")?.to_owned();
                self.unlist(index);
                if !abandoned {
                    self.completions.status(tag, json);
                }
                self.release(index);
                Ok(())
            }
            FrameKind::Goodbye => {
                self.leave(place);
                Ok(())
            }
            other => Err(format!("a {other:?} frame came after the handshake")),
        }
    }

    /// The node is about to stop: its groups will be led by others.
    fn leave(&mut self, place: u32) {
        let endpoint = self.connections[place as usize].endpoint;
        for group in 0..self.routing.groups.len() as u32 {
            if self.routing.target(group) == endpoint {
                self.routing.forget_leader(group, endpoint);
            }
        }
    }

    #[inline]
    fn sent_on(&self, place: u32, correlation: u32) -> Option<u32> {
        let index = self.slab.find(correlation)?;
        match self.slab.get(index).place {
            Place::Sent { connection } | Place::Abandoned { connection } if connection == place => Some(index),
            _ => None,
        }
    }

    #[inline]
    fn reply(&mut self, index: u32, place: u32, reply: &ArchivedReply, now_us: u64) -> Result<(), String> {
        self.unlist(index);
        if matches!(self.slab.get(index).place, Place::Abandoned { .. }) {
            self.release(index);
            return Ok(());
        }
        let ArchivedOutcome::Done(results) = &reply.outcome else {
            self.refused(index, place, reply, now_us);
            return Ok(());
        };
        let slot = self.slab.get(index);
        let (tag, kind, group) = (slot.tag, slot.kind, slot.group);
        let (generation, sequence) = (slot.session_generation, slot.sequence);
        let asked = self.connections[place as usize].endpoint as usize / usize::from(self.routing.shards);
        let state = &mut self.routing.groups[group as usize];
        state.attempts = 0;
        if state.leader.is_none() && !matches!(kind, Kind::StaleRead | Kind::ReplicaRead) {
            state.leader = Some(asked);
        }
        if sequence != 0 {
            state.session.finish(generation, sequence);
        }
        if kind == Kind::OpenSession {
            self.session_opened(index, group, results, now_us)?;
        } else {
            self.completions.done(tag, (reply.position.to_native(), reply.term.to_native()), results);
            self.release(index);
        }
        if !self.routing.groups[group as usize].is_quiet() {
            self.pump(group, now_us);
        }
        Ok(())
    }

    fn session_opened(
        &mut self,
        index: u32,
        group: u32,
        results: &[wire::ArchivedOperationResult],
        now_us: u64,
    ) -> Result<(), String> {
        let client = match results {
            [result] => match result.as_result_ref() {
                wire::OperationResultRef::Session { client } => client,
                _ => 0,
            },
            _ => 0,
        };
        if client == 0 {
            self.statistics.retries += 1;
            self.wait(index, true);
            self.pause(group, 0, now_us);
            return Err(String::from("open_session was answered without a session"));
        }
        self.release(index);
        self.statistics.sessions += 1;
        self.routing.groups[group as usize].session.opened(client);
        Ok(())
    }

    /// An answer other than `Done`: again elsewhere, again later, or the end.
    fn refused(&mut self, index: u32, place: u32, reply: &ArchivedReply, now_us: u64) {
        let slot = self.slab.get(index);
        let (kind, group, sequence) = (slot.kind, slot.group, slot.sequence);
        let maybe_applied = slot.maybe_applied;
        let asked = self.connections[place as usize].endpoint;
        match reply.to_owned_reply().outcome {
            Outcome::Done(_) => {}
            Outcome::NotLeader { .. } | Outcome::Unavailable { .. } if kind == Kind::ReplicaRead => {
                // That replica cannot tell how old it is: the leader can.
                self.slab.get_mut(index).kind = Kind::Read;
                self.again(index);
            }
            Outcome::NotLeader { .. } | Outcome::Unavailable { .. } | Outcome::OutcomeUnknown
                if kind == Kind::StaleRead =>
            {
                // That replica has nothing to tell, which says nothing of the leader: another one, and at last the leader.
                let slot = self.slab.get_mut(index);
                slot.refusals += 1;
                if slot.refusals as usize >= self.routing.nodes.len() {
                    slot.kind = Kind::Read;
                }
                self.again(index);
            }
            Outcome::NotLeader { leader, .. } => {
                self.again(index);
                self.redirect(group, asked, leader, now_us);
            }
            Outcome::Moved { node, shard, address, .. } => {
                self.again(index);
                self.moved(group, node, shard, &address, now_us);
            }
            Outcome::Overloaded { retry_after_us } => {
                self.again(index);
                self.pause(group, retry_after_us.min(self.times.backoff_max_us), now_us);
            }
            Outcome::Unavailable { message } => {
                self.problem = Some(message);
                self.again(index);
                self.routing.forget_leader(group, asked);
                self.pause(group, 0, now_us);
            }
            Outcome::BadRequest { .. } | Outcome::SessionExpired | Outcome::TooStale | Outcome::OutcomeUnknown
                if kind == Kind::OpenSession =>
            {
                self.again(index);
                self.pause(group, 0, now_us);
            }
            Outcome::BadRequest { message } => self.fail(index, ClientError::BadRequest { message }),
            Outcome::SessionExpired => self.session_expired(index, group, maybe_applied),
            Outcome::TooStale => self.fail(index, ClientError::OutcomeUnknown),
            Outcome::OutcomeUnknown if kind == Kind::Write && sequence == 0 => {
                self.fail(index, ClientError::OutcomeUnknown);
            }
            Outcome::OutcomeUnknown => {
                self.slab.get_mut(index).maybe_applied = kind == Kind::Write;
                self.again(index);
                self.routing.forget_leader(group, asked);
                self.pause(group, 0, now_us);
            }
        }
        self.pump(group, now_us);
    }

    fn again(&mut self, index: u32) {
        self.statistics.retries += 1;
        self.wait(index, true);
    }

    fn session_expired(&mut self, index: u32, group: u32, maybe_applied: bool) {
        let generation = self.slab.get(index).session_generation;
        self.routing.groups[group as usize].session.expired(generation);
        if maybe_applied {
            self.fail(index, ClientError::SessionExpired);
        } else {
            // This try was refused and no earlier one was sent: a new session may number it anew.
            self.slab.get_mut(index).sequence = 0;
            self.again(index);
        }
    }

    /// The group lives on another shard than this client thought.
    fn moved(&mut self, group: u32, node: u64, shard: u16, address: &str, now_us: u64) {
        self.statistics.redirects += 1;
        if self.routing.place_of(node).is_none() {
            self.look_again(now_us);
        }
        if shard >= self.routing.shards || self.routing.groups[group as usize].shard == shard {
            // It says nothing new: the two sides disagree, which time may heal.
            return self.pause(group, 0, now_us);
        }
        let state = &mut self.routing.groups[group as usize];
        state.shard = shard;
        let endpoint = self.routing.find(node, shard);
        if let (Some(endpoint), Some(address)) = (endpoint, Address::parse(address)) {
            self.routing.endpoints[endpoint as usize].address = Some(address);
        }
        let state = &mut self.routing.groups[group as usize];
        state.attempts += 1;
        if state.attempts > REDIRECTS_AT_ONCE {
            self.pause(group, 0, now_us);
        }
    }
}
