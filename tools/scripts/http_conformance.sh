#!/usr/bin/env bash
# Holds the HTTP routes of a live three-node cluster against their description (engine/gateway/openapi.json), with
# schemathesis from PyPI: valid and invalid requests made from the description, for at most SECONDS.
#   tools/scripts/http_conformance.sh BINARY [SECONDS]
set -euo pipefail

binary=$(realpath "${1:?usage: http_conformance.sh BINARY [SECONDS]}")
seconds=${2:-40}
version=4.32.5

folder=$(mktemp -d "${TMPDIR:-/tmp}/ringraft-http-XXXXXX")
stop() {
    "$binary" cluster stop --dir "$folder/cluster" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap stop EXIT

st=st
if ! command -v st >/dev/null || ! st --version 2>/dev/null | grep -q "$version"; then
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/ringraft/schemathesis-$version
    [ -x "$cache/bin/st" ] || { rm -rf "$cache"; python3 -m venv "$cache"; "$cache/bin/pip" install -q "schemathesis==$version"; }
    st=$cache/bin/st
fi

"$binary" cluster start --dir "$folder/cluster" --nodes 3 -- --segment-bytes 32MiB --segment-pool 1 >/dev/null
leader=$("$binary" cluster leader --dir "$folder/cluster" --json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["http"])')

# Left out: what changes the cluster's nodes and leaders. Not checked: methods beside the description, since /kv/put and its
# like are keys too; whether a server error is one, since 503 and 504 are described answers: a status that is not described
# fails all the same, and 500 is described nowhere.
cd "$folder"
timeout --kill-after 5 $((seconds + 60)) "$st" run "http://$leader/openapi.json" \
    --checks status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection,missing_required_header \
    --exclude-path-regex '^/admin/(nodes|transfer)' --max-examples 60 --max-time "$seconds" --seed 1 \
    --phases examples,coverage,fuzzing --suppress-health-check all --request-timeout 10 --no-color

# The cluster is as it was: three nodes, a leader, and it serves.
"$binary" cluster status --dir "$folder/cluster" >/dev/null
curl -fsS "http://$leader/readyz" >/dev/null
