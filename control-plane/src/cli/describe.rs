//! `pillion describe`: one document, what becomes of it, and how it fares.

use std::fmt::Write as _;

use clap::Args;
use serde_json::Value;

use super::{Client, Failure, get, print, words};
use crate::{
    clock,
    resource::{
        Kind,
        mesh_config::{self, MeshConfigSpec},
    },
};

/// Tell everything about one document in words.
#[derive(Debug, Args)]
pub(super) struct DescribeArgs {
    #[arg(value_parser = get::parse_kind, help = get::KINDS)]
    kind: Kind,
    /// Which document
    name: String,
    /// Its namespace [default: default; of a MeshConfig: pillion-system]
    #[arg(short, long)]
    namespace: Option<String>,
}

pub(super) async fn run(args: &DescribeArgs, client: &Client) -> Result<(), Failure> {
    let namespace = args.namespace.as_deref().unwrap_or(args.kind.default_namespace());
    let name = args.name.as_str();
    let path = Client::path(args.kind, Some(namespace), Some(name));
    let mut text = Text::default();
    // Of this kind there is one only, and its values are in force whether it is written or not.
    let is_the_one = (args.kind, namespace, name)
        == (Kind::MeshConfig, Kind::MeshConfig.default_namespace(), mesh_config::NAME);
    let document = match is_the_one {
        true => match client.find(&path).await? {
            Some(document) => document,
            None => return print(&unwritten(text)?.0),
        },
        false => client.get(&path).await?,
    };
    head(&mut text, &document);
    match args.kind {
        Kind::MeshConfig => mesh_config(&mut text, &document),
        Kind::Service | Kind::ExternalService => {
            let path = ["v1", "mesh", "services", namespace, name].map(str::to_owned);
            let live = client.find(&path).await?;
            service(&mut text, &document, live.as_ref());
            let mesh = client.find(&["v1", "mesh"].map(str::to_owned)).await?;
            events(&mut text, &format!("{name}.{namespace}"), mesh.as_ref());
        }
        Kind::HttpRoute | Kind::GrpcRoute => route(&mut text, &document),
        Kind::TrafficPolicy => policy(&mut text, &document),
    }
    print(&text.0)
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn field(&mut self, name: &str, value: impl std::fmt::Display) {
        writeln!(self.0, "{:12} {value}", format!("{name}:")).expect("a String takes what is written");
    }

    fn section(&mut self, name: &str, lines: impl IntoIterator<Item = String>) {
        writeln!(self.0, "{name}:").expect("a String takes what is written");
        let mut none = true;
        for line in lines {
            none = false;
            writeln!(self.0, "  {line}").expect("a String takes what is written");
        }
        if none {
            self.0.push_str("  none\n");
        }
    }
}

fn head(text: &mut Text, document: &Value) {
    let metadata = &document["metadata"];
    let say = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    text.field("Kind", say(&document["kind"]));
    text.field("Name", say(&metadata["name"]));
    text.field("Namespace", say(&metadata["namespace"]));
    text.field("Labels", words::labels(&metadata["labels"]));
    text.field("Created", say(&metadata["creationTimestamp"]));
    text.field("Generation", &metadata["generation"]);
}

fn service(text: &mut Text, document: &Value, live: Option<&Value>) {
    let spec = &document["spec"];
    text.field("Address", spec["clusterIP"].as_str().unwrap_or("none"));
    text.field("Ports", words::ports(&spec["ports"]));
    text.field(
        "Served by",
        match spec["host"].as_str() {
            Some(host) => format!("{host}, outside the mesh"),
            None => format!("workloads with {}", words::labels(&spec["selector"])),
        },
    );
    let complaints = words::complaints(&document["status"]);
    if !complaints.is_empty() {
        text.section("Not in use as written", complaints);
    }
    let Some(live) = live else {
        text.section("Endpoints", ["not known to the mesh yet".to_owned()]);
        return;
    };
    text.field("Requests", figures(live));
    // Those of an external service are what its host resolves to, which each sidecar asks for itself.
    if spec["host"].is_null() {
        endpoints(text, live);
    }
    let say = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    text.section(
        "Shaped by",
        words::list(&live["policies"])
            .map(|it| format!("{} {}/{}", say(&it["kind"]), say(&it["namespace"]), say(&it["name"]))),
    );
    text.section(
        "Called by",
        words::list(&live["callers"]).map(|edge| {
            let led = edge["backend"].as_str().filter(|backend| Some(*backend) != edge["to"].as_str());
            let to = led.map(|backend| format!(" → {backend}")).unwrap_or_default();
            format!("{}{to}: {}", say(&edge["from"]), figures(edge))
        }),
    );
}

fn endpoints(text: &mut Text, live: &Value) {
    let say = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    text.section(
        "Endpoints",
        words::list(&live["endpoints"]).flat_map(|endpoint| {
            let health = match (endpoint["ready"].as_bool(), endpoint["reason"].as_str().unwrap_or_default())
            {
                (Some(true), _) => "ready".to_owned(),
                (_, "") => "not ready".to_owned(),
                (_, reason) => format!("not ready: {reason}"),
            };
            let line = format!(
                "{} at {}: {health}; {}",
                say(&endpoint["workload"]),
                say(&endpoint["address"]),
                figures(endpoint)
            );
            let breakers = words::list(&endpoint["breakers"]).filter(|breaker| breaker["state"] != "closed");
            let breakers = breakers.map(|breaker| {
                let why = say(&breaker["openedReason"]);
                format!("  breaker of {} is {}: {why}", say(&breaker["from"]), say(&breaker["state"]))
            });
            std::iter::once(line).chain(breakers.collect::<Vec<_>>())
        }),
    );
}

/// `12.0 requests/s, 99.5 % good, half within 3 ms, 99 % within 20 ms`.
fn figures(of: &Value) -> String {
    let mut parts = vec![format!("{:.1} requests/s", of["rps"].as_f64().unwrap_or(0.0))];
    if let Some(rate) = of["successRate"].as_f64() {
        parts.push(format!("{:.1} % good", rate * 100.0));
    }
    if let (Some(p50), Some(p99)) = (of["p50Ms"].as_f64(), of["p99Ms"].as_f64()) {
        parts.push(format!("half within {p50:.1} ms, 99 % within {p99:.1} ms"));
    }
    parts.join(", ")
}

fn events(text: &mut Text, service: &str, mesh: Option<&Value>) {
    let lines =
        mesh.into_iter().flat_map(|mesh| words::list(&mesh["events"])).filter(|it| it["service"] == service);
    let lines = lines.take(10).map(|event| {
        let millis = event["timeMs"].as_u64().unwrap_or(0);
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_millis(millis);
        format!("{} {}", humantime::format_rfc3339_seconds(time), event["text"].as_str().unwrap_or_default())
    });
    text.section("Events", lines.collect::<Vec<_>>());
}

/// What is in force where no MeshConfig is written.
fn unwritten(mut text: Text) -> Result<Text, Failure> {
    let defaults = serde_json::to_value(MeshConfigSpec::default().in_force());
    let defaults = defaults.map_err(|error| Failure::Local(error.to_string()))?;
    text.field("Kind", Kind::MeshConfig);
    text.field("Name", mesh_config::NAME);
    text.field("Namespace", Kind::MeshConfig.default_namespace());
    text.field("Written", "no: all defaults hold");
    text.section("In force", words::settings("", &defaults));
    Ok(text)
}

fn mesh_config(text: &mut Text, document: &Value) {
    let status = &document["status"];
    text.section("In force", words::settings("", &status["inForce"]));
    let (assigned, free) = (&status["assignedAddresses"], &status["freeAddresses"]);
    text.field("Addresses", format!("{assigned} given to services, {free} free"));
}

fn route(text: &mut Text, document: &Value) {
    let parents = words::list(&document["spec"]["parentRefs"]).map(|parent| {
        let name = parent["name"].as_str().unwrap_or("?");
        match (&parent["port"], parent["sectionName"].as_str()) {
            (Value::Null, None) => format!("calls to {name}"),
            (Value::Null, Some(section)) => format!("calls to {name}, port named {section}"),
            (port, _) => format!("calls to {name}, port {port}"),
        }
    });
    text.section("Routes", parents);
    for (index, rule) in words::list(&document["spec"]["rules"]).enumerate() {
        let name =
            rule["name"].as_str().map_or_else(|| format!("Rule {index}"), |name| format!("Rule {name}"));
        text.section(&name, words::rule(rule));
    }
    standing(text, document);
}

fn policy(text: &mut Text, document: &Value) {
    let targets = words::list(&document["spec"]["targetRefs"]);
    let say = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    text.section("For", targets.map(|target| format!("{} {}", say(&target["kind"]), say(&target["name"]))));
    let mut spec = document["spec"].clone();
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("targetRefs");
        spec.remove("faults");
    }
    text.section("Sets", words::settings("", &spec));
    let faults: Vec<String> = words::faults(&document["spec"]["faults"], clock::now()).collect();
    if !faults.is_empty() {
        text.section("Injects", faults);
    }
    standing(text, document);
}

fn standing(text: &mut Text, document: &Value) {
    let complaints = words::complaints(&document["status"]);
    if complaints.is_empty() {
        text.field("Accepted", "yes");
    } else {
        text.section("Not accepted", complaints);
    }
}
