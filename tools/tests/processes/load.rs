//! A load that records what it was promised: chains that break when a write is lost or done twice.
//!
//! Off the data path.
//! Each writer counts one key up by compare-and-set, from what it was last told. If an acknowledged step is lost, the
//! next one finds an older value; if a step is done twice, its retry finds a newer one. Both answer "not swapped".
//! Besides, each step puts a key of its own, which must be there at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::Session;

/// What one writer was promised.
#[derive(Clone, Debug)]
pub(crate) struct Promised {
    /// Its number.
    pub(crate) writer: usize,
    /// Steps of its chain that were acknowledged.
    pub(crate) steps: u64,
    /// Why it ended before it was told to.
    pub(crate) error: Option<String>,
}

/// Writers at work.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    writers: Vec<JoinHandle<Promised>>,
}

impl Load {
    /// Starts writers. `patience` bounds each of their calls.
    pub(crate) fn start(endpoints: &[String], writers: usize, patience: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let start = |writer: usize| {
            let (endpoints, stop, acknowledged) = (endpoints.to_vec(), Arc::clone(&stop), Arc::clone(&acknowledged));
            thread::spawn(move || count_up(writer, &endpoints, patience, &stop, &acknowledged))
        };
        let writers = (0..writers).map(start).collect();
        Self { stop, acknowledged, writers }
    }

    /// Steps acknowledged so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until so many more steps are acknowledged; panics if that takes too long.
    pub(crate) fn wait_for_more(&self, steps: u64, patience: Duration) {
        let (start, deadline) = (self.acknowledged(), Instant::now() + patience);
        while self.acknowledged() < start + steps {
            assert!(
                Instant::now() < deadline,
                "only {} of {steps} more steps in {patience:?}",
                self.acknowledged() - start
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the load.
    pub(crate) fn stop(self) -> Vec<Promised> {
        self.stop.store(true, Ordering::Relaxed);
        self.writers.into_iter().map(|writer| writer.join().expect("a writer")).collect()
    }
}

fn count_up(
    writer: usize,
    endpoints: &[String],
    patience: Duration,
    stop: &AtomicBool,
    acknowledged: &AtomicU64,
) -> Promised {
    let mut promised = Promised { writer, steps: 0, error: None };
    let session = Session::open(endpoints, 0).map(|session| session.patience(patience));
    let mut session = match session {
        Ok(session) => session,
        Err(error) => return Promised { error: Some(format!("{error:#}")), ..promised },
    };
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = step(&mut session, writer, promised.steps) {
            promised.error = Some(format!("{error:#}"));
            break;
        }
        promised.steps += 1;
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
    promised
}

fn step(session: &mut Session, writer: usize, steps: u64) -> anyhow::Result<()> {
    let (before, after) = (steps.to_string(), (steps + 1).to_string());
    let expected = (steps > 0).then_some(before.as_str());
    session.put(&format!("step-{writer}-{}", steps + 1), &after)?;
    let swapped = session.compare_and_set(&format!("chain-{writer}"), expected, &after)?;
    anyhow::ensure!(swapped, "BROKEN: step {after} of writer {writer} did not find {expected:?}");
    Ok(())
}

/// Reads everything back. What is one step ahead of the promise was sent and never answered: it may be there.
pub(crate) fn check(endpoints: &[String], promises: &[Promised]) {
    let mut session = Session::without(endpoints);
    for Promised { writer, steps, error } in promises {
        assert!(!error.as_ref().is_some_and(|error| error.contains("BROKEN")), "{error:?}");
        let found = session.get(&format!("chain-{writer}")).expect("a read");
        let found: u64 = found.map_or(0, |found| found.parse().expect("a number"));
        let unanswered = u64::from(error.is_some());
        assert!(
            (*steps..=steps + unanswered).contains(&found),
            "writer {writer} was promised {steps}, there is {found}"
        );
        for step in 1..=*steps {
            let value = session.get(&format!("step-{writer}-{step}")).expect("a read");
            assert_eq!(value.as_deref(), Some(step.to_string().as_str()), "step {step} of writer {writer}");
        }
    }
}

/// Nobody gave up, and everybody got something done.
pub(crate) fn assert_all_went_on(promises: &[Promised]) {
    for promised in promises {
        assert!(promised.error.is_none() && promised.steps > 0, "{promised:?}");
    }
}
