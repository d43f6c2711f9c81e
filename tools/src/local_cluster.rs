//! Clusters of local node processes: their folder, their processes, their logs.
//!
//! Off the data path.
//! Invariants: a process is signalled only after its command line was seen to be the recorded node's;
//! `--init` is passed only until the cluster served once, so that a wiped data folder is never taken for a new node.
//! What it does not do: decide anything about consensus. Whether a cluster serves is what its nodes say.
//!
//! ```text
//! D/cluster.json     what was started: ids, addresses, pids
//! D/node-K/data/     the data directory of node K
//! D/node-K/log       what node K printed
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

pub use crate::ports::Http;
use crate::status::{self, ClusterStatus};
use crate::{namespace, ports};

/// Longest part of a log shown in an error.
const LOG_TAIL_BYTES: u64 = 2_000;
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Node processes.
    pub nodes: u64,
    /// Raft groups.
    pub groups: u32,
    /// Executors of each node.
    pub shards: u16,
    /// First port; node K then listens from `base_port + (K - 1) * shards`. Free ports are looked for when absent.
    pub base_port: Option<u16>,
    /// HTTP and gRPC of each node.
    pub http: Http,
    /// Where each node runs; empty: all of them on loopback.
    pub hosts: Vec<Host>,
    /// Further arguments of every node, as `ringraft node` takes them.
    pub node_arguments: Vec<String>,
}

/// A network namespace that stands for a machine.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, as `ip netns` lists it.
    pub namespace: String,
    /// Its IP address.
    pub address: String,
}

/// First port of a node that has a namespace of its own.
const NAMESPACE_PORT: u16 = 7_100;

/// `D/cluster.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ClusterFile {
    /// Cluster id, 32 hexadecimal digits.
    pub cluster_id: String,
    /// Raft groups.
    pub groups: u32,
    /// Executors of each node.
    pub shards: u16,
    /// Whether all groups had a leader once: data directories are no longer made afresh.
    pub initialised: bool,
    /// Further arguments of every node.
    pub node_arguments: Vec<String>,
    /// What founding nodes are told of their peers, once nodes have come or gone; else it follows from `nodes`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founders: Option<String>,
    /// The nodes, by id.
    pub nodes: Vec<NodeEntry>,
}

/// One node in `D/cluster.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeEntry {
    /// Node id, from 1.
    pub id: u64,
    /// Process id of the last start.
    pub pid: Option<u32>,
    /// Listen address of each shard.
    pub addresses: Vec<String>,
    /// Where it serves HTTP, and gRPC with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// The network namespace it runs in; none: that of this process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// It came to a running cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub joined: bool,
    /// Further arguments of this node alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
}

impl NodeEntry {
    /// Id and first address, as `--peers` takes them.
    fn as_peer(&self) -> String {
        format!("{}={}", self.id, self.addresses.first().map_or("", String::as_str))
    }
}

impl ClusterFile {
    /// Reads `D/cluster.json`.
    ///
    /// # Errors
    /// When the folder holds no cluster or the file is damaged.
    pub fn read(directory: &Path) -> Result<Self> {
        let path = directory.join("cluster.json");
        let text = fs::read_to_string(&path).with_context(|| {
            format!(
                "no cluster at {}: cannot read {}; `ringraft cluster start --dir` makes one",
                directory.display(),
                path.display()
            )
        })?;
        serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
    }

    /// Every address of every node.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().flat_map(|node| node.addresses.iter().cloned()).collect()
    }

    /// One address of each node: that of its first shard.
    #[must_use]
    pub fn endpoints(&self) -> Vec<String> {
        self.nodes.iter().filter_map(|node| node.addresses.first().cloned()).collect()
    }

    /// The nodes as `--peers` takes them.
    fn peers(&self) -> String {
        self.nodes.iter().map(NodeEntry::as_peer).collect::<Vec<_>>().join(",")
    }

    fn write(&self, directory: &Path) -> Result<()> {
        let path = directory.join("cluster.json");
        let next = directory.join("cluster.json.next");
        fs::write(&next, serde_json::to_vec_pretty(self)?)
            .with_context(|| format!("cannot write {}", next.display()))?;
        fs::rename(&next, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn plan(shape: &Shape) -> Result<Self> {
        ensure!(matches!(shape.nodes, 1..=9), "a local cluster has 1 to 9 nodes, not {}", shape.nodes);
        ensure!(shape.shards >= 1 && shape.groups >= 1, "a cluster needs at least one shard and one group");
        ensure!(
            shape.hosts.is_empty() || shape.hosts.len() as u64 == shape.nodes,
            "{} hosts for {} nodes",
            shape.hosts.len(),
            shape.nodes
        );
        let mut nodes = Vec::new();
        for id in 1..=shape.nodes {
            let host = shape.hosts.get(id as usize - 1);
            let first = match (host, shape.base_port) {
                (Some(_), _) => NAMESPACE_PORT,
                (None, Some(base)) => ports::of_node(base, id, shape.shards)?,
                (None, None) => ports::free_run(shape.shards)?,
            };
            let ip = host.map_or("127.0.0.1", |host| host.address.as_str());
            let addresses = (0..shape.shards).map(|shard| format!("{ip}:{}", first + shard)).collect();
            let namespace = host.map(|host| host.namespace.clone());
            let http = shape.http.address(id, ip)?;
            nodes.push(NodeEntry { id, pid: None, addresses, http, namespace, joined: false, arguments: Vec::new() });
        }
        Ok(Self {
            cluster_id: new_cluster_id()?,
            groups: shape.groups,
            shards: shape.shards,
            initialised: false,
            node_arguments: shape.node_arguments.clone(),
            founders: None,
            nodes,
        })
    }
}

fn new_cluster_id() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// How node processes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// They go on when this process ends.
    Detached,
    /// They stop when this process ends, however it ends: their standard input is a pipe from it.
    Tied,
}

/// A cluster of local node processes.
#[derive(Debug)]
pub struct LocalCluster {
    directory: PathBuf,
    executable: PathBuf,
    lifetime: Lifetime,
    file: ClusterFile,
    children: BTreeMap<u64, Child>,
}

impl LocalCluster {
    /// A new cluster in `directory`, nothing started yet. `executable` is the binary `ringraft`.
    ///
    /// # Errors
    /// When the folder cannot be made, holds a cluster already, or no ports are free.
    pub fn create(directory: &Path, executable: &Path, lifetime: Lifetime, shape: &Shape) -> Result<Self> {
        fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        ensure!(!directory.join("cluster.json").exists(), "{} holds a cluster already", directory.display());
        let file = ClusterFile::plan(shape)?;
        file.write(directory)?;
        Ok(Self::with(directory, executable, lifetime, file))
    }

    /// The cluster that was made in `directory`.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(directory: &Path, executable: &Path, lifetime: Lifetime) -> Result<Self> {
        Ok(Self::with(directory, executable, lifetime, ClusterFile::read(directory)?))
    }

    fn with(directory: &Path, executable: &Path, lifetime: Lifetime, file: ClusterFile) -> Self {
        let (directory, executable) = (absolute(directory), executable.to_owned());
        Self { directory, executable, lifetime, file, children: BTreeMap::new() }
    }

    /// What `cluster.json` says.
    #[must_use]
    pub fn file(&self) -> &ClusterFile {
        &self.file
    }

    /// The folder of one node.
    #[must_use]
    pub fn node_directory(&self, id: u64) -> PathBuf {
        self.directory.join(format!("node-{id}"))
    }

    /// The data directory of one node.
    #[must_use]
    pub fn data_directory(&self, id: u64) -> PathBuf {
        self.node_directory(id).join("data")
    }

    /// The log file of one node.
    #[must_use]
    pub fn log_path(&self, id: u64) -> PathBuf {
        self.node_directory(id).join("log")
    }

    /// The arguments `ringraft` is started with for this node.
    #[must_use]
    pub fn arguments(&self, id: u64) -> Vec<String> {
        let joined = self.file.nodes.iter().find(|node| node.id == id && node.joined);
        let (joined, alone) = (joined.is_some(), joined.map(NodeEntry::as_peer));
        let peers = alone.or_else(|| self.file.founders.clone()).unwrap_or_else(|| self.file.peers());
        let mut arguments: Vec<String> = vec!["node".into()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--id", id.to_string());
        flag("--cluster-id", self.file.cluster_id.clone());
        flag("--data-dir", self.data_directory(id).to_string_lossy().into_owned());
        flag("--peers", peers);
        flag("--groups", self.file.groups.to_string());
        flag("--shards", self.file.shards.to_string());
        if let Some(http) = self.file.nodes.iter().find(|node| node.id == id).and_then(|node| node.http.clone()) {
            flag("--http-address", http);
        }
        // A start that failed behind its own `--init` must not be told to make the directory again.
        if !joined && !self.file.initialised && !self.data_directory(id).join("identity.json").exists() {
            arguments.push("--init".into());
        }
        if self.lifetime == Lifetime::Tied {
            arguments.push("--stop-on-stdin-end".into());
        }
        arguments.extend(self.file.node_arguments.iter().cloned());
        let own = self.file.nodes.iter().filter(|node| node.id == id).flat_map(|node| &node.arguments);
        arguments.extend(own.cloned());
        arguments
    }

    /// Gives further arguments to one node, from its next start on.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn add_arguments(&mut self, id: u64, arguments: &[&str]) -> Result<()> {
        self.entry(id)?.arguments.extend(arguments.iter().copied().map(String::from));
        self.file.write(&self.directory)
    }

    /// Starts every node that does not run; says which were started.
    ///
    /// # Errors
    /// When a process cannot be started. That it lives on is seen by [`Self::wait_until_serving`].
    pub fn start(&mut self) -> Result<Vec<u64>> {
        let ids: Vec<u64> = self.file.nodes.iter().map(|node| node.id).collect();
        let missing: Vec<u64> = ids.into_iter().filter(|id| self.running_pid(*id).is_none()).collect();
        for id in &missing {
            self.start_node(*id)?;
        }
        Ok(missing)
    }

    /// Starts one node.
    ///
    /// # Errors
    /// When it runs already or cannot be started.
    pub fn start_node(&mut self, id: u64) -> Result<()> {
        self.spawn(id, &self.arguments(id))
    }

    /// Starts a node that is not part of the cluster yet.
    pub(crate) fn start_joining(&mut self, id: u64, replaced: Option<u64>) -> Result<()> {
        let entry = self.entry(id)?.clone();
        let others = self.file.nodes.iter().filter(|node| node.id != id);
        let seeds: Vec<String> = others.filter_map(|node| node.addresses.first().cloned()).collect();
        let mut arguments: Vec<String> = vec!["join".into()];
        let mut flag = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        flag("--data-dir", self.data_directory(id).to_string_lossy().into_owned());
        flag("--id", id.to_string());
        flag("--address", entry.addresses.first().cloned().unwrap_or_default());
        flag("--seed", seeds.join(","));
        if let Some(old) = replaced {
            flag("--replace", old.to_string());
        }
        arguments.push("--".into());
        arguments.extend(entry.http.into_iter().flat_map(|http| [String::from("--http-address"), http]));
        if self.lifetime == Lifetime::Tied {
            arguments.push("--stop-on-stdin-end".into());
        }
        arguments.extend(self.file.node_arguments.iter().cloned());
        self.spawn(id, &arguments)
    }

    /// One more node in `cluster.json`.
    pub(crate) fn insert(&mut self, node: NodeEntry) -> Result<()> {
        if self.file.founders.is_none() {
            self.file.founders = Some(self.file.peers());
        }
        self.file.nodes.push(node);
        self.file.write(&self.directory)
    }

    /// One node less in `cluster.json`.
    pub(crate) fn forget(&mut self, id: u64) -> Result<()> {
        if self.file.founders.is_none() {
            self.file.founders = Some(self.file.peers());
        }
        self.file.nodes.retain(|node| node.id != id);
        self.children.remove(&id);
        self.file.write(&self.directory)
    }

    fn spawn(&mut self, id: u64, arguments: &[String]) -> Result<()> {
        ensure!(self.running_pid(id).is_none(), "node {id} runs already");
        fs::create_dir_all(self.node_directory(id))?;
        let path = self.log_path(id);
        let log = OpenOptions::new().create(true).append(true).open(&path);
        let log = log.with_context(|| format!("cannot open {}", path.display()))?;
        let stdin = if self.lifetime == Lifetime::Tied { Stdio::piped() } else { Stdio::null() };
        let mut command = Command::new(&self.executable);
        command.args(arguments).stdin(stdin).stdout(log.try_clone()?).stderr(log);
        // A group of its own: ^C in the terminal reaches this process alone, which then stops its nodes in order.
        command.process_group(0);
        let start = || command.spawn().with_context(|| format!("cannot start {}", self.executable.display()));
        let namespace = self.file.nodes.iter().find(|node| node.id == id).and_then(|node| node.namespace.as_deref());
        let child = namespace::inside(namespace, start)?;
        self.entry(id)?.pid = Some(child.id());
        self.children.insert(id, child);
        self.file.write(&self.directory)
    }

    fn entry(&mut self, id: u64) -> Result<&mut NodeEntry> {
        self.file.nodes.iter_mut().find(|node| node.id == id).with_context(|| format!("there is no node {id}"))
    }

    /// The process id of a node that runs.
    #[must_use]
    pub fn running_pid(&mut self, id: u64) -> Option<u32> {
        if let Some(child) = self.children.get_mut(&id) {
            return child.try_wait().is_ok_and(|ended| ended.is_none()).then(|| child.id());
        }
        let pid = self.file.nodes.iter().find(|node| node.id == id)?.pid?;
        self.is_ours(pid, id).then_some(pid)
    }

    /// How a node that this process started has ended, if it has.
    pub fn exit_status(&mut self, id: u64) -> Option<ExitStatus> {
        self.children.get_mut(&id)?.try_wait().ok().flatten()
    }

    /// Whether the process is the recorded node and no other that got its number. A zombie has no command line.
    fn is_ours(&self, pid: u32, id: u64) -> bool {
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let data = self.data_directory(id);
        let data_follows = |pair: &[&[u8]]| pair[0] == b"--data-dir" && pair[1] == data.as_os_str().as_encoded_bytes();
        // A node that joined runs in the process that made it join until its next start.
        let is_node = words.get(1).is_some_and(|word| matches!(*word, b"node" | b"join"));
        is_node && words.windows(2).any(data_follows)
    }

    /// Sends a signal to a node that runs.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&mut self, id: u64, signal: Signal) -> Result<()> {
        let pid = self.running_pid(id).with_context(|| format!("node {id} does not run"))?;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal node {id}"))
    }

    /// Ends a node at once, as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, id: u64) -> Result<()> {
        self.signal(id, Signal::KILL)?;
        ensure!(self.wait_gone(id, Duration::from_secs(10)), "node {id} does not go away");
        Ok(())
    }

    /// Waits until a node has gone; `false` if it has not within `patience`.
    pub fn wait_gone(&mut self, id: u64, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        while self.running_pid(id).is_some() {
            if Instant::now() >= deadline {
                return false;
            }
            thread::sleep(POLL_INTERVAL);
        }
        true
    }

    /// Stops every node that runs: SIGTERM, and SIGKILL to those that are still there after `patience`.
    /// Says which were stopped and which had to be killed.
    ///
    /// # Errors
    /// When a node cannot be signalled.
    pub fn stop(&mut self, patience: Duration) -> Result<Stopped> {
        let ids: Vec<u64> = self.file.nodes.iter().map(|node| node.id).collect();
        let running: Vec<u64> = ids.into_iter().filter(|id| self.running_pid(*id).is_some()).collect();
        for id in &running {
            self.signal_if_running(*id, Signal::TERM)?;
            self.signal_if_running(*id, Signal::CONT)?;
        }
        let deadline = Instant::now() + patience;
        let mut killed = Vec::new();
        for id in &running {
            if !self.wait_gone(*id, deadline.saturating_duration_since(Instant::now())) {
                self.signal_if_running(*id, Signal::KILL)?;
                ensure!(self.wait_gone(*id, Duration::from_secs(10)), "node {id} does not go away");
                killed.push(*id);
            }
        }
        Ok(Stopped { stopped: running, killed })
    }

    fn signal_if_running(&mut self, id: u64, signal: Signal) -> Result<()> {
        match self.signal(id, signal) {
            Err(error) if self.running_pid(id).is_some() => Err(error),
            _ => Ok(()),
        }
    }

    /// Waits until every group has a leader that serves and all nodes answer.
    ///
    /// # Errors
    /// When a node ends, or at the deadline; the error shows the end of the log that tells why.
    pub fn wait_until_serving(&mut self, patience: Duration) -> Result<ClusterStatus> {
        let deadline = Instant::now() + patience;
        loop {
            self.check_alive()?;
            let status = status::cluster(&self.file.addresses());
            let unserved = status.groups_without_leader(self.file.groups);
            if unserved.is_empty() && status.unreachable.is_empty() {
                self.file.initialised = true;
                self.file.write(&self.directory)?;
                return Ok(status);
            }
            if Instant::now() >= deadline {
                let logs: String = self.file.nodes.iter().map(|node| self.log_tail(node.id)).collect();
                bail!("after {patience:?} {}{logs}", status.why_not_serving(&unserved));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    fn check_alive(&mut self) -> Result<()> {
        let ids: Vec<u64> = self.children.keys().copied().collect();
        for id in ids {
            if let Some(status) = self.exit_status(id) {
                bail!("node {id} ended with {}{}", describe(status), self.log_tail(id));
            }
        }
        Ok(())
    }

    /// The end of a node's log, with its path, for an error message.
    #[must_use]
    pub fn log_tail(&self, id: u64) -> String {
        let path = self.log_path(id);
        let tail = tail(&path, LOG_TAIL_BYTES).unwrap_or_else(|error| format!("cannot be read: {error}"));
        format!("\n--- end of {} ---\n{}", path.display(), tail.trim_end())
    }
}

/// What [`LocalCluster::stop`] did.
#[derive(Debug, Default, Serialize)]
pub struct Stopped {
    /// Nodes that ran.
    pub stopped: Vec<u64>,
    /// Those among them that had to be killed.
    pub killed: Vec<u64>,
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::Detached {
            return;
        }
        for child in self.children.values_mut() {
            // Ends a stopped (SIGSTOP) process too; one that has ended is only reaped.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn absolute(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn tail(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes_max)))?;
    let mut bytes = Vec::new();
    file.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
