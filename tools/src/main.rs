//! The binary `ringraft`: one subcommand per job, one file per subcommand.
//!
//! Off the data path, but for `ringraft node`, which hands over to the engine's host.
//! Invariant: exit code 0 means that what was asked for is done; 2 is wrong usage; each command lists its others.

#![warn(clippy::print_stdout, clippy::print_stderr)]

#[macro_use(print, println, eprintln)]
extern crate ringraft_tools;

mod client;
mod command;

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use ringraft_tools::output;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    // The first touch of a huge page clears 2 MiB at once, milliseconds in a virtual machine; the data path touches fresh
    // memory as long as the state grows. A kernel without the call has it as it is.
    rustix::thread::disable_transparent_huge_pages(true).ok();
    output::ending(|| command::run(command::Cli::parse_from(command::ordered(std::env::args_os()))))
}
