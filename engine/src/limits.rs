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
}
