//! The command line: its subcommands, and what they share.
//!
//! Off the data path.
//! Invariant: results go to standard output, everything else to standard error.

mod batch;
mod bench;
mod cas;
mod chaos;
mod cluster;
mod completions;
mod config;
mod course;
mod dashboard;
mod delete;
mod doctor;
mod get;
mod idle;
mod interrupt;
mod join;
mod list;
mod matrix;
mod members;
mod node;
mod put;
mod services;
mod shell;
mod sim;
mod snapshot;
mod status;
mod suite;
mod transfer;
mod wal;
mod watch;

use std::ffi::OsString;
use std::io::{Read, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use ringraft_net::client::ClientError;
use ringraft_tools::output;
use serde_json::{Value, json};

const EXAMPLES: &str = "\
Examples:
  ringraft bench --duration 10s                   load a temporary three-node cluster and report
  ringraft cluster start --dir ./cluster          three nodes on this machine
  ringraft put --dir ./cluster greeting hello
  ringraft get --dir ./cluster greeting
  ringraft put-batch --dir ./cluster pairs.txt    many at once; get-batch and delete-batch too
  ringraft shell --dir ./cluster                  commands one by one
  ringraft admin --dir ./cluster                  the cluster as it goes on
  ringraft cluster stop --dir ./cluster
  ringraft config default > node.toml             every setting, explained
  ringraft doctor --data-dir /var/lib/ringraft    can this machine run a node

Exit codes of client commands (those of `node` are in `ringraft node --help`):
   0 done
   1 failed, and not done
   2 wrong usage
   3 key not found
   4 value not as expected
   5 outcome unknown: it may have been done
 141 whoever read standard output went away (`| head -1`)";

/// ringraft: a durable, linearizable, replicated key-value store.
#[derive(Debug, Parser)]
#[command(name = "ringraft", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Node(Box<node::Node>),
    Join(join::Join),
    #[command(subcommand)]
    Cluster(cluster::Cluster),
    Bench(Box<bench::Bench>),
    Chaos(chaos::Chaos),
    Put(put::Put),
    Get(get::Get),
    Delete(delete::Delete),
    Cas(cas::Cas),
    PutBatch(batch::PutBatch),
    GetBatch(batch::GetBatch),
    DeleteBatch(batch::DeleteBatch),
    Shell(shell::Shell),
    Admin(dashboard::Admin),
    #[command(subcommand)]
    Config(config::Config),
    List(list::List),
    Watch(watch::Watch),
    Status(status::Status),
    Transfer(transfer::Transfer),
    Snapshot(snapshot::Snapshot),
    #[command(subcommand)]
    Wal(wal::Wal),
    SimMatrix(matrix::Matrix),
    Doctor(doctor::Doctor),
    Sim(sim::Sim),
    Completions(completions::Completions),
}

/// The exit code of a command that ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome(u8);

/// Done.
pub(crate) const SUCCESS: Outcome = Outcome(0);
/// Ran, and the answer is no.
pub(crate) const FAILURE: Outcome = Outcome(1);
/// The key has no value.
pub(crate) const NOT_FOUND: Outcome = Outcome(3);
/// The value was not the expected one.
pub(crate) const COMPARE_FAILED: Outcome = Outcome(4);
/// The operation may or may not have been done.
pub(crate) const OUTCOME_UNKNOWN: Outcome = Outcome(5);

impl Outcome {
    /// Success or failure.
    pub(crate) fn of(good: bool) -> Self {
        if good { SUCCESS } else { FAILURE }
    }
}

/// Wrong usage that only shows once the arguments are seen together.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl std::error::Error for Usage {}

impl std::fmt::Display for Usage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl Usage {
    /// The exit code, as that of arguments that are not understood.
    const EXIT_CODE: u8 = 2;

    /// Says what is wrong and how it would be right.
    pub(crate) fn of(problem: impl std::fmt::Display) -> Self {
        Self(problem.to_string())
    }
}

impl From<Outcome> for ExitCode {
    fn from(Outcome(code): Outcome) -> Self {
        Self::from(code)
    }
}

/// The arguments as the commands take them: addresses may stand before the command as well.
///
/// `ringraft --addr a,b put key value` is `ringraft put key value --addr a,b`.
pub(crate) fn ordered(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let is_flag = |argument: &OsString| ["--addr", "--endpoints"].iter().any(|flag| argument == flag);
    let is_joined = |argument: &OsString| {
        argument.to_str().is_some_and(|text| text.starts_with("--addr=") || text.starts_with("--endpoints="))
    };
    let leading = match arguments.get(1) {
        Some(first) if is_joined(first) => 1,
        Some(first) if is_flag(first) => 2,
        _ => 0,
    };
    if leading == 0 || arguments.len() <= 1 + leading {
        return arguments;
    }
    let moved: Vec<OsString> = arguments.drain(1..=leading).collect();
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    arguments.splice(end..end, moved);
    arguments
}

/// Runs what was asked for; errors go to standard error with everything that caused them.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Node(arguments) => match &arguments.members {
            Some(members) => members::run(members),
            None => return node::run(&arguments),
        },
        Command::Cluster(arguments) => cluster::run(arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Chaos(arguments) => chaos::run(&arguments),
        Command::Put(arguments) => put::run(arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::Delete(arguments) => delete::run(arguments),
        Command::Cas(arguments) => cas::run(arguments),
        Command::PutBatch(arguments) => batch::put(&arguments),
        Command::GetBatch(arguments) => batch::get(&arguments),
        Command::DeleteBatch(arguments) => batch::delete(&arguments),
        Command::Shell(arguments) => shell::run(&arguments),
        Command::Admin(arguments) => dashboard::run(&arguments),
        Command::Config(arguments) => config::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Watch(arguments) => watch::run(&arguments),
        Command::Status(arguments) => status::run(&arguments),
        Command::Transfer(arguments) => transfer::run(&arguments),
        Command::Snapshot(arguments) => snapshot::run(&arguments),
        Command::Join(arguments) => return report(join::run(&arguments)),
        Command::Wal(arguments) => wal::run(arguments),
        Command::SimMatrix(arguments) => matrix::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Sim(arguments) => sim::run(&arguments),
        Command::Completions(arguments) => completions::run(&arguments),
    };
    report(result.map(ExitCode::from))
}

fn report(result: Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ringraft: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let is_unknown = |error: &ClientError| error.is_outcome_unknown();
    match error.downcast_ref::<ClientError>().is_some_and(is_unknown) {
        true => OUTCOME_UNKNOWN.0,
        false if error.is::<Usage>() => Usage::EXIT_CODE,
        false => FAILURE.0,
    }
}

/// A key or value from the command line; `-` reads standard input to its end.
fn argument_bytes(argument: &str) -> Result<Vec<u8>> {
    if argument != "-" {
        return Ok(argument.as_bytes().to_vec());
    }
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read standard input")?;
    Ok(bytes)
}

/// Puts bytes into an object: as text under `name` if they are UTF-8, else in hexadecimal under `name_hex`.
fn put_bytes(object: &mut Value, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => object[name] = Value::Null,
        Some(Ok(text)) => object[name] = json!(text),
        Some(Err(_)) => {
            let hexadecimal: String = bytes.unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
            object[format!("{name}_hex")] = json!(hexadecimal);
        }
    }
}

/// Bytes to standard output, as they are.
fn print_bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    output::checked(out.write_all(bytes).and_then(|()| out.flush()));
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn addresses_may_stand_before_the_command() {
        let ordered = |line: &str| {
            let words = ordered(line.split(' ').map(OsString::from));
            words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(ordered("ringraft --addr a:1,b:2 put foo bar"), "ringraft put foo bar --addr a:1,b:2");
        assert_eq!(ordered("ringraft --addr=a:1 get foo"), "ringraft get foo --addr=a:1");
        assert_eq!(ordered("ringraft --endpoints a:1 bench -- --x"), "ringraft bench --endpoints a:1 -- --x");
        for same in ["ringraft", "ringraft put --addr a:1 foo bar", "ringraft --addr a:1", "ringraft --version"] {
            assert_eq!(ordered(same), same);
        }
        let cli =
            Cli::try_parse_from(super::ordered(["ringraft", "--addr", "a:1", "put", "foo", "bar"].map(OsString::from)));
        assert!(matches!(cli.expect("it is understood").command, Command::Put(_)));
    }

    #[test]
    fn wrong_usage_has_an_exit_code_of_its_own() {
        let code = |line: &str| {
            let cli = Cli::try_parse_from(line.split(' ')).expect("clap understands it");
            let result = match cli.command {
                Command::Sim(arguments) => sim::run(&arguments),
                Command::Chaos(arguments) => chaos::run(&arguments),
                Command::Bench(arguments) => bench::run(&arguments),
                Command::Get(arguments) => get::run(&arguments),
                other => panic!("{other:?}"),
            };
            result.map_err(|error| exit_code(&error)).expect_err(line)
        };
        for line in [
            "ringraft sim",
            "ringraft sim --scenario typo --seed 1",
            "ringraft chaos --scenario typo",
            "ringraft bench --target etcd",
            "ringraft bench --duration 0s",
            "ringraft get --endpoints 127.0.0.1:1 --max-staleness-ms 5 key",
        ] {
            assert_eq!(code(line), 2, "{line}");
        }
        assert_eq!(exit_code(&anyhow::anyhow!("another")), 1);
    }

    #[test]
    fn times_have_a_bound() {
        let huge = u64::MAX.to_string();
        for line in [
            format!("ringraft cluster start --dir d --patience-seconds {huge}"),
            format!("ringraft cluster stop --dir d --patience-seconds {huge}"),
            format!("ringraft sim --minutes {huge}"),
        ] {
            let refused = Cli::try_parse_from(line.split(' ')).expect_err(&line);
            assert_eq!((refused.kind(), refused.exit_code()), (clap::error::ErrorKind::ValueValidation, 2), "{line}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        fn walk(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:") && help.contains("ringraft "), "{path} has no examples");
            command.get_subcommands().for_each(|inner| walk(inner, &path));
        }
        walk(&Cli::command(), "");
    }

    #[test]
    fn every_example_is_understood() {
        fn walk(command: &clap::Command, seen: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            seen.extend(examples(&help));
            command.get_subcommands().for_each(|inner| walk(inner, seen));
        }
        let mut seen = Vec::new();
        walk(&Cli::command(), &mut seen);
        for line in &seen {
            let words = shlex::split(line).expect("quotes are closed");
            let parsed = Cli::try_parse_from(super::ordered(words.into_iter().map(OsString::from)));
            assert!(parsed.is_ok(), "{line}: {}", parsed.expect_err("it failed"));
        }
        for command in ["node", "bench", "bench suite", "chaos", "sim", "cas", "wal inspect", "cluster start"] {
            let begins = format!("ringraft {command} ");
            assert!(seen.iter().any(|line| line.starts_with(&begins)), "no example of {command} was seen");
        }
    }

    /// The command lines of a help text, without variables before them, redirections and remarks behind them.
    fn examples(help: &str) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for line in help.lines() {
            match lines.last_mut() {
                Some(last) if last.ends_with('\\') => {
                    last.pop();
                    last.push_str(line.trim_start());
                }
                _ => lines.push(line.to_owned()),
            }
        }
        let indented = lines.iter().filter(|line| line.starts_with("  ")).map(|line| line.trim_start());
        let without_remarks = indented.filter_map(|line| line.split("  ").next());
        let programs = without_remarks.flat_map(|line| line.split(" | ")).map(|program| {
            let words =
                program.split(' ').skip_while(|word| word.contains('=')).take_while(|word| !["<", ">"].contains(word));
            words.collect::<Vec<_>>().join(" ")
        });
        programs.filter(|program| program.starts_with("ringraft ")).collect()
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_in_hexadecimal() {
        let mut object = json!({});
        put_bytes(&mut object, "a", Some(b"text"));
        put_bytes(&mut object, "b", Some(&[0xff, 0x01]));
        put_bytes(&mut object, "c", None);
        assert_eq!(object, json!({ "a": "text", "b_hex": "ff01", "c": null }));
    }
}
