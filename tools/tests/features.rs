//! The table of features is true: each row is there once, and what it refers to exists.
//!
//! Off the data path.
//! A reference stands in backticks: `path::name` (a function in a file), a file of the repository, or `ringraft ...`, a
//! command line that the binary must accept (it is asked for its help, so that nothing is started).
//! What it does not do: judge whether a test shows what the row says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ROWS: u32 = 154;
const SOURCE_ENDINGS: [&str; 5] = [".rs", ".md", ".sh", ".toml", ".yml"];

struct Row {
    number: u32,
    state: String,
    shown_by: String,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tools/ lies in the root").to_owned()
}

fn rows() -> Vec<Row> {
    let text = fs::read_to_string(root().join("tools/FEATURES.md")).expect("tools/FEATURES.md");
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let rows = text.lines().filter(|line| line.starts_with("| ")).map(cells).filter_map(|cells| {
        let number = cells[0].parse().ok()?;
        assert_eq!(cells.len(), 4, "row {number} has {} cells", cells.len());
        Some(Row { number, state: cells[2].clone(), shown_by: cells[3].clone() })
    });
    rows.collect()
}

/// What stands in backticks.
fn references(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// What is wrong with a reference; `None` when it is none, or right.
fn broken(reference: &str) -> Option<String> {
    if reference == "ringraft" || reference.starts_with("ringraft ") {
        return broken_command(reference);
    }
    let (path, function) = match reference.split_once("::") {
        Some((path, function)) => (path, Some(function)),
        None => (reference, None),
    };
    let is_file = path.contains('/') && SOURCE_ENDINGS.iter().any(|ending| path.ends_with(ending));
    if function.is_none() && !is_file {
        return None;
    }
    let Ok(text) = fs::read_to_string(root().join(path)) else { return Some(format!("{path} does not exist")) };
    let function = function?;
    let is_there = text.contains(&format!("fn {function}(")) || text.contains(&format!("fn {function}<"));
    (!is_there).then(|| format!("{path} has no fn {function}"))
}

fn broken_command(line: &str) -> Option<String> {
    let words = line.split(' ').skip(1).filter(|word| !word.is_empty());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringraft"));
    command.args(words).arg("--help").stdin(Stdio::null()).current_dir(env!("CARGO_TARGET_TMPDIR"));
    let output = command.output().expect("the binary runs");
    let said = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("{line}: {}", said.lines().next().unwrap_or("fails")))
}

fn counts(reference: &str) -> bool {
    reference.starts_with("ringraft") || reference.contains("::") || reference.contains('/')
}

#[test]
fn every_row_is_there_once() {
    let mut numbers: Vec<u32> = rows().iter().map(|row| row.number).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=ROWS).collect::<Vec<_>>());
}

#[test]
fn every_row_says_what_shows_it() {
    let mut wrong = Vec::new();
    for row in rows() {
        let references = references(&row.shown_by);
        match row.state.as_str() {
            "yes" if !references.iter().any(|reference| counts(reference)) => {
                wrong.push(format!("{}: nothing shows it", row.number));
            }
            "yes" | "differs" | "not yet" if row.shown_by.is_empty() => {
                wrong.push(format!("{}: no reason", row.number));
            }
            "yes" | "differs" => {
                let broken = references.iter().filter_map(|reference| broken(reference));
                wrong.extend(broken.map(|why| format!("{}: {why}", row.number)));
            }
            // What is to come cannot be there.
            "not yet" => {}
            state => wrong.push(format!("{}: {state} is no state", row.number)),
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn what_is_not_there_is_found() {
    assert!(broken("tools/tests/features.rs::what_is_not_there_is_found").is_none());
    assert!(broken("tools/tests/features.rs").is_none() && broken("election_ticks_min").is_none());
    assert!(broken("tools/tests/features.rs::no_such_test").is_some());
    assert!(broken("tools/no_such_file.rs").is_some());
    assert!(broken("ringraft bench suite write_latency").is_none());
    assert!(broken("ringraft no-such-command").is_some() && broken("ringraft bench --no-such-flag").is_some());
    assert_eq!(references("a `b` c `d e`"), ["b", "d e"]);
}
