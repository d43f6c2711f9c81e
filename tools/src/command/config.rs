//! `ringraft config`: the configuration of a node as a file, checked, as it is in effect, and read again by running nodes.
//!
//! Off the data path.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{Args, Subcommand, ValueEnum};
use comfy_table::{Table, presets};
use ringraft_engine::config::{Format, NodeArgs, SETTINGS, default_file};
use ringraft_net::wire::{AdminReply, AdminRequest};
use ringraft_tools::admin::{self, Watch};
use serde_json::{Value, json};

use super::{FAILURE, Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft config default > /etc/ringraft.toml
  ringraft config check /etc/ringraft.toml
  ringraft config show --config /etc/ringraft.toml --log-level debug
  ringraft config reload --endpoints 10.0.0.1:7100

Of each setting a flag wins over its environment variable, that over the file, the file over the default.";

const DEFAULT_EXAMPLES: &str = "\
Examples:
  ringraft config default > /etc/ringraft.toml
  ringraft config default --format yaml > /etc/ringraft.yaml
  ringraft config default --json | jq .tick_ms";

const CHECK_EXAMPLES: &str = "\
Examples:
  ringraft config check /etc/ringraft.toml
  ringraft config check raft.yaml --json

What the file leaves to flags, as the node's id, is named and no fault. The environment is not looked at.

Exit code 1: a node would refuse it; the message names the key, its value and what is allowed.";

const SHOW_EXAMPLES: &str = "\
Examples:
  ringraft config show --config /etc/ringraft.toml
  APP_NODE_ID=node-1 ringraft config show --peers 1=10.0.0.1:7100
  ringraft config show --config /etc/ringraft.toml --json | jq '.settings[] | select(.origin != \"default\")'

Exit code 1: a node would refuse it.";

const RELOAD_EXAMPLES: &str = "\
Examples:
  ringraft config reload --dir ./cluster                 every node reads its flags, environment and file again
  ringraft config reload --endpoints 10.0.0.1:7100 --node 1 --json

`kill -HUP` does the same to one node and tells in its log.

Exit code 1: some node does not answer, or what it read is not valid; it then goes on as before.";

/// Shows and checks configurations of nodes.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Config {
    Default(Defaults),
    Check(Check),
    Show(Box<Show>),
    Reload(Reload),
}

/// Prints a configuration file with every setting at its default, explained.
#[derive(Debug, Args)]
#[command(after_help = DEFAULT_EXAMPLES)]
pub(crate) struct Defaults {
    /// How it is written; JSON has no explanations.
    #[arg(long, value_enum, default_value = "toml")]
    format: FormatName,
    /// As --format json.
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Toml,
    Yaml,
    Json,
}

/// Reads a configuration file as a node would.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct Check {
    /// The file: TOML, YAML or JSON by its extension; raft.yaml and cluster.json of other programs too.
    file: PathBuf,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// Shows every setting of a node as it would be in effect, and where it comes from.
#[derive(Debug, Args)]
#[command(after_help = SHOW_EXAMPLES)]
pub(crate) struct Show {
    #[command(flatten)]
    node: NodeArgs,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Has running nodes read their configuration again; settings that need a restart are named and stay as they are.
#[derive(Debug, Args)]
#[command(after_help = RELOAD_EXAMPLES)]
pub(crate) struct Reload {
    #[command(flatten)]
    target: Target,
    /// This node alone.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    node: Option<u64>,
}

pub(crate) fn run(arguments: &Config) -> Result<Outcome> {
    match arguments {
        Config::Default(arguments) => {
            print!("{}", default_file(arguments.format()));
            Ok(SUCCESS)
        }
        Config::Check(arguments) => check(arguments),
        Config::Show(arguments) => show(arguments),
        Config::Reload(arguments) => reload(arguments),
    }
}

impl Defaults {
    fn format(&self) -> Format {
        match self.format {
            _ if self.json => Format::Json,
            FormatName::Toml => Format::Toml,
            FormatName::Yaml => Format::Yaml,
            FormatName::Json => Format::Json,
        }
    }
}

fn check(arguments: &Check) -> Result<Outcome> {
    let node = NodeArgs { config: Some(arguments.file.clone()), ..NodeArgs::default() };
    let resolved = node.resolve_file();
    let checked = resolved.as_ref().map_err(Clone::clone).and_then(|resolved| resolved.check());
    let (missing, warnings) = resolved
        .as_ref()
        .map_or((Vec::new(), &[][..]), |resolved| (resolved.config.missing(), resolved.warnings.as_slice()));
    let problem = checked.err().map(|error| error.to_string());
    if arguments.json {
        println!(
            "{}",
            json!({ "valid": problem.is_none(), "error": problem, "missing": missing, "warnings": warnings })
        );
    } else {
        warnings.iter().for_each(|warning| eprintln!("ringraft: warning: {warning}"));
        match &problem {
            Some(problem) => eprintln!("ringraft: {problem}"),
            None if missing.is_empty() => println!("valid"),
            None => println!("valid; left to flags or environment: {}", missing.join(", ")),
        }
    }
    Ok(Outcome::of(problem.is_none()))
}

fn show(arguments: &Show) -> Result<Outcome> {
    let resolved = match arguments.node.resolve() {
        Ok(resolved) => resolved,
        Err(error) => bail!(error),
    };
    let problem = resolved.config.clone().validate().err().map(|error| error.to_string());
    let values = resolved.config.values();
    let origin = |key: &str| resolved.origins.get(key).map_or("default", String::as_str);
    if arguments.json {
        let settings = SETTINGS.iter().zip(&values).map(|(info, (key, value))| {
            json!({
                "key": key, "value": value, "origin": origin(key), "default": info.default, "environment": info.environment,
                "shared": info.shared, "reload": info.reload,
            })
        });
        let settings: Vec<Value> = settings.collect();
        println!(
            "{:#}",
            json!({ "settings": settings, "warnings": resolved.warnings, "valid": problem.is_none(), "error": problem })
        );
    } else {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_header(["setting", "value", "from", "new value at"]);
        for (info, (key, value)) in SETTINGS.iter().zip(&values) {
            let at = if info.reload { "reload" } else { "restart" };
            table.add_row([key, value.as_str(), origin(key), at]);
        }
        println!("{table}");
        resolved.warnings.iter().for_each(|warning| eprintln!("ringraft: warning: {warning}"));
        problem.iter().for_each(|problem| eprintln!("ringraft: {problem}"));
    }
    Ok(Outcome::of(problem.is_none()))
}

fn reload(arguments: &Reload) -> Result<Outcome> {
    let target = &arguments.target;
    let mut watch = Watch::new(&target.endpoints()?);
    let topology = &watch.look()?.topology;
    let nodes = topology.nodes().iter().filter(|node| arguments.node.is_none_or(|asked| asked == node.id.0));
    let (mut rows, mut outcome) = (Vec::new(), SUCCESS);
    for node in nodes {
        let address = node.addresses.first().map_or("", String::as_str);
        let reply = admin::ask_node(address, &AdminRequest::Reload, target.timeout());
        let row = match reply {
            Ok(AdminReply::Reloaded { changed, restart }) => {
                let changed: Vec<String> = changed.into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
                json!({ "node": node.id.0, "changed": changed, "needs_restart": restart })
            }
            Ok(AdminReply::Refused { message, .. }) => json!({ "node": node.id.0, "error": message }),
            Ok(other) => json!({ "node": node.id.0, "error": format!("answered with {other:?}") }),
            Err(error) => json!({ "node": node.id.0, "error": format!("{error:#}") }),
        };
        if row.get("error").is_some() {
            outcome = FAILURE;
        }
        rows.push(row);
    }
    if rows.is_empty() {
        bail!("the cluster has no node {}", arguments.node.unwrap_or_default());
    }
    if target.json {
        println!("{}", Value::from(rows));
    } else {
        rows.iter().for_each(|row| println!("{}", line(row)));
    }
    Ok(outcome)
}

/// What came of it on one node, for people.
fn line(row: &Value) -> String {
    let list = |key: &str| {
        let texts: Vec<&str> = row[key].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        texts.join(", ")
    };
    let node = &row["node"];
    if let Some(error) = row["error"].as_str() {
        return format!("node {node}: nothing is changed: {error}");
    }
    let (changed, restart) = (list("changed"), list("needs_restart"));
    let changed = if changed.is_empty() { "nothing is changed".to_owned() } else { format!("in effect: {changed}") };
    if restart.is_empty() {
        format!("node {node}: {changed}")
    } else {
        format!("node {node}: {changed}; after a restart: {restart}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_what_is_in_effect_and_what_needs_a_restart() {
        let row = json!({ "node": 2, "changed": ["log_level = debug", "digest_ms = 50"], "needs_restart": ["groups"] });
        assert_eq!(line(&row), "node 2: in effect: log_level = debug, digest_ms = 50; after a restart: groups");
        assert_eq!(line(&json!({ "node": 1, "changed": [], "needs_restart": [] })), "node 1: nothing is changed");
        assert_eq!(line(&json!({ "node": 3, "error": "x" })), "node 3: nothing is changed: x");
    }
}
