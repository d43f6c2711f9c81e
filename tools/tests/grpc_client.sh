#!/usr/bin/env bash
# gRPC by a client in another language, generated from the .proto files: bash tools/tests/grpc_client.sh [BINARY]
# Makes a Python environment in the build folder, starts a cluster beside it, and stops it again, also when it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=${CARGO_TARGET_DIR:-target}
binary=${1:-$build/debug/ringraft}
environment=$build/grpc-client
cluster=$(mktemp -d "$build/grpc-cluster-XXXXXX")

finish() {
    "$binary" cluster stop --dir "$cluster" >/dev/null 2>&1 || true
    rm -rf "$cluster"
}
trap finish EXIT

if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
fi
"$environment/bin/python" -c 'import grpc, grpc_tools' 2>/dev/null ||
    "$environment/bin/pip" install --quiet --disable-pip-version-check 'grpcio>=1.60,<2' 'grpcio-tools>=1.60,<2'
mkdir -p "$environment/generated"
"$environment/bin/python" -m grpc_tools.protoc -I engine/gateway/proto \
    --python_out="$environment/generated" --grpc_python_out="$environment/generated" \
    kv/v1/kv.proto admin/v1/admin.proto

"$binary" cluster start --dir "$cluster" --groups 2 -- --segment-bytes 32MiB --segment-pool 1 >/dev/null
mapfile -t addresses < <("$environment/bin/python" -c '
import json, sys
for node in json.load(open(sys.argv[1]))["nodes"]:
    print(node["http"])
' "$cluster/cluster.json")
PYTHONPATH="$environment/generated" "$environment/bin/python" tools/tests/grpc_client.py "${addresses[@]}"
