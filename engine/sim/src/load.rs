//! What the clients ask: reads and writes of hot and cold keys, one or several at once, every written value unique.
//!
//! Off the data path of a node.
//! Invariants: a value is written by one call of one client only, so that whoever reads it knows whose write it saw; the
//! keys of one call share a tag and so a group.
//! It does not look at answers, but to guess a value worth comparing with.

use std::collections::BTreeMap;

use ringraft_net::wire::{Consistency, Operation, OperationResult};

use crate::events::Event;
use crate::plan::{Load, Plan};
use crate::random::Random;
use crate::world::{Checked, World};

/// Keys that share a tag.
const KEYS_PER_TAG: u64 = 3;
/// Values remembered for comparing.
const KNOWN_MAX: usize = 64;
/// During overload a client asks so many times as often, and lets so many times as much be outstanding.
const OVERLOAD: u64 = 12;

/// The part of a client that thinks of requests.
pub(crate) struct Asking {
    random: Random,
    /// Draws the kinds of reads.
    kinds: Random,
    client: usize,
    written: u64,
    known: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Asking {
    pub(crate) fn new(plan: &Plan, client: usize) -> Self {
        let random = Random::stream(plan.seed, &format!("client {client}"));
        let kinds = Random::stream(plan.seed, &format!("kinds of reads of client {client}"));
        Self { random, kinds, client, written: 0, known: BTreeMap::new() }
    }

    fn key(&mut self, load: &Load) -> Vec<u8> {
        let tag = self.tag(load);
        self.key_of(tag)
    }

    fn tag(&mut self, load: &Load) -> u64 {
        if self.random.chance(load.hot_per_million) {
            self.random.below(load.hot_tags)
        } else {
            load.hot_tags + self.random.below(load.cold_tags)
        }
    }

    fn key_of(&mut self, tag: u64) -> Vec<u8> {
        key(tag, self.random.below(KEYS_PER_TAG))
    }

    fn value(&mut self, load: &Load) -> Vec<u8> {
        self.written += 1;
        let mut value = format!("{}.{}.", self.client, self.written).into_bytes();
        let length = self.random.magnitude(8, load.value_bytes_max.max(8)) as usize;
        if value.len() < length {
            value.resize(length, b'_');
        }
        value
    }

    fn put(&mut self, load: &Load, key: Vec<u8>) -> Operation {
        Operation::Put { key, value: self.value(load) }
    }

    fn compare_and_set(&mut self, load: &Load, key: Vec<u8>) -> Operation {
        let expected = self.known.get(&key).cloned().flatten();
        Operation::CompareAndSet { key, expected, value: self.value(load) }
    }

    /// How fresh the next request must be, with the bound of a stale read in milliseconds.
    fn freshness(&mut self, load: &Load, stale: bool) -> (Consistency, u32) {
        const FRESH: [Consistency; 3] = [Consistency::Linearizable, Consistency::Lease, Consistency::Follower];
        if stale {
            return (Consistency::Stale, *self.kinds.pick(&load.bounds_ms));
        }
        (FRESH[self.kinds.weighted(&load.reads).unwrap_or(0)], 0)
    }

    /// The next request.
    fn next(&mut self, load: &Load) -> (Vec<Operation>, (Consistency, u32)) {
        let what = self.random.weighted(&load.mix).unwrap_or(0);
        let freshness = self.freshness(load, what == 1);
        let operations = match what {
            0 | 1 => vec![Operation::Get { key: self.key(load) }],
            2 => {
                let key = self.key(load);
                vec![self.put(load, key)]
            }
            3 => vec![Operation::Delete { key: self.key(load) }],
            4 => {
                let key = self.key(load);
                vec![self.compare_and_set(load, key)]
            }
            5 => self.several(load),
            _ => {
                let tag = self.tag(load);
                (0..KEYS_PER_TAG).map(|number| Operation::Get { key: key(tag, number) }).collect()
            }
        };
        (operations, freshness)
    }

    /// Several operations of one tag, all or nothing.
    fn several(&mut self, load: &Load) -> Vec<Operation> {
        let tag = self.tag(load);
        let count = self.random.between(2, 4);
        let mut operations = Vec::new();
        for _ in 0..count {
            let key = self.key_of(tag);
            operations.push(match self.random.below(5) {
                0 => Operation::Get { key },
                1 => Operation::Delete { key },
                2 => self.compare_and_set(load, key),
                _ => self.put(load, key),
            });
        }
        operations
    }

    /// Remembers what was seen, to compare with it later.
    pub(crate) fn learn(&mut self, operations: &[Operation], results: &[OperationResult]) {
        for pair in operations.iter().zip(results) {
            let (key, value) = match pair {
                (Operation::Get { key }, OperationResult::Value(value)) => (key, value.clone()),
                (Operation::Put { key, value }, OperationResult::Put { .. }) => (key, Some(value.clone())),
                (Operation::CompareAndSet { key, value, .. }, OperationResult::Compared { swapped: true, .. }) => {
                    (key, Some(value.clone()))
                }
                (Operation::CompareAndSet { key, .. }, OperationResult::Compared { current, .. }) => {
                    (key, current.clone())
                }
                (Operation::Delete { key }, OperationResult::Deleted { .. }) => (key, None),
                _ => continue,
            };
            if self.known.len() >= KNOWN_MAX && !self.known.contains_key(key) {
                self.known.pop_first();
            }
            self.known.insert(key.clone(), value);
        }
    }
}

/// A key: what stands in braces decides its group.
fn key(tag: u64, number: u64) -> Vec<u8> {
    format!("{{t{tag}}}k{number}").into_bytes()
}

/// Every key the load may touch.
pub(crate) fn all_keys(load: &Load) -> impl Iterator<Item = (u64, Vec<Vec<u8>>)> {
    let tags = load.hot_tags + load.cold_tags;
    (0..tags).map(|tag| (tag, (0..KEYS_PER_TAG).map(|number| key(tag, number)).collect()))
}

impl World {
    /// A client thinks of something to ask, and of when it will again.
    pub(crate) fn client_ask(&mut self, client: usize, generation: u32) -> Checked {
        if self.clients[client].generation != generation || !self.asking {
            return Ok(());
        }
        let factor = if self.weather.overload { OVERLOAD } else { 1 };
        let load = &self.plan.load;
        let pause_us = 1 + self.clients[client].asking.random.waiting_us(load.pause_us / factor);
        let outstanding_max = load.outstanding_max * factor as usize;
        self.events.after(pause_us, Event::ClientAsk { client, generation });
        if self.clients[client].open.len() >= outstanding_max {
            return Ok(());
        }
        let (operations, freshness) = self.clients[client].asking.next(load);
        self.submit(client, operations, freshness, None)
    }
}
