//! What dashboards and rules ask Prometheus for.
//!
//! Off the data path.

use std::collections::BTreeSet;

use serde_json::Value;

/// One dashboard.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    pub(crate) uid: String,
    pub(crate) title: String,
    pub(crate) panels: Vec<Panel>,
}

/// One panel that shows something.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) id: u64,
    pub(crate) title: String,
    pub(crate) queries: Vec<String>,
}

impl Board {
    /// Reads Grafana's JSON; the rows between panels are left out.
    pub(crate) fn parse(text: &str) -> Self {
        let board: Value = serde_json::from_str(text).expect("JSON");
        let panels = board["panels"].as_array().expect("panels").iter();
        let panels = panels.filter(|panel| panel["type"] != "row").map(Panel::of).collect();
        Self { uid: text_of(&board["uid"]), title: text_of(&board["title"]), panels }
    }
}

impl Panel {
    fn of(panel: &Value) -> Self {
        let targets = panel["targets"].as_array().expect("targets").iter();
        Self {
            id: panel["id"].as_u64().expect("an id"),
            title: text_of(&panel["title"]),
            queries: targets.map(|target| text_of(&target["expr"])).collect(),
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// The expressions of alerting rules, one line each.
pub(crate) fn expressions_of_rules(rules: &str) -> Vec<String> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(String::from).collect()
}

/// The metrics that an expression names.
pub(crate) fn metrics_in(expression: &str) -> BTreeSet<String> {
    let words = expression.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    let is_metric = |word: &&str| ["raft_", "ringraft_", "process_"].iter().any(|prefix| word.starts_with(prefix));
    let ours = words.filter(is_metric).map(String::from).collect::<BTreeSet<_>>();
    if ours.is_empty() && expression.contains("up{") {
        return BTreeSet::from([String::from("up")]); // Prometheus' own
    }
    ours
}

#[test]
fn the_metrics_of_an_expression_are_found() {
    let names = metrics_in("sum by (group) (rate(raft_commits_total{group!=\"\"}[1m])) / ringraft_keys");
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["raft_commits_total", "ringraft_keys"]);
}
