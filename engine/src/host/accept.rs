//! Both sides of a new connection: the first frames, and who may stay.
//!
//! Data path 1/9, once per connection.
//! Invariants: nothing of a connection reaches the shard before its handshake is done; a mismatch is told to the other
//! side with both values and written to the log; the handshake has a deadline and a small frame bound.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::{TcpListener, TcpStream};
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, Hello, PROTOCOL_VERSION, RefusalCode, Refused, Role, Topology, Welcome};
use ringraft_raft::NodeId;
use tracing::warn;

use super::executor::Host;
use super::stream::Stream;

/// What this shard says about itself in every handshake.
pub(super) struct Local {
    pub(super) cluster: [u8; 16],
    pub(super) node: NodeId,
    pub(super) shard: u16,
    pub(super) config_digest: u64,
    pub(super) members: Vec<NodeId>,
    pub(super) topology: Topology,
    pub(super) seed: u64,
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(3);
const HANDSHAKE_READ_BYTES: usize = 4 << 10;

/// Accepts connections for as long as the node lives.
pub(super) async fn accept_forever(host: Rc<Host>, local: Rc<Local>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                if let Err(error) = stream.set_nodelay(true) {
                    warn!(%error, "cannot set the options of a connection");
                }
                glommio::spawn_local(welcome(Rc::clone(&host), Rc::clone(&local), Stream::new(stream))).detach();
            }
            Err(error) => {
                warn!(%error, "cannot accept a connection; trying again");
                glommio::timer::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Reads the first frame of an accepted connection, answers it and serves the connection.
async fn welcome(host: Rc<Host>, local: Rc<Local>, stream: Stream) {
    let mut buffer = Vec::new();
    let hello = match read_hello(&stream, &mut buffer).await {
        Ok(hello) => hello,
        Err(Some(refused)) => return refuse(&stream, &refused).await,
        Err(None) => return,
    };
    if let Err(refused) = check_hello(&local, &hello, host.stopping.get()) {
        warn!(node = hello.node, reason = refused.message, "a connection was refused");
        return refuse(&stream, &refused).await;
    }
    let mut topology = local.topology.clone();
    for (group, leader) in host.shard.borrow().leaders() {
        if let Some(place) = topology.leaders.get_mut(group as usize) {
            *place = leader;
        }
    }
    let mut answer = Vec::new();
    Welcome { cluster: local.cluster, node: local.node.0, shard: local.shard, topology }.append_frame(&mut answer);
    if stream.write_all(&answer).await.is_err() {
        return;
    }
    match hello.role {
        Role::Peer => host.serve_peer(NodeId(hello.node), stream, buffer).await,
        Role::Client => host.serve_client(stream, buffer).await,
    }
}

async fn refuse(stream: &Stream, refused: &Refused) {
    let mut answer = Vec::new();
    refused.append_frame(&mut answer);
    let _ = stream.write_all(&answer).await;
    stream.shutdown().await;
}

/// Reads until the first frame is there; `Err(None)` when the other side went away without a word.
async fn read_hello(stream: &Stream, buffer: &mut Vec<u8>) -> Result<Hello, Option<Refused>> {
    let not_hello = |message: String| Some(Refused { code: RefusalCode::NotHello, message });
    let read = async {
        loop {
            match frame::parse(buffer, &Limits::HANDSHAKE) {
                Ok(Some(first)) if first.kind == FrameKind::Hello => {
                    let hello = wire::view_hello(first.head).map_err(|error| not_hello(error.to_string()))?;
                    let total = first.total_bytes;
                    buffer.drain(..total);
                    return Ok(hello);
                }
                Ok(Some(first)) => return Err(not_hello(format!("the first frame is {:?}, not Hello", first.kind))),
                Ok(None) => {}
                Err(error) => return Err(not_hello(error.to_string())),
            }
            if matches!(stream.read_some(buffer, HANDSHAKE_READ_BYTES).await, Ok(0) | Err(_)) {
                return Err(None);
            }
        }
    };
    let patience = async {
        glommio::timer::sleep(HANDSHAKE_PATIENCE).await;
        Err(not_hello(format!("no Hello within {HANDSHAKE_PATIENCE:?}")))
    };
    futures_lite::future::or(read, patience).await
}

/// Whether the other side may stay.
fn check_hello(local: &Local, hello: &Hello, stopping: bool) -> Result<(), Refused> {
    let refuse = |code, message| Err(Refused { code, message });
    let (ours, theirs) = (hex(&local.cluster), hex(&hello.cluster));
    let peer = hello.role == Role::Peer;
    if hello.protocol != PROTOCOL_VERSION {
        let message = format!(
            "this node speaks protocol version {PROTOCOL_VERSION}, the other side {}; run the same release",
            hello.protocol
        );
        return refuse(RefusalCode::Protocol, message);
    }
    if hello.cluster != local.cluster && (peer || hello.cluster != [0; 16]) {
        let message = format!("this node belongs to cluster {ours}, the other side to {theirs}; check its addresses");
        return refuse(RefusalCode::Cluster, message);
    }
    if (peer || hello.to_node != 0) && hello.to_node != local.node.0 {
        let message = format!("this is node {}, node {} was dialed; check the addresses", local.node, hello.to_node);
        return refuse(RefusalCode::Node, message);
    }
    if (peer || hello.to_shard != u16::MAX) && hello.to_shard != local.shard {
        let message = format!("this is shard {}, shard {} was dialed; check the ports", local.shard, hello.to_shard);
        return refuse(RefusalCode::Shard, message);
    }
    if stopping {
        return refuse(RefusalCode::Stopping, String::from("this node is stopping"));
    }
    if !peer {
        return Ok(());
    }
    if hello.node == local.node.0 || !local.members.contains(&NodeId(hello.node)) {
        let message = format!("node {} is no other member of cluster {ours}", hello.node);
        return refuse(RefusalCode::NotMember, message);
    }
    if hello.config_digest != local.config_digest {
        let message = format!(
            "the cluster-wide configuration differs (digest {:016x} here, {:016x} there): groups, shards, node ids and \
             limits must be the same on every node",
            local.config_digest, hello.config_digest
        );
        return refuse(RefusalCode::Config, message);
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Dials a peer.
pub(super) async fn connect(address: SocketAddr) -> Result<Stream, String> {
    let stream = TcpStream::connect_timeout(address, CONNECT_PATIENCE)
        .await
        .map_err(|error| format!("cannot connect to {address}: {error}"))?;
    stream.set_nodelay(true)
        .map_err(|error| format!("cannot set the options of the connection to {address}: {error}"))?;
    Ok(Stream::new(stream))
}

/// The dialing side's handshake with a peer.
pub(super) async fn greet_peer(stream: &Stream, local: &Local, node: NodeId) -> Result<(), String> {
    let mut hello = Vec::new();
    Hello {
        cluster: local.cluster,
        protocol: PROTOCOL_VERSION,
        role: Role::Peer,
        node: local.node.0,
        shard: local.shard,
        to_node: node.0,
        to_shard: local.shard,
        config_digest: local.config_digest,
    }
    .append_frame(&mut hello);
    stream.write_all(&hello).await.map_err(|error| error.to_string())?;
    let mut buffer = Vec::new();
    let answer = async {
        loop {
            if let Some(first) = frame::parse(&buffer, &Limits::HANDSHAKE).map_err(|error| error.to_string())? {
                return check_answer(local, node, first.kind, first.head);
            }
            match stream.read_some(&mut buffer, HANDSHAKE_READ_BYTES).await {
                Ok(0) => return Err(String::from("the peer closed the connection during the handshake")),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    };
    let patience = async {
        glommio::timer::sleep(HANDSHAKE_PATIENCE).await;
        Err(format!("no answer to the handshake within {HANDSHAKE_PATIENCE:?}"))
    };
    futures_lite::future::or(answer, patience).await
}

fn check_answer(local: &Local, node: NodeId, kind: FrameKind, head: &[u8]) -> Result<(), String> {
    match kind {
        FrameKind::Welcome => {
            let welcome = wire::view_welcome(head).map_err(|error| error.to_string())?;
            if welcome.cluster == local.cluster && welcome.node == node.0 && welcome.shard == local.shard {
                return Ok(());
            }
            let (theirs, ours) = (hex(&welcome.cluster), hex(&local.cluster));
            Err(format!(
                "dialed node {node} shard {} of cluster {ours}, reached node {} shard {} of cluster {theirs}",
                local.shard, welcome.node, welcome.shard
            ))
        }
        FrameKind::Refused => {
            let refused = wire::view_refused(head).map_err(|error| error.to_string())?;
            Err(format!("refused by the peer ({:?}): {}", refused.code, refused.message))
        }
        other => Err(format!("the peer answered the handshake with {other:?}")),
    }
}
