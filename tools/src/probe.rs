//! One blocking connection to one shard, without retries, routing or sessions: it says what the shard said.
//!
//! Off the data path.
//! Invariant: every wait has a deadline.
//! What it does not do: follow a leader. `ringraft_net::client` does.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use ringraft_net::frame::{self, FrameKind};
use ringraft_net::limits::Limits;
use ringraft_net::wire::{self, AdminReply, AdminRequest, Hello, PROTOCOL_VERSION, Reply, Request, Role, Welcome};

/// Longest wait for a connection or an answer.
pub const PATIENCE: Duration = Duration::from_secs(2);
const READ_BYTES: usize = 64 << 10;

/// A frame, copied out of the receive buffer.
#[derive(Clone, Debug)]
pub struct OwnedFrame {
    /// What it is.
    pub kind: FrameKind,
    /// The number of the question.
    pub correlation: u32,
    /// Its archive or text.
    pub head: Vec<u8>,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    correlation: u32,
}

/// What a client says that takes any cluster, node and shard.
#[must_use]
pub fn client_hello() -> Hello {
    Hello {
        cluster: [0; 16],
        protocol: PROTOCOL_VERSION,
        role: Role::Client,
        node: 0,
        shard: 0,
        to_node: 0,
        to_shard: u16::MAX,
        config_digest: 0,
    }
}

impl Connection {
    /// Connects, without a handshake.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn connect(address: &str) -> Result<Self> {
        let resolved =
            address.to_socket_addrs().with_context(|| format!("{address:?} is no address (host:port)"))?.next();
        let resolved = resolved.with_context(|| format!("{address:?} has no address"))?;
        let stream = TcpStream::connect_timeout(&resolved, PATIENCE).context("cannot connect")?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::new(), correlation: 0 })
    }

    /// Connects as a client.
    ///
    /// # Errors
    /// When nobody listens there or the shard refuses.
    pub fn open(address: &str) -> Result<(Self, Welcome)> {
        let mut connection = Self::connect(address)?;
        let welcome = connection.greet(&client_hello())?;
        Ok((connection, welcome))
    }

    /// Says hello.
    ///
    /// # Errors
    /// When the shard refuses; the error is what it said.
    pub fn greet(&mut self, hello: &Hello) -> Result<Welcome> {
        let mut bytes = Vec::new();
        hello.append_frame(&mut bytes);
        self.send(&bytes)?;
        let answer = self.receive()?;
        match answer.kind {
            FrameKind::Welcome => Ok(wire::view_welcome(&answer.head)?),
            FrameKind::Refused => bail!("refused: {}", wire::view_refused(&answer.head)?.message),
            other => bail!("answered a hello with {other:?}"),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// When the connection is closed.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).context("cannot send")
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// When the connection ends, nothing comes in time, or what comes is no frame.
    pub fn receive(&mut self) -> Result<OwnedFrame> {
        self.receive_or_end()?.context("the connection was closed")
    }

    /// Waits for the next frame; `None` when the other side closed the connection in order.
    ///
    /// # Errors
    /// When nothing comes in time, the connection breaks, or what comes is no frame.
    pub fn receive_or_end(&mut self) -> Result<Option<OwnedFrame>> {
        loop {
            if let Some(frame) = frame::parse(&self.received, &Limits::CLIENT)? {
                let owned = OwnedFrame { kind: frame.kind, correlation: frame.correlation, head: frame.head.to_vec() };
                let total = frame.total_bytes;
                self.received.drain(..total);
                return Ok(Some(owned));
            }
            let start = self.received.len();
            self.received.resize(start + READ_BYTES, 0);
            let read = self.stream.read(&mut self.received[start..]);
            self.received.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    bail!("no answer in time; what was asked may still be done")
                }
                Err(error) => return Err(error).context("no answer"),
            }
        }
    }

    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// When none comes; what became of the request is unknown then.
    pub fn request(&mut self, request: &Request) -> Result<Reply> {
        self.correlation += 1;
        let mut bytes = Vec::new();
        request.append_frame(&mut bytes, self.correlation);
        self.send(&bytes)?;
        loop {
            let answer = self.receive()?;
            if answer.kind == FrameKind::Reply && answer.correlation == self.correlation {
                return Ok(wire::view_reply(&answer.head)?.to_owned_reply());
            }
            ensure!(answer.kind != FrameKind::Refused, "refused: {}", wire::view_refused(&answer.head)?.message);
        }
    }

    /// Bounds the wait for each answer from now on.
    ///
    /// # Errors
    /// When the time is 0.
    pub fn set_patience(&mut self, patience: Duration) -> Result<()> {
        Ok(self.stream.set_read_timeout(Some(patience))?)
    }

    /// Asks what an operator asks, and waits for the answer.
    ///
    /// # Errors
    /// When none comes; what became of it is unknown then.
    pub fn administrate(&mut self, request: &AdminRequest) -> Result<AdminReply> {
        self.correlation += 1;
        let mut bytes = Vec::new();
        request.append_frame(&mut bytes, self.correlation);
        self.send(&bytes)?;
        let answer = self.receive()?;
        ensure!(answer.kind == FrameKind::AdminReply, "answered an admin question with {:?}", answer.kind);
        Ok(wire::view_admin_reply(&answer.head)?)
    }

    /// Asks for the status, as JSON text.
    ///
    /// # Errors
    /// When none comes.
    pub fn status_json(&mut self) -> Result<String> {
        self.correlation += 1;
        let mut bytes = Vec::new();
        wire::append_status(&mut bytes, self.correlation);
        self.send(&bytes)?;
        let answer = self.receive()?;
        ensure!(answer.kind == FrameKind::StatusReply, "answered a status question with {:?}", answer.kind);
        String::from_utf8(answer.head).context("the status is no text")
    }
}

/// Asks one shard for its status, as JSON text.
///
/// # Errors
/// When it does not answer.
pub fn status_json(address: &str) -> Result<String> {
    let (mut connection, _) = Connection::open(address)?;
    connection.status_json()
}
