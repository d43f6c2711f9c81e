//! Socket options, the same for every kind of stream.
//!
//! Off the data path: once per connection.
//!
//! | option | protects against |
//! |---|---|
//! | `TCP_NODELAY` | replies and append responses waiting for an acknowledgement (Nagle) |
//! | keepalive | a silent peer behind a dead link on an idle connection |
//! | `TCP_USER_TIMEOUT` | sent bytes nobody acknowledges keeping a connection open for a quarter of an hour |
//! | buffer sizes | when given; otherwise the kernel tunes them |
//!
//! It opens no sockets.

use socket2::{SockRef, TcpKeepalive};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

/// What is set on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Send at once.
    pub nodelay: bool,
    /// Idle time before the first keepalive probe; probes follow at the same interval. `None`: no probes.
    pub keepalive: Option<Duration>,
    /// Probes without an answer before the connection is given up.
    pub keepalive_probes: u32,
    /// How long sent bytes may stay unacknowledged. `None`: the kernel's way.
    pub user_timeout: Option<Duration>,
    /// `SO_SNDBUF`; `None`: the kernel tunes it.
    pub send_buffer_bytes: Option<usize>,
    /// `SO_RCVBUF`; `None`: the kernel tunes it.
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodelay: true,
            keepalive: Some(Duration::from_secs(5)),
            keepalive_probes: 3,
            user_timeout: Some(Duration::from_secs(10)),
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
        }
    }
}

/// A stream whose options can be set: std's, tokio's, glommio's, or any descriptor by its [`BorrowedFd`].
pub trait Socket {
    /// Its descriptor.
    fn descriptor(&self) -> BorrowedFd<'_>;
}

impl Socket for BorrowedFd<'_> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        *self
    }
}

impl Socket for std::net::TcpStream {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.as_fd()
    }
}

/// Sets the options on a connection.
///
/// # Errors
/// What the system says.
pub fn configure(socket: &impl Socket, options: &Options) -> io::Result<()> {
    let descriptor = socket.descriptor();
    let socket = SockRef::from(&descriptor);
    socket.set_tcp_nodelay(options.nodelay)?;
    if let Some(idle) = options.keepalive {
        let keepalive = TcpKeepalive::new().with_time(idle).with_interval(idle).with_retries(options.keepalive_probes);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    if let Some(timeout) = options.user_timeout {
        socket.set_tcp_user_timeout(Some(timeout))?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let options =
            Options { send_buffer_bytes: Some(100_000), receive_buffer_bytes: Some(50_000), ..Options::default() };
        configure(&stream, &options).unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(5));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(10)));
        assert!(socket.send_buffer_size().unwrap() >= 100_000);
        assert!(socket.recv_buffer_size().unwrap() >= 50_000);
    }
}
