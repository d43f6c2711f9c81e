//! Nodes that join and leave a local cluster.
//!
//! Off the data path.
//! Invariants: `cluster.json` has a node before its process is started, and until its process is gone; ids are not used
//! again; founding nodes keep being started with the peers they were founded with.
//! What it does not do: decide whether a change is safe. The cluster does.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringraft_engine::topology::Topology;
use ringraft_net::wire::AdminRequest;
use rustix::process::Signal;

use crate::admin::{self, Changed, Goal, Watch};
use crate::local_cluster::{LocalCluster, NodeEntry};
use crate::ports;

/// How long a process may take to end once its node is removed.
const END_PATIENCE: Duration = Duration::from_secs(10);
/// How long the decision about a change may take.
const DECISION_PATIENCE: Duration = Duration::from_secs(30);

/// A node can take the place of one that is there.
fn check_replaced(topology: &Topology, replaced: Option<u64>) -> Result<()> {
    let Some(old) = replaced else { return Ok(()) };
    let ids = topology.nodes().iter().map(|node| node.id.0.to_string()).collect::<Vec<_>>().join(", ");
    let node = topology.nodes().iter().find(|node| node.id.0 == old);
    node.with_context(|| format!("there is no node {old} to replace; the cluster has {ids}"))?;
    Ok(())
}

impl LocalCluster {
    /// Starts one more node, which joins, or takes the place of `replaced`; returns its id when it is active (and the
    /// other one is removed). `tell` gets a line for each step.
    ///
    /// # Errors
    /// When the cluster does not take it in, or it is not complete in time.
    pub fn add_node(&mut self, replaced: Option<u64>, patience: Duration, tell: impl FnMut(&str)) -> Result<u64> {
        let mut watch = Watch::new(&self.file().endpoints());
        let view = watch.look()?;
        check_replaced(&view.topology, replaced)?;
        let (id, shards) = (self.unused_id(view.unused_id()), self.file().shards);
        let first = ports::free_run(shards)?;
        let addresses = (0..shards).map(|shard| format!("127.0.0.1:{}", first + shard)).collect();
        let has_http = self.file().nodes.iter().any(|node| node.http.is_some());
        let http = if has_http { Some(format!("127.0.0.1:{}", ports::free_run(1)?)) } else { None };
        let arguments = Vec::new();
        self.insert(NodeEntry { id, pid: None, addresses, http, namespace: None, joined: true, arguments })?;
        self.start_joining(id, replaced)?;
        let goals: Vec<Goal> = [Goal::Active(id)].into_iter().chain(replaced.map(Goal::Removed)).collect();
        let deadline = Instant::now() + patience;
        if let Err(error) = self.complete(&mut watch, &goals, Some(id), deadline, tell) {
            // Nobody who tells the topology: it may have been taken in.
            if self.running_pid(id).is_none()
                && let Ok(view) = watch.look()
            {
                self.forget_stranger(id, &view.topology)?;
            }
            return Err(error);
        }
        if let Some(old) = replaced {
            self.end(old)?;
        }
        Ok(id)
    }

    /// An id above all that are in the file and at least `unused`, whose folder holds no data of a node that was refused.
    fn unused_id(&self, unused: u64) -> u64 {
        let highest = self.file().nodes.iter().map(|node| node.id).max().unwrap_or(0);
        let mut id = unused.max(highest + 1);
        while self.data_directory(id).exists() {
            id += 1;
        }
        id
    }

    /// Forgets a node that the cluster did not take in.
    fn forget_stranger(&mut self, id: u64, topology: &Topology) -> Result<()> {
        if topology.nodes().iter().any(|node| node.id.0 == id) { Ok(()) } else { self.forget(id) }
    }

    /// Removes a node and ends its process; its folder stays.
    ///
    /// # Errors
    /// When the cluster refuses, or it is not complete in time.
    pub fn remove_node(&mut self, id: u64, patience: Duration, tell: impl FnMut(&str)) -> Result<()> {
        ensure!(self.file().nodes.iter().any(|node| node.id == id), "there is no node {id}");
        let endpoints = self.file().endpoints();
        let request = AdminRequest::RemoveNode { node: id };
        match admin::change_nodes(&endpoints, &request, Instant::now() + DECISION_PATIENCE)? {
            Changed::Accepted => {}
            Changed::Refused(reply) => bail!("node {id} cannot be removed: {reply:?}"),
        }
        let deadline = Instant::now() + patience;
        self.complete(&mut Watch::new(&endpoints), &[Goal::Removed(id)], None, deadline, tell)?;
        self.end(id)
    }

    fn complete(
        &mut self,
        watch: &mut Watch,
        goals: &[Goal],
        started: Option<u64>,
        deadline: Instant,
        mut tell: impl FnMut(&str),
    ) -> Result<()> {
        let mut told = String::new();
        let mut tell_once = |line: &str| {
            if line != told {
                tell(line);
                told = line.to_owned();
            }
        };
        loop {
            let slice = deadline.min(Instant::now() + Duration::from_secs(1));
            if admin::wait_for(watch, goals, slice, &mut tell_once)? {
                return Ok(());
            }
            if let Some(id) = started
                && let Some(status) = self.exit_status(id)
            {
                bail!("node {id} ended ({status}){}", self.log_tail(id));
            }
            if Instant::now() >= deadline {
                let topology = &watch.look()?.topology;
                let steps: Vec<String> = goals.iter().map(|goal| goal.progress(topology)).collect();
                bail!("not complete in time: {}", steps.join("; "));
            }
        }
    }

    /// Ends the process of a node that is removed, unless it ended by itself, and forgets it.
    fn end(&mut self, id: u64) -> Result<()> {
        if self.running_pid(id).is_some() && !self.wait_gone(id, Duration::from_secs(1)) {
            for signal in [Signal::TERM, Signal::KILL] {
                if self.running_pid(id).is_none() {
                    break;
                }
                self.signal(id, signal).with_context(|| format!("node {id} is removed and runs still"))?;
                self.wait_gone(id, END_PATIENCE);
            }
        }
        self.forget(id)
    }
}

#[cfg(test)]
mod tests {
    use ringraft_raft::NodeId;

    use super::*;
    use crate::local_cluster::{ClusterFile, Http, Lifetime, Shape};

    fn three() -> Topology {
        let nodes = (1..=3).map(|id| (NodeId(id), vec![format!("10.0.0.{id}:7100")]));
        Topology::initial(nodes, 4, 1, 3).unwrap()
    }

    #[test]
    fn only_a_node_that_is_there_is_replaced() {
        assert!(check_replaced(&three(), None).is_ok() && check_replaced(&three(), Some(3)).is_ok());
        let error = check_replaced(&three(), Some(9)).unwrap_err().to_string();
        assert_eq!(error, "there is no node 9 to replace; the cluster has 1, 2, 3");
    }

    #[test]
    fn a_node_that_was_refused_is_forgotten_and_one_that_was_taken_in_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let shape = Shape {
            nodes: 3,
            groups: 1,
            shards: 1,
            base_port: None,
            http: Http::Off,
            hosts: Vec::new(),
            node_arguments: Vec::new(),
        };
        let mut cluster =
            LocalCluster::create(folder.path(), std::path::Path::new("/bin/true"), Lifetime::Detached, &shape).unwrap();
        assert_eq!(cluster.unused_id(4), 4);
        // Both made an identity before they asked.
        for id in [4, 5] {
            let (addresses, arguments) = (vec![format!("10.0.0.{id}:7100")], Vec::new());
            let node = NodeEntry { id, pid: None, addresses, http: None, namespace: None, joined: true, arguments };
            cluster.insert(node).unwrap();
            std::fs::create_dir_all(cluster.data_directory(id)).unwrap();
            std::fs::write(cluster.data_directory(id).join("identity.json"), "{}").unwrap();
        }
        let topology = three().add(NodeId(4), &["10.0.0.4:7100".to_owned()], 0).unwrap().unwrap();
        cluster.forget_stranger(4, &topology).unwrap();
        cluster.forget_stranger(5, &topology).unwrap();
        let ids: Vec<u64> = ClusterFile::read(folder.path()).unwrap().nodes.iter().map(|node| node.id).collect();
        assert_eq!(ids, [1, 2, 3, 4]);
        // A node needs an empty folder to join from.
        assert_eq!(cluster.unused_id(5), 6);
    }
}
