//! Sending batches of spans to the collector, and telling the operator once when they do not get there.
//!
//! Off the data path, on the thread of the batches; the connection lives on the gateway's runtime.
//! Invariant: a batch takes [`EXPORT_TIMEOUT`] at most, connecting included, and is dropped when it fails.
//! It keeps no spans: the queue before it does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_otlp::{SpanExporter as OtlpExporter, WithExportConfig, WithTonicConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tonic::transport::Endpoint;
use tracing::{info, warn};

/// Longest time for a batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(3);

/// The way to one collector.
#[derive(Debug)]
pub(super) struct Exporter {
    otlp: OtlpExporter,
    endpoint: String,
    is_failing: AtomicBool,
}

impl Exporter {
    /// Connects with the first batch. The error says what is wrong with the endpoint.
    pub(super) fn new(endpoint: &str) -> Result<Self, String> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}")).map_err(|error| error.to_string())?;
        let channel = channel.connect_timeout(EXPORT_TIMEOUT).timeout(EXPORT_TIMEOUT).connect_lazy();
        let otlp = OtlpExporter::builder().with_tonic().with_channel(channel).with_timeout(EXPORT_TIMEOUT);
        let otlp = otlp.build().map_err(|error| error.to_string())?;
        Ok(Self { otlp, endpoint: endpoint.to_owned(), is_failing: AtomicBool::new(false) })
    }

    /// Says so when it is otherwise than it was.
    fn note(&self, spans: usize, result: &OTelSdkResult) {
        let was_failing = self.is_failing.swap(result.is_err(), Ordering::Relaxed);
        let endpoint = &self.endpoint;
        match result {
            Err(error) if !was_failing => {
                warn!(endpoint, spans, %error, "the collector does not take spans: they are dropped until it does");
            }
            Ok(()) if was_failing => info!(endpoint, "the collector takes spans again"),
            _ => {}
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.otlp.export(batch).await;
        self.note(spans, &result);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.otlp.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}
