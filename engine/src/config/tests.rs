//! Tests of the configuration: precedence, bounds, relations, messages.
//!
//! Off the data path.

use clap::Parser;
use proptest::prelude::*;
use ringraft_raft::GroupId;

use super::*;

#[derive(Parser)]
#[command(args_override_self = true)]
struct Command {
    #[command(flatten)]
    node: NodeArgs,
}

fn args(arguments: &[&str]) -> NodeArgs {
    Command::parse_from(std::iter::once("node").chain(arguments.iter().copied())).node
}

const REQUIRED: [&str; 4] = [
    "--id=2",
    "--cluster-id=00112233445566778899aabbccddeeff",
    "--data-dir=/tmp/never-touched",
    "--peers=1=127.0.0.1:7000,2=127.0.0.1:7100,3=127.0.0.1:7200",
];

fn with_required(arguments: &[&str]) -> NodeArgs {
    args(&[&REQUIRED[..], arguments].concat())
}

fn loaded(args: &NodeArgs) -> ValidNodeConfig {
    args.load().unwrap().0
}

fn error(arguments: &[&str]) -> String {
    with_required(arguments).load().unwrap_err().to_string()
}

#[test]
fn defaults_are_within_their_bounds_and_environment_names_follow_the_keys() {
    for info in SETTINGS {
        assert_eq!(info.environment, format!("RINGRAFT_{}", info.key.to_uppercase()));
        assert!(info.text.trim().ends_with('.'), "{}", info.key);
        let mut config = NodeConfig::default();
        config.assign(info.key, info.default).unwrap_or_else(|problem| panic!("{}: {problem}", info.key));
        assert_eq!(config, NodeConfig::default(), "{}", info.key);
    }
}

#[test]
fn values_survive_writing_and_reading() {
    let config = loaded(&with_required(&["--shards=2", "--groups=8", "--cpus=0,1", "--flush-method=dsync"]));
    let mut again = NodeConfig::default();
    for (key, value) in config.values() {
        again.assign(key, &value).unwrap();
    }
    assert_eq!(again, *config);
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node.toml");
    let text = "tick_ms = 50\nheartbeat_ticks = 3\nsegment_bytes = \"128MiB\"\ncpus = [1]\n\
                [peers]\n1 = \"a:1\"\n2 = \"b:1\"\n";
    std::fs::write(&path, text).unwrap();
    let file = format!("--config={}", path.display());
    let given = args(&[&file, "--tick-ms=10", "--id=1", REQUIRED[1], REQUIRED[2]]);
    let config = loaded(&given);
    assert_eq!((config.tick_ms, config.heartbeat_ticks, config.election_ticks_min), (10, 3, 20));
    assert_eq!(config.segment_bytes, 128 << 20);
    assert_eq!(config.peers.0.len(), 2);
    assert_eq!(config.cpu(0), Some(1));
}

#[test]
fn unknown_keys_of_the_file_are_errors_with_a_hint() {
    let assign = |text: &str| {
        NodeConfig::default().assign_file(std::path::Path::new("/etc/ringraft.toml"), text).unwrap_err().to_string()
    };
    assert_eq!(assign("tick-ms = 5"), "/etc/ringraft.toml: there is no setting `tick-ms`; did you mean `tick_ms`?");
    assert_eq!(
        assign("init = true"),
        "/etc/ringraft.toml: there is no setting `init`; --init is a flag only, to be given once"
    );
    assert!(assign("tick_ms = ").starts_with("the configuration file /etc/ringraft.toml cannot be read: "));
    assert!(assign("tick_ms = 0").contains("(from /etc/ringraft.toml): it is below 1 (milliseconds)"));
}

#[test]
fn a_value_out_of_bounds_names_key_value_bounds_and_remedy() {
    assert_eq!(
        error(&["--tick-ms=5000"]),
        "tick_ms = `5000` (from --tick-ms): it is above 1000 (milliseconds); allowed: 1 to 1_000; \
         set it with --tick-ms, RINGRAFT_TICK_MS or `tick_ms = ...` in the configuration file"
    );
    let config = NodeConfig { groups: 0, ..NodeConfig::default() };
    assert!(config.validate().unwrap_err().to_string().contains("groups = `0` (from the program): it is below 1"));
}

#[test]
fn what_has_no_default_must_be_given() {
    for (at, key) in ["id", "cluster_id", "data_dir", "peers"].into_iter().enumerate() {
        let mut arguments = REQUIRED.to_vec();
        arguments.remove(at);
        let message = args(&arguments).load().unwrap_err().to_string();
        assert!(message.starts_with(&format!("{key} is not set: ")), "{message}");
    }
}

#[test]
fn relations_are_checked() {
    assert!(error(&["--id=7"]).contains("peers names the nodes 1,2,3 but not this one (7)"));
    assert!(error(&["--shards=2"]).contains("groups = 1 leaves some of the 2 shards without work"));
    assert!(error(&["--shards=200", "--groups=200"]).contains("to two nodes"));
    assert!(error(&["--cpus=0,1"]).contains("cpus names 2 cores for 1 shards"));
    assert!(error(&["--listen=[::]:65535", "--shards=2", "--groups=2"]).contains("no room for the ports"));
    assert!(error(&["--request-bytes-max=64KiB"]).contains("make it at least"));
    assert!(error(&["--election-ticks-min=3"]).contains("twice heartbeat_ticks"));
    assert!(error(&["--election-ticks-max=29"]).contains("1.5 times election_ticks_min"));
    assert!(error(&["--io-ring-depth=1000"]).contains("not a power of two"));
    assert!(error(&["--block-bytes=5000"]).contains("block_bytes"));
    let tight = [
        "--block-bytes=65536",
        "--batch-bytes-max=128KiB",
        "--append-bytes-max=8MiB",
        "--segment-bytes=32MiB",
        "--groups=16384",
    ];
    assert!(error(&tight).contains("segment_bytes = 33554432 cannot hold"), "{}", error(&tight));
    assert!(error(&["--watchdog-ms=100", "--tick-ms=100"]).contains("two ticks"));
}

#[test]
fn every_number_at_either_bound_is_a_valid_log_and_core_configuration_or_a_typed_error() {
    for info in SETTINGS {
        let Some((low, high)) = info.bounds.split_once(" to ") else { continue };
        for bound in [low, high] {
            let flag = format!("--{}={bound}", info.key.replace('_', "-"));
            let required = REQUIRED.into_iter().filter(|given| info.key != "id" || !given.starts_with("--id"));
            let arguments: Vec<&str> = required.chain([flag.as_str()]).collect();
            // Neither a panic here nor, when valid, in the conversions.
            if let Ok((config, _)) = args(&arguments).load() {
                let _ = (config.raft(GroupId(0)), config.wal(0), config.limits());
            }
        }
    }
}

#[test]
fn addresses_follow_shards_and_listen() {
    let config = loaded(&with_required(&["--shards=2", "--groups=5", "--listen=0.0.0.0:9000"]));
    assert_eq!(config.listen_address(1), "0.0.0.0:9001");
    assert_eq!(config.address(ringraft_raft::NodeId(3), 1).as_deref(), Some("127.0.0.1:7201"));
    assert_eq!(config.other_nodes(), [ringraft_raft::NodeId(1), ringraft_raft::NodeId(3)]);
    let groups: Vec<u32> = config.groups_of_shard(1).map(|group| group.0).collect();
    assert_eq!(groups, [1, 3]);
    assert_eq!(loaded(&with_required(&[])).listen_address(0), "127.0.0.1:7100");
}

#[test]
fn the_digest_covers_what_nodes_share_and_nothing_else() {
    let digest = |arguments: &[&str]| loaded(&with_required(arguments)).cluster_digest();
    let base = digest(&[]);
    for own in ["--tick-ms=30", "--segment-pool=3", "--listen=0.0.0.0:1", "--log-level=debug"] {
        assert_eq!(digest(&[own]), base, "{own}");
    }
    for shared in ["--groups=2", "--key-bytes-max=100", "--sessions-max=5", "--session-window-max=7"] {
        assert_ne!(digest(&[shared]), base, "{shared}");
    }
    let other_nodes = args(&[REQUIRED[0], REQUIRED[1], REQUIRED[2], "--peers=1=127.0.0.1:7000,2=127.0.0.1:7100"]);
    assert_ne!(loaded(&other_nodes).cluster_digest(), base);
    let other_addresses = args(&[REQUIRED[0], REQUIRED[1], REQUIRED[2], "--peers=1=a:1,2=b:1,3=c:1"]);
    assert_eq!(loaded(&other_addresses).cluster_digest(), base, "addresses may change");
}

#[test]
fn a_running_node_takes_what_it_can() {
    let before = loaded(&with_required(&["--tick-ms=50", "--election-ticks-max=80"]));
    let given =
        ["--tick-ms=25", "--groups=2", "--snapshot-log-entries=77", "--log-level=debug", "--election-ticks-max=80"];
    let (next, reloaded) = before.with_reloaded(&loaded(&with_required(&given))).unwrap();
    let texts = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(reloaded.changed, texts(&[("log_level", "debug"), ("snapshot_log_entries", "77")]));
    assert_eq!(reloaded.restart, ["groups", "tick_ms"]);
    assert_eq!((next.tick_ms, next.groups, next.snapshot_log_entries), (50, 1, 77));
    assert_eq!((next.live().snapshots.log_entries, next.live().disk_stall_ticks), (77, 40));
    let (_, again) = next.with_reloaded(&next).unwrap();
    assert_eq!(again, crate::shard::live::Reloaded::default());
    // Valid for ticks of 25 ms, and not for those of the running node.
    let short = loaded(&with_required(&["--digest-ms=25"]));
    assert!(before.with_reloaded(&short).unwrap_err().to_string().contains("at least tick_ms"));
}

#[test]
fn whatever_may_change_at_run_time_is_nobody_elses_business() {
    for info in SETTINGS.iter().filter(|info| info.reload) {
        assert!(!info.shared, "{}", info.key);
    }
    let keys: Vec<&str> = SETTINGS.iter().filter(|info| info.reload).map(|info| info.key).collect();
    assert!(keys.contains(&"log_level") && keys.contains(&"connections_max") && !keys.contains(&"tick_ms"), "{keys:?}");
}

fn complete() -> NodeConfig {
    with_required(&[]).resolve().unwrap().config
}

/// Valid and usable, or refused with a reason.
fn check(config: NodeConfig) {
    match config.validate() {
        Ok(config) => {
            let _ = (config.raft(GroupId(0)), config.wal(0), config.limits(), config.cluster_digest());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Values as people write them, and others.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<u64>().prop_map(|number| number.to_string()),
        (any::<u16>(), prop::sample::select(vec!["KiB", "MiB", "GiB", "ms", "s", "-", ",", "=", "e9"]))
            .prop_map(|(number, unit)| format!("{number}{unit}")),
        "[0-9]=[a-z]{0,3}:[0-9]{0,6}(,[0-9]=[a-z]:[0-9]{1,5}){0,3}",
        "\\PC{0,20}",
    ]
}

proptest! {
    #[test]
    fn any_value_of_any_setting_is_taken_or_refused(which in any::<prop::sample::Index>(), value in value()) {
        let info = which.get(SETTINGS);
        let mut config = complete();
        if config.assign(info.key, &value).is_ok() {
            let mut again = complete();
            for (key, value) in config.values() {
                again.assign(key, &value).unwrap();
            }
            prop_assert_eq!(&again, &config, "{} = {}", info.key, value);
            check(config);
        }
    }

    #[test]
    fn any_file_is_taken_or_refused(
        lines in prop::collection::vec((any::<prop::sample::Index>(), value(), 0..3_u8), 0..5),
        text in "\\PC{0,40}",
    ) {
        let line = |(which, value, form): &(prop::sample::Index, String, u8)| {
            let key = which.get(SETTINGS).key;
            match form {
                0 => format!("{key} = {value}\n"),
                1 => format!("{key} = {value:?}\n"),
                _ => format!("[{key}]\na = {value:?}\n"),
            }
        };
        let mut config = complete();
        let file: String = lines.iter().map(line).collect();
        if config.assign_file(std::path::Path::new("any.toml"), &file).is_ok() {
            check(config);
        }
        let _ = complete().assign_file(std::path::Path::new("any.toml"), &text);
    }
}

#[test]
fn others_are_told_where_http_and_grpc_are() {
    let services = |arguments: &[&str]| {
        let services = with_required(arguments).load().unwrap().0.services();
        (services.http, services.grpc)
    };
    let told = |http: &str, grpc: &str| (http.to_owned(), grpc.to_owned());
    assert_eq!(services(&[]), told("", ""));
    assert_eq!(services(&["--http-address=0.0.0.0:8080"]), told("127.0.0.1:8080", "127.0.0.1:8080"));
    assert_eq!(
        services(&["--http-address=[::]:8080", "--grpc-address=db-2:8090"]),
        told("127.0.0.1:8080", "db-2:8090")
    );
    assert_eq!(services(&["--grpc-address=[::1]:8090"]), told("", "[::1]:8090"));
    for (arguments, reason) in [
        (&["--http-address=0.0.0.0:7100"][..], "http_address: port 7100 is that of a shard"),
        (
            &["--metrics-address=0.0.0.0:7101", "--shards=2", "--groups=2"],
            "metrics_address: port 7101 is that of a shard",
        ),
        (&["--http-address=a:80", "--grpc-address=b:80"], "grpc_address: port 80 is taken"),
        (&["--http-address=8080"], "is not host:port"),
    ] {
        assert!(error(arguments).contains(reason), "{}", error(arguments));
    }
}
