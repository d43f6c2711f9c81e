//! The report for people: one column per system.
//!
//! Off the data path.

use std::fmt::Write as _;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{Cell, CellAlignment, Table};

use crate::report::{Latency, Report, SystemReport};

/// Formats a report.
#[must_use]
pub fn format(report: &Report) -> String {
    let systems: Vec<&SystemReport> = std::iter::once(&report.system).chain(&report.rivals).collect();
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    let names = systems.iter().map(|system| right(system.target.name().to_owned()));
    table.set_header(std::iter::once(Cell::new("")).chain(names));
    for (name, read) in rows(&systems) {
        let values = systems.iter().map(|system| right(read(system)));
        table.add_row(std::iter::once(Cell::new(name)).chain(values));
    }
    let mut text = format!("{}\n{table}\n", head(report));
    for system in &systems {
        notes(&mut text, system);
    }
    for ratio in &report.ratios {
        let part = |name: &str, value: Option<f64>| value.map_or(String::new(), |v| format!("  {name} {v:.2}x"));
        let _ = writeln!(
            text,
            "{} / {}:{}{}{}{}",
            report.system.target.name(),
            ratio.rival.name(),
            part("throughput", ratio.achieved),
            part("p50", ratio.p50),
            part("p99", ratio.p99),
            part("server CPU", ratio.server_cpu),
        );
    }
    if let Some(floor) = &report.floor {
        let _ = writeln!(
            text,
            "floor: flush of 4 KiB {} + loopback round trip {} = {}; the median put takes {:.1} times that",
            time(floor.flush_us),
            time(floor.round_trip_us),
            time(floor.sum_us()),
            report.system.latency_us.p50 / floor.sum_us(),
        );
        let _ = writeln!(
            text,
            "floor of {} nodes on this one disk: flush of a majority {} + two round trips = {}; {:.1} times that",
            report.system.nodes,
            time(floor.majority_flush_us),
            time(floor.replicated_us()),
            report.system.latency_us.p50 / floor.replicated_us(),
        );
    }
    text.push_str(&host(report));
    text
}

fn right(text: String) -> Cell {
    Cell::new(text).set_alignment(CellAlignment::Right)
}

fn head(report: &Report) -> String {
    let system = &report.system;
    let run = &report.run;
    let load = if system.mode == "open" {
        format!("open loop, {} ops/s offered", count(system.offered_ops_s))
    } else {
        format!("closed loop, {} clients x {} outstanding", system.clients, system.pipeline)
    };
    let distribution = format!("{:?}", run.distribution).to_lowercase();
    format!(
        "{load}; {}, {} B values, {} keys {distribution}; window {} s after {} s of warm-up{}{}",
        if run.deletes { "deletes".to_owned() } else { format!("{}% gets", run.read_percent) },
        system.value_bytes,
        count(run.keys as f64),
        system.duration_s,
        run.warmup_s,
        if run.repeat > 1 { format!(", {} rounds", run.repeat) } else { String::new() },
        if run.interrupted { "; STOPPED EARLY" } else { "" },
    )
}

type Row = (&'static str, fn(&SystemReport) -> String);

const ROWS: &[Row] = &[
    ("offered ops/s", |s| count(s.offered_ops_s)),
    ("achieved ops/s", |s| count(s.achieved_ops_s)),
    ("operations", |s| count(s.operations as f64)),
    ("errors", |s| count(s.errors as f64)),
    ("latency p50", |s| time(s.latency_us.p50)),
    ("latency p90", |s| time(s.latency_us.p90)),
    ("latency p99", |s| time(s.latency_us.p99)),
    ("latency p99.9", |s| time(s.latency_us.p999)),
    ("latency p99.99", |s| time(s.latency_us.p9999)),
    ("latency max", |s| time(s.latency_us.max)),
    ("service p50", |s| time(s.service_us.p50)),
    ("service p99", |s| time(s.service_us.p99)),
];

const ROWS_BY_KIND: &[Row] = &[
    ("put latency p50 / p99", |s| s.put.as_ref().map_or(none(), |kind| pair(&kind.latency_us))),
    ("get latency p50 / p99", |s| s.get.as_ref().map_or(none(), |kind| pair(&kind.latency_us))),
];

const ROWS_OF_COST: &[Row] = &[
    ("server CPU us/op", |s| number(s.server_cpu_us_per_op)),
    ("generator CPU us/op", |s| number(s.generator_cpu_us_per_op)),
    ("machine CPU us/op", |s| number(s.machine_cpu_us_per_op)),
    ("device writes/op (whole device)", |s| number(s.device_writes_per_op)),
    ("device bytes/op (whole device)", |s| number(s.device_written_bytes_per_op)),
    ("device flushes/op (whole device)", |s| number(s.device_flushes_per_op)),
    ("server RSS", |s| s.server_rss_bytes.map_or(none(), |bytes| format!("{:.1} MiB", bytes as f64 / 1_048_576.0))),
    ("nodes / groups", |s| format!("{} / {}", s.nodes, s.groups.map_or(none(), |groups| groups.to_string()))),
    ("connections", |s| s.connections.to_string()),
    ("protocol", |s| s.protocol.to_owned()),
];

fn rows(systems: &[&SystemReport]) -> Vec<Row> {
    let mixed = systems.iter().any(|system| system.put.is_some() && system.get.is_some());
    let by_kind = if mixed { ROWS_BY_KIND } else { &[] };
    ROWS.iter().chain(by_kind).chain(ROWS_OF_COST).copied().collect()
}

fn notes(text: &mut String, system: &SystemReport) {
    let name = system.target.name();
    if !system.settings.is_empty() {
        let settings: Vec<String> = system.settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let _ = writeln!(text, "{name}: {}", settings.join(", "));
    }
    for (kind, number) in &system.errors_by_kind {
        let _ = writeln!(text, "{name}: error {kind}: {}", count(*number as f64));
    }
    for warning in &system.warnings {
        let _ = writeln!(text, "{name}: warning: {warning}");
    }
    if system.rounds.len() > 1 {
        let rates: Vec<String> = system.rounds.iter().map(|round| count(round.achieved_ops_s)).collect();
        let _ = writeln!(text, "{name}: ops/s by round: {}", rates.join("  "));
    }
}

fn host(report: &Report) -> String {
    let host = &report.host;
    let mut text = format!(
        "{}: Linux {}, {} x {}, {:.0} GiB",
        host.hostname,
        host.kernel,
        host.processors,
        host.processor,
        host.memory_bytes as f64 / 1_073_741_824.0
    );
    for disk in &host.disks {
        let cache = disk.write_cache.as_deref().unwrap_or("unknown");
        let _ = write!(text, "; {} on {} ({}, cache {cache})", disk.filesystem, disk.device, disk.mount_point);
    }
    if let Some(steal) = report.system.steal_percent.filter(|steal| *steal >= 0.5) {
        let _ = write!(text, "; steal {steal:.1}%");
    }
    text
}

fn none() -> String {
    "-".to_owned()
}

fn number(value: Option<f64>) -> String {
    value.map_or(none(), |value| if value >= 100.0 { count(value) } else { format!("{value:.2}") })
}

fn pair(latency: &Latency) -> String {
    format!("{} / {}", time(latency.p50), time(latency.p99))
}

/// Microseconds in the unit that shows three digits.
#[must_use]
pub fn time(microseconds: f64) -> String {
    match microseconds {
        us if us < 1_000.0 => format!("{us:.0} us"),
        us if us < 1_000_000.0 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

/// A whole number with thousands separated.
#[must_use]
pub fn count(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0.0, 999.0, 1_000.0, 1_234_567.4].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([12.3, 1_500.0, 2_000_000.0].map(time), ["12 us", "1.50 ms", "2.00 s"]);
    }
}
