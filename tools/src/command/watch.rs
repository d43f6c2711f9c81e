//! `ringraft watch`: every change of the keys with a prefix, as it happens.
//!
//! Off the data path.

use anyhow::{Context, Result};
use clap::Args;
use ringraft_net::client::watch::{WatchFrom, WatchMessage};
use serde_json::{Value, json};

use super::list::for_people;
use super::{Outcome, SUCCESS, put_bytes};
use crate::client::{self, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft watch --dir ./cluster user:                  from now on, until Ctrl-C
  ringraft watch --dir ./cluster \"\"                     every key
  ringraft watch --dir ./cluster user: --from 1         from the beginning, as far as nodes remember
  ringraft watch --dir ./cluster user: --json           one JSON object per line
  ringraft watch --dir ./cluster user: --count 1        the next change, then it ends

Changes of one key come in their order and each once, also when nodes fail. A line `compacted` says that changes of a
group were forgotten before they could be told: list its keys anew.";

/// Tells every change of keys that begin with a prefix.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Watch {
    #[command(flatten)]
    target: Target,
    /// What the keys begin with; empty: every key.
    prefix: String,
    /// The first index whose changes are told, in each group; without it: what changes from now on.
    #[arg(long, value_name = "INDEX", value_parser = clap::value_parser!(u64).range(1..))]
    from: Option<u64>,
    /// End after so many changes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

pub(crate) fn run(arguments: &Watch) -> Result<Outcome> {
    client::with_client(&arguments.target, async |client| {
        let from = arguments.from.map_or(WatchFrom::Now, WatchFrom::Index);
        let mut watch = client.watch(arguments.prefix.clone(), from).await.context("cannot watch")?;
        let mut changes = 0;
        while let Some(message) = watch.next().await {
            let message = message.context("the watch ended")?;
            if let Some(line) = if arguments.target.json { Some(object(&message).to_string()) } else { text(&message) }
            {
                println!("{line}");
            }
            changes += u64::from(matches!(message, WatchMessage::Change(_)));
            if arguments.count.is_some_and(|count| changes >= count) {
                break;
            }
        }
        Ok(SUCCESS)
    })
}

fn text(message: &WatchMessage) -> Option<String> {
    match message {
        WatchMessage::Change(change) => {
            let key = for_people(&change.key);
            Some(match &change.value {
                Some(value) => format!("put\t{key}\t{}", for_people(value)),
                None => format!("delete\t{key}"),
            })
        }
        WatchMessage::Compacted { group, first_index } => {
            Some(format!("compacted\tgroup {group}\tindex {first_index}"))
        }
        WatchMessage::Started { .. } => None,
    }
}

fn object(message: &WatchMessage) -> Value {
    match message {
        WatchMessage::Change(change) => {
            let kind = if change.value.is_some() { "put" } else { "delete" };
            let mut object =
                json!({ "type": kind, "group": change.group, "index": change.index, "version": change.version });
            put_bytes(&mut object, "key", Some(&change.key));
            if change.value.is_some() {
                put_bytes(&mut object, "value", change.value.as_deref());
            }
            object
        }
        WatchMessage::Compacted { group, first_index } => {
            json!({ "type": "compacted", "group": group, "first_index": first_index })
        }
        WatchMessage::Started { group, index } => json!({ "type": "started", "group": group, "index": index }),
    }
}

#[cfg(test)]
mod tests {
    use ringraft_net::client::watch::Change;

    use super::*;

    #[test]
    fn messages_are_lines() {
        let change = |value: Option<&[u8]>| {
            let value = value.map(<[u8]>::to_vec);
            WatchMessage::Change(Change { group: 1, index: 2, key: b"k".to_vec(), value, version: 0x2_0000 })
        };
        assert_eq!(text(&change(Some(b"v\n"))).unwrap(), "put\tk\tv\\n");
        assert_eq!(text(&change(None)).unwrap(), "delete\tk");
        let deleted = json!({ "type": "delete", "group": 1, "index": 2, "version": 0x2_0000, "key": "k" });
        assert_eq!(object(&change(None)), deleted);
        let started = WatchMessage::Started { group: 1, index: 7 };
        assert_eq!((text(&started), object(&started)["index"].as_u64()), (None, Some(7)));
    }
}
