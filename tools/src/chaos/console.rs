//! A blocking client for the steps of a scenario: many keys written, and read back to the last one.
//!
//! Off the data path.
//! Relation: its keys begin with `step-`, which no client of the load touches, and are not part of the history.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use ringraft_net::client::Options;
use ringraft_net::client::tokio::Client;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

/// Requests at once.
const AT_ONCE: u64 = 32;

/// A client.
#[derive(Debug)]
pub struct Console {
    runtime: Runtime,
    client: Client,
}

impl Console {
    /// Connects. Each request may take as long as `patience`.
    ///
    /// # Errors
    /// When nobody answers.
    pub fn connect(endpoints: &[String], patience: Duration) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
        let options = Options { request_timeout: patience, ..Options::default() };
        let client = runtime.block_on(Client::connect(endpoints, options)).context("cannot connect")?;
        Ok(Self { runtime, client })
    }

    /// Writes keys number `first..first + count`, values of `bytes` bytes.
    ///
    /// # Errors
    /// The first write that was not acknowledged.
    pub fn write(&self, first: u64, count: u64, bytes: usize) -> Result<()> {
        self.all(first, count, |client, number| async move {
            let written = client.put(key(number), value(number, bytes)).await;
            written.map(|_| ()).with_context(|| format!("key {number} cannot be written"))
        })
    }

    /// Writes keys from number `first` on until one is not acknowledged; all before the number it returns were.
    #[must_use]
    pub fn write_while_it_works(&self, first: u64, count_max: u64, bytes: usize) -> u64 {
        let mut next = first;
        while next < first + count_max && self.write(next, AT_ONCE, bytes).is_ok() {
            next += AT_ONCE;
        }
        next
    }

    /// Reads those keys back and compares them.
    ///
    /// # Errors
    /// The first key that cannot be read or has another value.
    pub fn verify(&self, first: u64, count: u64, bytes: usize) -> Result<()> {
        self.all(first, count, |client, number| async move {
            let read = client.get(key(number)).await.with_context(|| format!("key {number} cannot be read"))?;
            ensure!(read.value == Some(value(number, bytes)), "key {number} has not the value that was acknowledged");
            Ok(())
        })
    }

    fn all<F>(&self, first: u64, count: u64, work: impl Fn(Client, u64) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for number in first..first + count {
                if tasks.len() as u64 >= AT_ONCE {
                    joined(tasks.join_next().await)?;
                }
                tasks.spawn(work(self.client.clone(), number));
            }
            while !tasks.is_empty() {
                joined(tasks.join_next().await)?;
            }
            Ok(())
        })
    }
}

fn joined(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Result<()> {
    ended.unwrap_or(Ok(Ok(()))).map_err(|_| anyhow!("a request panicked"))?
}

fn key(number: u64) -> Vec<u8> {
    format!("step-{number}").into_bytes()
}

fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = number.to_string().into_bytes();
    value.resize(bytes.max(value.len()), b'.');
    value
}
