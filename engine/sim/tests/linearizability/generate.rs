//! Histories of a real sequential execution with random overlaps, and random damage to them.
//!
//! Off the data path.

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};
use ringraft_net::wire::{Consistency, Operation, OperationResult, Position};
use ringraft_sim::history::{Call, CallOutcome, Ended, History};

use crate::script::{State, execute};

/// What to generate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) calls: usize,
    pub(crate) keys: u32,
    /// Different values; 0: every write writes another one.
    pub(crate) values: u32,
    /// Calls that overlap, about.
    pub(crate) overlap: u64,
    /// Shares of all calls, in percent.
    pub(crate) unknown_percent: u32,
    pub(crate) several_percent: u32,
    pub(crate) stale_percent: u32,
}

/// Time between two calls taking effect.
const STEP: u64 = 10;

struct World {
    random: SmallRng,
    shape: Shape,
    state: State,
    /// The states behind the latest entries, with their indexes.
    past: Vec<(u64, State)>,
    index: u64,
    position: u32,
    written: u32,
    /// Unknown writes that take effect later.
    later: Vec<Vec<Operation>>,
    calls: Vec<Call>,
}

/// A history that is linearizable in the order of its positions.
pub(crate) fn history(seed: u64, shape: Shape) -> History {
    let mut world = World {
        random: SmallRng::seed_from_u64(seed),
        shape,
        state: State::new(),
        past: vec![(0, State::new())],
        index: 1,
        position: 0,
        written: 0,
        later: Vec::new(),
        calls: Vec::new(),
    };
    for step in 1..=shape.calls as u64 {
        world.step(1_000 + step * STEP);
    }
    History { calls: world.calls }
}

impl World {
    fn percent(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn step(&mut self, now: u64) {
        if !self.later.is_empty() && self.percent(30) {
            let late = self.later.remove(0);
            self.take_effect(&late);
        }
        let overlap = self.shape.overlap * STEP;
        let invoked = now - self.random.random_range(0..=overlap.min(now - 1));
        let returned = now + self.random.random_range(0..=overlap);
        if self.percent(45) { self.reading(invoked, returned) } else { self.writing(invoked, returned) }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("k{}", self.random.random_range(0..self.shape.keys)).into_bytes()
    }

    fn value(&mut self) -> Vec<u8> {
        self.written += 1;
        match self.shape.values {
            0 => format!("v{}", self.written).into_bytes(),
            values => format!("v{}", self.random.random_range(0..values)).into_bytes(),
        }
    }

    fn count(&mut self) -> usize {
        if self.percent(self.shape.several_percent) { self.random.random_range(2..=3) } else { 1 }
    }

    fn reading(&mut self, invoked: u64, returned: u64) {
        self.close_entry();
        let operations: Vec<_> = (0..self.count()).map(|_| Operation::Get { key: self.key() }).collect();
        let stale = self.percent(self.shape.stale_percent);
        let (index, results) = if stale {
            let from = self.random.random_range(0..self.past.len());
            (self.past[from].0, execute(&mut self.past[from].1, &operations))
        } else {
            (self.index - 1, execute(&mut self.state, &operations))
        };
        let outcome = CallOutcome::Done { position: Position { group: 0, index, position: u32::MAX }, results };
        let consistency = if stale { Consistency::Stale } else { Consistency::Linearizable };
        self.push(invoked, operations, consistency, Some(Ended { returned, outcome }));
    }

    fn writing(&mut self, invoked: u64, returned: u64) {
        let operations: Vec<_> = (0..self.count()).map(|_| self.change()).collect();
        let ended = if self.percent(self.shape.unknown_percent) {
            match self.random.random_range(0..3) {
                0 => drop(self.take_effect(&operations)),
                1 => self.later.push(operations.clone()),
                _ => {}
            }
            let outcome = CallOutcome::Unknown;
            self.percent(50).then_some(Ended { returned, outcome })
        } else if self.percent(3) {
            Some(Ended { returned, outcome: CallOutcome::Failed })
        } else {
            let (position, results) = self.take_effect(&operations);
            Some(Ended { returned, outcome: CallOutcome::Done { position, results } })
        };
        self.push(invoked, operations, Consistency::Linearizable, ended);
    }

    fn change(&mut self) -> Operation {
        let key = self.key();
        match self.random.random_range(0..10) {
            0..5 => Operation::Put { key, value: self.value() },
            5..7 => Operation::Delete { key },
            _ => {
                let current = self.state.get(&key).cloned();
                let expected = if self.percent(70) { current } else { Some(self.value()) };
                Operation::CompareAndSet { key, expected, value: self.value() }
            }
        }
    }

    fn take_effect(&mut self, operations: &[Operation]) -> (Position, Vec<OperationResult>) {
        if self.percent(50) {
            self.close_entry();
        }
        let results = execute(&mut self.state, operations);
        self.position += 1;
        (Position { group: 0, index: self.index, position: self.position - 1 }, results)
    }

    fn close_entry(&mut self) {
        if self.position > 0 {
            if self.shape.stale_percent > 0 {
                self.past.push((self.index, self.state.clone()));
                if self.past.len() > 4 {
                    self.past.remove(0);
                }
            }
            (self.index, self.position) = (self.index + 1, 0);
        }
    }

    fn push(&mut self, invoked: u64, operations: Vec<Operation>, consistency: Consistency, ended: Option<Ended>) {
        let client = self.random.random_range(0..5);
        self.calls.push(Call { client, invoked, operations, consistency, ended });
    }
}

/// Changes one thing of a history: a result, a place, a time, or how a call ended.
pub(crate) fn damage(seed: u64, history: &mut History) {
    let mut random = SmallRng::seed_from_u64(seed);
    let values: Vec<Vec<u8>> =
        history.calls.iter().flat_map(|call| call.operations.iter().filter_map(value_of)).collect();
    let (first, second) = (random.random_range(0..history.calls.len()), random.random_range(0..history.calls.len()));
    match random.random_range(0..5) {
        0..2 => damage_result(&mut random, &values, &mut history.calls[first]),
        2 => {
            let place = place_of(&history.calls[first]);
            let other = place_of(&history.calls[second]);
            set_place(&mut history.calls[first], other);
            set_place(&mut history.calls[second], place);
        }
        3 => {
            let call = &mut history.calls[first];
            let length = random.random_range(0..STEP * 4);
            call.invoked = random.random_range(1_000..1_000 + STEP * 8);
            if let Some(ended) = &mut call.ended {
                ended.returned = call.invoked + length;
            }
        }
        _ => {
            let call = &mut history.calls[first];
            call.ended = match &call.ended {
                Some(ended) if random.random() => {
                    Some(Ended { returned: ended.returned, outcome: CallOutcome::Failed })
                }
                _ => None,
            };
        }
    }
}

fn value_of(operation: &Operation) -> Option<Vec<u8>> {
    match operation {
        Operation::Put { value, .. } | Operation::CompareAndSet { value, .. } => Some(value.clone()),
        _ => None,
    }
}

fn damage_result(random: &mut SmallRng, values: &[Vec<u8>], call: &mut Call) {
    let Some(Ended { outcome: CallOutcome::Done { results, .. }, .. }) = &mut call.ended else { return };
    let at = random.random_range(0..results.len());
    match &mut results[at] {
        OperationResult::Put { replaced } => *replaced = !*replaced,
        OperationResult::Deleted { existed } => *existed = !*existed,
        OperationResult::Value(value) | OperationResult::Compared { current: value, .. } => {
            *value = if random.random() { values.choose(random).cloned() } else { None };
        }
        OperationResult::ComparedVersion { swapped, .. } => *swapped = !*swapped,
        OperationResult::Items { more, .. } => *more = !*more,
        OperationResult::Session { .. } | OperationResult::NotApplied => {}
    }
}

fn place_of(call: &Call) -> Option<Position> {
    match &call.ended {
        Some(Ended { outcome: CallOutcome::Done { position, .. }, .. }) => Some(*position),
        _ => None,
    }
}

/// A read keeps the position of reads, a write that of writes: only the index moves between the two kinds.
fn set_place(call: &mut Call, place: Option<Position>) {
    let (Some(place), Some(Ended { outcome: CallOutcome::Done { position, .. }, .. })) = (place, &mut call.ended)
    else {
        return;
    };
    position.index = place.index;
    if (position.position == u32::MAX) == (place.position == u32::MAX) {
        position.position = place.position;
    }
}
