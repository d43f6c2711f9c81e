//! The definition of linearizability, executed: every order of the calls, without any cleverness.
//!
//! Off the data path.
//! For a handful of calls only.

use ringraft_net::wire::{Consistency, Operation, OperationResult, Position};
use ringraft_sim::history::{Call, CallOutcome, History};

use crate::script::{State, execute};

struct Item<'a> {
    call: &'a Call,
    /// Place in the log, results and end; nothing for a call whose outcome is unknown.
    answer: Option<(Position, &'a [OperationResult], u64)>,
    stale: bool,
}

impl Item<'_> {
    /// This one must come before the other because of time. Nothing is in time before a stale read.
    fn precedes(&self, other: &Self) -> bool {
        !other.stale && self.answer.is_some_and(|(_, _, returned)| returned < other.call.invoked)
    }

    fn place(&self) -> Option<(u64, u32)> {
        self.answer.map(|(position, _, _)| (position.index, position.position))
    }
}

/// Is there an order of the calls that explains all answers; in the order of the positions, or whatever they are?
pub(crate) fn is_linearizable(history: &History, positions: bool) -> bool {
    let items: Vec<Item<'_>> = history.calls.iter().filter_map(item).filter(|item| positions || !item.stale).collect();
    if positions && !places_agree_with_time(&items) {
        return false;
    }
    let mut left: Vec<&Item<'_>> = items.iter().collect();
    explain(&State::new(), &mut left, positions)
}

fn item(call: &Call) -> Option<Item<'_>> {
    let reads = call.operations.iter().all(|operation| matches!(operation, Operation::Get { .. }));
    let stale = reads && call.consistency == Consistency::Stale;
    match call.ended.as_ref().map(|ended| (&ended.outcome, ended.returned)) {
        Some((CallOutcome::Failed, _)) => None,
        Some((CallOutcome::Done { position, results }, returned)) => {
            Some(Item { call, answer: Some((*position, results, returned)), stale })
        }
        Some((CallOutcome::Unknown, _)) | None => (!reads).then_some(Item { call, answer: None, stale: false }),
    }
}

fn places_agree_with_time(items: &[Item<'_>]) -> bool {
    let is_read = |item: &Item<'_>| item.place().is_some_and(|place| place.1 == u32::MAX);
    items.iter().enumerate().all(|(at, one)| {
        items.iter().enumerate().all(|(other_at, other)| {
            let (Some(place), Some(other_place)) = (one.place(), other.place()) else { return true };
            let same = at != other_at && place == other_place && !is_read(one) && !is_read(other);
            !(same || one.precedes(other) && place > other_place)
        })
    })
}

fn explain(state: &State, left: &mut Vec<&Item<'_>>, positions: bool) -> bool {
    if left.iter().all(|item| item.answer.is_none()) {
        return true;
    }
    for at in 0..left.len() {
        let item = left[at];
        let too_early = left.iter().any(|other| {
            // What a stale read saw is committed: an unknown call that began later stands behind it, too.
            let earlier_place = positions && item.place().is_some() && other.place() < item.place();
            other.precedes(item) || other.place().is_some() && earlier_place
        });
        if too_early {
            continue;
        }
        let mut after = state.clone();
        let results = execute(&mut after, &item.call.operations);
        if item.answer.is_some_and(|(_, given, _)| given != results) {
            continue;
        }
        left.remove(at);
        let explained = explain(&after, left, positions);
        left.insert(at, item);
        if explained {
            return true;
        }
    }
    false
}
