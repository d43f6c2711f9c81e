//! What goes wrong with a disk: switches that the scenario turns and every request passes.
//!
//! Off the data path.
//! Invariant: a request is let through, held or refused by the switches as they stand when its turn comes.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Read,
    Write,
    Flush,
}

/// What a request meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It ends with `EIO` and has no effect.
    Error,
    /// The power went while it was on its way: a write may be torn.
    PowerLoss,
    /// It ends well, and nothing it wrote or flushed is durable.
    Lie,
}

/// The switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Nothing is answered.
    pub stalled: bool,
    /// Every read, write and flush takes this much longer.
    pub delay: Duration,
    /// Reads end with `EIO`.
    pub fail_reads: bool,
    /// Writes end with `EIO`.
    pub fail_writes: bool,
    /// Flushes end with `EIO`, and lose what they should have covered.
    pub fail_flushes: bool,
    /// Flushes end well and do nothing: a disk that lies, which nobody can stand.
    pub lie: bool,
}

#[derive(Debug, Default)]
struct State {
    settings: Settings,
    /// The power is off.
    off: bool,
    /// Requests refused or held at a stall.
    hit: u64,
}

impl State {
    fn fault(&self, kind: Kind) -> Option<Fault> {
        let fails = match kind {
            Kind::Read => self.settings.fail_reads,
            Kind::Write => self.settings.fail_writes,
            Kind::Flush => self.settings.fail_flushes,
        };
        match (self.off, fails, self.settings.lie && kind != Kind::Read) {
            (true, _, _) => Some(Fault::PowerLoss),
            (false, true, _) => Some(Fault::Error),
            (false, false, lie) => lie.then_some(Fault::Lie),
        }
    }
}

/// The switches of one disk.
#[derive(Debug, Default)]
pub(super) struct Faults {
    state: Mutex<State>,
    changed: Condvar,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Turns the switches.
    pub(super) fn set(&self, settings: Settings) {
        let mut state = self.lock();
        state.settings = settings;
        state.off = false;
        self.changed.notify_all();
    }

    /// Holds every request from now on.
    pub(super) fn hold_all(&self) {
        self.set(Settings { stalled: true, ..Settings::default() });
    }

    /// Ends every request, those that are held included, as a loss of power does.
    pub(super) fn switch_off(&self) {
        let mut state = self.lock();
        state.settings = Settings::default();
        state.off = true;
        self.changed.notify_all();
    }

    /// Requests that met a fault so far.
    pub(super) fn hit(&self) -> u64 {
        self.lock().hit
    }

    /// Waits until a request may go on and does it; it gets the fault it meets. The switches do not turn meanwhile: a
    /// request is done wholly before or wholly behind a turn.
    pub(super) fn pass(&self, kind: Kind, arrived: Instant, work: impl FnOnce(Result<(), Fault>)) {
        let mut state = self.lock();
        let mut met = false;
        loop {
            let settings = state.settings;
            let wait = (arrived + settings.delay).saturating_duration_since(Instant::now());
            met |= settings.stalled || !settings.delay.is_zero();
            if settings.stalled {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            } else if let Some(fault) = state.fault(kind) {
                state.hit += 1;
                return work(Err(fault));
            } else if wait.is_zero() {
                state.hit += u64::from(met);
                return work(Ok(()));
            } else {
                state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(faults: &Faults, kind: Kind, arrived: Instant) -> Result<(), Fault> {
        let mut met = Ok(());
        faults.pass(kind, arrived, |fault| met = fault);
        met
    }

    #[test]
    fn each_switch_stops_its_kind() {
        let faults = Faults::default();
        let now = Instant::now();
        assert!(fault(&faults, Kind::Flush, now).is_ok());
        faults.set(Settings { fail_flushes: true, ..Settings::default() });
        assert_eq!(fault(&faults, Kind::Flush, now), Err(Fault::Error));
        assert!(fault(&faults, Kind::Write, now).is_ok());
        faults.switch_off();
        assert_eq!(fault(&faults, Kind::Read, now), Err(Fault::PowerLoss));
        assert_eq!(faults.hit(), 2);
    }

    #[test]
    fn a_delay_counts_from_the_arrival_and_a_stall_holds() {
        let faults = Faults::default();
        let delay = Duration::from_millis(30);
        faults.set(Settings { delay, ..Settings::default() });
        let start = Instant::now();
        fault(&faults, Kind::Write, start).unwrap();
        assert!(start.elapsed() >= delay);
        faults.hold_all();
        std::thread::scope(|scope| {
            let held = scope.spawn(|| fault(&faults, Kind::Write, Instant::now()));
            std::thread::sleep(Duration::from_millis(50));
            assert!(!held.is_finished());
            faults.switch_off();
            assert_eq!(held.join().unwrap(), Err(Fault::PowerLoss));
        });
    }
}
