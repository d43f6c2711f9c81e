//! Completions: what became of submissions, until the caller takes them.
//!
//! Off the data path of a node.
//!
//! Values read stand one behind the other in one buffer that is used again, so that a get needs no allocation of its own.
//!
//! Invariant: completions come out in the order they went in, each once.
//!
//! It decides nothing.

use super::ClientError;
use crate::wire::{ArchivedOperationResult, OperationResult, OperationResultRef, Position};
use std::collections::VecDeque;

/// The end of one submission. Borrowed from the core until the next call to it.
#[derive(Debug)]
pub struct Completion<'a> {
    /// The tag of the submission.
    pub tag: u64,
    /// Where the request stands in the history of its group; all zero when it has no result.
    pub position: Position,
    /// The term there, see [`ReplyRef::term`](crate::wire::ReplyRef::term).
    pub term: u64,
    /// What it gave.
    pub result: Result<Results<'a>, ClientError>,
}

/// Results of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Results<'a> {
    /// Of a request of one operation.
    One(OperationResultRef<'a>),
    /// Of a request of several, in their order.
    Many(Vec<OperationResult>),
    /// Of a status request: JSON text.
    Status(String),
}

impl Results<'_> {
    /// Copies them out.
    #[must_use]
    pub fn into_owned(self) -> Vec<OperationResult> {
        match self {
            Self::One(result) => vec![result.into()],
            Self::Many(results) => results,
            Self::Status(_) => Vec::new(),
        }
    }
}

/// A result whose bytes stand in the buffer.
#[derive(Debug)]
enum Stored {
    Put { replaced: bool },
    Value(Option<(usize, usize)>),
    Deleted { existed: bool },
    Compared { swapped: bool, current: Option<(usize, usize)> },
    Session { client: u64 },
    NotApplied,
    ComparedVersion { swapped: bool, version: u64 },
    Items { items: Option<(usize, usize)>, more: bool },
    Many(Vec<OperationResult>),
    Status(String),
}

#[derive(Debug)]
struct Entry {
    tag: u64,
    position: Position,
    term: u64,
    result: Result<Stored, ClientError>,
}

/// Completions nobody has taken yet.
#[derive(Debug, Default)]
pub(super) struct Completions {
    entries: VecDeque<Entry>,
    bytes: Vec<u8>,
}

/// A buffer larger than this is given back when it is empty.
const KEPT_BYTES_MAX: usize = 1 << 20;

impl Completions {
    fn store(&mut self, bytes: Option<&[u8]>) -> Option<(usize, usize)> {
        bytes.map(|bytes| {
            self.bytes.extend_from_slice(bytes);
            (self.bytes.len() - bytes.len(), self.bytes.len())
        })
    }

    #[inline]
    pub(super) fn done(&mut self, tag: u64, (position, term): (Position, u64), results: &[ArchivedOperationResult]) {
        let stored = match results {
            [result] => match result.as_result_ref() {
                OperationResultRef::Put { replaced } => Stored::Put { replaced },
                OperationResultRef::Value(value) => Stored::Value(self.store(value)),
                OperationResultRef::Deleted { existed } => Stored::Deleted { existed },
                OperationResultRef::Compared { swapped, current } => {
                    Stored::Compared { swapped, current: self.store(current) }
                }
                OperationResultRef::Session { client } => Stored::Session { client },
                OperationResultRef::NotApplied => Stored::NotApplied,
                OperationResultRef::ComparedVersion { swapped, version } => {
                    Stored::ComparedVersion { swapped, version }
                }
                OperationResultRef::Items { items, more } => Stored::Items { items: self.store(Some(items)), more },
            },
            results => Stored::Many(results.iter().map(|result| result.as_result_ref().into()).collect()),
        };
        self.entries.push_back(Entry { tag, position, term, result: Ok(stored) });
    }

    pub(super) fn status(&mut self, tag: u64, json: String) {
        self.ended(tag, Ok(Stored::Status(json)));
    }

    pub(super) fn failed(&mut self, tag: u64, error: ClientError) {
        self.ended(tag, Err(error));
    }

    fn ended(&mut self, tag: u64, result: Result<Stored, ClientError>) {
        self.entries.push_back(Entry { tag, position: Position::default(), term: 0, result });
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) fn next(&mut self) -> Option<Completion<'_>> {
        let Some(entry) = self.entries.pop_front() else {
            self.bytes.clear();
            if self.bytes.capacity() > KEPT_BYTES_MAX {
                self.bytes = Vec::new();
            }
            return None;
        };
        let bytes = |range: Option<(usize, usize)>| range.map(|(start, end)| &self.bytes[start..end]);
        let result = entry.result.map(|stored| match stored {
            Stored::Put { replaced } => Results::One(OperationResultRef::Put { replaced }),
            Stored::Value(range) => Results::One(OperationResultRef::Value(bytes(range))),
            Stored::Deleted { existed } => Results::One(OperationResultRef::Deleted { existed }),
            Stored::Compared { swapped, current } => {
                Results::One(OperationResultRef::Compared { swapped, current: bytes(current) })
            }
            Stored::Session { client } => Results::One(OperationResultRef::Session { client }),
            Stored::NotApplied => Results::One(OperationResultRef::NotApplied),
            Stored::ComparedVersion { swapped, version } => {
                Results::One(OperationResultRef::ComparedVersion { swapped, version })
            }
            Stored::Items { items, more } => {
                Results::One(OperationResultRef::Items { items: bytes(items).unwrap_or_default(), more })
            }
            Stored::Many(results) => Results::Many(results),
            Stored::Status(json) => Results::Status(json),
        });
        Some(Completion { tag: entry.tag, position: entry.position, term: entry.term, result })
    }
}
