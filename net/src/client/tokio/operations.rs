//! The client's calls on single keys: put, get, delete, compare and set.
//!
//! Off the data path of a node.
//!
//! Invariant: each is one request of one operation, its answer typed; one of another shape is an error, never a value.
//!
//! It sends nothing itself: `tokio.rs` does.

use super::{Answer, Client, ClientError};
use crate::wire::{Consistency, Operation, OperationResult};

impl Client {
    /// Sets a key; whether it had a value.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn put(&self, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) -> Result<Answer<bool>, ClientError> {
        let answer = self.one(Operation::Put { key: key.into(), value: value.into() }).await?;
        match answer.value {
            OperationResult::Put { replaced } => {
                Ok(Answer { value: replaced, position: answer.position, term: answer.term })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Reads a key, at least as new as everything acknowledged before.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, key: impl Into<Vec<u8>>) -> Result<Answer<Option<Vec<u8>>>, ClientError> {
        self.get_with(key, Consistency::Linearizable, 0).await
    }

    /// Reads a key from any replica, as it has it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_stale(&self, key: impl Into<Vec<u8>>) -> Result<Answer<Option<Vec<u8>>>, ClientError> {
        self.get_with(key, Consistency::Stale, 0).await
    }

    /// Reads a key as fresh as is asked for; `max_staleness_ms` bounds the age of a stale read, 0 does not.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get_with(
        &self,
        key: impl Into<Vec<u8>>,
        consistency: Consistency,
        max_staleness_ms: u32,
    ) -> Result<Answer<Option<Vec<u8>>>, ClientError> {
        let operations = vec![Operation::Get { key: key.into() }];
        let answer = only(self.request_with(operations, consistency, max_staleness_ms, None).await?)?;
        match answer.value {
            OperationResult::Value(value) => Ok(Answer { value, position: answer.position, term: answer.term }),
            other => Err(unexpected(&other)),
        }
    }

    /// Removes a key; whether it had a value.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete(&self, key: impl Into<Vec<u8>>) -> Result<Answer<bool>, ClientError> {
        let answer = self.one(Operation::Delete { key: key.into() }).await?;
        match answer.value {
            OperationResult::Deleted { existed } => {
                Ok(Answer { value: existed, position: answer.position, term: answer.term })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Sets a key when its value is `expected` (`None`: absent); `Err` in the answer is the value found instead.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn compare_and_set(
        &self,
        key: impl Into<Vec<u8>>,
        expected: Option<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Answer<Result<(), Option<Vec<u8>>>>, ClientError> {
        let operation = Operation::CompareAndSet { key: key.into(), expected, value: value.into() };
        let answer = self.one(operation).await?;
        match answer.value {
            OperationResult::Compared { swapped, current } => Ok(Answer {
                value: if swapped { Ok(()) } else { Err(current) },
                position: answer.position,
                term: answer.term,
            }),
            other => Err(unexpected(&other)),
        }
    }

    pub(super) async fn one(&self, operation: Operation) -> Result<Answer<OperationResult>, ClientError> {
        only(self.request(vec![operation], Consistency::Linearizable).await?)
    }
}

/// The answer to a request of one operation.
pub(super) fn only(answer: Answer<Vec<OperationResult>>) -> Result<Answer<OperationResult>, ClientError> {
    let (position, term) = (answer.position, answer.term);
    let first = answer.value.into_iter().next();
    let message = || ClientError::BadRequest { message: String::from("answered without a result") };
    Ok(Answer { value: first.ok_or_else(message)?, position, term })
}

pub(super) fn unexpected(result: &OperationResult) -> ClientError {
    ClientError::BadRequest { message: format!("answered another operation: {result:?}") }
}
