//! `clean` in the shell: every key is removed.
//!
//! Off the data path.
//! Invariants: the cluster's own keys stay; nothing is removed before somebody who was asked said yes; keys that come while
//! it runs may stay.

use anyhow::{Context, Result, bail};
use ringraft_net::client::RangeQuery;
use ringraft_net::client::tokio::Client;
use serde_json::json;
use tokio::task::JoinSet;

use super::session::Session;
use crate::command::{FAILURE, Outcome, SUCCESS};

/// Keys of the cluster itself begin so.
const RESERVED: &[u8] = b"\0ringraft/";
/// Deletes on their way at once.
const IN_FLIGHT_MAX: usize = 256;

impl Session<'_> {
    /// Removes every key; `said`: yes was said already.
    pub(super) fn clean(&self, said: bool, mut sure: impl FnMut(&str) -> bool) -> Result<Outcome> {
        if !said && !sure("Every key of the cluster is removed for good. Are you sure?") {
            bail!("nothing is removed: say yes, or from a pipe `clean --yes`");
        }
        let (removed, failed) = self.block_on(remove_all(self.client()))?;
        self.print(|| json!({ "removed": removed, "failed": failed }), &format!("{removed} key(s) are removed"));
        if failed > 0 {
            eprintln!("ringraft: {failed} key(s) could not be removed; ask again");
            return Ok(FAILURE);
        }
        Ok(SUCCESS)
    }
}

/// Keys removed, and keys that were not.
async fn remove_all(client: &Client) -> Result<(u64, u64)> {
    let (mut removed, mut failed) = (0, 0);
    let mut query = RangeQuery { keys_only: true, ..RangeQuery::default() };
    loop {
        let page = client.range(&query).await.context("cannot list the keys")?;
        let mut running = JoinSet::new();
        let keys = page.items.into_iter().map(|item| item.key).filter(|key| !key.starts_with(RESERVED));
        for key in keys {
            if running.len() >= IN_FLIGHT_MAX {
                count(running.join_next().await.as_ref(), &mut removed, &mut failed);
            }
            let client = client.clone();
            running.spawn(async move { client.delete(key).await.map(|answer| answer.value) });
        }
        while let Some(ended) = running.join_next().await {
            count(Some(&ended), &mut removed, &mut failed);
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok((removed, failed)),
        }
    }
}

/// Counts one answer: whether the key was there, or why it may be there still.
fn count<E, F>(ended: Option<&Result<Result<bool, E>, F>>, removed: &mut u64, failed: &mut u64) {
    match ended {
        Some(Ok(Ok(existed))) => *removed += u64::from(*existed),
        Some(_) => *failed += 1,
        None => {}
    }
}
