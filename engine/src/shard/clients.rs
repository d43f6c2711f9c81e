//! The client connections of one shard: what is to be written to each, without any socket.
//!
//! Data path 9/9: replies of a turn are encoded straight into the connection's outgoing bytes and leave in one send.
//! Invariants: a `ConnectionId` of a closed connection never reaches a later one (generation);
//! outgoing bytes are bounded, a connection that does not read its replies is closed.

/// Names one client connection of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId {
    /// Place in the table, reused.
    pub slot: u32,
    /// Tells the users of a place apart.
    pub generation: u32,
}

/// Who asked: a connection and the number it gave its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// Where the reply goes.
    pub connection: ConnectionId,
    /// Repeated in the reply's frame header.
    pub correlation: u32,
}

impl Asker {
    /// Whoever needs no answer: replies to it vanish, as to a connection that is closed.
    pub(crate) const NOBODY: Self = Self { connection: ConnectionId { slot: u32::MAX, generation: 0 }, correlation: 0 };
}

#[derive(Debug, Default)]
struct Client {
    generation: u32,
    open: bool,
    dirty: bool,
    overflowed: bool,
    outgoing: Vec<u8>,
    watches: usize,
}

/// All client connections of a shard.
#[derive(Debug)]
pub struct Clients {
    slots: Vec<Client>,
    free: Vec<u32>,
    dirty: Vec<ConnectionId>,
    outgoing_bytes_max: usize,
    connections_max: usize,
    scratch: Vec<u8>,
    /// Of all connections.
    watches: usize,
    watches_max: usize,
}

impl Clients {
    /// `connections_max` open connections at once, `outgoing_bytes_max` unsent reply bytes for each, `watches_max` watches of
    /// all together.
    #[must_use]
    pub fn new(connections_max: usize, outgoing_bytes_max: usize, watches_max: usize) -> Self {
        let (slots, free, dirty, scratch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { slots, free, dirty, outgoing_bytes_max, connections_max, scratch, watches: 0, watches_max }
    }

    /// Registers a connection; `None` when the shard has as many as it may.
    pub fn open(&mut self) -> Option<ConnectionId> {
        if self.open_count() >= self.connections_max {
            return None;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Client::default());
            (self.slots.len() - 1) as u32
        });
        let client = &mut self.slots[slot as usize];
        client.generation = client.generation.wrapping_add(1);
        client.open = true;
        client.overflowed = false;
        Some(ConnectionId { slot, generation: client.generation })
    }

    /// Other bounds from now on; connections beyond them stay until they end.
    pub(super) fn set_bounds(&mut self, connections_max: usize, outgoing_bytes_max: usize) {
        (self.connections_max, self.outgoing_bytes_max) = (connections_max, outgoing_bytes_max);
    }

    /// Forgets a connection; replies to it vanish from now on.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(client) = self.find(id) {
            client.open = false;
            client.dirty = false;
            client.outgoing = Vec::new();
            let watches = std::mem::take(&mut client.watches);
            self.watches -= watches;
            self.free.push(id.slot);
        }
    }

    /// A connection has one more watch; `false`: it is closed, or there are as many as may be.
    pub(crate) fn begin_watch(&mut self, id: ConnectionId) -> bool {
        let allowed = self.watches < self.watches_max;
        let Some(client) = self.find(id).filter(|_| allowed) else { return false };
        client.watches += 1;
        self.watches += 1;
        true
    }

    /// A watch of a connection is over; closed connections have none.
    pub(crate) fn end_watch(&mut self, id: ConnectionId) {
        if let Some(client) = self.find(id).filter(|client| client.watches > 0) {
            client.watches -= 1;
            self.watches -= 1;
        }
    }

    /// Watches of all connections.
    #[must_use]
    pub fn watches(&self) -> usize {
        self.watches
    }

    /// Whether a connection has fewer unsent bytes than this, and than it may; `None`: it is closed, or is about to be.
    pub(crate) fn takes_more(&mut self, id: ConnectionId, bytes_max: usize) -> Option<bool> {
        let bytes_max = bytes_max.min(self.outgoing_bytes_max);
        self.find(id).filter(|client| !client.overflowed).map(|client| client.outgoing.len() < bytes_max)
    }

    fn find(&mut self, id: ConnectionId) -> Option<&mut Client> {
        let client = self.slots.get_mut(id.slot as usize)?;
        (client.open && client.generation == id.generation).then_some(client)
    }

    /// Where the bytes of a reply go; bytes for a closed or overflowed connection are written and forgotten.
    pub fn outgoing(&mut self, id: ConnectionId) -> &mut Vec<u8> {
        let bytes_max = self.outgoing_bytes_max;
        let usable = match self.find(id) {
            Some(client) if client.outgoing.len() > bytes_max => {
                client.overflowed = true;
                false
            }
            Some(client) => !client.overflowed,
            None => false,
        };
        if !usable {
            self.scratch.clear();
            return &mut self.scratch;
        }
        let client = &mut self.slots[id.slot as usize];
        if !client.dirty {
            client.dirty = true;
            self.dirty.push(id);
        }
        &mut client.outgoing
    }

    /// The next connection with unsent bytes since the last call.
    pub fn next_dirty(&mut self) -> Option<ConnectionId> {
        while let Some(id) = self.dirty.pop() {
            if let Some(client) = self.find(id)
                && client.dirty
            {
                client.dirty = false;
                return Some(id);
            }
        }
        None
    }

    /// Exchanges the outgoing bytes with `empty`, whose memory is used from now on. `false`: the connection must close.
    pub fn take_outgoing(&mut self, id: ConnectionId, empty: &mut Vec<u8>) -> bool {
        debug_assert!(empty.is_empty());
        match self.find(id) {
            Some(client) if !client.overflowed => {
                std::mem::swap(&mut client.outgoing, empty);
                true
            }
            _ => false,
        }
    }

    /// Unsent bytes of the connection with most of them.
    #[must_use]
    pub fn longest_outgoing_bytes(&self) -> usize {
        self.slots.iter().map(|client| client.outgoing.len()).max().unwrap_or(0)
    }

    /// Open connections.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_never_reaches_the_next_user_of_a_slot() {
        let mut clients = Clients::new(1, 100, 1);
        let first = clients.open().expect("room for one");
        assert!(clients.open().is_none(), "the bound holds");
        clients.close(first);
        let second = clients.open().expect("the place is free again");
        assert_eq!(first.slot, second.slot);
        clients.outgoing(first).extend_from_slice(b"late");
        assert!(clients.next_dirty().is_none());
        clients.outgoing(second).extend_from_slice(b"hello");
        assert_eq!(clients.next_dirty(), Some(second));
        let mut bytes = Vec::new();
        assert!(clients.take_outgoing(second, &mut bytes));
        assert_eq!(bytes, b"hello");
        assert_eq!(clients.open_count(), 1);
    }

    #[test]
    fn new_bounds_hold_for_those_who_come() {
        let mut clients = Clients::new(2, 100, 2);
        let (first, second) = (clients.open().unwrap(), clients.open().unwrap());
        clients.set_bounds(1, 100);
        assert!(clients.find(first).is_some() && clients.find(second).is_some(), "who is there stays");
        clients.close(second);
        assert_eq!(clients.open(), None);
        clients.close(first);
        assert!(clients.open().is_some());
        assert_eq!(clients.open(), None, "places that are free again are not more places");
    }

    #[test]
    fn watches_are_counted_until_they_or_their_connections_end() {
        let mut clients = Clients::new(2, 100, 2);
        let (first, second) = (clients.open().expect("room"), clients.open().expect("room"));
        assert!(clients.begin_watch(first) && clients.begin_watch(second));
        assert!(!clients.begin_watch(first), "two are allowed");
        clients.end_watch(first);
        clients.end_watch(first);
        assert_eq!((clients.watches(), clients.takes_more(first, 1)), (1, Some(true)));
        clients.close(second);
        assert_eq!((clients.watches(), clients.takes_more(second, 1)), (0, None));
        assert!(!clients.begin_watch(second), "it is closed");
        clients.end_watch(second);
        assert!(clients.begin_watch(first) && clients.begin_watch(first));
        clients.outgoing(first).extend_from_slice(&[0; 100]);
        assert_eq!([99, 101, 1_000].map(|bytes| clients.takes_more(first, bytes)), [Some(false); 3]);
    }

    #[test]
    fn a_connection_that_does_not_read_is_closed() {
        let mut clients = Clients::new(4, 10, 1);
        let id = clients.open().expect("room");
        for _ in 0..3 {
            clients.outgoing(id).extend_from_slice(b"0123456789");
        }
        let mut bytes = Vec::new();
        assert!(!clients.take_outgoing(id, &mut bytes), "12 bytes were already waiting");
        assert!(bytes.is_empty());
    }
}
