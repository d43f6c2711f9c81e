//! Plots as SVG: latency by percentile, the tail as wide as the middle; latency, or anything else, over time.
//!
//! Off the data path.
//! By percentile both axes are logarithmic: x is 1/(1-p), so that 99%, 99.9% and 99.99% are equally far apart.
//! Over time y is logarithmic or begins at zero, and moments (a kill, a restart) are vertical lines with an entry of their
//! own in the legend, which stands above the chart and hides none of it.

use hdrhistogram::Histogram;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use thiserror::Error;

/// The plot could not be drawn.
#[derive(Debug, Error)]
#[error("drawing a plot: {0}")]
pub struct PlotError(String);

/// One line of a plot by percentile.
pub struct Series<'a> {
    /// Its name in the legend.
    pub name: String,
    /// Nanoseconds.
    pub histogram: &'a Histogram<u64>,
}

/// One line of a plot over time.
pub struct Line<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Seconds, and the value.
    pub points: Vec<(f64, f64)>,
}

/// Moments of one kind.
pub struct Moments<'a> {
    /// Its name in the legend.
    pub name: &'a str,
    /// Seconds.
    pub at_s: Vec<f64>,
}

/// A plot over time.
pub struct OverTime<'a> {
    /// What stands above it.
    pub title: &'a str,
    /// What y is, with its unit.
    pub y: &'a str,
    /// Whether y is logarithmic.
    pub logarithmic: bool,
    /// The lines.
    pub lines: Vec<Line<'a>>,
    /// Vertical lines.
    pub moments: Vec<Moments<'a>>,
}

type Failure = Box<dyn std::error::Error>;

const SIZE: (u32, u32) = (960, 440);
/// Height of title and legend.
const HEAD: u32 = 62;
/// Where the axis begins.
const LEFT: i32 = 84;
/// Width of a character of the legend, about.
const CHARACTER: i32 = 7;
const FONT: &str = "sans-serif";
/// Told apart also by those who do not see colours as others do (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(110, 110, 110),
];
/// Colours of moments.
const MOMENTS: [RGBColor; 3] = [RGBColor(190, 20, 20), RGBColor(230, 159, 0), RGBColor(20, 140, 40)];
/// Least value on a logarithmic axis.
const LEAST: f64 = 1e-3;

/// Draws latency by percentile; empty series are left out.
pub fn svg(title: &str, series: &[Series<'_>]) -> Result<String, PlotError> {
    let lines: Vec<Line<'_>> = series
        .iter()
        .filter(|series| !series.histogram.is_empty())
        .map(|series| Line { name: series.name.as_str(), points: points(series.histogram) })
        .collect();
    let mut text = String::new();
    draw_percentiles(&mut text, title, &lines).map_err(|error| PlotError(error.to_string()))?;
    Ok(text)
}

/// Draws something over time.
pub fn over_time(plot: &OverTime<'_>) -> Result<String, PlotError> {
    let mut text = String::new();
    draw_over_time(&mut text, plot).map_err(|error| PlotError(error.to_string()))?;
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

/// Least and greatest value of all lines, with room above.
fn bounds(lines: &[Line<'_>]) -> (f64, f64) {
    let all = || lines.iter().flat_map(|line| &line.points);
    let least = all().map(|(_, y)| *y).fold(f64::INFINITY, f64::min).clamp(LEAST, 1.0);
    let greatest = all().map(|(_, y)| *y).fold(1.0, f64::max) * 1.5;
    (least, greatest)
}

fn draw_percentiles(text: &mut String, title: &str, lines: &[Line<'_>]) -> Result<(), Failure> {
    let x_max = lines.iter().flat_map(|line| &line.points).map(|(x, _)| *x).fold(100.0, f64::max);
    let (y_min, y_max) = bounds(lines);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let rest = headed(&area, title, lines, &[])?;
    let mut chart = builder(&rest).build_cartesian_2d((1.0..x_max).log_scale(), (y_min..y_max).log_scale())?;
    let y = ("latency from intended start, ms", &logarithmic as &Formatter);
    mesh(&mut chart, ("percentile", &|inverse: &f64| percentile(*inverse)), y)?;
    draw_lines(&mut chart, lines)?;
    area.present()?;
    Ok(())
}

fn draw_over_time(text: &mut String, plot: &OverTime<'_>) -> Result<(), Failure> {
    let times = plot.lines.iter().flat_map(|line| line.points.iter().map(|(x, _)| *x));
    let x_max = times.chain(plot.moments.iter().flat_map(|moments| moments.at_s.iter().copied())).fold(1.0, f64::max);
    let (y_min, y_max) = bounds(&plot.lines);
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    let rest = headed(&area, plot.title, &plot.lines, &plot.moments)?;
    if plot.logarithmic {
        let chart = builder(&rest).build_cartesian_2d(0.0..x_max, (y_min..y_max).log_scale())?;
        fill_over_time(chart, plot, (y_min, y_max), &logarithmic)?;
    } else {
        let chart = builder(&rest).build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
        fill_over_time(chart, plot, (0.0, y_max), &|value: &f64| number(*value))?;
    }
    area.present()?;
    Ok(())
}

type Area<'b> = DrawingArea<SVGBackend<'b>, plotters::coord::Shift>;
type Chart<'a, 'b, X, Y> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>;
type Formatter = dyn Fn(&f64) -> String;

/// Title and legend, above the chart so that they hide no line of it; where the chart goes.
fn headed<'b>(area: &Area<'b>, title: &str, lines: &[Line<'_>], moments: &[Moments<'_>]) -> Result<Area<'b>, Failure> {
    area.fill(&WHITE)?;
    let (head, rest) = area.split_vertically(HEAD);
    head.draw(&Text::new(title.to_owned(), (LEFT, 10), (FONT, 17)))?;
    let lines = lines
        .iter()
        .zip(COLORS.iter().cycle())
        .map(|(line, color)| (line.name, [(0, 7), (20, 7)], color.stroke_width(2)));
    let moments = moments.iter().zip(MOMENTS.iter().cycle());
    let moments = moments.map(|(moments, color)| (moments.name, [(10, 0), (10, 14)], color.stroke_width(2)));
    let mut x = LEFT;
    for (name, mark, style) in lines.chain(moments) {
        head.draw(&PathElement::new(mark.map(|(right, down)| (x + right, 38 + down)), style))?;
        head.draw(&Text::new(name.to_owned(), (x + 27, 39), (FONT, 13)))?;
        x += 27 + CHARACTER * name.chars().count() as i32 + 20;
    }
    Ok(rest)
}

fn builder<'a, 'b>(area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.margin(6).margin_left(12).margin_right(28).x_label_area_size(46).y_label_area_size(LEFT - 12);
    builder
}

fn mesh<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    (x, x_label): (&str, &Formatter),
    (y, y_label): (&str, &Formatter),
) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(x).y_desc(y).label_style((FONT, 13)).axis_desc_style((FONT, 14));
    mesh.max_light_lines(1).bold_line_style(BLACK.mix(0.12)).axis_style(BLACK.mix(0.6));
    mesh.x_label_formatter(x_label).y_label_formatter(y_label).draw()?;
    Ok(())
}

fn fill_over_time<Y>(
    mut chart: Chart<'_, '_, RangedCoordf64, Y>,
    plot: &OverTime<'_>,
    bounds: (f64, f64),
    y_label: &Formatter,
) -> Result<(), Failure>
where
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    mesh(&mut chart, ("seconds since the window began", &|seconds: &f64| number(*seconds)), (plot.y, y_label))?;
    draw_moments(&mut chart, &plot.moments, bounds)?;
    draw_lines(&mut chart, &plot.lines)
}

fn draw_lines<X, Y>(chart: &mut Chart<'_, '_, X, Y>, lines: &[Line<'_>]) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    // The first lines are on top of the later ones.
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()).collect::<Vec<_>>().into_iter().rev() {
        chart.draw_series(LineSeries::new(line.points.iter().copied(), color.stroke_width(2)))?;
    }
    Ok(())
}

fn draw_moments<X, Y>(
    chart: &mut Chart<'_, '_, X, Y>,
    moments: &[Moments<'_>],
    (bottom, top): (f64, f64),
) -> Result<(), Failure>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    for (moments, color) in moments.iter().zip(MOMENTS.iter().cycle()) {
        let style = color.mix(0.75).stroke_width(1);
        chart.draw_series(moments.at_s.iter().map(|x| PathElement::new([(*x, bottom), (*x, top)], style)))?;
    }
    Ok(())
}

/// The percentile that 1/(1-p) stands for, with as many nines as it has.
fn percentile(inverse: f64) -> String {
    let percent = 100.0 - 100.0 / inverse;
    let decimals = (inverse.log10().ceil() as usize).saturating_sub(2);
    format!("{percent:.decimals$}%")
}

/// Of a logarithmic axis: numbers that begin with 1, 2 or 5; the others would overlap.
fn logarithmic(value: &f64) -> String {
    let leading = value / 10_f64.powf(value.log10().floor());
    let is_named = [1.0, 2.0, 5.0, 10.0].iter().any(|name: &f64| (leading - name).abs() < 0.01);
    if is_named { number(*value) } else { String::new() }
}

/// A number as short as it can be said: three digits, none for show, thousands apart.
fn number(value: f64) -> String {
    if value >= 1_000.0 {
        return crate::table::count(value);
    }
    let decimals =
        if value >= 100.0 || value == 0.0 { 0 } else { (2.0 - value.log10().floor()).clamp(0.0, 6.0) as usize };
    let text = format!("{value:.decimals$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
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
    fn numbers_have_no_digits_for_show() {
        let labels = [0.9, 1.0, 2.0, 3.0, 5.0, 90.0, 100.0].map(|value| logarithmic(&value));
        assert_eq!(labels, ["", "1", "2", "", "5", "", "100"]);
        let labels = [0.0, 0.001, 0.300_000_000_000_000_04, 1.0, 2.5, 10.0, 100.0, 12_000.0].map(number);
        assert_eq!(labels, ["0", "0.001", "0.3", "1", "2.5", "10", "100", "12,000"]);
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

    #[test]
    fn draws_moments_with_names() {
        for logarithmic in [false, true] {
            let lines = vec![Line { name: "p99", points: vec![(0.5, 1.0), (1.5, 20.0)] }];
            let moments = vec![Moments { name: "leader killed", at_s: vec![0.7, 1.9] }];
            let plot = OverTime { title: "failover", y: "latency, ms", logarithmic, lines, moments };
            let text = over_time(&plot).unwrap();
            assert!(["p99", "leader killed", "latency, ms", "failover"].iter().all(|name| text.contains(name)));
        }
        let nothing = OverTime { title: "", y: "", logarithmic: true, lines: Vec::new(), moments: Vec::new() };
        assert!(over_time(&nothing).is_ok());
    }
}
