//! Names, parents, sampling and ends of spans, kept in memory instead of sent.
//!
//! Off the data path; tests only.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use http_body_util::{BodyExt, Full};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use opentelemetry::Key;
use opentelemetry::trace::{SpanId, Status};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SamplingDecision, SimpleSpanProcessor, SpanData, SpanExporter};

use super::*;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Where spans are kept.
#[derive(Clone, Debug, Default)]
struct Memory {
    spans: Arc<Mutex<Vec<SpanData>>>,
    resource: Arc<Mutex<Option<Resource>>>,
}

impl SpanExporter for Memory {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.spans.lock().unwrap().extend(batch);
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        *self.resource.lock().unwrap() = Some(resource.clone());
    }
}

impl Memory {
    fn take(&self) -> Vec<SpanData> {
        self.spans.lock().unwrap().drain(..).collect()
    }
}

fn telemetry(sample_ratio: f64) -> Telemetry {
    Telemetry { endpoint: String::from("localhost:4317"), service_name: String::from("store"), sample_ratio }
}

fn spans(sample_ratio: f64) -> (Spans, Memory) {
    let memory = Memory::default();
    (Spans::through(7, &telemetry(sample_ratio), SimpleSpanProcessor::new(memory.clone())), memory)
}

fn attribute(span: &SpanData, name: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
    found.map_or_else(String::new, |attribute| attribute.value.to_string())
}

/// Answers as a gRPC service does: status 200, and the code behind the message.
async fn grpc() -> Response {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("5"))]);
    let body = Full::new(Bytes::from_static(b"message")).with_trailers(async move { Some(Ok(trailers)) });
    Response::new(Body::new(body))
}

/// Answers as a gRPC service does that has no message: all in the head.
async fn refused() -> Response {
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert("grpc-status", HeaderValue::from_static("13"));
    response
}

fn routes(spans: &Spans) -> Router {
    let routes = Router::new()
        .route("/kv/{*key}", get(async || "value").put(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/kv.v1.KVService/{*method}", post(grpc))
        .route("/admin.v1.AdminService/{*method}", post(refused));
    spans.layer(crate::http::finish(routes))
}

async fn ask(routes: &Router, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::from("secret value")).unwrap();
    TowerToHyperService::new(routes.clone()).call(request).await.unwrap()
}

#[tokio::test]
async fn names_come_from_routes_and_never_from_keys() {
    let (spans, memory) = spans(1.0);
    let routes = routes(&spans);
    let grpc: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];
    for (method, path, headers, name, route, status) in [
        ("GET", "/kv/secret?consistency=stale", &[][..], "GET /kv/{*key}", "/kv/{*key}", "200"),
        ("PUT", "/kv/secret", &[], "PUT /kv/{*key}", "/kv/{*key}", "503"),
        ("SECRET", "/kv/secret", &[], "HTTP /kv/{*key}", "/kv/{*key}", "405"),
        ("DELETE", "/kv/secret", &[], "DELETE /kv/{*key}", "/kv/{*key}", "405"),
        ("GET", "/secret", &[], "GET", "", "404"),
        ("POST", "/secret.v1/Secret", grpc, "POST", "", "404"),
        ("POST", "/kv.v1.KVService/Get", grpc, "kv.v1.KVService/Get", "", ""),
        ("POST", "/kv.v1.KVService/%73ecret", grpc, "kv.v1.KVService/_OTHER", "", ""),
        ("POST", "/admin.v1.AdminService/Join", grpc, "admin.v1.AdminService/Join", "", ""),
    ] {
        let response = ask(&routes, method, path, headers).await;
        assert!(memory.take().is_empty(), "{name}: it ends with the body, not before");
        response.into_body().collect().await.unwrap();
        let told = memory.take();
        let [span] = told.as_slice() else { panic!("{name}: {told:?}") };
        assert_eq!((span.name.as_ref(), &span.span_kind), (name, &SpanKind::Server));
        assert_eq!((attribute(span, "http.route").as_str(), attribute(span, "raft.node").as_str()), (route, "7"));
        assert_eq!(attribute(span, "http.response.status_code"), status, "{name}");
        let is_fault = status == "503" || path.starts_with("/admin");
        assert_eq!((span.status == Status::error(""), !attribute(span, "error.type").is_empty()), (is_fault, is_fault));
        let text = format!("{span:?}").to_lowercase();
        assert!(!text.contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn calls_have_the_code_of_their_trailers_or_head() {
    let (spans, memory) = spans(1.0);
    let routes = routes(&spans);
    for (service, code) in [("kv.v1.KVService", "5"), ("admin.v1.AdminService", "13")] {
        let response = ask(&routes, "POST", &format!("/{service}/Get"), &[("content-type", "application/grpc")]).await;
        response.into_body().collect().await.unwrap();
        let span = memory.take().pop().unwrap();
        for (name, value) in
            [("rpc.system", "grpc"), ("rpc.service", service), ("rpc.method", "Get"), ("rpc.grpc.status_code", code)]
        {
            assert_eq!(attribute(&span, name), value, "{name}");
        }
        assert_eq!(attribute(&span, "http.request.method"), "");
    }
    let unread = ask(&routes, "POST", "/kv.v1.KVService/Get", &[("content-type", "application/grpc")]).await;
    drop(unread);
    let span = memory.take().pop().expect("a caller who goes away ends it too");
    assert_eq!(attribute(&span, "rpc.grpc.status_code"), "");
}

#[tokio::test]
async fn a_body_stays_as_it_was() {
    let (spans, _memory) = spans(1.0);
    let response = ask(&routes(&spans), "GET", "/kv/a", &[]).await;
    assert_eq!(response.headers().get("content-length").map(HeaderValue::as_bytes), Some(&b"5"[..]));
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "value");
    let response = ask(&routes(&spans), "POST", "/kv.v1.KVService/Get", &[("content-type", "application/grpc")]).await;
    let collected = response.into_body().collect().await.unwrap();
    assert_eq!(collected.trailers().and_then(|trailers| trailers.get("grpc-status")).unwrap(), "5");
    assert_eq!(collected.to_bytes(), "message");
}

#[tokio::test]
async fn a_parent_is_followed_and_decides() {
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let malformed = format!("00-{TRACE}-0000000000000000-01");
    for (ratio, parent, is_told, is_child) in [
        (0.0, None, false, false),
        (0.0, Some(&sampled), true, true),
        (1.0, Some(&sampled), true, true),
        (1.0, Some(&unsampled), false, false),
        (1.0, Some(&malformed), true, false),
        (0.0, Some(&malformed), false, false),
        (1.0, None, true, false),
    ] {
        let (spans, memory) = spans(ratio);
        let headers: Vec<(&str, &str)> = parent.iter().map(|parent| ("traceparent", parent.as_str())).collect();
        drop(ask(&routes(&spans), "GET", "/kv/a", &headers).await);
        let told = memory.take();
        assert_eq!(told.len(), usize::from(is_told), "{ratio} {parent:?}");
        for span in told {
            let (trace, own) = (span.span_context.trace_id().to_string(), span.span_context.span_id());
            let expected = if is_child { SpanId::from_hex(PARENT).unwrap() } else { SpanId::INVALID };
            assert_eq!(
                (trace == TRACE, span.parent_span_id, span.parent_span_is_remote),
                (is_child, expected, is_child)
            );
            assert!(own != SpanId::INVALID && own != expected);
        }
    }
}

#[test]
fn the_ratio_is_kept_and_every_node_decides_alike() {
    let is_sampled = |ratio: f64, number: u128, kind: &SpanKind| {
        let trace = TraceId::from_bytes(number.wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_be_bytes());
        let result = Sampling::new(ratio).should_sample(None, trace, "", kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    };
    for (ratio, expected) in [(0.0, 0..=0), (0.25, 230..=270), (0.9, 880..=920), (1.0, 1_000..=1_000)] {
        let sampled: Vec<bool> = (1..=1_000).map(|number| is_sampled(ratio, number, &SpanKind::Server)).collect();
        let count = sampled.iter().filter(|sampled| **sampled).count();
        assert!(expected.contains(&count), "{ratio}: {count} of 1,000");
        let again: Vec<bool> = (1..=1_000).map(|number| is_sampled(ratio, number, &SpanKind::Server)).collect();
        assert_eq!(sampled, again);
        assert!((1..=50).all(|number| is_sampled(ratio, number, &SpanKind::Internal)), "changes are always sent");
    }
}

#[test]
fn an_election_takes_time_and_other_changes_take_none() {
    let (spans, memory) = spans(0.0);
    let at = |ms| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(ms);
    let change =
        |role_before, role, leader, since, at| Change { group: 3, term: 9, role, role_before, leader, since, at };
    let told = vec![
        change("follower", "candidate", 0, at(0), at(100)),
        change("candidate", "leader", 7, at(100), at(130)),
        change("pre_candidate", "follower", 0, at(300), at(200)),
    ];
    let sources = Sources { changes: Arc::new(move || told.clone()), ..Sources::default() };
    spans.tell(&sources);
    let told = memory.take();
    let times: Vec<_> = told.iter().map(|span| (span.start_time, span.end_time)).collect();
    assert_eq!(times, [(at(100), at(100)), (at(100), at(130)), (at(200), at(200))]);
    for (name, value) in [
        ("raft.node", "7"),
        ("raft.group", "3"),
        ("raft.term", "9"),
        ("raft.role.before", "candidate"),
        ("raft.role", "leader"),
        ("raft.leader", "7"),
    ] {
        assert_eq!(attribute(&told[1], name), value, "{name}");
    }
    assert!(told.iter().all(|span| span.name == "raft.transition" && span.parent_span_id == SpanId::INVALID));
    let resource = memory.resource.lock().unwrap().clone().expect("a resource");
    for (key, value) in
        [("service.name", "store"), ("service.instance.id", "7"), ("service.version", env!("CARGO_PKG_VERSION"))]
    {
        assert_eq!(resource.get(&Key::new(key)).map(|value| value.to_string()).as_deref(), Some(value), "{key}");
    }
}

#[tokio::test]
async fn an_endpoint_that_is_none_is_refused() {
    for endpoint in ["", "a b:1", "host:port:1"] {
        let refused = Spans::new(1, &Telemetry { endpoint: String::from(endpoint), ..telemetry(1.0) });
        assert!(refused.is_err_and(|problem| !problem.is_empty()), "{endpoint}");
    }
    assert!(Spans::new(1, &telemetry(1.0)).is_ok());
}

#[tokio::test]
async fn without_a_collector_requests_go_on_and_the_end_is_bounded() {
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = silent.local_addr().unwrap().to_string();
    let spans = Spans::new(1, &Telemetry { endpoint, ..telemetry(1.0) }).unwrap();
    let routes = routes(&spans);
    let begin = Instant::now();
    for _ in 0..QUEUE_MAX + 1_000 {
        let response = ask(&routes, "GET", "/kv/a", &[]).await;
        assert_eq!(response.status(), StatusCode::OK);
    }
    let asked = begin.elapsed();
    spans.finish(&Sources::default()).await;
    let finished = begin.elapsed() - asked;
    assert!(finished < FLUSH_PATIENCE + Duration::from_secs(8), "{finished:?}");
}
