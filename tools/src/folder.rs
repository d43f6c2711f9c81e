//! Where temporary clusters live: on a real disk.
//!
//! Off the data path.

use std::path::{Path, PathBuf};

use rustix::fs::statfs;

/// File systems that live in memory, by their magic numbers: tmpfs and ramfs.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The temporary folder, or the current one if that lives in memory: an fdatasync there would cost nothing.
#[must_use]
pub fn real_folder() -> PathBuf {
    let temporary = std::env::temp_dir();
    if is_in_memory(&temporary) { PathBuf::from(".") } else { temporary }
}

fn is_in_memory(folder: &Path) -> bool {
    statfs(folder).is_ok_and(|found| IN_MEMORY.contains(&found.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_is_not_taken_for_memory_and_shm_is() {
        assert!(!is_in_memory(Path::new("/proc")));
        if Path::new("/dev/shm").exists() {
            assert!(is_in_memory(Path::new("/dev/shm")));
        }
    }
}
