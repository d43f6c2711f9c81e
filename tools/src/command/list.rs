//! `ringraft list`: the keys of all groups in their order.
//!
//! Off the data path.

use anyhow::{Context, Result};
use clap::Args;
use ringraft_net::client::{KeyValue, RangeQuery, key_behind, prefix_end};
use ringraft_net::wire::Consistency;
use serde_json::{Value, json};

use super::{Outcome, SUCCESS, print_bytes, put_bytes};
use crate::client::{self, Target};

const EXAMPLES: &str = "\
Examples:
  ringraft list --dir ./cluster                                every key with its value, up to 1,000
  ringraft list --dir ./cluster --prefix user: --limit 10
  ringraft list --dir ./cluster --prefix user: --limit 10 --after user:10      the next ten
  ringraft list --dir ./cluster --start a --end n --keys-only  from a up to n, without n
  ringraft list --dir ./cluster --limit 0 --json               everything, as one JSON object
  ringraft list --dir ./cluster --consistency stale --prefix user:

Each group of the cluster is read at a moment of its own: writes that are under way may be seen in one and not in another.";

/// Lists keys in the order of their bytes, each with its value on a line.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct List {
    #[command(flatten)]
    target: Target,
    /// Only keys that begin with this.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["start", "end"])]
    prefix: Option<String>,
    /// The first key.
    #[arg(long, value_name = "KEY")]
    start: Option<String>,
    /// The first key that is not listed any more.
    #[arg(long, value_name = "KEY")]
    end: Option<String>,
    /// Only keys behind this one: the last one of the list before.
    #[arg(long, value_name = "KEY", conflicts_with = "start")]
    after: Option<String>,
    /// Most keys; 0: all.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u32,
    /// Without the values.
    #[arg(long)]
    keys_only: bool,
    /// How fresh: linearizable, lease, follower or stale; see `ringraft get --help`.
    #[arg(long, value_name = "KIND", default_value = "linearizable")]
    consistency: Consistency,
}

impl List {
    fn query(&self) -> RangeQuery {
        let bytes = |text: &Option<String>| text.clone().unwrap_or_default().into_bytes();
        let (start, end) = match &self.prefix {
            Some(prefix) => (prefix.clone().into_bytes(), prefix_end(prefix.as_bytes())),
            None => (bytes(&self.start), bytes(&self.end)),
        };
        let after = self.after.as_ref().map(|key| key_behind(key.as_bytes()));
        let start = after.unwrap_or_default().max(start);
        RangeQuery { start, end, limit: self.limit, keys_only: self.keys_only }
    }
}

pub(crate) fn run(arguments: &List) -> Result<Outcome> {
    let (items, more) = client::with_client(&arguments.target, async |client| {
        let (mut items, mut query) = (Vec::new(), arguments.query());
        loop {
            let page = client.range_with(&query, arguments.consistency, 0).await.context("not listed")?;
            items.extend(page.items);
            let left = arguments.limit as usize - items.len().min(arguments.limit as usize);
            let Some(next) = page.next else { return Ok((items, false)) };
            if arguments.limit > 0 && left == 0 {
                return Ok((items, true));
            }
            query = query.after(next).limit(left as u32);
        }
    })?;
    if arguments.target.json {
        let keys: Vec<Value> = items.iter().map(|item| object(item, arguments.keys_only)).collect();
        println!("{}", json!({ "keys": keys, "more": more }));
        return Ok(SUCCESS);
    }
    let text: String = items.iter().map(|item| line(item, arguments.keys_only)).collect();
    print_bytes(text.as_bytes());
    if let (true, Some(last)) = (more, items.last()) {
        let last = String::from_utf8_lossy(&last.key);
        eprintln!("ringraft: there are more keys; the next ones: --after {last:?}");
    }
    Ok(SUCCESS)
}

fn object(item: &KeyValue, keys_only: bool) -> Value {
    let mut object = json!({ "version": item.version });
    put_bytes(&mut object, "key", Some(&item.key));
    if !keys_only {
        put_bytes(&mut object, "value", Some(&item.value));
    }
    object
}

/// The key, a tab and the value; what is no plain text of one line is escaped.
fn line(item: &KeyValue, keys_only: bool) -> String {
    let value = if keys_only { String::new() } else { format!("\t{}", for_people(&item.value)) };
    format!("{}{value}\n", for_people(&item.key))
}

/// Bytes for a terminal.
pub(super) fn for_people(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_plain_text() {
        let item = |key: &[u8], value: &[u8]| KeyValue { key: key.to_vec(), value: value.to_vec(), version: 7 };
        assert_eq!(line(&item(b"a", "gr\u{fc}n".as_bytes()), false), "a\tgr\u{fc}n\n");
        assert_eq!(line(&item(b"b\n", b"\xff"), false), "b\\n\t\\xff\n");
        assert_eq!(line(&item(b"c", b"x"), true), "c\n");
        assert_eq!(object(&item(b"a", b"\xff"), false), json!({ "key": "a", "value_hex": "ff", "version": 7 }));
        assert_eq!(object(&item(b"a", b""), true), json!({ "key": "a", "version": 7 }));
    }
}
