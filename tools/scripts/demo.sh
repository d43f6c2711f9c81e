#!/usr/bin/env bash
# A clean cluster of three nodes: who leads, put, get, delete, get, status, and a clean stop.
#   tools/scripts/demo.sh
# Environment: RINGRAFT (the binary; default: the release build of this tree).
set -euo pipefail
# shellcheck source=tools/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

# On the disk of the working folder: the temporary folder may be in memory.
folder=$(mktemp -d "$PWD/.demo-XXXXXX")
cluster=$folder/cluster
finish() {
    "$RINGRAFT" cluster stop --dir "$cluster" >/dev/null 2>&1 || true
    rm -rf "$folder"
}
trap finish EXIT

show() { # show COMMAND ARGUMENTS...
    printf '\n$ ringraft %s\n' "$*"
    "$RINGRAFT" "$@" --dir "$cluster"
}

show cluster start
show cluster leader
show put greeting hello
show get greeting
show delete greeting
code=0
show get greeting || code=$?
[ "$code" -eq 3 ] || { echo "a deleted key must not be found (exit code 3), this was $code" >&2; exit 1; }
echo '(not found: exit code 3)'
show cluster status
show cluster stop
