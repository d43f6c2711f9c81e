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
        socket.set_tcp_nodelay(true)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket: socket.into(),
            input: vec![0; INPUT_BYTES],
            input_begin: 0,
            input_end: 0,
            output: Vec::with_capacity(INPUT_BYTES),
            output_begin: 0,
            waits_for_writable: false,
        })
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
        while self.output_begin < self.output.len() {
            match self.socket.write(&self.output[self.output_begin..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => self.output_begin += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let blocked = self.output_begin < self.output.len();
        if !blocked {
            self.output.clear();
            self.output_begin = 0;
        } else if self.output_begin >= OUTPUT_BYTES_MAX {
            self.output.drain(..self.output_begin);
            self.output_begin = 0;
        }
        if blocked != self.waits_for_writable {
            poller.set_writable(self, token, blocked)?;
            self.waits_for_writable = blocked;
        }
        Ok(())
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
