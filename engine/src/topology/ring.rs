//! The consistent-hash ring: which nodes hold a group, so that few groups move when nodes come and go.
//!
//! Off the data path.
//!
//! ```text
//!       point of seat 2      group 7 is hashed here         Every seat has many points. A group is held by the first
//!   ──────●────────────────────▼────●───────●──────●──>     distinct seats clockwise of its own hash, those left out
//!                                 seat 1  seat 3  seat 1    that are full already.
//! ```
//!
//! Invariants: a group has `min(factor, seats)` distinct seats; no seat holds more than its capacity, 5/4 of the average
//! rounded up; the hash is XXH3 with fixed seeds, so every node of every release computes the same; the order in which
//! seats are named does not matter.
//!
//! Group 0 is not part of the load: every node holds it. The ring does not know what is there already.

use ringraft_raft::GroupId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::valid::NODES_MAX;

/// Points of one seat: enough that shares differ by a few percent before capacities even them out.
const POINTS_PER_SEAT: u64 = 256;

const SEED_OF_POINTS: u64 = 0x7269_6e67_7365_6174;
const SEED_OF_GROUPS: u64 = 0x7269_6e67_6772_6f75;

/// The most a seat may hold, as a ratio to the average.
const LOAD_NUMERATOR: usize = 5;
const LOAD_DENOMINATOR: usize = 4;

/// Seats with their points. Seats are named by their place in the sorted list from here on.
pub(super) struct Ring {
    /// Hash and place of the seat, sorted.
    points: Vec<(u64, usize)>,
    seats: usize,
}

impl Ring {
    /// The ring of these seats.
    ///
    /// # Panics
    /// When there are more than [`NODES_MAX`].
    #[must_use]
    pub(super) fn new(seats: impl IntoIterator<Item = u64>) -> Self {
        let mut seats: Vec<u64> = seats.into_iter().collect();
        seats.sort_unstable();
        seats.dedup();
        assert!(seats.len() <= NODES_MAX, "a ring has at most {NODES_MAX} seats, not {}", seats.len());
        let mut points: Vec<(u64, usize)> = seats
            .iter()
            .enumerate()
            .flat_map(|(place, &seat)| (0..POINTS_PER_SEAT).map(move |number| (point(seat, number), place)))
            .collect();
        points.sort_unstable();
        Self { points, seats: seats.len() }
    }

    /// The first `count` seats of a group, however much they hold, in the order of the ring; fewer if there are fewer.
    #[must_use]
    pub(super) fn first(&self, group: GroupId, count: usize) -> Vec<usize> {
        self.walk(group).take(count).collect()
    }

    /// The seats of groups `1..groups`, each in the order of the ring, none beyond [`Ring::capacity`].
    #[must_use]
    pub(super) fn place(&self, groups: u32, factor: usize) -> Vec<Vec<usize>> {
        let factor = factor.min(self.seats);
        let data_groups = (groups as usize).saturating_sub(1);
        let mut room = vec![Self::capacity(data_groups, factor, self.seats); self.seats];
        let place = |(before, group)| self.place_one(GroupId(group), factor, data_groups - before, &mut room);
        (1..groups).enumerate().map(place).collect()
    }

    /// What a seat holds at most when `seats` hold `groups` groups `factor` times.
    #[must_use]
    pub(super) fn capacity(groups: usize, factor: usize, seats: usize) -> usize {
        (groups * factor * LOAD_NUMERATOR).div_ceil((seats * LOAD_DENOMINATOR).max(1))
    }

    /// Places one group while `left` groups, this one included, are still without seats.
    ///
    /// The groups left find room as long as `sum over seats of min(room, left) >= factor * left`. A seat whose room is at
    /// least `left` loses one of its share in that sum if this group does not go there, so at most `slack` of those
    /// are passed over. That always leaves enough to choose from.
    fn place_one(&self, group: GroupId, factor: usize, left: usize, room: &mut [usize]) -> Vec<usize> {
        let usable: usize = room.iter().map(|&room| room.min(left)).sum();
        let slack = usable - factor * left;
        let roomy = room.iter().filter(|&&room| room >= left).count();
        let mut owed = roomy.saturating_sub(slack);
        let mut chosen = Vec::with_capacity(factor);
        for seat in self.walk(group).filter(|&seat| room[seat] > 0) {
            if chosen.len() == factor {
                break;
            }
            if room[seat] >= left {
                owed = owed.saturating_sub(1);
            } else if chosen.len() + owed >= factor {
                continue;
            }
            chosen.push(seat);
        }
        debug_assert_eq!(chosen.len(), factor, "{group} finds its seats");
        for &seat in &chosen {
            room[seat] -= 1;
        }
        chosen
    }

    /// Every seat once, in the order of the ring from the group's hash on.
    fn walk(&self, group: GroupId) -> impl Iterator<Item = usize> {
        let hash = xxh3_64_with_seed(&group.0.to_le_bytes(), SEED_OF_GROUPS);
        let start = self.points.partition_point(|(point, _)| *point < hash);
        let mut seen = 0_u64;
        let seats = self.points[start..].iter().chain(&self.points[..start]).map(|(_, place)| *place);
        seats
            .filter(move |place| {
                let is_new = seen & (1 << place) == 0;
                seen |= 1 << place;
                is_new
            })
            .take(self.seats)
    }
}

const _: () = assert!(NODES_MAX <= u64::BITS as usize, "a walk marks the seats it saw in one word");

fn point(seat: u64, number: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&seat.to_le_bytes());
    bytes[8..].copy_from_slice(&number.to_le_bytes());
    xxh3_64_with_seed(&bytes, SEED_OF_POINTS)
}
