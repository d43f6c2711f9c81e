#!/usr/bin/env bash
# Three nodes; 100 keys written; the leader killed; an election; the keys read; more written; the old leader started
# again; it catches up. Clients work meanwhile, and their history is checked.
#   tools/scripts/chaos_test.sh [ARGUMENTS of `ringraft chaos`]
# Environment: RINGRAFT (the binary; default: the release build of this tree).
set -euo pipefail
# shellcheck source=tools/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

exec "$RINGRAFT" chaos --scenario leader-kill-catchup "$@"
