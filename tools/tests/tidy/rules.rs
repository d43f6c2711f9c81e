//! The rules of the repository, each a function from its files to what breaks it.
//!
//! Off the data path.
//! Invariant: a rule sees only blanked code, so that prose and string literals cannot break it.
//! What it does not do: name exceptions. They stand in `main.rs`.

use crate::scan::{self, Place};

/// One file, read and blanked.
pub(crate) struct SourceFile {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    /// As it is on disk.
    pub(crate) text: String,
    /// Without comments and literals; empty unless it is Rust.
    pub(crate) code: String,
}

impl SourceFile {
    /// A file with these contents.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let code = if path.ends_with(".rs") { scan::code(text) } else { String::new() };
        Self { path: path.to_owned(), text: text.to_owned(), code }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    fn is_named(&self, name: &str) -> bool {
        self.path.rsplit('/').next() == Some(name)
    }

    fn is_under(&self, folders: &[&str]) -> bool {
        folders.iter().any(|folder| self.path.starts_with(folder))
    }

    fn says(&self, place: &Place, what: &str) -> String {
        format!("{}:{}: {what}", self.path, place.line)
    }
}

/// Which crate stands on which: package, its folder, what it may depend on, what its tests and benches may besides.
const CRATES: [(&str, &str, &[&str], &[&str]); 8] = [
    ("ringraft-raft", "engine/raft/", &[], &[]),
    ("ringraft-wal", "wal/", &["raft"], &[]),
    ("ringraft-net", "net/", &["raft"], &[]),
    ("ringraft-sim", "engine/sim/", &["engine", "net", "raft", "wal"], &[]),
    ("ringraft-gateway", "engine/gateway/", &["net"], &[]),
    ("ringraft-engine", "engine/", &["net", "raft", "wal"], &[]),
    ("ringraft-bench", "bench/", &["net"], &["engine", "raft", "wal"]),
    ("ringraft-tools", "tools/", &["bench", "engine", "gateway", "net", "raft", "sim", "wal"], &[]),
];

const PARTS: [&str; 8] = ["raft", "wal", "net", "engine", "sim", "gateway", "bench", "tools"];

fn crate_of(
    path: &str,
) -> Option<&'static (&'static str, &'static str, &'static [&'static str], &'static [&'static str])> {
    let longest =
        CRATES.iter().filter(|(_, folder, ..)| path.starts_with(folder)).max_by_key(|(_, folder, ..)| folder.len());
    longest.filter(|_| !path.starts_with("bench/rivals/"))
}

/// Crates import in one direction only.
pub(crate) fn import_directions(files: &[SourceFile]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        let Some((package, _, allowed, for_tests)) = crate_of(&file.path) else { continue };
        let own = package.trim_start_matches("ringraft-");
        let may = |part: &str| part == own || allowed.contains(&part) || for_tests.contains(&part);
        for part in PARTS.iter().filter(|part| !may(part)) {
            let name = format!("ringraft_{part}");
            let places = scan::word(&file.code, &name);
            broken.extend(places.iter().map(|place| file.says(place, &format!("{package} must not name {name}"))));
        }
        if file.is_named("Cargo.toml") {
            broken.extend(manifest_directions(file, package, allowed, for_tests));
        }
    }
    broken
}

fn manifest_directions(file: &SourceFile, package: &str, allowed: &[&str], for_tests: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for (section, dependency) in dependencies(&file.text) {
        let Some(part) = dependency.strip_prefix("ringraft-") else { continue };
        let only_tests = section.starts_with("dev-") && for_tests.contains(&part);
        let fuzzed = file.path.contains("/fuzz/") && package.ends_with(part);
        if !fuzzed && !allowed.contains(&part) && !only_tests {
            broken.push(format!("{}: {package} must not have {dependency} in [{section}]", file.path));
        }
    }
    broken
}

/// (section, name) of every dependency in a manifest, `[target...]` tables and `[dependencies.x]` included.
fn dependencies(manifest: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut section = String::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            if let Some((before, name)) = section.split_once("dependencies.") {
                found.push((format!("{before}dependencies"), name.trim_matches('"').to_owned()));
            }
        } else if section.ends_with("dependencies") && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default().trim_matches('"');
            if !name.is_empty() {
                found.push((section.clone(), name.to_owned()));
            }
        }
    }
    found
}

/// `ringraft-raft` has no dependencies and says so to the compiler.
pub(crate) fn raft_stands_alone(files: &[SourceFile]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        if file.path == "engine/raft/Cargo.toml" {
            let normal = dependencies(&file.text).into_iter().filter(|(section, _)| !section.starts_with("dev-"));
            broken.extend(normal.map(|(section, name)| format!("{}: {name} in [{section}]", file.path)));
        }
        if file.path == "engine/raft/src/lib.rs" {
            let attributes = ["#![no_std]", "#![forbid(unsafe_code)]"];
            let missing =
                attributes.iter().filter(|attribute| !file.code.lines().any(|line| line.trim() == **attribute));
            broken.extend(missing.map(|attribute| format!("{}: {attribute} is missing", file.path)));
        }
    }
    broken
}

/// glommio is named only where hosts live.
pub(crate) fn glommio_only_in_hosts(files: &[SourceFile]) -> Vec<String> {
    let folders = [
        "engine/src/host/",
        "wal/tests/",
        "wal/benches/",
        "net/tests/",
        "net/benches/",
        "engine/tests/",
        "engine/benches/",
        "bench/benches/",
    ];
    let allowed =
        |file: &SourceFile| file.is_named("glommio.rs") || file.is_named("main.rs") || file.is_under(&folders);
    crate_only_where(files, "glommio", allowed)
}

/// tokio is named only in adapters, in their tests and in the binaries' crates.
pub(crate) fn tokio_only_in_adapters(files: &[SourceFile]) -> Vec<String> {
    let folders = ["engine/gateway/", "bench/", "tools/", "net/tests/"];
    crate_only_where(files, "tokio", |file| file.is_named("tokio.rs") || file.is_under(&folders))
}

/// rkyv is named only by the wire formats (their tests, benches and fuzz targets included).
pub(crate) fn rkyv_only_on_the_wire(files: &[SourceFile]) -> Vec<String> {
    let folders = ["net/src/wire/", "net/tests/", "net/benches/", "net/fuzz/"];
    crate_only_where(files, "rkyv", |file| file.is_under(&folders))
}

fn crate_only_where(files: &[SourceFile], name: &str, allowed: impl Fn(&SourceFile) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| !allowed(file)) {
        let places = scan::word(&file.code, name);
        let foreign = places.iter().filter(|place| !place.is_own_module());
        broken.extend(foreign.map(|place| file.says(place, &format!("{name} must not be named here"))));
    }
    broken
}

/// Archived bytes are entered through `door` alone, which others call as `archive::...`.
pub(crate) fn one_door_to_archives(files: &[SourceFile], door: &str) -> Vec<String> {
    let ways_in = [
        "access",
        "access_mut",
        "access_unchecked",
        "access_unchecked_mut",
        "access_pos",
        "from_bytes",
        "from_bytes_unchecked",
    ];
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.path != door && !scan::word(&file.code, "rkyv").is_empty()) {
        for way in ways_in {
            let places = scan::word(&file.code, way);
            let around = places.iter().filter(|place| !place.before.ends_with("archive::"));
            broken
                .extend(around.map(|place| file.says(place, &format!("archives are entered in {door} only ({way})"))));
        }
    }
    broken
}

/// What decides has no clock, no lock, no thread, no map of random order.
pub(crate) fn deciders_are_pure(files: &[SourceFile]) -> Vec<String> {
    let deciders = [
        "engine/raft/src/",
        "engine/src/group/",
        "engine/src/metrics/",
        "engine/src/shard/",
        "engine/src/state_machine/",
        "engine/src/topology/",
        "wal/src/",
        "net/src/",
    ];
    let doers = ["glommio.rs", "tokio.rs"];
    let impure = ["Instant", "SystemTime", "RandomState", "Mutex", "RwLock", "Condvar", "mpsc"];
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.is_under(&deciders) && !doers.iter().any(|name| file.is_named(name))) {
        for name in impure {
            let places = scan::word(&file.code, name);
            broken.extend(places.iter().map(|place| file.says(place, &format!("what decides must not use {name}"))));
        }
        let maps = file.code.lines().enumerate().filter(|(_, line)| {
            let named = !scan::word(line, "HashMap").is_empty() || !scan::word(line, "HashSet").is_empty();
            named && line.contains("std::collections")
        });
        broken.extend(
            maps.map(|(line, _)| format!("{}:{}: the maps of std iterate in random order", file.path, line + 1)),
        );
    }
    broken
}

/// `unsafe` stands only in files of the list, and each of the list needs it.
pub(crate) fn unsafe_only_in_named_files(files: &[SourceFile], named: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        let places = scan::word(&file.code, "unsafe");
        let is_named = named.contains(&file.path.as_str());
        if is_named && places.is_empty() {
            broken.push(format!("{}: has no unsafe code any more, take it off the list", file.path));
        } else if !is_named {
            broken.extend(places.iter().map(|place| file.says(place, "unsafe code outside of the named files")));
        }
    }
    broken.extend(missing_files(files, named));
    broken
}

/// Every Rust file begins by saying what it is.
pub(crate) fn every_file_has_its_head(files: &[SourceFile]) -> Vec<String> {
    let headless = files.iter().filter(|file| file.is_rust() && !file.text.starts_with("//! "));
    headless.map(|file| format!("{}:1: must begin with `//! ` and what the file is", file.path)).collect()
}

/// No macro that stands for work undone or left behind.
pub(crate) fn nothing_left_undone(files: &[SourceFile]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files {
        for name in ["todo", "unimplemented", "dbg"] {
            let places = scan::word(&file.code, name);
            let calls = places.iter().filter(|place| place.is_macro());
            broken.extend(calls.map(|place| file.says(place, &format!("{name}! must not stay"))));
        }
    }
    broken
}

/// Longest file and longest function, in lines.
pub(crate) const FILE_LINES_MAX: usize = 600;
/// See [`FILE_LINES_MAX`].
pub(crate) const FUNCTION_LINES_MAX: usize = 70;
/// An exception must not allow more lines than this beyond what is there: it shrinks with the code.
const SLACK_LINES: usize = 20;

/// Files are short. Exceptions are (path, lines).
pub(crate) fn files_are_short(files: &[SourceFile], exceptions: &[(&str, usize)]) -> Vec<String> {
    let mut broken = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        let allowed = exceptions.iter().find(|(path, _)| *path == file.path).map(|(_, lines)| *lines);
        broken.extend(ratchet(&file.path, file.text.lines().count(), FILE_LINES_MAX, allowed));
    }
    let paths: Vec<&str> = exceptions.iter().map(|(path, _)| *path).collect();
    broken.extend(missing_files(files, &paths));
    broken
}

/// Functions are short. Exceptions are (path, function, lines).
pub(crate) fn functions_are_short(files: &[SourceFile], exceptions: &[(&str, &str, usize)]) -> Vec<String> {
    let mut broken = Vec::new();
    let mut met = Vec::new();
    for file in files.iter().filter(|file| file.is_rust()) {
        for function in scan::functions(&file.code) {
            let exception = exceptions.iter().find(|(path, name, _)| *path == file.path && *name == function.name);
            met.extend(exception);
            let what = format!("{}:{}: fn {}", file.path, function.line, function.name);
            broken.extend(ratchet(&what, function.lines, FUNCTION_LINES_MAX, exception.map(|(_, _, lines)| *lines)));
        }
    }
    let gone = exceptions.iter().filter(|exception| !met.contains(exception));
    broken.extend(gone.map(|(path, name, _)| format!("{path}: fn {name} is an exception and does not exist")));
    broken
}

fn ratchet(what: &str, lines: usize, max: usize, allowed: Option<usize>) -> Option<String> {
    match allowed {
        None if lines > max => Some(format!("{what}: {lines} lines, at most {max}")),
        Some(allowed) if lines > allowed => Some(format!("{what}: {lines} lines, its exception allows {allowed}")),
        Some(_) if lines <= max => Some(format!("{what}: {lines} lines, needs no exception any more")),
        Some(allowed) if lines + SLACK_LINES < allowed => {
            Some(format!("{what}: {lines} lines, lower its exception of {allowed}"))
        }
        _ => None,
    }
}

fn missing_files(files: &[SourceFile], paths: &[&str]) -> Vec<String> {
    let missing = paths.iter().filter(|path| !files.iter().any(|file| file.path == **path));
    missing.map(|path| format!("{path}: is in a list of exceptions and does not exist")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken_by(rule: impl Fn(&[SourceFile]) -> Vec<String>, path: &str, text: &str) -> usize {
        rule(&[SourceFile::new(path, text)]).len()
    }

    #[test]
    fn imports_against_the_direction_are_found() {
        let cases = [
            ("wal/src/lib.rs", "use ringraft_net::Frame;", 1),
            ("wal/src/lib.rs", "// use ringraft_net::Frame;", 0),
            ("engine/src/lib.rs", "use ringraft_net::Frame;", 0),
            ("engine/src/lib.rs", "use ringraft_bench::run;", 1),
            ("engine/gateway/src/lib.rs", "use ringraft_engine::Shard;", 1),
            ("engine/raft/src/lib.rs", "ringraft_wal::x()", 1),
            ("bench/rivals/src/main.rs", "use ringraft_engine::Shard;", 0),
            ("wal/Cargo.toml", "[dependencies]\nringraft-net.workspace = true", 1),
            ("wal/Cargo.toml", "[dev-dependencies.ringraft-net]\nworkspace = true", 1),
            ("bench/Cargo.toml", "[dev-dependencies]\nringraft-engine.workspace = true", 0),
            ("bench/Cargo.toml", "[dependencies]\nringraft-engine = { workspace = true }", 1),
            ("tools/Cargo.toml", "[dependencies]\nringraft-engine.workspace = true", 0),
        ];
        for (path, text, expected) in cases {
            assert_eq!(broken_by(import_directions, path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn a_raft_core_that_does_not_stand_alone_is_found() {
        assert_eq!(broken_by(raft_stands_alone, "engine/raft/src/lib.rs", "//! x\n#![no_std]\n"), 1);
        assert_eq!(broken_by(raft_stands_alone, "engine/raft/src/lib.rs", "#![no_std]\n#![forbid(unsafe_code)]\n"), 0);
        assert_eq!(broken_by(raft_stands_alone, "engine/raft/Cargo.toml", "[dependencies]\nlibc = \"0.2\"\n"), 1);
        assert_eq!(broken_by(raft_stands_alone, "engine/raft/Cargo.toml", "[dev-dependencies]\nproptest = \"1\"\n"), 0);
    }

    #[test]
    fn crates_named_in_the_wrong_place_are_found() {
        assert_eq!(broken_by(glommio_only_in_hosts, "wal/src/lib.rs", "pub mod glommio;"), 0);
        assert_eq!(broken_by(glommio_only_in_hosts, "wal/src/disk.rs", "use glommio::io::DmaFile;"), 1);
        assert_eq!(broken_by(glommio_only_in_hosts, "wal/src/glommio.rs", "use glommio::io::DmaFile;"), 0);
        assert_eq!(broken_by(tokio_only_in_adapters, "engine/src/host/mod.rs", "tokio::spawn(x)"), 1);
        assert_eq!(broken_by(tokio_only_in_adapters, "net/src/client/tokio.rs", "tokio::spawn(x)"), 0);
        assert_eq!(broken_by(rkyv_only_on_the_wire, "net/src/client.rs", "#[derive(rkyv::Archive)]"), 1);
        assert_eq!(broken_by(rkyv_only_on_the_wire, "net/src/wire/mod.rs", "use rkyv::Archive;"), 0);
    }

    #[test]
    fn a_second_door_to_archives_is_found() {
        let rule = |files: &[SourceFile]| one_door_to_archives(files, "net/src/wire/archive.rs");
        assert_eq!(broken_by(rule, "net/src/wire/archive.rs", "rkyv::access::<T>(bytes)"), 0);
        assert_eq!(broken_by(rule, "net/src/wire/request.rs", "use rkyv::Archive; archive::access(bytes)"), 0);
        assert_eq!(broken_by(rule, "net/src/wire/request.rs", "use rkyv::Archive; rkyv::access(bytes)"), 1);
        assert_eq!(broken_by(rule, "net/src/wire/request.rs", "use rkyv::{access, Archive};"), 1);
        assert_eq!(broken_by(rule, "net/src/client.rs", "fn access() {}"), 0);
    }

    #[test]
    fn an_impure_decider_is_found() {
        assert_eq!(broken_by(deciders_are_pure, "engine/src/group/mod.rs", "use std::time::Instant;"), 1);
        assert_eq!(broken_by(deciders_are_pure, "engine/src/host/mod.rs", "use std::time::Instant;"), 0);
        assert_eq!(broken_by(deciders_are_pure, "wal/src/index.rs", "use std::collections::HashMap;"), 1);
        assert_eq!(broken_by(deciders_are_pure, "wal/src/index.rs", "use std::collections::{BTreeMap, HashMap};"), 1);
        assert_eq!(broken_by(deciders_are_pure, "wal/src/index.rs", "use hashbrown::HashMap;"), 0);
        assert_eq!(broken_by(deciders_are_pure, "wal/src/glommio.rs", "Instant::now()"), 0);
    }

    #[test]
    fn unnamed_unsafe_code_and_stale_names_are_found() {
        let rule = |files: &[SourceFile]| unsafe_only_in_named_files(files, &["wal/src/a.rs"]);
        assert_eq!(broken_by(rule, "wal/src/a.rs", "unsafe { x() }"), 0);
        assert_eq!(broken_by(rule, "wal/src/a.rs", "// unsafe"), 1);
        assert_eq!(broken_by(rule, "wal/src/b.rs", "unsafe impl Send for X {}"), 2);
    }

    #[test]
    fn heads_and_leftovers_are_found() {
        assert_eq!(broken_by(every_file_has_its_head, "wal/src/a.rs", "use x;\n//! Late."), 1);
        assert_eq!(broken_by(every_file_has_its_head, "wal/src/a.rs", "//! Says it."), 0);
        assert_eq!(broken_by(nothing_left_undone, "wal/src/a.rs", "fn f() { todo!(\"later\") }"), 1);
        assert_eq!(broken_by(nothing_left_undone, "wal/src/a.rs", "let todo = \"todo!()\"; // dbg!(x)"), 0);
    }

    #[test]
    fn lengths_ratchet_down() {
        let long = format!("fn long() {{\n{}}}\n", "    work();\n".repeat(80));
        let rule = |lines| move |files: &[SourceFile]| functions_are_short(files, &[("wal/src/a.rs", "long", lines)]);
        assert_eq!(broken_by(|files| functions_are_short(files, &[]), "wal/src/a.rs", &long), 1);
        assert_eq!(broken_by(rule(82), "wal/src/a.rs", &long), 0);
        assert_eq!(broken_by(rule(81), "wal/src/a.rs", &long), 1);
        assert_eq!(broken_by(rule(200), "wal/src/a.rs", &long), 1);
        assert_eq!(broken_by(rule(82), "wal/src/a.rs", "fn long() {}"), 1);
        assert_eq!(broken_by(rule(82), "wal/src/a.rs", "fn other() {}"), 1);
        let file = "line\n".repeat(700);
        assert_eq!(broken_by(|files| files_are_short(files, &[]), "wal/src/a.rs", &file), 1);
        assert_eq!(broken_by(|files| files_are_short(files, &[("wal/src/a.rs", 700)]), "wal/src/a.rs", &file), 0);
        assert_eq!(broken_by(|files| files_are_short(files, &[("wal/src/gone.rs", 700)]), "wal/src/a.rs", "short"), 1);
    }
}
