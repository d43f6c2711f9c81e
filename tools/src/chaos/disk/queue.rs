//! The queue of one disk: requests in the order they came, each when the switches let it go.
//!
//! Off the data path.
//! Invariant: requests take effect in the order they arrived. A delay is counted from the arrival, so it makes each
//! request slower and not the disk narrower.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};

use super::faults::{Fault, Faults, Kind};

type Work = Box<dyn FnOnce(Result<(), Fault>) + Send>;

struct Job {
    kind: Kind,
    arrived: Instant,
    work: Work,
}

/// The way into the queue. The thread behind it ends with it.
#[derive(Debug)]
pub(super) struct Queue {
    jobs: Sender<Job>,
}

impl Queue {
    /// Starts the thread.
    pub(super) fn start(faults: Arc<Faults>) -> Result<Self> {
        let (jobs, queued) = channel();
        let worker = thread::Builder::new().name(String::from("chaos-disk"));
        worker.spawn(move || serve(&queued, &faults)).context("cannot start a thread")?;
        Ok(Self { jobs })
    }

    /// Adds a request; `work` gets the fault it meets, if any, and answers.
    pub(super) fn push(&self, kind: Kind, work: impl FnOnce(Result<(), Fault>) + Send + 'static) {
        let job = Job { kind, arrived: Instant::now(), work: Box::new(work) };
        // The thread lives as long as `self`; a request dropped all the same is answered with EIO by its drop.
        let _ = self.jobs.send(job);
    }
}

fn serve(queued: &Receiver<Job>, faults: &Faults) {
    while let Ok(job) = queued.recv() {
        faults.pass(job.kind, job.arrived, job.work);
    }
}
