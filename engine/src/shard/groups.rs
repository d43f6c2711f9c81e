//! The replicas of one shard, by group, and which of them have something to do.
//!
//! Off the data path itself; every event for a group goes through here.
//!
//! ```text
//!   event --get_mut--> awake and busy: looked at by the next turn, and by the next tick
//!   heartbeat --whisper--> its doze, while it is asleep, answers; else hear: it is awake, and falls asleep again if it can
//!   tick --> those that are due, asleep or awake
//! ```
//!
//! Invariants: group `g` has its place at `g / shards` in the shard `g % shards`; a place is empty while the node holds no
//! replica of the group; a replica that sleeps is woken, and told of the ticks it slept through, before anything is done
//! with it, so that nothing depends on whether it slept; places are visited in the order of their groups.
//! What there is to do is the replica's business.

use ringraft_raft::{Doze, Dozed, GroupId, Message, NodeId};
use ringraft_wal::Disk;

use super::io::Io;
use crate::group::Group;

/// The place of one group.
struct Place {
    replica: Option<Box<Group>>,
    /// What takes heartbeats and ticks in its place, while it sleeps.
    doze: Option<Doze>,
    /// The last tick the replica itself was told of.
    ticked: u64,
    /// The tick with which it has something to do, if nothing comes before.
    due: u64,
    /// It is in the list of those that the next turn looks at.
    busy: bool,
}

impl Place {
    const EMPTY: Self = Self { replica: None, doze: None, ticked: 0, due: u64::MAX, busy: false };

    /// The replica, at tick `now`.
    fn awake(&mut self, now: u64) -> Option<&mut Group> {
        let replica = self.replica.as_deref_mut()?;
        if let Some(doze) = self.doze.take() {
            replica.wake(&doze, now - self.ticked);
            self.ticked = now;
        }
        Some(replica)
    }
}

/// Places for all groups of a shard.
pub(crate) struct Groups {
    shard: u32,
    shards: u32,
    places: Vec<Place>,
    /// Ticks so far.
    now: u64,
    /// Places that the next turn looks at.
    busy: Vec<usize>,
}

impl Groups {
    /// Empty places for those of `groups` groups that belong to `shard` of `shards`.
    pub(crate) fn new(shard: u16, shards: u16, groups: u32) -> Self {
        let (shard, shards) = (u32::from(shard), u32::from(shards));
        let places = (shard..groups).step_by(shards as usize).map(|_| Place::EMPTY).collect();
        Self { shard, shards, places, now: 0, busy: Vec::new() }
    }

    /// Where a group belongs here; `None`: to another shard, or there is no such group.
    fn place(&self, group: GroupId) -> Option<usize> {
        let place = (group.0 / self.shards) as usize;
        (group.0 % self.shards == self.shard && place < self.places.len()).then_some(place)
    }

    /// Whether replicas of a group live in this shard, if there are any.
    pub(crate) fn lives_here(&self, group: GroupId) -> bool {
        self.place(group).is_some()
    }

    /// The groups of this shard, with or without a replica.
    pub(crate) fn ids(&self) -> impl Iterator<Item = GroupId> + use<> {
        let (shard, shards) = (self.shard, self.shards);
        (0..self.places.len() as u32).map(move |place| GroupId(place * shards + shard))
    }

    /// A replica to look at; while it sleeps it shows neither the last ticks nor who answered heartbeats.
    pub(crate) fn get(&self, group: GroupId) -> Option<&Group> {
        self.places[self.place(group)?].replica.as_deref()
    }

    /// A replica for which something came.
    pub(crate) fn get_mut(&mut self, group: GroupId) -> Option<&mut Group> {
        let place = self.place(group)?;
        self.wake(place)
    }

    fn wake(&mut self, place: usize) -> Option<&mut Group> {
        let found = &mut self.places[place];
        if found.replica.is_some() {
            found.due = self.now + 1;
            if !std::mem::replace(&mut found.busy, true) {
                self.busy.push(place);
            }
        }
        let replica = found.awake(self.now)?;
        replica.unsettle();
        Some(replica)
    }

    /// A message for a replica that may be asleep: what becomes of it. `None`: it is awake, or there is none.
    pub(crate) fn whisper(&mut self, group: GroupId, from: NodeId, message: &Message) -> Option<Dozed> {
        let place = self.place(group)?;
        let found = &mut self.places[place];
        let doze = found.doze.as_mut()?;
        let dozed = doze.step(self.now - found.ticked, from, message);
        found.due = found.ticked + doze.due();
        Some(dozed)
    }

    /// Gives a replica what mostly changes nothing. Whether there is one.
    pub(crate) fn hear(&mut self, group: GroupId, take: impl FnOnce(&mut Group)) -> bool {
        let Some(place) = self.place(group) else { return false };
        let Some(replica) = self.places[place].awake(self.now) else { return false };
        take(replica);
        self.settle(place);
        true
    }

    /// Lets a replica sleep if it can, and finds out when it has to do something next.
    fn settle(&mut self, place: usize) {
        let found = &mut self.places[place];
        let Some(replica) = &found.replica else { return };
        found.doze = replica.doze();
        found.due = self.now + found.doze.as_ref().map_or(1, Doze::due);
        if replica.wants_turn() && !std::mem::replace(&mut found.busy, true) {
            self.busy.push(place);
        }
    }

    /// A tick: whoever is due takes it.
    pub(crate) fn tick<D: Disk>(&mut self, io: &mut Io<D>) {
        let before = self.now;
        self.now += 1;
        for place in 0..self.places.len() {
            let found = &mut self.places[place];
            if found.due > self.now {
                continue;
            }
            if let Some(doze) = &mut found.doze {
                let group = GroupId(place as u32 * self.shards + self.shard);
                let ticks = self.now - found.ticked;
                if doze.tick(ticks, io.now_us, |to, message| io.peers.send(to, group, &message)) {
                    found.due = found.ticked + doze.due();
                    continue;
                }
            }
            if let Some(replica) = found.awake(before) {
                replica.tick(io);
                found.ticked = self.now;
                self.settle(place);
            }
        }
    }

    /// A turn: whoever has something to do goes on with it, and is looked at again while it has.
    pub(crate) fn turn(&mut self, mut go_on: impl FnMut(&mut Group)) {
        let mut busy = std::mem::take(&mut self.busy);
        busy.sort_unstable();
        for place in busy.drain(..) {
            let found = &mut self.places[place];
            found.busy = false;
            if found.doze.is_some() {
                continue;
            }
            let Some(replica) = found.awake(self.now) else { continue };
            if replica.wants_turn() {
                replica.unsettle();
                go_on(replica);
            }
            self.settle(place);
        }
        if self.busy.is_empty() {
            self.busy = busy; // its memory
        }
    }

    /// Ticks since their number was last a multiple of `period`.
    pub(crate) fn ticks_since(&self, period: u32) -> u32 {
        (self.now % u64::from(period)) as u32
    }

    /// Whether a group's replica holds a lease when the clock shows `now_us`.
    pub(crate) fn holds_lease(&self, group: GroupId, now_us: u64) -> bool {
        let Some(found) = self.place(group).map(|place| &self.places[place]) else { return false };
        let slept = found.doze.map(|doze| (doze, self.now - found.ticked));
        found.replica.as_ref().is_some_and(|replica| replica.holds_lease(slept, now_us))
    }

    /// The replicas in the order of their groups, to look at.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.places.iter().filter_map(|place| place.replica.as_deref())
    }

    /// Something came for every replica.
    pub(crate) fn for_each(&mut self, mut take: impl FnMut(&mut Group)) {
        for place in 0..self.places.len() {
            if let Some(replica) = self.wake(place) {
                take(replica);
            }
        }
    }

    /// Puts a replica in its place.
    ///
    /// # Panics
    /// When the group does not belong to this shard.
    pub(crate) fn insert(&mut self, group: Group) {
        let place = self.place(group.id()).expect("a group of this shard");
        let found = &mut self.places[place];
        (found.replica, found.ticked) = (Some(Box::new(group)), self.now);
        let _: Option<&mut Group> = self.wake(place);
    }

    pub(crate) fn remove(&mut self, group: GroupId) -> Option<Box<Group>> {
        let place = self.place(group)?;
        self.wake(place)?;
        self.places[place].due = u64::MAX;
        self.places[place].replica.take()
    }
}
