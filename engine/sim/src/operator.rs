//! The operator: adds, removes and replaces nodes while everything else goes on.
//!
//! Off the data path.
//! He asks by the frames of `ringraft join` and `ringraft remove`, of whoever seems to lead group 0, and asks again until it
//! is done: answers get lost, leaders change, nodes die.
//!
//! ```text
//!   add, replace:  data folder with the topology somebody shows -> asked until granted -> the new node is started
//!   remove:        asked until granted -> the node empties itself, hears that it was removed, and stops
//!   burnt:         the machine and its disk are gone -> replace
//! ```
//!
//! Invariants: one change is asked for at a time; a node that was removed or burnt never returns under its id; no machine
//! burns before the cluster has removed the one that burnt before (`plan/members.rs`).

use std::collections::VecDeque;
use std::sync::Arc;

use ringraft_engine::shard::clients::ConnectionId;
use ringraft_engine::topology::Topology;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, AdminRefusal, AdminReply, AdminRequest};
use ringraft_raft::Role;

use crate::checkers::Violation;
use crate::disk::{Ending, Medium};
use crate::events::Event;
use crate::node::{Lost, State};
use crate::plan::Plan;
use crate::random::Random;
use crate::world::{Checked, World};

/// What the operator may be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Add,
    Remove,
    Replace,
    /// A machine burns down and is replaced.
    ReplaceBurnt,
}

/// What he is doing, by places of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    Add { new: usize },
    Remove { old: usize },
    Replace { old: usize, new: usize },
}

/// A question to a node that waits for its answer.
#[derive(Debug)]
struct Question {
    node: usize,
    incarnation: u32,
    connection: ConnectionId,
    received: Vec<u8>,
    until_us: u64,
}

/// The operator.
#[derive(Debug)]
pub(crate) struct Operator {
    random: Random,
    /// Places of the nodes that are to stay.
    members: Vec<usize>,
    wishes: VecDeque<Wish>,
    next_wish_us: u64,
    job: Option<Job>,
    question: Option<Question>,
    correlation: u32,
}

/// Group 0 lives in this shard.
const CONTROL_SHARD: usize = 0;
/// He asks somebody else then.
const PATIENCE_US: u64 = 6_000_000;
/// Between two looks.
const STEP_US: u64 = 150_000;

impl Operator {
    pub(crate) fn new(plan: &Plan) -> Self {
        Self {
            random: Random::stream(plan.seed, "operator"),
            members: (0..plan.founders).collect(),
            wishes: VecDeque::new(),
            next_wish_us: plan.faults_from_us,
            job: None,
            question: None,
            correlation: 0,
        }
    }

    /// A script wants something done.
    pub(crate) fn wish(&mut self, wish: Wish) {
        self.wishes.push_back(wish);
    }

    /// Nothing is under way or wished for.
    pub(crate) fn is_idle(&self) -> bool {
        self.job.is_none() && self.wishes.is_empty()
    }

    fn has_asked(&self, node: usize, incarnation: u32, connection: ConnectionId) -> bool {
        self.question.as_ref().is_some_and(|question| {
            (question.node, question.incarnation, question.connection) == (node, incarnation, connection)
        })
    }

    /// Draws something to do, now and then.
    fn think(&mut self, plan: &Plan, now_us: u64) {
        let Some(members) = &plan.members else { return };
        if now_us < self.next_wish_us || members.jobs.iter().all(|weight| *weight == 0) {
            return;
        }
        self.next_wish_us = now_us + self.random.waiting_us(members.pause_us);
        let all = [Wish::Add, Wish::Remove, Wish::Replace, Wish::ReplaceBurnt];
        if let Some(drawn) = self.random.weighted(&members.jobs) {
            self.wishes.push_back(all[drawn]);
        }
    }
}

impl World {
    /// The newest topology that any process knows.
    pub(crate) fn newest_topology(&self) -> Option<&Arc<Topology>> {
        let hosts = self.nodes.iter().filter_map(|node| node.process.as_ref()).flat_map(|process| &process.hosts);
        hosts.map(|host| host.shard.topology()).max_by_key(|topology| topology.epoch())
    }

    /// The operator looks what there is to do.
    pub(crate) fn operator(&mut self) -> Checked {
        let now_us = self.now_us();
        let pause_us = STEP_US + self.operator.random.below(2 * STEP_US);
        self.events.after(pause_us, Event::Operator);
        if let Some(question) = &self.operator.question {
            let waits = now_us < question.until_us && self.nodes[question.node].is(question.incarnation);
            if waits {
                return Ok(());
            }
            self.hang_up();
        }
        if self.operator.job.is_none() {
            if !self.weather.over {
                self.operator.think(&self.plan, now_us);
            }
            if let Some(wish) = self.operator.wishes.pop_front() {
                self.begin_job(wish)?;
            }
        }
        if let Some(job) = self.operator.job {
            self.ask(job);
        }
        Ok(())
    }

    /// Begins what is wished for, if it may be done.
    fn begin_job(&mut self, wish: Wish) -> Checked {
        let Some(newest) = self.newest_topology().map(Arc::clone) else { return Ok(()) };
        let members = self.operator.members.clone();
        let floor = self.plan.members.as_ref().map_or(1, |members| members.floor);
        let new = self.nodes.iter().position(|node| !node.born);
        let may_burn = |node: usize| self.nodes[node].lost.is_none() || newest.removed().contains(&(node as u64 + 1));
        let one_burns = wish != Wish::ReplaceBurnt || (members.len() >= 3 && (0..self.plan.nodes).all(may_burn));
        // What a newcomer took over goes back to where it was.
        let newest_goes = wish == Wish::Remove && self.operator.random.chance(500_000);
        let old = members.last().copied().filter(|_| newest_goes).unwrap_or_else(|| self.somebody(&members));
        let job = match (wish, new) {
            (Wish::Remove, _) => (members.len() > floor).then_some(Job::Remove { old }),
            (Wish::Add, Some(new)) => Some(Job::Add { new }),
            (Wish::Replace | Wish::ReplaceBurnt, Some(new)) => one_burns.then_some(Job::Replace { old, new }),
            (_, None) => None,
        };
        let Some(job) = job else { return Ok(()) };
        self.note(format_args!("operator: {wish:?}, {job:?}"));
        self.operator.job = Some(job);
        if let Job::Add { new } | Job::Replace { new, .. } = job {
            self.make_folder(new, newest);
        }
        if wish == Wish::ReplaceBurnt {
            self.burn(old)?;
        }
        Ok(())
    }

    /// A member, often whoever leads group 0.
    fn somebody(&mut self, members: &[usize]) -> usize {
        let leader = self.control_leader().filter(|leader| members.contains(leader));
        let any = *self.operator.random.pick(members);
        leader.filter(|_| self.operator.random.chance(350_000)).unwrap_or(any)
    }

    fn control_leader(&self) -> Option<usize> {
        let leads = |place: &usize| {
            let hosts = self.nodes[*place].process.iter().flat_map(|process| &process.hosts);
            hosts.flat_map(|host| host.shard.group_views()).any(|view| view.group == 0 && view.role == Role::Leader)
        };
        (0..self.nodes.len()).find(leads)
    }

    /// The data folder of a node that is to join.
    fn make_folder(&mut self, new: usize, topology: Arc<Topology>) {
        let instance = self.operator.random.number() | 1;
        let place = &mut self.nodes[new];
        (place.born, place.instance, place.kept) = (true, instance, topology);
        if self.operator.random.chance(150_000) {
            self.start_after(new, 1_000); // nobody waits for the cluster's answer
        }
    }

    /// A machine and its disk are gone.
    fn burn(&mut self, node: usize) -> Checked {
        self.statistics.nodes_burnt += 1;
        self.end_process(node, Ending::PowerLost, None)?;
        let place = &mut self.nodes[node];
        place.lost = Some(Lost::Burnt);
        place.refused = Some(String::from("it burnt down"));
        place.media.iter_mut().for_each(Medium::wipe);
        Ok(())
    }

    /// Asks somebody who may know for what the job needs.
    fn ask(&mut self, job: Job) {
        let running: Vec<usize> =
            (0..self.nodes.len()).filter(|node| self.nodes[*node].state == State::Running).collect();
        if running.is_empty() {
            return;
        }
        let any = *self.operator.random.pick(&running);
        let asks_leader = self.operator.random.chance(800_000);
        let leader = self.control_leader().filter(|leader| asks_leader && running.contains(leader));
        let node = leader.unwrap_or(any);
        let (number, addresses) = (|place: usize| place as u64 + 1, |place| self.plan.addresses(place));
        let request = match job {
            Job::Add { new } => AdminRequest::AddNode {
                node: number(new),
                addresses: addresses(new),
                instance: self.nodes[new].instance,
            },
            Job::Remove { old } => AdminRequest::RemoveNode { node: number(old) },
            Job::Replace { old, new } => AdminRequest::ReplaceNode {
                old: number(old),
                node: number(new),
                addresses: addresses(new),
                instance: self.nodes[new].instance,
            },
        };
        self.operator.correlation += 1;
        let (mut bytes, mut received) = (Vec::new(), ReceiveBuffer::new());
        request.append_frame(&mut bytes, self.operator.correlation);
        received.extend(&bytes);
        let (incarnation, until_us) = (self.nodes[node].incarnation, self.now_us() + PATIENCE_US);
        let Some(host) = self.nodes[node].host(incarnation, CONTROL_SHARD) else { return };
        let Some(connection) = host.shard.clients().open() else { return };
        host.shard.client_bytes(connection, &mut received).expect("a good frame is taken");
        self.operator.question = Some(Question { node, incarnation, connection, received: Vec::new(), until_us });
        self.raise(node, CONTROL_SHARD);
    }

    fn hang_up(&mut self) {
        let Some(Question { node, incarnation, connection, .. }) = self.operator.question.take() else { return };
        if let Some(host) = self.nodes[node].host(incarnation, CONTROL_SHARD) {
            host.shard.clients().close(connection);
        }
    }

    /// A node has replies for a connection; whether it is the operator's, who reads them, unless they get lost.
    pub(crate) fn operator_hears(&mut self, node: usize, connection: ConnectionId) -> Result<bool, Violation> {
        let incarnation = self.nodes[node].incarnation;
        if !self.operator.has_asked(node, incarnation, connection) {
            return Ok(false);
        }
        let mut bytes = Vec::new();
        if let Some(host) = self.nodes[node].host(incarnation, CONTROL_SHARD) {
            host.shard.clients().take_outgoing(connection, &mut bytes);
        }
        let Some(question) = &mut self.operator.question else { return Ok(true) };
        question.received.extend_from_slice(&bytes);
        let Ok(Some(answer)) = frame::parse(&question.received, &Limits::CLIENT) else { return Ok(true) };
        let correlation = self.operator.correlation;
        if answer.kind != FrameKind::AdminReply || answer.correlation != correlation {
            return Err(Violation::new("operators are answered", format!("with a {:?} frame", answer.kind)));
        }
        let reply = wire::view_admin_reply(answer.head);
        let reply = reply.map_err(|error| Violation::new("operators are answered", error.to_string()))?;
        self.hang_up();
        if self.operator.random.chance(100_000) {
            return Ok(true); // it is lost: he asks again
        }
        self.answered(reply)?;
        Ok(true)
    }

    fn answered(&mut self, reply: AdminReply) -> Checked {
        let Some(job) = self.operator.job else { return Ok(()) };
        match reply {
            AdminReply::Topology { text, .. } => {
                let topology = Topology::decode(text.as_bytes());
                topology.map_err(|error| Violation::new("operators are answered", error.to_string()))?;
                self.granted(job);
                Ok(())
            }
            AdminReply::NotLeader { .. } | AdminReply::Moved { .. } => Ok(()),
            AdminReply::Refused { code: AdminRefusal::TimedOut | AdminRefusal::Pending, .. } => Ok(()),
            other => Err(Violation::new("operators may do what is allowed", format!("{job:?}: {other:?}"))),
        }
    }

    fn granted(&mut self, job: Job) {
        self.note(format_args!("operator: granted, {job:?}"));
        self.operator.job = None;
        let (new, old) = match job {
            Job::Add { new } => (Some(new), None),
            Job::Remove { old } => (None, Some(old)),
            Job::Replace { old, new } => (Some(new), Some(old)),
        };
        if let Some(old) = old {
            self.operator.members.retain(|member| *member != old);
            self.statistics.nodes_removed += 1;
        }
        if let Some(new) = new {
            self.operator.members.push(new);
            self.statistics.nodes_added += 1;
            if self.nodes[new].state == State::Down {
                let delay_us = self.operator.random.magnitude(1_000, 500_000);
                self.start_after(new, delay_us);
            }
        }
    }
}
