//! `ringraft completions`: a completion script for a shell.
//!
//! Off the data path.

use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Outcome, SUCCESS, print_bytes};

const EXAMPLES: &str = "\
Examples:
  ringraft completions bash > ~/.local/share/bash-completion/completions/ringraft
  ringraft completions zsh > ~/.zfunc/_ringraft";

/// Prints a completion script.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

pub(crate) fn run(arguments: &Completions) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "ringraft", &mut script);
    print_bytes(&script);
    Ok(SUCCESS)
}
