//! How a node ends: one exit code per reason, so that scripts and supervisors need not read messages.
//!
//! Off the data path.
//! Invariant: a code never changes its meaning; 64 and up keep clear of the shell's own codes and of a panic's (101).
//!
//! | code | name | what happened | what to do |
//! |---|---|---|---|
//! | 0 | `OK` | a graceful stop was asked for and is done | nothing |
//! | 64 | `USAGE` | a flag, an environment variable or the configuration file is wrong | the message names the key, the value and the bounds |
//! | 65 | `DATA_CORRUPT` | the log or an entry in it is damaged, and may have been acknowledged | the message names file and offset; replace the replica |
//! | 66 | `IDENTITY_MISMATCH` | the data directory belongs to another cluster, node or configuration, or to none | correct the configuration or the directory |
//! | 70 | `WAL_POISONED` | a write or a flush failed | check the disk, then restart: the node reads back what the disk holds |
//! | 71 | `SHARD_STALLED` | a shard did not turn for `watchdog_ms` | restart; report it with the log |
//! | 72 | `STATE_DIVERGED` | the state differs from the leader's at the same index | replace the replica |
//! | 73 | `CANNOT_START` | io_uring, direct I/O, locked memory or an address is not available | `ringraft doctor` says which, and the remedy |
//! | 74 | `LOCKED` | another process uses the data directory | stop it, or give this node a directory of its own |
//! | 75 | `REMOVED` | the node was removed from the cluster | delete its data; to use the machine again, join with a new id |
//! | 101 | | a panic: a bug | restart; report it with the log |

/// A graceful stop.
pub const OK: i32 = 0;
/// Wrong usage or configuration.
pub const USAGE: i32 = 64;
/// Damage that may have been acknowledged.
pub const DATA_CORRUPT: i32 = 65;
/// The data of another cluster or node, or of none.
pub const IDENTITY_MISMATCH: i32 = 66;
/// A failed write or flush.
pub const WAL_POISONED: i32 = 70;
/// A shard that does not turn.
pub const SHARD_STALLED: i32 = 71;
/// A state that differs from the leader's.
pub const STATE_DIVERGED: i32 = 72;
/// Something of the environment is missing.
pub const CANNOT_START: i32 = 73;
/// The data directory is in use.
pub const LOCKED: i32 = 74;

/// The node was removed from the cluster.
pub const REMOVED: i32 = 75;

/// Every reason with its name, for `--help`, the runbook and messages about a node that ended.
pub const TABLE: [(i32, &str, &str); 10] = [
    (OK, "OK", "stopped gracefully"),
    (USAGE, "USAGE", "wrong usage or configuration"),
    (DATA_CORRUPT, "DATA_CORRUPT", "the log is damaged"),
    (IDENTITY_MISMATCH, "IDENTITY_MISMATCH", "the data directory is another node's or cluster's"),
    (WAL_POISONED, "WAL_POISONED", "a write or a flush failed"),
    (SHARD_STALLED, "SHARD_STALLED", "a shard stalled"),
    (STATE_DIVERGED, "STATE_DIVERGED", "the state differs from the leader's"),
    (CANNOT_START, "CANNOT_START", "the environment does not allow to start"),
    (LOCKED, "LOCKED", "the data directory is in use"),
    (REMOVED, "REMOVED", "the node was removed from the cluster"),
];

/// What an exit code of a node means, if it is one of them.
#[must_use]
pub fn meaning(code: i32) -> Option<&'static str> {
    TABLE.iter().find(|(known, _, _)| *known == code).map(|(_, _, text)| *text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_at_the_head_names_every_code() {
        let source = include_str!("exit.rs");
        for (code, name, text) in TABLE {
            let row = format!("//! | {code} | `{name}` |");
            assert!(source.contains(&row), "{row}");
            assert_eq!(meaning(code), Some(text));
        }
        assert_eq!(meaning(1), None);
    }
}
