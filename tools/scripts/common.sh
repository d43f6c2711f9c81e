# shellcheck shell=bash
# Sourced by the other scripts. Sets RINGRAFT, the binary: the one that is given, else the release build of this tree.
if [ -z "${RINGRAFT:-}" ]; then
    root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
    cargo build --release --quiet --locked --manifest-path "$root/Cargo.toml"
    RINGRAFT=${CARGO_TARGET_DIR:-$root/target}/release/ringraft
fi
export RINGRAFT
