//! What values alone prove: no value is seen that nobody wrote, and none comes back once it was overwritten.
//!
//! Off the data path.
//! These two are refutations without a search, also in histories with so many unknown writes that a search would not end:
//! * an answered call saw a value that no other call had begun to write when it returned, or only a failed one;
//! * between the calls that saw one value, or between its writer and them, stands an answered write of the key. This one
//!   trusts positions, and speaks only of values that one call alone wrote.
//!
//! It says nothing about absent keys, nor about which of two equal values was seen.

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::calls::{Calls, Known, is_write, key_of, observation, written};
use super::violation::{Rule, Violation, bytes_text};

type Pair<'a> = (&'a [u8], &'a [u8]);

/// Who may have written a value to a key.
#[derive(Clone, Copy)]
struct Writers {
    first_invoked: u64,
    count: usize,
    /// One of them, by its place in the history, unless its outcome is unknown.
    known: Option<usize>,
}

fn writers<'a>(calls: &Calls<'a>) -> HashMap<Pair<'a>, Writers, FixedState> {
    let mut writers: HashMap<Pair<'a>, Writers, FixedState> = HashMap::default();
    let known = calls.known.iter().map(|known| (known.call, Some(known.number)));
    let unknown = calls.unknown.iter().map(|unknown| (unknown.call, None));
    for (call, known) in known.chain(unknown) {
        for pair in call.operations.iter().filter_map(written) {
            let of_pair = writers.entry(pair).or_insert(Writers { first_invoked: call.invoked, count: 0, known });
            of_pair.first_invoked = of_pair.first_invoked.min(call.invoked);
            of_pair.count += 1;
        }
    }
    writers
}

fn observations<'a>(known: &Known<'a>) -> impl Iterator<Item = Pair<'a>> {
    known.call.operations.iter().zip(known.results).filter_map(observation)
}

/// Every value that was seen had been begun to be written before the call that saw it returned.
///
/// # Errors
/// The first that had not.
pub(super) fn check_origins(calls: &Calls<'_>) -> Result<(), Violation> {
    let writers = writers(calls);
    for reader in &calls.known {
        for pair in observations(reader) {
            if writers.get(&pair).is_none_or(|writers| writers.first_invoked > reader.returned) {
                let rule = if reader.stale { Rule::StaleRead } else { Rule::NotLinearizable };
                let reason = format!(
                    "call {} saw {} in {}, but no call that may have taken effect had begun to write it",
                    reader.number,
                    bytes_text(pair.1),
                    bytes_text(pair.0)
                );
                return Err(Violation::of(rule, reason, [(reader.number, reader.call)]));
            }
        }
    }
    Ok(())
}

/// A value seen behind a later write of its key; `calls` are sorted by position. Tells the reader's place in the order.
pub(super) fn find_return_of_overwritten(calls: &Calls<'_>) -> Option<usize> {
    let writers = writers(calls);
    let mut last_write: HashMap<&[u8], usize, FixedState> = HashMap::default();
    let mut first_seen: HashMap<Pair<'_>, Option<usize>, FixedState> = HashMap::default();
    for (place, known) in calls.known.iter().enumerate() {
        for (operation, result) in known.call.operations.iter().zip(known.results) {
            if let Some(pair) = observation((operation, result))
                && !known.call.operations.iter().filter_map(written).any(|own| own == pair)
                && let Some(Writers { count: 1, known: writer, .. }) = writers.get(&pair)
            {
                let last = last_write.get(pair.0).copied();
                let expected = if writer.is_some() { *writer } else { *first_seen.entry(pair).or_insert(last) };
                if expected != last {
                    return Some(place);
                }
            }
            if let Some(key) = key_of(operation)
                && is_write(result)
            {
                last_write.insert(key, known.number);
            }
        }
    }
    None
}
