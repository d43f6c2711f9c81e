//! What the client commands share: where the cluster is, one operation, its answer.
//!
//! Off the data path.
//! Invariant: a failure says whether the operation may have been done.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use ringraft_net::client::Options;
use ringraft_net::client::tokio::Client;
use ringraft_net::wire::{Consistency, Operation, OperationResult, Position, Topology, items};
use ringraft_tools::admin;
use ringraft_tools::local_cluster::ClusterFile;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Where the cluster is and how to talk to it.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Addresses of some nodes, `host:port,host:port`; the others are learnt from them.
    #[arg(long, visible_alias = "addr", value_name = "ADDRESSES", value_delimiter = ',')]
    #[arg(env = "RINGRAFT_ENDPOINTS", required_unless_present = "dir")]
    endpoints: Vec<String>,
    /// Folder of a cluster made by `ringraft cluster start`; goes before --endpoints.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
    /// Longest time for the whole operation, retries included, in milliseconds.
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
    /// One JSON object instead of plain text.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Target {
    /// Some addresses to begin with.
    pub(crate) fn endpoints(&self) -> Result<Vec<String>> {
        match &self.dir {
            Some(directory) => Ok(ClusterFile::read(directory)?.endpoints()),
            None => Ok(self.endpoints.clone()),
        }
    }

    /// Every address of the cluster, as one of its nodes tells.
    pub(crate) fn all_addresses(&self) -> Result<Vec<String>> {
        if let Some(directory) = &self.dir {
            return Ok(ClusterFile::read(directory)?.addresses());
        }
        Ok(self.topology()?.nodes.into_iter().flat_map(|node| node.addresses).collect())
    }

    /// Where everything is, as one of the nodes tells.
    pub(crate) fn topology(&self) -> Result<Topology> {
        admin::welcome(&self.endpoints()?)
    }

    /// Longest time for the whole operation.
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// What became of one operation.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Its result.
    pub(crate) result: OperationResult,
    /// Where it stands in the history.
    position: Position,
}

impl Answer {
    /// The object with the position in it.
    pub(crate) fn with_position(&self, object: Value) -> Value {
        with_position(object, self.position)
    }

    /// The version of what this write wrote.
    pub(crate) fn version(&self) -> u64 {
        items::version_at(self.position.index, self.position.position)
    }

    /// The error for a result of another operation.
    pub(crate) fn unexpected(&self) -> anyhow::Error {
        anyhow!("the server answered another operation: {:?}", self.result)
    }
}

/// The object with a position in it.
pub(crate) fn with_position(mut object: Value, position: Position) -> Value {
    let Position { group, index, position } = position;
    object["position"] = json!({ "group": group, "index": index, "position": position });
    object
}

/// One operation, linearizable.
pub(crate) fn execute(target: &Target, operation: Operation) -> Result<Answer> {
    run(target, operation, Consistency::Linearizable, 0)
}

/// One operation as fresh as is asked for; `max_staleness_ms` bounds the age of a stale read, 0 does not.
pub(crate) fn run(
    target: &Target,
    operation: Operation,
    consistency: Consistency,
    max_staleness_ms: u32,
) -> Result<Answer> {
    runtime()?.block_on(async {
        let deadline = Instant::now() + target.timeout();
        let client = connect(target).await?;
        let rest = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        request(&client, operation, (consistency, max_staleness_ms), rest).await
    })
}

/// A runtime of this thread.
pub(crate) fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start a runtime")
}

/// A client that knows its cluster.
pub(crate) async fn connect(target: &Target) -> Result<Client> {
    let options =
        Options { request_timeout: target.timeout(), seed: u64::from(std::process::id()), ..Options::default() };
    Client::connect(&target.endpoints()?, options).await.context("not done")
}

/// One operation of a client, as fresh as is asked for.
pub(crate) async fn request(
    client: &Client,
    operation: Operation,
    (consistency, max_staleness_ms): (Consistency, u32),
    timeout: Duration,
) -> Result<Answer> {
    let answer = client.request_with(vec![operation], consistency, max_staleness_ms, Some(timeout)).await;
    let answer = answer.map_err(|error| match error.is_outcome_unknown() {
        true => anyhow::Error::new(error),
        false => anyhow::Error::new(error).context("not done"),
    })?;
    let result = answer.value.into_iter().next().context("the server answered without a result")?;
    Ok(Answer { result, position: answer.position })
}

/// Does something with a client of the cluster.
pub(crate) fn with_client<T>(target: &Target, work: impl AsyncFnOnce(Client) -> Result<T>) -> Result<T> {
    runtime()?.block_on(async { work(connect(target).await?).await })
}
