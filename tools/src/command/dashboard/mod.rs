//! `ringraft admin`: the cluster as it goes on, in the terminal.
//!
//! Off the data path.
//!
//! ```text
//!   looking thread ── status of all shards, once an interval ──▶ channel ──▶ model: rows and rates ──▶ frame
//!   keyboard ────────────────────────────────────────────────────────────▶ choice ───────────────────▶
//! ```
//! Invariants: a node that does not answer holds up the numbers, never the keyboard; the terminal is restored however it
//! ends.

mod model;
mod view;

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ringraft_tools::admin;
use ringraft_tools::status;

use self::model::{Model, Sample};
use self::view::Choice;
use super::{Outcome, SUCCESS};
use crate::client::Target;

const EXAMPLES: &str = "\
Examples:
  ringraft admin --dir ./cluster
  ringraft admin --addr 10.0.0.1:7100,10.0.0.2:7100 --interval-ms 500
  ringraft admin --dir ./cluster --once              one frame as text, for a pipe
  ringraft admin --dir ./cluster --once --json       what every shard says

Keys: q ends, the arrows (or j and k) move through the groups, space pauses.

Exit code 1: with --once, some group has no leader that serves, or a shard does not answer.";

/// A live dashboard: nodes, roles, terms, progress, lags, rates.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Admin {
    #[command(flatten)]
    target: Target,
    /// Time between two looks at the cluster; with --once that over which rates are measured.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    interval_ms: u64,
    /// Prints one frame as text.
    #[arg(long)]
    once: bool,
}

/// How long a key may wait to be seen.
const KEY_WAIT: Duration = Duration::from_millis(50);

pub(crate) fn run(arguments: &Admin) -> Result<Outcome> {
    let addresses = arguments.target.all_addresses()?;
    if arguments.once || arguments.target.json {
        return once(arguments, &addresses);
    }
    let samples = look(arguments.target.endpoints()?, addresses, Duration::from_millis(arguments.interval_ms));
    let mut terminal = ratatui::try_init().context("cannot use the terminal; `--once` prints a frame as text")?;
    let ended = show(&mut terminal, &samples);
    ratatui::restore();
    ended.map(|()| SUCCESS)
}

fn once(arguments: &Admin, addresses: &[String]) -> Result<Outcome> {
    let started = Instant::now();
    let sample = || Sample { at: started.elapsed(), status: status::cluster(addresses) };
    if arguments.target.json {
        return super::status::print(&sample().status, true);
    }
    let before = sample();
    thread::sleep(Duration::from_millis(arguments.interval_ms));
    let now = sample();
    print!("{}", text(&Model::new(Some(&before), &now))?);
    Ok(Outcome::of(super::status::is_whole(&now.status)))
}

/// A frame that everything fits in, as text.
fn text(model: &Model) -> Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(view::WIDTH, view::height(model)))?;
    terminal.draw(|frame| view::draw(frame, model, Choice::default()))?;
    let buffer = terminal.backend().buffer();
    let rows = buffer.content().chunks(usize::from(view::WIDTH));
    let lines = rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
    Ok(lines.map(|line| format!("{}\n", line.trim_end())).collect())
}

/// A thread that looks at the cluster again and again, also at nodes that come; it ends when nobody listens.
fn look(endpoints: Vec<String>, mut addresses: Vec<String>, interval: Duration) -> Receiver<Sample> {
    let (sender, samples) = mpsc::sync_channel(1);
    thread::spawn(move || {
        let started = Instant::now();
        loop {
            if let Ok(topology) = admin::welcome(&endpoints) {
                addresses = topology.nodes.into_iter().flat_map(|node| node.addresses).collect();
            }
            let status = status::cluster(&addresses);
            if sender.send(Sample { at: started.elapsed(), status }).is_err() {
                return;
            }
            thread::sleep(interval);
        }
    });
    samples
}

fn show(terminal: &mut ratatui::DefaultTerminal, samples: &Receiver<Sample>) -> Result<()> {
    let (mut choice, mut newest) = (Choice::default(), None::<Sample>);
    let mut model = None::<Model>;
    loop {
        if let Ok(sample) = samples.try_recv()
            && !choice.paused
        {
            model = Some(Model::new(newest.as_ref(), &sample));
            newest = Some(sample);
        }
        let groups = model.as_ref().map_or(0, |model| model.groups.len());
        choice.group = choice.group.min(groups.saturating_sub(1));
        terminal.draw(|frame| match &model {
            Some(model) => view::draw(frame, model, choice),
            None => frame.render_widget("looking at the cluster ...", frame.area()),
        })?;
        if event::poll(KEY_WAIT)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && !press(key, &mut choice)
        {
            return Ok(());
        }
    }
}

/// What a key does; `false`: it ends the dashboard.
fn press(key: KeyEvent, choice: &mut Choice) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Down | KeyCode::Char('j') => choice.group = choice.group.saturating_add(1),
        KeyCode::Up | KeyCode::Char('k') => choice.group = choice.group.saturating_sub(1),
        KeyCode::Char(' ') => choice.paused = !choice.paused,
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_move_pause_and_end() {
        let mut choice = Choice::default();
        let mut press_code = |code| press(KeyEvent::from(code), &mut choice);
        assert!(press_code(KeyCode::Down) && press_code(KeyCode::Char('j')) && press_code(KeyCode::Up));
        assert!(press_code(KeyCode::Char(' ')) && press_code(KeyCode::Char('x')));
        assert!(!press_code(KeyCode::Char('q')) && !press_code(KeyCode::Esc));
        assert_eq!(choice, Choice { group: 1, paused: true });
        assert!(press(KeyEvent::from(KeyCode::Char('c')), &mut choice));
        assert!(!press(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), &mut choice));
    }
}
