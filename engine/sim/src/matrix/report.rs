//! The table of outcomes.
//!
//! Off the data path.
//! It decides nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::scenario::Ending;

/// How a case ended for the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// All replicas start with everything.
    Recovered,
    /// Some replicas stop or start without their newest batch; the cluster serves everything.
    Serves,
    /// So many replicas stop that the cluster does not serve; nothing is lost.
    Stopped,
    /// Lost in the one window in which a disk cannot tell (row 27 of the WAL's `FORMAT.md`).
    Lost,
}

/// One line of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// How the cluster had ended.
    pub ending: Ending,
    /// What was damaged, on each of the replicas, in places of its own on each.
    pub damage: String,
    /// How many replicas.
    pub replicas: usize,
}

/// Cases by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// See [`Outcome::Recovered`].
    pub recovered: u64,
    /// See [`Outcome::Serves`].
    pub serves: u64,
    /// See [`Outcome::Stopped`].
    pub stopped: u64,
    /// See [`Outcome::Lost`].
    pub lost: u64,
}

impl Counts {
    pub(super) fn add(&mut self, outcome: Outcome, count: u64) {
        *match outcome {
            Outcome::Recovered => &mut self.recovered,
            Outcome::Serves => &mut self.serves,
            Outcome::Stopped => &mut self.stopped,
            Outcome::Lost => &mut self.lost,
        } += count;
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.recovered + self.serves + self.stopped + self.lost
    }
}

/// What the matrix found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The table.
    pub rows: BTreeMap<Row, Counts>,
    /// Times a cluster was started.
    pub cluster_runs: u64,
    /// Cases that ended as none may.
    pub violation_count: u64,
    /// The first of them.
    pub violations: Vec<String>,
}

impl Report {
    /// Cases that lost something in the window.
    #[must_use]
    pub fn lost(&self, ending: Ending) -> u64 {
        self.rows.iter().filter(|(row, _)| row.ending == ending).map(|(_, counts)| counts.lost).sum()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for ending in Ending::ALL {
            writeln!(formatter, "{}", ending.name())?;
            writeln!(
                formatter,
                "  {:<32} {:>8} {:>12} {:>14} {:>14} {:>12}",
                "damage", "replicas", "recovered", "serves", "stopped", "lost"
            )?;
            for (row, counts) in self.rows.iter().filter(|(row, _)| row.ending == ending) {
                let Counts { recovered, serves, stopped, lost } = counts;
                writeln!(
                    formatter,
                    "  {:<32} {:>8} {recovered:>12} {serves:>14} {stopped:>14} {lost:>12}",
                    row.damage, row.replicas
                )?;
            }
        }
        let total: u64 = self.rows.values().map(Counts::total).sum();
        writeln!(formatter, "{total} cases, {} clusters run, {} violations", self.cluster_runs, self.violation_count)?;
        for violation in &self.violations {
            writeln!(formatter, "  {violation}")?;
        }
        Ok(())
    }
}
