//! The connections of a client, without sockets: what is to be sent on each and how far its handshake is.
//!
//! Invariants: no request is sent before the `Welcome`; a broken connection is dialed again after a growing pause;
//! unparsed input is bounded by the frame limit.

use super::core::Action;

/// Names a connection of a client; reused when it is dialed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkId(pub usize);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be dialed at this time.
    Pausing { until_us: u64 },
    /// The host dials.
    Dialing,
    /// `Hello` is sent.
    Greeting,
    /// Requests may go.
    Ready,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: String,
    pub(super) state: State,
    pub(super) outgoing: Vec<u8>,
    pub(super) dirty: bool,
    /// The beginning of a frame whose rest has not come.
    pub(super) input: Vec<u8>,
    pub(super) failures: u32,
}

/// All connections of a client.
#[derive(Debug, Default)]
pub(super) struct Links {
    pub(super) links: Vec<Link>,
    pub(super) dirty: Vec<LinkId>,
    pub(super) actions: std::collections::VecDeque<Action>,
}

impl Links {
    /// The `number`th connection to an address, dialed when it is new.
    pub(super) fn to(&mut self, address: &str, number: usize) -> LinkId {
        let same = self.links.iter().enumerate().filter(|(_, link)| link.address == address).nth(number);
        if let Some((place, _)) = same {
            return LinkId(place);
        }
        let id = LinkId(self.links.len());
        self.links.push(Link {
            address: address.to_owned(),
            state: State::Dialing,
            outgoing: Vec::new(),
            dirty: false,
            input: Vec::new(),
            failures: 0,
        });
        self.actions.push_back(Action::Connect { link: id, address: address.to_owned() });
        id
    }

    pub(super) fn get(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(id.0)
    }

    pub(super) fn is_ready(&self, id: LinkId) -> bool {
        self.links.get(id.0).is_some_and(|link| link.state == State::Ready)
    }

    /// Where bytes for a connection are appended.
    pub(super) fn outgoing(&mut self, id: LinkId) -> &mut Vec<u8> {
        let link = &mut self.links[id.0];
        if !link.dirty {
            link.dirty = true;
            self.dirty.push(id);
        }
        &mut link.outgoing
    }

    /// Dials again what has paused long enough.
    pub(super) fn tick(&mut self, now_us: u64) {
        for (place, link) in self.links.iter_mut().enumerate() {
            if let State::Pausing { until_us } = link.state
                && until_us <= now_us
            {
                link.state = State::Dialing;
                self.actions.push_back(Action::Connect { link: LinkId(place), address: link.address.clone() });
            }
        }
    }
}
