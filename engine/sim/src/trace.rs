//! What happened: all of it as one 64-bit hash, the last of it as lines to read.
//!
//! Off the data path.
//! Invariant: two runs of one seed have the same hash, whether lines are kept or not.
//! It formats a line only when somebody may read it.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Write};

use xxhash_rust::xxh3::Xxh3Default;

/// Lines kept for the report of a failure.
const LINES_KEPT: usize = 200;

/// How much of it is written down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceMode {
    /// Only the hash: the fast way through many seeds.
    #[default]
    Hash,
    /// Hash, and the last lines: how a failing seed is run again.
    Last,
    /// Hash, and every line to standard output.
    Print,
}

/// The trace of one run.
pub(crate) struct Trace {
    hash: Xxh3Default,
    mode: TraceMode,
    lines: VecDeque<String>,
    events: u64,
}

impl Trace {
    pub(crate) fn new(mode: TraceMode) -> Self {
        Self { hash: Xxh3Default::new(), mode, lines: VecDeque::new(), events: 0 }
    }

    /// Folds one event into the hash: its time, its kind, and two numbers that tell it from others of the kind.
    pub(crate) fn event(&mut self, now_us: u64, kind: u8, first: u64, second: u64) {
        let mut bytes = [0; 25];
        bytes[0] = kind;
        bytes[1..9].copy_from_slice(&now_us.to_le_bytes());
        bytes[9..17].copy_from_slice(&first.to_le_bytes());
        bytes[17..25].copy_from_slice(&second.to_le_bytes());
        self.hash.update(&bytes);
        self.events += 1;
    }

    /// A line, written only if lines are kept.
    pub(crate) fn line(&mut self, now_us: u64, text: fmt::Arguments<'_>) {
        match self.mode {
            TraceMode::Hash => {}
            TraceMode::Print => {
                // Nobody reads any more: the run goes on, which has no part in it.
                if writeln!(io::stdout(), "{}", format_line(now_us, text)).is_err() {
                    self.mode = TraceMode::Hash;
                }
            }
            TraceMode::Last => {
                if self.lines.len() == LINES_KEPT {
                    self.lines.pop_front();
                }
                self.lines.push_back(format_line(now_us, text));
            }
        }
    }

    /// Whether every line is printed, also those of single messages.
    pub(crate) fn prints(&self) -> bool {
        self.mode == TraceMode::Print
    }

    /// The hash of everything so far.
    pub(crate) fn digest(&self) -> u64 {
        self.hash.digest()
    }

    /// Events so far.
    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// The last lines.
    pub(crate) fn lines(&self) -> impl Iterator<Item = &String> {
        self.lines.iter()
    }
}

fn format_line(now_us: u64, text: fmt::Arguments<'_>) -> String {
    format!("{:>4}.{:06} {text}", now_us / 1_000_000, now_us % 1_000_000)
}
