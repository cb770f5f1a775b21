//! `pillion check`: whether anything in the mesh is wrong, or soon will be.

mod facts;
mod finding;
mod judge;

use std::collections::BTreeSet;

use clap::Args;
use serde_json::{Value, json};

use self::{
    facts::Facts,
    finding::{Finding, Severity, worst},
    judge::findings,
};
use super::{Client, Failure, get::LiveOutput, print};
use crate::clock::unix_ms;

/// Look for what is wrong in the mesh, or soon will be.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 all is well · 3 warnings · 4 errors · 5 critical: the mesh does not work, or will not \
                        tomorrow · 69 the server cannot be reached. An authority's certificate is a warning 30 days before it \
                        ends, an error 7 days and critical 1 day before."
)]
pub(super) struct CheckArgs {
    /// How
    #[arg(short, long, value_enum, default_value_t = LiveOutput::Table)]
    output: LiveOutput,
}

pub(super) async fn run(args: &CheckArgs, client: &Client) -> Result<(), Failure> {
    let found = findings(&collect(client).await?);
    let worst = worst(&found);
    print(&match args.output {
        LiveOutput::Json => format!("{:#}\n", json!({ "severity": worst, "findings": found })),
        LiveOutput::Table => render(&found),
    })?;
    if worst == Severity::Ok { Ok(()) } else { Err(Failure::Found(worst.into())) }
}

impl From<Severity> for super::Exit {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Ok => Self::Done,
            Severity::Warning => Self::Warnings,
            Severity::Error => Self::Errors,
            Severity::Critical => Self::Critical,
        }
    }
}

/// What is not well about one workload, or about the services that it serves.
pub(super) async fn of_workload(
    client: &Client,
    name: &str,
    namespace: &str,
    services: &BTreeSet<&str>,
) -> Result<Value, Failure> {
    let mut facts = collect(client).await?;
    facts.workloads.retain(|workload| workload.workload == name && workload.namespace == namespace);
    let own = format!("{name}.{namespace}");
    let is_its = |node: &str| node == own || services.contains(node);
    facts.mesh.services.retain(|node| is_its(&node.name));
    facts.mesh.edges.retain(|edge| is_its(&edge.from) || is_its(&edge.to));
    let mut found = findings(&facts);
    found.retain(|finding| finding.severity != Severity::Ok);
    Ok(json!(found))
}

async fn collect(client: &Client) -> Result<Facts, Failure> {
    let get = async |path: &[&str]| {
        let path: Vec<String> = ["v1", "mesh"].iter().chain(path).map(ToString::to_string).collect();
        client.get(&path).await
    };
    let control_plane = get(&["control-plane"]).await?;
    // Right after the answer in which the server's clock is.
    let now_ms = unix_ms();
    Ok(Facts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now_ms,
        control_plane: read(control_plane)?,
        workloads: read(get(&["workloads"]).await?)?,
        mesh: read(get(&[]).await?)?,
    })
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::Local(format!("the server is of another release: {error}")))
}

fn render(found: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { topic, severity, text: what, cure } in found {
        text += &format!("{:8}  {:13}  {what}\n", severity.word(), topic.word());
        if !cure.is_empty() {
            text += &format!("{:25}→ {cure}\n", "");
        }
    }
    text
}
