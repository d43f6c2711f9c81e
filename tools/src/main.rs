//! The binary `ringraft`: one subcommand per job, one file per subcommand.
//!
//! Off the data path, but for `ringraft node`, which hands over to the engine's host.
//! Invariant: exit code 0 means that what was asked for is done; 2 is wrong usage; each command lists its others.

mod client;
mod command;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    command::run(command::Cli::parse_from(command::ordered(std::env::args_os())))
}
