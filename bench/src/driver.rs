//! The loop: sends what is due, collects what is done, measures. The same for every target.
//!
//! Off the data path.
//!
//! ```text
//! 0          warm-up          window                        end      drain
//! |--------------------------|------------------------------|--------------|
//!                            measured: operations whose intended start is here; answers are awaited in the drain
//! ```
//!
//! Invariants:
//! - open loop: an operation's intended start comes from the schedule alone; if it cannot be sent (all slots taken, the
//!   target busy, the loop late) it stays due and its latency grows;
//! - every operation of the window ends as exactly one success or one error, at the latest after `timeout_ns`;
//! - a connection that takes nothing holds up no other: slots that are busy make way for those behind them;
//! - no allocation per operation: slots are made once, completions go through one reused vector.
//!
//! It does not spin: with nothing due it sleeps in the target's poll, at least `wake_ns_min`, so an open loop sends at
//! most that late (plus the kernel's timer slack), and the lateness is inside the latency it reports.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clock::Clock;
use crate::recorder::{ErrorKind, Recorder};
use crate::samples::Sample;
use crate::schedule::Schedule;
use crate::targets::{Busy, Completion, Seen, Target, TargetError};
use crate::workload::{OperationKind, Workload};

/// How operations are paced.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// Constant rate, whatever the system does.
    Open {
        /// Operations per second.
        rate: u64,
        /// Operations sent and not answered at most; beyond it they wait, being late.
        outstanding_max: usize,
    },
    /// A fixed number of operations outstanding; each answer starts the next.
    Closed {
        /// Clients times pipeline.
        outstanding: usize,
    },
}

/// One run of the loop.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Open or closed.
    pub pace: Pace,
    /// Before the window; not measured.
    pub warmup_ns: u64,
    /// Length of the window.
    pub window_ns: u64,
    /// The window ends when so many of its operations were sent and answered, if that is before its time is over.
    pub operations_max: u64,
    /// How long an answer is awaited: beyond it the operation is a timeout, and so is the drain after the window over.
    pub timeout_ns: u64,
    /// Shortest sleep of an idle open loop.
    pub wake_ns_min: u64,
    /// Check what gets and deletes find: right if all keys were preloaded by this workload.
    pub verify_values: bool,
    /// Operations of the window that are kept one by one, at most; beyond it they are only counted.
    pub samples_max: usize,
}

/// Looks at a run from outside: takes the servers' figures at the edges of the window, shows progress.
pub trait Observer {
    /// The window is about to begin.
    fn window_begins(&mut self, completed: u64);
    /// The window has ended.
    fn window_ended(&mut self, completed: u64);
    /// About once per second.
    fn second(&mut self, view: &ProgressView<'_>);
}

/// What an observer sees of a run in progress.
pub struct ProgressView<'a> {
    /// Time of the run.
    pub now_ns: u64,
    /// Answers so far, warm-up included.
    pub completed: u64,
    /// Sent and unanswered.
    pub outstanding: usize,
    /// Due and unsent.
    pub backlog: u64,
    /// What the window measured so far.
    pub recorder: &'a Recorder,
}

/// What a run measured.
#[derive(Debug)]
pub struct Outcome {
    /// Histograms and errors of the window.
    pub recorder: Recorder,
    /// Operations meant to start within the window.
    pub offered: u64,
    /// Successful answers that arrived within the window.
    pub achieved: u64,
    /// The operations of the window, in the order in which they ended.
    pub samples: Vec<Sample>,
    /// Begin of the window, by the run's clock.
    pub window_start_ns: u64,
    /// The window; shorter than asked when stopped early, or when the operations were done.
    pub window_ns: u64,
    /// Stopped from outside before its end.
    pub interrupted: bool,
}

/// Submissions of one turn: then answers are looked at, however many operations are due.
const BURST: usize = 512;
/// How early the servers' figures are taken, so that the time it takes falls into the warm-up.
const EARLY_NS: u64 = 3_000_000;
/// Slots whose connections are busy that are passed over in one turn; those behind them are next in the turn after it.
const PASSED_OVER_MAX: usize = 256;
/// Looks for operations without an answer are this share of the timeout apart at least.
const TIMEOUT_SHARE: u64 = 100;
/// Wait when nothing can be sent before an answer comes.
const BLOCKED_WAIT: Duration = Duration::from_millis(1);
const SECOND_NS: u64 = 1_000_000_000;

#[derive(Clone, Copy)]
struct Slot {
    /// In a closed loop: when the slot became free, which is when its next operation is meant to start.
    intended_ns: u64,
    sent_ns: u64,
    mark: u64,
    kind: OperationKind,
    generation: u32,
    in_use: bool,
}

/// What to do after a round of submissions.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// More is due: poll without waiting.
    Again,
    /// Nothing can be sent before an answer arrives.
    Blocked,
    /// Nothing is due before this time.
    Until(u64),
}

/// The loop over one target.
pub struct Driver<'a, T: ?Sized, C> {
    target: &'a mut T,
    clock: &'a C,
    workload: &'a mut Workload,
    load: Load,
    slots: Vec<Slot>,
    /// First in, first out: operations spread over all slots, hence over all connections.
    free: VecDeque<u32>,
    /// No operation on its way is older than the timeout before this time.
    expiry_ns: u64,
    completions: Vec<Completion>,
    /// The workload's current operation has not been accepted yet.
    held: bool,
    recorder: Recorder,
    samples: Vec<Sample>,
    start_ns: u64,
    completed: u64,
    achieved: u64,
    offered: u64,
}

impl<'a, T: Target + ?Sized, C: Clock> Driver<'a, T, C> {
    /// A loop that has not begun.
    pub fn new(target: &'a mut T, clock: &'a C, workload: &'a mut Workload, load: Load) -> Self {
        let outstanding = match load.pace {
            Pace::Open { outstanding_max, .. } => outstanding_max,
            Pace::Closed { outstanding } => outstanding,
        };
        let start_ns = clock.now();
        let slot =
            Slot { intended_ns: start_ns, sent_ns: 0, mark: 0, kind: OperationKind::Put, generation: 0, in_use: false };
        Self {
            target,
            clock,
            workload,
            load,
            slots: vec![slot; outstanding],
            free: (0..outstanding as u32).collect(),
            expiry_ns: start_ns.saturating_add(load.timeout_ns),
            completions: Vec::with_capacity(outstanding.min(BURST * 8)),
            held: false,
            recorder: Recorder::new(),
            samples: Vec::new(),
            start_ns,
            completed: 0,
            achieved: 0,
            offered: 0,
        }
    }

    fn window_start_ns(&self) -> u64 {
        self.start_ns + self.load.warmup_ns
    }

    fn window_end_ns(&self) -> u64 {
        self.window_start_ns() + self.load.window_ns
    }

    fn in_window(&self, at_ns: u64) -> bool {
        (self.window_start_ns()..self.window_end_ns()).contains(&at_ns)
    }

    fn outstanding(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Runs warm-up, window and drain. `stop` ends the run early, with what was measured until then.
    pub fn run(mut self, observer: &mut impl Observer, stop: &AtomicBool) -> Result<Outcome, TargetError> {
        let mut schedule = match self.load.pace {
            Pace::Open { rate, .. } => Some(Schedule::new(self.start_ns, rate)),
            Pace::Closed { .. } => None,
        };
        let mut window_begun = false;
        let mut next_second_ns = self.start_ns + SECOND_NS;
        let mut interrupted = false;
        loop {
            let now_ns = self.clock.now();
            if !window_begun && now_ns + EARLY_NS >= self.window_start_ns() {
                window_begun = true;
                observer.window_begins(self.completed);
                continue;
            }
            if stop.load(Ordering::Relaxed) {
                interrupted = true;
                self.load.window_ns = now_ns.saturating_sub(self.window_start_ns());
            }
            let done = self.all_are_sent() && self.outstanding() == 0;
            if done {
                self.load.window_ns = now_ns.saturating_sub(self.window_start_ns());
            }
            let last_turn = interrupted || done || now_ns >= self.window_end_ns();
            // On the last turn everything still due in the window is sent, however much it is.
            let burst = if last_turn { usize::MAX } else { BURST };
            let next = match &mut schedule {
                Some(schedule) => self.send_due(schedule, now_ns, burst),
                None if last_turn => Next::Blocked,
                None => self.send_free(now_ns, burst),
            };
            if last_turn {
                break;
            }
            if now_ns >= next_second_ns {
                next_second_ns += SECOND_NS;
                let backlog = schedule.as_ref().map_or(0, |s| s.count_before(now_ns).saturating_sub(s.next_number()));
                self.show(observer, now_ns, backlog);
            }
            let timeout = self.wait(next, now_ns);
            self.turn(timeout)?;
        }
        observer.window_ended(self.completed);
        self.drain()?;
        // What was not to be sent is not missing.
        if let Some(schedule) = schedule.as_ref().filter(|_| !self.all_are_sent()) {
            self.account_unsent(schedule);
        }
        Ok(Outcome {
            window_start_ns: self.window_start_ns(),
            offered: self.offered,
            achieved: self.achieved,
            window_ns: self.load.window_ns,
            recorder: self.recorder,
            samples: self.samples,
            interrupted,
        })
    }

    fn show(&self, observer: &mut impl Observer, now_ns: u64, backlog: u64) {
        let (completed, outstanding) = (self.completed, self.outstanding());
        observer.second(&ProgressView { now_ns, completed, outstanding, backlog, recorder: &self.recorder });
    }

    fn wait(&self, next: Next, now_ns: u64) -> Duration {
        match next {
            Next::Again => Duration::ZERO,
            Next::Blocked => BLOCKED_WAIT.min(Duration::from_nanos(self.window_end_ns().saturating_sub(now_ns))),
            Next::Until(at_ns) => Duration::from_nanos(at_ns.saturating_sub(now_ns).max(self.load.wake_ns_min)),
        }
    }

    /// Open loop: sends operations whose intended start has come.
    fn send_due(&mut self, schedule: &mut Schedule, now_ns: u64, burst: usize) -> Next {
        let end_ns = self.window_end_ns();
        let mut passed_over = 0;
        for _ in 0..burst {
            let intended_ns = schedule.next_start();
            if intended_ns >= end_ns || intended_ns > now_ns {
                return Next::Until(intended_ns.min(end_ns));
            }
            if self.send(Some(intended_ns), now_ns, &mut passed_over).is_err() {
                return Next::Blocked;
            }
            schedule.advance();
        }
        Next::Again
    }

    /// Closed loop: every free slot sends its next operation, meant to start when the slot became free.
    fn send_free(&mut self, now_ns: u64, burst: usize) -> Next {
        let mut passed_over = 0;
        for _ in 0..burst {
            if self.send(None, now_ns, &mut passed_over).is_err() {
                return Next::Blocked;
            }
        }
        Next::Again
    }

    /// No operation of the window may be sent any more.
    fn all_are_sent(&self) -> bool {
        self.offered >= self.load.operations_max
    }

    /// Sends the next operation in the first free slot whose connection takes it, meant to start when the slot became free
    /// unless a time is given.
    fn send(&mut self, intended_ns: Option<u64>, now_ns: u64, passed_over: &mut usize) -> Result<(), Busy> {
        if self.all_are_sent() || self.free.is_empty() {
            return Err(Busy);
        }
        if !self.held {
            self.workload.advance();
            self.held = true;
        }
        let intended_ns = self.submit_held(intended_ns, now_ns, passed_over)?;
        if self.in_window(intended_ns) {
            self.offered += 1;
        }
        Ok(())
    }

    /// Submits the held operation in the first free slot that takes it; when it was meant to start.
    fn submit_held(&mut self, intended_ns: Option<u64>, now_ns: u64, passed_over: &mut usize) -> Result<u64, Busy> {
        while let Some(&slot) = self.free.front()
            && *passed_over < self.free.len().min(PASSED_OVER_MAX)
        {
            let intended_ns = intended_ns.unwrap_or(self.slots[slot as usize].intended_ns);
            if self.submit_current(slot, intended_ns, now_ns).is_ok() {
                self.held = false;
                return Ok(intended_ns);
            }
            *passed_over += 1;
            self.free.rotate_left(1);
        }
        Err(Busy)
    }

    fn submit_current(&mut self, slot_number: u32, intended_ns: u64, now_ns: u64) -> Result<(), Busy> {
        let slot = &mut self.slots[slot_number as usize];
        let operation = self.workload.current();
        let tag = u64::from(slot.generation) << 32 | u64::from(slot_number);
        self.target.submit(&operation, tag, now_ns)?;
        slot.intended_ns = intended_ns;
        slot.sent_ns = now_ns;
        slot.kind = operation.kind;
        slot.mark = self.workload.current_mark();
        slot.in_use = true;
        self.free.pop_front();
        Ok(())
    }

    /// One poll of the target and the accounting of what it completed.
    fn turn(&mut self, timeout: Duration) -> Result<(), TargetError> {
        let mut completions = std::mem::take(&mut self.completions);
        self.target.poll(timeout, &mut completions)?;
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        self.expire();
        Ok(())
    }

    /// Ends operations whose answers did not come in time; their connections may still give them, which changes nothing.
    /// How many there were.
    fn expire(&mut self) -> usize {
        let (now_ns, timeout_ns) = (self.clock.now(), self.load.timeout_ns);
        if now_ns < self.expiry_ns {
            return 0;
        }
        let (mut expired, mut oldest_ns) = (0, now_ns);
        for number in 0..self.slots.len() {
            let Slot { sent_ns, generation, in_use, .. } = self.slots[number];
            if in_use && now_ns.saturating_sub(sent_ns) >= timeout_ns {
                let tag = u64::from(generation) << 32 | number as u64;
                self.complete(Completion { tag, at_ns: now_ns, result: Err(ErrorKind::Timeout) });
                expired += 1;
            } else if in_use {
                oldest_ns = oldest_ns.min(sent_ns);
            }
        }
        let next_ns = oldest_ns.saturating_add(timeout_ns);
        self.expiry_ns = next_ns.max(now_ns.saturating_add(timeout_ns / TIMEOUT_SHARE));
        expired
    }

    /// Ends an operation; `None` when the completion is of an earlier use of its slot.
    fn complete(&mut self, completion: Completion) -> Option<Result<(), ErrorKind>> {
        let slot_number = completion.tag as u32;
        let slot = self.slots.get_mut(slot_number as usize)?;
        if !slot.in_use || u64::from(slot.generation) != completion.tag >> 32 {
            return None;
        }
        let Slot { intended_ns, sent_ns, mark, kind, .. } = *slot;
        slot.in_use = false;
        slot.generation = slot.generation.wrapping_add(1);
        slot.intended_ns = completion.at_ns;
        self.free.push_back(slot_number);
        self.completed += 1;
        let result = completion.result.and_then(|seen| self.judge(seen, mark));
        if result.is_ok() && self.in_window(completion.at_ns) {
            self.achieved += 1;
        }
        if self.in_window(intended_ns) {
            let at_ns = completion.at_ns;
            let latency_ns = at_ns.saturating_sub(intended_ns);
            self.keep(Sample { intended_ns, latency_ns, good: result.is_ok() });
            match result {
                Ok(()) => self.recorder.success(kind, latency_ns, at_ns.saturating_sub(sent_ns)),
                Err(error) => self.recorder.failure(kind, error, latency_ns),
            }
        }
        Some(result)
    }

    fn keep(&mut self, sample: Sample) {
        if self.samples.len() < self.load.samples_max {
            self.samples.push(sample);
        }
    }

    /// Of an operation that has no answer.
    fn unanswered(&mut self, kind: OperationKind, error: ErrorKind, intended_ns: u64, now_ns: u64) {
        let latency_ns = now_ns.saturating_sub(intended_ns);
        self.keep(Sample { intended_ns, latency_ns, good: false });
        self.recorder.failure(kind, error, latency_ns);
    }

    /// A success that saw the wrong thing is an error.
    fn judge(&self, seen: Seen, expected_mark: u64) -> Result<(), ErrorKind> {
        match seen {
            Seen::Missing if self.load.verify_values => Err(ErrorKind::MissingValue),
            Seen::Value { length, mark } if self.load.verify_values => {
                let right = length == self.workload.options().value_bytes && mark == expected_mark;
                if right { Ok(()) } else { Err(ErrorKind::WrongValue) }
            }
            Seen::Written | Seen::Deleted | Seen::Missing | Seen::Value { .. } => Ok(()),
        }
    }

    /// Waits for the answers of what was sent; what stays unanswered is a timeout.
    fn drain(&mut self) -> Result<(), TargetError> {
        let give_up_ns = self.clock.now().saturating_add(self.load.timeout_ns);
        while self.outstanding() > 0 && self.clock.now() < give_up_ns {
            self.turn(BLOCKED_WAIT)?;
        }
        let now_ns = self.clock.now();
        for index in 0..self.slots.len() {
            let slot = self.slots[index];
            if slot.in_use && self.in_window(slot.intended_ns) {
                self.unanswered(slot.kind, ErrorKind::Timeout, slot.intended_ns, now_ns);
            }
        }
        Ok(())
    }

    /// Operations due in the window and never sent are errors, with the time they waited until now.
    fn account_unsent(&mut self, schedule: &Schedule) {
        let now_ns = self.clock.now();
        for number in schedule.next_number()..schedule.count_before(self.window_end_ns()) {
            let intended_ns = schedule.intended(number);
            if self.in_window(intended_ns) {
                self.offered += 1;
                if !self.held {
                    self.workload.advance();
                }
                self.held = false;
                let kind = self.workload.current().kind;
                self.unanswered(kind, ErrorKind::Overrun, intended_ns, now_ns);
            }
        }
    }

    /// Writes every key once, in a closed loop, before anything is measured. Gives up after some failures, and when nothing
    /// is written for as long as an answer may take.
    pub fn preload(mut self, observer: &mut impl Observer, stop: &AtomicBool) -> Result<Preload, TargetError> {
        let keys = self.workload.options().keys;
        let mut next_key = 0;
        let mut written = 0;
        let mut failures = Vec::new();
        let mut next_second_ns = self.start_ns + SECOND_NS;
        let mut progress_ns = self.start_ns;
        while written < keys && failures.len() < PRELOAD_FAILURES_MAX && !stop.load(Ordering::Relaxed) {
            let now_ns = self.clock.now();
            let mut passed_over = 0;
            for _ in 0..BURST {
                if self.free.is_empty() {
                    break;
                }
                if !self.held && next_key < keys {
                    self.workload.put_of(next_key);
                    next_key += 1;
                    self.held = true;
                }
                if !self.held || self.submit_held(Some(now_ns), now_ns, &mut passed_over).is_err() {
                    break;
                }
            }
            if now_ns >= next_second_ns {
                next_second_ns += SECOND_NS;
                self.show(observer, now_ns, keys - next_key);
            }
            let mut completions = std::mem::take(&mut self.completions);
            self.target.poll(BLOCKED_WAIT, &mut completions)?;
            for completion in completions.drain(..) {
                match self.complete(completion) {
                    Some(Ok(())) => {
                        written += 1;
                        progress_ns = now_ns;
                    }
                    Some(Err(error)) => failures.push(error),
                    None => {}
                }
            }
            self.completions = completions;
            let expired = self.expire();
            failures.extend(std::iter::repeat_n(ErrorKind::Timeout, expired));
            if written + failures.len() as u64 == keys {
                break;
            }
            // Also when the target takes nothing, so that nothing can expire.
            if now_ns.saturating_sub(progress_ns) > self.load.timeout_ns.saturating_mul(2) {
                failures.push(ErrorKind::Timeout);
                break;
            }
        }
        self.drain()?;
        Ok(Preload { written, failures })
    }
}

/// Failed puts after which a preload gives up.
const PRELOAD_FAILURES_MAX: usize = 100;

/// What a preload did.
#[derive(Debug)]
pub struct Preload {
    /// Keys written.
    pub written: u64,
    /// Why others were not.
    pub failures: Vec<ErrorKind>,
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
