//! Damage on the disks of real processes, case by case: the node recovers with everything, or stops and names the file.
//!
//! Off the data path.
//! A sample of the matrix in `ringraft_sim::matrix`, which tries every case in memory: here the files, the folders and the
//! exit codes are real. After each case the disks are put back as they were when the cluster was killed.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ringraft_tools::status;
use ringraft_wal::batch::BatchHeader;
use ringraft_wal::meta::Meta;
use ringraft_wal::record;

use crate::client::Session;
use crate::harness::{TestCluster, eventually, shape};

const PATIENCE: Duration = Duration::from_secs(20);
const BLOCK: usize = 4096;
const KEYS: usize = 40;
/// What a restart can have written to a segment is in here.
const KEPT_BYTES: u64 = 2 << 20;

/// One file as it was.
struct Saved {
    path: PathBuf,
    length: u64,
    start: Vec<u8>,
}

/// The data directory of one node as it was when the node was killed.
struct Snapshot {
    files: Vec<Saved>,
}

impl Snapshot {
    fn of(directory: &Path) -> Self {
        let mut files = Vec::new();
        let mut folders = vec![directory.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let mut start = Vec::new();
                let file = File::open(&path).expect("a file");
                let length = file.metadata().expect("its length").len();
                file.take(KEPT_BYTES).read_to_end(&mut start).expect("its start");
                files.push(Saved { path, length, start });
            }
        }
        Self { files }
    }

    fn restore(&self) {
        for Saved { path, length, start } in &self.files {
            let mut file = File::options().create(true).truncate(false).write(true).open(path).expect("a file");
            file.write_all(start).expect("its start is put back");
            file.set_len(*length).expect("its length is put back");
        }
    }
}

/// Where the batches of `0000.segment` stand: the first block of those that hold something, then of the marks behind them.
fn batches(segment: &Path) -> (Vec<usize>, Vec<usize>) {
    let mut image = Vec::new();
    File::open(segment).expect("a segment").take(KEPT_BYTES).read_to_end(&mut image).expect("its start");
    let (mut content, mut marks, mut at) = (Vec::new(), Vec::new(), 0);
    while let Some(Ok(header)) = image.get(at * BLOCK..).map(BatchHeader::decode) {
        if header.body_length as usize == record::HEADER_BYTES {
            marks.push(at);
        } else {
            content.push(at);
            marks.clear();
        }
        at += header.blocks(BLOCK) as usize;
    }
    (content, marks)
}

fn change(path: &Path, offset: usize, bytes: &[u8]) {
    let file = File::options().write(true).open(path).expect("a file to damage");
    file.write_all_at(bytes, offset as u64).expect("damage");
}

fn flip(path: &Path, offset: usize) {
    let mut byte = [0];
    File::open(path).and_then(|file| file.read_exact_at(&mut byte, offset as u64)).expect("a byte to damage");
    change(path, offset, &[byte[0] ^ 0x20]);
}

/// What must come of a damage.
enum Expected {
    /// The node starts, and the cluster with it has everything.
    Serves,
    /// The node ends with this code and says this.
    Stops(i32, &'static str),
}

struct Case {
    name: String,
    damage: Box<dyn Fn(&Path)>,
    expected: Expected,
}

fn case(name: impl Into<String>, expected: Expected, damage: impl Fn(&Path) + 'static) -> Case {
    Case { name: name.into(), damage: Box::new(damage), expected }
}

fn segment(data: &Path, number: u32) -> PathBuf {
    data.join(format!("wal/shard-0/{number:04}.segment"))
}

fn meta(data: &Path) -> PathBuf {
    data.join("wal/shard-0/wal.meta")
}

/// Damage of blocks.
fn block_cases(content: &[usize], marks: &[usize]) -> Vec<Case> {
    let mut cases = Vec::new();
    let last = content.len() - 1;
    for (name, place) in [("first", 0), ("middle", last / 2), ("last but one", last - 1), ("last", last)] {
        let block = content[place];
        let stops = || Expected::Stops(65, "0000.segment at byte");
        let at = block * BLOCK;
        cases.push(case(format!("{name} batch: bit flip in the head"), stops(), move |data| {
            flip(&segment(data, 0), at + 21);
        }));
        cases.push(case(format!("{name} batch: bit flip in the body"), stops(), move |data| {
            flip(&segment(data, 0), at + 120);
        }));
        cases.push(case(format!("{name} batch: zeroed"), stops(), move |data| {
            change(&segment(data, 0), at, &[0; BLOCK]);
        }));
    }
    let mark = marks[marks.len() - 1];
    cases
        .push(case("mark: zeroed", Expected::Serves, move |data| change(&segment(data, 0), mark * BLOCK, &[0; BLOCK])));
    cases.push(case("mark: bit flip", Expected::Serves, move |data| flip(&segment(data, 0), mark * BLOCK + 30)));
    let middle = content[last / 2];
    let misdirected = move |data: &Path| {
        let mut block = vec![0; BLOCK];
        let file = File::open(segment(data, 0)).expect("a segment");
        file.read_exact_at(&mut block, ((middle - 1) * BLOCK) as u64).expect("a block");
        change(&segment(data, 0), middle * BLOCK, &block);
    };
    cases.push(case("middle batch: misdirected", Expected::Stops(65, "0000.segment at byte"), misdirected));
    // A short batch ends in its first sector: nothing of it is behind a tear there.
    let from_middle: Vec<usize> = content[last / 2..].to_vec();
    let torn = move |data: &Path| {
        let file = File::open(segment(data, 0)).expect("a segment");
        let reaches_further = |block: &&usize| {
            let mut behind = vec![0; BLOCK - 512];
            file.read_exact_at(&mut behind, (**block * BLOCK + 512) as u64).expect("a block");
            behind.iter().any(|byte| *byte != 0)
        };
        let block = from_middle.iter().find(reaches_further).expect("a batch of more than a sector");
        change(&segment(data, 0), block * BLOCK + 512, &[0; BLOCK - 512]);
    };
    cases.push(case("a batch behind the middle: torn", Expected::Stops(65, "0000.segment at byte"), torn));
    cases
}

/// Damage of whole files.
fn file_cases() -> Vec<Case> {
    let remove = |path: PathBuf| fs::remove_file(path).expect("a file to remove");
    let cut = |path: PathBuf, bytes: u64| {
        File::options().write(true).open(path).and_then(|file| file.set_len(bytes)).expect("a file to cut");
    };
    vec![
        case("first segment: missing", Expected::Stops(65, "0000.segment is missing"), move |data| {
            remove(segment(data, 0));
        }),
        case("ready segment: missing", Expected::Stops(65, "0001.segment is missing"), move |data| {
            remove(segment(data, 1));
        }),
        case("first segment: truncated", Expected::Stops(65, "0000.segment has 65536 bytes"), move |data| {
            cut(segment(data, 0), 65_536);
        }),
        case("first segment: emptied", Expected::Stops(65, "0000.segment has 0 bytes"), move |data| {
            cut(segment(data, 0), 0);
        }),
        case("wal.meta: bit flip in one copy", Expected::Serves, |data| flip(&meta(data), 25)),
        case("wal.meta: bit flip in both copies", Expected::Stops(65, "wal.meta is damaged"), |data| {
            flip(&meta(data), 25);
            flip(&meta(data), 4096 + 17);
        }),
        case("wal.meta: zeroed", Expected::Stops(65, "wal.meta is damaged"), |data| change(&meta(data), 0, &[0; 8192])),
        case("wal.meta: missing", Expected::Stops(65, "no wal.meta"), move |data| remove(meta(data))),
        case("wal.meta: stale", Expected::Stops(65, "wal.meta is an old copy"), |data| {
            let current = Meta::decode(&fs::read(meta(data)).expect("wal.meta")).expect("an intact one");
            change(&meta(data), 0, &Meta { file_count: 0, ..current }.encode());
        }),
        case("identity.json: bit flip", Expected::Stops(65, "identity.json is damaged"), |data| {
            let path = data.join("identity.json");
            let text = fs::read_to_string(&path).expect("identity.json");
            flip(&path, text.find("\"node\":").expect("the node's id") + 8);
        }),
        case("identity.json: zeroed", Expected::Stops(65, "identity.json is damaged"), |data| {
            let path = data.join("identity.json");
            let length = fs::metadata(&path).expect("identity.json").len() as usize;
            change(&path, 0, &vec![0; length]);
        }),
        case("identity.json: truncated", Expected::Stops(65, "identity.json is damaged"), move |data| {
            cut(data.join("identity.json"), 40);
        }),
        case("identity.json: missing", Expected::Stops(64, "holds no node"), move |data| {
            remove(data.join("identity.json"));
        }),
    ]
}

fn write_keys(cluster: &TestCluster) {
    let mut session = Session::without(&cluster.file().endpoints());
    for number in 0..KEYS {
        session.put(&format!("key-{number}"), &value(number)).expect("a write");
    }
}

fn value(number: usize) -> String {
    format!("{number}-{}", "v".repeat(number * 211 % 6_000))
}

fn assert_everything_is_there(cluster: &TestCluster, name: &str) {
    let mut session = Session::without(&cluster.file().endpoints());
    for number in 0..KEYS {
        let found = session.get(&format!("key-{number}")).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!(found.as_ref(), Some(&value(number)), "{name}: key-{number}");
    }
}

/// Ends what runs and puts all disks back.
fn restore(cluster: &mut TestCluster, snapshots: &[Snapshot]) {
    for id in 1..=3 {
        if cluster.running_pid(id).is_some() {
            cluster.kill(id).expect("it is killed");
        }
    }
    snapshots.iter().for_each(Snapshot::restore);
}

/// The code the node ended with, or nothing once it answers.
fn start_alone(cluster: &mut TestCluster, id: u64) -> Option<i32> {
    cluster.start_node(id).expect("the process starts");
    let address = cluster.address(id);
    let started = eventually(PATIENCE, || match cluster.exit_status(id) {
        Some(status) => Some(Some(status.code().unwrap_or(-1))),
        None => status::shard(&address).is_ok().then_some(None),
    });
    started.unwrap_or_else(|| panic!("node {id} neither serves nor ends{}", cluster.log_tail(id)))
}

fn try_case(cluster: &mut TestCluster, case: &Case) {
    let id = 2;
    (case.damage)(&cluster.data_directory(id));
    let code = start_alone(cluster, id);
    let said = cluster.log_tail(id);
    match case.expected {
        Expected::Stops(expected, reason) => {
            assert_eq!(code, Some(expected), "{}: {said}", case.name);
            assert!(said.contains(reason), "{}: the reason is not {reason:?}: {said}", case.name);
        }
        Expected::Serves => {
            assert_eq!(code, None, "{}: {said}", case.name);
            cluster.start().expect("the others start");
            cluster.serve();
            assert_everything_is_there(cluster, &case.name);
            cluster.wait_for_equal_replicas(PATIENCE);
        }
    }
}

/// The same damage on two nodes: both stop, the third alone serves nothing, and nothing is lost.
fn try_two(cluster: &mut TestCluster, snapshots: &[Snapshot], at: usize) {
    for id in [1, 3] {
        flip(&segment(&cluster.data_directory(id), 0), at);
        assert_eq!(start_alone(cluster, id), Some(65), "{}", cluster.log_tail(id));
    }
    assert_eq!(start_alone(cluster, 2), None, "{}", cluster.log_tail(2));
    let mut session = Session::without(&[cluster.address(2)]).patience(Duration::from_secs(2));
    assert!(session.get("key-0").is_err(), "one of three serves");
    restore(cluster, snapshots);
}

#[test]
fn damaged_disks_are_recovered_or_refused() {
    let mut cluster = TestCluster::start(&shape(3));
    write_keys(&cluster);
    cluster.wait_for_equal_replicas(PATIENCE);
    // An idle log is marked at its end, after a while.
    let is_marked = |id| (!batches(&segment(&cluster.data_directory(id), 0)).1.is_empty()).then_some(());
    eventually(PATIENCE, || (1..=3).try_for_each(is_marked)).expect("marks");
    (1..=3).for_each(|id| cluster.kill(id).expect("it is killed"));
    let snapshots: Vec<Snapshot> = (1..=3).map(|id| Snapshot::of(&cluster.data_directory(id))).collect();
    let (content, marks) = batches(&segment(&cluster.data_directory(2), 0));
    assert!(content.len() > KEYS / 2 && !marks.is_empty(), "{content:?} {marks:?}");
    let mut cases = block_cases(&content, &marks);
    cases.extend(file_cases());
    for case in &cases {
        try_case(&mut cluster, case);
        restore(&mut cluster, &snapshots);
    }
    try_two(&mut cluster, &snapshots, content[content.len() / 2] * BLOCK + 21);
    cluster.start().expect("all start");
    cluster.serve();
    assert_everything_is_there(&cluster, "all disks as they were");
    println!("{} cases", cases.len() + 1);
}
