//! What one benchmark of the suite has to say: as text, as JSON, and as a part of the page.
//!
//! Off the data path.

use comfy_table::{Cell, CellAlignment, Table, presets};
use ringraft_bench::Sampled;
use ringraft_bench::plot::{self, Line, Moments, OverTime, Series};
use ringraft_bench::samples::{self, Interval};
use ringraft_bench::table::{count, time};
use serde_json::{Value, json};

use anyhow::Result;

/// A drawing.
pub(super) struct Plot {
    /// What it shows, in one sentence.
    pub(super) caption: String,
    /// The drawing.
    pub(super) svg: String,
}

/// A table: the first column names rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Grid {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

/// One benchmark.
pub(super) struct Section {
    /// As on the command line.
    pub(super) name: &'static str,
    /// What was done.
    pub(super) about: String,
    /// Promises that did not hold.
    pub(super) problems: Vec<String>,
    pub(super) grids: Vec<Grid>,
    pub(super) plots: Vec<Plot>,
    /// Figures for programs.
    pub(super) figures: Value,
}

impl Section {
    pub(super) fn new(name: &'static str, about: String) -> Self {
        let (problems, grids, plots) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, about, problems, grids, plots, figures: json!({}) }
    }

    /// The figures, and whether all went well.
    pub(super) fn to_json(&self) -> Value {
        let mut all = self.figures.clone();
        all["ok"] = json!(self.problems.is_empty());
        all["problems"] = json!(self.problems);
        all["about"] = json!(self.about);
        all
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}\n{}\n", self.name, self.about);
        for grid in &self.grids {
            text.push_str(&format!("{}\n", grid.table()));
        }
        for problem in &self.problems {
            text.push_str(&format!("PROBLEM: {problem}\n"));
        }
        text.trim_end().to_owned()
    }

    /// A problem, should operations have failed.
    pub(super) fn expect_no_errors(&mut self, what: &str, sampled: &Sampled) {
        if sampled.report.errors > 0 {
            let kinds = &sampled.report.errors_by_kind;
            let errors = sampled.report.errors;
            self.problems
                .push(format!("{what}: {errors} of {} operations failed: {kinds:?}", sampled.report.operations));
        }
        if sampled.report.operations == 0 {
            self.problems.push(format!("{what}: nothing was measured"));
        }
    }
}

impl Grid {
    pub(super) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().copied().map(String::from).collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(cells(&self.head));
        for row in &self.rows {
            table.add_row(cells(row));
        }
        table
    }
}

fn cells(row: &[String]) -> Vec<Cell> {
    let aligned = |(place, text): (usize, &String)| {
        Cell::new(text).set_alignment(if place == 0 { CellAlignment::Left } else { CellAlignment::Right })
    };
    row.iter().enumerate().map(aligned).collect()
}

/// Latency and cost of loads, one column each.
pub(super) fn loads(columns: &[(&str, &Sampled)]) -> Grid {
    let head: Vec<&str> = std::iter::once("").chain(columns.iter().map(|(name, _)| *name)).collect();
    let mut grid = Grid::new(&head);
    let mut row = |name: &str, read: &dyn Fn(&Sampled) -> String| {
        grid.row(std::iter::once(name.to_owned()).chain(columns.iter().map(|(_, sampled)| read(sampled))));
    };
    let nanoseconds = |us: Option<f64>| us.map_or_else(none, |us| format!("{} ns", count(us * 1e3)));
    row("offered ops/s", &|sampled| count(sampled.report.offered_ops_s));
    row("achieved ops/s", &|sampled| count(sampled.report.achieved_ops_s));
    row("operations", &|sampled| count(sampled.report.operations as f64));
    row("failed", &|sampled| count(sampled.report.errors as f64));
    for (name, quantile) in [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99), ("p99.9", 0.999)] {
        row(&format!("latency {name}"), &|sampled| time(latency_us(sampled, quantile)));
    }
    row("latency max", &|sampled| time(sampled.report.latency_us.max));
    row("latency mean", &|sampled| time(sampled.report.latency_us.mean));
    row("service time p50 (from the send)", &|sampled| time(sampled.report.service_us.p50));
    row("CPU of all nodes per op", &|sampled| nanoseconds(sampled.report.server_cpu_us_per_op));
    row("CPU of the generator per op", &|sampled| nanoseconds(sampled.report.generator_cpu_us_per_op));
    row("flushes of the device per op", &|sampled| {
        sampled.report.device_flushes_per_op.map_or_else(none, |flushes| format!("{flushes:.2}"))
    });
    row("memory of all nodes", &|sampled| {
        sampled.report.server_rss_bytes.map_or_else(none, |bytes| format!("{} MiB", count(bytes as f64 / 1_048_576.0)))
    });
    grid
}

fn none() -> String {
    "-".to_owned()
}

fn latency_us(sampled: &Sampled, quantile: f64) -> f64 {
    let response = sampled.recorder.response();
    response.value_at_quantile(quantile).min(response.max()) as f64 / 1e3
}

/// The report of a load for programs, with its course.
pub(super) fn load_figures(sampled: &Sampled) -> Value {
    let mut figures = serde_json::to_value(&sampled.report).unwrap_or_default();
    figures["latency_us"]["p95"] = json!(latency_us(sampled, 0.95));
    figures["server_cpu_ns_per_op"] = json!(sampled.report.server_cpu_us_per_op.map(|us| (us * 1e3).round()));
    figures["over_time"] = json!(course(sampled));
    figures
}

/// A drawing of latency by percentile: one line for each load.
pub(super) fn percentiles(title: &str, loads: &[(&str, &Sampled)]) -> Result<Plot> {
    let histograms: Vec<_> = loads.iter().map(|(name, sampled)| (*name, sampled.recorder.response())).collect();
    let series: Vec<Series<'_>> =
        histograms.iter().map(|(name, histogram)| Series { name: (*name).to_owned(), histogram }).collect();
    let caption = "Latency by percentile (HDR), from the intended start; both axes are logarithmic.".to_owned();
    Ok(Plot { caption, svg: plot::svg(title, &series)? })
}

/// Operations of an interval that percentiles are taken of, about.
const OPERATIONS_MIN: f64 = 100.0;

/// Length of an interval of plots over time: at most 300 of them, none shorter than 50 ms, none with few operations.
fn interval_ns(sampled: &Sampled) -> u64 {
    let window_ns = (sampled.report.duration_s * 1e9) as u64;
    let for_operations_ns = OPERATIONS_MIN / sampled.report.offered_ops_s.max(1.0) * 1e9;
    (window_ns / 300).max(50_000_000).max(for_operations_ns as u64)
}

fn course(sampled: &Sampled) -> Vec<Interval> {
    samples::intervals(&sampled.samples, sampled.window_start_ns, interval_ns(sampled))
}

/// A drawing of latency over time.
pub(super) fn over_time(title: &str, sampled: &Sampled, moments: Vec<Moments<'_>>) -> Result<Plot> {
    let course = course(sampled);
    let line = |name, read: fn(&Interval) -> f64| Line {
        name,
        points: course.iter().map(|interval| (interval.at_s, read(interval))).collect(),
    };
    let lines = vec![
        line("p50", |interval| interval.p50_ms),
        line("p99", |interval| interval.p99_ms),
        line("max", |interval| interval.max_ms),
    ];
    let drawing = OverTime { title, y: "latency from intended start, ms", logarithmic: true, lines, moments };
    let milliseconds = interval_ns(sampled) / 1_000_000;
    let caption = format!(
        "Latency of the operations that were meant to start within each {milliseconds} ms, whenever they were answered."
    );
    Ok(Plot { caption, svg: plot::over_time(&drawing)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_in_every_form() {
        let mut section = Section::new("write_latency", "Puts.".to_owned());
        let mut grid = Grid::new(&["", "put"]);
        grid.row(["latency p50".to_owned(), "1 ms".to_owned()]);
        section.grids.push(grid);
        assert_eq!(section.to_json()["ok"], true);
        section.problems.push("3 operations failed".to_owned());
        assert_eq!(
            (&section.to_json()["ok"], &section.to_json()["problems"][0]),
            (&json!(false), &json!("3 operations failed"))
        );
        let text = section.text();
        assert!(text.starts_with("write_latency\nPuts.\n") && text.contains("PROBLEM: 3 operations failed"), "{text}");
        assert!(text.contains("latency p50"), "{text}");
    }
}
