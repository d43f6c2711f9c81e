//! The files of a disk: names, open handles and unsynced writes over the folder that holds what is durable.
//!
//! Off the data path.
//! Invariant: an inode number is never given to another file. Handles of a file that was removed stay usable.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::names::{Names, Undone};
use super::unsynced::{Unsynced, Write};
use super::{Loss, Lost};

/// The inode of the folder itself.
pub(super) const ROOT: u64 = 1;

#[derive(Debug)]
struct State {
    names: Names,
    /// Below the folder, of each inode that has a name.
    paths: BTreeMap<u64, PathBuf>,
    inodes: BTreeMap<PathBuf, u64>,
    inode_last: u64,
    handles: BTreeMap<u64, (u64, Arc<File>)>,
    handle_last: u64,
    unsynced: BTreeMap<u64, Unsynced>,
    /// Of the last loss of power: which sectors it spares; none: no sector.
    chance: Option<SmallRng>,
    /// What it cost.
    lost: Lost,
}

impl State {
    fn forget(&mut self, name: &Path) {
        if let Some(inode) = self.inodes.remove(name) {
            self.paths.remove(&inode);
        }
    }

    fn renamed(&mut self, from: &Path, to: &Path) {
        self.forget(to);
        if let Some(inode) = self.inodes.remove(from) {
            self.inodes.insert(to.to_owned(), inode);
            self.paths.insert(inode, to.to_owned());
        }
    }
}

/// The files of one disk.
#[derive(Debug)]
pub(super) struct Files {
    folder: PathBuf,
    state: Mutex<State>,
}

impl Files {
    /// The files of `folder`; what is removed is kept in `aside` for as long as a loss of power could bring it back.
    pub(super) fn over(folder: &Path, aside: &Path) -> io::Result<Self> {
        let state = State {
            names: Names::keeping_in(aside)?,
            paths: BTreeMap::from([(ROOT, PathBuf::new())]),
            inodes: BTreeMap::from([(PathBuf::new(), ROOT)]),
            inode_last: ROOT,
            handles: BTreeMap::new(),
            handle_last: 0,
            unsynced: BTreeMap::new(),
            chance: None,
            lost: Lost::default(),
        };
        Ok(Self { folder: folder.to_owned(), state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where an inode is in the folder.
    pub(super) fn path(&self, inode: u64) -> io::Result<PathBuf> {
        let state = self.lock();
        let path = state.paths.get(&inode).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.folder.join(path))
    }

    /// Where a name in a folder is.
    pub(super) fn child(&self, parent: u64, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// The inode of a path that exists, and what is known about it.
    pub(super) fn look_up(&self, path: &Path) -> io::Result<(u64, Metadata)> {
        let metadata = fs::symlink_metadata(path)?;
        let name = self.below(path)?.to_owned();
        let mut state = self.lock();
        if let Some(inode) = state.inodes.get(&name) {
            return Ok((*inode, metadata));
        }
        state.inode_last += 1;
        let inode = state.inode_last;
        state.paths.insert(inode, name.clone());
        state.inodes.insert(name, inode);
        Ok((inode, metadata))
    }

    /// How long a file is for its readers, of which `durable` bytes are in the folder.
    pub(super) fn length(&self, inode: u64, durable: u64) -> u64 {
        self.lock().unsynced.get(&inode).map_or(0, Unsynced::end).max(durable)
    }

    /// Opens a file of the folder; everything else is decided by the kernel.
    pub(super) fn open(&self, inode: u64) -> io::Result<u64> {
        let file = File::options().read(true).write(true).open(self.path(inode)?)?;
        let mut state = self.lock();
        state.handle_last += 1;
        let handle = state.handle_last;
        state.handles.insert(handle, (inode, Arc::new(file)));
        Ok(handle)
    }

    pub(super) fn close(&self, handle: u64) {
        self.lock().handles.remove(&handle);
    }

    /// The file behind a handle.
    pub(super) fn file(&self, handle: u64) -> io::Result<Arc<File>> {
        let state = self.lock();
        let (_, file) = state.handles.get(&handle).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::clone(file))
    }

    pub(super) fn read(&self, inode: u64, handle: u64, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let file = self.file(handle)?;
        let state = self.lock();
        let unsynced = state.unsynced.get(&inode);
        let length = unsynced.map_or(0, Unsynced::end).max(file.metadata()?.len());
        let mut read = vec![0; bytes.min(length.saturating_sub(offset) as usize)];
        let mut done = 0;
        while done < read.len() {
            match file.read_at(&mut read[done..], offset + done as u64)? {
                0 => break,
                count => done += count,
            }
        }
        if let Some(unsynced) = unsynced {
            unsynced.overlay(offset, &mut read);
        }
        Ok(read)
    }

    pub(super) fn write(&self, inode: u64, handle: u64, offset: u64, bytes: &[u8], durable: bool) -> io::Result<()> {
        let file = self.file(handle)?;
        let mut state = self.lock();
        let flushed = state.unsynced.entry(inode).or_default().push(offset, bytes, durable);
        apply(&file, &flushed)
    }

    /// A flush that works.
    pub(super) fn flush(&self, inode: u64, handle: u64) -> io::Result<()> {
        let file = self.file(handle)?;
        let mut state = self.lock();
        state.unsynced.remove(&inode).map_or(Ok(()), |mut unsynced| apply(&file, &unsynced.flush()))
    }

    /// A flush that fails: what it should have covered is gone.
    pub(super) fn drop_unsynced(&self, inode: u64) {
        self.lock().unsynced.remove(&inode);
    }

    pub(super) fn truncate(&self, inode: u64, length: u64) -> io::Result<()> {
        let path = self.path(inode)?;
        if let Some(unsynced) = self.lock().unsynced.get_mut(&inode) {
            unsynced.truncate(length);
        }
        File::options().write(true).open(path)?.set_len(length)
    }

    /// Makes a file, if there is none.
    pub(super) fn make_file(&self, path: &Path, mode: u32) -> io::Result<()> {
        match File::options().write(true).create_new(true).mode(mode).open(path) {
            Ok(_) => self.lock().names.made(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Makes a folder.
    pub(super) fn make_folder(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::DirBuilder::new().mode(mode).create(path)?;
        self.lock().names.made(path);
        Ok(())
    }

    /// Removes a file.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.names.remove(path)?;
        state.forget(self.below(path)?);
        Ok(())
    }

    /// Removes a folder.
    pub(super) fn remove_folder(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)?;
        self.lock().forget(self.below(path)?);
        Ok(())
    }

    /// Gives a file (not a folder, which nobody here renames) another name.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock();
        state.names.rename(from, to)?;
        state.renamed(self.below(from)?, self.below(to)?);
        Ok(())
    }

    /// A flush of a folder.
    pub(super) fn flush_names(&self, inode: u64) -> io::Result<()> {
        let folder = self.path(inode)?;
        // Without the separator at the end that joining the empty path of the root gives.
        self.lock().names.flush(&folder.components().collect::<PathBuf>())
    }

    fn below<'a>(&self, path: &'a Path) -> io::Result<&'a Path> {
        path.strip_prefix(&self.folder).map_err(io::Error::other)
    }

    /// Power is lost.
    pub(super) fn lose(&self, loss: Loss) -> Result<()> {
        let mut state = self.lock();
        state.chance = match loss {
            Loss::All => None,
            Loss::SomeSectors(seed) => Some(SmallRng::seed_from_u64(seed)),
        };
        state.lost = Lost::default();
        for (inode, unsynced) in std::mem::take(&mut state.unsynced) {
            self.spare(&mut state, inode, unsynced)?;
        }
        let pending = state.names.pending();
        let kept = state.chance.as_mut().map_or(0, |chance| chance.random_range(0..=pending));
        state.lost.names = (pending - kept) as u64;
        for undone in state.names.lose(kept).context("cannot undo changes of names")? {
            match undone {
                Undone::Gone(path) => state.forget(self.below(&path)?),
                Undone::Renamed(from, to) => state.renamed(self.below(&from)?, self.below(&to)?),
            }
        }
        Ok(())
    }

    /// A write that was on its way when power was lost.
    pub(super) fn tear(&self, inode: u64, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut unsynced = Unsynced::default();
        unsynced.push(offset, bytes, false);
        self.spare(&mut self.lock(), inode, unsynced)
    }

    fn spare(&self, state: &mut State, inode: u64, mut unsynced: Unsynced) -> Result<()> {
        let chance = &mut state.chance;
        let (survivors, lost, kept) = unsynced.lose(|| chance.as_mut().is_some_and(|chance| chance.random()));
        state.lost.sectors += lost;
        state.lost.kept += kept;
        // A file without a name is gone with its last handle.
        let Some(path) = state.paths.get(&inode) else { return Ok(()) };
        let path = self.folder.join(path);
        let file = File::options().write(true).open(&path);
        let written = file.and_then(|file| apply(&file, &survivors));
        written.with_context(|| format!("cannot write {}", path.display()))
    }

    /// What the last loss of power cost.
    pub(super) fn lost(&self) -> Lost {
        self.lock().lost
    }
}

fn apply(file: &File, writes: &[Write]) -> io::Result<()> {
    writes.iter().try_for_each(|write| file.write_all_at(&write.bytes, write.offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_flushed_survives_a_loss_of_power_and_the_rest_does_not() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        let aside = tempfile::tempdir().unwrap();
        let files = Files::over(folder.path(), aside.path()).unwrap();
        let (inode, _) = files.look_up(&folder.path().join("file")).unwrap();
        let handle = files.open(inode).unwrap();
        files.write(inode, handle, 0, b"flushed", false).unwrap();
        files.flush(inode, handle).unwrap();
        files.write(inode, handle, 7, b" and not", false).unwrap();
        assert_eq!(files.read(inode, handle, 0, 100).unwrap(), b"flushed and not");
        assert_eq!(files.length(inode, 7), 15);
        files.lose(Loss::All).unwrap();
        files.tear(inode, 7, b" nor this").unwrap();
        assert_eq!(files.lost(), Lost { sectors: 2, kept: 0, names: 0 });
        assert_eq!(files.read(inode, handle, 0, 100).unwrap(), b"flushed");
    }

    #[test]
    fn a_renamed_file_keeps_its_inode_and_its_unsynced_writes() {
        let folder = tempfile::tempdir().unwrap();
        let (old, new) = (folder.path().join("old"), folder.path().join("new"));
        fs::write(&old, b"").unwrap();
        fs::write(&new, b"replaced").unwrap();
        let aside = tempfile::tempdir().unwrap();
        let files = Files::over(folder.path(), aside.path()).unwrap();
        let (replaced, _) = files.look_up(&new).unwrap();
        let (inode, _) = files.look_up(&old).unwrap();
        let handle = files.open(inode).unwrap();
        files.write(inode, handle, 0, b"x", false).unwrap();
        files.rename(&old, &new).unwrap();
        assert_eq!(files.look_up(&new).unwrap().0, inode);
        assert!(files.path(replaced).is_err());
        files.flush(inode, handle).unwrap();
        assert_eq!(fs::read(&new).unwrap(), b"x");
        files.lose(Loss::All).unwrap();
        assert_eq!(files.lost().names, 1);
        assert_eq!((fs::read(&old).unwrap(), fs::read(&new).unwrap()), (b"x".to_vec(), b"replaced".to_vec()));
        assert_eq!(files.look_up(&old).unwrap().0, inode);
    }
}
