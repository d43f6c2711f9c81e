//! The bounds the state machine works with.
//!
//! Off the data path (read on it).
//! Invariant: they decide what applying a log yields, so every replica of a cluster has the same ones: they are part of
//! the cluster digest (`config`), which the handshake compares.
//! Bounds of queues, caches and connections are not here: they may differ between nodes.

use ringraft_net::limits as wire_limits;

/// Bounds that every node of a cluster shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Longest key in bytes.
    pub key_bytes_max: u32,
    /// Longest value in bytes.
    pub value_bytes_max: u32,
    /// Longest frame of a client in bytes.
    pub request_bytes_max: u32,
    /// Operations in one request.
    pub operations_max: u32,
    /// Bytes of values in one answer.
    pub answer_bytes_max: u32,
    /// Sessions of one group; beyond it the one that was unused for the longest part of the log goes.
    pub sessions_max: u32,
    /// Answers kept in one session: from the lowest unacknowledged to the highest sequence.
    pub session_window_max: u32,
    /// Bytes of the answers kept in all sessions of one group.
    pub sessions_bytes_max: u64,
}

/// What frame, archive and keys of a reply may take beside the values in it.
const REPLY_OVERHEAD_BYTES: u32 = 1 << 18;

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes_max: wire_limits::KEY_BYTES_MAX as u32,
            value_bytes_max: wire_limits::VALUE_BYTES_MAX as u32,
            request_bytes_max: wire_limits::CLIENT_FRAME_BYTES_MAX as u32,
            operations_max: wire_limits::OPERATIONS_MAX as u32,
            answer_bytes_max: wire_limits::CLIENT_FRAME_BYTES_MAX as u32 - REPLY_OVERHEAD_BYTES,
            sessions_max: 10_000,
            session_window_max: 8_192,
            sessions_bytes_max: 64 << 20,
        }
    }
}

impl Limits {
    /// The same bounds as `ringraft_net` checks requests and client frames with.
    #[must_use]
    pub fn client(&self) -> wire_limits::Limits {
        wire_limits::Limits {
            frame_bytes_max: self.request_bytes_max as usize,
            key_bytes_max: self.key_bytes_max as usize,
            value_bytes_max: self.value_bytes_max as usize,
            operations_max: self.operations_max as usize,
        }
    }

    /// All of them as one number, the same in every release: a snapshot is of use only where they are the same.
    #[must_use]
    pub fn digest(&self) -> u64 {
        let Self {
            key_bytes_max,
            value_bytes_max,
            request_bytes_max,
            operations_max,
            answer_bytes_max,
            sessions_max,
            session_window_max,
            sessions_bytes_max,
        } = *self;
        let narrow = [key_bytes_max, value_bytes_max, request_bytes_max, operations_max]
            .into_iter()
            .chain([answer_bytes_max, sessions_max, session_window_max])
            .flat_map(u32::to_le_bytes);
        let bytes: Vec<u8> = narrow.chain(sessions_bytes_max.to_le_bytes()).collect();
        xxhash_rust::xxh3::xxh3_64(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_value_always_fits_in_an_answer_and_an_answer_in_a_frame() {
        let limits = Limits::default();
        assert!(limits.value_bytes_max <= limits.answer_bytes_max);
        assert!((limits.answer_bytes_max as usize) < wire_limits::CLIENT_FRAME_BYTES_MAX);
        assert_eq!(limits.client(), wire_limits::Limits::CLIENT);
    }

    #[test]
    fn the_digest_is_golden_and_every_limit_counts() {
        let default = Limits::default();
        let mut digests = vec![default.digest()];
        let changes: [fn(&mut Limits); 8] = [
            |limits| limits.key_bytes_max += 1,
            |limits| limits.value_bytes_max += 1,
            |limits| limits.request_bytes_max += 1,
            |limits| limits.operations_max += 1,
            |limits| limits.answer_bytes_max += 1,
            |limits| limits.sessions_max += 1,
            |limits| limits.session_window_max += 1,
            |limits| limits.sessions_bytes_max += 1,
        ];
        for change in changes {
            let mut limits = default;
            change(&mut limits);
            digests.push(limits.digest());
        }
        assert_eq!(digests[0], 1_144_905_115_337_712_420, "snapshots of other releases carry it");
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 9);
    }
}
