//! Cuts a stream into chunks.
//!
//! Off the data path.
//! Invariants: the chunks depend on the stream alone and not on the portions it came in; all data chunks but the last are
//! full; it holds at most one chunk.
//! It does no I/O: every chunk is handed to the caller as soon as it is whole.

use ringraft_raft::GroupId;

use super::chunk::{END_BYTES, HEADER_BYTES, Header, Kind};
use super::head::FileHead;

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Chunks, head and end included.
    pub chunks: u64,
    /// Bytes of all chunks: the file's length.
    pub bytes: u64,
}

/// The chunks of one snapshot, one after the other.
#[derive(Debug)]
pub struct ChunkWriter {
    next: Header,
    /// Room for a header, then payload.
    chunk: Vec<u8>,
    full_bytes: usize,
    chain_crc: u32,
    payload_bytes: u64,
    written_bytes: u64,
}

impl ChunkWriter {
    /// Begins a snapshot: its first chunk is handed to `emit`.
    pub fn new(group: GroupId, head: &FileHead, emit: &mut impl FnMut(&[u8])) -> Self {
        let next = Header { kind: Kind::Head, group: group.0, head_crc: 0, last: head.state.last, sequence: 0 };
        let full_bytes = head.chunk_bytes.get();
        let mut chunk = Vec::with_capacity(full_bytes);
        chunk.resize(HEADER_BYTES, 0);
        head.append(&mut chunk);
        let mut writer = Self { next, chunk, full_bytes, chain_crc: 0, payload_bytes: 0, written_bytes: 0 };
        writer.next.head_crc = writer.seal(emit);
        writer.next.kind = Kind::Data;
        writer
    }

    /// Takes the next bytes of the stream; chunks that are full are handed to `emit`.
    pub fn push(&mut self, mut bytes: &[u8], emit: &mut impl FnMut(&[u8])) {
        self.payload_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (taken, rest) = bytes.split_at(bytes.len().min(self.full_bytes - self.chunk.len()));
            self.chunk.extend_from_slice(taken);
            if self.chunk.len() == self.full_bytes {
                self.seal(emit);
            }
            bytes = rest;
        }
    }

    /// Ends the snapshot: what is left of the stream and the end are handed to `emit`.
    pub fn finish(mut self, emit: &mut impl FnMut(&[u8])) -> Written {
        if self.chunk.len() > HEADER_BYTES {
            self.seal(emit);
        }
        self.next.kind = Kind::End;
        let mut payload = [0; END_BYTES];
        payload[0..8].copy_from_slice(&(self.next.sequence + 1).to_le_bytes());
        payload[8..16].copy_from_slice(&self.payload_bytes.to_le_bytes());
        payload[16..20].copy_from_slice(&self.chain_crc.to_le_bytes());
        self.chunk.extend_from_slice(&payload);
        self.seal(emit);
        Written { chunks: self.next.sequence, bytes: self.written_bytes }
    }

    fn seal(&mut self, emit: &mut impl FnMut(&[u8])) -> u32 {
        let crc = self.next.seal(&mut self.chunk);
        emit(&self.chunk);
        self.chain_crc = crc32c::crc32c_append(self.chain_crc, &crc.to_le_bytes());
        self.written_bytes += self.chunk.len() as u64;
        self.next.sequence += 1;
        self.chunk.truncate(HEADER_BYTES);
        crc
    }
}
