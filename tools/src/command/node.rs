//! `ringraft node`: one node of a cluster; with a subcommand, the nodes of a running one.
//!
//! Off the data path: it reads the configuration and hands over to the engine's host.

use std::io::{self, IsTerminal, Read};
use std::process::ExitCode;
use std::thread;

use anyhow::Result;
use clap::{Args, FromArgMatches};
use ringraft_engine::config::{ConfigError, NodeArgs, ValidNodeConfig};
use ringraft_engine::exit;
use ringraft_engine::host::reload::Reload;
use ringraft_engine::host::{self, HostError, Observer};
use rustix::process::{Signal, getpid, kill_process};

use super::members::Members;
use super::services;

const EXAMPLES: &str = "\
Examples:
  ringraft node --init --id 1 --cluster-id 000102030405060708090a0b0c0d0e0f \\
      --data-dir /var/lib/ringraft --peers 1=10.0.0.1:7100,2=10.0.0.2:7100,3=10.0.0.3:7100
  ringraft node --config /etc/ringraft.toml
  RINGRAFT_ID=1 ringraft node --config /etc/ringraft.toml --log-level debug
  kill -HUP PID                                              reads the configuration again: see `ringraft config --help`
  ringraft node list --endpoints 10.0.0.1:7100               list, add, remove and replace nodes: see their --help

Exit codes (tools/RUNBOOK.md says what to do):
   0 stopped gracefully
  64 wrong usage or configuration
  65 the log is damaged
  66 the data directory is another node's or cluster's
  70 a write or a flush failed
  71 a shard stalled
  72 the state differs from the leader's
  73 the environment does not allow to start
  74 the data directory is in use
  75 the node was removed from the cluster";

/// Runs one node until SIGTERM or SIGINT; or shows and changes the nodes of a running cluster.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Node {
    #[command(subcommand)]
    pub(crate) members: Option<Members>,
    #[command(flatten)]
    node: NodeArgs,
    /// Stop when standard input ends: with a pipe from its parent, the node does not outlive it.
    #[arg(long, hide = true)]
    stop_on_stdin_end: bool,
}

/// A node's configuration and how its process ends.
#[derive(Debug)]
pub(crate) struct Configured {
    pub(crate) config: ValidNodeConfig,
    arguments: NodeArgs,
    stop_on_stdin_end: bool,
}

/// Runs the node that flags, environment and configuration file describe.
pub(crate) fn run(arguments: &Node) -> ExitCode {
    match configured(arguments) {
        Ok(node) => serve(node, host::run),
        Err(error) => {
            eprintln!("ringraft: {error}");
            exit_code(error.exit_code())
        }
    }
}

fn configured(arguments: &Node) -> Result<Configured, ConfigError> {
    let (config, warnings) = arguments.node.load()?;
    for warning in warnings {
        eprintln!("ringraft: warning: {warning}");
    }
    Ok(Configured { config, arguments: arguments.node.clone(), stop_on_stdin_end: arguments.stop_on_stdin_end })
}

/// Runs a node by `host`.
pub(crate) fn serve(
    node: Configured,
    host: impl FnOnce(ValidNodeConfig, Reload, &Observer) -> Result<(), HostError>,
) -> ExitCode {
    let set_level = log_to_standard_error(&node.config.log_level.0);
    let arguments = node.arguments;
    let reload = Reload {
        read: Box::new(move || arguments.load().map(|(config, _)| config).map_err(|error| error.to_string())),
        take: Box::new(move |config| set_level(&config.log_level.0)),
    };
    if node.stop_on_stdin_end {
        stop_on_stdin_end();
    }
    let observer = Observer::default();
    let services = match services::serve(&node.config, services::sources(&observer)) {
        Ok(services) => services,
        Err(error) => {
            eprintln!("ringraft: {error:#}");
            return exit_code(exit::CANNOT_START);
        }
    };
    let ended = host(node.config, reload, &observer);
    // Requests under way are answered by other nodes.
    drop(services);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ringraft: {error}");
            exit_code(error.exit_code())
        }
    }
}

/// The configuration that flags of `ringraft node` give, with environment and configuration file.
pub(crate) fn configuration(flags: &[String]) -> Result<Configured> {
    let command = Node::augment_args(clap::Command::new("node")).no_binary_name(true);
    let arguments = Node::from_arg_matches(&command.try_get_matches_from(flags)?)?;
    Ok(configured(&arguments)?)
}

fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// Logs from now on; what is returned sets another level.
fn log_to_standard_error(level: &str) -> impl Fn(&str) + Send + use<> {
    let log = tracing_subscriber::fmt().with_env_filter(level).with_writer(io::stderr);
    // Without this a standard error that nobody reads any more would be a panic.
    let log = log.log_internal_errors(false);
    let log = log.with_ansi(io::stderr().is_terminal()).with_target(false).with_filter_reloading();
    let handle = log.reload_handle();
    log.init();
    move |level| {
        if let Err(error) = handle.reload(level) {
            eprintln!("ringraft: the log level stays as it is: {error}");
        }
    }
}

/// A thread that only reads and raises a signal: nothing of the executors is touched from it.
fn stop_on_stdin_end() {
    thread::spawn(|| {
        let mut bytes = [0; 64];
        let mut stdin = io::stdin().lock();
        while !matches!(stdin.read(&mut bytes), Ok(0) | Err(_)) {}
        let _ = kill_process(getpid(), Signal::TERM);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_give_a_configuration() {
        let flags = ["--id=4", "--cluster-id=000102030405060708090a0b0c0d0e0f", "--data-dir=d", "--peers=4=a:7100"];
        let node = configuration(&flags.map(String::from)).unwrap();
        assert_eq!((node.config.id, node.config.init, node.stop_on_stdin_end), (4, false, false));
        assert!(configuration(&[String::from("--groups=0")]).is_err());
        assert!(configuration(&[String::from("--no-such-flag")]).is_err());
    }

    #[test]
    fn the_help_names_every_exit_code() {
        for (code, _, text) in exit::TABLE {
            assert!(EXAMPLES.contains(&format!("{code:>4} {text}")), "{code} {text}");
        }
    }
}
