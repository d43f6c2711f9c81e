//! Spans of requests and of changes of role, leader and term, sent to a collector by OTLP over gRPC.
//!
//! Off the data path. Without [`Telemetry`] in the settings nothing of it is there: no layer, no thread.
//!
//! ```text
//!   request ── request.rs: from its head to the end of the answer ──────────────┐
//!   shards ── board ── Sources::changes, twice a second ── a span per change ───┴─▶ queue ── thread: batches ──▶ collector
//! ```
//! Invariants: no shard makes or sends a span; a request never waits for the collector: what the queue does not hold is
//! dropped; what is sent holds no keys and no values; the end waits for the collector for [`FLUSH_PATIENCE`] at most.
//! It measures nothing: metrics are the engine's.

mod exporter;
mod request;

use std::time::{Duration, SystemTime};

use axum::{Router, middleware};
use opentelemetry::trace::{Span, SpanKind, TraceId, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingResult, SdkTracer, SdkTracerProvider, ShouldSample,
    SpanProcessor,
};
use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tracing::debug;

use self::exporter::Exporter;
use crate::settings::Sources;

/// Between two looks at what replicas have become.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Spans that wait to be sent; more are dropped.
const QUEUE_MAX: usize = 4_096;
/// Spans sent at once.
const BATCH_MAX: usize = 512;
/// A span waits so long for others to be sent with.
const BATCH_DELAY: Duration = Duration::from_secs(1);
/// Longest wait for the collector at the end.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Telemetry {
    /// The collector's OTLP/gRPC address, `host:port`.
    pub endpoint: String,
    /// What the nodes of this cluster are called there.
    pub service_name: String,
    /// Share of the requests without a sampled parent, 0 to 1; changes are always sent.
    pub sample_ratio: f64,
}

/// Role, leader or term of a replica became others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The group.
    pub group: u32,
    /// The term from here on.
    pub term: u64,
    /// The part it plays from here on, as `raft_state` names it.
    pub role: &'static str,
    /// The part it played before.
    pub role_before: &'static str,
    /// The leader's node from here on, 0: none is known.
    pub leader: u64,
    /// When what it was before began.
    pub since: SystemTime,
    /// When it changed.
    pub at: SystemTime,
}

/// Makes spans and has them sent.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    node: u64,
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Spans {
    /// Spans of this node, sent to a collector. To be called on the gateway's runtime, which does the sending; the error
    /// says what is wrong with the endpoint.
    pub(crate) fn new(node: u64, telemetry: &Telemetry) -> Result<Self, String> {
        let exporter = Exporter::new(&telemetry.endpoint)?;
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(BATCH_DELAY);
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batches.build()).build();
        Ok(Self::through(node, telemetry, processor))
    }

    fn through(node: u64, telemetry: &Telemetry, processor: impl SpanProcessor + 'static) -> Self {
        let resource = Resource::builder()
            .with_service_name(telemetry.service_name.clone())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", node.to_string()))
            .build();
        let sampling = Sampling::new(telemetry.sample_ratio);
        let provider = SdkTracerProvider::builder().with_span_processor(processor).with_sampler(sampling);
        let provider = provider.with_resource(resource).build();
        Self { node, tracer: provider.tracer("ringraft"), provider }
    }

    /// Traces the requests of all these routes.
    pub(crate) fn layer(&self, routes: Router) -> Router {
        routes.layer(middleware::from_fn_with_state(self.clone(), request::trace))
    }

    /// Makes a span of each change, until it is dropped.
    pub(crate) async fn watch(&self, sources: &Sources) {
        loop {
            sleep(LOOK_INTERVAL).await;
            self.tell(sources);
        }
    }

    /// Sends what is left.
    pub(crate) async fn finish(self, sources: &Sources) {
        self.tell(sources);
        // The sending is done by this very runtime: waiting for it is not.
        let flushed = spawn_blocking(move || self.provider.shutdown_with_timeout(FLUSH_PATIENCE)).await;
        if !matches!(flushed, Ok(Ok(()))) {
            debug!(?flushed, "the last spans are dropped");
        }
    }

    fn tell(&self, sources: &Sources) {
        (sources.changes)().iter().for_each(|change| self.change(change));
    }

    /// An election takes from its beginning to what came of it; other changes take no time.
    fn change(&self, change: &Change) {
        let was_election = matches!(change.role_before, "candidate" | "pre_candidate");
        let begin = if was_election { change.since.min(change.at) } else { change.at };
        let attributes = [
            KeyValue::new("raft.node", number(self.node)),
            KeyValue::new("raft.group", i64::from(change.group)),
            KeyValue::new("raft.term", number(change.term)),
            KeyValue::new("raft.role", change.role),
            KeyValue::new("raft.role.before", change.role_before),
            KeyValue::new("raft.leader", number(change.leader)),
        ];
        let builder = self.tracer.span_builder("raft.transition").with_kind(SpanKind::Internal);
        let builder = builder.with_start_time(begin).with_attributes(attributes);
        let mut span = self.tracer.build_with_context(builder, &Context::new());
        span.end_with_timestamp(change.at);
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Requests follow the decision of their parent, without one the ratio; changes of role are few, so all are sent.
#[derive(Clone, Debug)]
struct Sampling {
    requests: Sampler,
}

impl Sampling {
    fn new(ratio: f64) -> Self {
        Self { requests: Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))) }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[opentelemetry::trace::Link],
    ) -> SamplingResult {
        let sampler = if *kind == SpanKind::Server { &self.requests } else { &Sampler::AlwaysOn };
        sampler.should_sample(parent, trace, name, kind, attributes, links)
    }
}

#[cfg(test)]
mod tests;
