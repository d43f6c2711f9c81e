"""A client of the gRPC services in another language: puts, gets, watches and asks what an operator asks.

Usage: grpc_client.py ADDRESS...   (where the nodes serve gRPC; the modules generated from engine/gateway/proto must be
importable). Exit code 0: everything was as the .proto files promise. tools/tests/grpc_client.sh calls it.
"""

import sys
import threading

import grpc
from admin.v1 import admin_pb2, admin_pb2_grpc
from kv.v1 import kv_pb2, kv_pb2_grpc

PATIENCE_S = 10


def trailers(error):
    return {name: value for name, value in error.trailing_metadata()}


def check_keys(channels):
    """What one node wrote all nodes read."""
    first = kv_pb2_grpc.KVServiceStub(channels[0])
    written = first.Put(kv_pb2.PutRequest(key=b"python", value=b"\x00grpc\xff"), timeout=PATIENCE_S)
    assert written.position.index > 0 and written.position.term > 0, written
    for channel in channels:
        read = kv_pb2_grpc.KVServiceStub(channel).Get(kv_pb2.GetRequest(key=b"python", with_version=True), timeout=PATIENCE_S)
        assert read.found and read.value == b"\x00grpc\xff" and read.version == written.version, read
    swapped = first.CompareAndSet(
        kv_pb2.CompareAndSetRequest(key=b"python", value=b"2", expected_version=written.version), timeout=PATIENCE_S
    )
    assert swapped.swapped and swapped.version > written.version, swapped
    assert first.Delete(kv_pb2.DeleteRequest(key=b"python"), timeout=PATIENCE_S).existed


def check_batches(channel):
    stub = kv_pb2_grpc.KVServiceStub(channel)
    items = [kv_pb2.KeyValue(key=b"batch/%d" % number, value=b"%d" % number) for number in range(20)]
    done = stub.PutBatch(kv_pb2.PutBatchRequest(items=items), timeout=PATIENCE_S)
    assert len(done.items) == 20 and all(item.WhichOneof("result") == "done" for item in done.items), done
    page = stub.Range(kv_pb2.RangeRequest(prefix=b"batch/", limit=15), timeout=PATIENCE_S)
    rest = stub.Range(kv_pb2.RangeRequest(prefix=b"batch/", start=page.next_start), timeout=PATIENCE_S)
    listed = [item.key for item in page.items] + [item.key for item in rest.items]
    assert page.more and not rest.more and listed == sorted(item.key for item in items), listed


def check_watch(writer, watcher):
    """Every change is told once, in order, also those before the watch began."""
    stub = kv_pb2_grpc.KVServiceStub(writer)
    stub.Put(kv_pb2.PutRequest(key=b"{w}1", value=b"before"), timeout=PATIENCE_S)
    call = kv_pb2_grpc.KVServiceStub(watcher).Watch(kv_pb2.WatchRequest(prefix=b"{w}", from_index=1), timeout=PATIENCE_S)
    events, started = [], threading.Event()

    def write():
        started.wait(PATIENCE_S)
        stub.Put(kv_pb2.PutRequest(key=b"{w}2", value=b"while"), timeout=PATIENCE_S)
        stub.Delete(kv_pb2.DeleteRequest(key=b"{w}1"), timeout=PATIENCE_S)

    thread = threading.Thread(target=write)
    thread.start()
    for told in call:
        if told.WhichOneof("told") == "event":
            started.set()
            events.append(told.event)
        if len(events) == 3:
            break
    call.cancel()
    thread.join()
    seen = [(event.key, event.value if event.HasField("value") else None) for event in events]
    assert seen == [(b"{w}1", b"before"), (b"{w}2", b"while"), (b"{w}1", None)], seen
    versions = [event.version for event in events]
    assert versions == sorted(set(versions)), versions


def check_admin(channels):
    ids = set()
    for channel in channels:
        info = admin_pb2_grpc.AdminServiceStub(channel).GetNodeInfo(admin_pb2.GetNodeInfoRequest(), timeout=PATIENCE_S)
        assert info.leader_id > 0 and info.current_term > 0 and info.last_applied > 0, info
        ids.add(info.id)
    assert len(ids) == len(channels), ids
    stub = admin_pb2_grpc.AdminServiceStub(channels[-1])
    status = stub.GetClusterStatus(admin_pb2.GetClusterStatusRequest(), timeout=PATIENCE_S)
    assert status.live_nodes == status.total_nodes == len(channels), status
    to = next(node for node in ids if node != status.groups[0].leader_id)
    moved = stub.TransferLeadership(admin_pb2.TransferLeadershipRequest(group=0, to=to), timeout=PATIENCE_S)
    assert moved.leader_id == to, moved


def check_errors(channel):
    try:
        kv_pb2_grpc.KVServiceStub(channel).Put(kv_pb2.PutRequest(key=b"", value=b"v"), timeout=PATIENCE_S)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        told = trailers(error)
        assert told["ringraft-reason"] == "BAD_REQUEST" and told["ringraft-retryable"] == "false", told
    else:
        raise AssertionError("an empty key was taken")


def main():
    channels = [grpc.insecure_channel(address) for address in sys.argv[1:]]
    assert channels, "addresses of the nodes are missing"
    check_keys(channels)
    check_batches(channels[0])
    check_watch(channels[0], channels[-1])
    check_admin(channels)
    check_errors(channels[0])
    print(f"put, get, compare, batch, range, watch and admin calls at {len(channels)} nodes: all as promised")


if __name__ == "__main__":
    main()
