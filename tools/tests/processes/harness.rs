//! Clusters for tests: folders of their own, one at a time, gone when the test ends, also when it fails.
//!
//! Off the data path.

use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ringraft_tools::local_cluster::{Http, Lifetime, LocalCluster, Shape};
use ringraft_tools::status::{self, ClusterStatus};
use tempfile::TempDir;

/// Generous: three debug processes and the test share two cores.
pub(crate) const START_PATIENCE: Duration = Duration::from_secs(30);

static EXCLUSIVE: Mutex<()> = Mutex::new(());

/// Held by a test for as long as its processes run.
pub(crate) fn exclusive() -> MutexGuard<'static, ()> {
    EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The binary under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ringraft"))
}

/// A folder on the disk that the binary was built on: `/tmp` may be in memory.
pub(crate) fn folder() -> TempDir {
    TempDir::with_prefix_in("ringraft-test-", env!("CARGO_TARGET_TMPDIR")).expect("a temporary folder")
}

/// One group, one shard, the smallest log files: they are written with zeros before a node serves.
pub(crate) fn shape(nodes: u64) -> Shape {
    let node_arguments = ["--segment-bytes=32MiB", "--segment-pool=1"].map(String::from).to_vec();
    Shape { nodes, groups: 1, shards: 1, base_port: None, http: Http::Off, hosts: Vec::new(), node_arguments }
}

/// A running cluster, its folder, and the right to run one.
pub(crate) struct TestCluster {
    cluster: LocalCluster,
    // Dropped after the cluster, in this order.
    _folder: TempDir,
    _exclusive: MutexGuard<'static, ()>,
}

impl TestCluster {
    /// Starts a cluster and waits until it serves.
    pub(crate) fn start(shape: &Shape) -> Self {
        let mut cluster = Self::prepare(shape);
        cluster.start().expect("nodes start");
        cluster.serve();
        cluster
    }

    /// A cluster of which nothing runs yet.
    pub(crate) fn prepare(shape: &Shape) -> Self {
        let exclusive = exclusive();
        let folder = folder();
        let cluster = LocalCluster::create(folder.path(), binary(), Lifetime::Tied, shape).expect("a cluster is made");
        Self { cluster, _folder: folder, _exclusive: exclusive }
    }

    /// Waits until all nodes answer and all groups have leaders that serve.
    pub(crate) fn serve(&mut self) -> ClusterStatus {
        match self.cluster.wait_until_serving(START_PATIENCE) {
            Ok(status) => status,
            Err(error) => panic!("{error:#}"),
        }
    }

    /// Address of a node's first shard.
    pub(crate) fn address(&self, id: u64) -> String {
        let node = self.cluster.file().nodes.iter().find(|node| node.id == id);
        node.and_then(|node| node.addresses.first()).expect("a node of the cluster").clone()
    }

    /// Addresses of all nodes but these.
    pub(crate) fn addresses_without(&self, ids: &[u64]) -> Vec<String> {
        let nodes = self.cluster.file().nodes.iter().filter(|node| !ids.contains(&node.id));
        nodes.flat_map(|node| node.addresses.clone()).collect()
    }

    /// The node that leads a group.
    pub(crate) fn leader(&mut self, group: u32) -> u64 {
        self.serve().leaders()[&group].0
    }

    /// Waits until another node than `old` leads group 0, asking the others only. Returns it and the time it took.
    pub(crate) fn wait_for_new_leader(&self, old: u64) -> (u64, Duration) {
        let addresses = self.addresses_without(&[old]);
        let start = Instant::now();
        let found = eventually(START_PATIENCE, || {
            let leaders = status::cluster(&addresses).leaders();
            leaders.get(&0).map(|(node, _)| *node).filter(|node| *node != old)
        });
        (found.expect("no new leader"), start.elapsed())
    }

    /// Waits until all replicas have applied the same and says so; panics with the status if they do not.
    pub(crate) fn wait_for_equal_replicas(&mut self, patience: Duration) -> ClusterStatus {
        let addresses = self.cluster.file().addresses();
        let groups = self.cluster.file().groups;
        let nodes = self.cluster.file().nodes.len();
        let mut last = None;
        let equal = eventually(patience, || {
            let status = status::cluster(&addresses);
            let good = (0..groups).all(|group| replicas_are_equal(&status, group, nodes));
            last = Some(status.clone());
            good.then_some(status)
        });
        equal.unwrap_or_else(|| panic!("replicas differ after {patience:?}: {last:#?}"))
    }
}

fn replicas_are_equal(status: &ClusterStatus, group: u32, nodes: usize) -> bool {
    let states: Vec<_> =
        status.replicas(group).map(|(_, replica)| (replica.last_applied, &replica.state_hash)).collect();
    let leader_applied_all = status.replicas(group).all(|(_, replica)| replica.last_applied == replica.last_index);
    states.len() == nodes && leader_applied_all && states.windows(2).all(|pair| pair[0] == pair[1])
}

impl Deref for TestCluster {
    type Target = LocalCluster;

    fn deref(&self) -> &LocalCluster {
        &self.cluster
    }
}

impl DerefMut for TestCluster {
    fn deref_mut(&mut self) -> &mut LocalCluster {
        &mut self.cluster
    }
}

/// Asks until there is an answer or patience ends.
pub(crate) fn eventually<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the binary to its end.
pub(crate) fn ringraft(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env_remove("RINGRAFT_ENDPOINTS").stdin(Stdio::null());
    command.output().expect("the binary runs")
}

/// Runs the binary, kills it if it does not end in time; (exit code, both outputs).
pub(crate) fn ringraft_within(patience: Duration, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let ended = eventually(patience, || child.try_wait().expect("a child"));
    if ended.is_none() {
        child.kill().expect("a child");
    }
    let output = child.wait_with_output().expect("its output");
    let text = [output.stdout, output.stderr].concat();
    (ended.and_then(|status| status.code()), String::from_utf8_lossy(&text).into_owned())
}

/// Standard output as text.
pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
