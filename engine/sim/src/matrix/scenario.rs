//! The logs that are damaged: three replicas with known acknowledged entries, over several segments, some in files that were
//! used before.
//!
//! Off the data path.
//! Each replica's disk first carries a log of a group that nobody hosts, written and reclaimed by the production WAL, so that
//! its files have earlier uses. Then the cluster writes; then it is killed.

use std::collections::BTreeMap;

use ringraft_wal::batch::BatchHeader;
use ringraft_wal::mem::MemDisk;
use ringraft_wal::meta::Meta;
use ringraft_wal::record::RecordView;
use ringraft_wal::{FileNumber, HardState, Recovered, ValidConfig, Wal};

use super::cluster::{Cluster, GROUPS, NODES, config};
use super::image::{Damage, Image, Kind};

/// A group that no node hosts: its log only gives the files an earlier use.
const EARLIER_GROUP: u32 = 99;
/// Batches of that log.
const EARLIER_BATCHES: u64 = 150;
/// Acknowledged writes of the cluster.
const WRITES: usize = 48;

/// Ticks after the last write, if the cluster comes to rest.
const IDLE_TICKS: usize = 12;

/// How the cluster ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ending {
    /// Killed when it had been idle for a tick: the logs are marked.
    Idle,
    /// Killed at the moment the last write was acknowledged: nothing calls the last batch durable.
    AtOnce,
    /// Killed in the middle of the next flush, of which some blocks were written, some half and some not.
    MidFlush,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Idle, Self::AtOnce, Self::MidFlush];

    /// The name in the table.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Idle => "killed when idle",
            Self::AtOnce => "killed at the last acknowledgement",
            Self::MidFlush => "killed in the middle of a flush",
        }
    }
}

/// One batch of an undamaged log.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batch {
    pub(super) file: FileNumber,
    pub(super) blocks: (usize, usize),
    pub(super) sequence: u64,
    pub(super) durable_sequence: u64,
}

/// One replica as it was killed.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) config: ValidConfig,
    pub(super) image: Image,
    /// What stood on the disk before the cluster wrote.
    pub(super) before: Image,
    pub(super) batches: Vec<Batch>,
    /// Payload of every entry by group and index, with its term.
    pub(super) entries: BTreeMap<(u32, u64), (u64, Vec<u8>)>,
    /// Term and vote of each group.
    pub(super) hard_states: Vec<Option<HardState>>,
}

/// A cluster that was killed, and what it had acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Scenario {
    pub(super) replicas: Vec<Replica>,
    pub(super) acknowledged: BTreeMap<String, String>,
}

impl Scenario {
    pub(super) fn new(ending: Ending) -> Result<Self, String> {
        let before: Vec<Image> = (0..NODES).map(used_before).collect::<Result<_, _>>()?;
        let opened = before.iter().enumerate().map(|(node, image)| {
            image.open(&config(node)).map(|recovered| (image, Some(recovered))).map_err(|error| error.to_string())
        });
        let opened: Vec<(&Image, Option<Recovered>)> = opened.collect::<Result<_, _>>()?;
        let mut cluster = Cluster::start(&opened);
        let mut acknowledged = BTreeMap::new();
        for number in 0..WRITES {
            let (key, value) = (format!("key-{}", number % 40), format!("{number}-{}", "v".repeat(number * 13 % 300)));
            cluster.put(&key, &value)?;
            acknowledged.insert(key, value);
        }
        match ending {
            Ending::Idle => (0..IDLE_TICKS).try_for_each(|_| cluster.tick())?,
            Ending::AtOnce => {}
            Ending::MidFlush => cluster.put_without_flush("key-0", &"unfinished".repeat(60))?,
        }
        let images = cluster.kill();
        let replicas = images.into_iter().zip(before).enumerate();
        let replicas = replicas.map(|(node, (image, before))| Replica::new(config(node), image, before));
        Ok(Self { replicas: replicas.collect::<Result<_, _>>()?, acknowledged })
    }
}

/// A disk whose files the production WAL has written and used again several times.
fn used_before(node: usize) -> Result<Image, String> {
    let config = config(node);
    let mut disk = MemDisk::new(&config, 3);
    let recovered = disk.recover(&config).map_err(|error| error.to_string())?;
    let mut wal = Wal::new(config.clone(), recovered, &mut disk);
    let mut durables = Vec::new();
    for term in 1..=EARLIER_BATCHES {
        let payload = vec![term as u8; 200];
        wal.begin_entry(EARLIER_GROUP, term, 1, payload.len(), &mut disk).map_err(|error| error.to_string())?;
        wal.put(&payload);
        wal.finish_entry(1).map_err(|error| error.to_string())?;
        while wal.durable_sequence() < wal.accepted_sequence() {
            wal.submit(&mut disk).map_err(|error| error.to_string())?;
            disk.run(&mut wal, &mut durables).map_err(|error| error.to_string())?;
        }
        wal.reclaim(EARLIER_GROUP, 1).map_err(|error| error.to_string())?; // each entry replaces the one before
    }
    if wal.stats().segments_recycled < 3 {
        return Err(format!("only {} segments were used again", wal.stats().segments_recycled));
    }
    let count = disk.files().len() as u32;
    Ok(Image { files: disk.files().clone(), meta: Some(Meta::new(&config, count).encode()) })
}

impl Replica {
    fn new(config: ValidConfig, image: Image, before: Image) -> Result<Self, String> {
        let recovered = image.open(&config).map_err(|error| format!("an undamaged log is refused: {error}"))?;
        let mut entries = BTreeMap::new();
        each_entry(&recovered, &image, &mut |view| {
            entries.insert((view.group, view.index), (view.term, view.payload.to_vec()));
        })?;
        let batches = batches_of(&config, &image, &recovered);
        if batches.last().is_none_or(|batch| batch.sequence != recovered.last_sequence()) {
            return Err(String::from("the log was read differently than it was recovered"));
        }
        let hard_states = hard_states_of(&recovered);
        Ok(Self { config, image, before, batches, entries, hard_states })
    }

    /// Every damage of one block that belongs to the log or to the space behind it, of one segment file, of `wal.meta`.
    pub(super) fn damages(&self) -> Vec<Damage> {
        let mut places: Vec<(FileNumber, usize)> = Vec::new();
        for batch in &self.batches {
            places.extend((batch.blocks.0..batch.blocks.1).map(|block| (batch.file, block)));
        }
        if let Some((file, last)) = places.last().copied()
            && last + 1 < self.config.segment_blocks() as usize
        {
            places.push((file, last + 1));
        }
        let mut damages = Vec::new();
        for (file, block) in places {
            damages.extend(Kind::OF_BLOCKS.map(|kind| Damage { kind, file, block }));
        }
        for file in self.image.files.keys() {
            damages.extend(Kind::OF_FILES.map(|kind| Damage { kind, file: *file, block: 0 }));
        }
        damages.extend(Kind::OF_META.map(|kind| Damage { kind, file: FileNumber(0), block: 0 }));
        damages
    }

    /// The highest batch that a header called durable which `damage` does not touch.
    pub(super) fn durable_beside(&self, damage: &[Damage]) -> u64 {
        let touched = |batch: &Batch| {
            damage.iter().any(|damage| {
                let whole_file = Kind::OF_FILES.contains(&damage.kind);
                damage.file == batch.file
                    && (whole_file || damage.block == batch.blocks.0)
                    && !Kind::OF_META.contains(&damage.kind)
            })
        };
        self.batches.iter().filter(|batch| !touched(batch)).map(|batch| batch.durable_sequence).max().unwrap_or(0)
    }
}

/// Calls `visit` with every live entry of the groups that are hosted.
pub(super) fn each_entry(
    recovered: &Recovered,
    image: &Image,
    visit: &mut dyn FnMut(RecordView<'_>),
) -> Result<(), String> {
    for file in recovered.replay_order() {
        let visit = &mut |view: RecordView<'_>| {
            if view.group != EARLIER_GROUP {
                visit(view);
            }
        };
        recovered.replay_segment(file, &image.files[&file], visit).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Term and vote of each hosted group.
pub(super) fn hard_states_of(recovered: &Recovered) -> Vec<Option<HardState>> {
    (0..GROUPS).map(|group| recovered.groups.get(&group).and_then(|found| found.hard_state)).collect()
}

/// The batches of an undamaged log in their order, read without recovery.
fn batches_of(config: &ValidConfig, image: &Image, recovered: &Recovered) -> Vec<Batch> {
    let mut batches = Vec::new();
    let last_sequence = recovered.last_sequence();
    for file in recovered.replay_order() {
        let (bytes, mut block, mut segment) = (&image.files[&file], 0, None);
        while let Some(Ok(header)) = bytes.get(block * config.block_bytes..).map(BatchHeader::decode) {
            if *segment.get_or_insert(header.segment_id) != header.segment_id || header.sequence > last_sequence {
                break;
            }
            let next = block + header.blocks(config.block_bytes) as usize;
            let (sequence, durable_sequence) = (header.sequence, header.durable_sequence);
            batches.push(Batch { file, blocks: (block, next), sequence, durable_sequence });
            block = next;
        }
    }
    batches
}
