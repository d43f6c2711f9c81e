//! A TCP stream shared by the reading and the writing task of one executor.
//!
//! Data path 1/9 and 9/9.
//! Invariant: the stream is borrowed inside one poll only, never across an await.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;

/// Both directions of one connection.
#[derive(Clone)]
pub(crate) struct Stream(Rc<RefCell<TcpStream>>);

impl Stream {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(Rc::new(RefCell::new(stream)))
    }

    /// Reads what is there, at most `bytes_max`, behind the end of `buffer`; 0 is the end of the stream.
    pub(crate) async fn read_some(&self, buffer: &mut Vec<u8>, bytes_max: usize) -> io::Result<usize> {
        let filled = buffer.len();
        buffer.resize(filled + bytes_max, 0);
        let result = poll_fn(|context| {
            let mut stream = self.0.borrow_mut();
            Pin::new(&mut *stream).poll_read(context, &mut buffer[filled..])
        })
        .await;
        buffer.truncate(filled + result.as_ref().copied().unwrap_or(0));
        result
    }

    /// Writes all of `bytes`.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let written = poll_fn(|context| {
                let mut stream = self.0.borrow_mut();
                Pin::new(&mut *stream).poll_write(context, bytes)
            })
            .await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            bytes = &bytes[written..];
        }
        Ok(())
    }

    /// Tries to write at once, without waiting; returns how much went out.
    pub(crate) async fn write_now(&self, bytes: &[u8]) -> io::Result<usize> {
        poll_fn(|context| {
            let mut stream = self.0.borrow_mut();
            match Pin::new(&mut *stream).poll_write(context, bytes) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => Poll::Ready(Ok(0)),
            }
        })
        .await
    }

    /// Whether both are the same connection.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Ends both directions; the other task of the connection sees it as the end of the stream.
    pub(crate) async fn shutdown(&self) {
        poll_fn(|context| {
            let stream = self.0.borrow_mut();
            let shutdown = std::pin::pin!(stream.shutdown(Shutdown::Both));
            // It is one system call and never pending; an error means that the peer has closed already.
            shutdown.poll(context).map(|_| ())
        })
        .await;
    }
}
