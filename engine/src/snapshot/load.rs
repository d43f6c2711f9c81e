//! From the bytes of a snapshot file to the state in it, at the start of a node.
//!
//! Off the data path.
//! Invariant: what comes out is whole and has the hash its head names; anything else is an error that says where.
//! It reads no file: the caller hands it the bytes in order, in any portions.

use std::collections::BTreeMap;

use ringraft_raft::GroupId;
use ringraft_wal::{Recovered, SnapshotName};

use super::FileHead;
use super::chunk::{ChunkError, ChunkProblem, HEADER_BYTES, chunk_length};
use super::reader::{Chunk, ChunkReader, Expected};
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

/// A group cannot start: its log has no beginning, and there is no snapshot to begin with.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "group {group} has no snapshot that is whole, and its log begins at entry {first_index}: {reason}. Replace this \
     replica, or bring the file back"
)]
pub struct NoBeginning {
    /// The group.
    pub group: u32,
    /// The first entry of its log.
    pub first_index: u64,
    /// What is wrong with the last file that was tried.
    pub reason: String,
}

/// Loads the newest whole snapshot of every group that has one; `read` hands a file's bytes to the loader. `skipped` hears
/// of those that cannot be used.
///
/// # Errors
/// A group needs a snapshot and has none that is whole.
pub fn load_newest(
    recovered: &Recovered,
    identity: u32,
    limits: Limits,
    mut read: impl FnMut(SnapshotName, &mut FileLoader) -> Result<(), String>,
    mut skipped: impl FnMut(SnapshotName, &str),
) -> Result<BTreeMap<u32, Loaded>, NoBeginning> {
    let mut all = BTreeMap::new();
    for (group, found) in &recovered.groups {
        let mut reason = String::from("no file is there");
        for mark in recovered.usable_snapshots(*group) {
            let name = SnapshotName { group: *group, index: mark.index };
            let mut loader = FileLoader::new(GroupId(*group), identity, limits);
            let loaded = read(name, &mut loader).and_then(|()| loader.finish().map_err(|error| error.to_string()));
            match loaded {
                Ok(loaded) => {
                    all.insert(*group, loaded);
                    break;
                }
                Err(error) => {
                    skipped(name, &error);
                    reason = format!("{name}: {error}");
                }
            }
        }
        if !all.contains_key(group) && found.first_index() > 1 {
            return Err(NoBeginning { group: *group, first_index: found.first_index(), reason });
        }
    }
    Ok(all)
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
