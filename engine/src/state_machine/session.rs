//! Sessions: what makes a retried request take effect once and get its first answer.
//!
//! Data path 8/9.
//! Invariants: a sequence of a session is executed at most once; the answer to a repeated one is the first answer, with
//! the first place in the log; which session goes when there are too many follows from the log alone (the one unused for
//! the longest part of it), so every replica forgets the same; `hash` and `bytes` are functions of the sessions' state.
//! Memory: `sessions_max` sessions, each with at most `session_window_max` answers of 16 bytes; answers beyond a bit and
//! a place are boxed; all of it together is at most `sessions_bytes_max` and one answer.
//! While a snapshot runs (`copy`), a session it has not copied yet is kept aside before it changes.
//! It executes nothing.
//!
//! ```text
//!              acknowledged                            highest sequence seen
//!                    |                                       |
//!   answers forgotten| Put Put  -  Put Deleted  -   -   -  Put | not seen yet       (- = not seen, may still come)
//!                    |<------------ at most session_window_max ----------->|
//! ```
//! The client's id is made of the place of its OpenSession in the log, so no two sessions of a group ever share one:
//! `client = index << 16 | position + 1` (never 0, which means "no session").

mod copy;

use std::collections::VecDeque;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ringraft_net::wire::{OperationResult, OperationResultRef};

pub(super) use self::copy::SessionsLoader;
use super::copying::Copying;
use super::digest::{bytes_hash, combine};
use crate::limits::Limits;

/// No session: ends the list by recency.
const NONE: u32 = u32::MAX;

/// Bytes a kept answer takes in its window.
const ANSWER_BYTES: u64 = size_of::<Answer>() as u64;
const _: () = assert!(ANSWER_BYTES == 16);

/// Place of a request in its group's log, as one number: the index, then 16 bits of position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

impl Place {
    /// # Panics
    /// When the position does not fit: entries have at most `ENTRY_REQUESTS_MAX` requests.
    #[inline]
    pub(super) fn new(index: u64, position: u32) -> Self {
        assert!(position < 0xffff && index < 1 << 48, "index {index}, position {position}");
        Self(index << 16 | u64::from(position))
    }

    /// The version of what is written there.
    #[inline]
    pub(super) fn as_u64(self) -> u64 {
        self.0
    }

    pub(super) fn index(self) -> u64 {
        self.0 >> 16
    }

    pub(super) fn position(self) -> u32 {
        (self.0 & 0xffff) as u32
    }

    fn client(self) -> u64 {
        self.0 + 1
    }
}

/// The results of one request that fit in a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Small {
    Put { replaced: bool },
    Deleted { existed: bool },
    Absent,
    Compared { swapped: bool },
}

impl Small {
    fn of(results: &[OperationResultRef<'_>]) -> Option<Self> {
        match *results {
            [OperationResultRef::Put { replaced }] => Some(Self::Put { replaced }),
            [OperationResultRef::Deleted { existed }] => Some(Self::Deleted { existed }),
            [OperationResultRef::Value(None)] => Some(Self::Absent),
            [OperationResultRef::Compared { swapped, current: None }] => Some(Self::Compared { swapped }),
            _ => None,
        }
    }

    fn result(self) -> OperationResultRef<'static> {
        match self {
            Self::Put { replaced } => OperationResultRef::Put { replaced },
            Self::Deleted { existed } => OperationResultRef::Deleted { existed },
            Self::Absent => OperationResultRef::Value(None),
            Self::Compared { swapped } => OperationResultRef::Compared { swapped, current: None },
        }
    }

    fn code(self) -> u64 {
        match self {
            Self::Put { replaced } => 0x10 | u64::from(replaced),
            Self::Deleted { existed } => 0x20 | u64::from(existed),
            Self::Absent => 0x30,
            Self::Compared { swapped } => 0x40 | u64::from(swapped),
        }
    }
}

/// Results that need memory of their own.
#[derive(Debug)]
struct Large {
    place: Place,
    content_hash: u64,
    bytes: u64,
    results: Box<[OperationResult]>,
}

#[derive(Debug)]
enum Answer {
    Missing,
    Small { place: Place, small: Small },
    Large(Box<Large>),
}

impl Answer {
    fn new(place: Place, results: &[OperationResultRef<'_>]) -> Self {
        if let Some(small) = Small::of(results) {
            return Self::Small { place, small };
        }
        let content_hash = results_hash(results);
        let results: Box<[OperationResult]> = results.iter().map(|result| OperationResult::from(*result)).collect();
        let values: usize = results.iter().map(|result| value_of(&result.as_result_ref()).map_or(0, <[u8]>::len)).sum();
        let bytes = (size_of::<Large>() + size_of_val(&*results) + values) as u64;
        Self::Large(Box::new(Large { place, content_hash, bytes, results }))
    }

    /// Bytes beside the place in the window.
    #[inline]
    fn boxed_bytes(&self) -> u64 {
        match self {
            Self::Missing | Self::Small { .. } => 0,
            Self::Large(large) => large.bytes,
        }
    }

    #[inline]
    fn hash(&self, client: u64, sequence: u64) -> u64 {
        let (place, content) = match self {
            Self::Missing => return 0,
            Self::Small { place, small } => (*place, small.code()),
            Self::Large(large) => (large.place, large.content_hash),
        };
        combine(combine(client, sequence), combine(place.as_u64(), content))
    }
}

fn value_of<'a>(result: &OperationResultRef<'a>) -> Option<&'a [u8]> {
    match *result {
        OperationResultRef::Value(value) | OperationResultRef::Compared { current: value, .. } => value,
        _ => None,
    }
}

/// Hash of results; kinds, flags, lengths and bytes all count.
fn results_hash(results: &[OperationResultRef<'_>]) -> u64 {
    results.iter().fold(results.len() as u64, |hash, result| {
        let code = match *result {
            OperationResultRef::Put { replaced } => 0x10 | u64::from(replaced),
            OperationResultRef::Deleted { existed } => 0x20 | u64::from(existed),
            OperationResultRef::Value(_) => 0x30,
            OperationResultRef::Compared { swapped, .. } => 0x40 | u64::from(swapped),
            OperationResultRef::Session { client } => combine(0x50, client),
            OperationResultRef::NotApplied => 0x60,
            OperationResultRef::ComparedVersion { swapped, version } => combine(0x70 | u64::from(swapped), version),
            OperationResultRef::Items { .. } => unreachable!("a range is not for the log"),
        };
        let value = value_of(result).map_or(0, |value| bytes_hash(value, value.len() as u64 + 1));
        combine(hash, combine(code, value))
    })
}

/// One session.
#[derive(Debug)]
struct Session {
    /// 0 when the slot is free.
    client: u64,
    /// All sequences below are answered and forgotten; the first of `answers` is this one's.
    acknowledged: u64,
    last_used: Place,
    answers: VecDeque<Answer>,
    bytes: u64,
    older: u32,
    newer: u32,
    /// The last snapshot that copied it or did not have to, since the session came after its beginning.
    copied_in: u32,
}

impl Session {
    fn new(client: u64, acknowledged: u64, last_used: Place, copied_in: u32) -> Self {
        let (answers, older, newer) = (VecDeque::new(), NONE, NONE);
        Self { client, acknowledged, last_used, answers, bytes: 0, older, newer, copied_in }
    }

    #[inline]
    fn header_hash(&self) -> u64 {
        combine(combine(self.client, self.acknowledged), self.last_used.as_u64())
    }
}

/// What a request in a session is to the state machine.
#[derive(Debug)]
pub(super) enum Begun<'a> {
    /// Not seen before: execute it and [`Sessions::record`] the results.
    Fresh(Handle),
    /// Seen before: this was the answer.
    Repeated(FirstAnswer<'a>),
    /// There is no such session (any more).
    Unknown,
    /// The client itself said that it has this answer.
    Acknowledged,
    /// Too far beyond the lowest unacknowledged sequence, or too many bytes kept for it.
    WindowFull,
}

/// A session found by [`Sessions::begin`], valid until the next call that opens one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Handle(u32);

/// The first answer to a repeated request.
#[derive(Clone, Copy, Debug)]
pub(super) struct FirstAnswer<'a>(&'a Answer);

impl FirstAnswer<'_> {
    /// Calls `answer` with the first place in the log and the results.
    pub(super) fn with<R>(self, answer: impl FnOnce(Place, &[OperationResultRef<'_>]) -> R) -> R {
        match self.0 {
            Answer::Missing => unreachable!("a missing answer is fresh"),
            Answer::Small { place, small } => answer(*place, &[small.result()]),
            Answer::Large(large) => {
                let results: Vec<_> = large.results.iter().map(OperationResult::as_result_ref).collect();
                answer(large.place, &results)
            }
        }
    }
}

/// All sessions of a group.
#[derive(Debug)]
pub(super) struct Sessions {
    by_client: HashMap<u64, u32, FixedState>,
    slots: Vec<Session>,
    free: Vec<u32>,
    /// Ends of the list by last use.
    oldest: u32,
    newest: u32,
    hash: u64,
    bytes: u64,
    sessions_max: usize,
    window_max: u64,
    bytes_max: u64,
    /// Number of the latest snapshot, running or not.
    epoch: u32,
    copying: Option<Copying>,
}

impl Sessions {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            by_client: HashMap::with_hasher(FixedState::with_seed(0)),
            slots: Vec::new(),
            free: Vec::new(),
            oldest: NONE,
            newest: NONE,
            hash: 0,
            bytes: 0,
            sessions_max: limits.sessions_max as usize,
            window_max: u64::from(limits.session_window_max),
            bytes_max: limits.sessions_bytes_max,
            epoch: 0,
            copying: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// XOR of the hashes of sessions and kept answers.
    pub(super) fn hash(&self) -> u64 {
        self.hash
    }

    /// Bytes of kept answers.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Opens a session for the request at `place` and answers the client's id.
    pub(super) fn open(&mut self, place: Place) -> u64 {
        while self.len() >= self.sessions_max {
            self.evict(self.oldest);
        }
        let client = place.client();
        let slot = self.insert(Session::new(client, 1, place, self.epoch));
        self.link_newest(slot);
        client
    }

    fn insert(&mut self, session: Session) -> u32 {
        self.hash ^= session.header_hash();
        let client = session.client;
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = session;
                slot
            }
            None => {
                self.slots.push(session);
                (self.slots.len() - 1) as u32
            }
        };
        let earlier = self.by_client.insert(client, slot);
        assert!(earlier.is_none(), "two requests at one place of the log");
        slot
    }

    /// Takes note of a request at `place`: the session is in use, its acknowledged answers go.
    #[inline]
    pub(super) fn begin(&mut self, client: u64, sequence: u64, acknowledged: u64, place: Place) -> Begun<'_> {
        let Some(&slot) = self.by_client.get(&client) else { return Begun::Unknown };
        self.touch(slot, acknowledged, place);
        let session = &self.slots[slot as usize];
        let Some(ahead) = sequence.checked_sub(session.acknowledged) else { return Begun::Acknowledged };
        match session.answers.get(usize::try_from(ahead).unwrap_or(usize::MAX)) {
            None | Some(Answer::Missing) => {}
            Some(answer) => return Begun::Repeated(FirstAnswer(answer)),
        }
        // The lowest sequence is always taken: acknowledging it is what frees the window.
        let full = ahead >= self.window_max || session.bytes >= self.bytes_max / 4;
        if full && ahead > 0 { Begun::WindowFull } else { Begun::Fresh(Handle(slot)) }
    }

    /// Keeps the results of a request that [`Sessions::begin`] called fresh.
    #[inline]
    pub(super) fn record(&mut self, handle: Handle, sequence: u64, place: Place, results: &[OperationResultRef<'_>]) {
        let session = &mut self.slots[handle.0 as usize];
        let ahead = (sequence - session.acknowledged) as usize;
        let answer = Answer::new(place, results);
        self.hash ^= answer.hash(session.client, sequence);
        let mut added = answer.boxed_bytes();
        if ahead >= session.answers.len() {
            added += (ahead + 1 - session.answers.len()) as u64 * ANSWER_BYTES;
            session.answers.resize_with(ahead, || Answer::Missing);
            session.answers.push_back(answer);
        } else {
            debug_assert!(matches!(session.answers[ahead], Answer::Missing));
            session.answers[ahead] = answer;
        }
        session.bytes += added;
        self.bytes += added;
        while self.bytes > self.bytes_max && self.oldest != handle.0 {
            self.evict(self.oldest);
        }
    }

    #[inline]
    fn touch(&mut self, slot: u32, acknowledged: u64, place: Place) {
        let session = &mut self.slots[slot as usize];
        if let Some(copying) = &mut self.copying {
            copy::keep(copying, session);
        }
        self.hash ^= session.header_hash();
        while session.acknowledged < acknowledged
            && let Some(answer) = session.answers.pop_front()
        {
            self.hash ^= answer.hash(session.client, session.acknowledged);
            let removed = ANSWER_BYTES + answer.boxed_bytes();
            session.bytes -= removed;
            self.bytes -= removed;
            session.acknowledged += 1;
        }
        session.acknowledged = session.acknowledged.max(acknowledged);
        session.last_used = place;
        self.hash ^= session.header_hash();
        if session.answers.capacity() > 64 && session.answers.len() * 8 < session.answers.capacity() {
            session.answers.shrink_to(session.answers.len() * 2);
        }
        if self.newest != slot {
            self.unlink(slot);
            self.link_newest(slot);
        }
    }

    fn evict(&mut self, slot: u32) {
        self.unlink(slot);
        let session = &mut self.slots[slot as usize];
        if let Some(copying) = &mut self.copying {
            copy::keep(copying, session);
        }
        self.hash ^= session.header_hash();
        for (ahead, answer) in std::mem::take(&mut session.answers).iter().enumerate() {
            self.hash ^= answer.hash(session.client, session.acknowledged + ahead as u64);
        }
        self.bytes -= session.bytes;
        self.by_client.remove(&session.client);
        session.client = 0;
        self.free.push(slot);
    }

    fn unlink(&mut self, slot: u32) {
        let (older, newer) = (self.slots[slot as usize].older, self.slots[slot as usize].newer);
        match self.slots.get_mut(older as usize) {
            Some(session) => session.newer = newer,
            None => self.oldest = newer,
        }
        match self.slots.get_mut(newer as usize) {
            Some(session) => session.older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, slot: u32) {
        let older = self.newest;
        match self.slots.get_mut(older as usize) {
            Some(session) => session.newer = slot,
            None => self.oldest = slot,
        }
        self.slots[slot as usize].older = older;
        self.slots[slot as usize].newer = NONE;
        self.newest = slot;
    }

    /// Hash and bytes computed anew from every session; the list by last use is checked on the way.
    ///
    /// # Panics
    /// When the list by last use is not in the order of last use or not complete.
    pub(super) fn recompute(&self) -> (u64, u64) {
        let (mut hash, mut bytes, mut count, mut last_used) = (0, 0, 0, Place::default());
        let mut slot = self.oldest;
        while let Some(session) = self.slots.get(slot as usize) {
            assert!(session.last_used >= last_used, "sessions are listed in the order of their use");
            assert_eq!(self.by_client.get(&session.client), Some(&slot));
            last_used = session.last_used;
            hash ^= session.header_hash();
            for (ahead, answer) in session.answers.iter().enumerate() {
                if let Answer::Large(large) = answer {
                    let results: Vec<_> = large.results.iter().map(OperationResult::as_result_ref).collect();
                    assert_eq!(results_hash(&results), large.content_hash, "a kept answer changed");
                }
                hash ^= answer.hash(session.client, session.acknowledged + ahead as u64);
                bytes += ANSWER_BYTES + answer.boxed_bytes();
            }
            count += 1;
            slot = session.newer;
        }
        assert_eq!(count, self.len(), "every session is in the list by last use");
        (hash, bytes)
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
