//! What the shell does: one client, one command at a time.
//!
//! Off the data path.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use ringraft_net::client::ClientError;
use ringraft_net::client::tokio::Client;
use ringraft_net::wire::{AdminRequest, Consistency, Operation, OperationResult};
use ringraft_tools::admin::{self, Changed, Goal, Watch};
use ringraft_tools::status;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::line::{self, Wish};
use crate::client::{self, Answer, Target};
use crate::command::members::{refused, shard_addresses};
use crate::command::{FAILURE, NOT_FOUND, OUTCOME_UNKNOWN, Outcome, SUCCESS, put_bytes, status as status_command};

/// Longest wait until a change of nodes is complete.
const CHANGE_PATIENCE: Duration = Duration::from_secs(600);

/// A shell's connection to its cluster.
pub(super) struct Session<'a> {
    target: &'a Target,
    runtime: Runtime,
    client: Client,
}

impl<'a> Session<'a> {
    /// Finds the cluster.
    pub(super) fn connect(target: &'a Target) -> Result<Self> {
        let runtime = client::runtime()?;
        let client = runtime.block_on(client::connect(target))?;
        Ok(Self { target, runtime, client })
    }

    /// The cluster in one sentence.
    pub(super) fn greeting(&self) -> String {
        let Ok(info) = self.runtime.block_on(self.client.info()) else { return String::from("Connected.") };
        format!("A cluster of {} node(s) and {} group(s).", info.nodes.len(), info.groups)
    }

    /// Tells a line that is no command.
    pub(super) fn mistake(&self, problem: &str) -> Outcome {
        self.fail(&anyhow::anyhow!("{problem}"))
    }

    /// Does what is asked for and prints what came of it; `sure` asks a question before keys are lost.
    pub(super) fn run(&self, wish: Wish, sure: impl FnMut(&str) -> bool) -> Outcome {
        self.execute(wish, sure).unwrap_or_else(|error| self.fail(&error))
    }

    fn fail(&self, error: &anyhow::Error) -> Outcome {
        if self.target.json {
            println!("{}", json!({ "error": format!("{error:#}") }));
        } else {
            eprintln!("ringraft: {error:#}");
        }
        let unknown = error.downcast_ref::<ClientError>().is_some_and(ClientError::is_outcome_unknown);
        if unknown { OUTCOME_UNKNOWN } else { FAILURE }
    }

    fn execute(&self, wish: Wish, sure: impl FnMut(&str) -> bool) -> Result<Outcome> {
        match wish {
            Wish::Nothing | Wish::Exit => Ok(SUCCESS),
            Wish::Set { key, value } => {
                let answer = self.ask(Operation::Put { key: key.into_bytes(), value: value.into_bytes() })?;
                let OperationResult::Put { replaced } = answer.result else { return Err(answer.unexpected()) };
                self.print(|| answer.with_position(json!({ "replaced": replaced })), "OK");
                Ok(SUCCESS)
            }
            Wish::Get { key } => self.get(&key),
            Wish::Delete { key } => {
                let answer = self.ask(Operation::Delete { key: key.into_bytes() })?;
                let OperationResult::Deleted { existed } = answer.result else { return Err(answer.unexpected()) };
                let text = if existed { "OK" } else { "not found" };
                self.print(|| answer.with_position(json!({ "existed": existed })), text);
                Ok(if existed { SUCCESS } else { NOT_FOUND })
            }
            Wish::Clean { sure: said } => self.clean(said, sure),
            Wish::AddServer { node, address } => {
                let shards = self.target.topology()?.shards;
                let addresses = shard_addresses(std::slice::from_ref(&address), shards)?;
                self.change(&AdminRequest::AddNode { node, addresses, instance: 0 })
            }
            Wish::RemoveServer { node } => self.change(&AdminRequest::RemoveNode { node }),
            Wish::Status => {
                let addresses = self.target.all_addresses()?;
                status_command::print(&status::cluster(&addresses), self.target.json)
            }
            Wish::Help { command } => match line::help(command.as_deref()) {
                Ok(text) => {
                    print!("{text}");
                    Ok(SUCCESS)
                }
                Err(problem) => bail!(problem),
            },
        }
    }

    fn ask(&self, operation: Operation) -> Result<Answer> {
        let freshness = (Consistency::Linearizable, 0);
        self.runtime.block_on(client::request(&self.client, operation, freshness, self.target.timeout()))
    }

    /// The client, for whatever takes more than one request.
    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for it.
    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// One object, or a line of text.
    pub(super) fn print(&self, object: impl FnOnce() -> Value, text: &str) {
        if self.target.json {
            println!("{}", object());
        } else {
            println!("{text}");
        }
    }

    fn get(&self, key: &str) -> Result<Outcome> {
        let answer = self.ask(Operation::Get { key: key.as_bytes().to_vec() })?;
        let OperationResult::Value(value) = &answer.result else { return Err(answer.unexpected()) };
        let text = value.as_deref().map_or_else(|| "not found".into(), String::from_utf8_lossy);
        let object = || {
            let mut object = json!({ "key": key, "found": value.is_some() });
            put_bytes(&mut object, "value", value.as_deref());
            answer.with_position(object)
        };
        self.print(object, &text);
        Ok(if value.is_some() { SUCCESS } else { NOT_FOUND })
    }

    fn change(&self, request: &AdminRequest) -> Result<Outcome> {
        let endpoints = self.target.endpoints()?;
        if let Changed::Refused(reply) =
            admin::change_nodes(&endpoints, request, Instant::now() + self.target.timeout())?
        {
            return Ok(refused(&reply, self.target.json));
        }
        let deadline = Instant::now() + CHANGE_PATIENCE;
        let complete =
            admin::wait_for(&mut Watch::new(&endpoints), &Goal::of(request), deadline, |line| eprintln!("{line}"))?;
        ensure!(complete, "not complete after {} s; it goes on by itself", CHANGE_PATIENCE.as_secs());
        self.print(|| json!({ "complete": true }), "done");
        Ok(SUCCESS)
    }
}
