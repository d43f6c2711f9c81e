//! Latency by percentile as an SVG: one line per system, the tail as wide as the middle.
//!
//! Off the data path. Both axes are logarithmic: x is 1/(1-p), so that 99%, 99.9% and 99.99% are equally far apart.

use hdrhistogram::Histogram;
use plotters::prelude::*;
use thiserror::Error;

/// The plot could not be drawn.
#[derive(Debug, Error)]
#[error("drawing the latency plot: {0}")]
pub struct PlotError(String);

/// One line of the plot.
pub struct Series<'a> {
    /// Its name in the legend.
    pub name: String,
    /// Nanoseconds.
    pub histogram: &'a Histogram<u64>,
}

const SIZE: (u32, u32) = (960, 540);

/// Draws the series; empty ones are left out.
pub fn svg(title: &str, series: &[Series<'_>]) -> Result<String, PlotError> {
    let lines: Vec<(&str, Vec<(f64, f64)>)> = series
        .iter()
        .filter(|series| !series.histogram.is_empty())
        .map(|series| (series.name.as_str(), points(series.histogram)))
        .collect();
    let mut text = String::new();
    draw(&mut text, title, &lines).map_err(|error| PlotError(error.to_string()))?;
    Ok(text)
}

/// (1/(1-p), milliseconds), up to the last percentile that one sample stands for.
fn points(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let last = histogram.len() as f64;
    let mut points: Vec<(f64, f64)> = histogram
        .iter_quantiles(10)
        .map(|step| {
            let inverse = (1.0 / (1.0 - step.quantile_iterated_to())).min(last).max(1.0);
            (inverse, step.value_iterated_to().min(histogram.max()).max(1) as f64 / 1e6)
        })
        .collect();
    points.dedup_by(|later, earlier| later.0 <= earlier.0);
    points
}

fn draw(text: &mut String, title: &str, lines: &[(&str, Vec<(f64, f64)>)]) -> Result<(), Box<dyn std::error::Error>> {
    let all = || lines.iter().flat_map(|(_, points)| points);
    let x_max = all().map(|(x, _)| *x).fold(100.0, f64::max);
    let y_min = all().map(|(_, y)| *y).fold(f64::INFINITY, f64::min).min(1.0);
    let y_max = all().map(|(_, y)| *y).fold(1.0, f64::max) * 1.2;
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((1.0..x_max).log_scale(), (y_min..y_max).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("percentile")
        .y_desc("latency from intended start, ms")
        .x_label_formatter(&|inverse| percentile(*inverse))
        .y_label_formatter(&|milliseconds| format!("{milliseconds}"))
        .draw()?;
    for (number, (name, points)) in lines.iter().enumerate() {
        let color = Palette99::pick(number).to_rgba();
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    if !lines.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()?;
    }
    area.present()?;
    Ok(())
}

/// The percentile that 1/(1-p) stands for, with as many nines as it has.
fn percentile(inverse: f64) -> String {
    let percent = 100.0 - 100.0 / inverse;
    let decimals = (inverse.log10().ceil() as usize).saturating_sub(2);
    format!("{percent:.decimals$}%")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_nines_they_need() {
        let labels = [1.0, 10.0, 100.0, 1_000.0, 10_000.0].map(percentile);
        assert_eq!(labels, ["0%", "90%", "99%", "99.9%", "99.99%"]);
    }

    #[test]
    fn draws_lines_and_leaves_out_empty_ones() {
        let mut histogram = crate::recorder::histogram();
        for microseconds in 1..=10_000_u64 {
            histogram.record(microseconds * 1_000).unwrap();
        }
        let empty = crate::recorder::histogram();
        let series = [
            Series { name: "ringraft".to_owned(), histogram: &histogram },
            Series { name: "nothing".to_owned(), histogram: &empty },
        ];
        let text = svg("puts", &series).unwrap();
        assert!(text.starts_with("<svg") && text.trim_end().ends_with("</svg>"));
        assert!(text.contains("ringraft") && !text.contains("nothing") && text.contains("99.9%"));
        assert!(svg("nothing", &[]).is_ok());
    }
}
