//! Names that were made, changed or removed and not flushed: what a loss of power undoes.
//!
//! Off the data path.
//! Invariants: a change lasts when its folder was flushed after it, no earlier; what a loss undoes is the end of the list
//! of changes, in reverse order. What a change removed or replaced is kept aside until then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug)]
enum Change {
    Made { path: PathBuf },
    Removed { path: PathBuf, aside: PathBuf },
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<PathBuf> },
}

impl Change {
    /// The folder whose flush makes it last.
    fn folder(&self) -> Option<&Path> {
        match self {
            Self::Made { path } | Self::Removed { path, .. } => path.parent(),
            Self::Renamed { to, .. } => to.parent(),
        }
    }

    /// What it keeps.
    fn aside(&self) -> Option<&Path> {
        match self {
            Self::Made { .. } => None,
            Self::Removed { aside, .. } => Some(aside),
            Self::Renamed { replaced, .. } => replaced.as_deref(),
        }
    }
}

/// What a loss of power did to a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Undone {
    /// It is gone.
    Gone(PathBuf),
    /// The file has its old name again.
    Renamed(PathBuf, PathBuf),
}

/// The changes, oldest first.
#[derive(Debug)]
pub(super) struct Names {
    /// Where removed files are kept.
    aside: PathBuf,
    pending: Vec<Change>,
    kept: u64,
}

impl Names {
    pub(super) fn keeping_in(aside: &Path) -> io::Result<Self> {
        fs::create_dir_all(aside)?;
        Ok(Self { aside: aside.to_owned(), pending: Vec::new(), kept: 0 })
    }

    /// A file or folder was made.
    pub(super) fn made(&mut self, path: &Path) {
        self.pending.push(Change::Made { path: path.to_owned() });
    }

    /// Removes a file.
    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let aside = self.keep(path)?;
        self.pending.push(Change::Removed { path: path.to_owned(), aside });
        Ok(())
    }

    /// Renames a file.
    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let replaced = if to.exists() { Some(self.keep(to)?) } else { None };
        fs::rename(from, to)?;
        self.pending.push(Change::Renamed { from: from.to_owned(), to: to.to_owned(), replaced });
        Ok(())
    }

    fn keep(&mut self, path: &Path) -> io::Result<PathBuf> {
        self.kept += 1;
        let aside = self.aside.join(self.kept.to_string());
        fs::rename(path, &aside)?;
        Ok(aside)
    }

    /// A folder was flushed.
    pub(super) fn flush(&mut self, folder: &Path) -> io::Result<()> {
        let flushed = |change: &mut Change| change.folder() == Some(folder);
        let asides = self.pending.extract_if(.., flushed).filter_map(|change| change.aside().map(Path::to_owned));
        asides.collect::<Vec<_>>().iter().try_for_each(fs::remove_file)
    }

    /// Changes that no flush covered.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Power is lost; the oldest `kept` of the pending changes had reached the disk all the same.
    pub(super) fn lose(&mut self, kept: usize) -> io::Result<Vec<Undone>> {
        let mut undone = Vec::new();
        for change in self.pending.drain(..).collect::<Vec<_>>().into_iter().enumerate().rev() {
            match change {
                (number, change) if number < kept => {
                    change.aside().map_or(Ok(()), fs::remove_file)?;
                }
                (_, Change::Made { path }) => {
                    if path.is_dir() {
                        fs::remove_dir(&path)?;
                    } else {
                        fs::remove_file(&path)?;
                    }
                    undone.push(Undone::Gone(path));
                }
                (_, Change::Removed { path, aside }) => fs::rename(aside, path)?,
                (_, Change::Renamed { from, to, replaced }) => {
                    fs::rename(&to, &from)?;
                    undone.push(Undone::Renamed(to.clone(), from));
                    replaced.map_or(Ok(()), |replaced| fs::rename(replaced, to))?;
                }
            }
        }
        Ok(undone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Folder {
        whole: tempfile::TempDir,
        names: Names,
    }

    impl Folder {
        fn new() -> Self {
            let whole = tempfile::tempdir().unwrap();
            fs::create_dir(whole.path().join("disk")).unwrap();
            let names = Names::keeping_in(&whole.path().join("aside")).unwrap();
            Self { whole, names }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.whole.path().join("disk").join(name)
        }

        fn make(&mut self, name: &str) {
            fs::write(self.path(name), name).unwrap();
            self.names.made(&self.path(name));
        }

        fn read(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.path(name)).ok()
        }
    }

    #[test]
    fn what_was_not_flushed_is_undone_in_reverse() {
        let mut folder = Folder::new();
        folder.make("old");
        folder.names.flush(&folder.path("")).unwrap();
        folder.make("new");
        let (new, old) = (folder.path("new"), folder.path("old"));
        folder.names.rename(&new, &old).unwrap();
        folder.names.remove(&old).unwrap();
        assert_eq!((folder.read("old"), folder.names.pending()), (None, 3));
        let undone = folder.names.lose(0).unwrap();
        assert_eq!(undone, [Undone::Renamed(old, new.clone()), Undone::Gone(new)]);
        assert_eq!((folder.read("old").as_deref(), folder.read("new")), (Some("old"), None));
    }

    #[test]
    fn the_oldest_changes_may_have_reached_the_disk() {
        let mut folder = Folder::new();
        folder.make("first");
        folder.make("second");
        assert_eq!(folder.names.lose(1).unwrap(), [Undone::Gone(folder.path("second"))]);
        assert_eq!((folder.read("first").as_deref(), folder.read("second")), (Some("first"), None));
    }

    #[test]
    fn a_flush_is_of_its_folder_alone() {
        let mut folder = Folder::new();
        fs::create_dir(folder.path("below")).unwrap();
        folder.names.made(&folder.path("below"));
        folder.make("below/file");
        folder.names.flush(&folder.path("below")).unwrap();
        assert_eq!(folder.names.pending(), 1, "the folder's own name is not flushed");
        folder.names.flush(&folder.path("")).unwrap();
        assert!(folder.names.lose(0).unwrap().is_empty());
        assert_eq!(folder.read("below/file").as_deref(), Some("below/file"));
    }
}
