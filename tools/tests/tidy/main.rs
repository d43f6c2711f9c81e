//! The tidy test: what the design calls invariants of the source is checked by reading the source.
//!
//! Off the data path.
//! Invariant: an exception that is no longer needed fails, so that the lists below only shrink.
//! What it does not do: judge prose, formatting (rustfmt does) or anything that clippy sees.

mod links;
mod rules;
mod scan;

use std::fs;
use std::path::{Path, PathBuf};

use rules::SourceFile;

/// Files that may hold `unsafe` code; each documents why.
const UNSAFE_FILES: [&str; 1] = ["net/src/glommio.rs"];
/// Files longer than the rule: (path, lines).
const LONG_FILES: [(&str, usize); 0] = [];
/// Functions longer than the rule: (path, function, lines).
const LONG_FUNCTIONS: [(&str, &str, usize); 0] = [];
/// The one file that enters archived bytes.
const ARCHIVE_DOOR: &str = "net/src/wire/archive.rs";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ lies in the root").to_owned()
}

/// Rust files, manifests and documents of the repository, sorted by path.
fn repository() -> Vec<SourceFile> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable folder") {
            let path = entry.expect("readable folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(".rs") || name.ends_with(".md") || name == "Cargo.toml" {
                let text = fs::read_to_string(&path).expect("source is UTF-8");
                let relative = path.strip_prefix(&root).expect("below the root");
                files.push(SourceFile::new(&relative.to_string_lossy(), &text));
            }
        }
    }
    files.sort_by(|left, right| left.path.cmp(&right.path));
    files
}

#[track_caller]
fn check(rule: impl Fn(&[SourceFile]) -> Vec<String>) {
    let broken = rule(&repository());
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn the_walk_sees_the_repository() {
    let files = repository();
    for path in ["Cargo.toml", "README.md", "engine/raft/src/lib.rs", "wal/src/lib.rs", "tools/tests/tidy/main.rs"] {
        assert!(files.iter().any(|file| file.path == path), "{path} is not seen");
    }
}

#[test]
fn import_directions() {
    check(rules::import_directions);
}

#[test]
fn raft_stands_alone() {
    check(rules::raft_stands_alone);
}

#[test]
fn glommio_only_in_hosts() {
    check(rules::glommio_only_in_hosts);
}

#[test]
fn tokio_only_in_adapters() {
    check(rules::tokio_only_in_adapters);
}

#[test]
fn rkyv_only_on_the_wire() {
    check(rules::rkyv_only_on_the_wire);
}

#[test]
fn one_door_to_archives() {
    check(|files| rules::one_door_to_archives(files, ARCHIVE_DOOR));
}

#[test]
fn deciders_are_pure() {
    check(rules::deciders_are_pure);
}

#[test]
fn unsafe_only_in_named_files() {
    check(|files| rules::unsafe_only_in_named_files(files, &UNSAFE_FILES));
}

#[test]
fn every_file_has_its_head() {
    check(rules::every_file_has_its_head);
}

#[test]
fn nothing_left_undone() {
    check(rules::nothing_left_undone);
}

#[test]
fn links_lead_somewhere() {
    check(|files| links::links_lead_somewhere(files, |path| root().join(path).exists()));
}

#[test]
fn files_are_short() {
    check(|files| rules::files_are_short(files, &LONG_FILES));
}

#[test]
fn functions_are_short() {
    check(|files| rules::functions_are_short(files, &LONG_FUNCTIONS));
}
