//! The ground of one benchmark: a cluster that serves, loads on it, and the clock that both go by.
//!
//! Off the data path.
//! Invariant: what is done to the cluster while a load runs begins when the load's window has begun, and the window ends
//! after it.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Command, FromArgMatches};
use ringraft_bench::clock::{Clock, MonotonicClock};
use ringraft_bench::system::DeviceNumber;
use ringraft_bench::{BenchArgs, Sampled};
use ringraft_tools::local_cluster::{Http, LocalCluster, Shape};
use ringraft_tools::status;

use super::super::bench::{LocalRun, servers};
use super::Suite;

/// Longest wait for anything the cluster has to do.
pub(super) const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks.
pub(super) const LOOK: Duration = Duration::from_millis(10);
/// No work takes as long: the load ends with it.
const LOAD_MAX: Duration = Duration::from_secs(3_600);

/// A cluster under test.
pub(super) struct Testbed<'a> {
    pub(super) suite: &'a Suite,
    stop: &'a AtomicBool,
    local: LocalRun,
    devices: BTreeSet<DeviceNumber>,
}

/// What work beside a load has in its hands.
pub(super) struct Meanwhile<'a> {
    pub(super) cluster: &'a mut LocalCluster,
    pub(super) clock: MonotonicClock,
    stop: &'a AtomicBool,
}

impl<'a> Testbed<'a> {
    pub(super) fn start(suite: &'a Suite, stop: &'a AtomicBool) -> Result<Self> {
        let shape = Shape {
            nodes: suite.nodes,
            groups: 1,
            shards: 1,
            base_port: None,
            http: Http::Off,
            hosts: Vec::new(),
            node_arguments: [&["--lease-reads=on".to_owned()][..], &suite.node_arguments].concat(),
        };
        let local = LocalRun::start(suite.dir.as_deref(), &shape)?;
        Ok(Self { suite, stop, local, devices: BTreeSet::new() })
    }

    /// Ends the cluster; the devices its files were on.
    pub(super) fn stop(self) -> Result<BTreeSet<DeviceNumber>> {
        self.local.stop()?;
        Ok(self.devices)
    }

    /// One address of each node.
    pub(super) fn endpoints(&self) -> Vec<String> {
        self.local.cluster.file().endpoints()
    }

    /// An open loop of puts as the command line describes it.
    pub(super) fn load(&self) -> Result<BenchArgs> {
        let command = <BenchArgs as clap::Args>::augment_args(Command::new("bench")).no_binary_name(true);
        let defaults = <BenchArgs as FromArgMatches>::from_arg_matches(&command_defaults(command)?)?;
        let suite = self.suite;
        let (rate, duration, warmup, seed) = (suite.rate, suite.duration, suite.warmup, suite.seed);
        Ok(BenchArgs { rate, duration, warmup, seed, value_size: suite.value_size, keys: suite.keys, ..defaults })
    }

    /// Runs a load to its end.
    pub(super) fn run(&mut self, load: &BenchArgs) -> Result<Sampled> {
        let begun = AtomicBool::new(false);
        let (processes, endpoints) = (servers(&mut self.local.cluster), self.endpoints());
        let clock = MonotonicClock::start();
        let sampled = ringraft_bench::run_sampled(load, &processes, &endpoints, clock, (&begun, self.stop))?;
        ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
        self.devices.extend(&sampled.devices);
        Ok(sampled)
    }

    /// Runs a load for as long as some work takes that begins within its window.
    pub(super) fn run_during<T>(
        &mut self,
        load: &BenchArgs,
        work: impl FnOnce(&mut Meanwhile<'_>) -> Result<T>,
    ) -> Result<(Sampled, T)> {
        let load = BenchArgs { duration: LOAD_MAX, ..load.clone() };
        let (processes, endpoints) = (servers(&mut self.local.cluster), self.endpoints());
        let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
        let clock = MonotonicClock::start();
        let (sampled, worked) = thread::scope(|scope| {
            let loading =
                scope.spawn(|| ringraft_bench::run_sampled(&load, &processes, &endpoints, clock, (&begun, &done)));
            let mut meanwhile = Meanwhile { cluster: &mut self.local.cluster, clock, stop: self.stop };
            let worked = meanwhile
                .wait("the window of the load", || {
                    ensure!(!loading.is_finished(), "the load ended by itself");
                    Ok(begun.load(Ordering::Acquire).then_some(()))
                })
                .and_then(|()| work(&mut meanwhile));
            done.store(true, Ordering::Relaxed);
            (loading.join().map_err(|_| anyhow!("the load panicked")), worked)
        });
        // Why the load ended is the better reason.
        let sampled = sampled??;
        self.devices.extend(&sampled.devices);
        Ok((sampled, worked?))
    }
}

fn command_defaults(command: Command) -> Result<clap::ArgMatches> {
    command.try_get_matches_from(std::iter::empty::<&str>()).context("the defaults of a load")
}

impl Meanwhile<'_> {
    /// Now, by the load's clock.
    pub(super) fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Lets time pass.
    pub(super) fn sleep(&self, duration: Duration) -> Result<()> {
        let end = Instant::now() + duration;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
            thread::sleep(left.min(LOOK));
        }
        Ok(())
    }

    /// Looks until there is an answer.
    pub(super) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = look()? {
                return Ok(answer);
            }
            ensure!(!self.stop.load(Ordering::Relaxed), "interrupted");
            if Instant::now() > deadline {
                bail!("waited {PATIENCE:?} in vain for {what}");
            }
            thread::sleep(LOOK);
        }
    }

    /// Addresses of all nodes but one.
    pub(super) fn addresses_without(&self, id: u64) -> Vec<String> {
        let nodes = self.cluster.file().nodes.iter().filter(|node| node.id != id);
        nodes.flat_map(|node| node.addresses.clone()).collect()
    }

    /// The node that leads the group.
    pub(super) fn leader(&self) -> Result<u64> {
        let addresses = self.cluster.file().addresses();
        self.wait("a leader", || Ok(status::cluster(&addresses).leaders().get(&0).map(|(node, _)| *node)))
    }
}
