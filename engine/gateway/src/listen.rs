//! Listening: from sockets to requests, HTTP/1.1 and HTTP/2 told apart by their first bytes.
//!
//! Off the data path.
//!
//! Invariants: at most `connections_max` connections are open, further ones wait in the kernel; a connection whose head of
//! a request, or HTTP/2's preface, does not come in time is closed, also before its first byte; a connection costs one task; when told to stop,
//! nothing more is accepted and connections end behind the request they are at.
//!
//! It knows no routes.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::settings::Settings;

/// Pause after an accept that failed: usually file descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at a connection that has sent less than tells its protocol.
const PEEK_PAUSE: Duration = Duration::from_millis(10);
/// What every HTTP/2 connection begins with. It is waited for as a whole: who begins so is pinged only behind it.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// So much of it tells: no method of HTTP/1.1 begins so.
const HTTP2_BEGIN: &[u8] = b"PRI ";
/// Bytes of a request's head: the buffer it is read into, or its headers decoded.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Headers of a request.
const HEADERS_MAX: usize = 100;
/// Streams of an HTTP/2 connection.
const STREAMS_MAX: u32 = 1_024;
/// A quiet HTTP/2 connection is pinged so often...
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// ... and closed when it does not answer for so long.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The listeners of a gateway and their connections.
pub(crate) struct Listeners {
    permits: Arc<Semaphore>,
    head_timeout: Duration,
    stopped: watch::Receiver<bool>,
    graceful: Arc<GracefulShutdown>,
    accepting: JoinSet<()>,
}

impl Listeners {
    pub(crate) fn new(settings: &Settings, stopped: watch::Receiver<bool>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(settings.connections_max)),
            head_timeout: settings.head_timeout,
            stopped,
            graceful: Arc::new(GracefulShutdown::new()),
            accepting: JoinSet::new(),
        }
    }

    /// Serves these routes on a socket, from now on.
    pub(crate) fn serve(&mut self, listener: TcpListener, routes: Router) {
        let acceptor = Acceptor {
            permits: Arc::clone(&self.permits),
            head_timeout: self.head_timeout,
            graceful: Arc::clone(&self.graceful),
            stopped: self.stopped.clone(),
            routes,
        };
        let mut stopped = self.stopped.clone();
        self.accepting.spawn(async move {
            tokio::select! {
                () = acceptor.accept(&listener) => {}
                _ = stopped.wait_for(|stopped| *stopped) => {}
            }
        });
    }

    /// Goes on until told to stop, and then for `drain` at most.
    pub(crate) async fn run(mut self, drain: Duration) {
        while self.accepting.join_next().await.is_some() {}
        // Without listeners there is nothing to wait for but the end.
        let _ = self.stopped.wait_for(|stopped| *stopped).await;
        let Ok(graceful) = Arc::try_unwrap(self.graceful) else { return };
        if timeout(drain, graceful.shutdown()).await.is_err() {
            warn!(?drain, "requests are still under way; the gateway ends without them");
        }
    }
}

struct Acceptor {
    permits: Arc<Semaphore>,
    head_timeout: Duration,
    graceful: Arc<GracefulShutdown>,
    stopped: watch::Receiver<bool>,
    routes: Router,
}

impl Acceptor {
    async fn accept(&self, listener: &TcpListener) {
        loop {
            let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else { return };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (routes, watcher, head_timeout) = (self.routes.clone(), self.graceful.watcher(), self.head_timeout);
            let mut stopped = self.stopped.clone();
            tokio::spawn(async move {
                let begin = tokio::select! {
                    begin = timeout(head_timeout, begins_http2(&stream)) => begin,
                    _ = stopped.wait_for(|stopped| *stopped) => return,
                };
                let Ok(Ok(is_http2)) = begin else { return };
                if let Err(error) = connection(stream, is_http2, routes, watcher, head_timeout).await {
                    debug!(%error, "a connection ended");
                }
                drop(permit);
            });
        }
    }
}

type AnyError = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    stream: TcpStream,
    is_http2: bool,
    routes: Router,
    watcher: Watcher,
    head_timeout: Duration,
) -> Result<(), AnyError> {
    stream.set_nodelay(true)?;
    let stream = TokioIo::new(stream);
    let service = TowerToHyperService::new(routes);
    if is_http2 {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
        builder.max_header_list_size(HEAD_BYTES_MAX as u32);
        builder.keep_alive_interval(PING_INTERVAL).keep_alive_timeout(PING_TIMEOUT);
        watcher.watch(builder.serve_connection(stream, service)).await?;
    } else {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(head_timeout);
        builder.max_buf_size(HEAD_BYTES_MAX).max_headers(HEADERS_MAX).pipeline_flush(true);
        watcher.watch(builder.serve_connection(stream, service)).await?;
    }
    Ok(())
}

/// Whether a connection begins as HTTP/2 does; looks at its first bytes without taking them.
async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut begin = [0; HTTP2_PREFACE.len()];
    loop {
        let count = stream.peek(&mut begin).await?;
        if count == begin.len() || count == 0 || !HTTP2_PREFACE.starts_with(&begin[..count]) {
            return Ok(begin[..count].starts_with(HTTP2_BEGIN));
        }
        sleep(PEEK_PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tonic::Request;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::fake::{Fake, NODE, run};
    use crate::grpc::proto::admin::GetNodeInfoRequest;
    use crate::grpc::proto::admin::admin_service_client::AdminServiceClient;

    /// Where these routes are served, until what is given back with it is dropped.
    async fn serve(settings: &Settings, routes: Router) -> (String, watch::Sender<bool>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (stop, stopped) = watch::channel(false);
        let mut listeners = Listeners::new(settings, stopped);
        listeners.serve(listener, routes);
        tokio::spawn(listeners.run(Duration::ZERO));
        (address, stop)
    }

    #[test]
    fn a_connection_that_begins_as_http2_and_goes_no_further_is_closed() {
        run(async {
            let settings =
                Settings { head_timeout: Duration::from_millis(50), connections_max: 1, ..Settings::default() };
            let (address, _stop) = serve(&settings, Router::new()).await;
            for begin in [&HTTP2_PREFACE[..2], HTTP2_BEGIN, &HTTP2_PREFACE[..HTTP2_PREFACE.len() - 1]] {
                let mut stream = TcpStream::connect(&address).await.unwrap();
                stream.write_all(begin).await.unwrap();
                // Each has the only permit: the next one is looked at when this one is gone. Its bytes were not read, so
                // that the end may be a reset.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        });
    }

    #[test]
    fn heads_of_http2_have_the_same_bound() {
        run(async {
            let fake = Fake::start().await;
            let state = fake.state(|_| {});
            let (address, _stop) = serve(state.settings(), crate::grpc::router(&state)).await;
            let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
            let mut client = AdminServiceClient::new(channel);
            for (bytes, is_taken) in [(HEAD_BYTES_MAX / 2, true), (HEAD_BYTES_MAX, false)] {
                let mut request = Request::new(GetNodeInfoRequest {});
                request.metadata_mut().insert("long", "x".repeat(bytes).parse().unwrap());
                let told = client.get_node_info(request).await;
                assert_eq!(told.is_ok(), is_taken, "{bytes}: {told:?}");
                assert!(told.is_err() || told.unwrap().get_ref().id == NODE);
            }
        });
    }
}
