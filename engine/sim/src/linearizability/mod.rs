//! Linearizability: do the answers of a history agree with one order of its calls that respects their order in time?
//!
//! Off the data path.
//!
//! ```text
//!  history ─▶ calls ─▶ 1 witness: sort by position, hold against time, replay ──▶ agrees: that order is the proof
//!                          │ a component of keys does not replay
//!                          ├─▶ 1b search: place its unknown writes among the calls in the order of their positions
//!                          └─▶ 2 search without positions ─▶ no order at all, or one that the positions contradict
//! ```
//!
//! 1. **Witness.** Every answer names its place in the log: (group, index, position in the entry); a read names the index it
//!    saw and stands behind that whole entry. A million calls take under a second, also on one key.
//! 2. **Search**, per component of keys (keys that requests of several operations name together): Wing and Gong with memory
//!    (`search.rs`). It trusts no position. A witness that replays is a proof whether servers lie or not, so [`check`] needs
//!    the search only for what does not replay; [`check_without_positions`] runs it alone, as a second opinion and for
//!    histories without positions. Beyond the bound on work a component is *undecided*, and counted.
//! 3. **Stale reads** promise less: all keys of the call as they were together behind some entry that was committed before
//!    the call returned, namely the one whose index it names. Nothing is promised about two stale reads of one client, which
//!    may go to two replicas: the index in their answers tells the client which one is newer. But what a stale read saw is
//!    committed: a linearizable call that begins after it stands behind it.
//!
//! A call whose outcome is unknown may have taken effect once, at any time after its invocation, or never: it is placed only
//! where an answer needs it. A call that failed has no effect. Exactly-once follows: a write that took effect twice, or a
//! failed one that did, is an effect no order explains, as long as values are unique or compare-and-sets count.

mod calls;
mod model;
mod pending;
mod search;
mod values;
mod violation;
mod witness;

pub use self::violation::{Rule, Violation};

use self::calls::{Answered, Calls, observation, written};
use self::search::{Order, Verdict, search};
use self::violation::{bytes_text, result_text};
use self::witness::Contradiction;
use crate::history::{Call, CallOutcome, Ended, History};

/// What was checked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Calls with an answer.
    pub answered: usize,
    /// Of these, stale reads.
    pub stale_reads: usize,
    /// Writes whose outcome is unknown.
    pub unknown: usize,
    /// Components of keys that needed a search.
    pub searched: usize,
    /// Of these, the ones whose search did not end within its bound: neither proved nor refuted.
    pub undecided: usize,
}

/// Applications of a call to the model in one search at most. About a second, and 100 MB of memory for what was tried.
pub const STEPS_MAX: u64 = 3_000_000;

/// Checks a history with the positions its answers name.
///
/// # Errors
/// The promise that was broken and the calls that show it.
pub fn check(history: &History) -> Result<Summary, Violation> {
    let mut calls = Calls::of(history)?;
    witness::sort(&mut calls.known);
    let mut summary = summary_of(&calls);
    if let Err(violation) = witness::check_time(&calls.known) {
        return Err(no_order_at_all(history, &calls).unwrap_or(violation));
    }
    if witness::replay(&calls.known).is_ok() {
        return Ok(summary);
    }
    values::check_origins(&calls).map_err(|violation| explained(violation, history, &calls))?;
    let answered = Answered::of(&calls);
    for mut component in calls.components() {
        let Err(contradiction) = witness::replay(&component.known) else { continue };
        summary.searched += 1;
        component.note_places(&answered);
        if let Some(place) = values::find_return_of_overwritten(&component) {
            return Err(returned(history, &component, place));
        }
        match search_with_unknown(&component, Order::Given) {
            Verdict::Explained => {}
            Verdict::Impossible(_) => return Err(classify(history, &component, &contradiction)),
            Verdict::Undecided => match search_with_unknown(&component, Order::Time) {
                Verdict::Impossible(stuck) => return Err(not_linearizable(history, &component, &stuck)),
                Verdict::Explained | Verdict::Undecided => summary.undecided += 1,
            },
        }
    }
    Ok(summary)
}

/// Checks a history as if its answers named no positions (they only hint where to search first).
///
/// # Errors
/// The promise that was broken and the calls that show it.
pub fn check_without_positions(history: &History) -> Result<Summary, Violation> {
    let mut calls = Calls::of(history)?;
    witness::sort(&mut calls.known);
    let mut summary = summary_of(&calls);
    values::check_origins(&calls).map_err(|violation| explained(violation, history, &calls))?;
    for component in calls.components() {
        summary.searched += 1;
        match search_with_unknown(&component, Order::Time) {
            Verdict::Explained => {}
            Verdict::Impossible(stuck) => return Err(not_linearizable(history, &component, &stuck)),
            Verdict::Undecided => summary.undecided += 1,
        }
    }
    Ok(summary)
}

fn summary_of(calls: &Calls<'_>) -> Summary {
    let stale_reads = calls.known.iter().filter(|known| known.stale).count();
    Summary { answered: calls.known.len(), stale_reads, unknown: calls.unknown.len(), searched: 0, undecided: 0 }
}

/// Most unknown writes were seen by nobody: first without those, with a part of the work; then with all.
fn search_with_unknown(component: &Calls<'_>, order: Order) -> Verdict {
    let observed = component.with_observed_only();
    if observed.unknown.len() < component.unknown.len() && search(&observed, order, STEPS_MAX / 4) == Verdict::Explained
    {
        return Verdict::Explained;
    }
    search(component, order, STEPS_MAX)
}

/// The positions of a component do not explain its results: is that all, or is there no order at all?
fn classify(history: &History, component: &Calls<'_>, contradiction: &Contradiction) -> Violation {
    let mut fresh = component.clone();
    fresh.known.retain(|known| !known.stale);
    let only_stale =
        fresh.known.len() < component.known.len() && search_with_unknown(&fresh, Order::Given) == Verdict::Explained;
    let culprit = component.known[contradiction.place];
    let asked = &culprit.call.operations[contradiction.mismatch.operation];
    let expected = result_text(&contradiction.mismatch.expected);
    let key = calls::key_of(asked).map(bytes_text).unwrap_or_default();
    let seen = format!("replayed to call {}, key {key} should have given: {expected}", culprit.number);
    let (rule, reason) = if only_stale {
        (Rule::StaleRead, seen)
    } else {
        match search_with_unknown(component, Order::Time) {
            Verdict::Impossible(stuck) => {
                let mut violation = Violation::of(Rule::NotLinearizable, seen, [(culprit.number, culprit.call)]);
                explain(&mut violation, history, component, culprit.number);
                violation.add(stuck.iter().map(|number| (*number, &history.calls[*number])));
                return violation;
            }
            Verdict::Explained => {
                (Rule::PositionsAgainstResults, format!("{seen}; another order explains the results"))
            }
            Verdict::Undecided => {
                (Rule::PositionsAgainstResults, format!("{seen}; whether another order explains it was not decided"))
            }
        }
    };
    let mut violation = Violation::of(rule, reason, [(culprit.number, culprit.call)]);
    explain(&mut violation, history, component, culprit.number);
    violation
}

/// Positions contradict time; says so only if some keys have no order of their calls whatever the positions are.
fn no_order_at_all(history: &History, calls: &Calls<'_>) -> Option<Violation> {
    calls.components().iter().find_map(|component| match search_with_unknown(component, Order::Time) {
        Verdict::Impossible(stuck) => Some(not_linearizable(history, component, &stuck)),
        Verdict::Explained | Verdict::Undecided => None,
    })
}

fn not_linearizable(history: &History, component: &Calls<'_>, stuck: &[usize]) -> Violation {
    let calls = stuck.iter().map(|number| (*number, &history.calls[*number]));
    let reason =
        "no order of the calls that respects time explains all results; the longest one ends before these calls";
    let mut violation = Violation::of(Rule::NotLinearizable, reason, calls);
    for number in stuck {
        explain(&mut violation, history, component, *number);
    }
    violation
}

/// Adds the calls that wrote what call `number` saw, and the last one that wrote to its keys before it.
fn explain(violation: &mut Violation, history: &History, component: &Calls<'_>, number: usize) {
    for (key, value) in observations_of(&history.calls[number]) {
        let writes = |call: &Call| call.operations.iter().filter_map(written).any(|pair| pair == (key, value));
        let writers = history.calls.iter().enumerate().filter(|(_, call)| writes(call));
        violation.add(writers.take(2));
    }
    let touched: Vec<&[u8]> = history.calls[number].operations.iter().filter_map(calls::key_of).collect();
    let writes_to = |call: &Call| call.operations.iter().filter_map(written).any(|(key, _)| touched.contains(&key));
    let place = component.known.iter().position(|known| known.number == number).unwrap_or_default();
    let before = component.known[..place].iter().rev().find(|known| writes_to(known.call));
    violation.add(before.map(|known| (known.number, known.call)));
}

fn explained(mut violation: Violation, history: &History, calls: &Calls<'_>) -> Violation {
    for number in violation.calls.clone() {
        explain(&mut violation, history, calls, number);
    }
    violation
}

/// A value was seen behind a later write of its key.
fn returned(history: &History, component: &Calls<'_>, place: usize) -> Violation {
    let reader = component.known[place];
    let mut reason = format!("call {} saw a value that another write stands behind", reader.number);
    let rule = match search_with_unknown(component, Order::Time) {
        _ if reader.stale => Rule::StaleRead,
        Verdict::Impossible(_) => Rule::NotLinearizable,
        Verdict::Explained => {
            reason.push_str("; another order explains the results");
            Rule::PositionsAgainstResults
        }
        Verdict::Undecided => {
            reason.push_str("; whether another order explains it was not decided");
            Rule::PositionsAgainstResults
        }
    };
    explained(Violation::of(rule, reason, [(reader.number, reader.call)]), history, component)
}

fn observations_of(call: &Call) -> impl Iterator<Item = (&[u8], &[u8])> {
    let results = match &call.ended {
        Some(Ended { outcome: CallOutcome::Done { results, .. }, .. }) => results.as_slice(),
        _ => &[],
    };
    call.operations.iter().zip(results).filter_map(observation)
}
