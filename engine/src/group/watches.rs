//! Those who watch a group: told what changes as it is applied, at any replica, as far as their connections take it.
//!
//! Off the data path: nothing waits for them.
//! Invariants: a watch is told every change from where it began, in order, each once, or that it is over; what it was not
//! told yet waits in the machine's latest changes (`state_machine::recent`), so a slow connection costs no memory of its
//! own, and a watch that falls out of them is ended; what is told is committed; however many watch, a turn spends a bounded
//! time on them, and they take turns.
//!
//! ```text
//!   Watch ──▶ At(cursor) ── turn: more was applied ──▶ Changes, up to WATCH_QUEUE_BYTES unsent ──▶ the rest with a tick
//!        │                                         └──▶ TURN_BYTES were looked at ──▶ the rest with the next turn
//!        └──▶ Ahead(index): not applied here yet        forgotten ──▶ Ended TooSlow
//!                            no leader heard, replica or node goes ──▶ Ended Unavailable: others know more
//! ```
//! It does not count connections and watches: `shard::clients` does.

use ringraft_net::limits::{WATCH_BYTES_MAX, WATCH_EVENTS_MAX};
use ringraft_net::wire::{WatchEnd, WatchEventRef, WatchRequest};
use ringraft_raft::Index;
use ringraft_wal::Disk;

use super::Group;
use crate::shard::clients::{Asker, Clients};
use crate::shard::io::Io;
use crate::state_machine::{Cursor, PortionBounds, Recent};

/// Unsent bytes of a connection above which it is told nothing more.
const WATCH_QUEUE_BYTES: usize = 512 << 10;

/// Bytes of changes that a turn of a shard looks at for all its watches, and copies at most; each watch has an equal part.
const TURN_BYTES: usize = 256 << 10;
/// One visit of a watch costs as much as so many bytes.
const VISIT_BYTES: usize = 128;
/// Bytes that one watch looks at before the next one has its turn, if that is not more than the part of its group.
const VISIT_BYTES_MAX: usize = 32 << 10;

/// Where a watch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Before a change, or behind all of them.
    At(Cursor),
    /// It begins with an entry that is not applied here.
    Ahead(Index),
}

#[derive(Debug)]
struct Watcher {
    asker: Asker,
    prefix: Box<[u8]>,
    place: Place,
    /// Bytes of others' changes since it was told something.
    passed_bytes: usize,
    /// It has not been told anything.
    is_new: bool,
    /// Its connection was full when it was last visited.
    is_behind: bool,
}

/// What became of telling a watch.
enum Told {
    Everything,
    /// It has looked at as much as a visit may.
    More,
    /// The connection is full.
    Behind,
    Closed,
    Forgotten,
}

/// All watches of a replica.
#[derive(Debug, Default)]
pub(crate) struct Watches {
    watchers: Vec<Watcher>,
    /// What was applied when all were told.
    told_index: Index,
    /// Some have not been told everything, since their connections are full.
    behind: bool,
    /// Some have not been told everything, since it was too much for one turn.
    unfinished: bool,
    /// The next one to visit.
    next: usize,
}

impl Watches {
    /// Whether a turn has something to tell.
    pub(crate) fn want_turn(&self, last_applied: Index) -> bool {
        !self.watchers.is_empty() && (self.unfinished || self.told_index != last_applied)
    }

    /// Whether a tick has something to tell.
    pub(crate) fn are_behind(&self) -> bool {
        self.behind
    }
}

impl Watcher {
    /// Tells what its connection takes, as far as a visit of a group whose part of the turn is `share` goes. Adds what it
    /// cost to `spent`.
    fn tell(
        &mut self,
        group: u32,
        (recent, last_applied): (&Recent, Index),
        clients: &mut Clients,
        (share, spent): (usize, &mut usize),
    ) -> Told {
        *spent += VISIT_BYTES;
        let mut left = share.min(VISIT_BYTES_MAX);
        loop {
            match clients.takes_more(self.asker.connection, WATCH_QUEUE_BYTES) {
                None => return Told::Closed,
                Some(false) => return Told::Behind,
                Some(true) => {}
            }
            let cursor = match self.place {
                Place::At(cursor) => Some(cursor),
                Place::Ahead(index) if index > last_applied => {
                    if self.is_new {
                        self.send(group, index, &[], clients);
                    }
                    return Told::Everything;
                }
                Place::Ahead(index) => recent.seek(index),
            };
            let Some(cursor) = cursor else { return Told::Forgotten };
            if recent.is_end(cursor) && !self.is_new {
                return Told::Everything;
            }
            if left == 0 {
                return Told::More;
            }
            let mut items = Vec::new();
            let bounds =
                PortionBounds { changes_max: WATCH_EVENTS_MAX, bytes_max: WATCH_BYTES_MAX, passed_bytes_max: left };
            let Some(read) = recent.read(cursor, &self.prefix, &bounds, &mut items) else { return Told::Forgotten };
            self.place = Place::At(read.cursor);
            self.passed_bytes += read.passed_bytes;
            left = left.saturating_sub(read.passed_bytes);
            *spent += read.passed_bytes;
            if !items.is_empty() || self.is_new || self.passed_bytes > recent.news_bytes() {
                self.send(group, read.next.unwrap_or(last_applied + 1), &items, clients);
            }
        }
    }

    fn send(&mut self, group: u32, next: Index, items: &[u8], clients: &mut Clients) {
        let out = clients.outgoing(self.asker.connection);
        WatchEventRef::Changes { group, next, items }.append_frame(out, self.asker.correlation);
        (self.passed_bytes, self.is_new) = (0, false);
    }

    fn end(&self, group: u32, end: WatchEnd, index: Index, message: &str, clients: &mut Clients) {
        clients.end_watch(self.asker.connection);
        end_watch(self.asker, group, end, index, message, clients);
    }
}

/// Says that a watch is over.
pub(crate) fn end_watch(asker: Asker, group: u32, end: WatchEnd, index: Index, message: &str, clients: &mut Clients) {
    let out = clients.outgoing(asker.connection);
    WatchEventRef::Ended { group, end, index, message }.append_frame(out, asker.correlation);
}

impl Group {
    /// Whether a connection watches here under this correlation.
    pub(crate) fn watches(&self, asker: Asker) -> bool {
        self.watches.watchers.iter().any(|watcher| watcher.asker == asker)
    }

    /// A client wants to hear the changes of this group.
    pub(crate) fn watch<D: Disk>(&mut self, request: WatchRequest, asker: Asker, io: &mut Io<D>) {
        let group = self.id.0;
        let clients = &mut io.clients;
        self.watches.watchers.retain(|watcher| clients.takes_more(watcher.asker.connection, 1).is_some());
        let Some(recent) = self.machine.recent().filter(|_| self.serving && self.core.hears_leader()) else {
            let message = "this replica cannot tell how current it is; ask another, or again";
            return end_watch(asker, group, WatchEnd::Unavailable, 0, message, clients);
        };
        let next = self.machine.last_applied() + 1;
        let from = if request.from == 0 { next } else { request.from };
        let place = if from > next { Some(Place::Ahead(from)) } else { recent.seek(from).map(Place::At) };
        let Some(place) = place else {
            let first = recent.first_index();
            let message = format!("changes before index {first} of group {group} are forgotten");
            return end_watch(asker, group, WatchEnd::Compacted, first, &message, clients);
        };
        if !clients.begin_watch(asker.connection) {
            let message = "this shard has as many watches as it may (watches_max)";
            return end_watch(asker, group, WatchEnd::Overloaded, 0, message, clients);
        }
        let prefix = request.prefix.into_boxed_slice();
        self.watches.watchers.push(Watcher { asker, prefix, place, passed_bytes: 0, is_new: true, is_behind: false });
        self.watches.unfinished = true;
    }

    /// A client does not want to hear more.
    pub(crate) fn unwatch<D: Disk>(&mut self, asker: Asker, io: &mut Io<D>) {
        self.watches.watchers.retain(|watcher| {
            let stays = watcher.asker != asker;
            if !stays {
                io.clients.end_watch(asker.connection);
            }
            stays
        });
    }

    /// A turn: tells those who watch what was applied since they were told, as far as their connections take it and the
    /// part of the turn goes that is theirs.
    pub(crate) fn tell_watchers<D: Disk>(&mut self, io: &mut Io<D>) {
        if !self.watches.want_turn(self.machine.last_applied()) {
            return;
        }
        let Some(recent) = self.machine.recent() else { return };
        let (group, last_applied) = (self.id.0, self.machine.last_applied());
        let (watches, clients) = (&mut self.watches, &mut io.clients);
        let count = watches.watchers.len();
        let share = (TURN_BYTES / clients.watches().max(1)).max(VISIT_BYTES) * count;
        let mut spent = 0;
        (watches.told_index, watches.unfinished) = (last_applied, false);
        let mut over = Vec::new();
        for _ in 0..count {
            if spent >= share {
                watches.unfinished = true;
                break;
            }
            let at = watches.next % count;
            watches.next = at + 1;
            let watcher = &mut watches.watchers[at];
            let told = watcher.tell(group, (recent, last_applied), clients, (share, &mut spent));
            watcher.is_behind = matches!(told, Told::Behind);
            match told {
                Told::Everything | Told::Behind => {}
                Told::More => watches.unfinished = true,
                Told::Closed => over.push(at),
                Told::Forgotten => {
                    let message = "what follows is forgotten: it was not taken in time";
                    watcher.end(group, WatchEnd::TooSlow, 0, message, clients);
                    over.push(at);
                }
            }
        }
        io.counters.watch_bytes += spent as u64;
        over.sort_unstable();
        for at in over.into_iter().rev() {
            watches.watchers.remove(at);
            watches.next -= usize::from(at < watches.next);
        }
        watches.behind = watches.watchers.iter().any(|watcher| watcher.is_behind);
        io.more_work |= watches.unfinished;
    }

    /// A tick: goes on with those whose connections were full; a replica that hears no leader may miss what others know.
    pub(super) fn tick_watches<D: Disk>(&mut self, io: &mut Io<D>) {
        if self.watches.watchers.is_empty() {
            return;
        }
        if !self.core.hears_leader() {
            return self.end_watches("this replica hears no leader; ask another", io);
        }
        self.watches.unfinished |= self.watches.behind;
    }

    /// Nobody is told anything here any more: the replica or the node goes away.
    pub(crate) fn end_watches<D: Disk>(&mut self, message: &str, io: &mut Io<D>) {
        for watcher in std::mem::take(&mut self.watches.watchers) {
            watcher.end(self.id.0, WatchEnd::Unavailable, 0, message, &mut io.clients);
        }
        self.watches.behind = false;
    }

    /// A leader's snapshot took the place of the state: what it changed nobody can be told.
    pub(super) fn compact_watches<D: Disk>(&mut self, io: &mut Io<D>) {
        let (group, first) = (self.id.0, self.machine.last_applied() + 1);
        let message = format!("changes before index {first} of group {group} are in a snapshot");
        self.watches.watchers.retain(|watcher| {
            let stays = matches!(watcher.place, Place::Ahead(index) if index >= first);
            if !stays {
                watcher.end(group, WatchEnd::Compacted, first, &message, &mut io.clients);
            }
            stays
        });
    }
}
