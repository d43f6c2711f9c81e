//! Checks chunks, one after the other, and yields what is in them.
//!
//! Off the data path.
//! Invariants: a chunk is taken as a whole or not at all, and one that is not taken changes nothing, so that the right one
//! may follow; no bytes make it panic; it keeps nothing of the stream.
//! From a file or from frames, all the same: `next_sequence` is where a broken transfer goes on.
//!
//! ```text
//!  head ---> data (full) ---> ... ---> data (perhaps shorter) ---> end
//! ```

use ringraft_raft::GroupId;

use super::chunk::{ChunkError, ChunkProblem, END_BYTES, Header, Kind, read_u32, read_u64};
use super::head::FileHead;

/// What the snapshot must belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// The group.
    pub group: GroupId,
    /// Checksum of the cluster's identity.
    pub identity: u32,
    /// Digest of the limits that decide what a log yields.
    pub limits_digest: u64,
}

/// What is in a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Chunk<'a> {
    /// What the snapshot is.
    Head(FileHead),
    /// The next bytes of the stream.
    Data(&'a [u8]),
    /// Nothing follows; all of it was there.
    End,
}

/// A snapshot being read.
#[derive(Debug)]
pub struct ChunkReader {
    expected: Expected,
    sequence: u64,
    offset: u64,
    /// The header that data chunks have, but for the sequence, and the payload of a full one.
    stream: Option<(Header, usize)>,
    chain_crc: u32,
    payload_bytes: u64,
    last_data: bool,
    ended: bool,
}

impl ChunkReader {
    /// A reader before the first chunk.
    #[must_use]
    pub fn new(expected: Expected) -> Self {
        let (sequence, offset, chain_crc, payload_bytes) = (0, 0, 0, 0);
        let (stream, last_data, ended) = (None, false, false);
        Self { expected, sequence, offset, stream, chain_crc, payload_bytes, last_data, ended }
    }

    /// Number of the chunk that must come next.
    #[must_use]
    pub fn next_sequence(&self) -> u64 {
        self.sequence
    }

    /// Bytes of the chunks so far: where the next one stands in the file.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The end came, and everything before it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.ended
    }

    /// Takes the next chunk, all of its bytes.
    ///
    /// # Errors
    /// When they are not the next chunk of this snapshot; the reader is as it was.
    pub fn take<'a>(&mut self, chunk: &'a [u8]) -> Result<Chunk<'a>, ChunkError> {
        let (sequence, offset) = (self.sequence, self.offset);
        self.check(chunk).map_err(|problem| ChunkError { sequence, offset, problem })
    }

    fn check<'a>(&mut self, chunk: &'a [u8]) -> Result<Chunk<'a>, ChunkProblem> {
        if self.ended {
            return Err(ChunkProblem::BehindEnd);
        }
        let (header, crc, payload) = Header::open(chunk)?;
        if header.group != self.expected.group.0 {
            return other("the group", header.group, self.expected.group.0);
        }
        let taken = match self.stream {
            None => Chunk::Head(self.head(header, crc, payload)?),
            Some((stream, full)) => {
                // A head that comes again has no checksum of a head.
                if header.kind != Kind::Head {
                    same_stream(&header, &stream)?;
                }
                if header.sequence != self.sequence {
                    return Err(ChunkProblem::Sequence { found: header.sequence });
                }
                self.behind_head(header.kind, payload, full)?
            }
        };
        self.chain_crc = crc32c::crc32c_append(self.chain_crc, &crc.to_le_bytes());
        self.sequence += 1;
        self.offset += chunk.len() as u64;
        Ok(taken)
    }

    fn head(&mut self, header: Header, crc: u32, payload: &[u8]) -> Result<FileHead, ChunkProblem> {
        if header.sequence != 0 {
            return Err(ChunkProblem::Sequence { found: header.sequence });
        }
        if header.kind != Kind::Head {
            return Err(ChunkProblem::Kind(header.kind as u8));
        }
        same_stream(&header, &Header { head_crc: 0, ..header })?;
        let head = FileHead::read(payload, header.last).map_err(ChunkProblem::Head)?;
        if head.identity != self.expected.identity {
            return other("the identity of the cluster", head.identity, self.expected.identity);
        }
        if head.limits_digest != self.expected.limits_digest {
            return other("the digest of the limits", head.limits_digest, self.expected.limits_digest);
        }
        self.stream = Some((Header { head_crc: crc, ..header }, head.chunk_bytes.payload_bytes()));
        Ok(head)
    }

    fn behind_head<'a>(&mut self, kind: Kind, payload: &'a [u8], full: usize) -> Result<Chunk<'a>, ChunkProblem> {
        match kind {
            Kind::Head => Err(ChunkProblem::Kind(kind as u8)),
            Kind::Data if self.last_data => Err(ChunkProblem::BehindLast),
            Kind::Data if payload.is_empty() || payload.len() > full => {
                Err(ChunkProblem::Payload { payload_bytes: payload.len(), expected: full })
            }
            Kind::Data => {
                self.last_data = payload.len() < full;
                self.payload_bytes += payload.len() as u64;
                Ok(Chunk::Data(payload))
            }
            Kind::End => {
                self.end(payload)?;
                self.ended = true;
                Ok(Chunk::End)
            }
        }
    }

    fn end(&self, payload: &[u8]) -> Result<(), ChunkProblem> {
        if payload.len() != END_BYTES {
            return Err(ChunkProblem::Payload { payload_bytes: payload.len(), expected: END_BYTES });
        }
        let totals = [
            ("number of chunks", read_u64(payload, 0), self.sequence + 1),
            ("number of bytes", read_u64(payload, 8), self.payload_bytes),
            ("checksum of checksums", read_u32(payload, 16).into(), self.chain_crc.into()),
            ("last word", read_u32(payload, 20).into(), 0),
        ];
        match totals.into_iter().find(|(_, found, expected)| found != expected) {
            Some((what, found, expected)) => Err(ChunkProblem::End { what, found, expected }),
            None => Ok(()),
        }
    }
}

fn other<T>(what: &'static str, found: impl Into<u64>, expected: impl Into<u64>) -> Result<T, ChunkProblem> {
    Err(ChunkProblem::Other { what, found: found.into(), expected: expected.into() })
}

fn same_stream(header: &Header, stream: &Header) -> Result<(), ChunkProblem> {
    if header.last.index != stream.last.index {
        return other("the last index", header.last.index, stream.last.index);
    }
    if header.last.term != stream.last.term {
        return other("the last term", header.last.term, stream.last.term);
    }
    if header.head_crc != stream.head_crc {
        return other("the checksum of the head", header.head_crc, stream.head_crc);
    }
    Ok(())
}
