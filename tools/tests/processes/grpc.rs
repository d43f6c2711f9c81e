//! gRPC of a live cluster, by the client that is generated from the same files as the service.
//!
//! Off the data path.

use std::fs;
use std::future::Future;
use std::time::{Duration, Instant};

use ringraft_gateway::grpc::proto::admin::admin_service_client::AdminServiceClient;
use ringraft_gateway::grpc::proto::admin::{
    AddNodeRequest, GetClusterStatusRequest, GetNodeInfoRequest, JoinRequest, RemoveNodeRequest, ReplicaStatus, Role,
    TakeSnapshotRequest, TransferLeadershipRequest,
};
use ringraft_gateway::grpc::proto::kv::compare_and_set_request::Expected;
use ringraft_gateway::grpc::proto::kv::kv_service_client::KvServiceClient;
use ringraft_gateway::grpc::proto::kv::watch_response::Told;
use ringraft_gateway::grpc::proto::kv::{
    CompareAndSetRequest, Consistency, DeleteBatchRequest, DeleteRequest, Event, GetBatchRequest, GetRequest, KeyValue,
    PutBatchRequest, PutRequest, RangeRequest, WatchRequest, WatchResponse, delete_batch_response, get_batch_response,
    put_batch_response,
};
use ringraft_tools::local_cluster::{Http, Shape};
use rustix::process::Signal;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status, Streaming};

use crate::harness::{START_PATIENCE, TestCluster, eventually, exclusive, folder, ringraft, shape, text};

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// A cluster whose nodes all know the leaders, what is committed, and each other, and their gateways the cluster.
fn start(groups: u32) -> TestCluster {
    start_with(groups, &[])
}

fn start_with(groups: u32, arguments: &[&str]) -> TestCluster {
    let mut shape = Shape { groups, http: Http::Free, ..shape(3) };
    shape.node_arguments.extend(arguments.iter().copied().map(String::from));
    let cluster = TestCluster::start(&shape);
    for id in 1..=3 {
        let knows_all = || {
            let (info, status) = block_on(async {
                let mut node = admin(&cluster, id);
                let info = node.get_node_info(GetNodeInfoRequest {}).await?;
                Ok::<_, Status>((
                    info.into_inner(),
                    node.get_cluster_status(GetClusterStatusRequest {}).await?.into_inner(),
                ))
            })
            .ok()?;
            let knows = |replica: &ReplicaStatus| replica.leader_id > 0 && replica.commit_index > 0;
            let knows_groups = !info.replicas.is_empty() && info.replicas.iter().all(knows);
            let knows_nodes = status.nodes.iter().all(|node| node.live && !node.http_address.is_empty());
            let knows_roles = status.groups.iter().all(|group| {
                let leads = |replica: &ReplicaStatus| {
                    replica.node == group.leader_id && replica.role == i32::from(Role::Leader)
                };
                group.replicas.iter().any(leads)
            });
            (knows_groups && knows_nodes && knows_roles).then_some(())
        };
        eventually(START_PATIENCE, knows_all).expect("a node that knows the cluster");
    }
    cluster
}

fn channel(cluster: &TestCluster, id: u64) -> Channel {
    let node = cluster.file().nodes.iter().find(|node| node.id == id).expect("a node of the cluster");
    let address = node.http.clone().expect("a node with HTTP");
    Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
}

fn kv(cluster: &TestCluster, id: u64) -> KvServiceClient<Channel> {
    KvServiceClient::new(channel(cluster, id))
}

fn admin(cluster: &TestCluster, id: u64) -> AdminServiceClient<Channel> {
    AdminServiceClient::new(channel(cluster, id))
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into() }
}

fn get(key: &str) -> GetRequest {
    GetRequest { key: key.into(), ..GetRequest::default() }
}

fn trailer<'a>(status: &'a Status, name: &str) -> &'a str {
    status.metadata().get(name).map_or("", |value| value.to_str().expect("text"))
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.err().map_or(Code::Ok, |status| status.code())
}

#[test]
fn every_node_takes_reads_and_writes() {
    let cluster = start(2);
    block_on(async {
        let mut last = 0;
        for id in 1..=3 {
            let (key, value) = (format!("key-{id}"), format!("value-{id}"));
            let mut node = kv(&cluster, id);
            let written = node.put(put(&key, &value)).await.expect("a put").into_inner();
            let position = written.position.expect("a position");
            assert!(!written.replaced && position.index > 0 && position.term > 0);
            assert_eq!(written.version, position.index << 16 | u64::from(position.position));
            let again = node.put(put("{same}", &value)).await.expect("a put").into_inner();
            assert_eq!(again.replaced, id > 1);
            assert!(again.version > last, "versions of a key grow");
            last = again.version;
            for other in 1..=3 {
                let read = kv(&cluster, other).get(get(&key)).await.expect("a get").into_inner();
                assert_eq!((read.found, read.value.as_slice()), (true, value.as_bytes()));
            }
        }
        for consistency in [Consistency::Lease, Consistency::Follower, Consistency::Stale] {
            let request = GetRequest { consistency: consistency.into(), ..get("absent") };
            let read = kv(&cluster, 2).get(request).await.expect("a get").into_inner();
            assert!(!read.found && read.value.is_empty(), "{consistency:?}");
        }
        let mut node = kv(&cluster, 1);
        for existed in [true, false] {
            let request = DeleteRequest { key: "key-1".into(), expected_version: None };
            let deleted = node.delete(request).await.expect("a delete").into_inner();
            assert_eq!(deleted.existed, existed);
        }
        let binary = PutRequest { key: vec![0xff, 0, 1], value: vec![0, 0xfe] };
        node.put(binary).await.expect("a put");
        let read = node.get(GetRequest { key: vec![0xff, 0, 1], ..GetRequest::default() }).await.expect("a get");
        assert_eq!(read.into_inner().value, [0, 0xfe]);
    });
}

#[test]
fn comparisons_and_versions() {
    let cluster = start(2);
    block_on(async {
        let mut node = kv(&cluster, 1);
        let mut set = async |value: &str, expected| {
            let request = CompareAndSetRequest { key: "k".into(), value: value.into(), expected: Some(expected) };
            node.compare_and_set(request).await.map(tonic::Response::into_inner)
        };
        let first = set("1", Expected::ExpectedAbsent(true)).await.expect("an answer");
        assert!(first.swapped && first.version > 0);
        let refused = set("2", Expected::ExpectedValue("0".into())).await.expect("an answer");
        assert_eq!((refused.swapped, refused.current.as_deref()), (false, Some(b"1".as_slice())));
        assert!(set("2", Expected::ExpectedValue("1".into())).await.expect("an answer").swapped);
        let refused = set("3", Expected::ExpectedVersion(first.version)).await.expect("an answer");
        assert!(!refused.swapped && refused.version > first.version);
        let third = set("3", Expected::ExpectedVersion(refused.version)).await.expect("an answer");
        assert!(third.swapped && third.version > refused.version);
        assert_eq!(code(set("4", Expected::ExpectedAbsent(false)).await), Code::InvalidArgument);
        let mut node = kv(&cluster, 3);
        let read = node.get(GetRequest { with_version: true, ..get("k") }).await.expect("a get").into_inner();
        assert_eq!((read.value.as_slice(), read.version), (b"3".as_slice(), third.version));
        let absent = node.get(GetRequest { with_version: true, ..get("none") }).await.expect("a get").into_inner();
        assert_eq!((absent.found, absent.version), (false, 0));
        let mut remove = async |version| {
            let request = DeleteRequest { key: "k".into(), expected_version: Some(version) };
            node.delete(request).await.expect("an answer").into_inner()
        };
        let kept = remove(first.version).await;
        assert_eq!((kept.existed, kept.current_version), (false, third.version));
        assert!(remove(third.version).await.existed);
    });
}

#[test]
fn batches_ranges_and_watches() {
    let cluster = start(3);
    block_on(async {
        let mut node = kv(&cluster, 2);
        let from_start = WatchRequest { prefix: "b/".into(), from_index: 1, ..WatchRequest::default() };
        let mut watch = kv(&cluster, 1).watch(from_start).await.expect("a watch").into_inner();
        let items: Vec<KeyValue> = (0..100)
            .map(|number| KeyValue { key: format!("b/{number:03}").into(), value: number.to_string().into() })
            .collect();
        let keys: Vec<Vec<u8>> = items.iter().map(|item| item.key.clone()).collect();
        let done = node.put_batch(PutBatchRequest { items }).await.expect("an answer").into_inner().items;
        let is_new = |item: &put_batch_response::Item| matches!(&item.result, Some(put_batch_response::item::Result::Done(done)) if !done.replaced);
        assert!(done.len() == 100 && done.iter().all(is_new));
        let mut seen = events(&mut watch, 100).await;
        seen.sort_by(|one, other| one.key.cmp(&other.key));
        assert_eq!(seen.iter().map(|event| event.key.clone()).collect::<Vec<_>>(), keys);
        assert!(seen.iter().all(|event| event.value.is_some() && event.version >> 16 == event.index));

        let request = GetBatchRequest { keys: keys.clone(), ..GetBatchRequest::default() };
        let read = node.get_batch(request).await.expect("an answer").into_inner().items;
        for (number, item) in read.iter().enumerate() {
            let Some(get_batch_response::item::Result::Done(read)) = &item.result else { panic!("{item:?}") };
            assert_eq!(read.value, number.to_string().into_bytes());
        }

        let query = RangeRequest { prefix: "b/".into(), limit: 60, ..RangeRequest::default() };
        let page = node.range(query.clone()).await.expect("a page").into_inner();
        assert!(page.more && page.items.len() == 60);
        let query = RangeRequest { start: page.next_start.clone(), ..query };
        let rest = node.range(query).await.expect("a page").into_inner();
        assert!(!rest.more && rest.items.len() == 40);
        let listed: Vec<Vec<u8>> = page.items.into_iter().chain(rest.items).map(|item| item.key).collect();
        assert_eq!(listed, keys);

        let request = DeleteBatchRequest { keys: keys[..10].to_vec() };
        let deleted = node.delete_batch(request).await.expect("an answer").into_inner().items;
        let is_gone = |item: &delete_batch_response::Item| matches!(&item.result, Some(delete_batch_response::item::Result::Done(done)) if done.existed);
        assert!(deleted.len() == 10 && deleted.iter().all(is_gone));
        assert!(events(&mut watch, 10).await.iter().all(|event| event.value.is_none()));

        let many = GetBatchRequest { keys: vec![b"k".to_vec(); 1_025], ..GetBatchRequest::default() };
        assert_eq!(code(node.get_batch(many).await), Code::InvalidArgument);
        assert!(node.get_batch(GetBatchRequest::default()).await.expect("an answer").into_inner().items.is_empty());
    });
}

/// The next events of a watch.
async fn events(watch: &mut Streaming<WatchResponse>, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    while events.len() < count {
        let next = tokio::time::timeout(Duration::from_secs(10), watch.message()).await.expect("an event in time");
        match next.expect("no error").expect("no end").told {
            Some(Told::Event(event)) => events.push(event),
            Some(Told::Started(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    events
}

/// The leader of a group gives way to another node; the balancer may be at it too, then once more.
async fn hand_over(node: &mut AdminServiceClient<Channel>, group: u32) -> bool {
    let start = Instant::now();
    while start.elapsed() < START_PATIENCE {
        let status = node.get_cluster_status(GetClusterStatusRequest {}).await.expect("an answer").into_inner();
        let status = &status.groups[group as usize];
        let to = status.leader_id % 3 + 1;
        let leader = status.replicas.iter().find(|replica| replica.node == status.leader_id);
        let leads = leader.is_some_and(|leader| leader.role == i32::from(Role::Leader));
        if leads && let Ok(moved) = node.transfer_leadership(TransferLeadershipRequest { group, to }).await {
            let moved = moved.into_inner();
            assert_eq!((moved.group, moved.leader_id), (group, to));
            assert!(moved.term > status.current_term);
            return leader.is_some_and(|leader| leader.replication_progress.len() == 2);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

#[test]
fn operators_ask_any_node() {
    let cluster = start(2);
    block_on(async {
        let mut node = admin(&cluster, 3);
        let info = node.get_node_info(GetNodeInfoRequest {}).await.expect("an answer").into_inner();
        assert_eq!((info.id, info.groups_total, info.shards, info.replicas.len()), (3, 2, 1, 2));
        assert_eq!(info.cluster_id, cluster.file().cluster_id);
        assert!(info.current_term > 0 && info.leader_id > 0 && info.commit_index > 0);

        let status = node.get_cluster_status(GetClusterStatusRequest {}).await.expect("an answer").into_inner();
        assert_eq!((status.live_nodes, status.total_nodes, status.groups.len()), (3, 3, 2));
        assert!(status.nodes.iter().all(|node| node.live && node.state == "active"));
        assert!(status.nodes.iter().all(|node| !node.http_address.is_empty()));
        assert!(hand_over(&mut node, 1).await, "leadership is handed over");

        kv(&cluster, 1).put(put("k", "v")).await.expect("a put");
        for on in [0, 2] {
            let request = TakeSnapshotRequest { group: 0, node: on };
            assert!(node.take_snapshot(request).await.expect("an answer").into_inner().index > 0);
        }
        let unknown = TransferLeadershipRequest { group: 9, to: 0 };
        assert_eq!(code(node.transfer_leadership(unknown).await), Code::NotFound);
        let unknown = TransferLeadershipRequest { group: 0, to: 9 };
        assert_eq!(code(node.transfer_leadership(unknown).await), Code::NotFound);
        assert_eq!(code(node.take_snapshot(TakeSnapshotRequest { group: 0, node: 9 }).await), Code::NotFound);
        assert_eq!(code(node.remove_node(RemoveNodeRequest { id: 9 }).await), Code::FailedPrecondition);
        let nowhere = AddNodeRequest { id: 4, addresses: vec!["nowhere".into()], instance: 0 };
        assert_eq!(code(node.add_node(nowhere).await), Code::InvalidArgument);
        let nobody = JoinRequest { node_id: "node".into(), address: "127.0.0.1:1".into(), instance: 0 };
        assert_eq!(code(node.join(nobody).await), Code::InvalidArgument);

        // A node that is not there yet: it joins, holds nothing, and can be removed again.
        let joining = JoinRequest { node_id: "node-4".into(), address: "127.0.0.1:1".into(), instance: 0 };
        let joined = node.join(joining).await.expect("an answer").into_inner();
        assert_eq!((joined.id, joined.nodes.len()), (4, 4));
        assert_eq!(joined.shared_settings.get("groups").map(String::as_str), Some("2"));
        let removed = node.remove_node(RemoveNodeRequest { id: 4 }).await.expect("an answer").into_inner();
        assert!(removed.epoch > joined.epoch);
    });
}

#[test]
fn errors_say_whether_to_try_again() {
    // It leads on without a majority, so that it takes what it cannot commit.
    let mut cluster = start_with(1, &["--election-ticks-min=600", "--election-ticks-max=1200"]);
    let leader = cluster.leader(0);
    block_on(async {
        let mut node = kv(&cluster, leader);
        let refused = node.put(put("", "v")).await.expect_err("a refusal");
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert_eq!(
            (trailer(&refused, "ringraft-reason"), trailer(&refused, "ringraft-retryable")),
            ("BAD_REQUEST", "false")
        );
        let strange = GetRequest { consistency: 77, ..get("k") };
        assert_eq!(code(node.get(strange).await), Code::InvalidArgument);
        let large = PutRequest { key: "k".into(), value: vec![0; (1 << 20) + 1] };
        assert_eq!(code(node.put(large).await), Code::InvalidArgument);
        let larger = PutRequest { key: "k".into(), value: vec![0; 32 << 20] };
        assert_eq!(code(node.put(larger).await), Code::OutOfRange);
        node.put(put("k", "v")).await.expect("a put");
    });
    for id in (1..=3).filter(|id| *id != leader) {
        cluster.signal(id, Signal::STOP).expect("a node that runs");
        let pid = cluster.running_pid(id).expect("a node that is there");
        let is_stopped = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            stat.contains(" (ringraft) T ").then_some(())
        };
        // On a busy machine threads go on until the one that takes the signal has its turn.
        eventually(START_PATIENCE, is_stopped).expect("a node that is stopped");
    }
    block_on(async {
        let mut node = kv(&cluster, leader);
        let mut late = Request::new(put("k", "w"));
        late.metadata_mut().insert("grpc-timeout", "2S".parse().expect("text"));
        let unknown = node.put(late).await.expect_err("no majority");
        assert_eq!(unknown.code(), Code::DeadlineExceeded);
        assert_eq!(trailer(&unknown, "ringraft-outcome-unknown"), "true");
        assert_eq!(trailer(&unknown, "ringraft-retryable"), "false");
        let mut late = Request::new(get("k"));
        late.metadata_mut().insert("grpc-timeout", "2S".parse().expect("text"));
        let unread = node.get(late).await.expect_err("no majority");
        assert_eq!((unread.code(), trailer(&unread, "ringraft-retryable")), (Code::DeadlineExceeded, "true"));
        let stale = GetRequest { consistency: Consistency::Stale.into(), ..get("k") };
        assert!(node.get(stale).await.expect("a stale get").into_inner().found);
    });
}

#[test]
fn loads_of_every_protocol_are_answered_and_verified() {
    let _one = exclusive();
    let folder = folder();
    let place = folder.path().to_string_lossy();
    for protocol in ["http", "grpc"] {
        let load = ["bench", "--json", "--protocol", protocol, "--dir", &place, "--closed", "--clients", "8"];
        let size = ["--keys", "50", "--read-percent", "50", "--warmup", "200ms", "--duration", "1s"];
        let nodes = ["--", "--segment-bytes=32MiB", "--segment-pool=1"];
        let output = ringraft(&[&load[..], &size, &nodes].concat());
        assert!(output.status.success(), "{protocol}: {}", String::from_utf8_lossy(&output.stderr));
        let report: serde_json::Value = serde_json::from_str(&text(&output)).expect("JSON");
        assert_eq!((report["errors"].as_u64(), report["protocol"].as_str()), (Some(0), Some(protocol)), "{report}");
        assert_eq!((report["nodes"].as_u64(), report["groups"].as_u64()), (Some(3), Some(1)), "{report}");
        assert!(report["put"].is_object() && report["get"].is_object(), "values were read and verified: {report}");
    }
}
