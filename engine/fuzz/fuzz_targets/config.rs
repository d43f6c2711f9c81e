//! Any text as a configuration file or as the value of a setting: an error that says why, or a sound configuration.
//!
//! Off the data path.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use ringraft_engine::config::{NodeConfig, SETTINGS};
use ringraft_raft::GroupId;

fn check(config: NodeConfig) {
    match config.validate() {
        // What is valid can be used: none of these may panic.
        Ok(config) => {
            let _ = (config.raft(GroupId(0)), config.wal(0), config.limits(), config.cluster_digest());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn complete() -> NodeConfig {
    let text =
        "id = 1\ncluster_id = \"00112233445566778899aabbccddeeff\"\ndata_dir = \"d\"\npeers = \"1=a:1,2=b:1,3=c:1\"";
    let mut config = NodeConfig::default();
    config.assign_file(Path::new("base"), text).expect("a good file");
    config
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut config = complete();
    if config.assign_file(Path::new("fuzz.toml"), text).is_ok() {
        check(config);
    }
    let Some((first, value)) = data.split_first().zip(text.get(1..)).map(|((first, _), rest)| (first, rest)) else {
        return;
    };
    let info = &SETTINGS[usize::from(*first) % SETTINGS.len()];
    let line = |key: &str, value: &str| format!("{key} = {}\n", toml::Value::String(value.to_owned()));
    let mut config = complete();
    if config.assign_file(Path::new("fuzz.toml"), &line(info.key, value)).is_ok() {
        let again: String = config.values().iter().map(|(key, value)| line(key, value)).collect();
        let mut second = complete();
        second.assign_file(Path::new("again.toml"), &again).expect("what was read can be written");
        assert_eq!(config, second, "values survive writing and reading");
        check(config);
    }
});
