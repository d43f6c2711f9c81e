//! Free loopback ports for local nodes.
//!
//! Off the data path.
//!
//! ```text
//!   10,000 ... blocks of 256 ports ... start of the ephemeral range
//!              └─ one of which nothing is in use: taken by this process for its life, handed out from its beginning
//! ```
//! Invariants: chosen ports lie below the kernel's ephemeral range, so that no outgoing connection can take the port of a
//! node while the node is down; a block belongs to one process of this program at a time, by a socket with an abstract name
//! that ends with it; a port handed out once is not handed out again by this process.
//! What it does not do: hold the ports themselves. Another program can still take one before the node binds it; the node
//! then ends with a clear error.

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, ensure};

const LOWEST: u32 = 10_000;
const EPHEMERAL_DEFAULT: u32 = 32_768;
/// Ports of a block: as many as a node can have.
const BLOCK: u32 = 256;

/// The blocks of this process.
#[derive(Debug)]
struct Taken {
    /// Their names; what they hold is given back when the process ends.
    names: Vec<UnixDatagram>,
    /// What is left of the newest one.
    next: u32,
    end: u32,
}

static TAKEN: Mutex<Taken> = Mutex::new(Taken { names: Vec::new(), next: 0, end: 0 });

/// The first of `count` consecutive free loopback ports, `count` from 1 to 256.
///
/// # Errors
/// When there is no such run in a block that nobody uses.
pub fn free_run(count: u16) -> io::Result<u16> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        while taken.next + u32::from(count) <= taken.end {
            let first = u16::try_from(taken.next).map_err(io::Error::other)?;
            let in_use = (first..first + count).rev().find(|port| !is_free(*port));
            taken.next = u32::from(in_use.map_or(first + count, |port| port + 1));
            if in_use.is_none() {
                return Ok(first);
            }
        }
        take_block(&mut taken, u32::from(count))?;
    }
}

fn take_block(taken: &mut Taken, count: u32) -> io::Result<()> {
    let highest = ephemeral_start().clamp(LOWEST + 4_096, 65_536);
    let blocks = (highest - LOWEST) / BLOCK;
    let error = |message| Err(io::Error::new(io::ErrorKind::AddrInUse, message));
    if count > BLOCK {
        return error(format!("{count} ports are more than the {BLOCK} of a block"));
    }
    for step in 0..blocks {
        let first = LOWEST + std::process::id().wrapping_add(step) % blocks * BLOCK;
        let name = SocketAddr::from_abstract_name(format!("ringraft-ports-{first}"))?;
        let Ok(held) = UnixDatagram::bind_addr(&name) else { continue };
        // Where a cluster runs, ports of its nodes that are down are not free.
        if (first..first + BLOCK).all(|port| is_free(port as u16)) {
            taken.names.push(held);
            (taken.next, taken.end) = (first, first + BLOCK);
            return Ok(());
        }
    }
    error(format!("no {BLOCK} consecutive free ports in {LOWEST}..{highest}; stop clusters that are not needed"))
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

    #[test]
    fn a_block_belongs_to_one_process_and_nobody_else_is_in_it() {
        let mut mine = Taken { names: Vec::new(), next: 0, end: 0 };
        let mut others = Taken { names: Vec::new(), next: 0, end: 0 };
        take_block(&mut mine, 1).unwrap();
        take_block(&mut others, 256).unwrap();
        assert_ne!(mine.next, others.next);
        assert_eq!((mine.end - mine.next, mine.names.len()), (BLOCK, 1));
        // Given back, but a node of a cluster still runs there.
        let freed = mine.next;
        let running = TcpListener::bind((Ipv4Addr::LOCALHOST, freed as u16 + 17)).unwrap();
        drop(mine);
        let mut next = Taken { names: Vec::new(), next: 0, end: 0 };
        take_block(&mut next, 1).unwrap();
        assert_ne!(next.next, freed);
        drop(running);
        assert!(take_block(&mut next, 257).is_err());
    }
}
