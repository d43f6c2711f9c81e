//! `topology.json` in the data directory: the newest topology a node knows, so that it finds the others after a restart.
//!
//! Off the data path.
//! Invariants: the file is whole, the old one or the new one (temporary file, fsync, rename, fsync of the directory); what
//! is read is a valid topology.
//! It is no source of truth: group 0 is, and what it says replaces what stands here.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use super::{Topology, TopologyError};

/// The file.
pub const NAME: &str = "topology.json";

/// The file while it is written.
pub const TEMPORARY_NAME: &str = "topology.json.new";

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refuses.
    #[error("cannot read {NAME}: {0}")]
    Io(#[from] io::Error),
    /// It holds no topology.
    #[error(
        "{NAME} is damaged: {0}; remove it if this node is one of those the cluster was made of, else replace the node"
    )]
    Invalid(#[from] TopologyError),
}

impl FileError {
    /// Reading again may succeed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io(_))
    }

    /// The node cannot start.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }
}

impl Topology {
    /// The topology in a data directory; `None`: there is no file.
    ///
    /// # Errors
    /// It cannot be read or is none.
    pub fn read_file(directory: &Path) -> Result<Option<Self>, FileError> {
        match std::fs::read(directory.join(NAME)) {
            Ok(bytes) => Ok(Some(Self::decode(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes it into a data directory, durably.
    ///
    /// # Errors
    /// What the operating system says; the file before is still there.
    pub fn write_file(&self, directory: &Path) -> io::Result<()> {
        let temporary = directory.join(TEMPORARY_NAME);
        let mut file = File::create(&temporary)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        std::fs::rename(&temporary, directory.join(NAME))?;
        File::open(directory)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringraft_raft::NodeId;

    #[test]
    fn a_topology_is_found_again_and_damage_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let nodes = [(NodeId(1), vec![String::from("a:1")]), (NodeId(2), vec![String::from("b:1")])];
        let first = Topology::initial(nodes, 4, 1, 3).unwrap();
        assert!(Topology::read_file(directory.path()).unwrap().is_none());
        first.write_file(directory.path()).unwrap();
        assert_eq!(Topology::read_file(directory.path()).unwrap(), Some(first.clone()));
        let second = first.remove(NodeId(2)).unwrap().unwrap();
        second.write_file(directory.path()).unwrap();
        assert_eq!(Topology::read_file(directory.path()).unwrap(), Some(second));
        std::fs::write(directory.path().join(NAME), "{}").unwrap();
        let error = Topology::read_file(directory.path()).unwrap_err();
        assert!(!error.is_retryable() && error.to_string().contains("damaged"), "{error}");
    }
}
