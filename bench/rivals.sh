#!/bin/sh
# Starts a three-node etcd and one Redis on loopback, both durable, and stops them again.
#
#   bench/rivals.sh start DIR     starts what is installed, prints the flags for `ringraft bench`
#   bench/rivals.sh stop DIR      stops what was started there and removes its data
#
# DIR must be on the disk that is to be measured (a tmpfs has no flushes).
# ETCD_PORT and REDIS_PORT choose other ports, PATIENCE the seconds that each may take to listen or to end.
# Debian: apt-get install etcd-server redis-server
# Every flag that decides what the figures mean is explained in METHODOLOGY.md.
set -eu

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 64
}

[ $# -eq 2 ] || usage
command=$1
etcd_port=${ETCD_PORT:-23790}
redis_port=${REDIS_PORT:-26379}
patience=${PATIENCE:-10}

# What is in DIR/pids: process id, when it began, port. Id and beginning together name one process: the id alone may have
# been given to another since.
record() {
    echo "$1 $(began "$1") $2" >>"$dir/pids"
}

# When a process began, in ticks since the machine did; nothing: there is none.
began() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 20
}

# lives PID BEGAN: whether that process runs. A zombie does not.
lives() {
    [ -n "$(began "$1")" ] && [ "$(began "$1")" = "$2" ] && ! grep -q '^State:.*Z' "/proc/$1/status" 2>/dev/null
}

# listens PID PORT: whether that process, and no other, listens at 127.0.0.1:PORT.
listens() {
    hex=$(printf '%04X' "$2")
    inodes=$(awk -v address="0100007F:$hex" '$2 == address && $4 == "0A" { print $10 }' /proc/net/tcp)
    for inode in $inodes; do
        for file in "/proc/$1/fd"/*; do
            [ "$(readlink "$file" 2>/dev/null)" != "socket:[$inode]" ] || return 0
        done
    done
    return 1
}

# wait_for NAME PID PORT: waits until the process listens.
wait_for() {
    tries=0
    start=$(began "$2")
    until listens "$2" "$3"; do
        tries=$((tries + 1))
        if ! lives "$2" "$start"; then
            echo "rivals.sh: $1 ended before it listened at 127.0.0.1:$3; see its log in $dir" >&2
        elif [ "$tries" -gt $((patience * 10)) ]; then
            echo "rivals.sh: $1 does not listen at 127.0.0.1:$3 after $patience s; see its log in $dir" >&2
        else
            sleep 0.1
            continue
        fi
        echo "rivals.sh: \`$0 stop $dir\` stops what was started" >&2
        exit 1
    done
}

start_etcd() {
    cluster=""
    for node in 1 2 3; do
        cluster="$cluster${cluster:+,}n$node=http://127.0.0.1:$((etcd_port + node * 10 + 1))"
    done
    endpoints=""
    pids=""
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
        record $! $((etcd_port + node * 10))
        pids="$pids $!"
        endpoints="$endpoints${endpoints:+,}127.0.0.1:$((etcd_port + node * 10))"
    done
    node=0
    for pid in $pids; do
        node=$((node + 1))
        wait_for "etcd-$node" "$pid" $((etcd_port + node * 10))
    done
    printf -- '--etcd %s ' "$endpoints"
}

start_redis() {
    mkdir -p "$dir/redis"
    redis-server --port "$redis_port" --bind 127.0.0.1 --dir "$dir/redis" \
        --appendonly yes --appendfsync always --save '' --daemonize no >"$dir/redis.log" 2>&1 &
    record $! "$redis_port"
    wait_for redis $! "$redis_port"
    printf -- '--redis 127.0.0.1:%s ' "$redis_port"
}

# end PID BEGAN: ends a process and waits until it is gone; false: it is not.
end() {
    for signal in TERM KILL; do
        tries=0
        lives "$1" "$2" || return 0
        kill -s "$signal" "$1" 2>/dev/null || true
        while lives "$1" "$2" && [ "$tries" -lt $((patience * 10)) ]; do
            tries=$((tries + 1))
            sleep 0.1
        done
    done
    ! lives "$1" "$2"
}

case $command in
start)
    mkdir -p -- "$2"
    dir=$(CDPATH='' cd -- "$2" && pwd -P)
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
    [ -e "$2/pids" ] || { echo "rivals.sh: $2/pids does not exist" >&2; exit 1; }
    dir=$(CDPATH='' cd -- "$2" && pwd -P)
    survivors=""
    while read -r pid start port; do
        # Without its beginning nobody knows whether it is ours.
        if [ -z "$start" ]; then
            [ ! -e "/proc/$pid" ] || survivors="$survivors $pid"
        elif ! end "$pid" "$start"; then
            survivors="$survivors $pid (port $port)"
        fi
    done <"$dir/pids"
    if [ -n "$survivors" ]; then
        echo "rivals.sh: still running:$survivors; $dir is left as it is" >&2
        exit 1
    fi
    rm -rf "$dir"/etcd-[123] "$dir"/etcd-[123].log "$dir/redis" "$dir/redis.log" "$dir/pids"
    rmdir "$dir" 2>/dev/null || true
    ;;
*) usage ;;
esac
