//! From the bytes of a snapshot file to the state in it, at the start of a node.
//!
//! Off the data path.
//! Invariant: what comes out is whole and has the hash its head names; anything else is an error that says where.
//! It reads no file: the caller hands it the bytes in order, in any portions.

use ringraft_raft::GroupId;

use super::chunk::{ChunkError, ChunkProblem, HEADER_BYTES, chunk_length};
use super::reader::{Chunk, ChunkReader, Expected};
use super::FileHead;
use crate::limits::Limits;
use crate::state_machine::{LoadError, StateLoader, StateMachine};

/// What a snapshot file held.
#[derive(Debug)]
pub struct Loaded {
    /// What it says of itself.
    pub head: FileHead,
    /// The state.
    pub machine: StateMachine,
}

/// Why a file cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadFailure {
    /// Its chunks are not those of the snapshot.
    #[error(transparent)]
    Chunk(#[from] ChunkError),
    /// What is in them is not a state.
    #[error(transparent)]
    State(#[from] LoadError),
    /// It ends too early.
    #[error("the file ends in the middle, after {0} bytes of whole chunks")]
    Short(u64),
}

/// A file being loaded.
#[derive(Debug)]
pub struct FileLoader {
    group: GroupId,
    limits: Limits,
    reader: ChunkReader,
    content: Option<(FileHead, StateLoader)>,
    /// The beginning of a chunk whose end has not come.
    partial: Vec<u8>,
}

impl FileLoader {
    /// A loader of a snapshot of `group` of the cluster with this identity.
    #[must_use]
    pub fn new(group: GroupId, identity: u32, limits: Limits) -> Self {
        let expected = Expected { group, identity, limits_digest: limits.digest() };
        Self { group, limits, reader: ChunkReader::new(expected), content: None, partial: Vec::new() }
    }

    /// Takes the next bytes of the file.
    ///
    /// # Errors
    /// They are not what stands there in a snapshot.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), LoadFailure> {
        self.partial.extend_from_slice(bytes);
        let held = std::mem::take(&mut self.partial);
        let mut start = 0;
        while held.len() - start >= HEADER_BYTES {
            let length = chunk_length(&held[start..]).map_err(|problem| self.error(problem))?;
            let Some(chunk) = held.get(start..start + length) else { break };
            self.take(chunk)?;
            start += length;
        }
        self.partial = held;
        self.partial.drain(..start);
        Ok(())
    }

    fn error(&self, problem: ChunkProblem) -> ChunkError {
        ChunkError { sequence: self.reader.next_sequence(), offset: self.reader.offset(), problem }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), LoadFailure> {
        match self.reader.take(chunk)? {
            Chunk::Head(head) => {
                let loader = StateLoader::new(self.group, self.limits, head.state);
                self.content = Some((head, loader));
            }
            Chunk::Data(bytes) => {
                if let Some((_, loader)) = &mut self.content {
                    loader.push(bytes)?;
                }
            }
            Chunk::End => {}
        }
        Ok(())
    }

    /// The state, when the file is at its end.
    ///
    /// # Errors
    /// Something is missing, or the state is not what the head says.
    pub fn finish(self) -> Result<Loaded, LoadFailure> {
        let whole = self.reader.is_complete() && self.partial.is_empty();
        match self.content {
            Some((head, loader)) if whole => Ok(Loaded { head, machine: loader.finish()? }),
            _ => Err(LoadFailure::Short(self.reader.offset())),
        }
    }
}
