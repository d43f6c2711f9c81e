//! The search for an order of calls that explains their results: Wing and Gong's, with Lowe's memory of what was tried.
//!
//! Off the data path.
//! Depth first: place a call that may be next (no call that is not yet placed ended before it began) and whose results the
//! model agrees with, else take the last one back. A set of placed calls that led to a state is never tried twice; sets and
//! states are remembered by 128-bit fingerprints.
//!
//! Three rules cut the search without losing an order:
//! * a call that may be next and only observes is placed at once: later it could only fail;
//! * an unknown write is placed only where it makes the next known call come out right, because it can always be delayed
//!   until then; a call of several operations may need several (where unknown calls of several operations or compare-and-sets
//!   are about, whose effects are entangled, they are placed anywhere);
//! * calls are tried in the order of their positions. That is a hint and no more: a lie costs time, not truth.
//!
//! The work is bounded; beyond the bound the answer is that it is not decided.

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use ringraft_net::wire::Operation;
use xxhash_rust::xxh3::xxh3_128;

use super::calls::{Calls, Known, Place, Unknown, is_write, key_of};
use super::model::Model;
use super::pending::Pending;

/// What orders the known calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The order of their positions, reads at one place in any order; the order in time binds unknown calls only.
    Given,
    /// Only time: what ended before another began comes first.
    Time,
}

/// What the search found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// There is an order.
    Explained,
    /// There is none. The longest attempt could place none of these calls of the history.
    Impossible(Vec<usize>),
    /// The bound on work was reached.
    Undecided,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Known(u32),
    Unknown(u32),
}

/// One placed call, and the others that could stand in its place; the choices of the last frame end the list of all.
#[derive(Debug)]
struct Frame {
    first: usize,
    next: usize,
    complete: bool,
    undo_mark: usize,
    taken: Option<Choice>,
}

/// Calls shown when there is no order.
const STUCK_MAX: usize = 6;

/// Looks for an order of `calls`, with at most `steps_max` applications of a call to the model.
pub(super) fn search(calls: &Calls<'_>, order: Order, steps_max: u64) -> Verdict {
    let mut known: Vec<Known<'_>> = calls.known.clone();
    if order == Order::Time {
        known.retain(|known| !known.stale);
    }
    let mut unknown = calls.unknown.clone();
    unknown.sort_by_key(|unknown| unknown.call.invoked);
    let spans = known.iter().zip(0..).map(|(known, rank)| match order {
        Order::Given => (rank, known.returned),
        Order::Time => (known.call.invoked, known.returned),
    });
    let search = Search {
        pending: Pending::new(spans),
        used: vec![false; unknown.len()],
        entangled: unknown.iter().any(|unknown| is_entangled(&unknown.call.operations)),
        known,
        unknown,
        order,
        model: Model::new(),
        visited: HashSet::default(),
        placed: 0,
        steps_left: steps_max,
        frames: Vec::new(),
        choices: Vec::new(),
        window: Vec::new(),
        stuck: (usize::MAX, Vec::new()),
    };
    search.run()
}

/// Its effect depends on the state, or is on several keys.
fn is_entangled(operations: &[Operation]) -> bool {
    operations.len() > 1 || matches!(operations, [Operation::CompareAndSet { .. }])
}

struct Search<'a> {
    known: Vec<Known<'a>>,
    unknown: Vec<Unknown<'a>>,
    order: Order,
    entangled: bool,
    model: Model<'a>,
    pending: Pending,
    used: Vec<bool>,
    visited: HashSet<u128, FixedState>,
    placed: u128,
    steps_left: u64,
    frames: Vec<Frame>,
    choices: Vec<Choice>,
    window: Vec<u32>,
    /// Known calls left in the longest attempt, and those that could not be placed then.
    stuck: (usize, Vec<usize>),
}

impl Search<'_> {
    fn run(mut self) -> Verdict {
        self.enter();
        while !self.pending.is_empty() {
            if self.steps_left == 0 {
                return Verdict::Undecided;
            }
            if self.advance() {
                self.enter();
            } else if !self.leave() {
                return Verdict::Impossible(self.stuck.1);
            }
        }
        Verdict::Explained
    }

    /// Opens the frame of the next place with the most promising choices.
    fn enter(&mut self) {
        let (first, undo_mark) = (self.choices.len(), self.model.mark());
        let complete = self.choose_first();
        if self.choices.len() == first && self.pending.len() < self.stuck.0 {
            let stuck = self.window.iter().take(STUCK_MAX).map(|rank| self.known[*rank as usize].number);
            self.stuck = (self.pending.len(), stuck.collect());
        }
        self.frames.push(Frame { first, next: first, complete, undo_mark, taken: None });
    }

    /// Takes back the choice of the last frame and makes its next one; false when there is none.
    fn advance(&mut self) -> bool {
        loop {
            self.take_back();
            let Some(frame) = self.frames.last_mut() else { return false };
            if frame.next == self.choices.len() {
                if frame.complete {
                    return false;
                }
                frame.complete = true;
                frame.next = frame.first;
                self.choices.truncate(frame.first);
                self.choose_all();
                continue;
            }
            let choice = self.choices[frame.next];
            frame.next += 1;
            if self.place(choice) && self.visited.insert(self.placed ^ self.model.fingerprint()) {
                return true;
            }
        }
    }

    /// Drops the last frame; false when it was the first.
    fn leave(&mut self) -> bool {
        if let Some(frame) = self.frames.pop() {
            self.choices.truncate(frame.first);
        }
        !self.frames.is_empty()
    }

    fn place(&mut self, choice: Choice) -> bool {
        let placed = match choice {
            Choice::Known(rank) => {
                let applied = self.fits(rank);
                if applied {
                    self.pending.remove(rank);
                }
                applied
            }
            Choice::Unknown(number) => {
                self.used[number as usize] = true;
                self.apply_unknown(number)
            }
        };
        self.placed ^= identity(choice);
        if let Some(frame) = self.frames.last_mut() {
            frame.taken = Some(choice);
        }
        assert!(placed, "a choice was tried before it became one");
        placed
    }

    fn take_back(&mut self) {
        let Some(frame) = self.frames.last_mut() else { return };
        let Some(choice) = frame.taken.take() else { return };
        self.model.undo_to(frame.undo_mark);
        self.placed ^= identity(choice);
        match choice {
            Choice::Known(rank) => self.pending.restore(rank),
            Choice::Unknown(number) => self.used[number as usize] = false,
        }
    }

    /// The place of the next known call in the order of the positions.
    fn next_place(&self) -> Place {
        let next = self.pending.in_order().next();
        next.map_or((u64::MAX, u32::MAX), |rank| place_of(&self.known[rank as usize]))
    }

    /// The known calls that may be next, in the order of their ranks.
    fn fill_window(&mut self) {
        self.window.clear();
        match self.order {
            Order::Given => {
                let (next, latest) = (self.next_place(), self.pending.first_return());
                let same = self.pending.in_order().take_while(|rank| place_of(&self.known[*rank as usize]) == next);
                let in_time = |rank: &u32| {
                    let known = &self.known[*rank as usize];
                    known.stale || known.call.invoked <= latest
                };
                self.window.extend(same.filter(in_time));
            }
            Order::Time => {
                self.window.extend(self.pending.first());
                self.window.sort_unstable();
            }
        }
    }

    /// The first call that fits, or the unknown ones that make it fit. True: it only observes, no other need be tried.
    fn choose_first(&mut self) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        self.fill_window();
        for at in 0..self.window.len() {
            let (rank, mark) = (self.window[at], self.model.mark());
            if self.fits(rank) {
                self.model.undo_to(mark);
                self.choices.push(Choice::Known(rank));
                return !self.known[rank as usize].results.iter().any(is_write);
            }
            let before = self.choices.len();
            self.choose_helpful(rank);
            if self.choices.len() > before {
                return false;
            }
        }
        false
    }

    /// Every call that may be next.
    fn choose_all(&mut self) {
        self.fill_window();
        for at in 0..self.window.len() {
            let (rank, mark) = (self.window[at], self.model.mark());
            if self.fits(rank) {
                self.model.undo_to(mark);
                self.choices.push(Choice::Known(rank));
            } else {
                self.choose_helpful(rank);
            }
        }
        if self.entangled {
            self.choose_unknown(Self::is_about);
        }
    }

    /// The unknown calls after which the known call at `rank` fits, or which it may need besides others.
    fn choose_helpful(&mut self, rank: u32) {
        let before = self.choices.len();
        self.choose_unknown(|search, _| search.fits(rank));
        let wanted = &self.known[rank as usize].call.operations;
        if wanted.len() > 1 && self.choices.len() == before {
            self.choose_unknown(|search, number| share_a_key(wanted, &search.unknown[number].call.operations));
        }
    }

    /// It may matter to a known call that may be next, or to another unknown one: until one of these follows it can be
    /// delayed.
    fn is_about(&mut self, number: usize) -> bool {
        let this = &self.unknown[number].call.operations;
        let of_known = |rank: &u32| share_a_key(this, &self.known[*rank as usize].call.operations);
        let of_unknown = |(other, unknown): (usize, &Unknown<'_>)| {
            other != number && !self.used[other] && share_a_key(this, &unknown.call.operations)
        };
        self.window.iter().any(of_known) || self.unknown.iter().enumerate().any(of_unknown)
    }

    /// The unknown calls that may be next, change something, and are good for something.
    fn choose_unknown(&mut self, good: impl Fn(&mut Self, usize) -> bool) {
        let latest = self.pending.first_return();
        let next = if self.order == Order::Given { self.next_place() } else { (u64::MAX, u32::MAX) };
        for number in 0..self.unknown.len() {
            if self.unknown[number].call.invoked > latest {
                break;
            }
            if self.used[number] || self.unknown[number].behind > next {
                continue;
            }
            let mark = self.model.mark();
            if self.apply_unknown(number as u32) && good(self, number) {
                self.choices.push(Choice::Unknown(number as u32));
            }
            self.model.undo_to(mark);
        }
    }

    /// Applies the known call at `rank` if the model agrees with its results.
    fn fits(&mut self, rank: u32) -> bool {
        self.steps_left = self.steps_left.saturating_sub(1);
        let known = self.known[rank as usize];
        self.model.apply(&known.call.operations, known.results).is_ok()
    }

    fn apply_unknown(&mut self, number: u32) -> bool {
        self.steps_left = self.steps_left.saturating_sub(1);
        let call = self.unknown[number as usize].call;
        self.model.apply_unknown(&call.operations)
    }
}

fn place_of(known: &Known<'_>) -> Place {
    (known.position.index, known.position.position)
}

fn share_a_key(one: &[Operation], other: &[Operation]) -> bool {
    one.iter().filter_map(key_of).any(|key| other.iter().filter_map(key_of).any(|other| other == key))
}

fn identity(choice: Choice) -> u128 {
    let (kind, number) = match choice {
        Choice::Known(rank) => (0, rank),
        Choice::Unknown(number) => (1, number),
    };
    xxh3_128(&(u64::from(number) << 1 | kind).to_le_bytes())
}
