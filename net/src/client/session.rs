//! The client's side of a session: numbers for requests and the lowest one that is not answered.
//!
//! Off the data path of the server; on the hot path of a client.
//! Invariants: a sequence is given to one request only and stays with it through every retry; `acknowledged` never
//! passes a request that may still be sent again (thesis 6.3).

use std::collections::VecDeque;

/// An open session in one group.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: u64,
    /// Lowest sequence that is not answered.
    base: u64,
    /// Whether `base + place` is answered.
    answered: VecDeque<bool>,
}

impl Session {
    pub(super) fn new(client: u64) -> Self {
        Self { client, base: 1, answered: VecDeque::new() }
    }

    /// A number for a new request, unless `window` requests are between it and the lowest unanswered one.
    pub(super) fn next(&mut self, window: usize) -> Option<u64> {
        if self.answered.len() >= window {
            return None;
        }
        self.answered.push_back(false);
        Some(self.base + self.answered.len() as u64 - 1)
    }

    /// All below are answered.
    pub(super) fn acknowledged(&self) -> u64 {
        self.base
    }

    /// A request will not be sent again.
    pub(super) fn answer(&mut self, sequence: u64) {
        if let Some(answered) = sequence.checked_sub(self.base).and_then(|place| self.answered.get_mut(place as usize))
        {
            *answered = true;
        }
        while self.answered.front() == Some(&true) {
            self.answered.pop_front();
            self.base += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledged_waits_for_the_lowest_unanswered() {
        let mut session = Session::new(9);
        assert_eq!((session.next(3), session.next(3), session.next(3)), (Some(1), Some(2), Some(3)));
        assert_eq!(session.next(3), None, "the window is full");
        session.answer(2);
        assert_eq!(session.acknowledged(), 1);
        session.answer(1);
        assert_eq!(session.acknowledged(), 3);
        session.answer(1);
        assert_eq!(session.next(3), Some(4));
        session.answer(3);
        session.answer(4);
        assert_eq!(session.acknowledged(), 5);
    }
}
