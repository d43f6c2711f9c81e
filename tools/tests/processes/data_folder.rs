//! Data folders that a node must refuse, and a disk that fills up: clear errors, nothing lost.
//!
//! Off the data path.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use ringraft_net::wire::{Operation, Outcome, Request};
use ringraft_tools::local_cluster::{Lifetime, LocalCluster};
use ringraft_tools::{ports, probe::Connection, status};

use crate::client::Session;
use crate::harness::{START_PATIENCE, TestCluster, binary, eventually, exclusive, folder, ringraft_within, shape};

const CLUSTER_ID: &str = "000102030405060708090a0b0c0d0e0f";
const PATIENCE: Duration = Duration::from_secs(20);

/// Exit code and everything said by a node started alone on this folder.
fn start_on(data: &Path, further: &[&str]) -> (Option<i32>, String) {
    let peers = format!("1=127.0.0.1:{}", ports::free_run(1).expect("a port"));
    let data = data.to_string_lossy();
    let mut arguments = vec!["node", "--id", "1", "--cluster-id", CLUSTER_ID, "--peers", &peers, "--data-dir", &data];
    arguments.extend(["--segment-bytes=32MiB", "--segment-pool=1"]);
    arguments.extend(further);
    ringraft_within(PATIENCE, &arguments)
}

/// A mounted file system, unmounted when the test ends.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    /// `mount ARGUMENTS... AT`; nothing, with the reason printed, where that is not allowed.
    fn new(at: &Path, arguments: &[&str]) -> Option<Self> {
        fs::create_dir_all(at).expect("a mount point");
        let output = Command::new("mount").args(arguments).arg(at).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => Some(Self { at: at.to_owned() }),
            Ok(output) => {
                println!("SKIPPED: cannot mount {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("SKIPPED: cannot run mount: {error}");
                None
            }
        }
    }

    /// A new ext4 in a file.
    fn image(folder: &Path, bytes: u64, option: &str) -> Option<Self> {
        let image = folder.join("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image file");
        let made = Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&image).status();
        if !made.as_ref().is_ok_and(std::process::ExitStatus::success) {
            println!("SKIPPED: cannot run mkfs.ext4: {made:?}");
            return None;
        }
        Self::new(&folder.join("mounted"), &["-o", &format!("loop{option}"), &image.to_string_lossy()])
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The kernel tears an io_uring down after its process is gone, and holds the files until then.
        let unmount = || Command::new("umount").arg(&self.at).output().is_ok_and(|output| output.status.success());
        if eventually(PATIENCE, || unmount().then_some(())).is_none() {
            println!("cannot unmount {}", self.at.display());
        }
    }
}

#[test]
fn an_empty_folder_without_init_is_refused() {
    let _one = exclusive();
    let folder = folder();
    let (code, said) = start_on(folder.path(), &[]);
    assert_eq!(code, Some(64), "{said}");
    assert!(said.contains("--init"), "{said}");
}

#[test]
fn a_folder_that_is_no_folder_is_refused() {
    let _one = exclusive();
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").expect("a file");
    let (code, said) = start_on(&file.join("data"), &["--init"]);
    assert_eq!(code, Some(73), "{said}");
    assert!(said.contains("file/data"), "the message must name the folder: {said}");
}

#[test]
fn a_read_only_folder_is_refused() {
    let _one = exclusive();
    let folder = folder();
    let Some(mounted) = Mounted::image(folder.path(), 16 << 20, ",ro") else { return };
    let (code, said) = start_on(&mounted.at.join("data"), &["--init"]);
    assert_eq!(code, Some(73), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
}

#[test]
fn a_folder_that_is_too_small_is_refused() {
    let _one = exclusive();
    let folder = folder();
    let Some(mounted) = Mounted::image(folder.path(), 24 << 20, "") else { return };
    let (code, said) = start_on(&mounted.at.join("data"), &["--init"]);
    assert_eq!(code, Some(73), "{said}");
    assert!(said.to_lowercase().contains("no space"), "{said}");
}

#[test]
fn a_file_system_without_direct_io_is_refused() {
    let _one = exclusive();
    let folder = folder();
    // ramfs has neither a disk nor O_DIRECT.
    let Some(mounted) = Mounted::new(&folder.path().join("ram"), &["-t", "ramfs", "ramfs"]) else { return };
    let (code, said) = start_on(&mounted.at.join("data"), &["--init"]);
    assert_eq!(code, Some(73), "{said}");
    assert!(
        said.contains("direct I/O") && said.contains("ext4"),
        "the message must say what is missing and the remedy: {said}"
    );
    let doctor = ringraft_within(PATIENCE, &["doctor", "--seconds", "1", "--data-dir", &mounted.at.to_string_lossy()]);
    assert_eq!(doctor.0, Some(1), "{}", doctor.1);
    assert!(doctor.1.contains("direct I/O"), "{}", doctor.1);
}

#[test]
fn the_folder_of_another_node_or_cluster_is_refused() {
    let mut cluster = TestCluster::start(&shape(1));
    cluster.stop(Duration::from_secs(10)).expect("it stops");
    let data = cluster.data_directory(1);
    let (code, said) = start_on(&data, &[]);
    assert_eq!(code, Some(66), "another cluster id: {said}");
    assert!(said.contains(CLUSTER_ID) && said.contains(&cluster.file().cluster_id), "both ids must be named: {said}");
    cluster.start().expect("the right node starts");
    cluster.serve();
    Session::without(&cluster.file().endpoints()).put("key", "value").expect("a write");
    let mut arguments = cluster.arguments(1);
    arguments.retain(|argument| argument != "--stop-on-stdin-end");
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (code, said) = ringraft_within(PATIENCE, &arguments);
    assert_eq!(code, Some(74), "the folder is in use: {said}");
}

#[test]
fn a_wiped_node_does_not_come_back_under_its_old_name() {
    let mut cluster = TestCluster::start(&shape(3));
    cluster.kill(3).expect("a node is killed");
    fs::remove_dir_all(cluster.data_directory(3)).expect("its disk is lost");
    cluster.start_node(3).expect("the process starts");
    let ended = eventually(PATIENCE, || cluster.exit_status(3));
    assert_eq!(ended.and_then(|status| status.code()), Some(64), "{}", cluster.log_tail(3));
    assert!(cluster.log_tail(3).contains("lost"), "{}", cluster.log_tail(3));
}

#[test]
fn a_node_whose_log_is_gone_does_not_start_without_it() {
    let mut cluster = TestCluster::start(&shape(1));
    Session::without(&cluster.file().endpoints()).put("key", "value").expect("a write");
    cluster.kill(1).expect("it is killed");
    let log = cluster.data_directory(1).join("wal").join("shard-0");
    let segments: Vec<PathBuf> = segments_of(&log);
    assert!(segments.len() > 1, "{segments:?}");
    fs::remove_file(log.join("wal.meta")).expect("it is there");
    fs::remove_file(&segments[0]).expect("it is there");
    expect_refusal(&mut cluster, "no wal.meta");
    segments[1..].iter().for_each(|segment| fs::remove_file(segment).expect("it is there"));
    expect_refusal(&mut cluster, "the write-ahead log is missing");
    fs::remove_dir_all(&log).expect("it is there");
    expect_refusal(&mut cluster, "the write-ahead log is missing");
}

fn segments_of(log: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(log).expect("a folder").map(|entry| entry.expect("an entry").path());
    let mut segments: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "segment")).collect();
    segments.sort();
    segments
}

fn expect_refusal(cluster: &mut TestCluster, reason: &str) {
    cluster.start_node(1).expect("the process starts");
    let ended = eventually(PATIENCE, || cluster.exit_status(1));
    assert_eq!(ended.and_then(|status| status.code()), Some(65), "{}", cluster.log_tail(1));
    assert!(cluster.log_tail(1).contains(reason), "{reason}: {}", cluster.log_tail(1));
}

const VALUE_BYTES: usize = 64 << 10;
const FILLER_BYTES: u64 = 48 << 20;

#[test]
fn a_full_disk_refuses_writes_and_resumes_when_there_is_space() {
    let _one = exclusive();
    let folder = folder();
    let Some(mounted) = Mounted::image(folder.path(), 176 << 20, "") else { return };
    let filler = mounted.at.join("filler");
    fs::write(&filler, vec![1; FILLER_BYTES as usize]).expect("a filler");
    let mut cluster =
        LocalCluster::create(&mounted.at.join("cluster"), binary(), Lifetime::Tied, &shape(1)).expect("a cluster");
    cluster.start().expect("it starts");
    cluster.wait_until_serving(START_PATIENCE).expect("it serves");
    let address = cluster.file().endpoints()[0].clone();
    let (mut connection, _) = Connection::open(&address).expect("a connection");
    connection.set_patience(PATIENCE).expect("a socket");
    let (written, refusal) = write_until_refused(&mut connection, &cluster);
    println!("{written} values of {VALUE_BYTES} bytes, then: {refusal}");
    assert!(written > 100 && refusal.contains("full"), "{written} values, then {refusal}");
    assert_written(&address, written);
    let wal = status::shard(&address).expect("its status").rest["wal"].clone();
    assert_eq!(wal["full"], true, "{wal}");
    fs::remove_file(&filler).expect("the filler goes");
    let resumed = eventually(PATIENCE, || put_one(&mut connection, written).is_ok().then_some(()));
    assert!(resumed.is_some(), "writes do not resume by themselves: {:?}", put_one(&mut connection, written));
    cluster.kill(1).expect("it is killed");
    cluster.start().expect("it starts again");
    cluster.wait_until_serving(START_PATIENCE).expect("it serves again");
    assert_written(&address, written + 1);
}

fn value_of(number: u64) -> Vec<u8> {
    let mut value = vec![(number % 251) as u8; VALUE_BYTES];
    value[..8].copy_from_slice(&number.to_le_bytes());
    value
}

fn put_one(connection: &mut Connection, number: u64) -> Result<(), String> {
    let operations = vec![Operation::Put { key: format!("key-{number}").into(), value: value_of(number) }];
    match connection.request(&Request { operations, ..Request::default() }).map(|reply| reply.outcome) {
        Ok(Outcome::Done(_)) => Ok(()),
        Ok(Outcome::Unavailable { message }) => Err(message),
        Ok(Outcome::Overloaded { .. }) => Err("overloaded".into()),
        Ok(other) => Err(format!("BROKEN: neither done nor refused: {other:?}")),
        Err(error) => Err(format!("BROKEN: {error:#}")),
    }
}

fn write_until_refused(connection: &mut Connection, cluster: &LocalCluster) -> (u64, String) {
    for number in 0..10_000 {
        match put_one(connection, number) {
            Ok(()) => {}
            Err(message) if message.starts_with("BROKEN") => panic!("value {number}: {message}{}", cluster.log_tail(1)),
            Err(message) => return (number, message),
        }
    }
    panic!("the disk does not fill");
}

fn assert_written(address: &str, count: u64) {
    let mut session = Session::without(&[address.to_owned()]);
    for number in 0..count {
        let reply = session.call(vec![Operation::Get { key: format!("key-{number}").into() }]).expect("reads go on");
        let results = crate::client::done(&reply).expect("a value");
        let expected = ringraft_net::wire::OperationResult::Value(Some(value_of(number)));
        assert!(results == [expected], "value {number} is not what was written");
    }
}
