//! Interaction scripts: `scripts/*.txt` hold commands and everything that came of them.
//!
//! Off the data path; tests only.
//!
//! ```text
//!   # a comment
//!   > campaign 1
//!   n1 is pre-candidate in term 0, led by nobody
//! ```
//!
//! `REWRITE=1 cargo test -p ringraft-raft --test scripts` writes what happens now in place of what was expected; the diff is
//! then the review. Commands are those of `Script::perform`.
//!
//! Deliberately absent: conditions and loops; a script is one story.

mod common;

use common::{Cluster, small_config};
use ringraft_raft::{Membership, NodeId};
use std::{fmt::Write, fs, path::Path};

struct Script {
    cluster: Cluster,
    /// Envelopes put aside by `hold`.
    held: Vec<common::Envelope>,
}

impl Script {
    fn new() -> Self {
        Self { cluster: Cluster::new(1, 1), held: Vec::new() }
    }

    /// Runs one command and returns what it printed.
    fn perform(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (command, words) = words.split_first().expect("a command");
        let numbers: Vec<u64> = words.iter().filter_map(|word| word.parse().ok()).collect();
        let mut printed = match *command {
            "cluster" => {
                self.found(numbers[0], words);
                String::new()
            }
            "elect" => self.elect(numbers[0]),
            "status" => self.status(),
            "log" => self.log(numbers[0]),
            "network" => self.network(),
            "drop" | "hold" | "release" | "deliver" | "duplicate" | "cut" | "heal" => {
                self.network_command(command, &numbers)
            }
            _ => self.node_command(command, &numbers),
        };
        for line in self.cluster.trace.drain(..) {
            writeln!(printed, "{line}").expect("a string");
        }
        if printed.is_empty() { "ok\n".into() } else { printed }
    }

    /// `elect NODE`: everyone else has waited for the shortest timeout, what is on the way is lost, the node campaigns and
    /// all settles. Prints who became what in the end.
    fn elect(&mut self, node: u64) -> String {
        for id in self.cluster.membership.members() {
            let leads = self.cluster.nodes[&id].core.as_ref().is_some_and(|core| core.leader() == Some(id));
            let ticks = if leads { 0 } else { 10 };
            (0..ticks).for_each(|_| self.cluster.tick(id));
        }
        self.cluster.network.clear();
        self.cluster.campaign(node);
        self.cluster.settle();
        self.cluster.trace.retain(|line| line.contains("is leader"));
        String::new()
    }

    /// `cluster N [learners=N] [append_bytes_max=N] [inflight_bytes_max=N] [uncommitted_bytes_max=N]`
    fn found(&mut self, count: u64, words: &[&str]) {
        let option = |name: &str| {
            let word = words.iter().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.map(|number| number.parse::<u64>().expect("a number"))
        };
        let ids = |from: u64, to: u64| (from..=to).map(NodeId).collect::<Vec<_>>();
        let learners = ids(count + 1, count + option("learners").unwrap_or(0));
        self.cluster = Cluster::with(&Membership::with(ids(1, count), Vec::new(), learners), |id| {
            let mut config = small_config(id, 1);
            config.append_bytes_max = option("append_bytes_max").map_or(config.append_bytes_max, |bytes| bytes as u32);
            config.inflight_bytes_max = option("inflight_bytes_max").unwrap_or(config.inflight_bytes_max);
            config.uncommitted_bytes_max = option("uncommitted_bytes_max").unwrap_or(config.uncommitted_bytes_max);
            config
        });
        self.held.clear();
    }

    /// `deliver [FROM TO]`, `drop [FROM TO]`, `hold [FROM TO]`, `release`, `duplicate [FROM TO]`, `cut A B`, `heal`
    fn network_command(&mut self, command: &str, numbers: &[u64]) -> String {
        let link = (numbers.len() == 2).then(|| (NodeId(numbers[0]), NodeId(numbers[1])));
        let matches = |envelope: &common::Envelope| link.is_none_or(|link| (envelope.from, envelope.to) == link);
        let mut printed = String::new();
        match command {
            "deliver" if link.is_none() => self.cluster.deliver(),
            "deliver" => {
                let envelopes = self.cluster.take(matches);
                envelopes.into_iter().for_each(|envelope| self.cluster.hand_over(envelope));
            }
            "drop" => {
                for envelope in self.cluster.take(matches) {
                    writeln!(printed, "lost {} -> {}: {}", envelope.from, envelope.to, envelope.message)
                        .expect("a string");
                }
            }
            "hold" => self.held.extend(self.cluster.take(matches)),
            "release" => self.cluster.network.append(&mut self.held),
            "duplicate" => {
                let copies: Vec<_> = self.cluster.network.iter().filter(|one| matches(one)).cloned().collect();
                self.cluster.network.extend(copies);
            }
            "cut" => {
                let (one, other) = link.expect("two nodes");
                self.cluster.cut.extend([(one, other), (other, one)]);
            }
            _ => self.cluster.cut.clear(),
        }
        printed
    }

    /// `tick NODE [COUNT]`, `tick-all [COUNT]`, `campaign NODE`, `propose NODE BYTES [COUNT]`, `read NODE`, `ready NODE`,
    /// `flush [NODE [RECORDS]]`, `settle`, `step-down NODE`, `unreachable NODE PEER`, `crash NODE [KEEP]`, `start NODE`
    fn node_command(&mut self, command: &str, numbers: &[u64]) -> String {
        let node = numbers.first().copied().unwrap_or(0);
        let second = numbers.get(1).copied();
        let cluster = &mut self.cluster;
        let mut printed = String::new();
        match command {
            "tick" => (0..second.unwrap_or(1)).for_each(|_| cluster.tick(NodeId(node))),
            "tick-all" => (0..node.max(1)).for_each(|_| cluster.tick_all()),
            "campaign" => cluster.campaign(node),
            "propose" => {
                for _ in 0..numbers.get(2).copied().unwrap_or(1) {
                    match cluster.propose(node, second.expect("bytes") as u32) {
                        Ok(id) => cluster.trace.push(format!("n{node} proposed {id}")),
                        Err(error) => writeln!(printed, "refused: {error}").expect("a string"),
                    }
                }
            }
            "read" => match cluster.read(node) {
                Ok(context) => writeln!(printed, "context {}.{}", context.term, context.sequence).expect("a string"),
                Err(error) => writeln!(printed, "refused: {error}").expect("a string"),
            },
            "ready" => cluster.run(NodeId(node)),
            "flush" if node == 0 => {
                for id in cluster.membership.members() {
                    cluster.flush(id, usize::MAX);
                }
            }
            "flush" => cluster.flush(NodeId(node), second.map_or(usize::MAX, |records| records as usize)),
            "settle" => cluster.settle(),
            "step-down" => {
                cluster.core(node).step_down();
                cluster.run(NodeId(node));
            }
            "unreachable" => {
                cluster.core(node).unreachable(NodeId(second.expect("a peer")));
                cluster.run(NodeId(node));
            }
            "crash" => cluster.crash(NodeId(node), second.unwrap_or(0) as usize),
            "start" => cluster.start(NodeId(node)),
            _ => panic!("no such command: {command}"),
        }
        printed
    }

    fn status(&mut self) -> String {
        let mut printed = String::new();
        for node in self.cluster.nodes.values() {
            let Some(core) = &node.core else {
                writeln!(printed, "{} down", node.id).expect("a string");
                continue;
            };
            let leader = core.leader().map_or_else(|| "-".into(), |leader| leader.to_string());
            let [role, last] = [core.role().to_string(), core.last().to_string()];
            let (term, durable, commit) = (core.term(), core.durable_index(), core.commit_index());
            write!(printed, "{} {role} term={term} leader={leader} last={last} ", node.id).expect("a string");
            writeln!(printed, "durable={durable} commit={commit}").expect("a string");
            for (peer, match_index, next_index, state) in core.progress() {
                writeln!(printed, "  {peer} {state:?} match={match_index} next={next_index}").expect("a string");
            }
        }
        printed
    }

    fn log(&mut self, node: u64) -> String {
        let ids: Vec<_> = self.cluster.node(node).entries.iter().map(|entry| entry.id.to_string()).collect();
        ids.join(" ") + "\n"
    }

    fn network(&mut self) -> String {
        let mut printed = String::new();
        for envelope in &self.cluster.network {
            writeln!(printed, "on the way {} -> {}: {}", envelope.from, envelope.to, envelope.message)
                .expect("a string");
        }
        printed
    }
}

/// Runs a script and returns it with what happened in place of what was expected.
fn replay(text: &str) -> String {
    let mut script = Script::new();
    let mut replayed = String::new();
    for line in text.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(replayed, "{line}").expect("a string");
            replayed += &script.perform(command);
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(replayed, "{line}").expect("a string");
        }
    }
    replayed
}

#[test]
fn scripts_tell_the_same_story() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let expected = fs::read_to_string(&path).unwrap();
        let happened = replay(&expected);
        if std::env::var_os("REWRITE").is_some() {
            fs::write(&path, happened).unwrap();
            continue;
        }
        for (number, (expected, happened)) in expected.lines().zip(happened.lines()).enumerate() {
            assert_eq!(expected, happened, "{}:{}", path.display(), number + 1);
        }
        assert_eq!(expected.len(), happened.len(), "{}", path.display());
    }
}
