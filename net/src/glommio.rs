//! Connections of a glommio executor: listen, connect, read, write.
//!
//! Data path 1/9, 6b/9 and 9/9: bytes between a socket and the caller's buffers, one system call each, no copy between.
//!
//! Invariants: no wake from another thread, no blocking call after `listen`, no name resolution; a stream is borrowed
//! inside one poll only, never across an await; a read goes straight into the caller's buffer.
//!
//! glommio's streams read by `recv(2)` at once and wait for readiness only when there is nothing; a partly filled buffer
//! already starts the wait for more. Writes likewise.
//!
//! The one `unsafe` line lends the descriptor of a stream that is borrowed for as long: glommio has `AsRawFd` only.
//!
//! It does not know frames, and decides nothing.

use crate::{
    buffer::ReceiveBuffer,
    socket::{self, Options, Socket},
};
use futures_lite::{AsyncRead, AsyncWrite};
use glommio::{
    GlommioError,
    net::{TcpListener, TcpStream},
};
use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsRawFd, BorrowedFd},
    pin::Pin,
    rc::Rc,
    task::Poll,
    time::Duration,
};

impl Socket for TcpStream {
    #[allow(unsafe_code)]
    fn descriptor(&self) -> BorrowedFd<'_> {
        // SAFETY: the stream owns the descriptor and closes it only when dropped; the result borrows the stream.
        unsafe { BorrowedFd::borrow_raw(self.as_raw_fd()) }
    }
}

/// How long [`listen`] waits for an answer from its own address.
const PROBE_TIMEOUT: Duration = Duration::from_millis(200);

/// Both directions of one connection, for the reading and the writing task of one executor.
#[derive(Clone, Debug)]
pub struct Connection(Rc<RefCell<TcpStream>>);

/// Listens on an address, for one shard.
///
/// glommio binds with `SO_REUSEPORT`, by which two processes could share an address without noticing and each get a part
/// of the connections. So it is first seen whether somebody answers there. (To bind without that option would also fail
/// while old connections of a node that just stopped are in `TIME_WAIT`.) This blocks for a moment: for the start only.
///
/// # Errors
/// What the system says, e.g. that the address is in use.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    if address.port() != 0 && somebody_listens(address) {
        let message = format!("{address} is in use: somebody listens there already; stop it or take another port");
        return Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    }
    TcpListener::bind(address).map_err(io_error)
}

fn somebody_listens(address: SocketAddr) -> bool {
    // Without a listener a socket may, by chance of its own port, connect to itself.
    std::net::TcpStream::connect_timeout(&address, PROBE_TIMEOUT)
        .is_ok_and(|stream| stream.local_addr().ok() != stream.peer_addr().ok())
}

/// Accepts one connection and sets its options.
///
/// # Errors
/// What the system says; the listener can go on.
pub async fn accept(listener: &TcpListener, options: &Options) -> io::Result<Connection> {
    let stream = listener.accept().await.map_err(io_error)?;
    Connection::new(stream, options)
}

/// Connects within `timeout` and sets the options.
///
/// # Errors
/// What the system says, or that the time is over.
pub async fn connect(address: SocketAddr, timeout: Duration, options: &Options) -> io::Result<Connection> {
    let stream = TcpStream::connect_timeout(address, timeout).await.map_err(io_error)?;
    Connection::new(stream, options)
}

fn io_error(error: GlommioError<()>) -> io::Error {
    match error {
        GlommioError::IoError(error) => error,
        GlommioError::EnhancedIoError { source, .. } => source,
        GlommioError::TimedOut(_) => io::ErrorKind::TimedOut.into(),
        other => io::Error::other(other.to_string()),
    }
}

impl Connection {
    /// Takes over a stream and sets its options.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(stream: TcpStream, options: &Options) -> io::Result<Self> {
        socket::configure(&stream, options)?;
        Ok(Self(Rc::new(RefCell::new(stream))))
    }

    /// The other side's address.
    ///
    /// # Errors
    /// What the system says.
    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        self.0.borrow().peer_addr().map_err(io_error)
    }

    /// Reads what is there into the buffer's spare part, which is at least `bytes_min`. 0 is the end of the stream.
    ///
    /// # Errors
    /// What the system says.
    pub async fn read_some(&self, buffer: &mut ReceiveBuffer, bytes_min: usize) -> io::Result<usize> {
        let count = poll_fn(|context| {
            let mut stream = self.0.borrow_mut();
            Pin::new(&mut *stream).poll_read(context, buffer.spare(bytes_min))
        })
        .await?;
        buffer.fill(count);
        Ok(count)
    }

    /// Writes everything.
    ///
    /// # Errors
    /// What the system says; some of it may have been sent.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let count = poll_fn(|context| {
                let mut stream = self.0.borrow_mut();
                Pin::new(&mut *stream).poll_write(context, bytes)
            })
            .await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[count..];
        }
        Ok(())
    }

    /// Writes what the socket takes at once, without waiting; how much that was.
    ///
    /// # Errors
    /// What the system says.
    pub async fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut stream = self.0.borrow_mut();
            match Pin::new(&mut *stream).poll_write(context, bytes) {
                Poll::Pending => Poll::Ready(Ok(0)),
                ready => ready,
            }
        })
        .await
    }

    /// Says that nothing more will be written; reading goes on.
    pub async fn half_close(&self) {
        self.shut(Shutdown::Write).await;
    }

    /// Ends both directions; the other task of the connection sees the end of the stream.
    pub async fn close(&self) {
        self.shut(Shutdown::Both).await;
    }

    async fn shut(&self, how: Shutdown) {
        poll_fn(|context| {
            let stream = self.0.borrow();
            // One system call, never pending; an error means that the other side was faster.
            std::pin::pin!(stream.shutdown(how)).poll(context).map(|_| ())
        })
        .await;
    }

    /// Whether both are the same connection.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use glommio::{LocalExecutorBuilder, Placement};

    #[test]
    fn bytes_go_both_ways_and_a_half_close_is_seen() {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(Duration::from_secs(3600)).make();
        executor.unwrap().run(async {
            let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let server = glommio::spawn_local(async move {
                let connection = accept(&listener, &Options::default()).await.unwrap();
                let mut buffer = ReceiveBuffer::new();
                while connection.read_some(&mut buffer, 7).await.unwrap() > 0 {}
                connection.write_all(buffer.filled()).await.unwrap();
                connection.close().await;
                buffer.filled().len()
            });
            let connection = connect(address, Duration::from_secs(1), &Options::default()).await.unwrap();
            assert_eq!(connection.peer_address().unwrap(), address);
            let sent: Vec<u8> = (0..100_000u32).map(|byte| byte as u8).collect();
            let first = connection.write_now(&sent).await.unwrap();
            connection.write_all(&sent[first..]).await.unwrap();
            connection.half_close().await;
            let mut buffer = ReceiveBuffer::new();
            while connection.read_some(&mut buffer, 10_000).await.unwrap() > 0 {}
            assert_eq!(buffer.filled(), &sent[..]);
            assert_eq!(server.await, sent.len());
        });
    }

    #[test]
    fn an_address_is_listened_on_once() {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(Duration::from_secs(3600)).make();
        executor.unwrap().run(async {
            let first = listen("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = first.local_addr().unwrap();
            assert_eq!(listen(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
            // With connections of before in TIME_WAIT it can be listened on again.
            let connection = connect(address, Duration::from_secs(1), &Options::default()).await.unwrap();
            accept(&first, &Options::default()).await.unwrap().close().await;
            drop((first, connection));
            listen(address).unwrap();
        });
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        let executor = LocalExecutorBuilder::new(Placement::Unbound).preempt_timer(Duration::from_secs(3600)).make();
        executor.unwrap().run(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            let error = connect(address, Duration::from_secs(1), &Options::default()).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }
}
