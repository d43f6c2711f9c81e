//! Watch: what the client's watch tells, as messages of a stream.
//!
//! Off the data path.
//! Invariants: at most [`WATCHES_MAX`] watches of one gateway; what a slow reader does not take waits in bounded queues and
//! then at the nodes; a watch ends when its reader goes, or the gateway's client is closed.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;

use ringraft_net::client::watch::tokio::Watch;
use ringraft_net::client::watch::{Change, WatchFrom, WatchMessage};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::call::Call;
use super::proto::kv::watch_response::Told;
use super::proto::kv::{Event, GroupIndex, WatchRequest, WatchResponse};
use super::status::{self, Problem};
use crate::errors::{Code, Failure};

/// Watches of one gateway at once: each has a socket to every shard that leads groups.
const WATCHES_MAX: usize = 256;
/// Messages that wait for a reader.
const MESSAGES_MAX: usize = 64;

/// What a watch answers with.
pub(super) type Events = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

/// How many watches may begin.
#[derive(Clone, Debug)]
pub(super) struct Watches {
    permits: Arc<Semaphore>,
}

impl Watches {
    pub(super) fn new() -> Self {
        Self { permits: Arc::new(Semaphore::new(WATCHES_MAX)) }
    }

    /// Begins one.
    pub(super) async fn begin(&self, call: &Call, message: WatchRequest) -> Result<Events, Status> {
        let full = || status::of(Failure::new(Code::Overloaded, format!("this node has {WATCHES_MAX} watches")));
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| full())?;
        let groups = call.groups().await?;
        let from = from(&message, groups).map_err(status::bad_request)?;
        let begun = call.state.client().watch(message.prefix, from).await;
        let watch = begun.map_err(|error| Status::from(Problem::from(error)))?;
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        tokio::spawn(tell(watch, sender, permit));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }
}

/// Where the watch begins in each group.
fn from(message: &WatchRequest, groups: u32) -> Result<WatchFrom, String> {
    let (all, some) = (message.from_index, &message.from_indexes);
    if let Some(unknown) = some.iter().find(|own| own.group >= groups) {
        return Err(format!("there is no group {}; groups are 0 to {}", unknown.group, groups.saturating_sub(1)));
    }
    Ok(match (all, some.is_empty()) {
        (0, true) => WatchFrom::Now,
        (index, true) => WatchFrom::Index(index),
        (index, false) => {
            let mut positions = BTreeMap::new();
            if index > 0 {
                positions.extend((0..groups).map(|group| (group, index)));
            }
            positions.extend(some.iter().map(|own| (own.group, own.index)));
            WatchFrom::Positions(positions)
        }
    })
}

async fn tell(mut watch: Watch, sender: mpsc::Sender<Result<WatchResponse, Status>>, _permit: OwnedSemaphorePermit) {
    loop {
        let told = tokio::select! {
            told = watch.next() => told,
            () = sender.closed() => return,
        };
        let Some(told) = told else { return };
        let response = told.map(response).map_err(|error| Status::from(Problem::from(error)));
        if sender.send(response).await.is_err() {
            return;
        }
    }
}

fn response(message: WatchMessage) -> WatchResponse {
    WatchResponse {
        told: Some(match message {
            WatchMessage::Started { group, index } => Told::Started(GroupIndex { group, index }),
            WatchMessage::Compacted { group, first_index: index } => Told::Compacted(GroupIndex { group, index }),
            WatchMessage::Change(Change { group, index, key, value, version }) => {
                Told::Event(Event { key, value, version, group, index })
            }
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_watch_begins() {
        let of = |from_index, indexes: &[(u32, u64)]| {
            let from_indexes = indexes.iter().map(|&(group, index)| GroupIndex { group, index }).collect();
            from(&WatchRequest { prefix: Vec::new(), from_index, from_indexes }, 3)
        };
        assert_eq!(of(0, &[]), Ok(WatchFrom::Now));
        assert_eq!(of(7, &[]), Ok(WatchFrom::Index(7)));
        assert_eq!(of(0, &[(1, 5)]), Ok(WatchFrom::Positions([(1, 5)].into())));
        assert_eq!(of(7, &[(1, 5)]), Ok(WatchFrom::Positions([(0, 7), (1, 5), (2, 7)].into())));
        assert!(of(0, &[(3, 5)]).unwrap_err().contains("groups are 0 to 2"));
    }
}
