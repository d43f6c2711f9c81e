//! The order the servers claim: calls sorted by their positions, held against time and replayed.
//!
//! Off the data path.
//! A write stands at its place in the log; a read stands behind the whole entry whose index it names. When this order
//! agrees with time and the replay with every result, the history is linearizable whatever the servers are: the order
//! itself is the proof. Where positions lie, this stage can only reject.

use super::calls::Known;
use super::model::{Mismatch, Model};
use super::violation::{Rule, Violation};
use crate::history::Call;

/// A call whose results are not what the replay gives.
#[derive(Clone, Debug)]
pub(super) struct Contradiction {
    /// Its place in the order.
    pub(super) place: usize,
    pub(super) mismatch: Mismatch,
}

/// Sorts by position; reads at one place, among which no order matters, by their beginning.
pub(super) fn sort(known: &mut [Known<'_>]) {
    known.sort_by_key(|known| {
        let at = known.position;
        (at.group, at.index, at.position, known.reads_only, known.call.invoked)
    });
}

/// Holds sorted calls against time.
///
/// # Errors
/// Two writes at one place; a call that stands before another but began after it had ended. Stale reads may lie in the past,
/// but what they saw was committed: whatever begins after their return stands behind it.
pub(super) fn check_time(known: &[Known<'_>]) -> Result<(), Violation> {
    let mut latest: Option<&Known<'_>> = None;
    let mut previous: Option<&Known<'_>> = None;
    for this in known {
        if let Some(previous) = previous
            && previous.position == this.position
            && !previous.reads_only
            && !this.reads_only
        {
            let reason = "each place of the log has one request";
            return Err(Violation::of(Rule::SamePlace, reason, pair(previous, this)));
        }
        previous = Some(this);
        latest = latest.filter(|latest| latest.position.group == this.position.group);
        if let Some(latest) = latest.filter(|latest| this.returned < latest.call.invoked) {
            let (first, second) = (latest.number, this.number);
            let reason = format!("call {first} stands before call {second} but began after it had ended");
            return Err(Violation::of(Rule::PositionsAgainstTime, reason, pair(latest, this)));
        }
        if !this.stale && latest.is_none_or(|latest| latest.call.invoked < this.call.invoked) {
            latest = Some(this);
        }
    }
    Ok(())
}

fn pair<'a>(first: &Known<'a>, second: &Known<'a>) -> [(usize, &'a Call); 2] {
    [(first.number, first.call), (second.number, second.call)]
}

/// Replays sorted calls, group by group.
///
/// # Errors
/// The first contradiction. Calls whose outcome is unknown are not among them, so it may be theirs.
pub(super) fn replay(known: &[Known<'_>]) -> Result<(), Contradiction> {
    let mut model = Model::new();
    let mut group = None;
    for (place, this) in known.iter().enumerate() {
        if group != Some(this.position.group) {
            (model, group) = (Model::new(), Some(this.position.group));
        }
        model.apply(&this.call.operations, this.results).map_err(|mismatch| Contradiction { place, mismatch })?;
        model.forget_undo();
    }
    Ok(())
}
