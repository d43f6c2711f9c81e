//! Limits: the bounds everything received from a socket is held to.
//!
//! Data path 1/9: checked before a length is believed.
//!
//! Invariant: a receiver never buffers more than `frame_bytes_max` plus one read for a connection, because a frame that
//! announces more is refused when its header is seen.
//!
//! It holds no state and no policy: what is refused and how is decided by the callers.

/// Most bytes of a key.
pub const KEY_BYTES_MAX: usize = 4_096;
/// Most bytes of a value.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// Most operations of one request.
pub const OPERATIONS_MAX: usize = 1_024;
/// Most keys in the answer to one range.
pub const RANGE_KEYS_MAX: usize = 4_096;
/// An answer to a range ends before it has more bytes of keys and values than this, unless its first key has.
pub const RANGE_BYTES_MAX: usize = 1 << 20;
/// Most changes in one frame of a watch.
pub const WATCH_EVENTS_MAX: usize = 1_024;
/// A frame of a watch ends before it has more bytes of keys and values than this, unless its first change has.
pub const WATCH_BYTES_MAX: usize = 256 << 10;
/// Most bytes of a frame between a client and a node.
pub const CLIENT_FRAME_BYTES_MAX: usize = 4 << 20;
/// Most bytes of a frame between two nodes: an append holds whole entries, each at least one request.
pub const PEER_FRAME_BYTES_MAX: usize = 16 << 20;
/// Most bytes of a frame before the handshake is over.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 1 << 20;
/// Most nodes of a cluster.
pub const NODES_MAX: usize = 64;
/// Most shards of a node.
pub const SHARDS_MAX: usize = 256;
/// Most bytes of an address: a name, a colon, a port.
pub const ADDRESS_BYTES_MAX: usize = 255 + 1 + 5;
/// Most bytes of the text of a topology.
pub const TOPOLOGY_BYTES_MAX: usize = 1 << 20;
/// Most settings that nodes share.
pub const SETTINGS_MAX: usize = 256;
/// Most bytes of a sentence for people, and of the name or value of a setting.
pub const TEXT_BYTES_MAX: usize = 1 << 16;

/// Bounds of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of a frame: header, head and tail together.
    pub frame_bytes_max: usize,
    /// Most bytes of a key; a key has at least one.
    pub key_bytes_max: usize,
    /// Most bytes of a value.
    pub value_bytes_max: usize,
    /// Most operations of a request.
    pub operations_max: usize,
}

impl Limits {
    /// Bounds between a client and a node.
    pub const CLIENT: Self = Self {
        frame_bytes_max: CLIENT_FRAME_BYTES_MAX,
        key_bytes_max: KEY_BYTES_MAX,
        value_bytes_max: VALUE_BYTES_MAX,
        operations_max: OPERATIONS_MAX,
    };
    /// Bounds between two nodes.
    pub const PEER: Self = Self { frame_bytes_max: PEER_FRAME_BYTES_MAX, ..Self::CLIENT };
    /// Bounds until the other side is known.
    pub const HANDSHAKE: Self = Self { frame_bytes_max: HANDSHAKE_FRAME_BYTES_MAX, ..Self::CLIENT };
}

impl Default for Limits {
    fn default() -> Self {
        Self::CLIENT
    }
}
