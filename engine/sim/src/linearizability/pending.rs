//! The known calls that are not yet placed, in the order of their beginnings and in that of their ends.
//!
//! Off the data path.
//! Two doubly linked lists through arrays; removing keeps the links of what is removed, so restoring is as cheap.
//! Invariant: calls are restored in the reverse order of their removal.

/// See the file's head. Calls are numbered by rank.
#[derive(Debug)]
pub(super) struct Pending {
    spans: Vec<(u64, u64)>,
    by_invoked: Links,
    by_returned: Links,
    count: usize,
}

/// One list; the last place is its head.
#[derive(Debug)]
struct Links {
    next: Vec<u32>,
    previous: Vec<u32>,
}

impl Links {
    fn in_order(mut order: Vec<u32>) -> Self {
        let head = order.len() as u32;
        order.push(head);
        let mut links = Self { next: vec![0; order.len()], previous: vec![0; order.len()] };
        for (at, this) in order.iter().enumerate() {
            let next = order[(at + 1) % order.len()];
            links.next[*this as usize] = next;
            links.previous[next as usize] = *this;
        }
        links
    }

    fn remove(&mut self, this: u32) {
        let (previous, next) = (self.previous[this as usize], self.next[this as usize]);
        self.next[previous as usize] = next;
        self.previous[next as usize] = previous;
    }

    fn restore(&mut self, this: u32) {
        let (previous, next) = (self.previous[this as usize], self.next[this as usize]);
        self.next[previous as usize] = this;
        self.previous[next as usize] = this;
    }
}

impl Pending {
    /// All of them pending: when each began and ended.
    pub(super) fn new(spans: impl Iterator<Item = (u64, u64)>) -> Self {
        let spans: Vec<(u64, u64)> = spans.collect();
        let ranks = || (0..spans.len() as u32).collect::<Vec<_>>();
        let (mut by_invoked, mut by_returned) = (ranks(), ranks());
        by_invoked.sort_by_key(|rank| spans[*rank as usize].0);
        by_returned.sort_by_key(|rank| spans[*rank as usize].1);
        let (by_invoked, by_returned) = (Links::in_order(by_invoked), Links::in_order(by_returned));
        Self { count: spans.len(), spans, by_invoked, by_returned }
    }

    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn remove(&mut self, rank: u32) {
        self.by_invoked.remove(rank);
        self.by_returned.remove(rank);
        self.count -= 1;
    }

    pub(super) fn restore(&mut self, rank: u32) {
        self.by_invoked.restore(rank);
        self.by_returned.restore(rank);
        self.count += 1;
    }

    /// When the first of them ended; nothing that began later may come before it.
    pub(super) fn first_return(&self) -> u64 {
        let first = self.by_returned.next[self.spans.len()];
        self.spans.get(first as usize).map_or(u64::MAX, |span| span.1)
    }

    /// All of them, in the order of their beginnings.
    pub(super) fn in_order(&self) -> impl Iterator<Item = u32> {
        let mut at = self.spans.len() as u32;
        std::iter::from_fn(move || {
            at = self.by_invoked.next[at as usize];
            ((at as usize) < self.spans.len()).then_some(at)
        })
    }

    /// Those that began before any of them ended.
    pub(super) fn first(&self) -> impl Iterator<Item = u32> {
        let latest = self.first_return();
        self.in_order().take_while(move |rank| self.spans[*rank as usize].0 <= latest)
    }
}
