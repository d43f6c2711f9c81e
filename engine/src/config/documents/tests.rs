//! The spellings of other programs, as their documents have them, and what they come to.
//!
//! Off the data path.

use clap::Parser;

use super::super::{NodeArgs, NodeConfig, ValidNodeConfig};
use super::*;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    node: NodeArgs,
}

fn resolve(flags: &str, environment: &[(&str, &str)]) -> Result<Resolved, ConfigError> {
    let arguments = Command::try_parse_from(std::iter::once("node").chain(flags.split_whitespace()));
    let find = |name: &str| environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
    arguments.unwrap_or_else(|error| panic!("{flags}: {error}")).node.resolve_in(&find)
}

fn valid(flags: &str, environment: &[(&str, &str)]) -> (ValidNodeConfig, Vec<String>) {
    let resolved = resolve(flags, environment).unwrap_or_else(|error| panic!("{flags}: {error}"));
    (resolved.config.validate().unwrap_or_else(|error| panic!("{flags}: {error}")), resolved.warnings)
}

fn value(config: &NodeConfig, key: &str) -> String {
    config.values().into_iter().find(|(known, _)| *known == key).unwrap_or_else(|| panic!("{key}")).1
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    (folder, format!("--config={}", path.display()))
}

const RAFT_YAML: &str = r#"
# raft.yaml
cluster:
  nodes:
    - id: "node1"
      address: "localhost:8081"
    - id: "node2"
      address: "localhost:8082"
    - id: "node3"
      address: "localhost:8083"

raft:
  election_timeout: "150ms"
  heartbeat_interval: "50ms"
  snapshot_interval: "1000"
  log_compaction_threshold: "10000"

storage:
  data_dir: "./data"
  wal_dir: "./wal"
  sync_writes: true

api:
  http_port: 8080
  grpc_port: 8090
"#;

const CLUSTER_JSON: &str = r#"{
  "nodes": {
    "1": { "id": 1, "http_addr": "localhost:8001", "rpc_addr": "localhost:9001" },
    "2": { "id": 2, "http_addr": "localhost:8002", "rpc_addr": "localhost:9002" },
    "3": { "id": 3, "http_addr": "localhost:8003", "rpc_addr": "localhost:9003" }
  }
}"#;

const FOUR: [(&str, &str); 4] = [
    ("APP_NODE_ID", "node-2"),
    ("APP_GRPC_ADDR", ":8082"),
    ("APP_DATA_DIR", "./var/node-2"),
    ("APP_PEERS", "node-1=:8081,node-2=:8082,node-3=:8083"),
];

#[test]
fn the_environment_of_a_document_makes_a_node() {
    let (config, warnings) = valid("", &FOUR);
    assert_eq!((config.id, value(&config, "data_dir")), (2, "./var/node-2".to_owned()));
    assert_eq!(value(&config, "peers"), "1=127.0.0.1:8081,2=127.0.0.1:8082,3=127.0.0.1:8083");
    assert_eq!(config.listen_address(0), "0.0.0.0:8082");
    assert!(warnings.iter().any(|text| text.contains("APP_GRPC_ADDR")), "{warnings:?}");
    assert!(warnings.iter().any(|text| text.contains("cluster_id")), "{warnings:?}");
    let other = |id| [("APP_NODE_ID", id), ("APP_DATA_DIR", "d"), ("APP_PEERS", FOUR[3].1)];
    let (first, third) = (valid("", &other("1")).0, valid("", &other("node3")).0);
    assert_eq!(
        (first.cluster_id, third.cluster_id),
        (config.cluster_id, config.cluster_id),
        "all nodes agree on the id"
    );
    let (given, warnings) = valid("--cluster-id=00112233445566778899aabbccddeeff", &FOUR);
    assert_ne!(given.cluster_id, config.cluster_id);
    assert!(!warnings.iter().any(|text| text.contains("cluster_id")), "{warnings:?}");
}

#[test]
fn each_variable_of_the_documents_comes_to_its_setting_or_says_why_not() {
    let table: [(&str, &str, &str, &str); 11] = [
        ("APP_LOG_LEVEL", "debug", "log_level", "debug"),
        ("APP_SNAPSHOT_EVERY", "1000", "snapshot_log_entries", "1000"),
        ("APP_SNAPSHOT_EVERY", "0", "snapshot_log_entries", "1000000000000"),
        ("APP_CONSENSUS_TYPE", "raft", "log_level", "info"),
        ("APP_PPROF_ADDR", "", "log_level", "info"),
        ("APP_METRICS_ADDR", "", "log_level", "info"),
        ("APP_METRICS_ADDR", ":9100", "metrics_address", "0.0.0.0:9100"),
        ("APP_TRACING_ENABLED", "true", "tracing_enabled", "on"),
        ("APP_TRACING_ENDPOINT", "http://jaeger:4317", "tracing_endpoint", "jaeger:4317"),
        ("APP_TRACING_SERVICE_NAME", "consensus-node", "tracing_service_name", "consensus-node"),
        ("APP_DATA_DIR", "/elsewhere", "data_dir", "/elsewhere"),
    ];
    for (name, given, key, expected) in table {
        let resolved = resolve("", &[(name, given)]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(value(&resolved.config, key), expected, "{name}={given}");
        let origin = resolved.origins.get(key).map(String::as_str);
        assert_eq!(origin, (expected != value(&NodeConfig::default(), key)).then_some(name));
    }
    for (name, given, says) in [
        ("APP_CONSENSUS_TYPE", "paxos", "APP_CONSENSUS_TYPE (from the environment): it must be `raft`, not `paxos`"),
        ("APP_SNAPSHOT_EVERY", "7", "snapshot_log_entries = `7` (from APP_SNAPSHOT_EVERY): it is below 16"),
        ("APP_NODE_ID", "alice", "id = `alice` (from APP_NODE_ID)"),
        ("APP_LOG_LEVEL", "verbose", "(from APP_LOG_LEVEL): there is no such level"),
        ("APP_TRACING_ENABLED", "maybe", "tracing_enabled = `maybe` (from APP_TRACING_ENABLED)"),
        (
            "APP_TRACING_ENDPOINT",
            "jaeger",
            "tracing_endpoint = `jaeger` (from APP_TRACING_ENDPOINT): `jaeger` is not host:port",
        ),
        ("APP_TRACING_ENDPOINT", "https://jaeger:4317", "(from APP_TRACING_ENDPOINT): TLS is not spoken to it"),
        ("APP_PEERS", "a=b", "peers = `a=b` (from APP_PEERS)"),
        ("APP_PEERS", "n1=:1,:2", "some nodes have ids and some have not"),
    ] {
        let said = resolve("", &[(name, given)]).unwrap_err().to_string();
        assert!(said.contains(says), "{name}={given}: {said}");
    }
    for (name, given) in [("APP_SNAPSHOT_EVERY", "0"), ("APP_PPROF_ADDR", ":6060")] {
        let warnings = resolve("", &[(name, given)]).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(name), "{name}: {warnings:?}");
    }
}

#[test]
fn peers_without_ids_are_numbered_by_their_place() {
    let peers = ("APP_PEERS", "10.0.0.1:8081,10.0.0.2:8081,10.0.0.3:8081");
    let (config, warnings) = valid("--data-dir=d", &[("APP_NODE_ID", "2"), peers]);
    assert_eq!(value(&config, "peers"), "1=10.0.0.1:8081,2=10.0.0.2:8081,3=10.0.0.3:8081");
    assert!(warnings.iter().any(|text| text.contains("numbered by their place")), "{warnings:?}");
    let wrong = [("APP_NODE_ID", "3"), ("APP_GRPC_ADDR", ":8085"), ("APP_PEERS", ":8084,:8085,:8086")];
    assert!(resolve("", &wrong).unwrap_err().to_string().contains("place 3 is not this node's"));
    let others =
        [("APP_NODE_ID", "3"), ("APP_GRPC_ADDR", "10.0.0.3:8083"), ("APP_PEERS", "1=10.0.0.1:8081,2=10.0.0.2:8082")];
    assert_eq!(value(&valid("--data-dir=d", &others).0, "peers"), "1=10.0.0.1:8081,2=10.0.0.2:8082,3=10.0.0.3:8083");
}

#[test]
fn what_is_ours_wins_over_foreign_names() {
    let resolved = resolve("--id=3 --data-dir=here", &FOUR).unwrap();
    assert_eq!((resolved.config.id, value(&resolved.config, "data_dir")), (3, "here".to_owned()));
    assert_eq!(resolved.origins["id"], "--id");
    assert_eq!(resolved.origins["peers"], "APP_PEERS");
    let resolved = resolve("--peers=1=a:1", &FOUR).unwrap();
    assert!(!resolved.is_set("cluster_id"), "peers of our own bring no id");
}

#[test]
fn flags_in_other_spellings() {
    let peers = "--peers n1=127.0.0.1:9101,n2=127.0.0.1:9102,n3=127.0.0.1:9103";
    let cluster = "--cluster-id=00112233445566778899aabbccddeeff";
    for spelling in [
        "--id n1 --listen 127.0.0.1:9101 --data-dir .cluster/data/n1",
        "--node-id 1 --listen 127.0.0.1:9101 --data-dir .cluster/data/n1",
        "--node_id=node1 --listen=127.0.0.1:9101 --raft_dir=.cluster/data/n1",
        "--node_id=node-1 --raft_port=9101 --raft-dir .cluster/data/n1",
    ] {
        let (config, _) = valid(&format!("{spelling} {peers} {cluster}"), &[]);
        assert_eq!((config.id, value(&config, "data_dir")), (1, ".cluster/data/n1".to_owned()), "{spelling}");
        assert!(config.listen_address(0).ends_with(":9101") && !config.init, "{spelling}");
    }
}

#[test]
fn a_node_that_founds_a_cluster_alone() {
    for bootstrap in ["--bootstrap", "--bootstrap=true"] {
        let flags = format!("--raft_port=12001 --node_id=node1 --raft_dir=/tmp/raft1 {bootstrap}");
        let (config, warnings) = valid(&flags, &[]);
        assert_eq!(value(&config, "peers"), "1=127.0.0.1:12001");
        assert!(config.init && config.listen_address(0) == "0.0.0.0:12001");
        assert!(warnings.iter().any(|text| text.contains("cluster_id")), "{warnings:?}");
    }
    let flags = "--raft_port=12001 --node_id=node1 --raft_dir=/tmp/raft1 --bootstrap=false";
    assert!(
        resolve(flags, &[]).unwrap().config.validate().unwrap_err().to_string().starts_with("cluster_id is not set")
    );
    let said = resolve("--node_id=node2 --join_addr=localhost:50051", &[]).unwrap_err().to_string();
    assert!(said.contains("ringraft join --seed localhost:50051"), "{said}");
}

#[test]
fn raft_yaml_as_its_document_has_it() {
    let (_folder, config) = file("raft.yaml", RAFT_YAML);
    let (config, warnings) = valid(&format!("{config} --node-id node2"), &[]);
    assert_eq!(value(&config, "peers"), "1=localhost:8081,2=localhost:8082,3=localhost:8083");
    assert_eq!((config.election_timeout_min_ms(), config.election_timeout_max_ms()), (150, 300));
    assert_eq!(u64::from(config.heartbeat_ticks) * config.tick_ms, 50);
    assert_eq!(
        (config.snapshot_log_entries, value(&config, "data_dir"), value(&config, "wal_dir")),
        (1000, "./data".to_owned(), "./wal".to_owned())
    );
    assert!(!warnings.iter().any(|text| text.contains("compaction")), "twice 1000 is below 10000: {warnings:?}");
}

#[test]
fn cluster_json_as_its_document_has_it() {
    let (_folder, config) = file("cluster.json", CLUSTER_JSON);
    let resolved = resolve(&format!("{config} --node-id 2 --data-dir=state"), &[]).unwrap();
    assert_eq!(value(&resolved.config, "peers"), "1=localhost:9001,2=localhost:9002,3=localhost:9003");
    assert_eq!(value(&resolved.config, "http_address"), "localhost:8002");
    assert!(resolved.config.validate().is_ok());
}

#[test]
fn what_a_foreign_file_says_and_cannot_mean_is_refused_by_name() {
    for (name, from, to, says) in [
        ("raft.yaml", "sync_writes: true", "sync_writes: false", "storage.sync_writes"),
        ("raft.yaml", "sync_writes: true", "fsync: true", "storage.fsync"),
        ("raft.yaml", "\"150ms\"", "\"150\"", "raft.election_timeout"),
        ("raft.yaml", "\"150ms\"", "\"0.5ms\"", "raft.election_timeout"),
        ("raft.yaml", "\"1000\"", "\"many\"", "raft.snapshot_interval"),
        ("raft.yaml", "      address: \"localhost:8081\"", "      addr: \"localhost:8081\"", "cluster.nodes"),
        ("raft.yaml", "api:", "apis:", "apis"),
        ("cluster.json", "rpc_addr\": \"localhost:9002", "rpc\": \"localhost:9002", "nodes.2"),
        ("cluster.json", "\"id\": 3", "\"id\": 4", "nodes.3"),
        ("cluster.json", "{ \"id\": 1,", "{ \"id\": 1, \"port\": 7,", "nodes.1"),
    ] {
        let text = if name == "raft.yaml" { RAFT_YAML } else { CLUSTER_JSON };
        assert!(text.contains(from), "{from}");
        let (_folder, config) = file(name, &text.replace(from, to));
        let said = resolve(&format!("{config} --node-id 1"), &[]).unwrap_err().to_string();
        assert!(said.contains(says), "{to}: {said}");
    }
    let (_folder, config) = file("raft.yaml", &RAFT_YAML.replace("\"10000\"", "\"1500\""));
    let warnings = resolve(&config, &[]).unwrap().warnings;
    assert!(warnings.iter().any(|text| text.contains("raft.log_compaction_threshold")), "{warnings:?}");
}

#[test]
fn the_timers_of_all_documents_can_be_set() {
    for (election, heartbeat, expected) in [
        ("150ms", "50ms", (25, 2, 6, 12)),
        ("350ms", "120ms", (10, 12, 35, 70)),
        ("1s", "0.1s", (25, 4, 40, 80)),
        ("151ms", "7ms", (1, 7, 151, 302)),
    ] {
        let text = RAFT_YAML.replace("150ms", election).replace("\"50ms\"", &format!("\"{heartbeat}\""));
        let (_folder, config) = file("raft.yml", &text);
        let (config, _) = valid(&format!("{config} --id=1"), &[]);
        let found = (config.tick_ms, config.heartbeat_ticks, config.election_ticks_min, config.election_ticks_max);
        assert_eq!(found, expected, "{election} {heartbeat}");
    }
}

#[test]
fn times_are_whole_milliseconds() {
    for (text, expected) in [
        ("150ms", Some(150)),
        ("1.5s", Some(1500)),
        (" 2s ", Some(2000)),
        ("1.5ms", None),
        ("0ms", None),
        ("-1s", None),
        ("5", None),
        ("1e3ms", None),
        ("", None),
        ("2h", None),
    ] {
        assert_eq!(milliseconds(text).ok(), expected, "{text}");
    }
}
