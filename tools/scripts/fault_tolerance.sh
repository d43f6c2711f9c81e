#!/usr/bin/env bash
# Failures and recoveries of a local cluster, one after another; steps, histories and logs of each go to the results.
#   tools/scripts/fault_tolerance.sh [SCENARIO[,SCENARIO...]|all] [ARGUMENTS of `ringraft chaos`]
# Without scenarios: those that need no special rights. `ringraft chaos --list` names them all.
# Environment: RESULTS (default .results/fault), RINGRAFT (the binary; default: the release build of this tree).
set -euo pipefail
# shellcheck source=tools/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

scenarios=leader-kill-catchup,leader-kill,majority-kill,kill-all,rolling-restart,pause-leader,pause-follower,clock-skew
if [ $# -gt 0 ] && [[ $1 != -* ]]; then
    scenarios=$1
    shift
fi
# A folder for each run of this script: nothing is overwritten.
results=${RESULTS:-.results/fault}/$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$results"
"$RINGRAFT" chaos --scenario "$scenarios" --out "$results" "$@" | tee "$results/summary.txt"
echo "results: $results"
