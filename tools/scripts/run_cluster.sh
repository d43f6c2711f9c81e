#!/usr/bin/env bash
# A cluster on this machine that stays until it is stopped.
#   tools/scripts/run_cluster.sh start|status|leader|stop [ARGUMENTS of `ringraft cluster ...`]
# Environment: CLUSTER_DIR (default .cluster), RINGRAFT (the binary; default: the release build of this tree).
set -euo pipefail
# shellcheck source=tools/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage="usage: $0 start|status|leader|stop [ARGUMENTS]"
case "${1:-}" in
    start | status | leader | stop) ;;
    -h | --help) echo "$usage"; exit 0 ;;
    *) echo "$usage" >&2; exit 2 ;;
esac
what=$1
shift
exec "$RINGRAFT" cluster "$what" --dir "${CLUSTER_DIR:-.cluster}" "$@"
