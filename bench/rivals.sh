#!/bin/sh
# Starts a three-node etcd and one Redis on loopback, both durable, and stops them again.
#
#   bench/rivals.sh start DIR     starts what is installed, prints the flags for `ringraft bench`
#   bench/rivals.sh stop DIR      stops it by the recorded process ids and removes its data
#
# DIR must be on the disk that is to be measured (a tmpfs has no flushes).
# Debian: apt-get install etcd-server redis-server
# Every flag that decides what the figures mean is explained in METHODOLOGY.md.
set -eu

usage() {
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 64
}

[ $# -eq 2 ] || usage
command=$1
dir=$2
etcd_port=${ETCD_PORT:-23790}
redis_port=${REDIS_PORT:-26379}

start_etcd() {
    cluster=""
    for node in 1 2 3; do
        cluster="$cluster${cluster:+,}n$node=http://127.0.0.1:$((etcd_port + node * 10 + 1))"
    done
    endpoints=""
    for node in 1 2 3; do
        client=http://127.0.0.1:$((etcd_port + node * 10))
        peer=http://127.0.0.1:$((etcd_port + node * 10 + 1))
        etcd --name "n$node" --data-dir "$dir/etcd-$node" \
            --listen-client-urls "$client" --advertise-client-urls "$client" \
            --listen-peer-urls "$peer" --initial-advertise-peer-urls "$peer" \
            --initial-cluster "$cluster" --initial-cluster-state new --initial-cluster-token ringraft-bench \
            --heartbeat-interval 100 --election-timeout 1000 \
            --snapshot-count 100000 --quota-backend-bytes 8589934592 \
            --logger zap --log-level error >"$dir/etcd-$node.log" 2>&1 &
        echo $! >>"$dir/pids"
        endpoints="$endpoints${endpoints:+,}127.0.0.1:$((etcd_port + node * 10))"
    done
    wait_for "${endpoints%%,*}"
    printf -- '--etcd %s ' "$endpoints"
}

start_redis() {
    mkdir -p "$dir/redis"
    redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$dir/redis" \
        --appendonly yes --appendfsync always --save '' --daemonize no >"$dir/redis.log" 2>&1 &
    echo $! >>"$dir/pids"
    wait_for "127.0.0.1:$redis_port"
    printf -- '--redis 127.0.0.1:%s ' "$redis_port"
}

# Waits until something listens at 127.0.0.1:PORT, ten seconds at most.
wait_for() {
    hex=$(printf '%04X' "${1##*:}")
    tries=0
    until grep -q ":$hex 00000000:0000 0A" /proc/net/tcp; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then
            echo "rivals.sh: nothing listens at $1; see the logs in $dir" >&2
            exit 1
        fi
        sleep 0.1
    done
}

case $command in
start)
    mkdir -p "$dir"
    if [ -e "$dir/pids" ]; then
        echo "rivals.sh: $dir/pids exists: stop these first" >&2
        exit 1
    fi
    case $(stat -f -c %T "$dir") in
    tmpfs | ramfs) echo "rivals.sh: warning: $dir is in memory, so flushes cost nothing" >&2 ;;
    esac
    : >"$dir/pids"
    if command -v etcd >/dev/null; then start_etcd; else echo "rivals.sh: etcd is not installed" >&2; fi
    if command -v redis-server >/dev/null; then start_redis; else echo "rivals.sh: redis-server is not installed" >&2; fi
    echo
    ;;
stop)
    [ -e "$dir/pids" ] || { echo "rivals.sh: $dir/pids does not exist" >&2; exit 1; }
    while read -r pid; do
        # The id may have been reused since: only ours have the folder or the port in their command line.
        if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q -e "$dir" -e "redis-server 127.0.0.1:$redis_port"; then
            kill "$pid"
            while [ -e "/proc/$pid" ] && ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null; do sleep 0.1; done
        fi
    done <"$dir/pids"
    rm -rf "$dir"/etcd-[123] "$dir"/etcd-[123].log "$dir/redis" "$dir/redis.log" "$dir/pids"
    rmdir "$dir" 2>/dev/null || true
    ;;
*) usage ;;
esac
