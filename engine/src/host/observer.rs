//! What other threads of the process may read of a running node.
//!
//! Off the data path. It reads the board and never wakes an executor.
//! Invariant: a shard waits for a reader no longer than copying one pointer per shard takes.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::NodeContext;
use super::clock::now_us;
use crate::metrics::record::Transition;
use crate::metrics::{NodeSample, ProcessSample, render};

/// A view of a node that is made before the node runs, and shows it once it does.
#[derive(Clone, Default)]
pub struct Observer {
    node: Arc<OnceLock<Arc<NodeContext>>>,
}

impl Observer {
    /// The node runs.
    pub(super) fn attach(&self, node: &Arc<NodeContext>) {
        let _ = self.node.set(Arc::clone(node)); // one process runs one node
    }

    /// The metrics of the node as OpenMetrics text ([`crate::metrics::CONTENT_TYPE`]); they are as old as a second.
    #[must_use]
    pub fn metrics(&self) -> String {
        let samples = self.node.get().map(|node| node.board().samples()).unwrap_or_default();
        render(NodeSample::new(samples, process()))
    }

    /// What replicas have become since the last call, the last thousand changes at most; each is told once, within a
    /// second or two.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let transitions = self.node.get().map(|node| node.board().take_transitions()).unwrap_or_default();
        let (now, now_us) = (SystemTime::now(), now_us());
        transitions.into_iter().map(|transition| Change::new(transition, now, now_us)).collect()
    }
}

/// Role, leader or term of a replica became others, told in the time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What it became.
    pub transition: Transition,
    /// When the change before this one was; this one's time if there was none.
    pub since: SystemTime,
    /// When it changed.
    pub at: SystemTime,
}

impl Change {
    /// The host's clock shows `now_us` at `now`.
    fn new(transition: Transition, now: SystemTime, now_us: u64) -> Self {
        let time_of = |us: u64| now.checked_sub(Duration::from_micros(now_us.saturating_sub(us))).unwrap_or(now);
        let since_us = if transition.since_us == 0 { transition.at_us } else { transition.since_us };
        Self { transition, since: time_of(since_us), at: time_of(transition.at_us) }
    }
}

/// What `/proc` says of this process; 0 where it does not say.
fn process() -> ProcessSample {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let since_boot = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let up_us = since_boot.split(' ').next().and_then(|seconds| seconds.parse::<f64>().ok()).unwrap_or(0.0) * 1e6;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let booted_us = (now.as_micros() as u64).saturating_sub(up_us as u64);
    let ticks_per_second = rustix::param::clock_ticks_per_second().max(1);
    let page_bytes = rustix::param::page_size() as u64;
    let open_fds = fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    of_stat(&stat, ticks_per_second, page_bytes).map_or(ProcessSample::default(), |(cpu_us, started_us, resident)| {
        ProcessSample { cpu_us, resident_bytes: resident, open_fds, start_us: booted_us + started_us }
    })
}

/// Processor time, start after boot, both in microseconds, and memory in bytes, of a line as in proc(5).
fn of_stat(stat: &str, ticks_per_second: u64, page_bytes: u64) -> Option<(u64, u64, u64)> {
    // The second field is the name in parentheses, which may hold anything.
    let (_, behind_name) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = behind_name.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let us = |ticks: u64| ticks * 1_000_000 / ticks_per_second;
    Some((us(field(14)? + field(15)?), us(field(22)?), field(24)? * page_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::sample::State;

    #[test]
    fn the_line_of_a_process_is_read() {
        let line =
            "17 (a ) b) S 1 17 17 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 3000 1048576 300 18446744073709551615";
        assert_eq!(of_stat(line, 100, 4_096), Some((3_000_000, 30_000_000, 1_228_800)));
        assert_eq!(of_stat("17 (a) S 1", 100, 4_096), None);
        assert_eq!(of_stat("", 100, 4_096), None);
    }

    #[test]
    fn this_process_uses_memory_and_began_in_the_past() {
        let sample = process();
        let now_us = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
        assert!(sample.resident_bytes > 100_000 && sample.open_fds > 2, "{sample:?}");
        assert!(
            sample.start_us > now_us - 24 * 3_600 * 1_000_000 && sample.start_us <= now_us + 1_000_000,
            "{sample:?}"
        );
    }

    #[test]
    fn changes_are_told_in_the_time_of_day() {
        let now = SystemTime::now();
        let transition = |since_us, at_us| Transition {
            group: 1,
            term: 2,
            state: State::Leader,
            before: State::Candidate,
            leader: 3,
            since_us,
            at_us,
        };
        let change = Change::new(transition(4_000, 5_000), now, 7_000);
        assert_eq!((change.since, change.at), (now - Duration::from_micros(3_000), now - Duration::from_micros(2_000)));
        let first = Change::new(transition(0, 5_000), now, 7_000);
        assert_eq!((first.since, first.at), (change.at, change.at), "nothing was before");
        let read_later = Change::new(transition(0, 9_000), now, 7_000);
        assert_eq!(read_later.at, now);
        assert!(Observer::default().changes().is_empty());
    }

    #[test]
    fn a_node_that_does_not_run_yet_shows_zeros() {
        let text = Observer::default().metrics();
        assert!(text.contains("\nraft_commits_total 0\n"), "{text}");
        assert!(text.ends_with("# EOF\n"));
    }
}
