//! The sessions' part of a snapshot: copied in slices while sessions are used, opened and forgotten, and loaded again.
//!
//! Off the data path.
//! Invariants: every session that was there at the beginning is copied exactly once, as it was then, its answers behind
//! it; none that was opened later is. What is loaded has the same hash, the same bytes and the same order by last use.
//! A session stays in its slot as long as it lives, so one walk over the slots sees every one.
//! A session is written as a whole; what does not fit in a slice waits for the next one.

use std::collections::VecDeque;

use super::{ANSWER_BYTES, Answer, Large, Place, Session, Sessions};
use crate::limits::Limits;
use crate::state_machine::copying::Copying;
use crate::state_machine::load::LoadProblem;
use crate::state_machine::records;
use ringraft_net::wire::{OperationResult, OperationResultRef};

/// Slots that one slice visits at most.
const SLOTS_MAX: usize = 8_192;

/// Keeps what a session is before it changes or goes, unless the snapshot has it already.
#[cold]
pub(super) fn keep(copying: &mut Copying, session: &mut Session) {
    if session.copied_in != copying.epoch {
        session.copied_in = copying.epoch;
        copying.left -= 1;
        append(&mut copying.pending, session);
    }
}

fn append(out: &mut VecDeque<u8>, session: &Session) {
    let kept = || (0..).zip(&session.answers).filter(|(_, answer)| !matches!(answer, Answer::Missing));
    let count = kept().count() as u32;
    records::append_session(out, session.client, session.acknowledged, session.last_used.as_u64(), count);
    for (ahead, answer) in kept() {
        match answer {
            Answer::Missing => {}
            Answer::Small { place, small } => records::append_answer(out, ahead, place.as_u64(), &[small.result()]),
            Answer::Large(large) => {
                let results: Vec<_> = large.results.iter().map(OperationResult::as_result_ref).collect();
                records::append_answer(out, ahead, large.place.as_u64(), &results);
            }
        }
    }
}

impl Sessions {
    /// Begins a snapshot of the sessions as they are now.
    pub(in super::super) fn begin_copy(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.copying = Some(Copying::new(self.epoch, self.len()));
    }

    /// Bytes kept aside for the next slices.
    pub(in super::super) fn pending_bytes(&self) -> usize {
        self.copying.as_ref().map_or(0, |copying| copying.pending.len())
    }

    /// Gives up a snapshot.
    pub(in super::super) fn abort_copy(&mut self) {
        self.copying = None;
    }

    /// Appends records until `out` has `end` bytes, the work of one slice is done or nothing is left; answers whether
    /// more is to come.
    pub(in super::super) fn copy_slice(&mut self, out: &mut Vec<u8>, end: usize) -> bool {
        let Self { slots, copying: Some(copying), .. } = self else { return false };
        copying.drain(out, end);
        for _ in 0..SLOTS_MAX {
            if out.len() >= end || copying.left == 0 {
                break;
            }
            let session = &mut slots[copying.cursor];
            if session.client != 0 {
                keep(copying, session);
                copying.drain(out, end);
            }
            copying.cursor += 1;
        }
        if copying.is_done() {
            self.copying = None;
        }
        self.copying.is_some()
    }
}

/// Builds sessions from the records of a snapshot. Everything is checked before memory is taken for it.
#[derive(Debug)]
pub(in super::super) struct SessionsLoader {
    sessions: Sessions,
    /// Slot of the session whose answers come, and how many.
    current: usize,
    answers_left: u32,
    operations_max: usize,
    bytes_max: u64,
    last_index: u64,
}

impl SessionsLoader {
    pub(in super::super) fn new(limits: &Limits, last_index: u64) -> Self {
        let operations_max = limits.operations_max.max(1) as usize;
        // All sessions are within their bound but for what the last request of one of them added.
        let values_bytes = u64::from(limits.answer_bytes_max) + u64::from(limits.value_bytes_max);
        let answer_bytes = size_of::<Large>() as u64 + (operations_max * size_of::<OperationResult>()) as u64;
        let window_bytes = u64::from(limits.session_window_max) * ANSWER_BYTES;
        let bytes_max =
            limits.sessions_bytes_max.saturating_add(values_bytes).saturating_add(answer_bytes + window_bytes);
        Self { sessions: Sessions::new(limits), current: 0, answers_left: 0, operations_max, bytes_max, last_index }
    }

    /// Answers are missing before another record may come.
    pub(in super::super) fn answers_left(&self) -> u32 {
        self.answers_left
    }

    pub(in super::super) fn session(
        &mut self,
        client: u64,
        acknowledged: u64,
        last_used: u64,
        answers: u32,
    ) -> Result<(), LoadProblem> {
        let sessions = &mut self.sessions;
        if sessions.len() >= sessions.sessions_max {
            return Err(LoadProblem::SessionsMax { sessions_max: sessions.sessions_max });
        }
        let opened = client.checked_sub(1).map(Place);
        let known = opened.is_some_and(|opened| opened.0 <= last_used && Place(last_used).index() <= self.last_index);
        if !known || acknowledged == 0 || u64::from(answers) > sessions.window_max {
            return Err(LoadProblem::Session { client });
        }
        if sessions.by_client.contains_key(&client) {
            return Err(LoadProblem::SessionTwice { client });
        }
        self.current = sessions.insert(Session::new(client, acknowledged, Place(last_used), 0)) as usize;
        self.answers_left = answers;
        Ok(())
    }

    pub(in super::super) fn answer(
        &mut self,
        ahead: u32,
        place: u64,
        results: &[OperationResultRef<'_>],
    ) -> Result<(), LoadProblem> {
        if self.answers_left == 0 {
            return Err(LoadProblem::StrayAnswer);
        }
        let Sessions { slots, hash, bytes, window_max, .. } = &mut self.sessions;
        let session = &mut slots[self.current];
        let sequence = session.acknowledged.checked_add(u64::from(ahead));
        let gap = (ahead as usize).checked_sub(session.answers.len());
        let (Some(sequence), Some(gap)) = (sequence, gap) else {
            return Err(LoadProblem::Answer { client: session.client, ahead });
        };
        if u64::from(ahead) >= *window_max || Place(place).index() > self.last_index {
            return Err(LoadProblem::Answer { client: session.client, ahead });
        }
        let answer = Answer::new(Place(place), results);
        let added = (gap as u64 + 1) * ANSWER_BYTES + answer.boxed_bytes();
        if *bytes + added > self.bytes_max {
            return Err(LoadProblem::SessionsBytesMax { bytes_max: self.bytes_max });
        }
        *hash ^= answer.hash(session.client, sequence);
        session.answers.resize_with(ahead as usize, || Answer::Missing);
        session.answers.push_back(answer);
        session.bytes += added;
        *bytes += added;
        self.answers_left -= 1;
        Ok(())
    }

    /// Operations in one request at most, and so results in one answer.
    pub(in super::super) fn operations_max(&self) -> usize {
        self.operations_max
    }

    /// The sessions, in the order of their last use.
    pub(in super::super) fn finish(mut self) -> Result<Sessions, LoadProblem> {
        let sessions = &mut self.sessions;
        let mut by_use: Vec<(Place, u32)> =
            (0..).zip(&sessions.slots).map(|(slot, session)| (session.last_used, slot)).collect();
        by_use.sort_unstable();
        if let Some(pair) = by_use.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(LoadProblem::Session { client: sessions.slots[pair[1].1 as usize].client });
        }
        for (_, slot) in by_use {
            sessions.link_newest(slot);
        }
        Ok(self.sessions)
    }
}
