//! The journal of a scenario: one line per step, on the screen as it happens and in the results.
//!
//! Off the data path.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// Since the scenario began.
    pub elapsed_ms: u64,
    /// What was done or seen.
    pub text: String,
}

/// The steps of one run of a scenario.
#[derive(Debug)]
pub struct Journal {
    start: Instant,
    on_standard_error: bool,
    steps: Vec<Step>,
}

impl Journal {
    /// Begins a journal. Its lines go to standard output, or to standard error when that is for JSON.
    #[must_use]
    pub fn begin(on_standard_error: bool) -> Self {
        Self { start: Instant::now(), on_standard_error, steps: Vec::new() }
    }

    /// Writes a line.
    pub fn note(&mut self, text: impl Into<String>) {
        let (elapsed, text) = (self.start.elapsed(), text.into());
        let line = format!("{:8.2} s  {text}", elapsed.as_secs_f64());
        // A reader that went away does not stop the run, which has things to put in order.
        let _ =
            if self.on_standard_error { writeln!(io::stderr(), "{line}") } else { writeln!(io::stdout(), "{line}") };
        self.steps.push(Step { elapsed_ms: milliseconds(elapsed), text });
    }

    /// Since it began.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// All lines.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Whole milliseconds.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
