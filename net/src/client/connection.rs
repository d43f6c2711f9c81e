//! Connection: what the client knows of one socket it does not own.
//!
//! Off the data path of a node.
//!
//! ```text
//!   Connect ──▶ Connecting ── connected ──▶ Greeting ── Welcome ──▶ Ready
//!                   └── disconnected, timeout, Refused, damage ─────┴──▶ free
//! ```
//!
//! Invariants: a place in the table is used again under another id, so that late events of an old socket are ignored;
//! `sent` holds exactly the requests whose frames were appended to `outgoing` and that are not answered.
//!
//! It decides nothing.

use super::{Address, slab::List};
use crate::{
    buffer::{ReceiveBuffer, SendBuffer},
    handshake::Dialer,
};

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    Connecting,
    Greeting,
    Ready,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) state: State,
    pub(super) generation: u16,
    pub(super) address: Address,
    pub(super) endpoint: u32,
    pub(super) dialer: Dialer,
    pub(super) incoming: ReceiveBuffer,
    pub(super) outgoing: SendBuffer,
    pub(super) sent: List,
    /// When it was asked for, or when bytes last came.
    pub(super) heard_us: u64,
    /// On the list of connections with bytes to write.
    pub(super) writable: bool,
}

impl Connection {
    pub(super) fn new(address: Address, endpoint: u32, dialer: Dialer, now_us: u64) -> Self {
        Self {
            state: State::Connecting,
            generation: 0,
            address,
            endpoint,
            dialer,
            incoming: ReceiveBuffer::new(),
            outgoing: SendBuffer::new(),
            sent: List::new(),
            heard_us: now_us,
            writable: false,
        }
    }

    /// Uses a free place again.
    pub(super) fn reuse(&mut self, address: Address, endpoint: u32, dialer: Dialer, now_us: u64) {
        self.state = State::Connecting;
        self.generation = self.generation.wrapping_add(1);
        self.address = address;
        self.endpoint = endpoint;
        self.dialer = dialer;
        self.incoming.clear();
        self.outgoing.reset();
        self.sent = List::new();
        self.heard_us = now_us;
        self.writable = false;
    }
}
