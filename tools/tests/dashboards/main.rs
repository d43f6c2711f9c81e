//! The dashboards and alerts of `tools/deploy/`: against the list of metrics, and against a live cluster.
//!
//! Off the data path.
//! The live test needs `prometheus` and `promtool` and is run by name, as `.ci/run` does:
//! `cargo test -p ringraft-tools --test dashboards -- --ignored`

mod board;
mod prometheus;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use board::{Board, expressions_of_rules, metrics_in};
use prometheus::Prometheus;
use ringraft_engine::metrics::{Kind, METRICS};
use ringraft_tools::local_cluster::{Lifetime, LocalCluster, Shape};
use ringraft_tools::ports::{self, Http};
use tempfile::TempDir;

/// The dashboards: uid, which is also the file's name, and title.
const BOARDS: [(&str, &str); 3] =
    [("raft-cluster", "Cluster Overview"), ("raft-node", "Node Details"), ("raft-performance", "Performance Metrics")];

/// Debug processes that share two cores.
const PATIENCE: Duration = Duration::from_secs(60);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    fs::read_to_string(deploy().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn boards() -> Vec<Board> {
    let board = |(uid, title): &(&str, &str)| {
        let board = Board::parse(&read(&format!("grafana/dashboards/{uid}.json")));
        assert_eq!((board.uid.as_str(), board.title.as_str()), (*uid, *title));
        board
    };
    BOARDS.iter().map(board).collect()
}

/// Whether a name is that of a metric, or of a part of a histogram.
fn is_known(name: &str) -> bool {
    name == "up"
        || METRICS.iter().any(|metric| match metric.kind() {
            Kind::Histogram => {
                ["_bucket", "_sum", "_count"].iter().any(|part| name.strip_suffix(part) == Some(metric.name))
            }
            _ => metric.name == name,
        })
}

#[test]
fn dashboards_ask_only_for_metrics_that_there_are() {
    let mut asked = BTreeSet::new();
    for board in boards() {
        assert!(board.panels.len() >= 10, "{} has {} panels", board.uid, board.panels.len());
        let ids: BTreeSet<u64> = board.panels.iter().map(|panel| panel.id).collect();
        assert_eq!(ids.len(), board.panels.len(), "{}: two panels have one id", board.uid);
        for panel in &board.panels {
            assert!(!panel.queries.is_empty(), "{}, {}: no query", board.uid, panel.title);
            for query in &panel.queries {
                let names = metrics_in(query);
                assert!(!names.is_empty(), "{}, {}: {query}", board.uid, panel.title);
                names.iter().for_each(|name| assert!(is_known(name), "{}, {}: {name}", board.uid, panel.title));
                asked.extend(names);
            }
        }
    }
    for name in ["raft_term_current", "raft_state", "raft_log_entries_total", "raft_commits_total"] {
        assert!(asked.contains(name), "no panel shows {name}");
    }
}

#[test]
fn alerts_ask_only_for_metrics_that_there_are() {
    let expressions = expressions_of_rules(&read("alerts.yml"));
    assert!(expressions.len() >= 5, "{expressions:?}");
    for expression in expressions {
        metrics_in(&expression).iter().for_each(|name| assert!(is_known(name), "{name} in {expression}"));
    }
    assert!(read("prometheus.yml").contains("  - alerts.yml"));
    assert!(read("prometheus.yml").contains("job_name: ringraft"));
}

/// Three nodes under load.
struct Loaded {
    cluster: LocalCluster,
    metrics: Vec<String>,
    load: Child,
    _folder: TempDir,
}

impl Loaded {
    fn start() -> Self {
        let folder = TempDir::with_prefix_in("ringraft-dashboards-", env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let binary = Path::new(env!("CARGO_BIN_EXE_ringraft"));
        let node_arguments = ["--segment-bytes=32MiB", "--segment-pool=1"].map(String::from).to_vec();
        let shape = Shape {
            nodes: 3,
            groups: 4,
            shards: 2,
            base_port: None,
            http: Http::Off,
            hosts: Vec::new(),
            node_arguments,
        };
        let mut cluster = LocalCluster::create(folder.path(), binary, Lifetime::Tied, &shape).expect("a cluster");
        let mut metrics = Vec::new();
        for id in 1..=3 {
            let address = format!("127.0.0.1:{}", ports::free_run(1).expect("a port"));
            cluster.add_arguments(id, &[&format!("--metrics-address={address}")]).expect("a node");
            metrics.push(address);
        }
        cluster.start().expect("nodes start");
        cluster.wait_until_serving(PATIENCE).expect("a cluster that serves");
        let endpoints = cluster.file().endpoints().join(",");
        let load = Command::new(binary)
            .args(["bench", "--rate=400", "--read-percent=30", "--keys=1000", "--duration=10m", "--endpoints"])
            .arg(endpoints)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("a load");
        Self { cluster, metrics, load, _folder: folder }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        let _ = self.load.kill();
        let _ = self.load.wait();
        let _ = self.cluster.stop(Duration::from_secs(5));
    }
}

/// What of the answers is missing after a while, as text.
fn missing(prometheus: &Prometheus, queries: &[(String, String)]) -> Vec<String> {
    let failed = |(whence, query): &(String, String)| match prometheus.ask(query) {
        Ok(values) if !values.is_empty() && values.iter().any(|value| value.is_finite()) => None,
        Ok(values) => Some(format!("{whence}: `{query}` gives {values:?}")),
        Err(error) => Some(format!("{whence}: `{query}`: {error}")),
    };
    queries.iter().filter_map(failed).collect()
}

#[test]
#[ignore = "needs prometheus and promtool, as Debian's package `prometheus` brings them; .ci/run runs it"]
fn every_panel_shows_something_of_a_live_cluster() {
    prometheus::check_files(&deploy());
    let loaded = Loaded::start();
    let folder = TempDir::with_prefix_in("ringraft-prometheus-", env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let prometheus = Prometheus::start(folder.path(), &loaded.metrics);
    let mut queries = Vec::new();
    for board in boards() {
        for panel in board.panels {
            let whence = format!("{}, {}", board.uid, panel.title);
            queries.extend(panel.queries.iter().map(|query| (whence.clone(), prometheus::as_grafana_asks(query))));
        }
    }
    let names = METRICS.iter().map(|metric| match metric.kind() {
        Kind::Histogram => format!("{}_count", metric.name),
        _ => metric.name.to_owned(),
    });
    queries.extend(names.map(|name| (String::from("the list of metrics"), name)));
    assert!(queries.len() > 100, "{}", queries.len());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let missing = missing(&prometheus, &queries);
        if missing.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{} of {} queries:\n{}", missing.len(), queries.len(), missing.join("\n"));
        thread::sleep(Duration::from_secs(1));
    }
    assert_eq!(prometheus.ask("sum(up)").expect("an answer"), [3.0]);
    assert_eq!(
        prometheus.ask("sum(ringraft_groups{state=\"leader\"})").expect("an answer"),
        [4.0],
        "one leader per group"
    );
    assert_eq!(prometheus.ask("count(raft_state{group=\"\"})").expect("an answer"), [3.0], "the view of each node");
}
