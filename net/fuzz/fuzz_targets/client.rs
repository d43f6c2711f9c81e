//! A client among servers that send anything: every submission ends at most once, and all end by their deadline.
//!
//! Off the data path.
#![no_main]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use ringraft_net::client::{Action, ConnectionId, Core, Options, Submission};
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::wire::{NodeInfo, OperationRef, OperationResult, Outcome, Position, Reply, Topology, Welcome};

const STEPS_MAX: usize = 300;

struct World {
    core: Core,
    now_us: u64,
    open: Vec<ConnectionId>,
    next_tag: u64,
    waiting: BTreeSet<u64>,
}

impl World {
    fn settle(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        while let Some(action) = self.core.poll_action() {
            match action {
                Action::Connect { connection, .. } if input.ratio(3, 4)? => {
                    self.open.push(connection);
                    self.core.connected(connection, self.now_us);
                }
                Action::Connect { connection, .. } => self.core.disconnected(connection, self.now_us),
                Action::Close { connection } => self.open.retain(|open| *open != connection),
            }
        }
        while let Some(id) = self.core.next_writable() {
            if let Some(outgoing) = self.core.outgoing(id) {
                let bytes = outgoing.pending().len();
                outgoing.sent(bytes);
            }
        }
        while let Some(completion) = self.core.next_completion() {
            assert!(self.waiting.remove(&completion.tag), "a submission ended twice");
        }
        Ok(())
    }

    fn submit(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let key: [u8; 2] = input.arbitrary()?;
        let value: Vec<u8> = input.arbitrary()?;
        let put = OperationRef::Put { key: &key, value: &value };
        let get = OperationRef::Get { key: &key };
        let range = OperationRef::Range {
            group: input.int_in_range(0..=3)?,
            start: &key,
            end: &[],
            limit: 5,
            keys_only: false,
        };
        let operations: &[OperationRef<'_>] = match input.int_in_range(0..=2)? {
            0 => &[put],
            1 => &[get],
            _ => &[range],
        };
        self.next_tag += 1;
        if self.core.submit(&Submission::new(self.next_tag, operations), self.now_us).is_ok() {
            self.waiting.insert(self.next_tag);
        }
        Ok(())
    }

    fn receive(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        if self.open.is_empty() {
            return Ok(());
        }
        let id = self.open[input.choose_index(self.open.len())?];
        let mut bytes = Vec::new();
        match input.int_in_range(0..=4)? {
            0 => welcome(input)?.append_frame(&mut bytes).to_owned(),
            1 | 2 => {
                let correlation = input.int_in_range(0..=8)?;
                reply(input)?.append_frame(&mut bytes, correlation)
            }
            3 => {
                let kind = *input.choose(&FrameKind::ALL)?;
                let body: Vec<u8> = input.arbitrary()?;
                let mut writer = frame::begin(&mut bytes, kind, input.int_in_range(0..=8)?);
                writer.bytes().extend_from_slice(&body);
                writer.finish()
            }
            _ => {
                bytes = input.arbitrary()?;
                bytes.len()
            }
        };
        self.core.receive(id, &bytes, self.now_us);
        Ok(())
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        match input.int_in_range(0..=5)? {
            0 | 1 => self.submit(input)?,
            2 | 3 => self.receive(input)?,
            4 => {
                self.now_us += u64::from(input.arbitrary::<u16>()?) * 16;
                self.core.tick(self.now_us);
            }
            _ => {
                if let Some(id) = self.open.pop() {
                    self.core.disconnected(id, self.now_us);
                }
            }
        }
        self.settle(input)
    }
}

fn welcome(input: &mut Unstructured<'_>) -> Result<Welcome> {
    let address = |node: u64| format!("127.0.0.{node}:7000");
    let mut nodes = Vec::new();
    for node in 1..=input.int_in_range(0..=3_u64)? {
        let odd: bool = input.ratio(1, 8)?;
        nodes.push(NodeInfo { node, addresses: if odd { vec![] } else { vec![address(node)] } });
    }
    let groups = input.int_in_range(0..=3)?;
    let leaders = (0..input.int_in_range(0..=3)?).map(|_| Some(2)).collect();
    let (shards, epoch) = (input.int_in_range(0..=2)?, input.int_in_range(0..=3)?);
    let topology = Topology { epoch, groups, shards, nodes, leaders };
    Ok(Welcome { cluster: [1; 16], node: input.int_in_range(0..=3)?, shard: input.int_in_range(0..=1)?, topology })
}

fn reply(input: &mut Unstructured<'_>) -> Result<Reply> {
    let outcome = match input.int_in_range(0..=9)? {
        0 => Outcome::Done(vec![OperationResult::Session { client: input.arbitrary()? }]),
        1 => Outcome::Done(vec![OperationResult::Put { replaced: true }]),
        2 => Outcome::Done(vec![OperationResult::Value(input.arbitrary()?)]),
        3 if input.arbitrary()? => {
            Outcome::Done(vec![OperationResult::Items { items: input.arbitrary()?, more: input.arbitrary()? }])
        }
        3 => Outcome::Done(vec![]),
        4 => Outcome::Moved {
            group: input.arbitrary()?,
            node: 2,
            shard: input.arbitrary()?,
            address: input.arbitrary()?,
        },
        5 => Outcome::NotLeader { group: input.int_in_range(0..=4)?, leader: input.arbitrary()? },
        6 => Outcome::Overloaded { retry_after_us: input.arbitrary()? },
        7 => Outcome::SessionExpired,
        8 => Outcome::OutcomeUnknown,
        _ => Outcome::TooStale,
    };
    Ok(Reply { position: Position { group: 0, index: input.arbitrary()?, position: 0 }, outcome, term: 0 })
}

fuzz_target!(|data: &[u8]| {
    let endpoints = vec![SocketAddr::from(([127, 0, 0, 1], 7000)), SocketAddr::from(([127, 0, 0, 2], 7000))];
    let options = Options { endpoints, sessions: data.len() % 2 == 0, ..Options::default() };
    let mut core = Core::new(options).expect("options");
    core.start(1_000);
    let mut world = World { core, now_us: 1_000, open: Vec::new(), next_tag: 0, waiting: BTreeSet::new() };
    let mut input = Unstructured::new(data);
    for _ in 0..STEPS_MAX {
        if input.is_empty() || world.step(&mut input).is_err() {
            break;
        }
    }
    world.now_us += 60_000_000;
    world.core.tick(world.now_us);
    let _ = world.settle(&mut Unstructured::new(&[]));
    assert!(world.waiting.is_empty(), "submissions outlive their deadlines: {:?}", world.waiting);
});
