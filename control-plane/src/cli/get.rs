//! `pillion get`.

use std::time::SystemTime;

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Client, Failure, print, table, words};
use crate::resource::{DEFAULT_NAMESPACE, Kind};

/// Show documents.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// Which kind, such as services, httproutes or trafficpolicies
    #[arg(value_parser = parse_kind)]
    kind: Kind,
    /// Which one; all where absent
    name: Option<String>,
    /// Of which namespace
    #[arg(short, long, default_value = DEFAULT_NAMESPACE)]
    namespace: String,
    /// Of all namespaces
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
    all_namespaces: bool,
    /// How
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Yaml,
    Json,
}

/// The kind that a word means.
pub(super) fn parse_kind(word: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.map(Kind::plural).join(", ");
    Kind::from_word(word).ok_or_else(|| format!("there is no such kind; there are {}", known()))
}

pub(super) async fn run(args: &GetArgs, client: &Client) -> Result<(), Failure> {
    let namespace = (!args.all_namespaces).then_some(args.namespace.as_str());
    let answer = client.get(&Client::path(args.kind, namespace, args.name.as_deref())).await?;
    let items = match (&args.name, &answer["items"]) {
        (None, Value::Array(items)) => items.as_slice(),
        _ => std::slice::from_ref(&answer),
    };
    let text = match args.output {
        Output::Json => pretty_json(&answer),
        Output::Yaml => {
            let documents: Vec<String> = items.iter().map(yaml).collect::<Result<_, _>>()?;
            documents.join("---\n")
        }
        Output::Table if items.is_empty() => match namespace {
            Some(namespace) => format!("no {} in namespace {namespace}\n", args.kind.plural()),
            None => format!("no {} in any namespace\n", args.kind.plural()),
        },
        Output::Table => table(args.kind, items, SystemTime::now()),
    };
    print(&text)
}

fn pretty_json(value: &Value) -> String {
    format!("{value:#}\n")
}

fn yaml(value: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(value)
        .map_err(|error| Failure::Local(format!("cannot be written as YAML: {error}")))
}

fn table(kind: Kind, items: &[Value], now: SystemTime) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = |list: &Value| {
        let names: Vec<&str> =
            list.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str()).collect();
        names.join(", ")
    };
    let row = |item: &Value| {
        let metadata = &item["metadata"];
        let (first, second) = match kind {
            Kind::Service => (words::ports(&item["spec"]["ports"]), words::labels(&item["spec"]["selector"])),
            Kind::HttpRoute => (names(&item["spec"]["parentRefs"]), words::accepted(&item["status"])),
            Kind::TrafficPolicy => (names(&item["spec"]["targetRefs"]), words::accepted(&item["status"])),
        };
        let age = words::age(metadata["creationTimestamp"].as_str(), now);
        [text(&metadata["namespace"]), text(&metadata["name"]), first, second, age]
    };
    let (first, second) = match kind {
        Kind::Service => ("PORTS", "SELECTOR"),
        Kind::HttpRoute => ("PARENTS", "ACCEPTED"),
        Kind::TrafficPolicy => ("TARGETS", "ACCEPTED"),
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    table::render(["NAMESPACE", "NAME", first, second, "AGE"], &rows)
}
