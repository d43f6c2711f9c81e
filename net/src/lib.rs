//! ringraft-net: frames, archives, handshake, peer links and the client.
//!
//! Data path 1/9, 2/9 (the slot function), 6b/9 and 9/9.
//!
//! ```text
//! slots ── key -> slot -> group -> shard          limits ── bounds of everything received
//! frame ── bytes <-> frames                       wire ──── frames <-> messages, read in place
//! handshake ── who talks to whom                  link ──── outgoing queue and backoff of a peer
//! buffer ─── bytes of a connection                socket, glommio ── options, connections
//! client ── core without I/O, tokio adapter
//! ```
//!
//! Invariants: everything that decides (`frame`, `wire`, `handshake`, `link`, `client::core`) has no I/O, clock or ambient
//! randomness; bytes from a socket are never trusted before they are checked and bounded.
//!
//! It knows neither the log nor the consensus core.

pub mod buffer;
pub mod client;
pub mod frame;
pub mod glommio;
pub mod handshake;
pub mod limits;
pub mod link;
pub mod slots;
pub mod socket;
pub mod wire;
