//! Spans of a live cluster at a collector: an OTLP/gRPC service on a socket, which the nodes' processes send to.
//!
//! Off the data path.

use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use ringraft_gateway::grpc::proto::kv::kv_service_client::KvServiceClient;
use ringraft_gateway::grpc::proto::kv::{GetRequest, PutRequest};
use ringraft_tools::local_cluster::{Http, Shape};
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Endpoint, Server, server::TcpIncoming};
use tonic::{Request, Response, Status};

use crate::harness::{START_PATIENCE, TestCluster, eventually, ringraft_within, shape};
use crate::http;

const PARENT: &str = "b7ad6b7169203331";

/// A span and the node it came from.
#[derive(Clone, Debug)]
struct Told {
    service: String,
    node: String,
    version: String,
    span: Span,
}

impl Told {
    fn attribute(&self, key: &str) -> String {
        attribute(&self.span.attributes, key)
    }

    fn is_of_request(&self) -> bool {
        self.span.kind() == SpanKind::Server
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text,
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        other => other.map_or_else(String::new, |value| format!("{value:?}")),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// Takes what is sent to it, until the test ends.
#[derive(Clone, Default)]
struct Collector {
    told: Arc<Mutex<Vec<Told>>>,
}

impl Collector {
    /// One that listens, and where.
    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address").to_string();
        listener.set_nonblocking(true).expect("a socket");
        let collector = Self::default();
        let service = TraceServiceServer::new(collector.clone());
        thread::spawn(move || {
            runtime().block_on(async {
                let incoming = TcpIncoming::from(tokio::net::TcpListener::from_std(listener).expect("a socket"));
                Server::builder().serve_with_incoming(service, incoming).await.expect("a collector");
            });
        });
        (collector, address)
    }

    /// What came up to now and is so.
    fn told(&self, wanted: impl Fn(&Told) -> bool) -> Vec<Told> {
        self.told.lock().expect("no panic").iter().filter(|told| wanted(told)).cloned().collect()
    }

    /// Spans of a trace, when they are there.
    fn wait_for(&self, trace: &str, count: usize) -> Vec<Told> {
        let found = eventually(START_PATIENCE, || {
            let told = self.told(|told| hex(&told.span.trace_id) == trace);
            (told.len() >= count).then_some(told)
        });
        found.unwrap_or_else(|| panic!("{count} spans of {trace}: {:#?}", self.told(Told::is_of_request)))
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut told = self.told.lock().expect("no panic");
        for of_node in request.into_inner().resource_spans {
            let resource = of_node.resource.unwrap_or_default().attributes;
            let named = |key| attribute(&resource, key);
            for span in of_node.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                let (service, node) = (named("service.name"), named("service.instance.id"));
                told.push(Told { service, node, version: named("service.version"), span });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn traced(nodes: u64, endpoint: &str, ratio: &str) -> Shape {
    let mut shape = Shape { http: Http::Free, ..shape(nodes) };
    let endpoint = format!("--tracing-endpoint={endpoint}");
    let ratio = format!("--tracing-sample-ratio={ratio}");
    let flags = ["--tracing-enabled=on", &endpoint, "--tracing-service-name=store", &ratio];
    shape.node_arguments.extend(flags.map(String::from));
    shape
}

fn put(address: &str, traceparent: Option<&str>) -> u16 {
    let mut headers = vec![("Content-Type", "text/plain")];
    headers.extend(traceparent.map(|parent| ("traceparent", parent)));
    http::call(address, "PUT /kv/secret-key", &headers, b"secret value").status
}

/// A put and a get by gRPC, children of the same span.
fn call(address: &str, traceparent: &str) {
    runtime().block_on(async {
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy();
        let mut node = KvServiceClient::new(channel);
        let mut request = Request::new(PutRequest { key: "secret-key".into(), value: "secret value".into() });
        request.metadata_mut().insert("traceparent", traceparent.parse().expect("text"));
        node.put(request).await.expect("a put");
        let mut request = Request::new(GetRequest { consistency: 77, ..GetRequest::default() });
        request.metadata_mut().insert("traceparent", traceparent.parse().expect("text"));
        node.get(request).await.expect_err("no such consistency");
    });
}

#[test]
fn requests_and_elections_reach_a_collector() {
    let (collector, endpoint) = Collector::start();
    // Only what its caller has sampled.
    let mut cluster = TestCluster::start(&traced(3, &format!("http://{endpoint}"), "0"));
    let leader = cluster.leader(0);
    let (address, node) = (http::http(&cluster, leader), leader.to_string());
    let (http_trace, grpc_trace, last_trace) = ("1".repeat(32), "2".repeat(32), "3".repeat(32));
    let sampled = |trace: &str| format!("00-{trace}-{PARENT}-01");

    let written = eventually(START_PATIENCE, || (put(&address, None) == 200).then_some(()));
    written.expect("a node that takes writes");
    assert_eq!(put(&address, Some(&format!("00-{}-{PARENT}-00", "4".repeat(32)))), 200);
    assert_eq!(put(&address, Some(&sampled(&http_trace))), 200);
    call(&address, &sampled(&grpc_trace));

    let told = collector.wait_for(&http_trace, 1).remove(0);
    assert_eq!((told.service.as_str(), &told.node), ("store", &node));
    assert_eq!((told.version.as_str(), told.span.name.as_str()), (env!("CARGO_PKG_VERSION"), "PUT /kv/{*key}"));
    for (key, value) in [
        ("http.request.method", "PUT"),
        ("http.route", "/kv/{*key}"),
        ("http.response.status_code", "200"),
        ("raft.node", &node),
    ] {
        assert_eq!(told.attribute(key), value, "{key}");
    }
    let calls = collector.wait_for(&grpc_trace, 2);
    for (method, code) in [("Put", "0"), ("Get", "3")] {
        let call = calls.iter().find(|told| told.attribute("rpc.method") == method).expect("a call");
        assert_eq!(call.span.name, format!("kv.v1.KVService/{method}"));
        let says = ["rpc.system", "rpc.service", "rpc.grpc.status_code"].map(|key| call.attribute(key));
        assert_eq!(says, ["grpc", "kv.v1.KVService", code], "{method}");
    }

    elections_are_told(&collector, leader);

    // What is under way is sent before the end.
    assert_eq!(put(&address, Some(&sampled(&last_trace))), 200);
    cluster.signal(leader, Signal::TERM).expect("a node that runs");
    assert!(cluster.wait_gone(leader, START_PATIENCE) && cluster.exit_status(leader).is_some_and(|end| end.success()));
    collector.wait_for(&last_trace, 1);

    let requests = collector.told(Told::is_of_request);
    assert_eq!(requests.len(), 4, "nothing is sent that was not sampled: {requests:#?}");
    for told in &requests {
        assert_eq!(hex(&told.span.parent_span_id), PARENT);
        assert!(told.span.end_time_unix_nano > told.span.start_time_unix_nano);
        assert!(!format!("{told:?}").contains("secret"), "{told:#?}");
    }
}

/// Every node told how the first leader came to be.
fn elections_are_told(collector: &Collector, leader: u64) {
    let of_node = |id: u64| {
        let is_wanted =
            |told: &Told| told.span.name == "raft.transition" && told.node == id.to_string() && told.service == "store";
        let mut transitions = collector.told(is_wanted);
        transitions.sort_by_key(|told| told.span.end_time_unix_nano);
        transitions
    };
    for id in 1..=3 {
        let knows = || of_node(id).into_iter().find(|told| told.attribute("raft.leader") == leader.to_string());
        let told = eventually(START_PATIENCE, knows).unwrap_or_else(|| panic!("{id}: {:#?}", of_node(id)));
        let role = if id == leader { "leader" } else { "follower" };
        assert_eq!((told.attribute("raft.role").as_str(), told.attribute("raft.group").as_str()), (role, "0"));
        assert!(told.attribute("raft.term").parse::<u64>().is_ok_and(|term| term > 0));
        assert!(told.span.parent_span_id.is_empty());
    }
    let path = of_node(leader);
    assert_eq!(path[0].attribute("raft.role.before"), "follower");
    for (before, after) in path.iter().zip(&path[1..]) {
        assert_eq!(after.attribute("raft.role.before"), before.attribute("raft.role"), "{path:#?}");
    }
    let won = path.iter().find(|told| told.attribute("raft.role") == "leader").expect("an election");
    assert_eq!(
        (won.attribute("raft.role.before"), won.attribute("raft.node")),
        ("candidate".into(), leader.to_string())
    );
    assert!(won.span.end_time_unix_nano > won.span.start_time_unix_nano, "an election takes time");
}

#[test]
fn without_a_collector_requests_go_on() {
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").to_string();
    let mut cluster = TestCluster::start(&traced(1, &nobody, "1"));
    let address = http::http(&cluster, 1);
    let written = eventually(START_PATIENCE, || (put(&address, None) == 200).then_some(()));
    written.expect("a node that takes writes");
    let warned = || {
        assert_eq!(put(&address, None), 200);
        cluster.log_tail(1).contains("the collector does not take spans").then_some(())
    };
    eventually(START_PATIENCE, warned).expect("a warning");
    for _ in 0..20 {
        let begin = Instant::now();
        assert_eq!(put(&address, None), 200);
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
    cluster.signal(1, Signal::TERM).expect("a node that runs");
    assert!(cluster.wait_gone(1, START_PATIENCE) && cluster.exit_status(1).is_some_and(|end| end.success()));
}

#[test]
fn settings_of_tracing_are_refused_by_name() {
    for (flag, says) in [
        (
            "--tracing-endpoint=nowhere",
            "tracing_endpoint = `nowhere` (from --tracing-endpoint): `nowhere` is not host:port",
        ),
        ("--tracing-endpoint=https://collector:4317", "TLS is not spoken"),
        (
            "--tracing-sample-ratio=1.5",
            "tracing_sample_ratio = `1.5` (from --tracing-sample-ratio): it is not between 0 and 1",
        ),
        ("--tracing-service-name=", "tracing_service_name"),
    ] {
        let (code, said) = ringraft_within(START_PATIENCE, &["node", "--id=1", flag]);
        assert!(code == Some(64) && said.contains(says), "{flag}: {code:?} {said}");
    }
}
