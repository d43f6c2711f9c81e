//! What a damaged replica does when it starts, and whether that is allowed.
//!
//! Off the data path.
//! Allowed: it starts with all its entries; or it stops with an error that names a file (and the byte, where a block is
//! damaged); or it starts with fewer entries where row 27 of the WAL's `FORMAT.md` says that one disk cannot tell: no intact
//! header calls what is missing durable. Whether that last case loses anything is for the cluster to show.

use ringraft_wal::recovery::Note;
use ringraft_wal::{Recovered, RecoveryError};

use super::image::{Damage, Image, Kind};
use super::scenario::{Replica, each_entry, hard_states_of};

/// What a replica starts with, as far as it matters to the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Start {
    /// Everything it had.
    Full {
        /// Writing goes on in a new segment.
        torn: bool,
        last_sequence: u64,
    },
    /// The log up to this batch, which had fewer entries or other votes.
    Cut { torn: bool, last_sequence: u64 },
    /// It does not start.
    Stopped,
}

/// Starts one replica over its damaged image.
///
/// # Errors
/// What it did is not allowed.
pub(super) fn start(replica: &Replica, damage: &[Damage]) -> Result<(Start, Option<(Image, Recovered)>), String> {
    let image = replica.image.damaged(damage, &replica.before, &replica.config);
    match image.open(&replica.config) {
        Err(error) => check_error(&error, damage).map(|()| (Start::Stopped, None)),
        Ok(recovered) => {
            let start = check_content(replica, &recovered, &image, damage)?;
            Ok((start, Some((image, recovered))))
        }
    }
}

/// The error names a file that was damaged, and where a block is, the byte.
fn check_error(error: &RecoveryError, damage: &[Damage]) -> Result<(), String> {
    let text = error.to_string();
    let names = |damage: &Damage| {
        if Kind::OF_META.contains(&damage.kind) {
            text.contains("wal.meta")
        } else {
            text.contains(&damage.file.to_string())
        }
    };
    if !damage.iter().any(names) {
        return Err(format!("the error does not name what is damaged: {text}"));
    }
    let only_blocks = damage.iter().all(|damage| Kind::OF_BLOCKS.contains(&damage.kind));
    let whole_file = matches!(error, RecoveryError::DuplicateSegment { .. } | RecoveryError::ForeignSegment { .. });
    if only_blocks && !whole_file && !text.contains("at byte") {
        return Err(format!("the error does not name the byte: {text}"));
    }
    Ok(())
}

fn check_content(replica: &Replica, recovered: &Recovered, image: &Image, damage: &[Damage]) -> Result<Start, String> {
    let (mut count, mut different) = (0, None);
    each_entry(recovered, image, &mut |view| {
        count += 1;
        let written = replica.entries.get(&(view.group, view.index));
        if written.is_none_or(|(term, payload)| *term != view.term || payload != view.payload) {
            different.get_or_insert((view.group, view.index));
        }
    })?;
    if let Some((group, index)) = different {
        return Err(format!("entry {index} of group {group} is not what was written"));
    }
    let last_sequence = recovered.last_sequence();
    let torn = recovered.notes.iter().any(|note| matches!(note, Note::TornTail { .. }));
    if count == replica.entries.len() && hard_states_of(recovered) == replica.hard_states {
        return Ok(Start::Full { torn, last_sequence });
    }
    let known = replica.durable_beside(damage);
    if known > last_sequence {
        return Err(format!(
            "it starts with {} of {} entries, or another vote, up to batch {last_sequence}, although an intact header calls batch {known} durable",
            count,
            replica.entries.len()
        ));
    }
    Ok(Start::Cut { torn, last_sequence })
}
