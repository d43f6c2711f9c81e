//! Both sides of a new connection: the first frames, and who may stay.
//!
//! Data path 1/9, once per connection. The rules are `ringraft_net::handshake`'s.
//! Invariants: nothing of a connection reaches the shard before its handshake is done; a mismatch is told to the other
//! side with both values and written to the log; the handshake has a deadline and a small frame bound.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use glommio::net::TcpListener;
use ringraft_net::buffer::ReceiveBuffer;
use ringraft_net::glommio::{self as sockets, Connection as Link};
use ringraft_net::handshake::{Acceptor, Dialer, HandshakeError, Identity};
use ringraft_net::socket::Options;
use ringraft_net::wire::{Hello, RefusalCode, Refused, Role};
use ringraft_raft::NodeId;
use tracing::{debug, warn};

use super::executor::Host;

/// What this shard says about itself in every handshake.
pub(super) struct Local {
    pub(super) cluster: [u8; 16],
    pub(super) node: u64,
    pub(super) shard: u16,
    pub(super) config_digest: u64,
    pub(super) seed: u64,
}

impl Local {
    /// With the members as the shard knows them now.
    fn identity(&self, host: &Host) -> Identity {
        let shard = host.shard.borrow();
        let topology = shard.topology();
        Identity {
            cluster: self.cluster,
            node: self.node,
            shard: self.shard,
            config_digest: self.config_digest,
            members: shard.admitted(),
            removed: topology.removed().to_vec(),
        }
    }
}

/// Why a peer is not linked to.
pub(super) struct NotLinked {
    pub(super) reason: String,
    /// It says that this node was removed from the cluster.
    pub(super) removed: bool,
}

impl From<String> for NotLinked {
    fn from(reason: String) -> Self {
        Self { reason, removed: false }
    }
}

impl From<HandshakeError> for NotLinked {
    fn from(error: HandshakeError) -> Self {
        let removed = matches!(&error, HandshakeError::Refused(refused) if refused.code == RefusalCode::Removed);
        Self { reason: error.to_string(), removed }
    }
}

const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(3);
const HANDSHAKE_READ_BYTES: usize = 4 << 10;

/// Accepts connections for as long as the node lives.
pub(super) async fn accept_forever(host: Rc<Host>, local: Rc<Local>, listener: TcpListener) {
    loop {
        match sockets::accept(&listener, &Options::default()).await {
            Ok(stream) => glommio::spawn_local(welcome(Rc::clone(&host), Rc::clone(&local), stream)).detach(),
            Err(error) => {
                warn!(%error, "cannot accept a connection; trying again");
                glommio::timer::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
    }
}

/// Reads the first frame of an accepted connection, answers it and serves the connection.
async fn welcome(host: Rc<Host>, local: Rc<Local>, stream: Link) {
    let (mut buffer, mut answer) = (ReceiveBuffer::new(), Vec::new());
    let hello = match read_hello(&host, &local, &stream, &mut buffer, &mut answer).await {
        Ok(hello) => hello,
        Err(reason) => {
            if answer.is_empty() {
                debug!(reason, "a connection ended during its handshake");
            } else {
                warn!(reason, "a connection was refused");
                let _ = stream.write_all(&answer).await;
            }
            return stream.close().await;
        }
    };
    if stream.write_all(&answer).await.is_err() {
        return;
    }
    match hello.role {
        Role::Peer => host.serve_peer(NodeId(hello.node), stream, buffer).await,
        Role::Client => host.serve_client(stream, buffer).await,
    }
}

/// Reads until the first frame is there and writes the answer to it; on failure an answer, if any, says why.
async fn read_hello(
    host: &Host,
    local: &Local,
    stream: &Link,
    buffer: &mut ReceiveBuffer,
    answer: &mut Vec<u8>,
) -> Result<Hello, String> {
    if host.stopping.get() {
        let message = String::from("this node is stopping");
        Refused { code: RefusalCode::Stopping, message: message.clone() }.append_frame(answer);
        return Err(message);
    }
    let identity = local.identity(host);
    let acceptor = Acceptor::new(&identity);
    let read = async {
        loop {
            let topology = || host.shard.borrow().client_topology();
            let seen = acceptor.receive(buffer.filled(), topology, answer).map_err(|error| error.to_string())?;
            if let Some(accepted) = seen {
                buffer.consume(accepted.consumed);
                return Ok(accepted.hello);
            }
            if matches!(stream.read_some(buffer, HANDSHAKE_READ_BYTES).await, Ok(0) | Err(_)) {
                return Err(String::from("closed by the other side"));
            }
        }
    };
    futures_lite::future::or(read, patience()).await
}

async fn patience<T>() -> Result<T, String> {
    glommio::timer::sleep(HANDSHAKE_PATIENCE).await;
    Err(format!("no handshake within {HANDSHAKE_PATIENCE:?}"))
}

/// Dials a peer.
pub(super) async fn connect(address: SocketAddr) -> Result<Link, String> {
    sockets::connect(address, CONNECT_PATIENCE, &Options::default())
        .await
        .map_err(|error| format!("cannot connect to {address}: {error}"))
}

/// The dialing side's handshake with a peer.
pub(super) async fn greet_peer(stream: &Link, host: &Host, local: &Local, node: NodeId) -> Result<(), NotLinked> {
    let dialer = Dialer::peer(&local.identity(host), node.0);
    let (mut hello, mut buffer) = (Vec::new(), ReceiveBuffer::new());
    dialer.start(&mut hello);
    stream.write_all(&hello).await.map_err(|error| error.to_string())?;
    let answer = async {
        loop {
            if dialer.receive(buffer.filled())?.is_some() {
                return Ok(());
            }
            match stream.read_some(&mut buffer, HANDSHAKE_READ_BYTES).await {
                Ok(0) => return Err(String::from("the peer closed the connection during the handshake").into()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string().into()),
            }
        }
    };
    futures_lite::future::or(answer, async { patience::<()>().await.map_err(NotLinked::from) }).await
}
