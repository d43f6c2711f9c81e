//! One line per second on standard error while a run goes on.
//!
//! Off the data path. On a terminal the line is rewritten in place, else lines follow each other; both are flushed.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::driver::{Observer, ProgressView};
use crate::system::{Sample, Sampler};
use crate::workload::OperationKind;

/// Shows progress and takes the servers' figures at the edges of the window.
pub struct RunObserver<'a> {
    sampler: &'a Sampler,
    label: String,
    enabled: bool,
    terminal: bool,
    last: (u64, u64),
    /// Raised when the window begins, for who does something meanwhile.
    pub begun: Option<&'a AtomicBool>,
    /// At the beginning of the window.
    pub before: Option<Sample>,
    /// At its end.
    pub after: Option<Sample>,
}

impl<'a> RunObserver<'a> {
    /// `enabled`: show lines, whatever standard error is.
    #[must_use]
    pub fn new(sampler: &'a Sampler, label: String, enabled: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { sampler, label, enabled, terminal, last: (0, 0), begun: None, before: None, after: None }
    }

    fn line(&mut self, view: &ProgressView<'_>) -> String {
        let (last_ns, last_completed) = std::mem::replace(&mut self.last, (view.now_ns, view.completed));
        let seconds = view.now_ns.saturating_sub(last_ns).max(1) as f64 / 1e9;
        let rate = (view.completed - last_completed.min(view.completed)) as f64 / seconds;
        let phase = if self.before.is_none() { " warm-up" } else { "" };
        let mut line = format!("{}{phase} {rate:>9.0} ops/s", self.label);
        for (kind, name) in OperationKind::NAMED {
            let response = &view.recorder.kind(kind).response;
            if !response.is_empty() {
                let p99_ms = response.value_at_quantile(0.99) as f64 / 1e6;
                line.push_str(&format!("  {name} p99 {p99_ms:.3} ms"));
            }
        }
        line.push_str(&format!("  outstanding {}", view.outstanding));
        if view.backlog > 0 {
            line.push_str(&format!("  behind {}", view.backlog));
        }
        line.push_str(&format!("  errors {}", view.recorder.errors()));
        line
    }
}

impl Observer for RunObserver<'_> {
    fn window_begins(&mut self, completed: u64) {
        self.before = Some(self.sampler.sample(completed));
        if let Some(begun) = self.begun {
            begun.store(true, Ordering::Release);
        }
    }

    fn window_ended(&mut self, completed: u64) {
        self.after = Some(self.sampler.sample(completed));
        if self.enabled && self.terminal {
            // Clears the line, so that what follows begins on a clean one.
            let _ = write!(std::io::stderr(), "\r\x1b[2K");
        }
    }

    fn second(&mut self, view: &ProgressView<'_>) {
        if !self.enabled {
            return;
        }
        let line = self.line(view);
        let mut stderr = std::io::stderr().lock();
        // A closed standard error must not end a run.
        let _ = if self.terminal { write!(stderr, "\r\x1b[2K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
    }
}
