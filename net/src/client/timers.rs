//! Timers: deadlines, pauses and patience, all in one pass.
//!
//! Off the data path of a node.
//!
//! One number, `timer_us`, is a lower bound of the next moment at which anything is due; every step that sets a deadline
//! lowers it. A tick before it does nothing; a tick after it looks at everything once and computes it anew. Deadlines are
//! long against answers, so that happens about once per timeout, not once per request.
//!
//! Invariant: nothing that is due at a tick is left for the next, except what the tick itself set in motion.
//!
//! It has no clock.

use super::{
    ClientError,
    connection::State,
    core::Core,
    slab::{Kind, Place},
};

/// Ticks do their work at most this often.
const TICK_US_MIN: u64 = 1_000;

impl Core {
    /// Time has passed.
    pub fn tick(&mut self, now_us: u64) {
        if now_us < self.timer_us {
            return;
        }
        self.timer_us = u64::MAX;
        self.tick_connections(now_us);
        self.tick_requests(now_us);
        self.pump_all(now_us);
        self.tick_cluster(now_us);
        self.timer_us = self.timer_us.max(now_us + TICK_US_MIN);
    }

    fn tick_connections(&mut self, now_us: u64) {
        for place in 0..self.connections.len() as u32 {
            let connection = &self.connections[place as usize];
            let (due_us, problem) = match connection.state {
                State::Free => continue,
                State::Connecting => (connection.heard_us + self.times.connect_us, "it did not connect in time"),
                State::Greeting => (connection.heard_us + self.times.connect_us, "it did not answer Hello in time"),
                State::Ready => {
                    let Some(oldest) = connection.sent.front() else { continue };
                    let since_us = connection.heard_us.max(self.slab.get(oldest).sent_us);
                    (since_us + self.times.stall_us, "it owed an answer for too long")
                }
            };
            if now_us >= due_us {
                self.give_up(place, problem, now_us);
            } else {
                self.note_timer(due_us);
            }
        }
    }

    fn tick_requests(&mut self, now_us: u64) {
        for index in 0..self.slab.len() as u32 {
            let slot = self.slab.get(index);
            let place = slot.place;
            if matches!(place, Place::Free | Place::Abandoned { .. }) {
                continue;
            }
            if now_us < slot.deadline_us {
                let deadline_us = slot.deadline_us;
                self.note_timer(deadline_us);
                continue;
            }
            let sent = matches!(place, Place::Sent { .. });
            let outcome_unknown = slot.kind == Kind::Write && (slot.maybe_applied || sent);
            if let Place::Sent { connection } = place {
                // Its slot stays taken until its answer comes or its connection goes: no other request gets its answer.
                self.slab.get_mut(index).place = Place::Abandoned { connection };
            } else {
                self.unlist(index);
            }
            self.fail(index, ClientError::DeadlineExceeded { outcome_unknown });
        }
    }

    fn tick_cluster(&mut self, now_us: u64) {
        if self.bootstrap.wanted {
            self.look_again(now_us);
        }
        for endpoint in &self.routing.endpoints {
            if endpoint.attempts > 0 && endpoint.retry_at_us > now_us {
                self.timer_us = self.timer_us.min(endpoint.retry_at_us);
            }
        }
    }
}
