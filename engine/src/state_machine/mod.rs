//! The state machine of one group: keys, values and sessions, changed by nothing but the log.
//!
//! Data path 8/9.
//! Invariants: the state is a function of the applied log and of [`Limits`] (no clock, no randomness, no order of a hash
//! map); entries are applied strictly by index; a request takes effect as a whole or not at all, and in a session at most
//! once; `digest` is kept as it goes and costs no pass over the state.
//! Applying one put into a value with room allocates nothing.
//! It does no I/O, and does not know who waits for an answer.
//!
//! ```text
//!  entry payload -> payload::requests -> wire::view_request -> [session: seen? expired?] -> store -> [session: keep]
//!                                                                        |                    |
//!                                                                        '---> reply(position, outcome) borrowing both
//! ```

mod ahead;
mod copying;
mod digest;
mod load;
mod recent;
mod records;
mod session;
mod snapshot;
mod store;
mod transaction;

use ringraft_net::limits::Limits as WireLimits;
use ringraft_net::wire::items::ItemRef;
use ringraft_net::wire::{self, ArchivedRequest, OperationRef, OperationResultRef, OutcomeRef, Position, RequestClass};
use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, GroupId, Index, Term};

use self::ahead::Ahead;
pub use self::digest::StateDigest;
pub use self::load::{LoadError, LoadProblem, StateLoader};
pub(crate) use self::recent::{Cursor, PortionBounds, Recent};
pub use self::records::RecordError;
use self::session::{Begun, Place, Sessions};
pub use self::snapshot::{SnapshotHead, SnapshotRuns};
use self::store::{Listing, Store};
use crate::limits::Limits;
use crate::payload::PayloadError;

/// What became of a request, borrowed from the state machine, ready to be encoded.
pub type Applied<'a> = OutcomeRef<'a>;

/// When a client whose session is full should try again.
const WINDOW_RETRY_AFTER_US: u64 = 1_000;

/// Why a committed entry cannot be applied. The node must stop: going on would lose what others have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// The payload is not a sequence of requests.
    #[error("its payload is malformed: {0}")]
    Payload(#[from] PayloadError),
    /// A request's bytes are not an archive of one.
    #[error("request {position} of it cannot be understood: {error}")]
    Request {
        /// Which request of the entry.
        position: u32,
        /// What the view said.
        error: wire::WireError,
    },
}

impl ApplyError {
    /// The same bytes will never be understood.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// The node must not go on.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }
}

/// The state of one group.
#[derive(Debug)]
pub struct StateMachine {
    group: u32,
    wire_limits: WireLimits,
    answer_bytes_max: usize,
    last_applied: EntryId,
    store: Store,
    sessions: Sessions,
    /// `None`: nobody can watch.
    recent: Option<Box<Recent>>,
}

impl StateMachine {
    /// The empty state before index 1.
    #[must_use]
    pub fn new(group: GroupId, limits: Limits) -> Self {
        Self {
            group: group.0,
            wire_limits: limits.client(),
            answer_bytes_max: limits.answer_bytes_max as usize,
            last_applied: EntryId::ZERO,
            store: Store::new(),
            sessions: Sessions::new(&limits),
            recent: None,
        }
    }

    /// Keeps the latest changes from now on, in about `bytes_max` of memory.
    pub fn keep_recent(&mut self, bytes_max: usize) {
        self.recent = Some(Box::new(Recent::new(bytes_max, self.last_applied.index + 1)));
    }

    /// The latest changes, when they are kept.
    pub(crate) fn recent(&self) -> Option<&Recent> {
        self.recent.as_deref()
    }

    /// Index of the last applied entry.
    #[must_use]
    pub fn last_applied(&self) -> Index {
        self.last_applied.index
    }

    /// The last applied entry.
    #[must_use]
    pub fn last_applied_id(&self) -> EntryId {
        self.last_applied
    }

    /// Live keys.
    #[must_use]
    pub fn key_count(&self) -> usize {
        self.store.len()
    }

    /// Open sessions.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes of keys, values and kept answers, without the tables around them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.store.bytes() + self.sessions.bytes()
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        self.store.get(key)
    }

    /// The hash of the state as it is; replicas that applied the same index have the same.
    #[must_use]
    pub fn digest(&self) -> StateDigest {
        let hash = digest::combine(self.store.hash(), self.sessions.hash());
        StateDigest { index: self.last_applied.index, hash }
    }

    /// The digest computed anew from the whole state; a check for tests and debugging, not for the data path.
    ///
    /// # Panics
    /// When the sessions' bookkeeping is inconsistent.
    #[must_use]
    pub fn recompute_digest(&self) -> StateDigest {
        let (sessions_hash, sessions_bytes) = self.sessions.recompute();
        assert_eq!(sessions_bytes, self.sessions.bytes(), "bytes of kept answers");
        let hash = digest::combine(self.store.recompute_hash(), sessions_hash);
        StateDigest { index: self.last_applied.index, hash }
    }

    /// Applies one committed entry and calls `reply` once per request, in their order, with the place of the request in
    /// the log and what became of it. For a repeated request of a session that is the first place and the first answer.
    ///
    /// An empty payload (a leader's first entry) changes nothing but `last_applied`.
    ///
    /// # Errors
    /// When the payload cannot be understood; requests before the damage have been applied, `last_applied` stays.
    ///
    /// # Panics
    /// When the entry is not the next one.
    pub fn apply_entry(
        &mut self,
        index: Index,
        term: Term,
        payload: &[u8],
        mut reply: impl FnMut(Position, Applied<'_>),
    ) -> Result<(), ApplyError> {
        assert_eq!(index, self.last_applied.index + 1, "entries are applied one after the other");
        if let Some(recent) = &mut self.recent {
            recent.begin(index);
        }
        let mut ahead = Ahead::of(payload);
        while ahead.advance() {
            if ahead.requests().len() > 1 {
                self.store.fetch(ahead.requests().filter_map(|(_, request)| request.operations().next()?.key()));
            }
            for (position, request) in ahead.requests() {
                self.apply(index, position, request, &mut reply);
            }
        }
        ahead.end()?;
        self.last_applied = EntryId { term, index };
        Ok(())
    }

    /// Moves past an entry without applying it: the bug of [`Mutant::AppliedAheadOfData`].
    pub(crate) fn pass_over(&mut self, index: Index) {
        self.last_applied.index = index;
    }

    /// Applies one request. Everything it needs to decide is in the log: what the leader checked is checked again.
    #[inline]
    fn apply(
        &mut self,
        index: Index,
        position: u32,
        request: &ArchivedRequest,
        reply: &mut impl FnMut(Position, Applied<'_>),
    ) {
        let place = Place::new(index, position);
        let at = Position { group: self.group, index, position };
        match wire::validate_request(request, &self.wire_limits) {
            Ok(RequestClass::OpenSession) => {
                let client = self.sessions.open(place);
                return reply(at, OutcomeRef::Done(&[OperationResultRef::Session { client }]));
            }
            Ok(RequestClass::Read | RequestClass::Write) => {}
            Err(error) => return reply(at, OutcomeRef::BadRequest { message: &error.to_string() }),
        }
        let client = request.client.to_native();
        if client == 0 || is_active(Mutant::RetryAppliedTwice) {
            return self.execute(place, request, |_, outcome| reply(at, outcome));
        }
        let (sequence, acknowledged) = (request.sequence.to_native(), request.acknowledged.to_native());
        match self.sessions.begin(client, sequence, acknowledged, place) {
            Begun::Fresh(handle) => self.execute(place, request, |sessions, outcome| {
                if let OutcomeRef::Done(results) = outcome {
                    sessions.record(handle, sequence, place, results);
                }
                reply(at, outcome);
            }),
            Begun::Repeated(answer) => answer.with(|first, results| {
                let at = Position { group: self.group, index: first.index(), position: first.position() };
                reply(at, OutcomeRef::Done(results));
            }),
            Begun::Unknown => reply(at, OutcomeRef::SessionExpired),
            Begun::Acknowledged => reply(at, OutcomeRef::TooStale),
            Begun::WindowFull => reply(at, OutcomeRef::Overloaded { retry_after_us: WINDOW_RETRY_AFTER_US }),
        }
    }

    /// Lets a request take effect and hands its outcome, borrowed from the store, to `done`.
    #[inline]
    fn execute(&mut self, place: Place, request: &ArchivedRequest, done: impl FnOnce(&mut Sessions, Applied<'_>)) {
        let Self { store, sessions, recent, .. } = self;
        let mut operations = request.operations();
        if operations.len() == 1
            && let Some(operation) = operations.next()
        {
            if let OperationRef::Range { .. } = operation {
                return done(sessions, OutcomeRef::BadRequest { message: "a range is not for the log" });
            }
            let result = execute_one(store, operation, place.as_u64());
            note_change(recent, &operation, &result, place.as_u64());
            return done(sessions, OutcomeRef::Done(&[result]));
        }
        match transaction::execute(store, request, place.as_u64(), self.answer_bytes_max) {
            Ok(results) => {
                let results: Vec<_> = results.iter().map(wire::OperationResult::as_result_ref).collect();
                for (operation, result) in request.operations().zip(&results) {
                    note_change(recent, &operation, result, place.as_u64());
                }
                done(sessions, OutcomeRef::Done(&results));
            }
            Err(error) => done(sessions, OutcomeRef::BadRequest { message: &error.to_string() }),
        }
    }

    /// The value of a key.
    pub(crate) fn value(&self, key: &[u8]) -> Option<&[u8]> {
        self.store.get(key)
    }

    /// Whether the keys must be put in order before [`StateMachine::read`] can answer this request.
    #[must_use]
    pub fn wants_order(&self, request: &ArchivedRequest) -> bool {
        let listing = request.operations().next().as_ref().and_then(listing_of);
        listing.is_some_and(|listing| !listing.is_of_one_key() && !self.store.is_ordered())
    }

    /// Goes on with putting the keys in order, a bounded amount of work; answers whether they all are. They stay so.
    pub fn build_order(&mut self) -> bool {
        self.store.build_order()
    }

    /// Answers a request of gets, or a range, from the state as it is.
    ///
    /// # Panics
    /// When [`StateMachine::wants_order`].
    pub fn read(&self, request: &ArchivedRequest, reply: impl FnOnce(Applied<'_>)) {
        let mut operations = request.operations();
        let (count, first) = (operations.len(), operations.next());
        if let (1, Some(OperationRef::Get { key })) = (count, first) {
            return reply(OutcomeRef::Done(&[OperationResultRef::Value(self.store.get(key))]));
        }
        match wire::validate_request(request, &self.wire_limits) {
            Ok(RequestClass::Read) => {}
            Ok(_) => return reply(OutcomeRef::BadRequest { message: "a request that writes is not a read" }),
            Err(error) => return reply(OutcomeRef::BadRequest { message: &error.to_string() }),
        }
        if let Some(listing) = first.as_ref().and_then(listing_of) {
            let mut items = Vec::new();
            let more = self.store.list(&listing, &mut items);
            return reply(OutcomeRef::Done(&[OperationResultRef::Items { items: &items, more }]));
        }
        match transaction::read(&self.store, request, self.answer_bytes_max) {
            Ok(results) => reply(OutcomeRef::Done(&results)),
            Err(error) => reply(OutcomeRef::BadRequest { message: &error.to_string() }),
        }
    }
}

/// Executes the only operation of a request.
#[inline]
fn execute_one<'a>(store: &'a mut Store, operation: OperationRef<'_>, version: u64) -> OperationResultRef<'a> {
    match operation {
        OperationRef::Put { key, value } => OperationResultRef::Put { replaced: store.put(key, value, version) },
        OperationRef::Get { key } => OperationResultRef::Value(store.get(key)),
        OperationRef::Delete { key } => OperationResultRef::Deleted { existed: store.delete(key) },
        OperationRef::CompareAndSet { key, expected, value } => {
            let swapped = store.get(key) == expected;
            if swapped {
                store.put(key, value, version);
            }
            let current = if swapped { None } else { store.get(key) };
            OperationResultRef::Compared { swapped, current }
        }
        OperationRef::CompareVersion { key, version: expected, value } => {
            let found = store.version(key);
            if found != expected {
                return OperationResultRef::ComparedVersion { swapped: false, version: found };
            }
            match value {
                Some(value) => _ = store.put(key, value, version),
                None => _ = store.delete(key),
            }
            OperationResultRef::ComparedVersion { swapped: true, version: value.map_or(0, |_| version) }
        }
        OperationRef::OpenSession { .. } | OperationRef::Range { .. } => unreachable!("handled before"),
    }
}

/// What a range lists.
#[inline]
fn listing_of<'a>(operation: &OperationRef<'a>) -> Option<Listing<'a>> {
    match *operation {
        OperationRef::Range { start, end, limit, keys_only, .. } => Some(Listing { start, end, limit, keys_only }),
        _ => None,
    }
}

/// Keeps what an operation changed, if it changed anything, for those who watch.
#[inline]
fn note_change(
    recent: &mut Option<Box<Recent>>,
    operation: &OperationRef<'_>,
    result: &OperationResultRef<'_>,
    version: u64,
) {
    let Some(recent) = recent else { return };
    let (key, value) = match (*operation, *result) {
        (OperationRef::Put { key, value }, OperationResultRef::Put { .. })
        | (OperationRef::CompareAndSet { key, value, .. }, OperationResultRef::Compared { swapped: true, .. }) => {
            (key, Some(value))
        }
        (OperationRef::Delete { key }, OperationResultRef::Deleted { existed: true }) => (key, None),
        (
            OperationRef::CompareVersion { key, version: found, value },
            OperationResultRef::ComparedVersion { swapped, .. },
        ) if swapped && (found != 0 || value.is_some()) => (key, value),
        _ => return,
    };
    recent.note(&ItemRef { key, value, version });
}

#[cfg(test)]
mod tests;
