//! Watches over real sockets: a task that asks a replica of every group, and asks another when one does not answer.
//!
//! Off the data path.
//!
//! ```text
//!   Watch (handle) ◀── bounded channel ── Watcher task: where each group is, whom to ask ◀──┬── Link task: one socket to a
//!                                                                                           │   shard of a node, for all
//!                                                                                           └── groups that it is asked for
//! ```
//!
//! A replica that does not have the group, or cannot be reached, says that the nodes may have changed: when each known node
//! was asked in vain and when a link ends, the client looks for the nodes anew. Once in a while it does so even when
//! nothing happens, so that it does not sleep through a change of all nodes.
//!
//! Invariants: memory is bounded by the channel, one frame of each link and the groups; a handle that is not read from
//! stops the task, then the links, then the nodes; when the handle is dropped everything ends.
//!
//! What is told and what is not, `Progress` decides.

use super::{Progress, WatchFrom, WatchMessage};
use crate::buffer::ReceiveBuffer;
use crate::client::tokio::{Client, ClusterInfo};
use crate::client::{Address, ClientError};
use crate::frame::{self, FrameKind};
use crate::handshake::Dialer;
use crate::limits::{KEY_BYTES_MAX, Limits};
use crate::link::ceiling_us;
use crate::socket;
use crate::wire::{self, WatchEnd, WatchEvent, WatchRequest};
use ::tokio::io::{AsyncReadExt, AsyncWriteExt};
use ::tokio::net::TcpStream;
use ::tokio::sync::mpsc;
use ::tokio::time::{Instant, sleep_until, timeout};
use std::collections::BTreeMap;
use std::time::Duration;

/// Messages between the task and its handle at most.
const MESSAGES_MAX: usize = 1_024;
/// Frames between the links and the task at most.
const EVENTS_MAX: usize = 16;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF_MIN_US: u64 = 10_000;
const BACKOFF_MAX_US: u64 = 1_000_000;
/// How often the client looks for the nodes while nothing happens.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// What a node told within this time is not asked for again, however much fails.
const FRESH: Duration = Duration::from_millis(250);

/// A watch of a cluster; dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    messages: mpsc::Receiver<Result<WatchMessage, ClientError>>,
    positions: BTreeMap<u32, u64>,
}

impl Watch {
    /// The next message; `None`: the watch is over, after an error.
    ///
    /// # Errors
    /// [`ClientError`], the last message: the client was closed, or what came makes no sense.
    pub async fn next(&mut self) -> Option<Result<WatchMessage, ClientError>> {
        let message = self.messages.recv().await?;
        match &message {
            Ok(WatchMessage::Change(change)) => _ = self.positions.insert(change.group, change.index + 1),
            Ok(WatchMessage::Compacted { group, first_index: index } | WatchMessage::Started { group, index }) => {
                self.positions.insert(*group, *index);
            }
            Err(_) => {}
        }
        Some(message)
    }

    /// Where each group that was heard of is to go on after the messages taken so far, for [`WatchFrom::Positions`]. An
    /// entry with several changes of which only some were taken counts as taken.
    #[must_use]
    pub fn positions(&self) -> &BTreeMap<u32, u64> {
        &self.positions
    }
}

impl Client {
    /// Tells every change of keys that begin with `prefix`; see [`WatchFrom`] for where it begins.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn watch(&self, prefix: impl Into<Vec<u8>>, from: WatchFrom) -> Result<Watch, ClientError> {
        let prefix = prefix.into();
        if prefix.len() > KEY_BYTES_MAX {
            let message = format!("a prefix has {} bytes, at most {KEY_BYTES_MAX} are allowed", prefix.len());
            return Err(ClientError::BadRequest { message });
        }
        let info = self.known_info().await?;
        let (sender, messages) = mpsc::channel(MESSAGES_MAX);
        let (events, queue) = mpsc::channel(EVENTS_MAX);
        let groups = (0..info.groups).map(|group| Group::new(from.of_group(group))).collect();
        let watcher = Watcher {
            client: self.clone(),
            info,
            info_is_old: false,
            look_at: Instant::now() + LOOK_EVERY,
            prefix,
            groups,
            links: BTreeMap::new(),
            next_link: 0,
            events,
            queue,
            sender,
        };
        ::tokio::spawn(watcher.run());
        Ok(Watch { messages, positions: BTreeMap::new() })
    }
}

/// The watch of one group.
#[derive(Debug)]
struct Group {
    progress: Progress,
    /// The link it is asked over.
    link: Option<u64>,
    /// Not asked again before.
    retry_at: Instant,
    attempts: u32,
    /// Added to the place of the leader: whom to ask instead.
    skip: usize,
}

impl Group {
    fn new(from: u64) -> Self {
        Self { progress: Progress::new(from), link: None, retry_at: Instant::now(), attempts: 0, skip: 0 }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.link.is_none() && self.retry_at <= now
    }

    /// It did not work: another node, soon. Whether all have been asked in vain.
    fn failed(&mut self, nodes: usize) -> bool {
        (self.link, self.skip) = (None, self.skip + 1);
        // Each of the others is asked at once, then there is a pause.
        let round = self.attempts / nodes.max(1) as u32;
        let pause_us = if round == 0 { 0 } else { ceiling_us(BACKOFF_MIN_US, BACKOFF_MAX_US, round) };
        self.attempts = self.attempts.saturating_add(1);
        self.retry_at = Instant::now() + Duration::from_micros(pause_us);
        self.attempts as usize >= nodes
    }
}

/// A socket to a shard of a node.
#[derive(Debug)]
struct Link {
    id: u64,
    address: Address,
    requests: mpsc::Sender<Vec<u8>>,
}

#[derive(Debug)]
enum LinkEvent {
    Told(WatchEvent),
    Gone,
}

#[derive(Debug)]
struct Watcher {
    client: Client,
    info: ClusterInfo,
    /// Something did not work: what the client knows by now is asked for before the next try.
    info_is_old: bool,
    look_at: Instant,
    prefix: Vec<u8>,
    groups: Vec<Group>,
    /// By node and shard.
    links: BTreeMap<(u64, u16), Link>,
    next_link: u64,
    events: mpsc::Sender<(u64, LinkEvent)>,
    queue: mpsc::Receiver<(u64, LinkEvent)>,
    sender: mpsc::Sender<Result<WatchMessage, ClientError>>,
}

impl Watcher {
    async fn run(mut self) {
        loop {
            if let Err(error) = self.keep_up().await {
                let _ = self.sender.send(Err(error)).await;
                return;
            }
            self.ask_all();
            let retry_at = self.groups.iter().filter(|group| group.link.is_none()).map(|group| group.retry_at).min();
            let retry = async {
                match retry_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let event = ::tokio::select! {
                () = self.sender.closed() => return,
                () = retry => None,
                () = sleep_until(self.look_at) => None,
                event = self.queue.recv() => event,
            };
            let goes_on = match event {
                Some((link, LinkEvent::Told(told))) => self.told(link, told).await,
                Some((link, LinkEvent::Gone)) => {
                    self.gone(link);
                    true
                }
                None => true,
            };
            if !goes_on {
                return;
            }
        }
    }

    /// Has the client look for the nodes when that is due, and takes over what it knows when something did not work.
    async fn keep_up(&mut self) -> Result<(), ClientError> {
        let now = Instant::now();
        if self.look_at <= now {
            self.look_at = now + LOOK_EVERY;
            self.client.look(LOOK_EVERY / 2).await?;
        }
        if !self.info_is_old || !self.groups.iter().any(|group| group.is_due(now)) {
            return Ok(());
        }
        self.info_is_old = false;
        // Before the look: what it finds is there for the next try, and this one does not wait for it.
        let info = self.client.info().await?;
        self.client.look(FRESH).await?;
        if info.nodes.is_empty() {
            return Ok(());
        }
        if info.addresses != self.info.addresses {
            // Links to where nobody is any more end, and tell so.
            self.links.retain(|key, link| info.addresses.get(key).is_some_and(|at| *at == link.address.to_string()));
            self.groups.iter_mut().filter(|group| group.link.is_none()).for_each(|group| group.attempts = 0);
        }
        self.info = info;
        Ok(())
    }

    /// Asks for every group that is not asked for and is due.
    fn ask_all(&mut self) {
        let now = Instant::now();
        for number in 0..self.groups.len() {
            if self.groups[number].is_due(now) {
                self.ask(number as u32);
            }
        }
    }

    /// The group cannot be had where it was asked for.
    fn failed(&mut self, number: u32) {
        self.info_is_old |= self.groups[number as usize].failed(self.info.nodes.len());
    }

    fn ask(&mut self, number: u32) {
        let nodes = self.info.nodes.len();
        let group = &mut self.groups[number as usize];
        let leader = self.info.leaders.get(number as usize).copied().flatten();
        let first = leader.and_then(|node| self.info.nodes.iter().position(|known| *known == node));
        let place = (first.unwrap_or(number as usize) + group.skip) % nodes.max(1);
        let shard = crate::slots::shard_of_group(number, self.info.shards);
        let Some(key) = self.info.nodes.get(place).map(|node| (*node, shard)) else { return self.failed(number) };
        let request = WatchRequest { group: number, from: group.progress.ask(), prefix: self.prefix.clone() };
        let mut frame = Vec::new();
        request.append_frame(&mut frame, number);
        if !self.links.contains_key(&key) {
            self.open(key);
        }
        let asked = self.links.get(&key).filter(|link| link.requests.try_send(frame).is_ok());
        match asked {
            Some(link) => self.groups[number as usize].link = Some(link.id),
            None => self.failed(number),
        }
    }

    fn open(&mut self, (node, shard): (u64, u16)) {
        let address = self.info.addresses.get(&(node, shard)).and_then(|address| Address::parse(address));
        let Some(address) = address else { return };
        let (requests, queue) = mpsc::channel(self.groups.len() + 1);
        let link = Link { id: self.next_link, address: address.clone(), requests };
        let (id, dialer) = (self.next_link, Dialer::client(self.info.cluster, node, shard));
        self.next_link += 1;
        ::tokio::spawn(LinkTask { id, dialer, address, requests: queue, events: self.events.clone() }.run());
        self.links.insert((node, shard), link);
    }

    /// Takes what a replica told; `false`: the watch is over.
    async fn told(&mut self, link: u64, told: WatchEvent) -> bool {
        let (WatchEvent::Changes { group: number, .. } | WatchEvent::Ended { group: number, .. }) = &told;
        let number = *number;
        let Some(group) = self.groups.get_mut(number as usize).filter(|group| group.link == Some(link)) else {
            return true;
        };
        let mut messages = Vec::new();
        match told {
            WatchEvent::Changes { next, items, .. } => {
                group.attempts = 0;
                if let Err(error) = group.progress.changes(number, next, &items, &mut messages) {
                    let error = ClientError::BadRequest { message: error.to_string() };
                    let _ = self.sender.send(Err(error)).await;
                    return false;
                }
            }
            WatchEvent::Ended { end: WatchEnd::Compacted, index, .. } => {
                group.link = None;
                group.progress.compacted(number, index, &mut messages);
            }
            WatchEvent::Ended { end: WatchEnd::TooSlow, .. } => group.link = None,
            WatchEvent::Ended { end: WatchEnd::BadRequest, message, .. } => {
                let _ = self.sender.send(Err(ClientError::BadRequest { message })).await;
                return false;
            }
            WatchEvent::Ended { .. } => self.failed(number),
        }
        for message in messages {
            if self.sender.send(Ok(message)).await.is_err() {
                return false;
            }
        }
        true
    }

    /// A link ended: its groups are asked for elsewhere, and the cluster may look different.
    fn gone(&mut self, link: u64) {
        self.links.retain(|_, known| known.id != link);
        self.info_is_old = true;
        let nodes = self.info.nodes.len();
        for group in self.groups.iter_mut().filter(|group| group.link == Some(link)) {
            group.failed(nodes);
        }
    }
}

/// What serves one link.
struct LinkTask {
    id: u64,
    dialer: Dialer,
    address: Address,
    requests: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<(u64, LinkEvent)>,
}

impl LinkTask {
    /// Until the socket breaks or the watcher is gone.
    async fn run(mut self) {
        // Why it ended does not matter: another node is asked.
        let _: Option<()> = self.serve().await;
        let _ = self.events.send((self.id, LinkEvent::Gone)).await;
    }

    async fn serve(&mut self) -> Option<()> {
        let mut buffer = ReceiveBuffer::new();
        let mut stream = timeout(CONNECT_TIMEOUT, self.connect(&mut buffer)).await.ok()??;
        loop {
            while let Some(parsed) = frame::parse(buffer.filled(), &Limits::CLIENT).ok()? {
                match parsed.kind {
                    FrameKind::WatchEvent => {
                        let told = wire::view_watch_event(parsed.head).ok()?;
                        self.events.send((self.id, LinkEvent::Told(told))).await.ok()?;
                    }
                    _ => return None,
                }
                let bytes = parsed.total_bytes;
                buffer.consume(bytes);
            }
            ::tokio::select! {
                request = self.requests.recv() => stream.write_all(&request?).await.ok()?,
                read = stream.read(buffer.spare(READ_BYTES)) => match read {
                    Ok(count @ 1..) => buffer.fill(count),
                    _ => return None,
                },
            }
        }
    }

    async fn connect(&self, buffer: &mut ReceiveBuffer) -> Option<TcpStream> {
        let mut stream = match &self.address {
            Address::Socket(address) => TcpStream::connect(address).await.ok()?,
            Address::Name(name) => TcpStream::connect(&**name).await.ok()?,
        };
        socket::configure(&stream, &socket::Options::default()).ok()?;
        let mut hello = Vec::new();
        self.dialer.start(&mut hello);
        stream.write_all(&hello).await.ok()?;
        loop {
            if let Some((_, consumed)) = self.dialer.receive(buffer.filled()).ok()? {
                buffer.consume(consumed);
                return Some(stream);
            }
            let count = stream.read(buffer.spare(READ_BYTES)).await.ok()?;
            if count == 0 {
                return None;
            }
            buffer.fill(count);
        }
    }
}
