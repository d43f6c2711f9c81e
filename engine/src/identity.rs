//! Whose data a directory holds: made once at `--init`, compared at every start, locked while the node runs.
//!
//! Off the data path.
//! Invariants: a node starts only over a directory that says it is this node's, of this cluster, with the same values of
//! all settings the nodes share; an empty directory is never taken for a node's without `--init`, since a lost disk
//! looks like that and a node that forgot its vote and log must not come back under its id; the file is durable before
//! anything else is written.
//! It does not read the log.
//!
//! ```text
//!  data_dir/identity.json   who this is          made in a temporary file: write, fsync, rename, fsync of the directory
//!  data_dir/topology.json   the newest topology known here, written by `topology/file.rs`
//!  data_dir/LOCK            held while running   (an advisory lock, gone with the process)
//!  wal_dir/identity.json    the same again, when the log is elsewhere: two directories cannot be mixed up
//! ```

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::{ValidNodeConfig, digest_of};
use crate::exit;
use crate::topology::{Topology, file};

const FILE: &str = "identity.json";
const TEMPORARY_FILE: &str = "identity.json.new";
const LOCK: &str = "LOCK";

/// Version of the file and of the directory's layout.
const FORMAT: u32 = 2;

/// What the file says. Values are kept one by one, so that a mismatch can name both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    node: u64,
    /// A random number that tells this directory from any other that was made for the same id.
    instance: u64,
    /// Whether the node joined a cluster that was there; else it is one of those the cluster was made of.
    joined: bool,
    /// See [`ValidNodeConfig::shared_values`].
    shared: BTreeMap<String, String>,
    /// Over all of the above: tells damage from difference.
    digest: String,
}

impl Stored {
    fn of(config: &ValidNodeConfig) -> Self {
        let shared: BTreeMap<_, _> =
            config.shared_values().into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Self::with(config.id, shared, false, 0)
    }

    fn with(node: u64, shared: BTreeMap<String, String>, joined: bool, instance: u64) -> Self {
        let mut stored = Self { format: FORMAT, node, instance, joined, shared, digest: String::new() };
        stored.digest = stored.own_digest();
        stored
    }

    /// The same with an instance of its own.
    fn instantiated(self) -> Self {
        Self::with(self.node, self.shared, self.joined, random_instance())
    }

    /// Whether both are of one creation, which makes a new instance whenever it is tried again.
    fn is_same_creation(&self, other: &Self) -> bool {
        (self.format, self.node, self.joined, &self.shared) == (other.format, other.node, other.joined, &other.shared)
    }

    fn own_digest(&self) -> String {
        let head = [
            ("format", self.format.to_string()),
            ("node", self.node.to_string()),
            ("instance", self.instance.to_string()),
            ("joined", self.joined.to_string()),
        ];
        let head = head.iter().map(|(key, value)| (*key, value.as_str()));
        let shared = self.shared.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        format!("{:016x}", digest_of(head.chain(shared)))
    }
}

/// Why a directory is not used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no node in it.
    #[error(
        "{path} holds no node (no {FILE}): give --init once to create one there. \
         If this node ran before, its disk is not mounted or was lost: then do not, but replace the replica"
    )]
    NotInitialised {
        /// The directory.
        path: PathBuf,
    },
    /// `--init` over an existing node.
    #[error("{path} already holds node {node}: start without --init")]
    AlreadyInitialised {
        /// The directory.
        path: PathBuf,
        /// The node in it.
        node: u64,
    },
    /// `--init` over something else's data.
    #[error("{path} is not empty (it has `{found}`) and holds no node: name an empty directory")]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Something in it.
        found: String,
    },
    /// The directory says one thing, the configuration another.
    #[error(
        "{path} was made with {key} = `{stored}` but the configuration says `{configured}`: \
         correct the configuration, or name the right directory"
    )]
    Mismatch {
        /// The directory.
        path: PathBuf,
        /// What differs.
        key: String,
        /// In the directory.
        stored: String,
        /// In the configuration.
        configured: String,
    },
    /// The cluster to be joined has other settings.
    #[error(
        "the cluster has {key} = `{cluster}` but the configuration says `{configured}`: a node that joins must have the \
         settings of the cluster"
    )]
    OtherCluster {
        /// What differs.
        key: String,
        /// In the cluster.
        cluster: String,
        /// In the configuration.
        configured: String,
    },
    /// The id was used before.
    #[error("node {node} was removed from this cluster and ids never return: give the node an id that was never used")]
    IdRemoved {
        /// The id.
        node: u64,
    },
    /// The file is damaged.
    #[error("{path} is damaged: {problem}. Restore it from another copy of this node's data, or replace the replica")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Another process uses the directory.
    #[error("{path} is in use by another process: stop it, or give this node a directory of its own")]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refuses.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl IdentityError {
    /// The process exit code.
    #[must_use]
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::NotInitialised { .. } | Self::AlreadyInitialised { .. } | Self::NotEmpty { .. } => exit::USAGE,
            Self::Mismatch { .. } | Self::OtherCluster { .. } | Self::IdRemoved { .. } => exit::IDENTITY_MISMATCH,
            Self::Damaged { .. } => exit::DATA_CORRUPT,
            Self::Locked { .. } => exit::LOCKED,
            Self::Io { .. } => exit::CANNOT_START,
        }
    }

    /// Whether the same start may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Locked { .. } | Self::Io { .. })
    }

    /// The node cannot start.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        true
    }
}

/// A directory that is this node's, locked until this is dropped.
#[derive(Debug)]
pub struct Identity {
    created: bool,
    stored: Stored,
    _lock: File,
}

impl Identity {
    /// Opens the data directory, or creates the node in it when the configuration says `init`.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed unless it is `Io`.
    pub fn open(config: &ValidNodeConfig) -> Result<Self, IdentityError> {
        let expected = Stored::of(config);
        if config.init { Self::create(config, expected, None) } else { Self::reopen(config, &expected) }
    }

    /// Creates the data directory of a node that joins a cluster: `shared` and `topology` are what a member says. When it
    /// was created before, it is opened.
    ///
    /// # Errors
    /// [`IdentityError`]; nothing was changed unless it is `Io`.
    pub fn join(
        config: &ValidNodeConfig,
        shared: &[(String, String)],
        topology: &Topology,
    ) -> Result<Self, IdentityError> {
        let own = Stored::of(config);
        if read(&config.data_dir)?.is_some() {
            return Self::reopen(config, &own);
        }
        if topology.removed().binary_search(&config.id).is_ok() {
            return Err(IdentityError::IdRemoved { node: config.id });
        }
        let cluster: BTreeMap<String, String> = shared.iter().cloned().collect();
        let joined = Stored::with(config.id, cluster, true, 0);
        if let Some((key, cluster, configured)) = difference(&joined, &own) {
            return Err(IdentityError::OtherCluster { key, cluster, configured });
        }
        Self::create(config, joined, Some(topology))
    }

    fn reopen(config: &ValidNodeConfig, expected: &Stored) -> Result<Self, IdentityError> {
        let data_directory = config.data_dir.as_path();
        let stored = check(data_directory, expected)?;
        if let Some(wal_directory) = config.wal_dir.as_deref() {
            let log = check(wal_directory, expected)?;
            if log.instance != stored.instance {
                return Err(IdentityError::Mismatch {
                    path: wal_directory.to_owned(),
                    key: String::from("instance"),
                    stored: log.instance.to_string(),
                    configured: format!("{} in {}", stored.instance, data_directory.display()),
                });
            }
        }
        let lock = lock(data_directory)?;
        Ok(Self { created: false, stored, _lock: lock })
    }

    fn create(config: &ValidNodeConfig, stored: Stored, topology: Option<&Topology>) -> Result<Self, IdentityError> {
        let data_directory = config.data_dir.as_path();
        check_empty(data_directory, None)?;
        if let Some(wal_directory) = config.wal_dir.as_deref() {
            check_empty(wal_directory, Some(&stored))?;
        }
        create_directory(data_directory)?;
        let lock = lock(data_directory)?;
        let stored = stored.instantiated();
        // The data directory last: with its file there, the node exists.
        let wal_directory = config.wal_directory();
        create_directory(&wal_directory)?;
        if config.wal_dir.is_some() {
            write(&wal_directory, &stored)?;
        }
        if let Some(topology) = topology {
            topology.write_file(data_directory).map_err(io_error("write the topology in", data_directory))?;
        }
        write(data_directory, &stored)?;
        Ok(Self { created: true, stored, _lock: lock })
    }

    /// Whether this start created the node.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// Whether the node joined a cluster that was there.
    #[must_use]
    pub fn joined(&self) -> bool {
        self.stored.joined
    }

    /// Tells this data directory from any other that was made for the same id; never 0.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.stored.instance
    }

    /// The settings all nodes of the cluster share, and the nodes it was made of.
    #[must_use]
    pub fn shared(&self) -> Vec<(String, String)> {
        self.stored.shared.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// Digest of [`Identity::shared`]: compared in the handshake of peers.
    #[must_use]
    pub fn cluster_digest(&self) -> u64 {
        digest_of(self.stored.shared.iter().map(|(key, value)| (key.as_str(), value.as_str())))
    }
}

/// A number from the operating system's randomness: it decides nothing, it only differs.
fn random_instance() -> u64 {
    RandomState::new().build_hasher().finish().max(1)
}

/// The first setting that differs: its key, what the first says, what the second says. Which nodes a cluster was made of
/// is not the matter of a node that joined.
fn difference(stored: &Stored, expected: &Stored) -> Option<(String, String, String)> {
    // The cluster first: of another cluster, everything else differs too.
    let keys = ["cluster_id"].into_iter().chain(stored.shared.keys().chain(expected.shared.keys()).map(String::as_str));
    for key in keys.filter(|key| *key != "nodes" || !stored.joined) {
        let (here, configured) = (stored.shared.get(key), expected.shared.get(key));
        if here != configured {
            let text = |value: Option<&String>| value.cloned().unwrap_or_else(|| String::from("(nothing)"));
            return Some((key.to_owned(), text(here), text(configured)));
        }
    }
    None
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path, source }
}

/// What the directory says it is; `None` when there is no directory or no file.
fn read(directory: &Path) -> Result<Option<Stored>, IdentityError> {
    let path = directory.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            return Err(IdentityError::Damaged { path, problem: String::from("it is not text") });
        }
        Err(error) => return Err(io_error("read", &path)(error)),
    };
    let damaged = |problem: String| IdentityError::Damaged { path: path.clone(), problem };
    let stored: Stored = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
    if stored.digest != stored.own_digest() {
        return Err(damaged(format!("its digest is {}, its values make {}", stored.digest, stored.own_digest())));
    }
    Ok(Some(stored))
}

fn check(directory: &Path, expected: &Stored) -> Result<Stored, IdentityError> {
    let stored = read(directory)?.ok_or_else(|| IdentityError::NotInitialised { path: directory.to_owned() })?;
    compare(directory, &stored, expected)?;
    Ok(stored)
}

fn compare(directory: &Path, stored: &Stored, expected: &Stored) -> Result<(), IdentityError> {
    let mismatch = |key: &str, stored: String, configured: String| {
        Err(IdentityError::Mismatch { path: directory.to_owned(), key: key.to_owned(), stored, configured })
    };
    if stored.format != expected.format {
        return mismatch("format", stored.format.to_string(), expected.format.to_string());
    }
    if let Some((key, here, configured)) = difference(stored, expected) {
        return mismatch(&key, here, configured);
    }
    if stored.node != expected.node {
        return mismatch("id", stored.node.to_string(), expected.node.to_string());
    }
    Ok(())
}

/// Checks that a node can be created there. A log directory with this very identity and nothing else is what a creation
/// that was interrupted leaves.
fn check_empty(directory: &Path, interrupted: Option<&Stored>) -> Result<(), IdentityError> {
    if let Some(stored) = read(directory)?
        && !interrupted.is_some_and(|interrupted| stored.is_same_creation(interrupted))
    {
        return Err(IdentityError::AlreadyInitialised { path: directory.to_owned(), node: stored.node });
    }
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(io_error("read the directory", directory)(error)),
    };
    for entry in entries {
        let entry = entry.map_err(io_error("read the directory", directory))?;
        let name = entry.file_name();
        let own =
            [FILE, TEMPORARY_FILE, LOCK, file::NAME, file::TEMPORARY_NAME, "lost+found"].iter().any(|own| name == *own);
        // The log's directory is made before the identity; only an empty one is ours.
        let empty_directory =
            name == "wal" && std::fs::read_dir(entry.path()).is_ok_and(|mut list| list.next().is_none());
        if !own && !empty_directory {
            let found = name.to_string_lossy().into_owned();
            return Err(IdentityError::NotEmpty { path: directory.to_owned(), found });
        }
    }
    Ok(())
}

fn create_directory(directory: &Path) -> Result<(), IdentityError> {
    std::fs::create_dir_all(directory).map_err(io_error("create the directory", directory))?;
    match directory.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync_directory(parent),
        _ => Ok(()),
    }
}

fn sync_directory(directory: &Path) -> Result<(), IdentityError> {
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(io_error("sync the directory", directory))
}

fn lock(directory: &Path) -> Result<File, IdentityError> {
    let path = directory.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io_error("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(IdentityError::Locked { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(io_error("lock", &path)(error)),
    }
}

fn write(directory: &Path, stored: &Stored) -> Result<(), IdentityError> {
    let (path, temporary) = (directory.join(FILE), directory.join(TEMPORARY_FILE));
    let text = serde_json::to_string_pretty(stored).expect("plain maps and numbers");
    File::create(&temporary)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .map_err(io_error("write", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(io_error("rename to", &path))?;
    sync_directory(directory)
}

#[cfg(test)]
mod tests;
