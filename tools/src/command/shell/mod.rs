//! `ringraft shell`: commands typed one by one, or from a pipe.
//!
//! Off the data path.
//! Invariants: one client and one session for the whole shell; results go to standard output, everything else to standard
//! error; from a pipe nothing is asked back and nothing is remembered.

mod clean;
mod line;
mod session;

use std::io::{BufRead, IsTerminal};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use rustyline::completion::Completer;
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::Validator;
use rustyline::{Editor, Helper};

use self::line::Wish;
use self::session::Session;
use super::{Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft shell --dir ./cluster
  ringraft shell --addr 10.0.0.1:7100,10.0.0.2:7100,10.0.0.3:7100
  printf 'set greeting hello\\nget greeting\\n' | ringraft shell --dir ./cluster

In it: set, get, delete, clean, add-server, remove-server, status, help, exit. Tab completes, the arrows show what was typed
before (kept in --history). A line that begins with # is a comment.

Exit code: from a pipe that of the first command that was not done, as the commands of the same names have them; a shell
that was typed into ends with 0.";

/// Commands one by one: set, get, delete, clean, add-server, remove-server, status.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Shell {
    #[command(flatten)]
    target: Target,
    /// Where typed lines are remembered [default: .ringraft_history in the home directory].
    #[arg(long, value_name = "FILE", env = "RINGRAFT_HISTORY")]
    history: Option<PathBuf>,
}

/// Lines that are remembered.
const HISTORY_LINES: usize = 1_000;

pub(crate) fn run(arguments: &Shell) -> Result<Outcome> {
    let session = Session::connect(&arguments.target)?;
    if std::io::stdin().is_terminal() { typed(arguments, &session) } else { piped(&session) }
}

/// Commands from a pipe; all of them are tried, the first failure is the exit code.
fn piped(session: &Session<'_>) -> Result<Outcome> {
    let mut outcome = SUCCESS;
    for line in std::io::stdin().lock().lines() {
        let done = match line::parse(&line.context("cannot read standard input")?) {
            Ok(Wish::Exit) => break,
            Ok(wish) => session.run(wish, |_| false),
            Err(problem) => session.mistake(&problem),
        };
        if outcome == SUCCESS {
            outcome = done;
        }
    }
    Ok(outcome)
}

fn typed(arguments: &Shell, session: &Session<'_>) -> Result<Outcome> {
    let mut editor: Editor<Names, FileHistory> = Editor::new().context("cannot use the terminal")?;
    editor.set_helper(Some(Names));
    editor.set_max_history_size(HISTORY_LINES)?;
    let history = arguments.history.clone().or_else(|| Some(std::env::home_dir()?.join(".ringraft_history")));
    if let Some(path) = history.as_ref().filter(|path| path.exists()) {
        editor.load_history(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    println!("{} `help` shows the commands.", session.greeting());
    loop {
        let line = match editor.readline("ringraft> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("cannot read the terminal"),
        };
        editor.add_history_entry(line.as_str())?;
        match line::parse(&line) {
            Ok(Wish::Exit) => break,
            Ok(wish) => {
                let mut sure = |question: &str| {
                    let answer = editor.readline(&format!("{question} [yes/no] "));
                    answer.is_ok_and(|answer| answer.trim() == "yes")
                };
                session.run(wish, &mut sure);
            }
            Err(problem) => {
                session.mistake(&problem);
            }
        }
    }
    if let Some(path) = &history {
        editor.save_history(path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(SUCCESS)
}

/// Completes names of commands.
struct Names;

impl Completer for Names {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        position: usize,
        _: &rustyline::Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..position];
        let begins = typed.strip_prefix("help ").map_or(0, |_| "help ".len());
        let found = line::completions(&typed[begins..]);
        Ok((begins, found.into_iter().map(|name| format!("{name} ")).collect()))
    }
}

impl Hinter for Names {
    type Hint = String;
}

impl Highlighter for Names {}

impl Validator for Names {}

impl Helper for Names {}
