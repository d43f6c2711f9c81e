//! Random histories: what a sequential execution gave is accepted; what is damaged is judged as the definition judges it.
//!
//! Off the data path.

use std::time::Instant;

use proptest::prelude::*;
use ringraft_sim::history::{Call, CallOutcome, History};
use ringraft_sim::linearizability::{Rule, check, check_without_positions};

use crate::brute;
use crate::generate::{self, Shape};

/// How much more a build with optimisation tries.
const MORE: u32 = if cfg!(debug_assertions) { 1 } else { 20 };

const SMALL: Shape =
    Shape { calls: 7, keys: 2, values: 3, overlap: 4, unknown_percent: 20, several_percent: 25, stale_percent: 20 };

fn shape() -> impl Strategy<Value = Shape> {
    (1..5_u32, 0..4_u32, 0..12_u64, 0..30_u32, 0..30_u32, 0..30_u32).prop_map(
        |(keys, values, overlap, unknown_percent, several_percent, stale_percent)| Shape {
            calls: 150,
            keys: keys * keys,
            values: values * 2,
            overlap,
            unknown_percent,
            several_percent,
            stale_percent,
        },
    )
}

fn show(history: &History) -> String {
    history.calls.iter().map(|call| format!("{call:?}\n")).collect()
}

fn has_one_key(history: &History) -> bool {
    let mut keys = history.calls.iter().flat_map(|call| &call.operations).map(|operation| operation.as_operation_ref());
    let first = keys.next().and_then(|operation| operation.key().map(<[u8]>::to_vec));
    keys.all(|operation| operation.key() == first.as_deref())
}

/// Both checks say what the definition says, and the rule fits.
fn agrees_with_the_definition(history: &History) -> Result<(), TestCaseError> {
    let (ordered, free) = (brute::is_linearizable(history, true), brute::is_linearizable(history, false));
    let checked = check(history);
    prop_assert_eq!(checked.is_ok(), ordered, "{:?} of\n{}", &checked, show(history));
    if let Ok(summary) = checked {
        prop_assert_eq!(summary.undecided, 0);
    }
    if let Err(violation) = checked {
        prop_assert!(!violation.to_string().is_empty());
        match violation.rule {
            Rule::NotLinearizable => prop_assert!(!free, "{}", violation),
            // It speaks of the keys it names; other keys may have no order at all.
            Rule::PositionsAgainstResults if has_one_key(history) => prop_assert!(free, "{}", violation),
            _ => {}
        }
    }
    let unordered = check_without_positions(history);
    let refused = matches!(&unordered, Err(violation) if violation.rule == Rule::NotLinearizable);
    if !matches!(&unordered, Err(violation) if violation.rule == Rule::StaleRead) {
        prop_assert_eq!(refused, !free, "{:?} of\n{}", &unordered, show(history));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(MORE * 60))]

    #[test]
    fn what_a_sequential_execution_gave_is_accepted(seed: u64, shape in shape()) {
        let history = generate::history(seed, shape);
        let checked = check(&history);
        prop_assert!(checked.is_ok(), "{}\n{}", checked.unwrap_err(), show(&history));
        // Many unknown writes of few values can be too many orders to try.
        if shape.unknown_percent < 10 {
            prop_assert_eq!(checked.unwrap().undecided, 0);
        }
    }

    #[test]
    fn without_positions_it_is_never_refused(seed: u64, shape in shape()) {
        let history = generate::history(seed, shape);
        let checked = check_without_positions(&history);
        prop_assert!(checked.is_ok(), "{}\n{}", checked.unwrap_err(), show(&history));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(MORE * 1_000))]

    #[test]
    fn damage_is_judged_as_the_definition_judges_it(seed: u64, damages in prop::collection::vec(any::<u64>(), 0..3)) {
        let mut history = generate::history(seed, SMALL);
        damages.iter().for_each(|damage| generate::damage(*damage, &mut history));
        agrees_with_the_definition(&history)?;
    }

    #[test]
    fn entangled_unknown_writes_are_judged_as_the_definition_judges_them(
        seed: u64,
        damages in prop::collection::vec(any::<u64>(), 0..2),
    ) {
        let shape = Shape { keys: 3, unknown_percent: 55, several_percent: 60, calls: 8, ..SMALL };
        let mut history = generate::history(seed, shape);
        damages.iter().for_each(|damage| generate::damage(*damage, &mut history));
        agrees_with_the_definition(&history)?;
    }

    #[test]
    fn unknown_writes_are_judged_as_the_definition_judges_them(seed: u64, damages in prop::collection::vec(any::<u64>(), 0..3)) {
        let shape = Shape { keys: 1, unknown_percent: 50, several_percent: 10, values: 2, ..SMALL };
        let mut history = generate::history(seed, shape);
        damages.iter().for_each(|damage| generate::damage(*damage, &mut history));
        agrees_with_the_definition(&history)?;
    }
}

/// The damages do break some histories and leave others whole, or the properties above say little.
#[test]
fn damage_breaks_some_histories_and_not_others() {
    let mut broken = 0;
    for seed in 0..500 {
        let mut history = generate::history(seed, SMALL);
        generate::damage(seed, &mut history);
        broken += usize::from(check(&history).is_err());
    }
    assert!((100..400).contains(&broken), "{broken} of 500");
}

/// One write of many vanishes: that is found in a long history, with unknown writes all about.
#[test]
fn one_lost_write_among_many_is_found() {
    let shape = Shape { calls: 500, keys: 10, values: 0, overlap: 12, unknown_percent: 5, ..SMALL };
    let (mut tried, mut found, mut undecided) = (0, 0, 0);
    for seed in 0..20 {
        let mut history = generate::history(seed, shape);
        let Some(read) = history.calls.iter().skip(250).position(saw_a_value) else { continue };
        let read = read + 250;
        let seen = value_seen(&history.calls[read]);
        // The write whose value a read in the middle saw is said to have failed.
        let Some(write) = history.calls.iter().position(|call| is_known_write_of(call, &seen)) else { continue };
        history.calls[write].ended.as_mut().expect("known").outcome = CallOutcome::Failed;
        tried += 1;
        match check(&history) {
            Err(_) => found += 1,
            Ok(summary) => undecided += summary.undecided,
        }
    }
    assert!(tried > 10, "{tried}");
    assert_eq!((found, undecided), (tried, 0));
}

fn saw_a_value(call: &Call) -> bool {
    !value_seen(call).is_empty()
}

fn value_seen(call: &Call) -> Vec<u8> {
    use ringraft_net::wire::OperationResult;
    match call.ended.as_ref().map(|ended| &ended.outcome) {
        Some(CallOutcome::Done { results, .. }) if call.operations.len() == 1 => match &results[0] {
            OperationResult::Value(Some(value)) => value.clone(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn is_known_write_of(call: &Call, value: &[u8]) -> bool {
    use ringraft_net::wire::Operation;
    let writes = call.operations.iter().any(|operation| match operation {
        Operation::Put { value: written, .. } | Operation::CompareAndSet { value: written, .. } => written == value,
        _ => false,
    });
    writes && matches!(call.ended.as_ref().map(|ended| &ended.outcome), Some(CallOutcome::Done { .. }))
}

/// The time of the witness and of the search; printed, and held to a bound that only a change of its growth exceeds.
#[test]
fn long_histories_take_little_time() {
    let thousands = if cfg!(debug_assertions) { 3 } else { 100 };
    let runs = [
        ("100 keys", 100, 0, thousands * 1_000),
        ("one hot key", 1, 0, thousands * 1_000),
        ("100 keys, 1% unknown", 100, 1, thousands * 1_000),
        ("1,000 keys, ten times as long", 1_000, 0, thousands * 10_000),
    ];
    for (name, keys, unknown_percent, calls) in runs {
        let shape =
            Shape { calls, keys, values: 0, overlap: 16, unknown_percent, several_percent: 0, stale_percent: 0 };
        let history = generate::history(7, shape);
        let start = Instant::now();
        let summary = check(&history).expect("a sequential execution");
        let witness = start.elapsed();
        let start = Instant::now();
        let unordered = check_without_positions(&history).expect("a sequential execution");
        let search = start.elapsed();
        println!(
            "{calls} calls, {name}: check {witness:?} ({} searched, {} undecided), without positions {search:?} ({} undecided)",
            summary.searched, summary.undecided, unordered.undecided
        );
        assert_eq!(summary.undecided, 0);
        assert!(witness.as_secs() < 20, "{witness:?}");
    }
}
