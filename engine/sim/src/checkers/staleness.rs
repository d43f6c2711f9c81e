//! A stale read that bounds the age of its answer misses nothing that was acknowledged before that.
//!
//! Off the data path.
//! What is acknowledged at a place of a group's log before (invocation of the read - its bound) stands at or below the place
//! the read names. The bound is counted by the clock of the node that answered, so it may be longer in true time by what the
//! slowest clock is slow.
//!
//! It looks at places only: that the values are those of the place is the linearizability check's.

use std::collections::BTreeMap;

use ringraft_net::wire::Consistency;

use super::Violation;
use crate::history::{Call, CallOutcome, History};
use crate::world::Checked;

/// When something was answered, and the highest place answered by then.
type Answers = Vec<(u64, u64)>;

/// Group, index and time of an answer.
fn answer(call: &Call) -> Option<(u32, u64, u64)> {
    let ended = call.ended.as_ref()?;
    match &ended.outcome {
        CallOutcome::Done { position, .. } => Some((position.group, position.index, ended.returned)),
        CallOutcome::Failed | CallOutcome::Unknown => None,
    }
}

/// What was answered in each group, by time.
fn fresh_answers(history: &History) -> BTreeMap<u32, Answers> {
    let mut groups: BTreeMap<u32, Answers> = BTreeMap::new();
    let fresh = history.calls.iter().filter(|call| call.consistency != Consistency::Stale);
    for (group, index, returned) in fresh.filter_map(answer) {
        groups.entry(group).or_default().push((returned, index));
    }
    for answers in groups.values_mut() {
        answers.sort_unstable();
        let mut highest = 0;
        for (_, index) in answers {
            highest = highest.max(*index);
            *index = highest;
        }
    }
    groups
}

/// Checks the reads of `bounded` (place in the history, milliseconds).
pub(crate) fn check(history: &History, bounded: &[(usize, u32)], slowest_clock_percent: u64) -> Checked {
    let groups = fresh_answers(history);
    for (place, bound_ms) in bounded {
        let call = &history.calls[*place];
        let Some((group, index, _)) = answer(call) else { continue };
        let bound_us = u64::from(*bound_ms) * 1_000 * slowest_clock_percent / 100;
        let Some(before_us) = call.invoked.checked_sub(bound_us) else { continue };
        let answers = groups.get(&group).map_or(&[][..], Vec::as_slice);
        let count = answers.partition_point(|(returned, _)| *returned < before_us);
        let needed = count.checked_sub(1).map_or(0, |last| answers[last].1);
        if index < needed {
            let seen = format!(
                "call {place} allowed {bound_ms} ms and saw group {group} at {index}; {needed} was answered before"
            );
            return Err(Violation::new("a read is as old as it allows at most", seen));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ringraft_net::wire::Position;

    use super::*;
    use crate::history::Ended;

    fn call(invoked: u64, returned: u64, index: u64, consistency: Consistency) -> Call {
        let outcome = CallOutcome::Done { position: Position { group: 1, index, position: 0 }, results: Vec::new() };
        Call { client: 0, invoked, operations: Vec::new(), consistency, ended: Some(Ended { returned, outcome }) }
    }

    #[test]
    fn an_answer_older_than_its_bound_is_seen() {
        let written = |index, returned| call(0, returned, index, Consistency::Linearizable);
        let read = call(50_000, 51_000, 7, Consistency::Stale);
        let history = History { calls: vec![written(9, 30_000), written(5, 31_000), written(7, 10_000), read] };
        assert_eq!(check(&history, &[(3, 20)], 100), Ok(()), "9 was answered 20 ms before, not earlier");
        assert!(check(&history, &[(3, 19)], 100).is_err());
        assert_eq!(check(&history, &[(3, 19)], 111), Ok(()), "21 ms of a slow clock");
        assert_eq!(check(&history, &[(3, 50)], 100), Ok(()));
        assert!(check(&history, &[(3, 1)], 100).is_err_and(|violation| violation.seen.contains("group 1 at 7; 9")));
    }
}
