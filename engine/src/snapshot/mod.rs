//! The snapshot's file and wire format: a stream cut into checked chunks.
//!
//! Off the data path.
//! Invariants: what the writer produced the reader yields unchanged; a byte changed, lost, repeated or out of its place
//! is an error that names the chunk, and so is a chunk of another snapshot; every chunk is a whole number of blocks, so
//! that direct I/O can write it as it is.
//!
//! ```text
//!  state_machine::snapshot_slice -> bytes -> ChunkWriter -> chunks -> file, frames -> ChunkReader -> bytes -> StateLoader
//!
//!  | head | data | data | ... | data | end |          one block, chunk_bytes each (the last may be shorter), one block
//! ```
//! `SNAPSHOT.md` beside this crate draws every byte. There is no I/O here, and what is in the stream is not looked at.

mod chunk;
mod head;
mod load;
mod members;
mod reader;
mod writer;

pub use chunk::{BLOCK_BYTES, ChunkBytes, ChunkError, ChunkProblem, Layout, chunk_length};
pub use head::{FileHead, HeadProblem};
pub use load::{FileLoader, LoadFailure, Loaded, NoBeginning, load_newest};
pub use members::{MEMBERS_MAX, Members, MembersError, MembersProblem};
pub use reader::{Chunk, ChunkReader, Expected};
pub use writer::{ChunkWriter, Written};

#[cfg(test)]
mod tests;
