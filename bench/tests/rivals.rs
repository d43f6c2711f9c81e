//! `rivals.sh`: what it started is what it stops, and a stranger's server is not taken for its own.
//!
//! Off the data path.

#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the script in `folder`, with a program of this text in the place of etcd.
fn rivals(folder: &Path, etcd: &str, port: u16, words: [&str; 2]) -> Output {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs).unwrap();
    let program = programs.join("etcd");
    fs::write(&program, format!("#!/bin/sh\n{etcd}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("rivals.sh");
    let mut command = Command::new("sh");
    command.arg(script).args(words).current_dir(folder).env("PATH", path);
    command.env("ETCD_PORT", port.to_string()).env("PATIENCE", "1").output().unwrap()
}

/// Ids of the processes that were started in `data`.
fn recorded(data: &Path) -> Vec<u32> {
    let text = fs::read_to_string(data.join("pids")).unwrap();
    text.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect()
}

fn runs(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| !status.contains("State:\tZ"))
}

#[test]
fn a_stranger_who_listens_is_not_the_server_that_was_started() {
    let folder = tempfile::tempdir().unwrap();
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    // The first node listens ten above.
    let port = stranger.local_addr().unwrap().port() - 10;
    let started = rivals(folder.path(), "exit 1", port, ["start", "data"]);
    let text = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && text.contains("ended before it listened"), "{text}");
    let stopped = rivals(folder.path(), "exit 1", port, ["stop", "data"]);
    assert!(stopped.status.success() && !folder.path().join("data").exists());
}

#[test]
fn what_was_started_is_stopped_by_another_name_of_the_folder_and_other_ports() {
    let folder = tempfile::tempdir().unwrap();
    let started = rivals(folder.path(), "exec sleep 1000", 20_000, ["start", "data"]);
    let text = String::from_utf8_lossy(&started.stderr).into_owned();
    assert!(!started.status.success() && text.contains("does not listen"), "{text}");
    let data = folder.path().join("data");
    let pids = recorded(&data);
    assert!(pids.len() == 3 && pids.iter().all(|&pid| runs(pid)));
    let stopped = rivals(folder.path(), "", 21_000, ["stop", "./programs/../data"]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    assert!(!pids.iter().any(|&pid| runs(pid)) && !data.exists());
}

#[test]
fn a_process_that_got_a_recorded_id_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    // This process did not begin with the machine.
    fs::write(data.join("pids"), format!("{} 1 2379\n", std::process::id())).unwrap();
    assert!(rivals(folder.path(), "", 20_000, ["stop", "data"]).status.success());
    // Of one whose beginning is not known nobody can tell: nothing is removed.
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("pids"), format!("{}\n", std::process::id())).unwrap();
    let stopped = rivals(folder.path(), "", 20_000, ["stop", "data"]);
    assert!(!stopped.status.success() && String::from_utf8_lossy(&stopped.stderr).contains("still running"));
    assert!(data.join("pids").exists());
}
