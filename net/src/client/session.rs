//! Session of one group: numbers for writes, so that a repeated one takes effect once.
//!
//! Off the data path of a node.
//!
//! ```text
//!   acknowledged = base            next
//!        |                           |
//!        v                           v
//!        [ - ][ x ][ - ][ x ][ x ]        - unanswered, x answered
//! ```
//!
//! Invariants: a sequence is given once per session; `base` is the lowest unanswered one, or `next` when all are answered;
//! there are never more than `window_max` sequences between them.
//!
//! It sends nothing.

use std::collections::VecDeque;

/// How far a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// There is none; the next write opens one.
    Closed,
    /// Its opening is under way.
    Opening,
    /// Open.
    Open {
        /// Its id.
        client: u64,
    },
}

/// Numbers of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) client: u64,
    pub(super) sequence: u64,
    pub(super) acknowledged: u64,
    pub(super) generation: u32,
}

/// The current session of a group.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: State,
    /// Counts the sessions of this group.
    pub(super) generation: u32,
    base: u64,
    /// For each sequence from `base` on: answered.
    answered: VecDeque<bool>,
}

impl Session {
    pub(super) fn new() -> Self {
        Self { state: State::Closed, generation: 0, base: 1, answered: VecDeque::new() }
    }

    /// The group gave a session.
    pub(super) fn opened(&mut self, client: u64) {
        self.state = State::Open { client };
        self.generation = self.generation.wrapping_add(1);
        self.base = 1;
        self.answered.clear();
    }

    /// Numbers for a new write; `None`: not open, or the window is full.
    #[inline]
    pub(super) fn assign(&mut self, window_max: usize) -> Option<Numbers> {
        let State::Open { client } = self.state else { return None };
        if self.answered.len() >= window_max {
            return None;
        }
        self.answered.push_back(false);
        let sequence = self.base + self.answered.len() as u64 - 1;
        Some(Numbers { client, sequence, acknowledged: self.base, generation: self.generation })
    }

    /// Whether a sequence given by session `generation` is of the session that is open now.
    pub(super) fn is_current(&self, generation: u32) -> bool {
        matches!(self.state, State::Open { .. }) && generation == self.generation
    }

    /// A write has been answered, or will never be sent again.
    #[inline]
    pub(super) fn finish(&mut self, generation: u32, sequence: u64) {
        if generation != self.generation || sequence < self.base {
            return;
        }
        if let Some(answered) = self.answered.get_mut((sequence - self.base) as usize) {
            *answered = true;
        }
        while self.answered.front() == Some(&true) {
            self.answered.pop_front();
            self.base += 1;
        }
    }

    /// The group does not know session `generation` any more.
    pub(super) fn expired(&mut self, generation: u32) {
        if generation == self.generation && matches!(self.state, State::Open { .. }) {
            self.state = State::Closed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_is_the_lowest_unanswered() {
        let mut session = Session::new();
        assert_eq!(session.assign(4), None);
        session.opened(77);
        let numbers: Vec<_> = (0..4).map(|_| session.assign(4).unwrap()).collect();
        assert_eq!(
            numbers.iter().map(|n| (n.sequence, n.acknowledged)).collect::<Vec<_>>(),
            [(1, 1), (2, 1), (3, 1), (4, 1)]
        );
        assert_eq!(session.assign(4), None, "the window is full");
        session.finish(1, 2);
        assert_eq!(session.assign(4), None, "the lowest is still unanswered");
        session.finish(1, 1);
        assert_eq!(session.assign(4).map(|n| (n.sequence, n.acknowledged)), Some((5, 3)));
        session.finish(0, 3);
        session.finish(1, 1);
        assert_eq!(session.assign(4).map(|n| (n.sequence, n.acknowledged)), Some((6, 3)));
    }

    #[test]
    fn a_new_session_starts_over() {
        let mut session = Session::new();
        session.opened(1);
        let old = session.assign(4).unwrap();
        session.expired(old.generation);
        assert_eq!(session.state, State::Closed);
        session.opened(2);
        assert!(!session.is_current(old.generation));
        session.expired(old.generation);
        assert_eq!(session.assign(4).map(|n| (n.client, n.sequence)), Some((2, 1)));
    }
}
