//! The Grafana dashboard: its queries as Grafana would send them, and whether its JSON is as Grafana wants it.

use std::collections::{BTreeMap, BTreeSet};

use pillion_api::metric::Declared;
use serde_json::Value;

use super::{text, undeclared};

/// Units of Grafana's that are used; a misspelt one would show as text beside the number.
const UNITS: [&str; 8] = ["none", "reqps", "percentunit", "s", "bytes", "Bps", "cps", "ops"];
const TYPES: [&str; 6] = ["row", "stat", "table", "timeseries", "heatmap", "state-timeline"];
/// Of all series, as Grafana fills in the variables where all is chosen.
const VARIABLES: [(&str, &str); 4] =
    [("$namespace", "[^.]+"), ("$service", ".+"), ("$caller", ".+"), ("$__rate_interval", "10s")];
/// The histogram that has exemplars.
const HAS_EXEMPLARS: &str = "pillion_request_duration_seconds_bucket";
const DATA_SOURCE: &str = "${datasource}";
const WIDTH: u64 = 24;

pub(super) struct Dashboard(Value);

impl Dashboard {
    pub(super) fn read() -> Self {
        Self(serde_json::from_str(&text("grafana/pillion-mesh.json")).expect("the dashboard is JSON"))
    }

    /// Every query with the panel that it is of, and the annotations'.
    pub(super) fn queries(&self) -> impl Iterator<Item = (String, String)> {
        let panels = self.panels().flat_map(|panel| {
            targets(panel)
                .map(|target| (title(panel).to_owned(), filled(target["expr"].as_str().unwrap_or_default())))
        });
        panels.chain(self.annotations().map(|query| ("annotations".to_owned(), query.to_owned())))
    }

    /// Every variable that asks Prometheus: its name, and label and selector that it asks for.
    pub(super) fn variables(&self) -> impl Iterator<Item = (String, String, String)> {
        self.list("/templating/list").filter(|variable| variable["type"] == "query").map(|variable| {
            let query = variable["query"]["query"].as_str().unwrap_or_default();
            let asked = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
            let (selector, label) =
                asked.and_then(|asked| asked.rsplit_once(", ")).expect("it asks for a label's values");
            (variable["name"].to_string(), label.to_owned(), filled(selector))
        })
    }

    /// What Grafana would stumble over, or its reader.
    pub(super) fn faults(&self, declared: &BTreeMap<&str, Declared>) -> Vec<String> {
        let mut faults = Vec::new();
        let (mut ids, mut titles) = (BTreeSet::new(), BTreeSet::new());
        let mut taken = BTreeMap::new();
        let mut row = "";
        for panel in self.panels() {
            let title = title(panel);
            let mut fault = |what: &str| faults.push(format!("{row} / {title}: {what}"));
            let kind = panel["type"].as_str().unwrap_or_default();
            if !TYPES.contains(&kind) {
                fault("is of an unknown type");
            }
            if !panel["id"].as_u64().is_some_and(|id| ids.insert(id)) {
                fault("has no id of its own");
            }
            place(panel, &mut taken).unwrap_or_else(&mut fault);
            if kind == "row" {
                row = title;
                continue;
            }
            if title.is_empty() || !titles.insert((row, title)) {
                fault("has no title of its own");
            }
            if panel["datasource"]["uid"] != DATA_SOURCE {
                fault("does not ask the chosen data source");
            }
            let unit = match kind {
                "heatmap" => &panel["options"]["yAxis"]["unit"],
                _ => &panel["fieldConfig"]["defaults"]["unit"],
            };
            if !unit.as_str().is_some_and(|unit| UNITS.contains(&unit)) {
                fault("has no unit that Grafana knows");
            }
            let mut references = BTreeSet::new();
            if targets(panel).count() == 0 {
                fault("asks for nothing");
            }
            for target in targets(panel) {
                if !target["refId"].as_str().is_some_and(|name| references.insert(name)) {
                    fault("has a query without a refId of its own");
                }
                let query = filled(target["expr"].as_str().unwrap_or_default());
                if query.contains('$') {
                    fault("has a variable that nobody fills in");
                }
                undeclared(&query, declared).iter().for_each(|what| fault(what));
                let over_time = kind == "timeseries" || kind == "heatmap";
                if over_time && query.contains(HAS_EXEMPLARS) && target["exemplar"] != true {
                    fault("does not show traces of what it is about");
                }
            }
        }
        faults.extend(self.annotations().flat_map(|query| undeclared(query, declared)));
        let variables: Vec<_> =
            self.list("/templating/list").map(|it| it["name"].as_str().unwrap_or_default()).collect();
        if variables != ["datasource", "namespace", "service", "caller"] {
            faults.push(format!("the variables are {variables:?}"));
        }
        for (field, wanted) in
            [("uid", "pillion-mesh".into()), ("id", Value::Null), ("title", "pillion mesh".into())]
        {
            if self.0[field] != wanted {
                faults.push(format!("{field} is {}", self.0[field]));
            }
        }
        faults
    }

    fn panels(&self) -> impl Iterator<Item = &Value> {
        self.list("/panels")
    }

    fn annotations(&self) -> impl Iterator<Item = &str> {
        self.list("/annotations/list").filter_map(|annotation| annotation["expr"].as_str())
    }

    fn list(&self, pointer: &str) -> impl Iterator<Item = &Value> {
        self.0.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
    }
}

fn title(panel: &Value) -> &str {
    panel["title"].as_str().unwrap_or_default()
}

fn targets(panel: &Value) -> impl Iterator<Item = &Value> {
    panel["targets"].as_array().into_iter().flatten()
}

/// With all variables filled in.
fn filled(query: &str) -> String {
    VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value))
}

/// Takes a panel's place, cell by cell.
fn place(panel: &Value, taken: &mut BTreeMap<(u64, u64), u64>) -> Result<(), &'static str> {
    let number = |name: &str| panel["gridPos"][name].as_u64().ok_or("has no place");
    let (x, y, width, height) = (number("x")?, number("y")?, number("w")?, number("h")?);
    if width == 0 || height == 0 || x + width > WIDTH {
        return Err("is beyond the grid");
    }
    let mut cells = (y..y + height).flat_map(|row| (x..x + width).map(move |column| (row, column)));
    if cells.all(|cell| taken.insert(cell, y).is_none()) { Ok(()) } else { Err("lies over another") }
}
