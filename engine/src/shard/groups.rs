//! The replicas of one shard, by group.
//!
//! Off the data path itself; every event for a group goes through here.
//! Invariant: group `g` has its place at `g / shards` in the shard `g % shards`; a place is empty while the node holds no
//! replica of the group.

use ringraft_raft::GroupId;

use crate::group::Group;

/// Places for all groups of a shard.
pub(crate) struct Groups {
    shard: u32,
    shards: u32,
    places: Vec<Option<Box<Group>>>,
}

impl Groups {
    /// Empty places for those of `groups` groups that belong to `shard` of `shards`.
    pub(crate) fn new(shard: u16, shards: u16, groups: u32) -> Self {
        let (shard, shards) = (u32::from(shard), u32::from(shards));
        let places = (shard..groups).step_by(shards as usize).map(|_| None).collect();
        Self { shard, shards, places }
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

    pub(crate) fn get(&self, group: GroupId) -> Option<&Group> {
        self.places[self.place(group)?].as_deref()
    }

    pub(crate) fn get_mut(&mut self, group: GroupId) -> Option<&mut Group> {
        let place = self.place(group)?;
        self.places[place].as_deref_mut()
    }

    /// The replicas in the order of their groups.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.places.iter().flatten().map(AsRef::as_ref)
    }

    /// The same, to be changed.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.places.iter_mut().flatten().map(AsMut::as_mut)
    }

    /// Puts a replica in its place.
    ///
    /// # Panics
    /// When the group does not belong to this shard.
    pub(crate) fn insert(&mut self, group: Group) {
        let place = self.place(group.id()).expect("a group of this shard");
        self.places[place] = Some(Box::new(group));
    }

    pub(crate) fn remove(&mut self, group: GroupId) -> Option<Box<Group>> {
        let place = self.place(group)?;
        self.places[place].take()
    }
}
