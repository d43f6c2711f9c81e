//! `ringraft wal`: shows and checks write-ahead logs without a running node.
//!
//! Off the data path.
//! Invariant: nothing is written. On the folder of a running node the end of the log may look torn.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Args, Subcommand};
use ringraft_tools::output;
use ringraft_wal::inspect::{self, DumpOptions, Report};
use ringraft_wal::{SnapshotMark, meta};
use serde_json::{Value, json};

use super::{Outcome, SUCCESS};

const EXAMPLES: &str = "\
Examples:
  ringraft wal inspect ./cluster/node-1/data
  ringraft wal verify ./cluster/node-1/data";

const INSPECT_EXAMPLES: &str = "\
Examples:
  ringraft wal inspect ./cluster/node-1/data                       segments and groups
  ringraft wal inspect ./cluster/node-1/data --batches --file 0    every batch of one segment file
  ringraft wal inspect ./cluster/node-1/data --records --group 3   every record of one group
  ringraft wal inspect ./cluster/node-1/data --json";

const VERIFY_EXAMPLES: &str = "\
Examples:
  ringraft wal verify ./cluster/node-1/data
  ringraft wal verify ./cluster/node-1/data --json | jq .sound

Exit code 1: a node would not start from a log found there; the reason names file and offset.";

/// How deep below the given folder logs are looked for.
const DEPTH_MAX: usize = 3;

/// Shows and checks write-ahead logs.
#[derive(Debug, Subcommand)]
#[command(after_help = EXAMPLES)]
pub(crate) enum Wal {
    Inspect(Inspect),
    Verify(Verify),
}

/// Shows what stands in the logs below a folder.
#[derive(Debug, Args)]
#[command(after_help = INSPECT_EXAMPLES)]
pub(crate) struct Inspect {
    /// A node's data directory, or the folder of one log.
    folder: PathBuf,
    /// Show every batch.
    #[arg(long)]
    batches: bool,
    /// Show every record.
    #[arg(long)]
    records: bool,
    /// Only this segment file.
    #[arg(long, value_name = "NUMBER")]
    file: Option<u32>,
    /// Only records of this group.
    #[arg(long, value_name = "GROUP")]
    group: Option<u32>,
    /// One JSON array with an object per log (segments and groups).
    #[arg(long, conflicts_with_all = ["batches", "records", "file", "group"])]
    json: bool,
}

/// Checks the logs below a folder as the start of a node would.
#[derive(Debug, Args)]
#[command(after_help = VERIFY_EXAMPLES)]
pub(crate) struct Verify {
    /// A node's data directory, or the folder of one log.
    folder: PathBuf,
    /// One JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: Wal) -> Result<Outcome> {
    match arguments {
        Wal::Inspect(arguments) => inspect(&arguments),
        Wal::Verify(arguments) => verify(&arguments),
    }
}

fn inspect(arguments: &Inspect) -> Result<Outcome> {
    let folders = logs_below(&arguments.folder)?;
    if arguments.json {
        let reports = folders.iter().map(|folder| Ok(report_json(folder, &inspect::verify(folder)?)));
        println!("{}", serde_json::to_string_pretty(&reports.collect::<Result<Vec<Value>>>()?)?);
        return Ok(SUCCESS);
    }
    let dumps = arguments.batches || arguments.records || arguments.file.is_some() || arguments.group.is_some();
    for folder in folders {
        println!("{}", folder.display());
        if dumps {
            let records = arguments.records || arguments.group.is_some();
            let options = DumpOptions { file: arguments.file, records, group: arguments.group };
            inspect::dump(&folder, &options, &mut output::standard())?;
        } else {
            print_report(&inspect::verify(&folder)?);
        }
    }
    Ok(SUCCESS)
}

fn verify(arguments: &Verify) -> Result<Outcome> {
    let folders = logs_below(&arguments.folder)?;
    let reports = folders.iter().map(|folder| inspect::verify(folder).with_context(|| folder.display().to_string()));
    let reports: Vec<Report> = reports.collect::<Result<_>>()?;
    let sound = reports.iter().all(Report::is_sound);
    if arguments.json {
        let logs: Vec<Value> =
            folders.iter().zip(&reports).map(|(folder, report)| report_json(folder, report)).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "sound": sound, "logs": logs }))?);
        return Ok(Outcome::of(sound));
    }
    for (folder, report) in folders.iter().zip(&reports) {
        match &report.error {
            None => println!("{}: sound up to batch {}", folder.display(), report.last_sequence),
            Some(error) => println!("{}: NOT SOUND: {error}", folder.display()),
        }
        for note in &report.notes {
            println!("  note: {note}");
        }
    }
    Ok(Outcome::of(sound))
}

fn print_report(report: &Report) {
    println!("  {}; blocks of {} bytes", report.identity, report.block_bytes);
    println!(
        "  {} segment file(s) of {} bytes, last batch {}",
        report.files, report.segment_bytes, report.last_sequence
    );
    for segment in &report.segments {
        let id = segment.segment_id.map_or_else(|| "unused".to_owned(), |id| format!("segment {id}"));
        let range = format!("batches {}..={}", segment.first_sequence, segment.last_sequence);
        println!("  file {}: {id}, {range}, {} bytes; ends: {}", segment.file, segment.bytes, segment.stop);
    }
    for group in &report.groups {
        let entries =
            group.entries.map_or_else(|| "no entries".to_owned(), |(first, last)| format!("entries {first}..={last}"));
        let hard_state = group.hard_state.map_or_else(
            || "none".to_owned(),
            |hard_state| {
                format!(
                    "term {}, voted for {}",
                    hard_state.current_term,
                    hard_state.voted_for.map_or_else(|| "nobody".to_owned(), |node| node.to_string())
                )
            },
        );
        println!(
            "  group {}: {entries}, last term {}, {} bytes; {hard_state}",
            group.group, group.last_term, group.bytes
        );
        if let Some(beginning) = group.beginning {
            let what = if beginning.held { "began anew" } else { "was given up" };
            println!(
                "    the log {what}; the one before was up to entry {} (term {})",
                beginning.index, beginning.term
            );
        }
        if !group.memberships.is_empty() {
            let indexes: Vec<String> = group.memberships.iter().map(u64::to_string).collect();
            println!("    configurations in entries {}", indexes.join(", "));
        }
        for mark in &group.marks {
            let replaces = if mark.replaces_log { ", replaced the log" } else { "" };
            println!(
                "    snapshot up to entry {} (term {}): {} bytes, state {:016x}{replaces}",
                mark.index, mark.term, mark.file_bytes, mark.state_hash
            );
        }
    }
    for file in &report.snapshots {
        println!("  file {}: {} bytes", file.name, file.bytes);
    }
    for note in &report.notes {
        println!("  note: {note}");
    }
    if let Some(error) = &report.error {
        println!("  NOT SOUND: {error}");
    }
}

fn report_json(folder: &Path, report: &Report) -> Value {
    let segments = report.segments.iter().map(|segment| {
        json!({
            "file": segment.file, "segment_id": segment.segment_id, "first_sequence": segment.first_sequence,
            "last_sequence": segment.last_sequence, "batches": segment.batches, "bytes": segment.bytes, "stop": segment.stop,
        })
    });
    let groups = report.groups.iter().map(|group| {
        json!({
            "group": group.group, "first_index": group.entries.map(|(first, _)| first),
            "last_index": group.entries.map(|(_, last)| last), "last_term": group.last_term, "bytes": group.bytes,
            "hard_state": group.hard_state.map(|state| json!({ "term": state.current_term, "voted_for": state.voted_for })),
            "snapshots": group.marks.iter().map(mark_json).collect::<Vec<_>>(),
            "configurations": group.memberships,
            "beginning": group.beginning.map(|beginning| json!({
                "held": beginning.held, "before_term": beginning.term, "before_index": beginning.index,
            })),
        })
    });
    let files = report.snapshots.iter().map(|file| json!({ "file": file.name.to_string(), "bytes": file.bytes }));
    json!({
        "folder": folder, "sound": report.is_sound(), "error": report.error.as_ref().map(ToString::to_string),
        "identity": report.identity.to_string(), "block_bytes": report.block_bytes, "segment_bytes": report.segment_bytes,
        "files": report.files, "last_sequence": report.last_sequence,
        "notes": report.notes.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "segments": segments.collect::<Vec<_>>(), "groups": groups.collect::<Vec<_>>(),
        "snapshot_files": files.collect::<Vec<_>>(),
    })
}

fn mark_json(mark: &SnapshotMark) -> Value {
    json!({
        "index": mark.index, "term": mark.term, "file_bytes": mark.file_bytes,
        "state_hash": format!("{:016x}", mark.state_hash), "replaces_log": mark.replaces_log,
    })
}

/// Every folder with a log in it, the given one first, sorted.
fn logs_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut level = vec![folder.to_owned()];
    fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for _ in 0..=DEPTH_MAX {
        let mut next = Vec::new();
        for folder in level {
            let inner = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
            next.extend(inner.filter(|path| path.is_dir()));
            if folder.join(meta::FILE_NAME).exists() {
                found.push(folder);
            }
        }
        level = next;
    }
    ensure!(!found.is_empty(), "no log ({}) in {} or below it", meta::FILE_NAME, folder.display());
    found.sort();
    Ok(found)
}
