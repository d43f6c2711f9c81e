//! The stage of one run: a cluster, its network and disks, a load, and the means to break and mend them.
//!
//! Off the data path.
//! Invariants: a node that ends without having been told to fails the run at the next wait; every wait has a deadline and
//! ends at ^C; whatever was mounted, made or started is gone when the stage is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;

use super::console::Console;
use super::disk::{FaultyDisk, Loss, Lost, Settings};
use super::image::Image;
use super::journal::{Journal, milliseconds};
use super::load::{Load, LoadOptions};
use super::network::{Member, Network};
use super::rights::Need;
use super::scenario::Scenario;
use crate::local_cluster::{Http, Lifetime, LocalCluster, Shape};
use crate::status::{self, ClusterStatus};

/// Generous: nodes, clients and whoever else share two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// What a new leader may take at the default timers, on a machine that does other things too.
pub const ELECTION_PATIENCE: Duration = Duration::from_secs(20);
const SHORT_PATIENCE: Duration = Duration::from_secs(3);
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Requests take a tenth of this before power is lost, so that some are on their way then.
const BEFORE_POWER_LOSS: Duration = Duration::from_millis(200);
const IMAGE_BYTES: u64 = 192 << 20;

/// What every run is given.
#[derive(Clone, Copy, Debug)]
pub struct Environment<'a> {
    /// The binary `ringraft`.
    pub executable: &'a Path,
    /// Raised by ^C.
    pub stop: &'a AtomicBool,
    /// The clients.
    pub load: LoadOptions,
}

/// The stage.
#[derive(Debug)]
pub struct Stage<'a> {
    environment: Environment<'a>,
    pub(super) journal: Journal,
    pub(super) cluster: LocalCluster,
    pub(super) load: Option<Load>,
    /// Nodes that do not run because the scenario wants so.
    down: BTreeSet<u64>,
    /// Nodes that are stopped (SIGSTOP).
    paused: BTreeSet<u64>,
    pub(super) failovers_ms: Vec<u64>,
    // Dropped after the cluster, in this order.
    pub(super) disks: BTreeMap<u64, FaultyDisk>,
    pub(super) images: BTreeMap<u64, Image>,
    pub(super) network: Option<Network>,
}

impl<'a> Stage<'a> {
    /// Prepares the disks and starts the cluster and the load. Must run where the clients are to be.
    ///
    /// # Errors
    /// Whatever keeps the cluster from serving.
    pub fn set(
        scenario: &Scenario,
        environment: Environment<'a>,
        folder: &Path,
        network: Option<Network>,
        journal: Journal,
    ) -> Result<Self> {
        // The smallest log files: they are written with zeros before a node serves.
        let arguments = ["--segment-bytes=32MiB", "--segment-pool=1"].iter().chain(scenario.arguments);
        let node_arguments = arguments.copied().map(String::from).collect();
        let hosts = network.as_ref().map(Network::hosts).unwrap_or_default();
        let shape = Shape {
            nodes: scenario.nodes,
            groups: scenario.groups,
            shards: scenario.shards,
            base_port: None,
            http: Http::Off,
            hosts,
            node_arguments,
        };
        let mut cluster = LocalCluster::create(folder, environment.executable, Lifetime::Tied, &shape)?;
        for (id, arguments) in (1..).zip(scenario.node_arguments) {
            cluster.add_arguments(id, arguments)?;
        }
        let mut stage = Self {
            environment,
            journal,
            cluster,
            load: None,
            down: BTreeSet::new(),
            paused: BTreeSet::new(),
            failovers_ms: Vec::new(),
            disks: BTreeMap::new(),
            images: BTreeMap::new(),
            network,
        };
        stage.prepare_disks(scenario)?;
        stage.cluster.start()?;
        stage.serve()?;
        let leader = stage.leader()?;
        stage.note(format!("{} nodes serve, node {leader} leads", scenario.nodes));
        let endpoints = stage.cluster.file().endpoints();
        stage.load = Some(Load::start(&endpoints, environment.load));
        stage.progress(100)?;
        Ok(stage)
    }

    fn prepare_disks(&mut self, scenario: &Scenario) -> Result<()> {
        for id in self.ids() {
            let (folder, data) = (self.cluster.node_directory(id), self.cluster.data_directory(id));
            if scenario.needs.contains(&Need::Disk) {
                self.disks.insert(id, FaultyDisk::mount(&folder.join("backing"), &data)?);
            }
            if scenario.needs.contains(&Need::Image) {
                std::fs::create_dir_all(&folder)?;
                self.images.insert(id, Image::mount(&folder.join("image"), IMAGE_BYTES, &data)?);
            }
        }
        Ok(())
    }

    /// Writes a line into the journal.
    pub fn note(&mut self, text: impl Into<String>) {
        self.journal.note(text);
    }

    /// All nodes.
    #[must_use]
    pub fn ids(&self) -> Vec<u64> {
        self.cluster.file().nodes.iter().map(|node| node.id).collect()
    }

    /// All nodes but these.
    #[must_use]
    pub fn others(&self, without: &[u64]) -> Vec<u64> {
        self.ids().into_iter().filter(|id| !without.contains(id)).collect()
    }

    /// Nodes that do not run because the scenario wants so.
    #[must_use]
    pub fn down(&self) -> Vec<u64> {
        self.down.iter().copied().collect()
    }

    /// Those among these nodes that run, or sleep.
    #[must_use]
    pub fn running(&self, ids: &[u64]) -> Vec<u64> {
        ids.iter().copied().filter(|id| !self.down.contains(id)).collect()
    }

    /// Whether a node sleeps.
    #[must_use]
    pub fn is_paused(&self, id: u64) -> bool {
        self.paused.contains(&id)
    }

    /// The seed of this run.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.environment.load.seed
    }

    /// What these nodes say.
    #[must_use]
    pub fn ask(&self, ids: &[u64]) -> ClusterStatus {
        let nodes = self.cluster.file().nodes.iter().filter(|node| ids.contains(&node.id));
        let addresses: Vec<String> = nodes.flat_map(|node| node.addresses.clone()).collect();
        status::cluster(&addresses)
    }

    /// The leader, and its term.
    ///
    /// # Errors
    /// When nobody leads in time.
    pub fn leader_and_term(&mut self) -> Result<(u64, u64)> {
        self.wait("a leader", ELECTION_PATIENCE, |stage| {
            let running = stage.others(&stage.down());
            Ok(stage.ask(&running).leaders().get(&0).copied())
        })
    }

    /// The leader.
    ///
    /// # Errors
    /// When nobody leads in time.
    pub fn leader(&mut self) -> Result<u64> {
        Ok(self.leader_and_term()?.0)
    }

    /// Waits until one of these nodes leads.
    ///
    /// # Errors
    /// When none does in time.
    pub fn wait_for_leader_among(&mut self, ids: &[u64]) -> Result<u64> {
        self.wait("a new leader", ELECTION_PATIENCE, |stage| {
            Ok(stage.ask(ids).leaders().get(&0).map(|(node, _)| *node))
        })
    }

    /// Waits until all nodes answer and a leader serves.
    ///
    /// # Errors
    /// When they do not in time, or a node ends.
    pub fn serve(&mut self) -> Result<()> {
        ensure!(!self.environment.stop.load(Ordering::Relaxed), "interrupted");
        self.cluster.wait_until_serving(PATIENCE).map(|_| ())
    }

    /// Polls until there is an answer.
    ///
    /// # Errors
    /// At the deadline, at ^C, when a node ends that should not, when the load breaks.
    pub fn wait<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            self.check()?;
            if let Some(answer) = ask(self)? {
                return Ok(answer);
            }
            if Instant::now() >= deadline {
                let states: Vec<String> = self.ask(&self.ids()).shards.iter().map(describe).collect();
                bail!("waited {patience:?} in vain for {what}; {}", states.join("; "));
            }
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn sleep(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            thread::sleep(POLL_INTERVAL.min(end.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }

    /// Nothing happened that the scenario did not ask for.
    fn check(&mut self) -> Result<()> {
        ensure!(!self.environment.stop.load(Ordering::Relaxed), "interrupted");
        for id in self.others(&self.down()) {
            if let Some(status) = self.cluster.exit_status(id) {
                bail!("node {id} ended by itself ({status}){}", self.cluster.log_tail(id));
            }
        }
        if self.load.as_ref().is_some_and(Load::has_failed) {
            let ended = self.load.take().map(Load::stop);
            bail!("the load ended by itself: {:?}", ended.and_then(Result::err));
        }
        Ok(())
    }

    /// The clients at work.
    ///
    /// # Errors
    /// When they were stopped.
    pub fn load(&self) -> Result<&Load> {
        self.load.as_ref().context("the load does not run")
    }

    /// Waits until so many more writes are acknowledged.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn progress(&mut self, writes: u64) -> Result<()> {
        let before = self.load()?.acknowledged();
        let what = format!("{writes} more acknowledged writes");
        self.wait(&what, PATIENCE, |stage| Ok((stage.load()?.acknowledged() >= before + writes).then_some(())))
    }

    /// Waits until a write invoked after the last mark is acknowledged: how long after `since` that was.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn first_write(&mut self, since: u64) -> Result<Duration> {
        let time = self.wait("an acknowledged write", PATIENCE, |stage| Ok(stage.load()?.first_after_mark()))?;
        Ok(Duration::from_nanos(time.saturating_sub(since)))
    }

    /// Waits until one of these nodes leads and a write invoked since is acknowledged: how long after `since` that was. The old leader may still have acknowledged what it had before.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn fail_over(&mut self, since: u64, ids: &[u64]) -> Result<Duration> {
        let new = self.wait_for_leader_among(ids)?;
        let elected = Duration::from_nanos(self.load()?.mark().saturating_sub(since));
        self.note(format!("node {new} leads, seen {elected:.2?} after the fault"));
        let took = self.first_write(since)?;
        self.failed_over(took);
        Ok(took)
    }

    /// Notes a failover.
    pub fn failed_over(&mut self, took: Duration) {
        self.failovers_ms.push(milliseconds(took));
    }

    /// Ends a node as a crash would; the time of the history's clock just before. The mark is set when it is gone, so
    /// that what comes after is not its doing.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, id: u64) -> Result<u64> {
        self.down.insert(id);
        let before = self.load()?.now();
        self.cluster.kill(id)?;
        self.paused.remove(&id);
        self.load()?.mark();
        Ok(before)
    }

    /// Cuts the power of nodes at the same time, in the middle of writes and flushes: their processes die, and what
    /// their disks had not flushed goes. The time of the history's clock just before; the mark is set when they are gone.
    ///
    /// # Errors
    /// When a node does not run or has no disk of ours.
    pub fn cut_power(&mut self, nodes: &[(u64, Loss)]) -> Result<(u64, Lost)> {
        for (id, _) in nodes {
            self.disk(*id)?.set(Settings { delay: BEFORE_POWER_LOSS / 10, ..Settings::default() });
        }
        self.sleep(BEFORE_POWER_LOSS)?;
        self.cut_power_now(nodes)
    }

    /// As [`Self::cut_power`], whatever the disks are doing.
    ///
    /// # Errors
    /// As [`Self::cut_power`].
    pub fn cut_power_now(&mut self, nodes: &[(u64, Loss)]) -> Result<(u64, Lost)> {
        let before = self.load()?.now();
        for (id, loss) in nodes {
            self.down.insert(*id);
            self.disk(*id)?.cut_power(*loss)?;
        }
        for (id, _) in nodes {
            self.cluster.signal(*id, Signal::KILL)?;
            self.disk(*id)?.switch_off();
        }
        let mut total = Lost::default();
        for (id, _) in nodes {
            ensure!(self.cluster.wait_gone(*id, PATIENCE), "node {id} does not go away");
            self.paused.remove(id);
            let lost = self.disk(*id)?.lost();
            total.sectors += lost.sectors;
            total.kept += lost.kept;
            total.names += lost.names;
        }
        self.load()?.mark();
        Ok((before, total))
    }

    /// Starts a node that is down, its disk in order again.
    ///
    /// # Errors
    /// When it runs.
    pub fn start(&mut self, id: u64) -> Result<()> {
        if let Some(disk) = self.disks.get(&id) {
            disk.power_on();
        }
        self.start_as_it_is(id)
    }

    /// Starts a node that is down, whatever is wrong with its disk.
    ///
    /// # Errors
    /// When it runs.
    pub fn start_as_it_is(&mut self, id: u64) -> Result<()> {
        self.cluster.start_node(id)?;
        self.down.remove(&id);
        Ok(())
    }

    /// Stops a node in order; it must end with exit code 0. Says how long that took.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop_in_order(&mut self, id: u64) -> Result<Duration> {
        let start = Instant::now();
        self.down.insert(id);
        self.cluster.signal(id, Signal::TERM)?;
        self.expect_exit(id, 0)?;
        Ok(start.elapsed())
    }

    /// Waits until a node has ended, which it must with this code.
    ///
    /// # Errors
    /// When it goes on or ends with another code.
    pub fn expect_exit(&mut self, id: u64, code: i32) -> Result<()> {
        self.down.insert(id);
        let status = self.wait(&format!("node {id} to end"), PATIENCE, |stage| Ok(stage.cluster.exit_status(id)))?;
        ensure!(
            status.code() == Some(code),
            "node {id} should have ended with exit code {code}: {status}{}",
            self.cluster.log_tail(id)
        );
        Ok(())
    }

    /// Stops a process without its knowledge.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self, id: u64) -> Result<u64> {
        let mark = self.load()?.mark();
        self.cluster.signal(id, Signal::STOP)?;
        self.paused.insert(id);
        Ok(mark)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&mut self, id: u64) -> Result<()> {
        self.cluster.signal(id, Signal::CONT)?;
        self.paused.remove(&id);
        Ok(())
    }

    /// The network, to cut links in.
    ///
    /// # Errors
    /// When the scenario has none of its own.
    pub fn network(&mut self) -> Result<&mut Network> {
        self.network.as_mut().context("this scenario has no network of its own")
    }

    /// Cuts all links between these nodes and the others; clients reach all.
    ///
    /// # Errors
    /// As [`Self::network`].
    pub fn split(&mut self, one: &[u64], other: &[u64]) -> Result<u64> {
        let mark = self.load()?.mark();
        let members = |ids: &[u64]| ids.iter().copied().map(Member::Node).collect::<Vec<_>>();
        let (one, other) = (members(one), members(other));
        self.network()?.split(&one, &other)?;
        Ok(mark)
    }

    /// The disk of a node.
    ///
    /// # Errors
    /// When the scenario has no disks of its own.
    pub fn disk(&self, id: u64) -> Result<&FaultyDisk> {
        self.disks.get(&id).with_context(|| format!("node {id} has no disk that can fail"))
    }

    /// Turns the switches of a node's disk.
    ///
    /// # Errors
    /// As [`Self::disk`].
    pub fn fault(&self, id: u64, settings: Settings) -> Result<u64> {
        let mark = self.load()?.mark();
        self.disk(id)?.set(settings);
        Ok(mark)
    }

    /// The image below a node's data.
    ///
    /// # Errors
    /// When the scenario has none.
    pub fn image(&self, id: u64) -> Result<&Image> {
        self.images.get(&id).with_context(|| format!("node {id} has no disk that can be filled"))
    }

    /// A client for steps.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn console(&self) -> Result<Console> {
        Console::connect(&self.cluster.file().endpoints(), PATIENCE)
    }

    /// A client for steps that may be refused: it gives up soon.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn short_console(&self) -> Result<Console> {
        Console::connect(&self.cluster.file().endpoints(), SHORT_PATIENCE)
    }

    /// Mends these nodes, their disks, the links among them and those to the clients; the others stay as they are.
    ///
    /// # Errors
    /// When something cannot be mended.
    pub fn mend(&mut self, ids: &[u64]) -> Result<()> {
        let members: Vec<Member> = ids.iter().copied().map(Member::Node).chain([Member::Clients]).collect();
        if let Some(network) = &mut self.network {
            network.heal_among(&members)?;
        }
        for id in ids {
            if let Some(disk) = self.disks.get(id) {
                disk.power_on();
            }
            if self.paused.remove(id) {
                self.cluster.signal(*id, Signal::CONT)?;
            }
            if self.down.contains(id) {
                self.start(*id)?;
            }
        }
        Ok(())
    }

    /// Mends everything the scenario left broken.
    ///
    /// # Errors
    /// When something cannot be mended.
    pub fn heal(&mut self) -> Result<()> {
        self.mend(&self.ids())?;
        self.serve()
    }

    /// Logs of the nodes.
    #[must_use]
    pub fn logs(&self) -> Vec<PathBuf> {
        self.ids().into_iter().map(|id| self.cluster.log_path(id)).collect()
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // A process that waits for a stalled disk cannot be killed.
        self.disks.values().for_each(FaultyDisk::switch_off);
    }
}

fn describe(shard: &status::ShardStatus) -> String {
    let groups = shard.groups.iter().map(|group| {
        let serving = if group.serving { "" } else { ", not serving" };
        format!(
            "{} of term {}, applied {} of {}{serving}",
            group.role, group.term, group.last_applied, group.last_index
        )
    });
    format!("node {}: {}", shard.node, groups.collect::<Vec<_>>().join(", "))
}
