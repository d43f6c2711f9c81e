//! Systems that speak gRPC: puts and gets as unary calls, by tonic on a current-thread tokio runtime.
//!
//! Off the data path.
//!
//! One HTTP/2 connection per channel, channels over endpoints round robin, so that other nodes pass calls on as they do
//! for clients that know one address. What the calls look like is an [`Api`].
//! The runtime runs inside the loop's thread, only while the loop polls; sub-millisecond timeouts come from a timerfd,
//! as tokio's timer counts milliseconds.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::{Busy, Completion, Seen, Target, TargetError, TargetFacts};
use crate::clock::{Clock, MonotonicClock};
use crate::recorder::ErrorKind;
use crate::workload::{Operation, OperationKind};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A message without fields that matter.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Empty {}

/// The calls of one system.
pub trait Api: Copy + Send + 'static {
    /// Sets a key.
    fn put(
        self,
        channel: Channel,
        key: Vec<u8>,
        value: Vec<u8>,
    ) -> impl Future<Output = Result<Seen, ErrorKind>> + Send;

    /// Reads a key.
    fn get(self, channel: Channel, key: Vec<u8>) -> impl Future<Output = Result<Seen, ErrorKind>> + Send;

    /// Deletes a key.
    fn delete(self, channel: Channel, key: Vec<u8>) -> impl Future<Output = Result<Seen, ErrorKind>> + Send;

    /// Asks for what the report says of the system.
    fn ask(self, channel: Channel, facts: &mut TargetFacts) -> impl Future<Output = Result<(), tonic::Status>> + Send;
}

/// What request tasks hand back to the loop. The lock is never contended: all of it runs on one thread.
struct Shared {
    completions: Mutex<Vec<Completion>>,
    arrived: Notify,
    clock: MonotonicClock,
}

impl Shared {
    fn complete(&self, tag: u64, result: Result<Seen, ErrorKind>) {
        let completion = Completion { tag, at_ns: self.clock.now(), result };
        self.completions.lock().unwrap_or_else(PoisonError::into_inner).push(completion);
        self.arrived.notify_one();
    }

    fn take(&self, into: &mut Vec<Completion>) {
        into.append(&mut self.completions.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A cluster under load.
pub struct GrpcTarget<A> {
    api: A,
    runtime: Runtime,
    channels: Vec<Channel>,
    shared: Arc<Shared>,
    /// Longest time of a call.
    timeout: Duration,
    /// A timerfd. tokio's only safe door for a descriptor that one waits for and reads is that of a pipe.
    timer: Receiver,
    facts: TargetFacts,
}

impl<A: Api> GrpcTarget<A> {
    /// Connects `connections` channels over the endpoints (`HOST:PORT` or a URL) round robin. A call ends after `timeout`.
    pub fn connect(
        api: A,
        endpoints: &[String],
        connections: usize,
        timeout: Duration,
        clock: MonotonicClock,
    ) -> Result<Self, TargetError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut facts = TargetFacts { connections, ..TargetFacts::default() };
        let channels = runtime.block_on(async {
            let mut channels = Vec::with_capacity(connections);
            for number in 0..connections {
                channels.push(connect(&endpoints[number % endpoints.len()]).await?);
            }
            let failed = |status: tonic::Status| TargetError::Handshake {
                address: endpoints[0].clone(),
                reason: format!("{}: {}", status.code(), status.message()),
            };
            api.ask(channels[0].clone(), &mut facts).await.map_err(failed)?;
            Ok::<_, TargetError>(channels)
        })?;
        let shared = Arc::new(Shared { completions: Mutex::default(), arrived: Notify::new(), clock });
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags).map_err(std::io::Error::from)?;
        let timer = {
            let _entered = runtime.enter();
            Receiver::from_owned_fd_unchecked(timer)?
        };
        Ok(Self { api, runtime, channels, shared, timeout, timer, facts })
    }
}

async fn connect(address: &str) -> Result<Channel, TargetError> {
    let url = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(url)
        .map_err(|error| TargetError::Address { address: address.to_owned(), reason: error.to_string() })?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_TIMEOUT);
    endpoint.connect().await.map_err(|error| {
        let source = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
        TargetError::Connect { address: address.to_owned(), reason: source }
    })
}

/// One call.
pub(super) async fn unary<Q, A>(channel: Channel, path: &'static str, request: Q) -> Result<A, tonic::Status>
where
    Q: prost::Message + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<Q, A> = ProstCodec::default();
    let answer = client.unary(tonic::Request::new(request), PathAndQuery::from_static(path), codec).await?;
    Ok(answer.into_inner())
}

/// What a failed call counts as.
pub(super) fn kind_of(status: &tonic::Status) -> ErrorKind {
    match status.code() {
        tonic::Code::ResourceExhausted => ErrorKind::Overloaded,
        tonic::Code::Unavailable => ErrorKind::Unavailable,
        tonic::Code::DeadlineExceeded | tonic::Code::Unknown => ErrorKind::OutcomeUnknown,
        tonic::Code::InvalidArgument => ErrorKind::BadRequest,
        tonic::Code::Cancelled => ErrorKind::Disconnected,
        _ => ErrorKind::ServerError,
    }
}

/// A call that is given up after some time, so that those without an answer do not gather.
async fn within(timeout: Duration, call: impl Future<Output = Result<Seen, ErrorKind>>) -> Result<Seen, ErrorKind> {
    tokio::time::timeout(timeout, call).await.unwrap_or(Err(ErrorKind::Timeout))
}

/// Waits until the timer fires.
async fn expire(timer: &Receiver) {
    loop {
        // An error other than "not yet" ends the wait, which is what a timer is for.
        if timer.readable().await.is_err() {
            return;
        }
        match timer.try_read(&mut [0; 8]) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

fn arm(timer: &Receiver, timeout: Duration) -> std::io::Result<()> {
    let once = Itimerspec {
        it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
        it_value: Timespec {
            tv_sec: timeout.as_secs() as i64,
            // Zero would disarm it.
            tv_nsec: i64::from(timeout.subsec_nanos().max(1)),
        },
    };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::empty(), &once)?;
    Ok(())
}

impl<A: Api> Target for GrpcTarget<A> {
    fn submit(&mut self, operation: &Operation<'_>, tag: u64, _now_ns: u64) -> Result<(), Busy> {
        let channel = self.channels[(tag as u32) as usize % self.channels.len()].clone();
        let shared = Arc::clone(&self.shared);
        let (api, timeout, key) = (self.api, self.timeout, operation.key.to_vec());
        match operation.kind {
            OperationKind::Put => {
                let value = operation.value.to_vec();
                let call = within(timeout, api.put(channel, key, value));
                self.runtime.spawn(async move { shared.complete(tag, call.await) });
            }
            OperationKind::Get => {
                let call = within(timeout, api.get(channel, key));
                self.runtime.spawn(async move { shared.complete(tag, call.await) });
            }
            OperationKind::Delete => {
                let call = within(timeout, api.delete(channel, key));
                self.runtime.spawn(async move { shared.complete(tag, call.await) });
            }
        }
        Ok(())
    }

    fn poll(&mut self, timeout: Duration, completions: &mut Vec<Completion>) -> Result<(), TargetError> {
        let (shared, timer) = (&self.shared, &self.timer);
        if !timeout.is_zero() {
            arm(timer, timeout)?;
        }
        self.runtime.block_on(async {
            if timeout.is_zero() {
                tokio::task::yield_now().await;
            } else {
                tokio::select! {
                    () = shared.arrived.notified() => {}
                    () = expire(timer) => {}
                }
            }
            // What became ready in the same turn of the runtime comes along.
            tokio::task::yield_now().await;
        });
        self.shared.take(completions);
        Ok(())
    }

    fn facts(&self) -> TargetFacts {
        self.facts.clone()
    }
}
