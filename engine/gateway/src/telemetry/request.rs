//! The span of a request: whose child it is, what it is called, how it ended.
//!
//! Off the data path.
//!
//! ```text
//!   head: traceparent, method, route ──▶ span ──▶ handler ──▶ status ──▶ body ──▶ its end, or trailers: the span's end
//! ```
//! Invariants: names and attributes come from the routes, of a request's own text only what names a gRPC method, letters and
//! digits: no keys, no values; a request that is not sampled costs its sampling alone.
//! Names are those of OpenTelemetry's semantic conventions for HTTP and RPC.

use std::pin::Pin;
use std::task::{self, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::Span;
use tonic::Code;

use super::{Spans, number};

/// How the routes of a gRPC service end.
const GRPC_ROUTE_END: &str = "/{*method}";
/// Longest name of a gRPC method.
const METHOD_BYTES_MAX: usize = 64;
/// Codes that are the server's fault by the semantic conventions; others are the caller's.
const GRPC_FAULTS: [Code; 6] =
    [Code::Unknown, Code::DeadlineExceeded, Code::Unimplemented, Code::Internal, Code::Unavailable, Code::DataLoss];
/// Names that a request may have for a method: others are not told.
static METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];

/// Makes a span of a request.
pub(super) async fn trace(State(spans): State<Spans>, request: Request, next: Next) -> Response {
    let mut call = Call::begin(&spans, &request);
    let response = next.run(request).await;
    if !call.span.is_recording() {
        return response;
    }
    call.answered(&response);
    response.map(|body| Body::new(TracedBody { body, call }))
}

/// A request under way; it ends with its answer, or when nobody waits for that any more.
#[derive(Debug)]
struct Call {
    span: Span,
    is_grpc: bool,
}

impl Call {
    fn begin(spans: &Spans, request: &Request) -> Self {
        let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(request.headers()));
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let service = route.filter(|_| is_grpc(request.headers())).and_then(|route| route.strip_suffix(GRPC_ROUTE_END));
        // Sampled before it is named.
        let builder = spans.tracer.span_builder("").with_kind(SpanKind::Server);
        let mut span = spans.tracer.build_with_context(builder, &parent);
        if span.is_recording() {
            span.set_attribute(KeyValue::new("raft.node", number(spans.node)));
            match service {
                Some(service) => name_grpc(&mut span, service.trim_start_matches('/'), request.uri().path()),
                None => name_http(&mut span, request.method(), route),
            }
        }
        Self { span, is_grpc: service.is_some() }
    }

    /// The head of the answer is there.
    fn answered(&mut self, response: &Response) {
        if self.is_grpc {
            return self.ended_grpc(response.headers());
        }
        let status = response.status();
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status.as_u16())));
        if status.is_server_error() {
            self.failed(status.as_str().to_owned());
        }
    }

    /// Trailers, or a head that stands for them, are there.
    fn ended_grpc(&mut self, headers: &HeaderMap) {
        let Some(code) = headers.get("grpc-status") else { return };
        let code = Code::from_bytes(code.as_bytes());
        self.span.set_attribute(KeyValue::new("rpc.grpc.status_code", code as i64));
        if GRPC_FAULTS.contains(&code) {
            self.failed((code as i32).to_string());
        }
    }

    fn failed(&mut self, kind: String) {
        self.span.set_attribute(KeyValue::new("error.type", kind));
        self.span.set_status(Status::error(""));
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

fn name_http(span: &mut Span, method: &Method, route: Option<&str>) {
    // Anything may stand for a method.
    let known = METHODS.iter().find(|known| *known == method);
    let name = known.map_or("HTTP", Method::as_str);
    span.update_name(route.map_or_else(|| name.to_owned(), |route| format!("{name} {route}")));
    span.set_attribute(KeyValue::new("http.request.method", known.map_or("_OTHER", Method::as_str)));
    span.set_attribute(KeyValue::new("url.scheme", "http"));
    if let Some(route) = route {
        span.set_attribute(KeyValue::new("http.route", route.to_owned()));
    }
}

fn name_grpc(span: &mut Span, service: &str, path: &str) {
    let method = path.rsplit('/').next().unwrap_or_default();
    let is_name = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let method = if (1..=METHOD_BYTES_MAX).contains(&method.len()) && is_name(method) { method } else { "_OTHER" };
    span.update_name(format!("{service}/{method}"));
    span.set_attribute(KeyValue::new("rpc.system", "grpc"));
    span.set_attribute(KeyValue::new("rpc.service", service.to_owned()));
    span.set_attribute(KeyValue::new("rpc.method", method.to_owned()));
}

/// The headers of a request, to look for its parent in.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

/// A body as it is; with its end, or when it is dropped, its request is over.
struct TracedBody {
    body: Body,
    call: Call,
}

impl HttpBody for TracedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref().filter(|_| self.call.is_grpc) {
                    self.call.ended_grpc(trailers);
                }
            }
            Some(Err(_)) => self.call.failed(String::from("body")),
            None => self.call.span.end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
