//! From settings to a gateway that serves, and to its end.
//!
//! Off the data path.
//! Invariants: everything runs on one thread with one runtime; what cannot be bound is an error of [`start`], not of the
//! log; [`Running::stop`] returns when the requests under way are answered, or after [`DRAIN`], and
//! the spans of them sent.

use std::future;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use axum::Router;
use ringraft_net::client::tokio::Client;
use ringraft_net::client::{Options, OptionsError};
use tokio::net::{TcpListener, TcpSocket, lookup_host};
use tokio::runtime::Builder;
use tokio::sync::watch;

use crate::listen::Listeners;
use crate::settings::{Settings, Sources};
use crate::state::State;
use crate::telemetry::Spans;
use crate::{grpc, http};

/// Longest wait for requests under way at the end.
const DRAIN: Duration = Duration::from_secs(3);
/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 4_096;

/// Why there is no gateway.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("{setting} = {address}: cannot listen: {error}")]
    Listen {
        /// The setting.
        setting: &'static str,
        /// The address.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// The thread or its runtime cannot be made.
    #[error("cannot start the gateway's thread: {0}")]
    Thread(io::Error),
    /// The client of the cluster does not take its options.
    #[error(transparent)]
    Client(#[from] OptionsError),
    /// Spans cannot be sent there.
    #[error("tracing_endpoint = {endpoint}: {problem}")]
    Telemetry {
        /// The collector.
        endpoint: String,
        /// Why not.
        problem: String,
    },
    /// A bound that is none.
    #[error("{0} must be at least 1")]
    Bound(&'static str),
}

/// Where the gateway listens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// HTTP.
    pub http: Option<SocketAddr>,
    /// gRPC, when it has an address of its own.
    pub grpc: Option<SocketAddr>,
    /// Metrics, when they have an address of their own.
    pub metrics: Option<SocketAddr>,
}

/// A gateway that serves.
#[derive(Debug)]
pub struct Running {
    addresses: Addresses,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// Accepts no more, answers what is under way, and ends.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.stop.send(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Starts the gateway on a thread of its own; returns when everything is bound.
///
/// # Errors
/// [`StartError`].
pub fn start(settings: Settings, sources: Sources) -> Result<Running, StartError> {
    check(&settings)?;
    let (stop, stopped) = watch::channel(false);
    let (bound, answer) = mpsc::channel();
    let serve = move || match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(run(settings, sources, stopped, &bound)),
        Err(error) => _ = bound.send(Err(StartError::Thread(error))),
    };
    let thread = thread::Builder::new().name(String::from("gateway")).spawn(serve).map_err(StartError::Thread)?;
    let gone = || StartError::Thread(io::Error::other("it ended at once"));
    let addresses = answer.recv().map_err(|_| gone())??;
    Ok(Running { addresses, stop, thread: Some(thread) })
}

fn check(settings: &Settings) -> Result<(), StartError> {
    let bounds = [
        ("connections_max", settings.connections_max),
        ("requests_max", settings.requests_max),
        ("body_bytes_max", settings.body_bytes_max),
        ("request_bytes_max", settings.request_bytes_max),
    ];
    match bounds.into_iter().find(|(_, bound)| *bound == 0) {
        Some((name, _)) => Err(StartError::Bound(name)),
        None => Ok(()),
    }
}

fn client(settings: &Settings) -> Result<Client, OptionsError> {
    let defaults = Options::default();
    Client::start(Options {
        endpoints: settings.endpoints.clone(),
        cluster: settings.cluster,
        in_flight_max: settings.requests_max.clamp(1_024, ringraft_net::client::IN_FLIGHT_MAX),
        request_timeout: settings.request_timeout,
        near: Some(settings.node),
        ..defaults
    })
}

async fn run(
    settings: Settings,
    sources: Sources,
    stopped: watch::Receiver<bool>,
    bound: &mpsc::Sender<Result<Addresses, StartError>>,
) {
    let listeners = Bound::all(&settings).await;
    match listeners.and_then(|listeners| Ok((listeners, client(&settings)?, spans(&settings)?))) {
        Ok((listeners, client, spans)) => {
            let addresses = listeners.addresses();
            let state = State::new(settings, sources.clone(), client);
            let _ = bound.send(Ok(addresses));
            tokio::select! {
                () = serve(listeners, &state, spans.as_ref(), stopped) => {}
                () = watch_changes(spans.as_ref(), &sources) => {}
            }
            if let Some(spans) = spans {
                spans.finish(&sources).await;
            }
        }
        Err(error) => _ = bound.send(Err(error)),
    }
}

fn spans(settings: &Settings) -> Result<Option<Spans>, StartError> {
    let Some(telemetry) = &settings.telemetry else { return Ok(None) };
    let endpoint = telemetry.endpoint.clone();
    Spans::new(settings.node, telemetry).map(Some).map_err(|problem| StartError::Telemetry { endpoint, problem })
}

async fn watch_changes(spans: Option<&Spans>, sources: &Sources) {
    match spans {
        Some(spans) => spans.watch(sources).await,
        None => future::pending().await,
    }
}

async fn serve(bound: Bound, state: &State, spans: Option<&Spans>, stopped: watch::Receiver<bool>) {
    let finish = |routes: Router| {
        let routes = http::finish(routes);
        match spans {
            Some(spans) => spans.layer(routes),
            None => routes,
        }
    };
    let mut listeners = Listeners::new(state.settings(), stopped);
    if let Some(listener) = bound.http {
        let routes = http::router(state);
        // Whoever gave gRPC a port of its own does not want it here.
        let routes = if bound.grpc.is_some() { routes } else { routes.merge(grpc::router(state)) };
        listeners.serve(listener, finish(routes));
    }
    if let Some(listener) = bound.grpc {
        listeners.serve(listener, finish(grpc::router(state)));
    }
    if let Some(listener) = bound.metrics {
        listeners.serve(listener, finish(Router::new().merge(http::metrics_router(state))));
    }
    listeners.run(DRAIN).await;
}

/// Sockets that listen.
struct Bound {
    http: Option<TcpListener>,
    grpc: Option<TcpListener>,
    metrics: Option<TcpListener>,
}

impl Bound {
    async fn all(settings: &Settings) -> Result<Self, StartError> {
        Ok(Self {
            http: bind("http_address", &settings.http_address).await?,
            grpc: bind("grpc_address", &settings.grpc_address).await?,
            metrics: bind("metrics_address", &settings.metrics_address).await?,
        })
    }

    fn addresses(&self) -> Addresses {
        let address =
            |listener: &Option<TcpListener>| listener.as_ref().and_then(|listener| listener.local_addr().ok());
        Addresses { http: address(&self.http), grpc: address(&self.grpc), metrics: address(&self.metrics) }
    }
}

async fn bind(setting: &'static str, address: &str) -> Result<Option<TcpListener>, StartError> {
    if address.is_empty() {
        return Ok(None);
    }
    let listener = listen(address).await;
    listener.map(Some).map_err(|error| StartError::Listen { setting, address: address.to_owned(), error })
}

async fn listen(address: &str) -> io::Result<TcpListener> {
    let address = lookup_host(address).await?.next().ok_or(io::ErrorKind::NotFound)?;
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
