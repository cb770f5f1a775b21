//! `pillion endpoints`: who serves a service, and what its callers think of each.

use clap::Args;
use serde_json::Value;

use super::{Client, Failure, get::LiveOutput, print, table, words::list};

/// Show who serves a service, and what each caller's sidecar thinks of them.
#[derive(Debug, Args)]
pub(super) struct EndpointsArgs {
    /// Which: NAME, or NAME.NAMESPACE
    service: String,
    /// Its namespace [default: default]
    #[arg(short, long)]
    namespace: Option<String>,
    /// How
    #[arg(short, long, value_enum, default_value_t = LiveOutput::Table)]
    output: LiveOutput,
}

pub(super) async fn run(args: &EndpointsArgs, client: &Client) -> Result<(), Failure> {
    let (name, namespace) = match (args.service.split_once('.'), args.namespace.as_deref()) {
        (Some((name, namespace)), None) => (name, namespace),
        (Some((_, named)), Some(namespace)) if named != namespace => {
            let message = format!("{} is of namespace {named}, not {namespace}", args.service);
            return Err(Failure::Usage(message));
        }
        (Some((name, namespace)), Some(_)) => (name, namespace),
        (None, namespace) => (args.service.as_str(), namespace.unwrap_or("default")),
    };
    let path = ["v1", "mesh", "services", namespace, name].map(str::to_owned);
    let view = client.get(&path).await?;
    let endpoints = &view["endpoints"];
    if args.output == LiveOutput::Json {
        return print(&format!("{endpoints:#}\n"));
    }
    let rows: Vec<Vec<String>> = list(endpoints).flat_map(rows).collect();
    if rows.is_empty() {
        return print(&format!("no workload serves {name}.{namespace}\n"));
    }
    print(&table::render(&HEADING, &rows))
}

const HEADING: [&str; 15] = [
    "WORKLOAD",
    "READY",
    "ADDRESS",
    "ZONE",
    "WEIGHT",
    "SUCCESS",
    "RPS",
    "P99",
    "CALLER",
    "AS",
    "BREAKER",
    "SHARE",
    "IN-FLIGHT",
    "LATENCY",
    "OPENED",
];

/// One row for each caller that has reported on the endpoint; one without where there is none.
fn rows(endpoint: &Value) -> Vec<Vec<String>> {
    let text = |value: &Value| value.as_str().filter(|text| !text.is_empty()).unwrap_or("-").to_owned();
    let ready = match endpoint["ready"].as_bool() {
        Some(true) => "yes".to_owned(),
        _ => format!("no: {}", text(&endpoint["reason"])),
    };
    let own = [
        text(&endpoint["workload"]),
        ready,
        text(&endpoint["address"]),
        text(&endpoint["zone"]),
        endpoint["weight"].as_u64().unwrap_or(1).to_string(),
        table::share(endpoint["successRate"].as_f64()),
        format!("{:.1}", endpoint["rps"].as_f64().unwrap_or_default()),
        table::milliseconds(endpoint["p99Ms"].as_f64()),
    ];
    let caller = |(place, breaker): (usize, &Value)| {
        let opened = match (breaker["opened"].as_u64(), breaker["openedReason"].as_str()) {
            (None | Some(0), _) => "never".to_owned(),
            (Some(times), None | Some("")) => format!("{times}×"),
            (Some(times), Some(reason)) => format!("{times}×: {reason}"),
        };
        let theirs = [
            text(&breaker["workload"]),
            // By which service it calls the endpoint, which may belong to several.
            text(&breaker["service"]),
            text(&breaker["state"]),
            table::share(breaker["share"].as_f64()),
            breaker["inFlight"].to_string(),
            table::milliseconds(breaker["latencyMs"].as_f64()),
            opened,
        ];
        // Its own figures once: below each other they look like several endpoints.
        let told = |(column, cell): (usize, &String)| match (place, column) {
            (0, _) | (_, 0) => cell.clone(),
            _ => String::new(),
        };
        own.iter().enumerate().map(told).chain(theirs).collect()
    };
    let rows: Vec<Vec<String>> = list(&endpoint["breakers"]).enumerate().map(caller).collect();
    if rows.is_empty() {
        let nobody = std::iter::repeat_n("-".to_owned(), HEADING.len() - own.len());
        return vec![own.iter().cloned().chain(nobody).collect()];
    }
    rows
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_caller_has_a_line_and_each_endpoint_its_figures_once() {
        let caller =
            |name: &str| json!({ "workload": name, "service": "pay.demo", "state": "closed", "inFlight": 0 });
        let endpoint = json!({
            "workload": "pay-1", "ready": true, "address": "10.0.0.1:80", "rps": 3.0,
            "breakers": [caller("web-1"), caller("web-2")],
        });
        let rows = rows(&endpoint);
        let column = |name: &str| {
            let place = HEADING.iter().position(|it| *it == name).expect("a column");
            rows.iter().map(|row| row[place].as_str()).collect::<Vec<_>>()
        };
        assert_eq!(column("WORKLOAD"), ["pay-1", "pay-1"]);
        assert_eq!(column("CALLER"), ["web-1", "web-2"]);
        assert_eq!(column("RPS"), ["3.0", ""]);
    }
}
