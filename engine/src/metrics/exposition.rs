//! From samples to the text that Prometheus reads (OpenMetrics), by prometheus-client.
//!
//! Off the data path, in the thread of whoever asks.
//! Invariant: every metric of the list is there, also with nothing to count yet, but for series of groups and followers
//! that are not there; a node with more than `GROUPS_MAX` groups shows none of them one by one.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::Histogram;
use super::list::{Kind, METRICS, Metric, Values};
use super::sample::{NodeSample, State, by_reason};

/// What `Content-Type` says of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of a node as text.
#[must_use]
pub fn render(node: NodeSample) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(node)));
    let mut out = String::with_capacity(64 << 10);
    match text::encode(&mut out, &registry) {
        Ok(()) => out,
        Err(error) => unreachable!("a String takes any text: {error}"),
    }
}

#[derive(Debug)]
struct Exposition(NodeSample);

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        METRICS.iter().try_for_each(|metric| encode(metric, &self.0, &mut encoder))
    }
}

fn encode(metric: &Metric, node: &NodeSample, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
    let unit = match metric.unit() {
        "seconds" => Some(Unit::Seconds),
        "bytes" => Some(Unit::Bytes),
        _ => None,
    };
    let name = metric.name.trim_end_matches("_total"); // the encoder adds both endings
    let name = if unit.is_some() { name.trim_end_matches(metric.unit()).trim_end_matches('_') } else { name };
    let kind = match metric.kind() {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
        Kind::Histogram => MetricType::Histogram,
    };
    let family = encoder.encode_descriptor(name, metric.help, unit.as_ref(), kind)?;
    Family { metric, encoder: family }.write(node)
}

/// The series of one metric.
struct Family<'a, 'e> {
    metric: &'a Metric,
    encoder: MetricEncoder<'e>,
}

impl Family<'_, '_> {
    fn write(mut self, node: &NodeSample) -> Result<(), fmt::Error> {
        match self.metric.values {
            Values::Node(number) => self.plain(number(node)),
            Values::NodeAndGroups(of_node, of_group) => {
                self.plain(of_node(node))?;
                node.groups().into_iter().try_for_each(|group| self.of_group(group.group, of_group(group)))
            }
            Values::Groups(number) => {
                node.groups().into_iter().try_for_each(|group| self.of_group(group.group, number(group)))
            }
            Values::Followers(number) => {
                let groups = node.groups().into_iter();
                let mut followers = groups.flat_map(|group| group.followers.iter().map(move |one| (group.group, one)));
                followers.try_for_each(|(group, follower)| {
                    let labels = [("group", u64::from(group)), ("follower", follower.node)];
                    self.labelled(&labels, number(follower))
                })
            }
            Values::Shards(number) => {
                let mut shards = node.shards.iter();
                shards.try_for_each(|shard| self.labelled(&[("shard", shard.shard)], number(shard)))
            }
            Values::Reasons(tally) => {
                by_reason(tally(node)).try_for_each(|(reason, count)| self.labelled(&[("reason", reason)], count))
            }
            Values::GroupReasons => node.groups().into_iter().try_for_each(|group| {
                by_reason(&group.tally).try_for_each(|(reason, count)| {
                    self.labelled(&[("group", group.group.to_string()), ("reason", reason.to_owned())], count)
                })
            }),
            Values::States => State::ALL
                .into_iter()
                .try_for_each(|state| self.labelled(&[("state", state.name())], node.sums.states[state as usize])),
            Values::Info => {
                let id = node.shards.first().map_or(0, |shard| shard.node);
                let version = env!("CARGO_PKG_VERSION").to_owned();
                self.labelled(&[("node", id.to_string()), ("version", version)], 1)
            }
            Values::Histogram(histogram, low, high) => self.histogram(histogram(node), low, high),
        }
    }

    fn of_group(&mut self, group: u32, value: u64) -> Result<(), fmt::Error> {
        self.labelled(&[("group", group)], value)
    }

    fn labelled(&mut self, labels: &impl EncodeLabelSet, value: u64) -> Result<(), fmt::Error> {
        number(self.metric, &mut self.encoder.encode_family(labels)?, value)
    }

    fn plain(&mut self, value: u64) -> Result<(), fmt::Error> {
        number(self.metric, &mut self.encoder, value)
    }

    fn histogram(&mut self, histogram: &Histogram, low: u64, high: u64) -> Result<(), fmt::Error> {
        let scale = if self.metric.unit() == "seconds" { 1e6 } else { 1.0 };
        let shown = |bound: Option<u64>| bound.map_or(f64::INFINITY, |bound| bound as f64 / scale);
        let buckets: Vec<(f64, u64)> =
            histogram.between(low, high).into_iter().map(|(bound, count)| (shown(bound), count)).collect();
        let sum = histogram.sum() as f64 / scale;
        self.encoder.encode_histogram::<NoLabelSet>(sum, histogram.count(), &buckets, None)
    }
}

/// Writes one number: microseconds as seconds, anything else as it is.
fn number(metric: &Metric, encoder: &mut MetricEncoder<'_>, value: u64) -> Result<(), fmt::Error> {
    let is_time = metric.unit() == "seconds";
    let (whole, seconds) = (i64::try_from(value).unwrap_or(i64::MAX), value as f64 / 1e6);
    match (metric.kind(), is_time) {
        (Kind::Counter, true) => encoder.encode_counter::<NoLabelSet, f64, f64>(&seconds, None),
        (Kind::Counter, false) => encoder.encode_counter::<NoLabelSet, u64, f64>(&value, None),
        (_, true) => encoder.encode_gauge(&seconds),
        (_, false) => encoder.encode_gauge(&whole),
    }
}
