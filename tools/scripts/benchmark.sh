#!/usr/bin/env bash
# So many writes, then so many reads, one after another by one client, each on a cluster of its own.
#   tools/scripts/benchmark.sh WRITES READS [--out FILE] [ARGUMENTS of `ringraft bench`]
# Standard output: one JSON object {generated_utc, write, read}, reports as of `ringraft bench --json`.
# A report for people goes to FILE, by default benchmarks/latest.md.
# Environment: CLIENTS (default 1), RINGRAFT (the binary; default: the release build of this tree).
set -euo pipefail
# shellcheck source=tools/scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

usage="usage: $0 WRITES READS [--out FILE] [ARGUMENTS]"
writes=${1:?$usage}
reads=${2:?$usage}
shift 2
out=benchmarks/latest.md
if [ "${1:-}" = --out ]; then
    out=${2:?$usage}
    shift 2
fi
clients=${CLIENTS:-1}
generated=$(date -u +%Y-%m-%dT%H:%M:%SZ)

bench() { # bench OPERATIONS ARGUMENTS...
    local operations=$1
    shift
    "$RINGRAFT" bench --closed --clients "$clients" --operations "$operations" --duration 10m --warmup 500ms --json "$@"
}

figure() { # figure NAME TEXT: the first figure of that name
    [[ $2 =~ \"$1\":\ ?(-?[0-9.]+) ]] && echo "${BASH_REMATCH[1]}"
}

row() { # row WHAT REPORT
    local latency
    [[ $2 =~ \"latency_us\":\ ?\{([^}]*)\} ]] && latency=${BASH_REMATCH[1]}
    awk -v what="$1" -v operations="$(figure operations "$2")" -v rate="$(figure achieved_ops_s "$2")" \
        -v mean="$(figure mean "$latency")" -v p50="$(figure p50 "$latency")" \
        -v p99="$(figure p99 "$latency")" -v max="$(figure max "$latency")" \
        'BEGIN { printf "| %s | %d | %.2f | %.3f | %.3f | %.3f | %.3f |\n", \
                 what, operations, rate, mean / 1000, p50 / 1000, p99 / 1000, max / 1000 }'
}

writing=$(bench "$writes" "$@")
reading=$(bench "$reads" --read-percent 100 "$@")
mkdir -p "$(dirname "$out")"
{
    echo '# Benchmark'
    echo
    echo "- Generated (UTC): \`$generated\`"
    echo "- Three nodes on this machine, $clients client(s), one operation at a time each; linearizable reads."
    echo "- Tails vary between runs by the jitter of scheduler and disk."
    echo
    echo '| | operations | ops/s | mean ms/op | p50 ms | p99 ms | max ms |'
    echo '|---|---|---|---|---|---|---|'
    row write "$writing"
    row read "$reading"
} >"$out"
printf '{"generated_utc":"%s","write":%s,"read":%s}\n' "$generated" "$writing" "$reading"
