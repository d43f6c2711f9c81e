//! Tests of the loop against a target and a clock that do exactly what the test says.
//!
//! Off the data path.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::*;
use crate::targets::TargetFacts;
use crate::workload::{KeyDistribution, Operation, WorkloadOptions, mark_of};

const MILLISECOND: u64 = 1_000_000;
const MICROSECOND: u64 = 1_000;

#[derive(Clone, Default)]
struct FakeClock(Rc<Cell<u64>>);

impl Clock for FakeClock {
    fn now(&self) -> u64 {
        self.0.get()
    }
}

/// Answers every operation a fixed time after it was sent; within the stall, it answers nothing and the whole process
/// stands still, as in a long pause of the server that also blocks the generator's connection.
struct FakeTarget {
    clock: FakeClock,
    service_ns: u64,
    stall: std::ops::Range<u64>,
    freeze_generator: bool,
    capacity: usize,
    fail: Option<ErrorKind>,
    silent: bool,
    /// Every slot with this remainder belongs to a link that takes nothing: remainder and number of links.
    dead_link: Option<(u64, u64)>,
    queue: VecDeque<(u64, u64, Result<Seen, ErrorKind>)>,
    stored: BTreeMap<Vec<u8>, Vec<u8>>,
    submitted: u64,
    outstanding_peak: usize,
}

impl FakeTarget {
    fn new(clock: &FakeClock, service_ns: u64) -> Self {
        Self {
            clock: clock.clone(),
            service_ns,
            stall: 0..0,
            freeze_generator: false,
            capacity: usize::MAX,
            fail: None,
            silent: false,
            dead_link: None,
            queue: VecDeque::new(),
            stored: BTreeMap::new(),
            submitted: 0,
            outstanding_peak: 0,
        }
    }
}

impl Target for FakeTarget {
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, now_ns: u64) -> Result<(), Busy> {
        let is_dead = |(link, links)| u64::from(tag as u32) % links == link;
        if self.queue.len() >= self.capacity || self.dead_link.is_some_and(is_dead) {
            return Err(Busy);
        }
        let mut done_ns = now_ns + self.service_ns;
        if self.stall.contains(&done_ns) {
            done_ns = self.stall.end;
        }
        let result = match (self.fail, operation.kind) {
            (Some(error), _) => Err(error),
            (None, OperationKind::Put) => {
                self.stored.insert(operation.key.to_vec(), operation.value.to_vec());
                Ok(Seen::Written)
            }
            (None, OperationKind::Delete) => {
                Ok(if self.stored.remove(operation.key.as_slice()).is_some() { Seen::Deleted } else { Seen::Missing })
            }
            (None, OperationKind::Get) => Ok(self
                .stored
                .get(operation.key.as_slice())
                .map_or(Seen::Missing, |value| Seen::Value { length: value.len(), mark: mark_of(value) })),
        };
        self.queue.push_back((done_ns, tag, result));
        self.submitted += 1;
        self.outstanding_peak = self.outstanding_peak.max(self.queue.len());
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> Result<(), TargetError> {
        let mut until = self.clock.now() + timeout.as_nanos() as u64;
        if let Some((done_ns, ..)) = self.queue.front()
            && !self.silent
        {
            until = until.min((*done_ns).max(self.clock.now()));
        }
        if self.freeze_generator && self.stall.contains(&until) {
            until = self.stall.end;
        }
        // Time always passes a little, as it does for a real loop.
        self.clock.0.set(until.max(self.clock.now() + 100));
        while let Some((done_ns, tag, result)) = self.queue.front().copied()
            && !self.silent
            && done_ns <= self.clock.now()
        {
            self.queue.pop_front();
            completions.push(Completion { tag, at_ns: self.clock.now(), result });
        }
        Ok(())
    }

    fn facts(&self) -> TargetFacts {
        TargetFacts::default()
    }
}

#[derive(Default)]
struct Counter {
    begins: Vec<u64>,
    ends: Vec<u64>,
    seconds: u64,
}

impl Observer for Counter {
    fn window_begins(&mut self, completed: u64) {
        self.begins.push(completed);
    }
    fn window_ended(&mut self, completed: u64) {
        self.ends.push(completed);
    }
    fn second(&mut self, _: &ProgressView<'_>) {
        self.seconds += 1;
    }
}

fn workload(read_percent: u8) -> Workload {
    Workload::new(WorkloadOptions {
        keys: 100,
        distribution: KeyDistribution::Uniform,
        value_bytes: 32,
        read_percent,
        deletes: false,
        seed: 1,
    })
}

fn open(rate: u64, outstanding_max: usize) -> Load {
    Load {
        pace: Pace::Open { rate, outstanding_max },
        warmup_ns: 1_000 * MILLISECOND,
        window_ns: 2_000 * MILLISECOND,
        timeout_ns: 1_000 * MILLISECOND,
        wake_ns_min: 100 * MICROSECOND,
        operations_max: u64::MAX,
        verify_values: false,
        samples_max: 0,
    }
}

fn run(target: &mut FakeTarget, load: Load, read_percent: u8) -> (Outcome, Counter) {
    let clock = target.clock.clone();
    let mut counter = Counter::default();
    let mut workload = workload(read_percent);
    let driver = Driver::new(target, &clock, &mut workload, load);
    let outcome = driver.run(&mut counter, &AtomicBool::new(false)).unwrap();
    (outcome, counter)
}

#[test]
fn open_loop_offers_exactly_the_rate_and_measures_only_the_window() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, 500 * MICROSECOND);
    let (outcome, counter) = run(&mut target, open(10_000, 1_000), 0);
    assert_eq!(outcome.offered, 20_000);
    assert_eq!(outcome.recorder.operations(), 20_000);
    assert_eq!(outcome.recorder.errors(), 0);
    assert_eq!(target.submitted, 30_000);
    assert!(outcome.achieved.abs_diff(20_000) < 20, "{}", outcome.achieved);
    // Service time plus at most the shortest sleep.
    let response = outcome.recorder.response();
    assert!(response.min() >= 499 * MICROSECOND && response.max() <= 701 * MICROSECOND, "{}", response.max());
    assert_eq!((counter.begins.len(), counter.ends.len()), (1, 1));
    assert!((2..=3).contains(&counter.seconds));
}

/// The test against coordinated omission: everything due during a stall shows the wait it would have had.
fn stall_shows_in_all_operations_due_during_it(freeze_generator: bool) {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, 100 * MICROSECOND);
    target.stall = 2_000 * MILLISECOND..2_500 * MILLISECOND;
    target.freeze_generator = freeze_generator;
    let (outcome, _) = run(&mut target, open(1_000, 10_000), 0);
    let response = outcome.recorder.response();
    assert_eq!(response.len(), 2_000);
    // 1,000/s: 500 operations were due in the 500 ms; the one due after t ms waited 500 - t ms.
    for waited_ms in [50, 100, 200, 300, 400, 450] {
        let above = response.len() - response.count_between(0, waited_ms * MILLISECOND);
        assert!(above.abs_diff(500 - waited_ms) <= 5, "{above} operations waited more than {waited_ms} ms");
    }
    assert!(response.max().abs_diff(500 * MILLISECOND) < 2 * MILLISECOND, "{}", response.max());
}

#[test]
fn a_stalled_server_shows() {
    stall_shows_in_all_operations_due_during_it(false);
}

#[test]
fn a_stalled_generator_shows() {
    stall_shows_in_all_operations_due_during_it(true);
}

#[test]
fn a_stall_with_few_slots_still_shows_and_backlog_is_sent_late() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, 100 * MICROSECOND);
    target.stall = 2_000 * MILLISECOND..2_500 * MILLISECOND;
    let (outcome, _) = run(&mut target, open(1_000, 4), 0);
    assert_eq!(outcome.recorder.errors(), 0);
    let response = outcome.recorder.response();
    let above = response.len() - response.count_between(0, 250 * MILLISECOND);
    assert!(above.abs_diff(250) < 10, "{above}");
    // The service time of the backlog is short: only the intended start tells the truth.
    assert!(outcome.recorder.service().value_at_quantile(0.99) < MILLISECOND);
    assert!(target.outstanding_peak <= 4);
}

#[test]
fn operations_never_sent_are_overruns_with_their_waiting_time() {
    let clock = FakeClock::default();
    // One slot, 10 ms each: 100/s of the 1,000/s offered.
    let mut target = FakeTarget::new(&clock, 10 * MILLISECOND);
    let (outcome, _) = run(&mut target, open(1_000, 1), 0);
    let overrun = outcome.recorder.errors_by_kind()["overrun"];
    assert_eq!(outcome.recorder.operations(), 2_000);
    assert_eq!(outcome.offered, 2_000);
    assert!(overrun > 1_900, "{overrun}");
    assert!(outcome.recorder.response().max() > 1_900 * MILLISECOND);
    assert!(outcome.achieved.abs_diff(200) < 25, "{}", outcome.achieved);
}

#[test]
fn closed_loop_keeps_its_slots_busy() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, MILLISECOND);
    let load = Load { pace: Pace::Closed { outstanding: 16 }, ..open(1, 1) };
    let (outcome, _) = run(&mut target, load, 0);
    assert_eq!(target.outstanding_peak, 16);
    assert!(outcome.achieved.abs_diff(32_000) < 400, "{}", outcome.achieved);
    assert_eq!(outcome.recorder.errors(), 0);
    assert!(outcome.recorder.response().max() < 2 * MILLISECOND);
}

#[test]
fn a_busy_target_delays_and_is_not_an_error() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, MILLISECOND);
    target.capacity = 2;
    let load = Load { pace: Pace::Closed { outstanding: 8 }, ..open(1, 1) };
    let (outcome, _) = run(&mut target, load, 0);
    assert_eq!(outcome.recorder.errors(), 0);
    assert!(outcome.achieved.abs_diff(4_000) < 400, "{}", outcome.achieved);
}

#[test]
fn fast_refusals_are_errors_by_kind_and_not_latencies() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, MILLISECOND);
    target.fail = Some(ErrorKind::Overloaded);
    let (outcome, _) = run(&mut target, open(1_000, 100), 0);
    assert_eq!(outcome.recorder.errors_by_kind(), BTreeMap::from([("overloaded", 2_000)]));
    assert_eq!(outcome.achieved, 0);
    assert_eq!(outcome.recorder.response().len(), 0);
}

#[test]
fn slow_failures_are_in_the_percentiles() {
    for error in [ErrorKind::Disconnected, ErrorKind::OutcomeUnknown, ErrorKind::Unavailable, ErrorKind::Overloaded] {
        let clock = FakeClock::default();
        let mut target = FakeTarget::new(&clock, 400 * MILLISECOND);
        target.fail = Some(error);
        let (outcome, _) = run(&mut target, open(1_000, 1_000), 0);
        assert_eq!(outcome.recorder.errors_by_kind(), BTreeMap::from([(error.name(), 2_000)]));
        let response = outcome.recorder.response();
        assert_eq!(response.len(), 2_000);
        assert!(response.min() >= 399 * MILLISECOND, "{}", response.min());
    }
}

#[test]
fn a_link_that_takes_nothing_does_not_stop_the_others() {
    for pace in [Pace::Closed { outstanding: 64 }, Pace::Open { rate: 10_000, outstanding_max: 1_024 }] {
        let clock = FakeClock::default();
        let mut target = FakeTarget::new(&clock, MILLISECOND);
        target.dead_link = Some((0, 4));
        let (outcome, _) = run(&mut target, Load { pace, ..open(1, 1) }, 0);
        assert_eq!(outcome.recorder.errors(), 0, "{pace:?}");
        // 48 of the 64 clients go on, at 1 ms each; the open loop has slots enough.
        let expected = if matches!(pace, Pace::Closed { .. }) { 96_000 } else { 20_000 };
        assert!(outcome.achieved.abs_diff(expected) < expected / 4, "{pace:?}: {}", outcome.achieved);
    }
}

#[test]
fn an_operation_without_an_answer_frees_its_slot_at_the_deadline() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, MILLISECOND);
    target.silent = true;
    let load = Load { pace: Pace::Closed { outstanding: 8 }, timeout_ns: 100 * MILLISECOND, ..open(1, 1) };
    let (outcome, _) = run(&mut target, load, 0);
    // Each of the eight clients waits 100 ms for each of its operations, over 2 s, and a turn or so longer.
    assert!((8 * 18..=8 * 20).contains(&outcome.recorder.errors()), "{}", outcome.recorder.errors());
    assert_eq!(outcome.recorder.errors_by_kind().into_keys().collect::<Vec<_>>(), ["timeout"]);
    let response = outcome.recorder.response();
    assert!(response.min() >= 99 * MILLISECOND && response.max() < 110 * MILLISECOND, "{}", response.max());
}

#[test]
fn a_preload_of_a_server_that_never_answers_ends() {
    for capacity in [usize::MAX, 0] {
        let clock = FakeClock::default();
        let mut target = FakeTarget::new(&clock, MILLISECOND);
        (target.silent, target.capacity) = (true, capacity);
        let mut workload = workload(0);
        let load = Load { pace: Pace::Closed { outstanding: 16 }, ..open(1, 1) };
        let driver = Driver::new(&mut target, &clock, &mut workload, load);
        let preload = driver.preload(&mut Counter::default(), &AtomicBool::new(false)).unwrap();
        assert_eq!((preload.written, preload.failures.first()), (0, Some(&ErrorKind::Timeout)));
    }
}

#[test]
fn silence_ends_as_timeouts_after_the_drain() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, MILLISECOND);
    target.silent = true;
    let (outcome, _) = run(&mut target, open(100, 1_000), 0);
    assert_eq!(outcome.recorder.errors_by_kind(), BTreeMap::from([("timeout", 200)]));
    assert_eq!(outcome.recorder.response().len(), 200);
}

#[test]
fn reads_are_verified_against_what_was_preloaded() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, 10 * MICROSECOND);
    let mut workload = workload(50);
    let mut load = Load { pace: Pace::Closed { outstanding: 16 }, verify_values: true, ..open(1, 1) };
    (load.warmup_ns, load.window_ns) = (MILLISECOND, 20 * MILLISECOND);
    let mut counter = Counter::default();
    let stop = AtomicBool::new(false);
    let preload = Driver::new(&mut target, &clock, &mut workload, load).preload(&mut counter, &stop).unwrap();
    assert_eq!((preload.written, preload.failures.len(), target.stored.len()), (100, 0, 100));
    let outcome = Driver::new(&mut target, &clock, &mut workload, load).run(&mut counter, &stop).unwrap();
    assert_eq!(outcome.recorder.errors(), 0);

    target.stored.insert(b"key-000000000007".to_vec(), vec![0; 32]);
    target.stored.remove(b"key-000000000009".as_slice());
    let mut reads = Workload::new(WorkloadOptions { read_percent: 100, ..*workload.options() });
    let outcome = Driver::new(&mut target, &clock, &mut reads, load).run(&mut counter, &stop).unwrap();
    let kinds: Vec<&str> = outcome.recorder.errors_by_kind().into_keys().collect();
    assert_eq!(kinds, ["missing_value", "wrong_value"]);
}

#[test]
fn a_run_of_so_many_operations_has_so_many() {
    for pace in [Pace::Closed { outstanding: 7 }, Pace::Open { rate: 1_000, outstanding_max: 3 }] {
        let clock = FakeClock::default();
        let mut target = FakeTarget::new(&clock, MILLISECOND);
        let load = Load { pace, operations_max: 100, ..open(1, 1) };
        let (outcome, _) = run(&mut target, load, 0);
        assert_eq!(
            (outcome.offered, outcome.recorder.operations(), outcome.recorder.errors()),
            (100, 100, 0),
            "{pace:?}"
        );
        // Answers to what was sent before the window count as well.
        assert!((100..=107).contains(&outcome.achieved), "{pace:?}: {}", outcome.achieved);
        assert!(!outcome.interrupted && outcome.window_ns < 200 * MILLISECOND, "{pace:?}: {}", outcome.window_ns);
    }
}

#[test]
fn deletes_find_every_key_and_write_it_again() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, 10 * MICROSECOND);
    let mut workload = Workload::new(WorkloadOptions { deletes: true, ..*workload(0).options() });
    let (verify_values, samples_max) = (true, 150);
    let load = Load { window_ns: 400 * MILLISECOND, warmup_ns: 0, verify_values, samples_max, ..open(1_000, 16) };
    let mut counter = Counter::default();
    let stop = AtomicBool::new(false);
    Driver::new(&mut target, &clock, &mut workload, load).preload(&mut counter, &stop).unwrap();
    let outcome = Driver::new(&mut target, &clock, &mut workload, load).run(&mut counter, &stop).unwrap();
    assert_eq!((outcome.recorder.errors(), outcome.recorder.succeeded), (0, 400));
    let count = |kind| outcome.recorder.kind(kind).response.len();
    assert_eq!((count(OperationKind::Delete), count(OperationKind::Put)), (200, 200));
    assert_eq!(outcome.samples.len(), 150, "no more than asked for");
    assert!(outcome.samples.iter().all(|sample| sample.good && sample.intended_ns >= outcome.window_start_ns));
    target.stored.clear();
    let outcome = Driver::new(&mut target, &clock, &mut workload, load).run(&mut counter, &stop).unwrap();
    assert_eq!(outcome.recorder.errors_by_kind().get("missing_value"), Some(&100));
}

#[test]
fn a_stopped_run_reports_what_it_measured() {
    let clock = FakeClock::default();
    let mut target = FakeTarget::new(&clock, MILLISECOND);
    let mut workload = workload(0);
    clock.0.set(0);
    let driver = Driver::new(&mut target, &clock, &mut workload, open(1_000, 100));
    let outcome = driver.run(&mut Counter::default(), &AtomicBool::new(true)).unwrap();
    assert!(outcome.interrupted);
    assert_eq!(outcome.window_ns, 0);
}
