//! Handshake: who talks to whom, decided before anything else is said.
//!
//! Off the data path: once per connection.
//!
//! ```text
//!  dialer                                   acceptor
//!    | -- Hello{cluster, protocol, role, ..} -> | check_hello
//!    | <- Welcome{cluster, node, shard, ..} --- | accepted: both sides go on
//!    | check_welcome                            |
//!    | <- Refused{code, message} -------------- | or refused: both sides close and say why
//! ```
//!
//! Invariants: nothing else of a connection is believed before its handshake is done; a mismatch is a typed error on both
//! sides whose text names both values and a remedy; peers must agree on everything, a client may leave cluster, node and
//! shard open.
//!
//! It does no I/O and keeps no time: the host bounds how long it takes. It authenticates nobody.

use crate::{
    frame::{self, FrameError, FrameKind},
    limits::Limits,
    wire::{self, Hello, PROTOCOL_VERSION, RefusalCode, Refused, Role, Topology, Welcome, WireError},
};

/// A client's "any cluster".
pub const ANY_CLUSTER: [u8; 16] = [0; 16];
/// A client's "any node".
pub const ANY_NODE: u64 = 0;
/// A client's "any shard".
pub const ANY_SHARD: u16 = u16::MAX;

/// What one shard of a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster, not [`ANY_CLUSTER`].
    pub cluster: [u8; 16],
    /// Its node, not [`ANY_NODE`].
    pub node: u64,
    /// Its shard, not [`ANY_SHARD`].
    pub shard: u16,
    /// Digest of the configuration every node must share.
    pub config_digest: u64,
    /// All nodes of the cluster, its own among them. None: this node reaches nobody of those it knows, so whoever it does
    /// not know may be a member.
    pub members: Vec<u64>,
    /// Nodes that were removed from it.
    pub removed: Vec<u64>,
}

/// Why a handshake failed. The connection must be closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The bytes are no frame.
    #[error("handshake: {0}")]
    Frame(#[from] FrameError),
    /// The frame's head is no archive of its kind.
    #[error("handshake: {0}")]
    Wire(#[from] WireError),
    /// This side does not want the other; the other is told by a `Refused` frame where there is one to send.
    #[error("handshake: {}", .0.message)]
    Mismatch(Refused),
    /// The other side does not want this one.
    #[error("handshake: refused by the other side ({:?}): {}", .0.code, .0.message)]
    Refused(Refused),
}

impl HandshakeError {
    /// Another attempt may succeed without anybody changing a configuration.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Frame(error) => error.is_retryable(),
            Self::Wire(error) => error.is_retryable(),
            Self::Mismatch(refused) | Self::Refused(refused) => {
                matches!(refused.code, RefusalCode::TooManyConnections | RefusalCode::Stopping)
            }
        }
    }

    /// Whether it takes a change of configuration, address or release to succeed.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !self.is_retryable()
    }
}

/// The accepting side.
#[derive(Clone, Copy, Debug)]
pub struct Acceptor<'a> {
    identity: &'a Identity,
}

/// A dialer that may stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Who it is.
    pub hello: Hello,
    /// Bytes of the `Hello` frame; what follows belongs to the connection.
    pub consumed: usize,
}

impl<'a> Acceptor<'a> {
    /// For one new connection.
    #[must_use]
    pub fn new(identity: &'a Identity) -> Self {
        Self { identity }
    }

    /// Looks at all bytes received so far. `Ok(None)`: more are needed. Writes the answer to `out`, also on failure: then
    /// the host sends it and closes.
    ///
    /// # Errors
    /// [`HandshakeError`]; see [`check_hello`] for the rules.
    pub fn receive(
        &self,
        bytes: &[u8],
        topology: impl FnOnce() -> Topology,
        out: &mut Vec<u8>,
    ) -> Result<Option<Accepted>, HandshakeError> {
        match self.read(bytes) {
            Ok(None) => Ok(None),
            Ok(Some(accepted)) => {
                let Identity { cluster, node, shard, .. } = *self.identity;
                Welcome { cluster, node, shard, topology: topology() }.append_frame(out);
                Ok(Some(accepted))
            }
            Err(error) => {
                let refused = match &error {
                    HandshakeError::Mismatch(refused) => refused.clone(),
                    other => Refused { code: RefusalCode::NotHello, message: other.to_string() },
                };
                refused.append_frame(out);
                Err(error)
            }
        }
    }

    fn read(&self, bytes: &[u8]) -> Result<Option<Accepted>, HandshakeError> {
        let Some(first) = frame::parse(bytes, &Limits::HANDSHAKE)? else { return Ok(None) };
        if first.kind != FrameKind::Hello {
            let message = format!("the first frame is {:?}, not Hello; run the same release on both sides", first.kind);
            return Err(HandshakeError::Mismatch(Refused { code: RefusalCode::NotHello, message }));
        }
        let hello = wire::view_hello(first.head)?;
        check_hello(self.identity, &hello).map_err(HandshakeError::Mismatch)?;
        Ok(Some(Accepted { hello, consumed: first.total_bytes }))
    }
}

/// Whether a dialer may stay.
///
/// # Errors
/// The frame to answer with.
pub fn check_hello(identity: &Identity, hello: &Hello) -> Result<(), Refused> {
    let peer = hello.role == Role::Peer;
    let refuse = |code, message| Err(Refused { code, message });
    if hello.protocol != PROTOCOL_VERSION {
        let message = format!(
            "this node speaks protocol version {PROTOCOL_VERSION}, the other side {}; run the same release on both",
            hello.protocol
        );
        return refuse(RefusalCode::Protocol, message);
    }
    if hello.cluster != identity.cluster && (peer || hello.cluster != ANY_CLUSTER) {
        let message = format!(
            "this node belongs to cluster {}, the other side means cluster {}; check the address and the cluster id",
            hex(&identity.cluster),
            hex(&hello.cluster)
        );
        return refuse(RefusalCode::Cluster, message);
    }
    if hello.to_node != identity.node && (peer || hello.to_node != ANY_NODE) {
        let message =
            format!("this is node {}, but node {} was dialed; check the addresses", identity.node, hello.to_node);
        return refuse(RefusalCode::Node, message);
    }
    if hello.to_shard != identity.shard && (peer || hello.to_shard != ANY_SHARD) {
        let message =
            format!("this is shard {}, but shard {} was dialed; check the ports", identity.shard, hello.to_shard);
        return refuse(RefusalCode::Shard, message);
    }
    if peer { check_peer(identity, hello) } else { Ok(()) }
}

fn check_peer(identity: &Identity, hello: &Hello) -> Result<(), Refused> {
    let refuse = |code, message| Err(Refused { code, message });
    if identity.removed.contains(&hello.node) {
        let message = format!(
            "node {} was removed from this cluster and its id never returns: stop it; to use the machine again, give it \
             an empty data directory and a new id",
            hello.node
        );
        return refuse(RefusalCode::Removed, message);
    }
    let is_stranger = !identity.members.is_empty() && !identity.members.contains(&hello.node);
    if hello.node == identity.node || is_stranger {
        let message = format!(
            "node {} is no other member of the cluster, which has nodes {:?}; check its node id",
            hello.node, identity.members
        );
        return refuse(RefusalCode::NotMember, message);
    }
    if hello.shard != identity.shard {
        let message = format!("shard {} of a peer dialed shard {}; check the ports", hello.shard, identity.shard);
        return refuse(RefusalCode::Shard, message);
    }
    if hello.config_digest != identity.config_digest {
        let message = format!(
            "the cluster-wide configuration differs: digest {:016x} here, {:016x} there; make groups, shards, members \
             and limits the same on every node",
            identity.config_digest, hello.config_digest
        );
        return refuse(RefusalCode::Config, message);
    }
    Ok(())
}

/// The dialing side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialer {
    hello: Hello,
}

impl Dialer {
    /// A peer dials the same shard of another node.
    #[must_use]
    pub fn peer(identity: &Identity, to_node: u64) -> Self {
        Self {
            hello: Hello {
                cluster: identity.cluster,
                protocol: PROTOCOL_VERSION,
                role: Role::Peer,
                node: identity.node,
                shard: identity.shard,
                to_node,
                to_shard: identity.shard,
                config_digest: identity.config_digest,
            },
        }
    }

    /// A client dials a shard; what it does not know yet is [`ANY_CLUSTER`], [`ANY_NODE`], [`ANY_SHARD`].
    #[must_use]
    pub fn client(cluster: [u8; 16], to_node: u64, to_shard: u16) -> Self {
        let protocol = PROTOCOL_VERSION;
        let role = Role::Client;
        Self { hello: Hello { cluster, protocol, role, node: 0, shard: 0, to_node, to_shard, config_digest: 0 } }
    }

    /// Appends the first frame.
    pub fn start(&self, out: &mut Vec<u8>) {
        self.hello.append_frame(out);
    }

    /// Looks at all bytes received so far. `Ok(None)`: more are needed; else the answer and the bytes of its frame, after
    /// which the connection's own frames follow.
    ///
    /// # Errors
    /// [`HandshakeError`]; the host closes the connection.
    pub fn receive(&self, bytes: &[u8]) -> Result<Option<(Welcome, usize)>, HandshakeError> {
        let Some(first) = frame::parse(bytes, &Limits::HANDSHAKE)? else { return Ok(None) };
        match first.kind {
            FrameKind::Welcome => {
                let welcome = wire::view_welcome(first.head)?;
                self.check_welcome(&welcome).map_err(HandshakeError::Mismatch)?;
                Ok(Some((welcome, first.total_bytes)))
            }
            FrameKind::Refused => Err(HandshakeError::Refused(wire::view_refused(first.head)?)),
            other => {
                let message = format!("the answer is {other:?}, not Welcome; run the same release on both sides");
                Err(HandshakeError::Mismatch(Refused { code: RefusalCode::NotHello, message }))
            }
        }
    }

    fn check_welcome(&self, welcome: &Welcome) -> Result<(), Refused> {
        let Hello { cluster, to_node, to_shard, .. } = self.hello;
        if welcome.cluster != cluster && cluster != ANY_CLUSTER {
            let (theirs, ours) = (hex(&welcome.cluster), hex(&cluster));
            let message = format!("dialed cluster {ours}, reached cluster {theirs}; check the address");
            return Err(Refused { code: RefusalCode::Cluster, message });
        }
        if welcome.node != to_node && to_node != ANY_NODE {
            let message = format!("dialed node {to_node}, reached node {}; check the addresses", welcome.node);
            return Err(Refused { code: RefusalCode::Node, message });
        }
        if welcome.shard != to_shard && to_shard != ANY_SHARD {
            let message = format!("dialed shard {to_shard}, reached shard {}; check the ports", welcome.shard);
            return Err(Refused { code: RefusalCode::Shard, message });
        }
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
