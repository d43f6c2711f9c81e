//! Numbers for the requests of a session and the lowest one that is not answered.

use std::collections::VecDeque;

#[derive(Debug)]
pub(super) struct Session {
    pub(super) client: u64,
    base: u64,
    answered: VecDeque<bool>,
}

impl Session {
    pub(super) fn new(client: u64) -> Self {
        Self { client, base: 1, answered: VecDeque::new() }
    }

    pub(super) fn next(&mut self, window: usize) -> Option<u64> {
        if self.answered.len() >= window {
            return None;
        }
        self.answered.push_back(false);
        Some(self.base + self.answered.len() as u64 - 1)
    }

    pub(super) fn acknowledged(&self) -> u64 {
        self.base
    }

    pub(super) fn answer(&mut self, sequence: u64) {
        if let Some(answered) = sequence.checked_sub(self.base).and_then(|place| self.answered.get_mut(place as usize)) {
            *answered = true;
        }
        while self.answered.front() == Some(&true) {
            self.answered.pop_front();
            self.base += 1;
        }
    }
}
