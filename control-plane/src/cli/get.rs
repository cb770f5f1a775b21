//! `pillion get`.

use std::{collections::BTreeSet, time::SystemTime};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{Client, Failure, print, table, words};
use crate::resource::{Kind, text::to_yaml};

/// The help of an argument that is a kind.
pub(super) const KINDS: &str = "Which kind, in singular or plural: service (svc), externalservice (external), httproute (route), grpcroute (grpc), \
     trafficpolicy (policy) or meshconfig (mesh)";

/// Show documents.
#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[arg(value_parser = parse_kind, help = KINDS)]
    kind: Kind,
    /// Which one; all where absent
    name: Option<String>,
    /// Of which namespace [default: default; of a MeshConfig: pillion-system]
    #[arg(short, long)]
    namespace: Option<String>,
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

/// How the living mesh is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LiveOutput {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// The kind that a word means.
pub(super) fn parse_kind(word: &str) -> Result<Kind, String> {
    let known = || Kind::ALL.map(Kind::plural).join(", ");
    Kind::from_word(word).ok_or_else(|| format!("there is no such kind; there are {}", known()))
}

pub(super) async fn run(args: &GetArgs, client: &Client) -> Result<(), Failure> {
    let namespace = args.namespace.as_deref().unwrap_or(args.kind.default_namespace());
    let namespace = (!args.all_namespaces).then_some(namespace);
    let answer = client.get(&Client::path(args.kind, namespace, args.name.as_deref())).await?;
    let items = match (&args.name, &answer["items"]) {
        (None, Value::Array(items)) => items.as_slice(),
        _ => std::slice::from_ref(&answer),
    };
    let text = match args.output {
        Output::Json => pretty_json(&answer),
        Output::Yaml => {
            let documents: Vec<String> = items.iter().map(to_yaml).collect();
            documents.join("---\n")
        }
        Output::Table if items.is_empty() => match namespace {
            Some(namespace) => {
                let elsewhere = elsewhere(args, client).await;
                format!("no {} in namespace {namespace}{elsewhere}\n", args.kind.plural())
            }
            None => format!("no {} in any namespace\n", args.kind.plural()),
        },
        Output::Table => table(args.kind, items, SystemTime::now()),
    };
    print(&text)
}

/// Where there are some, for whoever did not say where to look. Nothing, too, where the token does not show it.
async fn elsewhere(args: &GetArgs, client: &Client) -> String {
    if args.namespace.is_some() {
        return String::new();
    }
    let answer = client.get(&Client::path(args.kind, None, None)).await.unwrap_or_default();
    let items = answer["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let namespaces = items.iter().filter_map(|item| item["metadata"]["namespace"].as_str());
    let namespaces: Vec<&str> = namespaces.collect::<BTreeSet<_>>().into_iter().collect();
    match namespaces.as_slice() {
        [] => String::new(),
        [only] => format!("; there are some in {only} (-n {only}, or -A)"),
        [first, second] => format!("; there are some in {first} and {second} (-n {first}, or -A)"),
        [first, others @ ..] => {
            format!("; there are some in {first} and {} more (-n {first}, or -A)", others.len())
        }
    }
}

fn pretty_json(value: &Value) -> String {
    format!("{value:#}\n")
}

fn table(kind: Kind, items: &[Value], now: SystemTime) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let names = |list: &Value| {
        let names: Vec<&str> =
            list.as_array().into_iter().flatten().filter_map(|it| it["name"].as_str()).collect();
        names.join(", ")
    };
    let own = |item: &Value| {
        let spec = &item["spec"];
        match kind {
            Kind::MeshConfig => {
                let in_force = &item["status"]["inForce"];
                vec![text(&in_force["outbound"]), text(&in_force["inbound"]), text(&in_force["serviceCidr"])]
            }
            Kind::Service => {
                vec![text(&spec["clusterIP"]), words::ports(&spec["ports"]), words::labels(&spec["selector"])]
            }
            Kind::ExternalService => {
                vec![text(&spec["clusterIP"]), words::ports(&spec["ports"]), text(&spec["host"])]
            }
            Kind::HttpRoute | Kind::GrpcRoute => {
                vec![names(&spec["parentRefs"]), words::accepted(&item["status"])]
            }
            Kind::TrafficPolicy => vec![
                names(&spec["targetRefs"]),
                words::accepted(&item["status"]),
                words::fault_left(&spec["faults"], now),
            ],
        }
    };
    let headings: &[&str] = match kind {
        Kind::MeshConfig => &["OUTBOUND", "INBOUND", "SERVICE-CIDR"],
        Kind::Service => &["ADDRESS", "PORTS", "SELECTOR"],
        Kind::ExternalService => &["ADDRESS", "PORTS", "HOST"],
        Kind::HttpRoute | Kind::GrpcRoute => &["PARENTS", "ACCEPTED"],
        Kind::TrafficPolicy => &["TARGETS", "ACCEPTED", "FAULTS"],
    };
    let row = |item: &Value| {
        let metadata = &item["metadata"];
        let mut row = vec![text(&metadata["namespace"]), text(&metadata["name"])];
        row.extend(own(item));
        row.push(words::age(metadata["creationTimestamp"].as_str(), now));
        row
    };
    let rows: Vec<_> = items.iter().map(row).collect();
    table::render(&[&["NAMESPACE", "NAME"], headings, &["AGE"]].concat(), &rows)
}
