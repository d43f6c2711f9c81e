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
