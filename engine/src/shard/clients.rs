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
}

impl Clients {
    /// `connections_max` open connections at once, `outgoing_bytes_max` unsent reply bytes for each.
    #[must_use]
    pub fn new(connections_max: usize, outgoing_bytes_max: usize) -> Self {
        let (slots, free, dirty, scratch) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { slots, free, dirty, outgoing_bytes_max, connections_max, scratch }
    }

    /// Registers a connection; `None` when the shard has as many as it may.
    pub fn open(&mut self) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < self.connections_max => {
                self.slots.push(Client::default());
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let client = &mut self.slots[slot as usize];
        client.generation = client.generation.wrapping_add(1);
        client.open = true;
        client.overflowed = false;
        Some(ConnectionId { slot, generation: client.generation })
    }

    /// Forgets a connection; replies to it vanish from now on.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(client) = self.find(id) {
            client.open = false;
            client.dirty = false;
            client.outgoing = Vec::new();
            self.free.push(id.slot);
        }
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
        let mut clients = Clients::new(1, 100);
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
    fn a_connection_that_does_not_read_is_closed() {
        let mut clients = Clients::new(4, 10);
        let id = clients.open().expect("room");
        for _ in 0..3 {
            clients.outgoing(id).extend_from_slice(b"0123456789");
        }
        let mut bytes = Vec::new();
        assert!(!clients.take_outgoing(id, &mut bytes), "12 bytes were already waiting");
        assert!(bytes.is_empty());
    }
}
