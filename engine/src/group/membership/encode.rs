//! The payload of an entry that brings a configuration.
//!
//! Off the data path.
//!
//! ```text
//!  0         4
//!  | version | members (see `snapshot/members.rs`) |
//! ```
//! Invariants: reading never panics, whatever the bytes are; what was written is read unchanged; an entry with another
//! version or other bytes is damage, never a guess.

use ringraft_raft::{Membership, NodeId};

use crate::snapshot::{Members, MembersError, MembersProblem};

/// Version of the encoding.
const VERSION: u32 = 1;

/// Why a payload is no configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// Too short, or written by another version.
    #[error("it is not a configuration of version {VERSION}")]
    Version,
    /// These are no members.
    #[error(transparent)]
    Members(#[from] MembersProblem),
}

/// The payload of an entry that brings `membership`.
///
/// # Errors
/// The membership is longer than what can be written, or has no voters.
pub(crate) fn encode(membership: &Membership) -> Result<Vec<u8>, MembersError> {
    let members = members_of(membership)?;
    let mut payload = VERSION.to_le_bytes().to_vec();
    members.append(&mut payload);
    Ok(payload)
}

/// Reads a payload.
///
/// # Errors
/// It is not what [`encode`] writes.
pub(crate) fn decode(payload: &[u8]) -> Result<Membership, ConfigurationError> {
    match payload.split_first_chunk() {
        Some((version, members)) if u32::from_le_bytes(*version) == VERSION => {
            Ok(membership_of(&Members::read(members)?))
        }
        _ => Err(ConfigurationError::Version),
    }
}

/// The members of a group as they are written.
pub(crate) fn members_of(membership: &Membership) -> Result<Members, MembersError> {
    let list = |nodes: &[NodeId]| nodes.to_vec();
    Members::new(list(membership.voters()), list(membership.outgoing()), list(membership.learners()))
}

/// And back.
pub(crate) fn membership_of(members: &Members) -> Membership {
    let list = |nodes: &[NodeId]| nodes.to_vec();
    Membership::with(list(members.voters()), list(members.outgoing()), list(members.learners()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    #[test]
    fn golden_bytes() {
        let membership = Membership::with(ids(&[1, 2]), ids(&[2, 0x0304]), ids(&[9]));
        let payload = encode(&membership).unwrap();
        let words: Vec<u32> = payload.chunks(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
        assert_eq!(words, [1, 2, 2, 1, 1, 0, 2, 0, 2, 0, 0x0304, 0, 9, 0]);
        assert_eq!(decode(&payload), Ok(membership));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let sound = encode(&Membership::new(ids(&[1, 2, 3]))).unwrap();
        assert_eq!(decode(&[]), Err(ConfigurationError::Version));
        assert_eq!(decode(&[&[2][..], &sound[1..]].concat()), Err(ConfigurationError::Version));
        let length = Err(ConfigurationError::Members(MembersProblem::Length));
        assert_eq!(decode(&sound[..sound.len() - 1]), length);
        assert_eq!(decode(&[&sound[..], &[0]].concat()), length);
        let mut unsorted = sound.clone();
        unsorted[16] = 7;
        assert_eq!(decode(&unsorted), Err(ConfigurationError::Members(MembersError::Order.into())));
        assert!(encode(&Membership::new(Vec::new())).is_err(), "nobody");
        assert!(encode(&Membership::new((0..129).map(NodeId).collect())).is_err(), "too many");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn what_was_written_is_read(
            voters in prop::collection::vec(0..40_u64, 1..20),
            outgoing in prop::collection::vec(0..40_u64, 0..20),
            learners in prop::collection::vec(0..40_u64, 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let membership = Membership::with(ids(&voters), ids(&outgoing), ids(&learners));
            let payload = encode(&membership).unwrap();
            prop_assert_eq!(decode(&payload), Ok(membership));
            prop_assert!(decode(&payload[..cut.index(payload.len())]).is_err());
        }
    }
}
