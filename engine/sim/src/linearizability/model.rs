//! What the state machine promises, written down once more: the sequential meaning of operations, with undo.
//!
//! Off the data path.
//! Deliberately not the production state machine: two readings of the same promise check each other.
//!
//! Invariants: `undo_to(mark)` restores exactly the state at `mark()`; the fingerprint is a function of the keys and values
//! alone, not of the way to them.
//! It knows neither sessions nor positions, and no bound on the size of answers (an answer that is too large is an error to
//! the client and no effect).

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ringraft_net::wire::{Operation, OperationResult, OperationResultRef};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

/// Keys and values of one group, or of some of its keys.
#[derive(Debug)]
pub(super) struct Model<'a> {
    values: HashMap<&'a [u8], &'a [u8], FixedState>,
    undo: Vec<(&'a [u8], Option<&'a [u8]>)>,
    fingerprint: u128,
}

/// A call whose results the model contradicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// Which operation of the call.
    pub(super) operation: usize,
    /// What it should have given.
    pub(super) expected: OperationResult,
}

/// A compare-and-set that found another value: the request has no effect.
#[derive(Clone, Copy)]
struct Refused<'a> {
    operation: usize,
    current: Option<&'a [u8]>,
}

impl<'a> Model<'a> {
    pub(super) fn new() -> Self {
        Self { values: HashMap::with_hasher(FixedState::with_seed(0)), undo: Vec::new(), fingerprint: 0 }
    }

    /// Identifies the state; equal states have equal fingerprints.
    pub(super) fn fingerprint(&self) -> u128 {
        self.fingerprint
    }

    /// Where [`Model::undo_to`] can go back to.
    pub(super) fn mark(&self) -> usize {
        self.undo.len()
    }

    /// Takes back everything since `mark`.
    pub(super) fn undo_to(&mut self, mark: usize) {
        while self.undo.len() > mark
            && let Some((key, previous)) = self.undo.pop()
        {
            self.replace(key, previous);
        }
    }

    /// Nothing before now will be taken back.
    pub(super) fn forget_undo(&mut self) {
        self.undo.clear();
    }

    /// Applies a call and holds its results against the model.
    ///
    /// # Errors
    /// The first contradiction; the state is as before then.
    pub(super) fn apply(&mut self, operations: &'a [Operation], results: &[OperationResult]) -> Result<(), Mismatch> {
        let mark = self.mark();
        let mut contradiction = None;
        let mut refused = None;
        for (at, operation) in operations.iter().enumerate() {
            match self.execute(at, operation, &results[at]) {
                Ok(expected) if contradiction.is_none() && results[at].as_result_ref() != expected => {
                    contradiction = Some(Mismatch { operation: at, expected: expected.into() });
                }
                Ok(_) => {}
                Err(failure) => {
                    refused = Some(failure);
                    break;
                }
            }
        }
        if let Some(refused) = refused {
            self.undo_to(mark);
            contradiction = contradiction_of_refused(refused, results);
        }
        if let Some(mismatch) = contradiction {
            self.undo_to(mark);
            return Err(mismatch);
        }
        Ok(())
    }

    /// Lets a call take effect whose results nobody knows. Tells whether the state changed.
    pub(super) fn apply_unknown(&mut self, operations: &'a [Operation]) -> bool {
        let (mark, before) = (self.mark(), self.fingerprint);
        for (at, operation) in operations.iter().enumerate() {
            if self.execute(at, operation, &OperationResult::NotApplied).is_err() {
                self.undo_to(mark);
                return false;
            }
        }
        self.fingerprint != before
    }

    /// One operation. The given result matters only for opening a session, whose id the model does not choose.
    fn execute(
        &mut self,
        at: usize,
        operation: &'a Operation,
        given: &OperationResult,
    ) -> Result<OperationResultRef<'a>, Refused<'a>> {
        Ok(match operation {
            Operation::Put { key, value } => OperationResultRef::Put { replaced: self.set(key, Some(value)).is_some() },
            Operation::Get { key } => OperationResultRef::Value(self.get(key)),
            Operation::Delete { key } => OperationResultRef::Deleted { existed: self.set(key, None).is_some() },
            Operation::CompareAndSet { key, expected, value } => {
                let current = self.get(key);
                if current != expected.as_deref() {
                    return Err(Refused { operation: at, current });
                }
                self.set(key, Some(value));
                OperationResultRef::Compared { swapped: true, current: None }
            }
            Operation::OpenSession { .. } => match given {
                OperationResult::Session { client } => OperationResultRef::Session { client: *client },
                _ => OperationResultRef::Session { client: 0 },
            },
            // The model has no versions and no order; calls with these are refused as malformed before.
            Operation::CompareVersion { .. } | Operation::Range { .. } => {
                return Err(Refused { operation: at, current: None });
            }
        })
    }

    fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.values.get(key).copied()
    }

    fn set(&mut self, key: &'a [u8], value: Option<&'a [u8]>) -> Option<&'a [u8]> {
        let previous = self.replace(key, value);
        self.undo.push((key, previous));
        previous
    }

    fn replace(&mut self, key: &'a [u8], value: Option<&'a [u8]>) -> Option<&'a [u8]> {
        let previous = match value {
            Some(value) => self.values.insert(key, value),
            None => self.values.remove(key),
        };
        if previous != value {
            let key_hash = xxh3_64(key);
            for value in [previous, value].into_iter().flatten() {
                self.fingerprint ^= xxh3_128_with_seed(value, key_hash);
            }
        }
        previous
    }
}

/// A refused request says `NotApplied` everywhere but at the compare-and-set that refused it.
fn contradiction_of_refused(refused: Refused<'_>, results: &[OperationResult]) -> Option<Mismatch> {
    results.iter().enumerate().find_map(|(at, result)| {
        let expected = if at == refused.operation {
            OperationResultRef::Compared { swapped: false, current: refused.current }
        } else {
            OperationResultRef::NotApplied
        };
        (result.as_result_ref() != expected).then(|| Mismatch { operation: at, expected: expected.into() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str, value: &str) -> Operation {
        Operation::Put { key: key.into(), value: value.into() }
    }

    fn compare(key: &str, expected: Option<&str>, value: &str) -> Operation {
        Operation::CompareAndSet { key: key.into(), expected: expected.map(Into::into), value: value.into() }
    }

    #[test]
    fn a_refused_request_has_no_effect_and_says_so() {
        let (first, refused) = ([put("a", "1")], [put("a", "2"), put("b", "3"), compare("a", Some("1"), "4")]);
        let mut model = Model::new();
        assert_eq!(model.apply(&first, &[OperationResult::Put { replaced: false }]), Ok(()));
        let current = Some(b"2".to_vec());
        let mut results = vec![OperationResult::NotApplied; 3];
        results[2] = OperationResult::Compared { swapped: false, current };
        assert_eq!(model.apply(&refused, &results), Ok(()), "it sees its own put, and takes it back");
        assert_eq!((model.get(b"a"), model.get(b"b")), (Some(&b"1"[..]), None));
        results[0] = OperationResult::Put { replaced: true };
        let mismatch = Mismatch { operation: 0, expected: OperationResult::NotApplied };
        assert_eq!(model.apply(&refused, &results), Err(mismatch));
        assert!(!model.apply_unknown(&refused));
    }

    #[test]
    fn undo_restores_the_state_and_its_fingerprint() {
        let calls = [vec![put("a", "1"), put("b", "2")], vec![Operation::Delete { key: b"a".to_vec() }, put("b", "2")]];
        let mut model = Model::new();
        assert!(model.apply_unknown(&calls[0]));
        let (mark, before) = (model.mark(), model.fingerprint());
        assert!(model.apply_unknown(&calls[1]));
        assert_ne!(model.fingerprint(), before);
        model.undo_to(mark);
        assert_eq!((model.fingerprint(), model.get(b"a")), (before, Some(&b"1"[..])));
        model.undo_to(0);
        assert_eq!((model.fingerprint(), model.get(b"b")), (0, None));
    }
}
