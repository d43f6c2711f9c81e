//! A published checker's opinion on the same histories.
//!
//! Off the data path.
//! It knows neither positions nor unknown outcomes: complete histories of linearizable calls only.

use proptest::prelude::*;
use ringraft_net::wire::{Operation, OperationResult};
use ringraft_sim::history::{CallOutcome, History};
use ringraft_sim::linearizability::check_without_positions;
use todc_utils::{Action, Specification, WGLChecker};

use crate::generate::{self, Shape};
use crate::script::{State, execute};

struct Store;

impl Specification for Store {
    type State = State;
    type Operation = (Vec<Operation>, Vec<OperationResult>);

    fn init() -> State {
        State::new()
    }

    fn apply((operations, results): &Self::Operation, state: &State) -> (bool, State) {
        let mut after = state.clone();
        let fits = execute(&mut after, operations) == *results;
        (fits, after)
    }
}

/// Nothing for a history that is not complete.
fn published_opinion(history: &History) -> Option<bool> {
    let mut actions = Vec::new();
    for (process, call) in history.calls.iter().enumerate() {
        let ended = call.ended.as_ref()?;
        let CallOutcome::Done { results, .. } = &ended.outcome else { return None };
        let operation = (call.operations.clone(), results.clone());
        // At one time calls come before responses: what only touches overlaps.
        actions.push(((call.invoked, 0), (process, Action::Call(operation.clone()))));
        actions.push(((ended.returned, 1), (process, Action::Response(operation))));
    }
    actions.sort_by_key(|(at, _)| *at);
    let actions = actions.into_iter().map(|(_, action)| action).collect();
    Some(WGLChecker::<Store>::is_linearizable(todc_utils::History::from_actions(actions)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_published_checker_agrees(seed: u64, calls in 5..25_usize, keys in 1..4_u32, damages in prop::collection::vec(any::<u64>(), 0..2)) {
        let shape =
            Shape { calls, keys, values: 3, overlap: 3, unknown_percent: 0, several_percent: 20, stale_percent: 0 };
        let mut history = generate::history(seed, shape);
        history.calls.retain(|call| matches!(call.ended.as_ref().map(|ended| &ended.outcome), Some(CallOutcome::Done { .. })));
        damages.iter().for_each(|damage| generate::damage(*damage, &mut history));
        if let Some(opinion) = published_opinion(&history) {
            let checked = check_without_positions(&history);
            prop_assert_eq!(checked.is_ok(), opinion, "{:?}", checked);
        }
    }
}
