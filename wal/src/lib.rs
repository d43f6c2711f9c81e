//! The write-ahead log of a shard: segmented files, direct I/O, group commit, shared by many groups.
//!
//! ```text
//!   begin_entry / put / finish_entry     append_record      append_hard_state
//!        (leader, in place)               (follower)          (terms, votes)
//!                \                            |                   /
//!                 +-------------------- open batch ---------------+
//!                                             | submit
//!                                      Disk (write + flush)
//!                                             | complete
//!                                     Durable per group, in order
//! ```
//!
//! The format and the decisions of recovery are in `FORMAT.md`. [`Wal`] decides and never waits; a [`Disk`] does. The
//! parts: [`record`] and [`batch`] are the bytes, [`recovery`] reads them, [`glommio`] and [`mem`] are the disks,
//! [`snapshots`] are the marks and files of state, [`inspect`] shows a folder to people.
//!
//! The host's duties:
//! 1. recover ([`recovery::Recovery`], or [`glommio::open`] which does it), then [`Wal::new`];
//! 2. append, and [`Wal::submit`] at the end of each turn;
//! 3. give every [`DiskCompletion`] to [`Wal::complete`] and pass on what became [`Durable`];
//! 4. call [`Wal::tick`] regularly: it makes segments again after the disk was full;
//! 5. on [`WalError::Poisoned`] end the process at once; retry nothing.
//!
//! What it deliberately does not do: order entries of different groups, know terms' meaning, repair from peers, keep time.

mod append;
pub mod batch;
mod buffers;
pub mod config;
pub mod disk;
mod error;
mod folder;
pub mod glommio;
mod group_commit;
mod index;
pub mod inspect;
mod locations;
pub mod mem;
pub mod meta;
mod open_batch;
mod packed;
mod reader;
mod reclaim;
pub mod record;
pub mod recovery;
mod segments;
pub mod snapshots;
mod wal;

pub use config::{Config, ConfigError, Identity, ValidConfig};
pub use disk::{Disk, DiskCompletion, DiskError, DiskOperation, Done, FileName, FileNumber, Ticket};
pub use error::{ReadError, SnapshotError, WalError};
pub use group_commit::Completed;
pub use open_batch::Durable;
pub use reader::{ReadDone, ReadTicket};
pub use record::{Beginning, HardState, SnapshotMark};
pub use recovery::{Recovered, RecoveredEntry, RecoveredGroup, Recovery, RecoveryError};
pub use snapshots::{SnapshotDone, SnapshotFile, SnapshotName};
pub use wal::{Accepted, BatchSize, EntryBytes, RecordPlace, Stats, Wal};
