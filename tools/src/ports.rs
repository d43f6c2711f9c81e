//! Free loopback ports for local nodes.
//!
//! Off the data path.
//! Invariant: chosen ports lie below the kernel's ephemeral range, so that no outgoing connection can take the port of
//! a node while the node is down. A port handed out once is not handed out again by this process.
//! What it does not do: hold the ports. Another process can still take one before the node binds it; the node then
//! ends with a clear error.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

const LOWEST: u32 = 10_000;
const EPHEMERAL_DEFAULT: u32 = 32_768;

/// Where the next search begins: one place per process, far from those of other processes.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// The first of `count` consecutive free loopback ports.
///
/// # Errors
/// When the range holds no such run.
pub fn free_run(count: u16) -> io::Result<u16> {
    let highest = ephemeral_start().clamp(LOWEST + 4096, 65_536);
    let span = highest - LOWEST - u32::from(count);
    let seed = std::process::id().wrapping_mul(997);
    for _ in 0..span {
        let step = NEXT.fetch_add(u32::from(count), Ordering::Relaxed);
        let first = LOWEST + seed.wrapping_add(step) % span;
        let first = u16::try_from(first).map_err(io::Error::other)?;
        if (first..first + count).all(is_free) {
            return Ok(first);
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, format!("no {count} consecutive free ports in {LOWEST}..{highest}")))
}

/// Whether a listener could be bound to the loopback port right now.
#[must_use]
pub fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

fn ephemeral_start() -> u32 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|start| start.parse().ok()).unwrap_or(EPHEMERAL_DEFAULT)
}

/// Where the nodes of a local cluster serve HTTP, and gRPC with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Http {
    /// Nowhere.
    #[default]
    Off,
    /// On free ports.
    Free,
    /// Node K on `port + K - 1`.
    From(u16),
}

impl Http {
    pub(crate) fn address(self, id: u64, ip: &str) -> Result<Option<String>> {
        let port = match self {
            Self::Off => return Ok(None),
            Self::Free => free_run(1)?,
            Self::From(first) => of_node(first, id, 1)?,
        };
        Ok(Some(format!("{ip}:{port}")))
    }
}

/// The first port of node `id`, from 1, when those of all nodes follow each other.
///
/// # Errors
/// When there are none left, or another process uses them.
pub(crate) fn of_node(base: u16, id: u64, shards: u16) -> Result<u16> {
    let first = u64::from(base) + (id - 1) * u64::from(shards);
    let last = first + u64::from(shards) - 1;
    ensure!(last <= u64::from(u16::MAX), "--port {base} leaves no ports for node {id}");
    for port in first..=last {
        ensure!(is_free(port as u16), "port {port} (node {id}) is in use; choose another --port or leave it out");
    }
    Ok(first as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_overlap_and_avoid_ports_in_use() {
        let first = free_run(4).unwrap();
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).unwrap();
        assert!(!is_free(first));
        let second = free_run(4).unwrap();
        assert!(second >= first + 4 || second + 4 <= first);
        drop(held);
    }
}
