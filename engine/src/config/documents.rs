//! Names that other programs give to settings: the `APP_*` environment, `raft.yaml`, `cluster.json`, and some flags.
//!
//! Off the data path.
//! Invariants: a name is taken only where it means the same here; what cannot be honoured is an error, what is honoured in
//! another way is a warning, and both name it; nothing is ignored in silence.
//!
//! ```text
//!   APP_PEERS=node-1=:8081,node-2=:8082   raft.yaml: cluster.nodes[{id,address}]   cluster.json: nodes{"1":{id,rpc_addr}}
//!                    └───────────────────────────────┬───────────────────────────────────────┘
//!                                    peers = 1=127.0.0.1:8081,2=...     cluster_id, if none is given: follows from peers
//! ```
//! A table row more is all that a new name costs.

use std::path::Path;

use serde_json::{Map, Value};
use xxhash_rust::xxh3::xxh3_128;

use super::ConfigError;
use super::file::plain_text;
use super::load::{Environment, Resolved};
use super::values::node_number;

/// The node's id in the environment of such programs.
pub(super) const NODE_ID: &str = "APP_NODE_ID";

/// How a value becomes one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As it is.
    Same,
    /// `:8081` is every address of this machine.
    Listen,
    /// See [`peers`].
    Peers,
    /// A number of entries; 0: never by their number.
    Entries,
    /// Nothing but `raft`.
    Raft,
    /// There is no such thing here.
    Absent(&'static str),
}

/// Variable, setting, form. `APP_GRPC_ADDR` comes before `APP_PEERS`, which looks at it.
const ENVIRONMENT: &[(&str, &str, Form)] = &[
    (NODE_ID, "id", Form::Same),
    ("APP_GRPC_ADDR", "listen", Form::Listen),
    ("APP_PEERS", "peers", Form::Peers),
    ("APP_DATA_DIR", "data_dir", Form::Same),
    ("APP_LOG_LEVEL", "log_level", Form::Same),
    ("APP_SNAPSHOT_EVERY", "snapshot_log_entries", Form::Entries),
    ("APP_METRICS_ADDR", "metrics_address", Form::Listen),
    ("APP_TRACING_ENABLED", "tracing_enabled", Form::Same),
    ("APP_TRACING_ENDPOINT", "tracing_endpoint", Form::Same),
    ("APP_TRACING_SERVICE_NAME", "tracing_service_name", Form::Same),
    ("APP_CONSENSUS_TYPE", "", Form::Raft),
    (
        "APP_PPROF_ADDR",
        "",
        Form::Absent("there is no pprof server; `perf record` on the profiling build shows where time goes"),
    ),
];

/// Takes the `APP_*` variables; an empty one says nothing. `id`: this node's, as far as known.
pub(super) fn take_environment(
    resolved: &mut Resolved,
    environment: Environment<'_>,
    id: Option<u64>,
) -> Result<(), ConfigError> {
    for (name, key, form) in ENVIRONMENT {
        let Some(value) = environment(name).filter(|value| !value.is_empty()) else { continue };
        match form {
            Form::Same => resolved.set(key, &value, name)?,
            Form::Listen => resolved.set(key, &with_host(&value, "0.0.0.0"), name)?,
            Form::Peers => {
                let peers = peers(resolved, &value, id.unwrap_or(0))
                    .map_err(|problem| foreign(name, "the environment", &problem))?;
                resolved.set_founders(&peers, name)?;
            }
            Form::Entries => resolved.set_entries(&value, name)?,
            Form::Raft if value == "raft" => {}
            Form::Raft => return Err(foreign(name, "the environment", &format!("it must be `raft`, not `{value}`"))),
            Form::Absent(instead) => resolved.warn(format!("{name} is not taken: {instead}")),
        }
    }
    if resolved.origins.get("listen").is_some_and(|origin| origin == "APP_GRPC_ADDR") {
        resolved.warn(String::from(
            "APP_GRPC_ADDR: clients, operators and peers share this address, by ringraft's own protocol; gRPC has an \
             address of its own (grpc_address)",
        ));
    }
    Ok(())
}

/// `id=host:port` or `host:port`, the latter numbered by their place; without a host: this machine.
fn peers(resolved: &mut Resolved, text: &str, id: u64) -> Result<String, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let named = parts.iter().filter(|part| part.contains('=')).count();
    let listen = resolved.config.listen.clone();
    if named == 0 {
        let own = usize::try_from(id).ok().and_then(|id| parts.get(id.checked_sub(1)?));
        let port = |text: &str| text.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if listen.is_some_and(|listen| own.and_then(|own| port(own)) != Some(listen.port)) {
            return Err(format!(
                "without ids the nodes are numbered by their place, and place {id} is not this node's: write id=host:port"
            ));
        }
        resolved
            .warn(String::from("APP_PEERS has no ids: nodes are numbered by their place, the same list on every node"));
        let numbered =
            parts.iter().enumerate().map(|(at, part)| format!("{}={}", at + 1, with_host(part, "127.0.0.1")));
        return Ok(numbered.collect::<Vec<_>>().join(","));
    }
    if named < parts.len() {
        return Err(String::from("some nodes have ids and some have not"));
    }
    let mut all = Vec::new();
    let mut lists_own = false;
    for (name, address) in parts.iter().filter_map(|part| part.split_once('=')) {
        lists_own |= node_number(name) == Some(id);
        all.push(format!("{name}={}", with_host(address, "127.0.0.1")));
    }
    // A list of the others is as good, when this node says where it is reached.
    if let Some(own) = listen.filter(|own| !lists_own && id != 0 && own.host != "0.0.0.0") {
        all.push(format!("{id}={}", own.of_shard(0)));
    }
    Ok(all.join(","))
}

/// `:8081` with a host.
fn with_host(address: &str, host: &str) -> String {
    let address = address.trim();
    if address.starts_with(':') { format!("{host}{address}") } else { address.to_owned() }
}

fn foreign(name: &str, origin: &str, problem: &str) -> ConfigError {
    ConfigError::Foreign { name: name.to_owned(), origin: origin.to_owned(), problem: problem.to_owned() }
}

impl Resolved {
    /// Peers that a foreign name brought.
    fn set_founders(&mut self, peers: &str, origin: &str) -> Result<(), ConfigError> {
        self.set("peers", peers, origin)?;
        self.founders = Some(origin.to_owned());
        Ok(())
    }

    fn set_entries(&mut self, value: &str, origin: &str) -> Result<(), ConfigError> {
        if value.trim() != "0" {
            return self.set("snapshot_log_entries", value, origin);
        }
        self.warn(format!(
            "{origin} = 0: no snapshot is taken for a number of entries; those for bytes stay (snapshot_log_bytes, \
             snapshot_segments), since the log would grow without end"
        ));
        self.set("snapshot_log_entries", "1000000000000", origin)
    }
}

/// Whether a top-level key belongs to `raft.yaml` or `cluster.json`.
pub(super) fn is_foreign(key: &str) -> bool {
    matches!(key, "cluster" | "raft" | "storage" | "api" | "nodes")
}

/// Takes the keys of `raft.yaml` and `cluster.json`; `id`: this node's, as far as known.
pub(super) fn take_file(
    resolved: &mut Resolved,
    path: &Path,
    table: &Map<String, Value>,
    id: Option<u64>,
) -> Result<(), ConfigError> {
    let file = path.display().to_string();
    let mut timing = Timing::default();
    let mut compaction = None;
    for (section, value) in table {
        let Value::Object(keys) = value else {
            let own = "a table is wanted (the cluster.json of `ringraft cluster start` is no configuration)";
            return Err(foreign(section, &file, own));
        };
        if section == "nodes" {
            take_nodes(resolved, &file, keys, id)?;
            continue;
        }
        for (key, value) in keys {
            let name = format!("{section}.{key}");
            let (text, origin) = (plain_text(value), format!("{name} in {file}"));
            let malformed = |problem: String| foreign(&name, &file, &problem);
            match name.as_str() {
                "cluster.nodes" => resolved.set_founders(&listed(value).map_err(malformed)?, &origin)?,
                "raft.election_timeout" => timing.election_ms = Some(milliseconds(&text).map_err(malformed)?),
                "raft.heartbeat_interval" => timing.heartbeat_ms = Some(milliseconds(&text).map_err(malformed)?),
                "raft.snapshot_interval" => resolved.set_entries(&text, &origin)?,
                "raft.log_compaction_threshold" => compaction = Some((text, origin)),
                "storage.data_dir" => resolved.set("data_dir", &text, &origin)?,
                "storage.wal_dir" => resolved.set("wal_dir", &text, &origin)?,
                "storage.sync_writes" => synchronous(&text).map_err(malformed)?,
                "api.http_port" => resolved.set("http_address", &format!("0.0.0.0:{text}"), &origin)?,
                "api.grpc_port" => resolved.set("grpc_address", &format!("0.0.0.0:{text}"), &origin)?,
                _ => return Err(ConfigError::UnknownKey { path: path.into(), key: name, hint: String::new() }),
            }
        }
    }
    compaction.map_or(Ok(()), |(text, origin)| note_compaction(resolved, &text, &origin))?;
    timing.apply(resolved, &file)
}

/// `cluster.nodes` of `raft.yaml` as `--peers` takes them.
fn listed(value: &Value) -> Result<String, String> {
    let nodes = value.as_array().ok_or("a list of nodes is wanted, each with `id` and `address`")?;
    let peer = |node: &Value| {
        let table = node.as_object().filter(|table| table.len() == 2)?;
        Some(format!("{}={}", plain_text(table.get("id")?), plain_text(table.get("address")?)))
    };
    let peers: Option<Vec<String>> = nodes.iter().map(peer).collect();
    Ok(peers.ok_or("each node has `id` and `address`, and nothing else")?.join(","))
}

/// `nodes` of `cluster.json`: `rpc_addr` is where peers meet, `http_addr` where this node has its HTTP.
fn take_nodes(
    resolved: &mut Resolved,
    file: &str,
    nodes: &Map<String, Value>,
    id: Option<u64>,
) -> Result<(), ConfigError> {
    let mut peers = Vec::new();
    for (key, node) in nodes {
        let name = format!("nodes.{key}");
        let malformed = |problem: &str| foreign(&name, file, problem);
        let node = node.as_object().ok_or_else(|| malformed("a table is wanted"))?;
        if let Some(other) = node.keys().find(|key| !["id", "http_addr", "rpc_addr"].contains(&key.as_str())) {
            return Err(malformed(&format!("there is no key `{other}`; `id`, `http_addr` and `rpc_addr` are known")));
        }
        let given = node.get("id").map_or_else(|| key.clone(), plain_text);
        if given != *key {
            return Err(malformed(&format!("its id is {given}")));
        }
        let address = node.get("rpc_addr").map(plain_text).ok_or_else(|| malformed("rpc_addr is missing"))?;
        peers.push(format!("{key}={address}"));
        let http = node.get("http_addr").map(plain_text);
        if let Some(http) = http.filter(|_| id.is_some() && node_number(key) == id) {
            resolved.set("http_address", &http, &format!("{name}.http_addr in {file}"))?;
        }
    }
    resolved.set_founders(&peers.join(","), &format!("nodes in {file}"))
}

fn synchronous(text: &str) -> Result<(), String> {
    match text {
        "true" => Ok(()),
        "false" => Err(String::from(
            "it cannot be switched off: what is acknowledged is durable on a majority. Leave the key out; flushes are \
             shared by all that waits, see flush_method",
        )),
        _ => Err(format!("`{text}` is neither `true` nor `false`")),
    }
}

/// The log keeps the entries from the second newest snapshot on, which is a bound of its own.
fn note_compaction(resolved: &mut Resolved, text: &str, origin: &str) -> Result<(), ConfigError> {
    let threshold: u64 = text.trim().parse().map_err(|_| foreign(origin, "it", "it is no number of entries"))?;
    let every = resolved.config.snapshot_log_entries;
    if every.saturating_mul(2) > threshold {
        resolved.warn(format!(
            "{origin} is not taken: the log keeps the entries of up to two snapshots, here twice {every} \
             (snapshot_log_entries, raft.snapshot_interval)"
        ));
    }
    Ok(())
}

/// Protocol times as `raft.yaml` has them.
#[derive(Clone, Copy, Debug, Default)]
struct Timing {
    election_ms: Option<u64>,
    heartbeat_ms: Option<u64>,
}

/// Ticks to count times in, the longest that fits first.
const TICKS_MS: [u64; 5] = [25, 10, 5, 2, 1];

impl Timing {
    /// Times in ticks; elections wait for one to two times the election timeout.
    fn apply(self, resolved: &mut Resolved, file: &str) -> Result<(), ConfigError> {
        let (election, heartbeat) = match (self.election_ms, self.heartbeat_ms) {
            (None, None) => return Ok(()),
            (election, heartbeat) => (election.unwrap_or(500), heartbeat.unwrap_or(50)),
        };
        let fits = |tick: &u64| election.is_multiple_of(*tick) && heartbeat.is_multiple_of(*tick);
        let tick = TICKS_MS.into_iter().find(fits).unwrap_or(1);
        let origin = format!("raft.election_timeout and raft.heartbeat_interval in {file}");
        for (key, value) in [
            ("tick_ms", tick),
            ("heartbeat_ticks", heartbeat / tick),
            ("election_ticks_min", election / tick),
            ("election_ticks_max", 2 * election / tick),
        ] {
            resolved.set(key, &value.to_string(), &origin)?;
        }
        Ok(())
    }
}

/// Whole milliseconds of `150ms`, `1s` or `1.5s`.
fn milliseconds(text: &str) -> Result<u64, String> {
    let problem = || format!("`{text}` is no time in whole milliseconds: 150ms, 2s");
    let text = text.trim();
    let (number, factor) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s').ok_or_else(problem)?, 1_000.0),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(problem());
    }
    let value = number.parse::<f64>().map_err(|_| problem())? * factor;
    if value.fract() != 0.0 || !(1.0..=3_600_000.0).contains(&value) { Err(problem()) } else { Ok(value as u64) }
}

/// Flags of other programs that stand for several settings.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DocumentFlags {
    /// As `--init`.
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    bootstrap: Option<bool>,
    /// The gRPC port.
    #[arg(long, hide = true)]
    port: Option<u16>,
    /// The port of ringraft's own protocol; with `--bootstrap` this node alone founds the cluster.
    #[arg(long, alias = "raft_port", hide = true)]
    raft_port: Option<u16>,
    /// Names the command that joins.
    #[arg(long, alias = "join_addr", hide = true)]
    join_addr: Option<String>,
}

impl DocumentFlags {
    /// Takes the flags, after those of the settings, which win.
    pub(super) fn take(&self, resolved: &mut Resolved) -> Result<(), ConfigError> {
        if let Some(seed) = &self.join_addr {
            let problem = format!(
                "a node joins by another command: ringraft join --seed {seed} --address HOST:PORT --data-dir FOLDER, where \
                 the seed is an address of ringraft's own protocol"
            );
            return Err(foreign("--join_addr", "a flag", &problem));
        }
        resolved.config.init |= self.bootstrap == Some(true);
        let by_flag =
            |resolved: &Resolved, key: &str| resolved.origins.get(key).is_some_and(|origin| origin.starts_with("--"));
        if let Some(port) = self.port.filter(|_| !by_flag(resolved, "grpc_address")) {
            resolved.set("grpc_address", &format!("0.0.0.0:{port}"), "--port")?;
        }
        let Some(port) = self.raft_port else { return Ok(()) };
        if !by_flag(resolved, "listen") {
            resolved.set("listen", &format!("0.0.0.0:{port}"), "--raft_port")?;
        }
        if self.bootstrap == Some(true) && !resolved.is_set("peers") && resolved.config.id != 0 {
            let own = format!("{}=127.0.0.1:{port}", resolved.config.id);
            resolved.set_founders(&own, "--raft_port")?;
        }
        Ok(())
    }
}

/// Gives a cluster without an id the one that follows from its peers: programs without such a setting agree on it.
pub(super) fn complete(resolved: &mut Resolved) -> Result<(), ConfigError> {
    let brought = resolved.founders.is_some() && resolved.origins.get("peers") == resolved.founders.as_ref();
    if resolved.is_set("cluster_id") || !brought {
        return Ok(());
    }
    let peers = resolved
        .config
        .values()
        .into_iter()
        .find(|(key, _)| *key == "peers")
        .map_or_else(String::new, |(_, peers)| peers);
    let id = format!("{:032x}", xxh3_128(format!("ringraft cluster of {peers}").as_bytes()));
    resolved.warn(format!(
        "no cluster_id is given: {id} follows from the peers; other clusters at the same addresses have it too, so give a \
         lasting cluster one of its own"
    ));
    resolved.set("cluster_id", &id, "follows from peers")
}

#[cfg(test)]
mod tests;
