//! Clients at work: reads, writes, compare-and-sets and deletes on few hot keys, every call recorded with its times.
//!
//! Off the data path.
//! Invariants: no value is written twice, so that a read tells which write it saw; a call whose outcome the client library
//! does not know stays unknown; times come from one monotonic clock. Calls have short, middling and long deadlines, so that
//! under a fault some end unknown and some are carried over it; every third client has no session.
//! What it does not do: judge. `verdict` does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use ringraft_net::client::tokio::Client;
use ringraft_net::client::{ClientError, Options};
use ringraft_net::wire::{Consistency, Operation, OperationResult};
use ringraft_sim::history::{Call, CallOutcome, Ended, History};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use super::history::is_write;

const HOT_KEYS: u32 = 6;
/// Keys of one tag live in one group, so that a request can name two of them.
const TAGS: u32 = 3;
/// Deadlines of calls.
const PATIENCES: [Duration; 3] = [Duration::from_millis(300), Duration::from_secs(1), Duration::from_secs(5)];
/// One value of so many is long, so that entries, batches and files of the log have all sizes.
const LONG_VALUE_ODDS: u32 = 20;
const LONG_VALUE_BYTES_MAX: usize = 64 << 10;
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
const READ_BACK_PATIENCE: Duration = Duration::from_secs(20);
/// Reads at once when everything is read back.
const READERS: usize = 16;

/// How clients work.
#[derive(Clone, Copy, Debug)]
pub struct LoadOptions {
    /// How many there are.
    pub clients: u32,
    /// Mean pause of each between two calls.
    pub pause_us: u64,
    /// Of their choices.
    pub seed: u64,
}

/// What the clients and the scenario share.
#[derive(Debug)]
struct Shared {
    epoch: Instant,
    stop: AtomicBool,
    /// Writes acknowledged.
    acknowledged: AtomicU64,
    /// Writes invoked from here on count for `first_after_mark`.
    mark: AtomicU64,
    /// When the first of them was acknowledged; the largest number: none yet.
    first_after_mark: AtomicU64,
}

impl Shared {
    fn now(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn acknowledged(&self, invoked: u64, returned: u64) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        if invoked >= self.mark.load(Ordering::Relaxed) {
            self.first_after_mark.fetch_min(returned, Ordering::Relaxed);
        }
    }
}

/// A load that runs on a thread of its own.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    endpoints: Vec<String>,
    options: LoadOptions,
    thread: Option<JoinHandle<Result<Vec<Call>>>>,
}

impl Load {
    /// Starts clients. They live in the network namespace of the calling thread.
    #[must_use]
    pub fn start(endpoints: &[String], options: LoadOptions) -> Self {
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            stop: AtomicBool::new(false),
            acknowledged: AtomicU64::new(0),
            mark: AtomicU64::new(u64::MAX),
            first_after_mark: AtomicU64::new(u64::MAX),
        });
        let (with_clients, of_clients) = (Arc::clone(&shared), endpoints.to_vec());
        let thread = thread::spawn(move || run(&with_clients, &of_clients, options));
        Self { shared, endpoints: endpoints.to_vec(), options, thread: Some(thread) }
    }

    /// Writes acknowledged so far.
    #[must_use]
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// The history's clock.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Whether the clients ended although nobody stopped them.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Forgets what came before: [`Self::first_after_mark`] is about writes invoked from now on.
    pub fn mark(&self) -> u64 {
        let now = self.shared.now();
        self.shared.mark.store(u64::MAX, Ordering::Relaxed);
        self.shared.first_after_mark.store(u64::MAX, Ordering::Relaxed);
        self.shared.mark.store(now, Ordering::Relaxed);
        now
    }

    /// When the first write invoked after the mark was acknowledged.
    #[must_use]
    pub fn first_after_mark(&self) -> Option<u64> {
        Some(self.shared.first_after_mark.load(Ordering::Relaxed)).filter(|time| *time != u64::MAX)
    }

    /// Ends the clients.
    ///
    /// # Errors
    /// When they broke.
    pub fn stop(mut self) -> Result<History> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().context("the clients have ended before")?;
        let calls = thread.join().map_err(|_| anyhow!("a client panicked"))??;
        Ok(History { calls })
    }

    /// Ends the clients and reads every key back that was written. The history has these reads at its end, unless
    /// something cannot be read, which the second result says.
    ///
    /// # Errors
    /// When the clients broke.
    pub fn finish(self) -> Result<(History, Result<()>)> {
        let (shared, endpoints, clients) = (Arc::clone(&self.shared), self.endpoints.clone(), self.options.clients);
        let mut history = self.stop()?;
        let keys = keys_of(&history.calls);
        let reads = runtime()?.block_on(read_back(&shared, &endpoints, clients, &keys));
        let result = reads.map(|reads| history.calls.extend(reads));
        Ok((history, result))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The thread ends when its last call does; nobody waits for a history that nobody wants.
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

fn run(shared: &Arc<Shared>, endpoints: &[String], options: LoadOptions) -> Result<Vec<Call>> {
    runtime()?.block_on(async {
        let mut tasks = JoinSet::new();
        for client in 0..options.clients {
            let (shared, endpoints) = (Arc::clone(shared), endpoints.to_vec());
            tasks.spawn(async move { Worker::new(shared, client, options).work(&endpoints).await });
        }
        let mut calls = Vec::new();
        while let Some(worked) = tasks.join_next().await {
            calls.extend(worked.context("a client panicked")??);
        }
        Ok(calls)
    })
}

async fn connect(endpoints: &[String], seed: u64, sessions: bool) -> Result<Client> {
    let options = Options { request_timeout: CONNECT_PATIENCE, seed, sessions, ..Options::default() };
    Client::connect(endpoints, options).await.context("a client cannot connect")
}

/// Does one call and records it.
async fn call(
    shared: &Shared,
    client: &Client,
    number: u32,
    operations: Vec<Operation>,
    consistency: Consistency,
    patience: Duration,
) -> Result<Call> {
    let invoked = shared.now();
    let answer = client.request_within(operations.clone(), consistency, Some(patience)).await;
    let returned = shared.now();
    let outcome = match answer {
        Ok(answer) => {
            if is_write(&operations) {
                shared.acknowledged(invoked, returned);
            }
            CallOutcome::Done { position: answer.position, results: answer.value }
        }
        Err(error) if error.is_outcome_unknown() => CallOutcome::Unknown,
        Err(ClientError::DeadlineExceeded { .. } | ClientError::Overloaded { .. }) => CallOutcome::Failed,
        // Nothing a fault may cause.
        Err(error) => return Err(error).with_context(|| format!("client {number} was told about {operations:?}")),
    };
    Ok(Call { client: number, invoked, operations, consistency, ended: Some(Ended { returned, outcome }) })
}

/// One client.
struct Worker {
    shared: Arc<Shared>,
    client: u32,
    options: LoadOptions,
    random: SmallRng,
    seed: u64,
    values: u64,
    fresh: u64,
    /// What it last saw of each hot key.
    seen: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Worker {
    fn new(shared: Arc<Shared>, client: u32, options: LoadOptions) -> Self {
        let seed = options.seed ^ u64::from(client + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let random = SmallRng::seed_from_u64(seed);
        Self { shared, client, options, random, seed, values: 0, fresh: 0, seen: BTreeMap::new() }
    }

    async fn work(mut self, endpoints: &[String]) -> Result<Vec<Call>> {
        // Every third client does without exactly-once: what it sent and lost the answer of stays unknown.
        let client = connect(endpoints, self.seed, self.client % 3 != 2).await?;
        let mut calls = Vec::new();
        while !self.shared.stop.load(Ordering::Relaxed) {
            let (operations, consistency) = self.choose();
            let patience = PATIENCES[self.random.random_range(0..PATIENCES.len())];
            let call = call(&self.shared, &client, self.client, operations, consistency, patience).await?;
            self.learn(&call);
            calls.push(call);
            let pause_us = self.random.random_range(0..=2 * self.options.pause_us);
            if pause_us > 0 {
                tokio::time::sleep(Duration::from_micros(pause_us)).await;
            }
        }
        Ok(calls)
    }

    fn value(&mut self) -> Vec<u8> {
        self.values += 1;
        let mut value = format!("{}.{}.", self.client, self.values).into_bytes();
        if self.random.random_range(0..LONG_VALUE_ODDS) == 0 {
            value.resize(self.random.random_range(value.len()..LONG_VALUE_BYTES_MAX), b'.');
        }
        value
    }

    fn hot_key(&mut self, tag: u32) -> Vec<u8> {
        format!("{{{tag}}}hot-{}", self.random.random_range(0..HOT_KEYS / TAGS)).into_bytes()
    }

    fn choose(&mut self) -> (Vec<Operation>, Consistency) {
        let tag = self.random.random_range(0..TAGS);
        let key = self.hot_key(tag);
        let operations = match self.random.random_range(0..100) {
            0..30 => vec![Operation::Get { key }],
            30..35 => return (vec![Operation::Get { key }], Consistency::Stale),
            35..55 => vec![Operation::Put { key, value: self.value() }],
            55..60 => vec![Operation::Delete { key }],
            60..80 => {
                let expected = self.seen.get(&key).cloned().flatten();
                vec![Operation::CompareAndSet { key, expected, value: self.value() }]
            }
            80..85 => {
                let other = self.hot_key(tag);
                vec![Operation::Get { key: other }, Operation::Put { key, value: self.value() }]
            }
            // Never written again: that it is lost cannot be hidden by a later write.
            _ => {
                self.fresh += 1;
                let key = format!("fresh-{}-{}", self.client, self.fresh).into_bytes();
                vec![Operation::Put { key, value: self.value() }]
            }
        };
        (operations, Consistency::Linearizable)
    }

    /// Remembers what the key holds as far as this client can know, for the next compare-and-set.
    fn learn(&mut self, call: &Call) {
        let Some(Ended { outcome: CallOutcome::Done { results, .. }, .. }) = &call.ended else { return };
        for (operation, result) in call.operations.iter().zip(results) {
            let (key, now) = match (operation, result) {
                (Operation::Get { key }, OperationResult::Value(value)) => (key, value.clone()),
                (Operation::Put { key, value }, OperationResult::Put { .. }) => (key, Some(value.clone())),
                (Operation::Delete { key }, OperationResult::Deleted { .. }) => (key, None),
                (Operation::CompareAndSet { key, value, .. }, OperationResult::Compared { swapped: true, .. }) => {
                    (key, Some(value.clone()))
                }
                (Operation::CompareAndSet { key, .. }, OperationResult::Compared { current, .. }) => {
                    (key, current.clone())
                }
                _ => continue,
            };
            self.seen.insert(key.clone(), now);
        }
    }
}

/// Every key some call wanted to change.
fn keys_of(calls: &[Call]) -> Vec<Vec<u8>> {
    let changes = calls.iter().flat_map(|call| &call.operations).filter_map(|operation| match operation {
        Operation::Put { key, .. }
        | Operation::Delete { key }
        | Operation::CompareAndSet { key, .. }
        | Operation::CompareVersion { key, .. } => Some(key),
        Operation::Get { .. } | Operation::OpenSession { .. } | Operation::Range { .. } => None,
    });
    let mut keys: Vec<Vec<u8>> = changes.cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

async fn read_back(shared: &Arc<Shared>, endpoints: &[String], number: u32, keys: &[Vec<u8>]) -> Result<Vec<Call>> {
    let client = connect(endpoints, u64::from(number), true).await?;
    let mut calls = Vec::with_capacity(keys.len());
    for keys in keys.chunks(READERS) {
        let mut tasks = JoinSet::new();
        for key in keys {
            let (shared, client, get) = (Arc::clone(shared), client.clone(), vec![Operation::Get { key: key.clone() }]);
            tasks.spawn(async move {
                call(&shared, &client, number, get, Consistency::Linearizable, READ_BACK_PATIENCE).await
            });
        }
        while let Some(read) = tasks.join_next().await {
            let read = read.context("a reader panicked")??;
            let done = matches!(read.ended.as_ref().map(|ended| &ended.outcome), Some(CallOutcome::Done { .. }));
            ensure!(done, "a key cannot be read back within {READ_BACK_PATIENCE:?}: {:?}", read.operations);
            calls.push(read);
        }
    }
    Ok(calls)
}
