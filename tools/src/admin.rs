//! Questions of an operator: to the leader of a group, wherever it is, or to a node, whichever shard answers there.
//!
//! Off the data path.
//! Invariants: every question has a deadline; a question whose connection broke before the answer is not asked again
//! here, since only the caller knows whether that is safe; the nodes are those of the newest topology that was seen.
//! What it does not do: judge answers. A refusal is an answer like others.

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use ringraft_engine::topology::{NodeState, Topology};
use ringraft_net::slots;
use ringraft_net::wire::{self, AdminReply, AdminRequest, NodeInfo};

use crate::probe::{Connection, PATIENCE};

/// Between two questions for a leader, and between two looks at the topology.
const PAUSE: Duration = Duration::from_millis(50);

/// Where everything is, as the first of these addresses that answers tells.
///
/// # Errors
/// When none answers; the error has all reasons.
pub fn welcome(endpoints: &[String]) -> Result<wire::Topology> {
    let mut errors = Vec::new();
    for endpoint in endpoints {
        match Connection::open(endpoint) {
            Ok((_, welcome)) => return Ok(welcome.topology),
            Err(error) => errors.push(format!("{endpoint}: {error:#}")),
        }
    }
    bail!("no endpoint answers: {}", errors.join("; "))
}

/// Asks one node after the other until one leads the group; `None`: the connection broke while the leader was at it.
///
/// # Errors
/// When no leader is found by the deadline.
pub fn ask_leader(
    mut topology: wire::Topology,
    group: u32,
    request: &AdminRequest,
    deadline: Instant,
) -> Result<Option<AdminReply>> {
    let shard = slots::shard_of_group(group, topology.shards);
    let mut leader = topology.leaders.get(group as usize).copied().flatten();
    let mut problem = String::from("nobody was asked");
    for turn in 0.. {
        let rest = deadline.saturating_duration_since(Instant::now());
        if rest.is_zero() {
            bail!("no leader of group {group} was found in time: {problem}");
        }
        let any = topology.nodes.get(turn % topology.nodes.len().max(1)).context("the cluster shows no nodes")?;
        let node = topology.nodes.iter().find(|node| Some(node.node) == leader).unwrap_or(any);
        let (asked, address) = (node.node, address_of(node, shard)?.to_owned());
        leader = None;
        match Connection::open(&address) {
            Ok((mut connection, welcome)) => {
                connection.set_patience(rest)?;
                let Ok(reply) = connection.administrate(request) else { return Ok(None) };
                let AdminReply::NotLeader { leader: known, .. } = reply else { return Ok(Some(reply)) };
                problem = format!("node {asked} does not lead it");
                leader = known.filter(|known| *known != asked);
                // It may name a node that joined since.
                topology = newer(topology, welcome.topology);
            }
            Err(error) => problem = format!("{address}: {error:#}"),
        }
        if leader.is_none() {
            thread::sleep(PAUSE.min(rest));
        }
    }
    unreachable!("the loop ends by the deadline")
}

fn newer(known: wire::Topology, shown: wire::Topology) -> wire::Topology {
    if shown.epoch > known.epoch && shown.shards == known.shards && !shown.nodes.is_empty() { shown } else { known }
}

fn address_of(node: &NodeInfo, shard: u16) -> Result<&str> {
    let address = node.addresses.get(usize::from(shard)).map(String::as_str);
    address.with_context(|| format!("node {} has no shard {shard}", node.node))
}

/// Asks the node behind an address; its other shard if it says so.
///
/// # Errors
/// When it does not answer in time.
pub fn ask_node(address: &str, request: &AdminRequest, patience: Duration) -> Result<AdminReply> {
    let (mut connection, welcome) = Connection::open(address)?;
    connection.set_patience(patience)?;
    let reply = connection.administrate(request)?;
    let AdminReply::Moved { shard, .. } = reply else { return Ok(reply) };
    let node = welcome.topology.nodes.iter().find(|node| node.node == welcome.node);
    let address = address_of(node.context("it is not part of the topology it shows")?, shard)?;
    let (mut connection, _) = Connection::open(address)?;
    connection.set_patience(patience)?;
    connection.administrate(request)
}

/// The topology as a node knows it, and the settings all nodes share.
#[derive(Clone, Debug)]
pub struct View {
    /// The nodes, and where each group is to be.
    pub topology: Topology,
    /// Key and value.
    pub shared: Vec<(String, String)>,
}

impl View {
    fn of(reply: AdminReply) -> Result<Self> {
        match reply {
            AdminReply::Topology { text, shared } => Ok(Self { topology: Topology::decode(text.as_bytes())?, shared }),
            AdminReply::Refused { message, .. } => bail!("{message}"),
            other => bail!("answered with {other:?}"),
        }
    }

    /// One address of each node: that of its first shard.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.topology.nodes().iter().filter_map(|node| node.addresses.first().cloned()).collect()
    }

    /// An id that no node ever had: ids are not used again.
    #[must_use]
    pub fn unused_id(&self) -> u64 {
        let nodes = self.topology.nodes().iter().map(|node| node.id.0);
        nodes.chain(self.topology.removed().iter().copied()).max().unwrap_or(0) + 1
    }
}

/// A look at the topology again and again: the newest that any of the nodes tells.
#[derive(Debug)]
pub struct Watch {
    endpoints: BTreeSet<String>,
    newest: Option<View>,
}

impl Watch {
    /// Begins with these addresses; the others are learnt.
    #[must_use]
    pub fn new(endpoints: &[String]) -> Self {
        Self { endpoints: endpoints.iter().cloned().collect(), newest: None }
    }

    /// Asks all nodes at once for the topology.
    ///
    /// # Errors
    /// When none of them tells one.
    pub fn look(&mut self) -> Result<&View> {
        let answers: Vec<(&String, Result<View>)> = thread::scope(|scope| {
            let ask = |address: &str| ask_node(address, &AdminRequest::Topology, PATIENCE).and_then(View::of);
            let asked: Vec<_> =
                self.endpoints.iter().map(|address| (address, scope.spawn(move || ask(address)))).collect();
            let joined = |thread: thread::ScopedJoinHandle<'_, Result<View>>| match thread.join() {
                Ok(answer) => answer,
                Err(_) => Err(anyhow::anyhow!("panicked")),
            };
            asked.into_iter().map(|(address, thread)| (address, joined(thread))).collect()
        });
        let mut errors = Vec::new();
        let mut seen = None::<View>;
        for (address, answer) in answers {
            match answer {
                Ok(view) if seen.as_ref().is_none_or(|seen| view.topology.epoch() > seen.topology.epoch()) => {
                    seen = Some(view);
                }
                Ok(_) => {}
                Err(error) => errors.push(format!("{address}: {error:#}")),
            }
        }
        let seen = seen.with_context(|| format!("no node tells the topology: {}", errors.join("; ")))?;
        self.endpoints.extend(seen.endpoints());
        let newest = self.newest.take().filter(|newest| newest.topology.epoch() >= seen.topology.epoch());
        Ok(self.newest.insert(newest.unwrap_or(seen)))
    }

    /// Addresses to ask.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        match &self.newest {
            Some(view) => view.endpoints(),
            None => self.endpoints.iter().cloned().collect(),
        }
    }
}

/// What a change of nodes ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// The node has caught up.
    Active(u64),
    /// The node is no more part of the cluster.
    Removed(u64),
}

impl Goal {
    /// What is to come of a change; nothing of other requests.
    #[must_use]
    pub fn of(request: &AdminRequest) -> Vec<Self> {
        match request {
            AdminRequest::AddNode { node, .. } => vec![Self::Active(*node)],
            AdminRequest::RemoveNode { node } => vec![Self::Removed(*node)],
            AdminRequest::ReplaceNode { old, node, .. } => vec![Self::Active(*node), Self::Removed(*old)],
            AdminRequest::Transfer { .. }
            | AdminRequest::Snapshot { .. }
            | AdminRequest::Topology
            | AdminRequest::Reload => Vec::new(),
        }
    }

    /// Whether it is so.
    #[must_use]
    pub fn is_reached(self, topology: &Topology) -> bool {
        let state = |id| topology.nodes().iter().find(|node| node.id.0 == id).map(|node| node.state);
        match self {
            Self::Active(id) => state(id) == Some(NodeState::Active),
            Self::Removed(id) => state(id).is_none(),
        }
    }

    /// How far it is, for people.
    #[must_use]
    pub fn progress(self, topology: &Topology) -> String {
        let (Self::Active(id) | Self::Removed(id)) = self;
        let Some(node) = topology.nodes().iter().find(|node| node.id.0 == id) else {
            let gone = matches!(self, Self::Removed(_)) || topology.removed().contains(&id);
            return if gone { format!("node {id} is removed") } else { format!("node {id} is not there yet") };
        };
        let groups = groups_of(topology, id);
        match node.state {
            NodeState::Joining => format!("node {id} joins, {groups} group(s) are to be on it"),
            NodeState::Active => format!("node {id} is active, {groups} group(s) are to be on it"),
            NodeState::Leaving => format!("node {id} leaves, {groups} group(s) are planned on it still"),
        }
    }
}

/// The groups that are to have a replica on a node, as voters.
#[must_use]
pub fn groups_of(topology: &Topology, id: u64) -> usize {
    let groups = (0..topology.groups()).map(ringraft_raft::GroupId);
    groups.filter(|group| topology.replicas(*group).iter().any(|node| node.0 == id)).count()
}

/// What became of a change of nodes that was asked for.
#[derive(Debug)]
pub enum Changed {
    /// It is decided; it goes on by itself.
    Accepted,
    /// It was not done.
    Refused(AdminReply),
}

/// Asks the leader of group 0 for a change of nodes, again when a connection breaks: the second time changes nothing.
///
/// # Errors
/// When no leader answers by the deadline.
pub fn change_nodes(endpoints: &[String], request: &AdminRequest, deadline: Instant) -> Result<Changed> {
    loop {
        match ask_leader(welcome(endpoints)?, 0, request, deadline)? {
            Some(AdminReply::Refused { code, .. }) if code.is_retryable() && Instant::now() < deadline => {}
            Some(refused @ AdminReply::Refused { .. }) => return Ok(Changed::Refused(refused)),
            Some(AdminReply::Topology { .. }) => return Ok(Changed::Accepted),
            Some(other) => bail!("answered with {other:?}"),
            None if Instant::now() < deadline => {}
            None => bail!("every connection broke before the answer; the change may have been decided"),
        }
        thread::sleep(PAUSE);
    }
}

/// Looks at the topology until a change is complete; `false`: not by the deadline. `tell` gets a line for each step.
///
/// # Errors
/// When no node tells the topology for as long.
pub fn wait_for(watch: &mut Watch, goals: &[Goal], deadline: Instant, mut tell: impl FnMut(&str)) -> Result<bool> {
    let mut told = String::new();
    loop {
        match watch.look() {
            Ok(view) => {
                let topology = &view.topology;
                let steps: Vec<String> = goals.iter().map(|goal| goal.progress(topology)).collect();
                let line = format!("epoch {}: {}", topology.epoch(), steps.join("; "));
                if line != told {
                    tell(&line);
                    told = line;
                }
                if goals.iter().all(|goal| goal.is_reached(topology)) {
                    return Ok(true);
                }
            }
            Err(error) if Instant::now() >= deadline => return Err(error),
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use ringraft_raft::NodeId;

    use super::*;

    fn three() -> Topology {
        let nodes = (1..=3).map(|id| (NodeId(id), vec![format!("10.0.0.{id}:7100")]));
        Topology::initial(nodes, 4, 1, 3).unwrap()
    }

    #[test]
    fn goals_follow_a_node_through_its_life() {
        let addresses = ["10.0.0.4:7100".to_owned()];
        let add = AdminRequest::AddNode { node: 4, addresses: addresses.to_vec(), instance: 0 };
        let (active, removed) = (Goal::of(&add)[0], Goal::of(&AdminRequest::RemoveNode { node: 3 })[0]);
        let before = three();
        assert!(!active.is_reached(&before) && active.progress(&before).contains("not there yet"));
        let joining = before.add(NodeId(4), &addresses, 0).unwrap().unwrap();
        assert!(!active.is_reached(&joining) && active.progress(&joining).contains("node 4 joins"));
        let leaving = joining.remove(NodeId(3)).unwrap().unwrap();
        assert!(!removed.is_reached(&leaving), "its groups are on it still");
        assert!(removed.progress(&leaving).contains("node 3 leaves, 4 group(s)"), "{}", removed.progress(&leaving));
        assert!(Goal::Active(1).is_reached(&leaving) && Goal::Removed(9).is_reached(&leaving));
    }

    #[test]
    fn an_id_is_never_given_twice() {
        let text = String::from_utf8(three().encode()).unwrap();
        let removed = text.replace("\"removed\":[]", "\"removed\":[7]");
        for (text, id) in [(text, 4), (removed, 8)] {
            let view = View::of(AdminReply::Topology { text, shared: Vec::new() }).unwrap();
            assert_eq!(view.unused_id(), id);
            assert_eq!(view.endpoints(), ["10.0.0.1:7100", "10.0.0.2:7100", "10.0.0.3:7100"]);
        }
    }

    #[test]
    fn what_is_no_topology_is_told() {
        let refused = AdminReply::Refused { code: wire::AdminRefusal::NotAllowed, message: "not here".to_owned() };
        assert_eq!(View::of(refused).unwrap_err().to_string(), "not here");
        assert!(View::of(AdminReply::Topology { text: "{}".to_owned(), shared: Vec::new() }).is_err());
    }
}
