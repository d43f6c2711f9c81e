//! From the core's messages to frames on the peers' links; entries that left the cache are read from the WAL first.
//!
//! Data path 6b/9.
//! Invariants: the entries of an AppendEntries go out with the very bytes of their WAL records; the messages with
//! entries for one follower leave in the order the core made them (those behind a disk read wait in `backlog`, which
//! the core's window bounds).

use std::collections::VecDeque;

use ringraft_raft::{EntryId, Index, Message, NodeId, Role};
use ringraft_wal::{Disk, EntryBytes, ReadTicket};

use super::Group;
use crate::shard::io::{Fatal, Io};

/// One other replica, as seen by the sender of entries.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) node: NodeId,
    /// Messages with entries that wait for a disk read; the first one's entries are being read.
    backlog: VecDeque<Message>,
    reading: Option<ReadTicket>,
}

impl Follower {
    pub(crate) fn new(node: NodeId) -> Self {
        Self { node, backlog: VecDeque::new(), reading: None }
    }

    /// Adds to the backlog. A message that does not continue it says that the core started over: what waits is of no use
    /// any more, and a probe repeated with every heartbeat must not pile up behind a slow disk. The read under way is
    /// waited for, since it mostly is the right one.
    fn queue(&mut self, message: Message) {
        if self.backlog.back().is_some_and(|last| !continues(last, &message)) {
            self.backlog.clear();
        }
        self.backlog.push_back(message);
    }
}

impl Group {
    /// Puts one message of the core on the link to `to`.
    pub(super) fn send<D: Disk>(&mut self, to: NodeId, message: Message, io: &mut Io<D>) {
        let Message::AppendEntries { count, .. } = message else {
            return io.peers.send(to, self.id, &message);
        };
        if count == 0 {
            return io.peers.send(to, self.id, &message);
        }
        let place = self.followers.iter().position(|follower| follower.node == to).unwrap_or_else(|| {
            self.followers.push(Follower::new(to)); // it goes when it is no member any more
            self.followers.len() - 1
        });
        if !self.followers[place].backlog.is_empty() {
            self.followers[place].queue(message);
        } else if !self.send_cached(to, message, io) {
            self.followers[place].backlog.push_back(message);
            self.read_for_backlog(place, io);
        }
    }

    /// Sends entries straight from the cache; `false` when some of them are only on the disk.
    fn send_cached<D: Disk>(&self, to: NodeId, message: Message, io: &mut Io<D>) -> bool {
        let Message::AppendEntries { term, prev, count, .. } = message else { return true };
        // What waited in a backlog since an earlier leadership must not leave: its indexes may mean other entries now.
        if term != self.core.term() || self.core.role() != Role::Leader {
            return true;
        }
        let (wal, group) = (&io.wal, self.id.0);
        io.peers.send_append(to, self.id, &message, |tail| {
            for index in prev.index + 1..=prev.index + u64::from(count) {
                let EntryBytes::Cached(record) = wal.entry_bytes(group, index) else { return false };
                tail.extend_from_slice(record);
            }
            true
        })
    }

    /// Asks the disk for the entries of the first message of a follower's backlog.
    fn read_for_backlog<D: Disk>(&mut self, place: usize, io: &mut Io<D>) {
        let follower = &mut self.followers[place];
        let Some(Message::AppendEntries { prev, .. }) = follower.backlog.front() else { return };
        let bytes_max = self.core.config().append_bytes_max as usize;
        match io.wal.read_entries(self.id.0, prev.index + 1, bytes_max, &mut io.disk) {
            Ok(ticket) => follower.reading = Some(ticket),
            Err(error) => io.fail(Fatal::Wal(error.to_string())),
        }
    }

    /// Verified records came off the disk; `true` when the ticket was one of this group's.
    pub(crate) fn on_read<D: Disk>(&mut self, ticket: ReadTicket, records: &[u8], io: &mut Io<D>) -> bool {
        if self.applying == Some(ticket) {
            self.apply_read(records, io);
            self.advance(super::Input::Nothing, io);
            return true;
        }
        let Some(place) = self.followers.iter().position(|follower| follower.reading == Some(ticket)) else {
            return false;
        };
        self.followers[place].reading = None;
        self.send_backlog(place, records, io);
        self.drain_backlog(place, io);
        true
    }

    /// Sends as many messages of a follower's backlog as one read covers: entries proposed while it lags are messages of
    /// their own, and a read for each would never catch up.
    fn send_backlog<D: Disk>(&mut self, place: usize, records: &[u8], io: &mut Io<D>) {
        let node = self.followers[place].node;
        let mut left = records;
        while let Some(message) = self.followers[place].backlog.pop_front() {
            if let Some(rest) = self.send_read(node, message, &mut left, io) {
                self.followers[place].backlog.push_front(rest);
                return;
            }
            if left.is_empty() {
                return;
            }
        }
    }

    /// Sends as much of `message` as `records` begin with and takes it from them; returns a message for the rest.
    fn send_read<D: Disk>(&self, to: NodeId, message: Message, records: &mut &[u8], io: &mut Io<D>) -> Option<Message> {
        let Message::AppendEntries { term, prev, leader_commit, count } = message else { return None };
        // The log may have changed while the disk was read: entries of an old leadership are not sent.
        if term != self.core.term() || self.core.role() != Role::Leader {
            return None;
        }
        let (mut offset, mut taken, mut last) = (0, 0, prev);
        while taken < count && offset < records.len() {
            let header = ringraft_wal::record::header(&records[offset..]);
            if header.index != last.index + 1 {
                break;
            }
            offset += ringraft_wal::record::padded_record_length(&records[offset..]);
            taken += 1;
            last = EntryId { term: header.term, index: header.index };
        }
        if taken == 0 {
            return (!records.is_empty()).then_some(message); // of a read that gave nothing the log has changed
        }
        let (now, later) = records.split_at(offset);
        *records = later;
        let sent = Message::AppendEntries { term, prev, leader_commit, count: taken };
        io.peers.send_append(to, self.id, &sent, |tail| {
            tail.extend_from_slice(now);
            true
        });
        (taken < count).then_some(Message::AppendEntries { term, prev: last, leader_commit, count: count - taken })
    }

    /// Sends what of the backlog is in the cache, then reads for the next.
    fn drain_backlog<D: Disk>(&mut self, place: usize, io: &mut Io<D>) {
        while let Some(message) = self.followers[place].backlog.front().copied() {
            if !self.send_cached(self.followers[place].node, message, io) {
                return self.read_for_backlog(place, io);
            }
            self.followers[place].backlog.pop_front();
        }
    }

    /// Forgets what waits for followers and begins below an index that is compacted: they need a snapshot now.
    pub(super) fn drop_backlogs_below(&mut self, index: Index) {
        let begins_below = |follower: &&mut Follower| matches!(follower.backlog.front(), Some(Message::AppendEntries { prev, .. }) if prev.index < index);
        for follower in self.followers.iter_mut().filter(begins_below) {
            follower.backlog.clear();
            follower.reading = None;
            self.core.unreachable(follower.node);
        }
    }

    /// Forgets what waits for `peer`; a read under way is ignored when it ends.
    pub(super) fn drop_backlog(&mut self, peer: NodeId) {
        for follower in self.followers.iter_mut().filter(|follower| follower.node == peer) {
            follower.backlog.clear();
            follower.reading = None;
        }
    }
}

/// Whether the entries of `next` follow those of `last`.
fn continues(last: &Message, next: &Message) -> bool {
    match (*last, *next) {
        (
            Message::AppendEntries { term, prev, count, .. },
            Message::AppendEntries { term: next_term, prev: next_prev, .. },
        ) => term == next_term && prev.index + u64::from(count) == next_prev.index,
        _ => false,
    }
}
