#!/usr/bin/env bash
# Traces at a collector of another project, a process of its own: bash tools/tests/collector.sh [BINARY]
# Makes a Python environment in the build folder for the collector (rotel), starts a cluster that sends to it, and stops
# both again, also when it fails.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

build=${CARGO_TARGET_DIR:-target}
binary=${1:-$build/debug/ringraft}
environment=$build/collector
work=$(mktemp -d "$build/collector-XXXXXX")
collector=

finish() {
    "$binary" cluster stop --dir "$work/cluster" >/dev/null 2>&1 || true
    [ -z "$collector" ] || kill "$collector" 2>/dev/null || true
    rm -rf "$work"
}
trap finish EXIT

if [ ! -x "$environment/bin/python" ]; then
    python3 -m venv "$environment"
fi
"$environment/bin/python" -c 'import rotel' 2>/dev/null ||
    "$environment/bin/pip" install --quiet --disable-pip-version-check 'rotel==0.0.1a15'
agent=$("$environment/bin/python" -c 'import pathlib, rotel; print(pathlib.Path(rotel.__file__).parent / "rotel-agent")')

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

port=$(free_port)
"$agent" start --otlp-grpc-endpoint "127.0.0.1:$port" --otlp-http-endpoint "127.0.0.1:$(free_port)" \
    --exporter blackhole --debug-log traces --debug-log-verbosity detailed >"$work/collector.log" 2>&1 &
collector=$!

"$binary" cluster start --dir "$work/cluster" -- --segment-bytes 32MiB --segment-pool 1 \
    --tracing-enabled on --tracing-endpoint "127.0.0.1:$port" --tracing-service-name seen-from-outside >/dev/null
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["nodes"][0]["http"])' "$work/cluster/cluster.json")
trace=0af7651916cd43dd8448eb211c80319c
curl --silent --show-error --fail --location --max-time 20 --request PUT --data '{"value":"never-in-a-span"}' \
    --header "traceparent: 00-$trace-b7ad6b7169203331-01" "http://$address/kv/never-in-a-span" >/dev/null

# Batches leave once a second.
wanted=("$trace" b7ad6b7169203331 '/kv/{*key}' seen-from-outside raft.transition)
for _ in $(seq 1 60); do
    missing=
    for text in "${wanted[@]}"; do
        grep -qF -- "$text" "$work/collector.log" || missing=$text
    done
    [ -n "$missing" ] || break
    sleep 0.5
done
if [ -n "$missing" ]; then
    echo "the collector has not seen $missing" >&2
    cat "$work/collector.log" >&2
    exit 1
fi
if grep -qF 'never-in-a-span' "$work/collector.log"; then
    echo 'a span tells a key or a value' >&2
    exit 1
fi
echo "$("$agent" version 2>&1 | tail -n 1): a request and elections arrived, without keys and values"
