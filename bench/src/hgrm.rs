//! Histograms as `.hgrm` text, the percentile format of HdrHistogram, for its plotter and for `diff`.
//!
//! Off the data path. Values in microseconds.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

/// Steps per halving of the distance to 100%, HdrHistogram's default.
const TICKS_PER_HALF_DISTANCE: u32 = 5;
const NANOSECONDS_PER_UNIT: f64 = 1_000.0;

/// Formats a histogram of nanoseconds.
#[must_use]
pub fn format(histogram: &Histogram<u64>) -> String {
    let mut text = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF_DISTANCE) {
        total += step.count_since_last_iteration();
        let value = step.value_iterated_to().min(histogram.max()) as f64 / NANOSECONDS_PER_UNIT;
        let quantile = step.quantile_iterated_to();
        let _ = if quantile < 1.0 {
            writeln!(text, "{value:12.3} {quantile:2.12} {total:10} {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text, "{value:12.3} {quantile:2.12} {total:10}")
        };
    }
    let buckets = histogram.buckets();
    let _ = writeln!(
        text,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {buckets:12}, SubBuckets     = {:12}]",
        histogram.mean() / NANOSECONDS_PER_UNIT,
        histogram.stdev() / NANOSECONDS_PER_UNIT,
        histogram.max() as f64 / NANOSECONDS_PER_UNIT,
        histogram.len(),
        2048,
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_format_plotters_read() {
        let mut histogram = crate::recorder::histogram();
        for microseconds in 1..=10_000_u64 {
            histogram.record(microseconds * 1_000).unwrap();
        }
        let text = format(&histogram);
        let mut lines = text.lines();
        let head: Vec<&str> = lines.next().unwrap().split_ascii_whitespace().collect();
        assert_eq!(head, ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]);
        let mut last = (0.0, -1.0, 0);
        for line in lines.by_ref().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let row: (f64, f64, u64) =
                (fields[0].parse().unwrap(), fields[1].parse().unwrap(), fields[2].parse().unwrap());
            assert!(row.0 >= last.0 && row.1 >= last.1 && row.2 >= last.2, "{line}");
            assert_eq!(fields.len(), if row.1 < 1.0 { 4 } else { 3 }, "{line}");
            last = row;
        }
        assert!((last.0 - 10_000.0).abs() < 20.0 && last.1 == 1.0 && last.2 == 10_000);
        assert!(text.contains("#[Mean    =") && text.contains("Total count    =        10000]"));
    }

    #[test]
    fn an_empty_histogram_is_a_head_and_a_foot() {
        assert!(format(&crate::recorder::histogram()).contains("Total count    =            0]"));
    }
}
