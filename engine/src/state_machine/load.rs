//! Loading a snapshot: the bytes of a stream, cut anywhere, become a state machine.
//!
//! Off the data path.
//! Invariants: no bytes make it panic; a length is held against the limits before memory is taken for it, and what it
//! buffers is at most one record; the state that comes out has the counts and the hash of the head, or there is none.
//! It knows nothing of files and chunks; `crate::snapshot` does.

use ringraft_raft::mutants::{Mutant, is_active};
use ringraft_raft::{EntryId, GroupId};

use super::records::{self, Bounds, Record};
use super::session::SessionsLoader;
use super::store::Store;
use super::{RecordError, SnapshotHead, StateMachine};
use crate::limits::Limits;

/// Why a snapshot cannot be loaded. It is of no use; another one may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the snapshot's stream is wrong at byte {offset}: {problem}")]
pub struct LoadError {
    /// Where in the stream the record begins.
    pub offset: u64,
    /// What is wrong.
    pub problem: LoadProblem,
}

impl LoadError {
    /// The same bytes will never be a state.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }

    /// Another snapshot may do.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        false
    }
}

/// What is wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadProblem {
    /// Bytes that are no record.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A version is of an entry behind the snapshot.
    #[error("a key was written by entry {index}, behind the snapshot's last one")]
    Version {
        /// The index.
        index: u64,
    },
    /// A key stands there twice.
    #[error("a key comes a second time")]
    KeyTwice,
    /// More keys than the head says.
    #[error("more than the {key_count} keys of its head")]
    Keys {
        /// What the head says.
        key_count: u64,
    },
    /// A session contradicts itself, the others or the head.
    #[error("the session of client {client} has places or counts that cannot be")]
    Session {
        /// Whose.
        client: u64,
    },
    /// A session stands there twice.
    #[error("the session of client {client} comes a second time")]
    SessionTwice {
        /// Whose.
        client: u64,
    },
    /// More sessions than a group may have.
    #[error("more than {sessions_max} sessions; was the cluster made with another `sessions_max`?")]
    SessionsMax {
        /// The limit.
        sessions_max: usize,
    },
    /// More kept answers than a group may have.
    #[error("the answers in its sessions take more than {bytes_max} bytes")]
    SessionsBytesMax {
        /// The limit.
        bytes_max: u64,
    },
    /// An answer that no session can have.
    #[error("the answer {ahead} ahead in the session of client {client} is out of order or out of bounds")]
    Answer {
        /// Whose.
        client: u64,
        /// Which.
        ahead: u32,
    },
    /// An answer without a session before it.
    #[error("an answer without its session")]
    StrayAnswer,
    /// Another record where an answer should stand.
    #[error("{left} answers of the session before are missing")]
    MissingAnswers {
        /// How many.
        left: u32,
    },
    /// The head names a place that no log has.
    #[error("its head is as of index {index}, beyond any log")]
    Index {
        /// The index.
        index: u64,
    },
    /// The stream ends in the middle of a record.
    #[error("it ends {bytes} bytes into a record")]
    Unfinished {
        /// What there is of it.
        bytes: usize,
    },
    /// Fewer or more parts than the head says.
    #[error("it has {found} {what} but its head says {expected}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many came.
        found: u64,
        /// How many should.
        expected: u64,
    },
    /// The state is not the one the head speaks of.
    #[error("the loaded state has the hash {found:016x} but its head says {expected:016x}")]
    Hash {
        /// Of what was loaded.
        found: u64,
        /// Of the head.
        expected: u64,
    },
}

/// Indexes are below, see `session`.
const INDEX_END: u64 = 1 << 48;

/// A state machine in the making.
#[derive(Debug)]
pub struct StateLoader {
    group: GroupId,
    limits: Limits,
    head: SnapshotHead,
    bounds: Bounds,
    store: Store,
    sessions: SessionsLoader,
    /// The beginning of a record whose end has not come.
    partial: Vec<u8>,
    /// Bytes of the stream before `partial`.
    offset: u64,
}

impl StateLoader {
    /// The beginning of a stream with this head.
    #[must_use]
    pub fn new(group: GroupId, limits: Limits, head: SnapshotHead) -> Self {
        Self {
            group,
            limits,
            head,
            bounds: Bounds::new(&limits),
            store: Store::new(),
            sessions: SessionsLoader::new(&limits, head.last.index),
            partial: Vec::new(),
            offset: 0,
        }
    }

    /// Takes the next bytes of the stream.
    ///
    /// # Errors
    /// When they cannot be part of a snapshot. The loader is of no use then.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), LoadError> {
        while !self.partial.is_empty() {
            let wanted = self.wanted(&self.partial)?;
            let (taken, rest) = bytes.split_at(bytes.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(taken);
            bytes = rest;
            if self.partial.len() < wanted {
                return Ok(());
            }
            if self.wanted(&self.partial)? == wanted {
                let mut record = std::mem::take(&mut self.partial);
                self.record(&record)?;
                record.clear();
                self.partial = record;
            }
        }
        while !bytes.is_empty() {
            let wanted = self.wanted(bytes)?;
            let Some((record, rest)) = bytes.split_at_checked(wanted) else { break };
            self.record(record)?;
            bytes = rest;
        }
        self.partial.extend_from_slice(bytes);
        Ok(())
    }

    fn wanted(&self, bytes: &[u8]) -> Result<usize, LoadError> {
        records::wanted(bytes, &self.bounds).map_err(|error| self.error(error.into()))
    }

    fn error(&self, problem: LoadProblem) -> LoadError {
        LoadError { offset: self.offset, problem }
    }

    fn record(&mut self, record: &[u8]) -> Result<(), LoadError> {
        self.take(records::decode(record)).map_err(|problem| self.error(problem))?;
        self.offset += record.len() as u64;
        Ok(())
    }

    fn take(&mut self, record: Record<'_>) -> Result<(), LoadProblem> {
        let left = self.sessions.answers_left();
        if left > 0 && !matches!(record, Record::Answer { .. }) {
            return Err(LoadProblem::MissingAnswers { left });
        }
        match record {
            Record::Key { key, value, version } => self.key(key, value, version),
            Record::Session { client, acknowledged, last_used, answers } => {
                self.sessions.session(client, acknowledged, last_used, answers)
            }
            Record::Answer { ahead, place, body } => {
                let results = records::results(body, self.sessions.operations_max())?;
                self.sessions.answer(ahead, place, &results)
            }
        }
    }

    fn key(&mut self, key: &[u8], value: &[u8], version: u64) -> Result<(), LoadProblem> {
        let (index, key_count) = (version >> 16, self.head.key_count);
        if index > self.head.last.index {
            return Err(LoadProblem::Version { index });
        }
        if self.store.len() as u64 >= key_count {
            return Err(LoadProblem::Keys { key_count });
        }
        if self.store.load(key, value, version) { Ok(()) } else { Err(LoadProblem::KeyTwice) }
    }

    /// The state, when everything came that the head speaks of.
    ///
    /// # Errors
    /// When it is not what the head says.
    pub fn finish(self) -> Result<StateMachine, LoadError> {
        let Self { group, limits, head, store, sessions, partial, offset, .. } = self;
        let error = |problem| LoadError { offset, problem };
        if head.last.index >= INDEX_END {
            return Err(error(LoadProblem::Index { index: head.last.index }));
        }
        if !partial.is_empty() {
            return Err(error(LoadProblem::Unfinished { bytes: partial.len() }));
        }
        if sessions.answers_left() > 0 {
            return Err(error(LoadProblem::MissingAnswers { left: sessions.answers_left() }));
        }
        let mut sessions = sessions.finish().map_err(error)?;
        let unchecked = is_active(Mutant::SessionsNotInSnapshot) || is_active(Mutant::SnapshotWithoutPreImages);
        if is_active(Mutant::SessionsNotInSnapshot) {
            sessions = StateMachine::new(group, limits).sessions;
        }
        let last_applied: EntryId = head.last;
        let machine = StateMachine { last_applied, store, sessions, ..StateMachine::new(group, limits) };
        if unchecked {
            return Ok(machine);
        }
        let found = machine.snapshot_head();
        let counts = [("keys", found.key_count, head.key_count), ("sessions", found.session_count, head.session_count)];
        if let Some(&(what, found, expected)) = counts.iter().find(|(_, found, expected)| found != expected) {
            return Err(error(LoadProblem::Count { what, found, expected }));
        }
        if found.state_hash != head.state_hash {
            return Err(error(LoadProblem::Hash { found: found.state_hash, expected: head.state_hash }));
        }
        Ok(machine)
    }
}
