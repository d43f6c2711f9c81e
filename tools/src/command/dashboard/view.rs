//! The dashboard's frame: a line about the cluster, a table of nodes, a table of groups, the keys.
//!
//! Off the data path.
//! Invariant: what does not fit is scrolled or cut, never wrapped into another cell.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, TableState};

use super::model::{GroupRow, Latency, Model, NodeRow};

/// Columns that everything fits in.
pub(super) const WIDTH: u16 = 128;

/// Lines that everything of a model fits in.
pub(super) fn height(model: &Model) -> u16 {
    let rows = model.nodes.len() + model.groups.len();
    u16::try_from(rows).unwrap_or(u16::MAX - 8).saturating_add(8)
}

/// What the viewer chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// The group at the cursor.
    pub(super) group: usize,
    pub(super) paused: bool,
}

/// Draws one frame.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, choice: Choice) {
    let nodes_height = u16::try_from(model.nodes.len()).unwrap_or(u16::MAX).saturating_add(3);
    let [title, nodes, groups, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(nodes_height),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(title_line(model)).style(Style::new().add_modifier(Modifier::BOLD)), title);
    frame.render_widget(node_table(&model.nodes), nodes);
    let mut state = TableState::new().with_selected((!model.groups.is_empty()).then_some(choice.group));
    frame.render_stateful_widget(group_table(&model.groups), groups, &mut state);
    let paused = if choice.paused { "  paused" } else { "" };
    frame.render_widget(Paragraph::new(format!("q ends  up, down: groups  space: pause{paused}")), keys);
}

fn title_line(model: &Model) -> Line<'static> {
    let unled = model.groups.iter().filter(|group| group.leader.is_none()).count();
    let mut text = format!(
        "ringraft: {} node(s), {} group(s), {} writes/s, {} reads/s",
        model.nodes.len(),
        model.groups.len(),
        rate(model.writes),
        rate(model.reads),
    );
    if unled > 0 {
        text.push_str(&format!(", {unled} WITHOUT A LEADER"));
    }
    if !model.silent.is_empty() {
        text.push_str(&format!(", no answer: {}", model.silent.join(" ")));
    }
    let bad = unled > 0 || !model.silent.is_empty();
    Line::styled(text, if bad { Style::new().fg(Color::Red) } else { Style::new() })
}

fn node_table(nodes: &[NodeRow]) -> Table<'static> {
    let header = [
        "node",
        "shards",
        "replicas",
        "leads",
        "clients",
        "waiting",
        "writes/s",
        "reads/s",
        "flushes/s",
        "to disk",
        "flush, max",
        "commit, max",
        "disk",
    ];
    let rows = nodes.iter().map(|node| {
        let cells = [
            node.node.to_string(),
            node.shards.to_string(),
            node.replicas.to_string(),
            node.leads.to_string(),
            node.clients.to_string(),
            node.waiting.to_string(),
            rate(node.writes),
            rate(node.reads),
            rate(node.flushes),
            bytes(node.bytes),
            latency(node.flush),
            latency(node.commit),
            node.disk.to_owned(),
        ];
        Row::new(cells).style(if node.disk == "ok" { Style::new() } else { Style::new().fg(Color::Red) })
    });
    let widths = [5, 6, 8, 5, 7, 7, 8, 8, 9, 11, 15, 15, 8].map(Constraint::Length);
    table(rows.collect(), &header, &widths, "Nodes")
}

fn group_table(groups: &[GroupRow]) -> Table<'static> {
    let header = ["group", "leader", "term", "committed", "applied", "keys", "roles", "behind its leader", "change"];
    let rows = groups.iter().map(|group| {
        let cells = [
            group.group.to_string(),
            group.leader.map_or_else(|| "none".to_owned(), |(node, _)| node.to_string()),
            group.leader.map_or_else(|| "-".to_owned(), |(_, term)| term.to_string()),
            group.committed.to_string(),
            group.applied.to_string(),
            group.keys.to_string(),
            pairs(group.roles.iter()),
            pairs(group.lags.iter()),
            group.change.clone(),
        ];
        Row::new(cells).style(if group.leader.is_some() { Style::new() } else { Style::new().fg(Color::Red) })
    });
    let widths = [6, 7, 6, 12, 12, 10, 18, 22, 12].map(Constraint::Length);
    table(rows.collect(), &header, &widths, "Groups").row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

fn table(
    rows: Vec<Row<'static>>,
    header: &[&'static str],
    widths: &[Constraint],
    title: &'static str,
) -> Table<'static> {
    let header = Row::new(header.to_vec()).style(Style::new().add_modifier(Modifier::UNDERLINED));
    Table::new(rows, widths.to_vec()).header(header).block(Block::new().borders(Borders::ALL).title(title))
}

/// `1:L 2:F`.
fn pairs<'a, T: std::fmt::Display + 'a>(pairs: impl Iterator<Item = &'a (u64, T)>) -> String {
    pairs.map(|(node, what)| format!("{node}:{what}")).collect::<Vec<_>>().join(" ")
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}"))
}

fn bytes(rate: Option<f64>) -> String {
    match rate {
        None => "-".to_owned(),
        Some(rate) if rate >= 1_048_576.0 => format!("{:.1} MiB/s", rate / 1_048_576.0),
        Some(rate) => format!("{:.0} KiB/s", rate / 1_024.0),
    }
}

/// `0.41, 12.3 ms`: the mean since the last look, and the longest of the last minute.
fn latency(latency: Latency) -> String {
    let ms = |us: f64| if us < 9_950.0 { format!("{:.2}", us / 1e3) } else { format!("{:.0}", us / 1e3) };
    match (latency.mean_us, latency.max_us) {
        (_, None) => "-".to_owned(),
        (None, Some(max_us)) => format!("-, {} ms", ms(max_us as f64)),
        (Some(mean_us), Some(max_us)) => format!("{}, {} ms", ms(mean_us), ms(max_us as f64)),
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::sample;
    use super::*;

    #[test]
    fn a_frame_shows_nodes_groups_rates_and_lags() {
        let model = Model::new(Some(&sample(10, 1_000)), &sample(12, 4_000));
        let text = super::super::text(&model).unwrap();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        assert_eq!(lines[0], "ringraft: 3 node(s), 1 group(s), 1500 writes/s, 30 reads/s, no answer: 10.0.0.4:7100");
        for row in [
            "│1 1 1 1 3 1 1500 10 100 1.0 MiB/s 0.40, 12 ms 1.50, 9.00 ms ok │",
            "│2 1 1 0 3 1 0 10 100 1.0 MiB/s 0.40, 12 ms -, 0.00 ms ok │",
            "│3 1 1 0 3 1 0 10 100 1.0 MiB/s 0.40, 12 ms -, 0.00 ms stalled │",
            "│0 1 4 100 100 42 1:L 2:F 3:F 2:0 3:12 │",
        ] {
            assert!(lines.iter().any(|line| line == row), "{row} is not in\n{text}");
        }
        assert_eq!(lines.len(), usize::from(height(&model)));
    }

    #[test]
    fn a_small_terminal_shows_the_group_at_the_cursor() {
        let mut model = Model::new(None, &sample(1, 1));
        let group = model.groups[0].clone();
        model.groups = (0..50).map(|number| GroupRow { group: number, ..group.clone() }).collect();
        let mut terminal = Terminal::new(TestBackend::new(WIDTH, 16)).unwrap();
        let choice = Choice { group: 40, paused: true };
        terminal.draw(|frame| draw(frame, &model, choice)).unwrap();
        let shown = terminal.backend().to_string();
        assert!(shown.contains("│40 ") && !shown.contains("│10 ") && shown.contains("paused"), "{shown}");
    }
}
