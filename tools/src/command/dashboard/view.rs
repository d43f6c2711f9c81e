//! The dashboard's frame: a line about the cluster, a table of nodes, a table of groups, the keys.
//!
//! Off the data path.
//! Invariant: rows that do not fit are scrolled, columns that do not fit are left out, the least needed first; no cell is
//! wrapped into another one.

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
    frame.render_widget(node_table(&model.nodes, nodes.width), nodes);
    let mut state = TableState::new().with_selected((!model.groups.is_empty()).then_some(choice.group));
    frame.render_stateful_widget(group_table(&model.groups, groups.width), groups, &mut state);
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

/// A column of a table.
struct Column<R> {
    title: &'static str,
    width: u16,
    /// Of the columns that do not fit those with the lowest rank go first.
    rank: u8,
    cell: fn(&R) -> String,
}

const fn column<R>(title: &'static str, width: u16, rank: u8, cell: fn(&R) -> String) -> Column<R> {
    Column { title, width, rank, cell }
}

const NODE_COLUMNS: [Column<NodeRow>; 13] = [
    column("node", 5, 99, |node| node.node.to_string()),
    column("shards", 6, 1, |node| node.shards.to_string()),
    column("replicas", 8, 2, |node| node.replicas.to_string()),
    column("leads", 5, 8, |node| node.leads.to_string()),
    column("clients", 7, 4, |node| node.clients.to_string()),
    column("waiting", 7, 6, |node| node.waiting.to_string()),
    column("writes/s", 8, 10, |node| rate(node.writes)),
    column("reads/s", 8, 9, |node| rate(node.reads)),
    column("flushes/s", 9, 5, |node| rate(node.flushes)),
    column("to disk", 11, 3, |node| bytes(node.bytes)),
    column("flush, max", 15, 7, |node| latency(node.flush)),
    column("commit, max", 15, 11, |node| latency(node.commit)),
    column("disk", 8, 12, |node| node.disk.to_owned()),
];

const GROUP_COLUMNS: [Column<GroupRow>; 9] = [
    column("group", 6, 99, |group| group.group.to_string()),
    column("leader", 7, 9, |group| group.leader.map_or_else(|| "none".to_owned(), |(node, _)| node.to_string())),
    column("term", 6, 5, |group| group.leader.map_or_else(|| "-".to_owned(), |(_, term)| term.to_string())),
    column("committed", 12, 7, |group| group.committed.to_string()),
    column("applied", 12, 4, |group| group.applied.to_string()),
    column("keys", 10, 3, |group| group.keys.to_string()),
    column("roles", 18, 6, |group| pairs(group.roles.iter())),
    column("behind its leader", 22, 8, |group| pairs(group.lags.iter())),
    column("change", 12, 2, |group| group.change.clone()),
];

/// The columns that fit into so many characters, with a border on either side.
fn fitting<R>(columns: &[Column<R>], width: u16) -> Vec<&Column<R>> {
    let mut shown: Vec<_> = columns.iter().collect();
    while shown.iter().map(|column| column.width + 1).sum::<u16>() + 1 > width && shown.len() > 1 {
        let lowest = shown.iter().map(|column| column.rank).min();
        shown.retain(|column| Some(column.rank) != lowest);
    }
    shown
}

fn node_table(nodes: &[NodeRow], width: u16) -> Table<'static> {
    let is_good = |node: &NodeRow| node.disk == "ok";
    table(nodes, &fitting(&NODE_COLUMNS, width), is_good, "Nodes")
}

fn group_table(groups: &[GroupRow], width: u16) -> Table<'static> {
    let is_good = |group: &GroupRow| group.leader.is_some();
    let table = table(groups, &fitting(&GROUP_COLUMNS, width), is_good, "Groups");
    table.row_highlight_style(Style::new().add_modifier(Modifier::REVERSED))
}

fn table<R>(all: &[R], columns: &[&Column<R>], is_good: fn(&R) -> bool, title: &'static str) -> Table<'static> {
    let header = columns.iter().map(|column| column.title);
    let header = Row::new(header.collect::<Vec<_>>()).style(Style::new().add_modifier(Modifier::UNDERLINED));
    let rows = all.iter().map(|row| {
        let cells = columns.iter().map(|column| (column.cell)(row));
        let style = if is_good(row) { Style::new() } else { Style::new().fg(Color::Red) };
        Row::new(cells.collect::<Vec<_>>()).style(style)
    });
    let widths = columns.iter().map(|column| Constraint::Length(column.width));
    Table::new(rows.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .header(header)
        .block(Block::new().borders(Borders::ALL).title(title))
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
    fn a_narrow_terminal_leaves_columns_out_and_cuts_none() {
        let model = Model::new(Some(&sample(10, 1_000)), &sample(12, 4_000));
        let shown = |width| {
            let mut terminal = Terminal::new(TestBackend::new(width, 16)).unwrap();
            terminal.draw(|frame| draw(frame, &model, Choice::default())).unwrap();
            terminal.backend().to_string()
        };
        let all = shown(WIDTH);
        for column in
            NODE_COLUMNS.iter().map(|column| column.title).chain(GROUP_COLUMNS.iter().map(|column| column.title))
        {
            assert!(all.contains(column), "{column} is not in\n{all}");
        }
        let narrow = shown(80);
        for whole in ["0.40, 12 ms", "1.50, 9.00 ms", "stalled", "1500", "2:0 3:12", "commit, max", "behind its leader"]
        {
            assert!(narrow.contains(whole), "{whole} is not in\n{narrow}");
        }
        assert!(!narrow.contains("shards") && !narrow.contains("change"), "{narrow}");
        assert!(shown(3).contains('│'), "no width is too small");
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
