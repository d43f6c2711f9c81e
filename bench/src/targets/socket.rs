//! Nonblocking sockets under one epoll, for the targets that speak plain TCP.
//!
//! Off the data path.
//!
//! Invariants: `write` only appends to the output buffer, which has a bound (`has_room`); one `send` and one `recv` per
//! connection and turn, however many operations they carry; buffers are allocated once and grow only for messages
//! larger than they are.
//!
//! epoll is used through rustix, because its timeout has nanoseconds: a millisecond would be too coarse for an open
//! loop that sleeps between operations.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use socket2::{Domain, Protocol, Socket, Type};

use super::TargetError;

const INPUT_BYTES: usize = 64 * 1024;
const OUTPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
const EVENTS_MAX: usize = 256;

/// A set of connections that are waited for together.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// An empty set.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Waits for the first event or until the timeout has passed; fills `ready` with the tokens of connections.
    pub fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>) -> io::Result<()> {
        let timeout = Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: i64::from(timeout.subsec_nanos()) };
        self.events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&timeout)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        ready.extend(self.events.iter().map(|event| event.data.u64()));
        Ok(())
    }

    /// Adds a connection under a token.
    pub fn add(&self, connection: &Connection, token: u64) -> io::Result<()> {
        epoll::add(&self.epoll, &connection.socket, epoll::EventData::new_u64(token), epoll::EventFlags::IN)?;
        Ok(())
    }

    /// Adds a connection that is being made under a token: it is woken when it is made or has failed.
    pub fn add_connecting(&self, connection: &mut Connection, token: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(&self.epoll, &connection.socket, epoll::EventData::new_u64(token), flags)?;
        connection.waits_for_writable = true;
        Ok(())
    }

    /// Asks to be woken also when the connection takes more output, or no longer.
    fn set_writable(&self, connection: &Connection, token: u64, writable: bool) -> io::Result<()> {
        let mut flags = epoll::EventFlags::IN;
        flags.set(epoll::EventFlags::OUT, writable);
        epoll::modify(&self.epoll, &connection.socket, epoll::EventData::new_u64(token), flags)?;
        Ok(())
    }
}

/// One nonblocking connection with its buffers. Closing it takes it out of its poller.
pub struct Connection {
    socket: TcpStream,
    input: Vec<u8>,
    input_begin: usize,
    input_end: usize,
    output: Vec<u8>,
    output_begin: usize,
    waits_for_writable: bool,
}

impl Connection {
    /// Connects within a timeout, without delay for small messages.
    pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        socket.connect_timeout(&address.into(), timeout)?;
        socket.set_nonblocking(true)?;
        Self::of(socket)
    }

    /// Begins to connect; [`Connection::established`] tells when that is done. Its owner keeps the time.
    pub fn begin(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => Err(error),
            _ => Self::of(socket),
        }
    }

    fn of(socket: Socket) -> io::Result<Self> {
        socket.set_tcp_nodelay(true)?;
        Ok(Self {
            socket: socket.into(),
            input: vec![0; INPUT_BYTES],
            input_begin: 0,
            input_end: 0,
            output: Vec::new(),
            output_begin: 0,
            waits_for_writable: false,
        })
    }

    /// Whether a connection begun is made; an error when it failed.
    pub fn established(&self) -> io::Result<bool> {
        if let Some(error) = self.socket.take_error()? {
            return Err(error);
        }
        match self.socket.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether more output may be queued.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.len() - self.output_begin < OUTPUT_BYTES_MAX
    }

    /// The output buffer, to append to.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// Sends what is queued, as far as the system takes it.
    pub fn flush(&mut self, poller: &Poller, token: u64) -> io::Result<()> {
        let output = std::mem::take(&mut self.output);
        let sent = self.write(&output[self.output_begin..], poller, token);
        self.output = output;
        self.output_begin += sent?;
        if self.output_begin == self.output.len() {
            self.output.clear();
            self.output_begin = 0;
        } else if self.output_begin >= OUTPUT_BYTES_MAX {
            self.output.drain(..self.output_begin);
            self.output_begin = 0;
        }
        Ok(())
    }

    /// Sends bytes of somebody else's buffer, as far as the system takes them, and says how many. When some are left,
    /// the poller wakes as soon as more can be sent.
    pub fn write(&mut self, bytes: &[u8], poller: &Poller, token: u64) -> io::Result<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match self.socket.write(&bytes[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let blocked = sent < bytes.len();
        if blocked != self.waits_for_writable {
            poller.set_writable(self, token, blocked)?;
            self.waits_for_writable = blocked;
        }
        Ok(sent)
    }

    /// Whether output waits for the system to take more.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.waits_for_writable
    }

    /// Receives once. `Ok(false)`: nothing there. The end of the stream is an error.
    pub fn fill(&mut self) -> io::Result<bool> {
        if self.input_begin == self.input_end {
            self.input_begin = 0;
            self.input_end = 0;
        } else if self.input_end == self.input.len() {
            if self.input_begin > 0 {
                self.input.copy_within(self.input_begin..self.input_end, 0);
                self.input_end -= self.input_begin;
                self.input_begin = 0;
            } else {
                // One message larger than the buffer; its size was bounded by whoever parses it.
                self.input.resize(self.input.len() * 2, 0);
            }
        }
        match self.socket.read(&mut self.input[self.input_end..]) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                self.input_end += bytes;
                Ok(true)
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Bytes received and not yet consumed.
    #[must_use]
    pub fn input(&self) -> &[u8] {
        &self.input[self.input_begin..self.input_end]
    }

    /// Drops the first bytes of the input.
    pub fn consume(&mut self, bytes: usize) {
        self.input_begin = (self.input_begin + bytes).min(self.input_end);
    }
}

/// Resolves `host:port`.
pub fn resolve(address: &str) -> Result<SocketAddr, TargetError> {
    let error = |reason: String| TargetError::Address { address: address.to_owned(), reason };
    let mut addresses = address.to_socket_addrs().map_err(|e| error(format!("{e} (expected HOST:PORT)")))?;
    addresses.next().ok_or_else(|| error("no address found".to_owned()))
}
