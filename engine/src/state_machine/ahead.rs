//! Requests of an entry, viewed a few at a time before they are applied, so that their keys are fetched together.
//!
//! Data path 8/9.
//! Invariants: every request is handed out once, in its order; what is before the first that cannot be understood is
//! handed out, what is behind it is not.

use ringraft_net::wire::{self, ArchivedRequest};

use super::ApplyError;
use crate::payload::{self, Requests};

/// Requests that are viewed together.
pub(super) const AHEAD: usize = 16;

/// Where in an entry applying is.
pub(super) struct Ahead<'a> {
    rest: Requests<'a>,
    views: [Option<&'a ArchivedRequest>; AHEAD],
    /// Position of the first of `views` in the entry.
    first: u32,
    count: u32,
    failed: Option<ApplyError>,
}

impl<'a> Ahead<'a> {
    pub(super) fn of(payload: &'a [u8]) -> Self {
        Self { rest: payload::requests(payload), views: [None; AHEAD], first: 0, count: 0, failed: None }
    }

    /// Views the next requests. `false`: there are none, and [`Ahead::end`] says why.
    #[inline]
    pub(super) fn advance(&mut self) -> bool {
        self.first += self.count;
        self.count = 0;
        while (self.count as usize) < AHEAD && self.failed.is_none() {
            let Some(archive) = self.rest.next() else { break };
            let position = self.first + self.count;
            match archive.map(wire::view_request) {
                Ok(Ok(request)) => {
                    self.views[self.count as usize] = Some(request);
                    self.count += 1;
                }
                Ok(Err(error)) => self.failed = Some(ApplyError::Request { position, error }),
                Err(error) => self.failed = Some(ApplyError::Payload(error)),
            }
        }
        self.count > 0
    }

    /// What was viewed, with the positions in the entry.
    #[inline]
    pub(super) fn requests(&self) -> impl ExactSizeIterator<Item = (u32, &'a ArchivedRequest)> {
        (self.first..self.first + self.count)
            .zip(self.views)
            .map(|(position, view)| (position, view.expect("what is counted was viewed")))
    }

    /// Whether the whole entry was understood.
    pub(super) fn end(self) -> Result<(), ApplyError> {
        self.failed.map_or(Ok(()), Err)
    }
}
