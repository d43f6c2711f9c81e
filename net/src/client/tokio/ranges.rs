//! The client's calls on many keys and on versions: range, prefix, get with version, compare version and set or delete.
//!
//! Off the data path of a node.
//!
//! Invariant: as in `operations.rs`, an answer of another shape is an error, never a value.
//!
//! It sends nothing itself: `tokio.rs` does; in which order keys of several groups come, `pages.rs` decides.

use super::operations::unexpected;
use super::{Answer, Client, ClientError};
use crate::client::pages::{Merge, key_behind};
use crate::client::{KeyValue, RangePage, RangeQuery};
use crate::slots;
use crate::wire::items::{self, ItemsError};
use crate::wire::{Consistency, Operation, OperationResult};

/// Groups asked at once by one listing.
const ASKED_MAX: usize = 64;

/// What became of a compare-version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionCompared {
    /// The version was as expected: the key is set or removed.
    pub swapped: bool,
    /// The key's version now; 0: it has no value.
    pub version: u64,
}

impl Client {
    /// Lists keys of all groups in their order, one page of them; [`RangePage::next`] is where the next page begins.
    ///
    /// Each group is read at a moment of its own: writes that are under way may be seen in one and not in another.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn range(&self, query: &RangeQuery) -> Result<RangePage, ClientError> {
        self.range_with(query, Consistency::Linearizable, 0).await
    }

    /// Lists the keys that begin with `prefix`, at most `limit`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn prefix(&self, prefix: impl Into<Vec<u8>>, limit: u32) -> Result<RangePage, ClientError> {
        self.range(&RangeQuery::prefix(prefix).limit(limit)).await
    }

    /// As [`Client::range`], as fresh as is asked for; `max_staleness_ms` bounds the age of a stale read, 0 does not.
    ///
    /// The page as a whole takes the client's `request_timeout` at most, however often its groups have to be asked.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn range_with(
        &self,
        query: &RangeQuery,
        consistency: Consistency,
        max_staleness_ms: u32,
    ) -> Result<RangePage, ClientError> {
        let time_left = self.time_left();
        let mut merge = Merge::new(query, self.known_info().await?.groups);
        loop {
            let questions = merge.questions();
            if questions.is_empty() {
                return Ok(merge.into_page());
            }
            for some in questions.chunks(ASKED_MAX) {
                let mut answers = Vec::with_capacity(some.len());
                for (group, operation) in some {
                    let left = Some(time_left());
                    let asked = self.begin(vec![operation.clone()], consistency, max_staleness_ms, left).await?;
                    answers.push((*group, asked));
                }
                for (group, answer) in answers {
                    let (items, more) = listed(Self::end(answer).await?)?.value;
                    merge.answer(group, &items, more).map_err(malformed)?;
                }
            }
            merge.go_on();
        }
    }

    /// Reads a key with its version, as fresh as is asked for; `max_staleness_ms` bounds the age of a stale read, 0 does
    /// not.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_versioned(
        &self,
        key: impl Into<Vec<u8>>,
        consistency: Consistency,
        max_staleness_ms: u32,
    ) -> Result<Answer<Option<KeyValue>>, ClientError> {
        let (start, time_left) = (key.into(), self.time_left());
        let group = slots::group_of_key(&start, self.known_info().await?.groups);
        let operation = Operation::Range { group, end: key_behind(&start), start, limit: 1, keys_only: false };
        let left = Some(time_left());
        let answer = listed(self.request_with(vec![operation], consistency, max_staleness_ms, left).await?)?;
        let first = items::items(&answer.value.0).next().transpose().map_err(malformed)?;
        Ok(Answer { value: first.map(KeyValue::from), position: answer.position, term: answer.term })
    }

    /// Sets a key when its version is `expected` (0: it is absent).
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn compare_version_and_set(
        &self,
        key: impl Into<Vec<u8>>,
        expected: u64,
        value: impl Into<Vec<u8>>,
    ) -> Result<Answer<VersionCompared>, ClientError> {
        self.compare_version(key.into(), expected, Some(value.into())).await
    }

    /// Removes a key when its version is `expected`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn compare_version_and_delete(
        &self,
        key: impl Into<Vec<u8>>,
        expected: u64,
    ) -> Result<Answer<VersionCompared>, ClientError> {
        self.compare_version(key.into(), expected, None).await
    }

    async fn compare_version(
        &self,
        key: Vec<u8>,
        version: u64,
        value: Option<Vec<u8>>,
    ) -> Result<Answer<VersionCompared>, ClientError> {
        let operation = Operation::CompareVersion { key, version, value };
        let answer = self.one(operation).await?;
        match answer.value {
            OperationResult::ComparedVersion { swapped, version } => {
                Ok(Answer { value: VersionCompared { swapped, version }, position: answer.position, term: answer.term })
            }
            other => Err(unexpected(&other)),
        }
    }
}

/// The list in the answer to a range, and whether more follows.
fn listed(answer: Answer<Vec<OperationResult>>) -> Result<Answer<(Vec<u8>, bool)>, ClientError> {
    let answer = super::operations::only(answer)?;
    match answer.value {
        OperationResult::Items { items, more } => {
            Ok(Answer { value: (items, more), position: answer.position, term: answer.term })
        }
        other => Err(unexpected(&other)),
    }
}

fn malformed(error: ItemsError) -> ClientError {
    ClientError::BadRequest { message: error.to_string() }
}
