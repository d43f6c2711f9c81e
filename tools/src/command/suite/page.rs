//! The report of the suite as one page: tables and drawings, nothing loaded from elsewhere.
//!
//! Off the data path.

use std::fmt::Write as _;

use super::section::{Grid, Section};
use super::{CAVEATS, Report};

const STYLE: &str = "\
:root { color-scheme: light; --ink: #1c2430; --soft: #5a6675; --line: #d5dbe3; --paper: #ffffff; --good: #14702c; --bad: #b3141f; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 66rem; background: var(--paper); color: var(--ink);
       font: 16px/1.5 system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line); font-family: ui-monospace, 'DejaVu Sans Mono', monospace; }
p, li { max-width: 56rem; }
.facts { color: var(--soft); font-size: .9rem; margin: 0; overflow-wrap: anywhere; }
.warning { background: #fff3d6; border-left: 4px solid #d99a00; padding: .5rem .75rem; }
.problem { background: #fdeaea; border-left: 4px solid var(--bad); padding: .5rem .75rem; }
.verdict { font-family: system-ui, sans-serif; font-size: .8rem; font-weight: 600; margin-left: .75rem; vertical-align: middle; }
.good { color: var(--good); }
.bad { color: var(--bad); }
nav a { margin-right: 1rem; }
.wide { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 2px solid var(--soft); }
tbody th { font-weight: 400; }
figure { margin: 1.5rem 0; }
figure svg { width: 100%; height: auto; border: 1px solid var(--line); border-radius: 4px; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: .25rem; }
";

/// The whole page.
pub(super) fn page(report: &Report) -> String {
    let mut body = format!(
        "<h1>ringraft bench suite</h1>\n<p class=\"facts\">Generated (UTC): {}</p>\n<p class=\"facts\">{}</p>\n\
         <p class=\"facts\">ringraft {}, <code>{}</code></p>\n",
        escaped(&report.generated_utc),
        escaped(&report.machine()),
        env!("CARGO_PKG_VERSION"),
        escaped(&report.command),
    );
    for warning in &report.warnings {
        let _ = writeln!(body, "<p class=\"warning\">{}</p>", escaped(warning));
    }
    let links = report.sections.iter().map(|section| format!("<a href=\"#{0}\">{0}</a>", section.name));
    let _ = writeln!(body, "<nav><p>{}</p></nav>", links.collect::<Vec<_>>().join("\n"));
    for section in &report.sections {
        add_section(&mut body, section);
    }
    body.push_str("<h2 id=\"caveats\">How to read this</h2>\n<ul>\n");
    for caveat in CAVEATS {
        let _ = writeln!(body, "<li>{}</li>", escaped(caveat));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>ringraft bench suite</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n{body}</ul>\n</body>\n</html>\n"
    )
}

fn add_section(body: &mut String, section: &Section) {
    let (class, verdict) = if section.problems.is_empty() { ("good", "ok") } else { ("bad", "problems") };
    let _ = writeln!(
        body,
        "<section>\n<h2 id=\"{0}\">{0}<span class=\"verdict {class}\">{verdict}</span></h2>\n<p>{1}</p>",
        section.name,
        escaped(&section.about)
    );
    for problem in &section.problems {
        let _ = writeln!(body, "<p class=\"problem\">{}</p>", escaped(problem));
    }
    for grid in &section.grids {
        add_grid(body, grid);
    }
    for plot in &section.plots {
        let (svg, caption) = (&plot.svg, escaped(&plot.caption));
        let _ = writeln!(body, "<figure>\n{}\n<figcaption>{caption}</figcaption>\n</figure>", scalable(svg));
    }
    body.push_str("</section>\n");
}

fn add_grid(body: &mut String, grid: &Grid) {
    let head: String = grid.head.iter().map(|cell| format!("<th scope=\"col\">{}</th>", escaped(cell))).collect();
    let _ = writeln!(body, "<div class=\"wide\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>");
    for row in &grid.rows {
        let first = row.first().map(|cell| format!("<th scope=\"row\">{}</th>", escaped(cell))).unwrap_or_default();
        let rest: String = row.iter().skip(1).map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        let _ = writeln!(body, "<tr>{first}{rest}</tr>");
    }
    body.push_str("</tbody></table></div>\n");
}

/// A drawing without the size it was drawn at: the page decides; `viewBox` keeps its proportions.
fn scalable(svg: &str) -> String {
    let Some((head, rest)) = svg.split_once('>') else { return String::new() };
    let words = head.split(' ').filter(|word| !word.starts_with("width=") && !word.starts_with("height="));
    format!("{}>{rest}", words.collect::<Vec<_>>().join(" "))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use ringraft_bench::host::HostFacts;

    use super::super::section::Plot;
    use super::*;

    #[test]
    fn a_page_holds_everything_and_loads_nothing() {
        let mut section = Section::new("failover_time", "Kills <the> leader & waits.".to_owned());
        let mut grid = Grid::new(&["kill", "first write after"]);
        grid.row(["1".to_owned(), "312 ms".to_owned()]);
        section.grids.push(grid);
        section.problems.push("something \"odd\"".to_owned());
        let svg =
            "<svg width=\"960\" height=\"420\" viewBox=\"0 0 960 420\" xmlns=\"http://www.w3.org/2000/svg\">\n</svg>";
        section.plots.push(Plot { caption: "Latency.".to_owned(), svg: svg.to_owned() });
        let report = Report {
            generated_utc: "2026-02-22T23:35:50Z".to_owned(),
            command: "ringraft bench suite".to_owned(),
            host: HostFacts::default(),
            warnings: vec!["slow".to_owned()],
            sections: vec![section],
        };
        let page = page(&report);
        for part in [
            "2026-02-22T23:35:50Z",
            "Kills &lt;the&gt; leader &amp; waits.",
            "312 ms",
            "something &quot;odd&quot;",
            "slow",
        ] {
            assert!(page.contains(part), "{part}");
        }
        assert!(page.contains("<svg viewBox=\"0 0 960 420\"") && !page.contains("width=\"960\""), "{page}");
        assert!(!page.contains("src=") && !page.contains("<link") && !page.contains("<script"));
        assert_eq!(page.matches("<section>").count(), page.matches("</section>").count());
    }
}
