//! Messages that open and close a connection: `Hello`, `Welcome`, `Refused`, `Goodbye`, and status.
//!
//! Off the data path.
//!
//! Invariant: `Hello` and `Refused` keep their shape in every protocol version to come, so that two releases can at least
//! tell each other why they do not talk.
//!
//! The rules of the exchange are in `handshake`.

use super::archive::{self, WireError};
use crate::frame::{self, FrameKind};
use crate::limits::{ADDRESS_BYTES_MAX, NODES_MAX, SHARDS_MAX, TEXT_BYTES_MAX};
use crate::slots;
use rkyv::{Archive, Deserialize, Serialize};

/// Version of everything inside frames. Both sides must speak the same.
pub const PROTOCOL_VERSION: u16 = 3;

/// What the dialing side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum Role {
    /// The same shard of another node of the cluster.
    Peer = 0,
    /// A client.
    Client = 1,
}

/// First frame of the dialing side.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster it means; all zero (clients only) = any.
    pub cluster: [u8; 16],
    /// [`PROTOCOL_VERSION`] of the sender.
    pub protocol: u16,
    /// What it is.
    pub role: Role,
    /// Its node (peers), 0 for clients.
    pub node: u64,
    /// Its shard (peers), 0 for clients.
    pub shard: u16,
    /// The node it means to reach; 0 (clients only) = any.
    pub to_node: u64,
    /// The shard it means to reach; `u16::MAX` (clients only) = any.
    pub to_shard: u16,
    /// Digest of the configuration every node must share (peers), 0 for clients.
    pub config_digest: u64,
}

/// One node of the topology.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its id.
    pub node: u64,
    /// The address of each of its shards, `ip:port`.
    pub addresses: Vec<String>,
}

/// Where everything is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
pub struct Topology {
    /// Grows with every change of the nodes: of two topologies the one with the higher number is the newer.
    pub epoch: u64,
    /// Number of groups.
    pub groups: u32,
    /// Number of shards of every node.
    pub shards: u16,
    /// The nodes, in the order of their ids.
    pub nodes: Vec<NodeInfo>,
    /// The leader of each group as far as the sender knows.
    pub leaders: Vec<Option<u64>>,
}

/// First frame of the accepting side when it accepts.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Welcome {
    /// Its cluster.
    pub cluster: [u8; 16],
    /// Its node.
    pub node: u64,
    /// The shard of this address.
    pub shard: u16,
    /// Where everything is.
    pub topology: Topology,
}

/// Why a connection is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Archive, Serialize, Deserialize)]
#[repr(u8)]
pub enum RefusalCode {
    /// Another protocol version.
    Protocol = 1,
    /// Another cluster.
    Cluster = 2,
    /// Another node than was dialed.
    Node = 3,
    /// Another shard than was dialed, or a peer's other shard.
    Shard = 4,
    /// A peer with another cluster-wide configuration.
    Config = 5,
    /// A peer that is not a member of the cluster.
    NotMember = 6,
    /// No more connections are accepted.
    TooManyConnections = 7,
    /// The first frame was no `Hello`.
    NotHello = 8,
    /// The node is stopping.
    Stopping = 9,
    /// A peer that was removed from the cluster; its id never returns.
    Removed = 10,
}

/// First and last frame of the accepting side when it does not accept.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Refused {
    /// Why, for programs.
    pub code: RefusalCode,
    /// Why, for people: both values and what to do.
    pub message: String,
}

macro_rules! session_message {
    ($message:ty, $archived:ty, $kind:expr, $name:literal, $view:ident, $items:expr, $is_bounded:expr) => {
        impl $message {
            /// Appends a whole frame. Returns its bytes.
            pub fn append_frame(&self, out: &mut Vec<u8>) -> usize {
                let mut frame = frame::begin(out, $kind, 0);
                archive::append(frame.bytes(), self, $items);
                frame.finish()
            }
        }

        #[doc = concat!("Reads the head of a `", $name, "` frame.")]
        ///
        /// # Errors
        /// When the bytes are not one, or are out of its bounds.
        pub fn $view(bytes: &[u8]) -> Result<$message, WireError> {
            let archived = archive::access::<$archived>(bytes, $name)?;
            archive::check_bounds($is_bounded(archived), bytes, $name)?;
            archive::to_native(archived, $name)
        }
    };
}

session_message!(Hello, ArchivedHello, FrameKind::Hello, "hello", view_hello, 0, |_| true);
session_message!(Welcome, ArchivedWelcome, FrameKind::Welcome, "welcome", view_welcome, usize::MAX, is_bounded);
session_message!(
    Refused,
    ArchivedRefused,
    FrameKind::Refused,
    "refused",
    view_refused,
    0,
    |refused: &ArchivedRefused| { refused.message.len() <= TEXT_BYTES_MAX }
);

/// One list may be pointed to many times by few bytes: what is copied out is bounded first.
fn is_bounded(welcome: &ArchivedWelcome) -> bool {
    let ArchivedTopology { nodes, leaders, .. } = &welcome.topology;
    let addresses_bounded = |node: &ArchivedNodeInfo| {
        node.addresses.len() <= SHARDS_MAX && node.addresses.iter().all(|address| address.len() <= ADDRESS_BYTES_MAX)
    };
    nodes.len() <= NODES_MAX && leaders.len() <= usize::from(slots::SLOTS) && nodes.iter().all(addresses_bounded)
}

/// Appends a `Status` frame: the client asks for the state of the shard.
pub fn append_status(out: &mut Vec<u8>, correlation: u32) -> usize {
    frame::begin(out, FrameKind::Status, correlation).finish()
}

/// Appends a `StatusReply` frame: JSON text, opaque here, as the head.
pub fn append_status_reply(out: &mut Vec<u8>, correlation: u32, json: &str) -> usize {
    let mut frame = frame::begin(out, FrameKind::StatusReply, correlation);
    frame.bytes().extend_from_slice(json.as_bytes());
    frame.finish()
}

/// Appends a `Goodbye` frame: the sender is about to close on purpose.
pub fn append_goodbye(out: &mut Vec<u8>) -> usize {
    frame::begin(out, FrameKind::Goodbye, 0).finish()
}
