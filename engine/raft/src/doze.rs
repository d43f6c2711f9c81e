//! A core that sleeps: what heartbeats need of an idle replica, in a few words, so that the replica need not be looked at.
//!
//! Off the data path.
//!
//! ```text
//!   doze() ──> Doze ── tick, step ──> heartbeats, answers         the core itself stands still meanwhile
//!                └── Wakes: wake(doze, ticks), then the same event for the core
//! ```
//!
//! Relations: a core that dozed and was woken is in the very state, and has said the very messages, of one that took every
//! tick and message itself, with a `ready` after each; whatever a doze cannot do exactly wakes the core first.
//!
//! Deliberately absent: anything but heartbeats, their answers and the counting of ticks between them.

use crate::{
    core::{Leader, Outbox, RaftCore, RoleState},
    ids::{Index, NodeId, Term},
    lease::Heard,
    message::Message,
    mutants::{Mutant, is_active},
    pace,
    progress::Progress,
};

/// Leaders with more other members do not doze.
pub const DOZE_PEERS_MAX: usize = 4;

/// The words.
#[derive(Clone, Copy, Debug)]
pub struct Doze {
    term: Term,
    commit_index: Index,
    part: Part,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Follower(Following),
    Leader(Leading),
}

/// Ticks are counted from the one the core fell asleep with.
#[derive(Clone, Copy, Debug)]
struct Following {
    leader: NodeId,
    last_index: Index,
    shield_us: u64,
    /// The tick of its last heartbeat.
    heard: Option<u64>,
    /// The tick of the election timeout if none is heard.
    due: u64,
    election_timeout: u32,
}

#[derive(Clone, Copy, Debug)]
struct Leading {
    closed_sequence: u64,
    observed_us: u64,
    /// The tick of the next heartbeats.
    due: u64,
    heartbeat_ticks: u32,
    patience: u32,
    count: usize,
    peers: [Peer; DOZE_PEERS_MAX],
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    id: NodeId,
    heard: Heard,
    /// Ticks of silence when the core fell asleep.
    silent: u32,
    /// The tick of its last answer since.
    answered: Option<u64>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Dozed {
    /// It is for the core itself, which is to be woken.
    Wakes,
    /// It was taken.
    Quiet,
    /// It was taken, and this is the answer.
    Says(Message),
}

impl RaftCore {
    /// What sleeps in the place of this core, if it is idle: to be asked for when a `ready` was taken. Until
    /// [`RaftCore::wake`] nothing else may be done with the core; it may be looked at, and shows what it knew.
    #[must_use]
    pub fn doze(&self) -> Option<Doze> {
        let (term, commit_index) = (self.hard_state.current_term, self.commit_index);
        let part = match &self.role {
            _ if !self.term_is_durable() || !self.outbox.is_empty() => return None,
            RoleState::Follower(follower) => Part::Follower(Following {
                leader: follower.leader?,
                last_index: self.log.last().index,
                shield_us: self.shield_us(),
                heard: None,
                due: u64::from(self.election_timeout.saturating_sub(self.election_elapsed)).max(1),
                election_timeout: self.election_timeout,
            }),
            RoleState::Leader(leader) => Part::Leader(self.leading(leader)?),
            RoleState::PreCandidate(_) | RoleState::Candidate(_) => return None,
        };
        Some(Doze { term, commit_index, part })
    }

    /// A leader dozes when every member has everything and answered the last read round.
    fn leading(&self, leader: &Leader) -> Option<Leading> {
        let Leader { peers, heartbeat_due, heartbeat_elapsed, reads, transfer, left_joint, .. } = leader;
        let last_index = self.log.last().index;
        let waits = *heartbeat_due || reads.open || !reads.waiting.is_empty() || transfer.is_some() || *left_joint > 0;
        let has_all = |peer: &Progress| {
            peer.match_index == last_index && peer.is_idle() && peer.read_sequence == reads.closed_sequence
        };
        if waits
            || self.commit_index < last_index
            || self.memberships.current().is_joint()
            || *heartbeat_elapsed != self.heartbeat_phase()
            || peers.len() > DOZE_PEERS_MAX
            || !peers.iter().all(has_all)
            || is_active(Mutant::LeaseIgnoresPauses)
        {
            return None;
        }
        let nobody = Peer { id: self.config.id, heard: Heard::default(), silent: 0, answered: None };
        let mut found = [nobody; DOZE_PEERS_MAX];
        for (place, peer) in found.iter_mut().zip(peers) {
            let silent = u32::try_from(self.now - peer.heard_tick).ok()?;
            *place = Peer { id: peer.id, heard: peer.heard, silent, answered: None };
        }
        Some(Leading {
            closed_sequence: reads.closed_sequence,
            observed_us: self.observed_us,
            due: u64::from(self.config.heartbeat_ticks - *heartbeat_elapsed),
            heartbeat_ticks: self.config.heartbeat_ticks,
            patience: self.config.election_ticks_max,
            count: peers.len(),
            peers: found,
        })
    }

    /// Ends the sleep of a core that fell asleep `ticks` ago.
    pub fn wake(&mut self, doze: &Doze, ticks: u64) {
        let fell_asleep = self.now;
        self.now += ticks;
        let phase = self.heartbeat_phase();
        match (&doze.part, &mut self.role) {
            (Part::Follower(following), RoleState::Follower(_)) => {
                let slept = ticks - following.heard.unwrap_or(0);
                match following.heard {
                    Some(heard) => {
                        self.heard_tick = Some(fell_asleep + heard);
                        self.election_elapsed = slept as u32;
                    }
                    None => self.election_elapsed += slept as u32,
                }
            }
            (Part::Leader(leading), RoleState::Leader(leader)) => {
                self.observed_us = self.observed_us.max(leading.observed_us);
                leader.heartbeat_elapsed = phase;
                for tick in 1..=ticks.min(pace::TICKS_TO_REST) {
                    leader.tick_pace(fell_asleep + tick, &self.log, self.commit_index, &self.config);
                }
                for (peer, slept) in leader.peers.iter_mut().zip(leading.peers) {
                    peer.heard = slept.heard;
                    if let Some(answered) = slept.answered {
                        peer.heard_tick = fell_asleep + answered;
                        peer.answered_heartbeat(peer.heard_tick);
                    }
                }
            }
            _ => debug_assert!(false, "a core does not change while it sleeps"),
        }
        self.check();
    }
}

impl Doze {
    /// The tick, counted from the one the core fell asleep with, that has to be told by [`Doze::tick`]; none before it has.
    #[must_use]
    pub fn due(&self) -> u64 {
        match &self.part {
            Part::Follower(following) => match following.heard {
                Some(heard) => heard + u64::from(following.election_timeout),
                None => following.due,
            },
            Part::Leader(leading) => leading.due.min(leading.silence()),
        }
    }

    /// The tick `ticks` after the one the core fell asleep with: sends heartbeats that are due. `false`: the core is to be
    /// woken as of the tick before, and takes this one itself.
    pub fn tick(&mut self, ticks: u64, now_us: u64, mut send: impl FnMut(NodeId, Message)) -> bool {
        if ticks < self.due() {
            return true;
        }
        let Part::Leader(leading) = &mut self.part else { return false };
        if ticks >= leading.silence() {
            return false;
        }
        leading.due += u64::from(leading.heartbeat_ticks);
        leading.observed_us = leading.observed_us.max(now_us);
        let (term, leader_commit) = (self.term, self.commit_index);
        let (read_sequence, sent_us) = (leading.closed_sequence, leading.observed_us);
        for peer in &leading.peers[..leading.count] {
            send(peer.id, Message::Heartbeat { term, leader_commit, read_sequence, sent_us });
        }
        true
    }

    /// A message came, `ticks` after the core fell asleep.
    pub fn step(&mut self, ticks: u64, from: NodeId, message: &Message) -> Dozed {
        let term = self.term;
        match (&mut self.part, *message) {
            (Part::Follower(following), Message::Heartbeat { term: of, leader_commit, read_sequence, sent_us })
                if of == term
                    && following.leader == from
                    && leader_commit.min(following.last_index) <= self.commit_index =>
            {
                following.heard = Some(ticks);
                Dozed::Says(Message::HeartbeatResponse { term, read_sequence, sent_us, shield_us: following.shield_us })
            }
            // Every round was answered: an answer confirms nothing.
            (Part::Leader(leading), Message::HeartbeatResponse { term: of, sent_us, shield_us, .. }) if of == term => {
                let observed_us = leading.observed_us;
                let Some(peer) = leading.peers[..leading.count].iter_mut().find(|peer| peer.id == from) else {
                    return Dozed::Wakes;
                };
                peer.answered = Some(ticks);
                if sent_us > peer.heard.sent_us && sent_us <= observed_us {
                    peer.heard = Heard { sent_us, shield_us };
                }
                Dozed::Quiet
            }
            _ => Dozed::Wakes,
        }
    }
}

impl Leading {
    /// The tick with which the first peer has been silent for too long.
    fn silence(&self) -> u64 {
        let patience = u64::from(self.patience);
        let until = |peer: &Peer| match peer.answered {
            Some(answered) => answered + patience,
            None => patience.saturating_sub(u64::from(peer.silent)),
        };
        self.peers[..self.count].iter().map(until).min().unwrap_or(u64::MAX)
    }
}

impl Outbox {
    /// Nothing waits for a `ready`, but what the host may be told of role, term and commit index.
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.after_flush.is_empty()
            && self.append_response.is_none()
            && self.noop.is_none()
            && self.reads.is_empty()
            && !self.reads_failed
            && self.snapshots.is_empty()
            && self.membership_due.is_none()
    }
}
