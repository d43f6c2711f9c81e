//! The calls of a history sorted by what is known of them, and the keys that belong together.
//!
//! Off the data path.
//! Invariant: keys of one component are joined by requests of several operations; no request spans two components, so each
//! can be checked alone (linearizability is local: Herlihy and Wing 1990, theorem 1).

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use ringraft_net::wire::{Consistency, Operation, OperationResult, Position};

use super::violation::{Rule, Violation};
use crate::history::{Call, CallOutcome, Ended, History};

/// A call that was answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Its place in the history.
    pub(super) number: usize,
    pub(super) call: &'a Call,
    pub(super) returned: u64,
    pub(super) position: Position,
    pub(super) results: &'a [OperationResult],
    pub(super) reads_only: bool,
    /// It asked for whatever a replica has: it may lie in the past.
    pub(super) stale: bool,
}

/// A call that writes and may have taken effect, at any time after its invocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unknown<'a> {
    pub(super) call: &'a Call,
    /// It stands behind this place of its group's log, or at it: what stood there had been answered before it began.
    pub(super) behind: Place,
}

/// A place in the log of one group: index, position in the entry.
pub(super) type Place = (u64, u32);

/// What a history holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Calls<'a> {
    pub(super) known: Vec<Known<'a>>,
    pub(super) unknown: Vec<Unknown<'a>>,
}

/// The key of an operation, if it has one.
pub(super) fn key_of(operation: &Operation) -> Option<&[u8]> {
    operation.as_operation_ref().key()
}

/// Only gets: the call never enters the log.
fn reads_only(call: &Call) -> bool {
    call.operations.iter().all(|operation| matches!(operation, Operation::Get { .. }))
}

impl<'a> Calls<'a> {
    /// Sorts the calls; those without effect that matters (failed, unknown reads, unknown sessions) are left out.
    ///
    /// # Errors
    /// Results that do not fit their operations, a session given twice, a key in two groups.
    pub(super) fn of(history: &'a History) -> Result<Self, Violation> {
        let mut calls = Self { known: Vec::with_capacity(history.calls.len()), unknown: Vec::new() };
        for (number, call) in history.calls.iter().enumerate() {
            match &call.ended {
                Some(Ended { outcome: CallOutcome::Failed, .. }) => {}
                Some(Ended { returned, outcome: CallOutcome::Done { position, results } }) => {
                    let (reads_only, returned) = (reads_only(call), *returned);
                    let stale = reads_only && call.consistency == Consistency::Stale;
                    let known = Known { number, call, returned, position: *position, results, reads_only, stale };
                    check_form(&known)?;
                    calls.known.push(known);
                }
                Some(Ended { outcome: CallOutcome::Unknown, .. }) | None => {
                    if !reads_only(call) && call.operations.iter().any(|operation| key_of(operation).is_some()) {
                        calls.unknown.push(Unknown { call, behind: (0, 0) });
                    }
                }
            }
        }
        check_sessions(&calls.known)?;
        check_groups(&calls.known)?;
        Ok(calls)
    }

    /// Notes for each unknown call the highest place of `group` that was answered before it began.
    pub(super) fn note_places(&mut self, answered: &Answered) {
        let Some(group) = self.known.first().map(|known| known.position.group) else { return };
        for unknown in &mut self.unknown {
            unknown.behind = answered.highest_before(group, unknown.call.invoked);
        }
    }

    /// The calls, component of keys by component, in the order of the history; sessions are in none.
    pub(super) fn components(&self) -> Vec<Calls<'a>> {
        let mut joined = Joined::default();
        for call in self.known.iter().map(|known| known.call).chain(self.unknown.iter().map(|unknown| unknown.call)) {
            joined.join(call);
        }
        let mut places: HashMap<usize, usize, FixedState> = HashMap::default();
        let mut components: Vec<Calls<'a>> = Vec::new();
        let mut component_of = |call: &'a Call, components: &mut Vec<Calls<'a>>| {
            let root = joined.root_of(call)?;
            let next = components.len();
            let place = *places.entry(root).or_insert(next);
            if place == next {
                components.push(Calls::default());
            }
            Some(place)
        };
        for known in &self.known {
            if let Some(place) = component_of(known.call, &mut components) {
                components[place].known.push(*known);
            }
        }
        for unknown in &self.unknown {
            if let Some(place) = component_of(unknown.call, &mut components) {
                components[place].unknown.push(*unknown);
            }
        }
        components
    }

    /// The same calls without the unknown ones none of whose values was seen by an answered call.
    pub(super) fn with_observed_only(&self) -> Self {
        let mut seen: HashSet<(&[u8], &[u8]), FixedState> = HashSet::default();
        for known in &self.known {
            seen.extend(known.call.operations.iter().zip(known.results).filter_map(observation));
        }
        let mut calls = self.clone();
        calls.unknown.retain(|unknown| {
            unknown.call.operations.iter().filter_map(written).any(|(key, value)| seen.contains(&(key, value)))
        });
        calls
    }
}

/// The key and the value that an operation saw.
pub(super) fn observation<'a>(
    (operation, result): (&'a Operation, &'a OperationResult),
) -> Option<(&'a [u8], &'a [u8])> {
    match (operation, result) {
        (Operation::Get { key }, OperationResult::Value(Some(value))) => Some((key, value)),
        (Operation::CompareAndSet { key, .. }, OperationResult::Compared { swapped: false, current: Some(value) })
        | (
            Operation::CompareAndSet { key, expected: Some(value), .. },
            OperationResult::Compared { swapped: true, .. },
        ) => Some((key, value)),
        _ => None,
    }
}

/// The key and the value that an operation would write.
pub(super) fn written(operation: &Operation) -> Option<(&[u8], &[u8])> {
    match operation {
        Operation::Put { key, value } | Operation::CompareAndSet { key, value, .. } => Some((key, value)),
        _ => None,
    }
}

/// The operation changed its key.
pub(super) fn is_write(result: &OperationResult) -> bool {
    match result {
        OperationResult::Put { .. } => true,
        OperationResult::Deleted { existed } => *existed,
        OperationResult::Compared { swapped, .. } => *swapped,
        _ => false,
    }
}

fn check_form(known: &Known<'_>) -> Result<(), Violation> {
    let fits = |(operation, result): (&Operation, &OperationResult)| {
        matches!(
            (operation, result),
            (Operation::Put { .. }, OperationResult::Put { .. })
                | (Operation::Get { .. }, OperationResult::Value(_))
                | (Operation::Delete { .. }, OperationResult::Deleted { .. })
                | (Operation::CompareAndSet { .. }, OperationResult::Compared { .. })
                | (Operation::OpenSession { .. }, OperationResult::Session { .. })
                | (_, OperationResult::NotApplied)
        )
    };
    let (operations, results) = (&known.call.operations, known.results);
    if operations.is_empty() || operations.len() != results.len() || !operations.iter().zip(results).all(fits) {
        let reason = "the results do not belong to the operations";
        return Err(Violation::of(Rule::Malformed, reason, [(known.number, known.call)]));
    }
    if known.call.invoked > known.returned {
        return Err(Violation::of(Rule::Malformed, "it returned before it began", [(known.number, known.call)]));
    }
    Ok(())
}

/// A session id is given out once in a group, and is not 0.
fn check_sessions(known: &[Known<'_>]) -> Result<(), Violation> {
    let mut given: HashMap<(u32, u64), usize, FixedState> = HashMap::default();
    for (place, known_call) in known.iter().enumerate() {
        let [OperationResult::Session { client }] = known_call.results else { continue };
        let this = (known_call.number, known_call.call);
        if *client == 0 {
            return Err(Violation::of(Rule::Malformed, "session 0 means no session", [this]));
        }
        if let Some(earlier) = given.insert((known_call.position.group, *client), place) {
            let other = (known[earlier].number, known[earlier].call);
            return Err(Violation::of(Rule::SessionTwice, "two calls opened the same session", [other, this]));
        }
    }
    Ok(())
}

/// A key lives in one group.
fn check_groups(known: &[Known<'_>]) -> Result<(), Violation> {
    let Some(first) = known.first() else { return Ok(()) };
    if known.iter().all(|known| known.position.group == first.position.group) {
        return Ok(());
    }
    let mut groups: HashMap<&[u8], usize, FixedState> = HashMap::default();
    for (place, known_call) in known.iter().enumerate() {
        for key in known_call.call.operations.iter().filter_map(key_of) {
            let earlier = &known[*groups.entry(key).or_insert(place)];
            if earlier.position.group != known_call.position.group {
                let calls = [(earlier.number, earlier.call), (known_call.number, known_call.call)];
                return Err(Violation::of(Rule::TwoGroups, "one key was answered by two groups", calls));
            }
        }
    }
    Ok(())
}

/// The highest place answered in each group by any time.
#[derive(Debug, Default)]
pub(super) struct Answered {
    groups: HashMap<u32, Vec<(u64, Place)>, FixedState>,
}

impl Answered {
    pub(super) fn of(calls: &Calls<'_>) -> Self {
        let mut answered = Self::default();
        for known in &calls.known {
            let place = (known.position.index, known.position.position);
            answered.groups.entry(known.position.group).or_default().push((known.returned, place));
        }
        for places in answered.groups.values_mut() {
            places.sort_unstable();
            let mut highest = (0, 0);
            for (_, place) in places {
                highest = highest.max(*place);
                *place = highest;
            }
        }
        answered
    }

    fn highest_before(&self, group: u32, time: u64) -> Place {
        let Some(places) = self.groups.get(&group) else { return (0, 0) };
        let count = places.partition_point(|(returned, _)| *returned < time);
        count.checked_sub(1).map_or((0, 0), |last| places[last].1)
    }
}

/// Keys joined by the requests that name them together.
#[derive(Debug, Default)]
struct Joined<'a> {
    numbers: HashMap<&'a [u8], usize, FixedState>,
    parents: Vec<usize>,
}

impl<'a> Joined<'a> {
    fn join(&mut self, call: &'a Call) {
        let mut first = None;
        for key in call.operations.iter().filter_map(key_of) {
            let next = self.parents.len();
            let number = *self.numbers.entry(key).or_insert(next);
            if number == next {
                self.parents.push(next);
            }
            let root = self.root(number);
            let first_root = *first.get_or_insert(root);
            let first_root = self.root(first_root);
            self.parents[root] = first_root;
        }
    }

    fn root(&mut self, mut number: usize) -> usize {
        while self.parents[number] != number {
            self.parents[number] = self.parents[self.parents[number]];
            number = self.parents[number];
        }
        number
    }

    fn root_of(&mut self, call: &Call) -> Option<usize> {
        let key = call.operations.iter().find_map(key_of)?;
        let number = self.numbers.get(key).copied()?;
        Some(self.root(number))
    }
}
