//! The reference pages say what the programs say: each page is made from the programs, and this test compares. After a change,
//! `make reference` writes them anew.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use pillion::resource::Kind;
use pillion::resource::schema::schema;
use pillion_api::metric::Declared;
use pillion_proxy::error::Reason;
use pillion_proxy::telemetry::names::Metric;
use tokio::process::Command;

use crate::support::mesh::{Mesh, pillion, pillion_proxy};

/// Set by `make reference`.
const UPDATE: &str = "PILLION_UPDATE_REFERENCE";

#[tokio::test]
async fn of_the_command_line() {
    let mut page = String::from(
        "# The command line\n\nMade from the programs' own help by `make reference`.\n\n## pillion\n",
    );
    let commands: [&[&str]; 20] = [
        &[],
        &["server"],
        &["apply"],
        &["get"],
        &["delete"],
        &["describe"],
        &["check"],
        &["diagnose"],
        &["explain"],
        &["stat"],
        &["top"],
        &["tap"],
        &["endpoints"],
        &["token"],
        &["token", "create"],
        &["token", "list"],
        &["token", "revoke"],
        &["inject"],
        &["join"],
        &["demo"],
    ];
    for command in commands {
        page += &section(&pillion(), command).await;
    }
    page += "\n## pillion-proxy\n";
    for command in [&[] as &[&str], &["check-config"], &["print-config"], &["ready"], &["redirect"], &["run"]]
    {
        page += &section(&pillion_proxy(), command).await;
    }
    compare("command-line.md", &page);
}

#[test]
fn of_metrics() {
    let sidecar = Metric::ALL.iter().map(|metric| metric.declared());
    let control_plane = pillion::telemetry::Metric::ALL.iter().map(|metric| metric.declared());
    let page = format!(
        "# Metrics\n\nMade from the programs by `make reference`. Prometheus' text format 0.0.4. A histogram `x` is `x_bucket`, `x_sum` and \
         `x_count`. How to scrape, and a dashboard and alerts made of them: [Prometheus and Grafana](../../README.md#prometheus-and-grafana).\n\n\
         ## Of a sidecar\n\nAt `/metrics` of the admin port. A series that nothing changes for 15 minutes is left out. `source`, `target` \
         and `backend` are services (`payments.demo`) or, of a workload without a service, the workload; `backend` is where a route has \
         led to, `workload` the instance that answered. Of what clients send nothing becomes a label. \
         Scrapers that ask for OpenMetrics get it, and in it exemplars: of `{}` each bucket has the latest request whose trace is recorded \
         (`trace_id`, `span_id`).\n\n{}\n\
         ## Of the control plane\n\nAt `/metrics` of its HTTP port; beyond loopback a token for reading is needed.\n\n{}",
        Metric::Duration.name(),
        metrics_table(sidecar),
        metrics_table(control_plane),
    );
    compare("metrics.md", &page);
}

fn metrics_table(all: impl Iterator<Item = Declared>) -> String {
    let mut table = String::from("| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n");
    for metric in all {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, unit) = (metric.name, metric.kind.as_str(), metric.unit());
        let help = metric.help.replace('<', "\\<");
        let _ = writeln!(table, "| `{name}` | {kind} | {unit} | {} | {help} |", labels.join(" "));
    }
    table
}

#[test]
fn of_refusals() {
    let mut page = String::from(
        "# Why a sidecar refuses\n\nMade from the program by `make reference`. The name stands in the `pillion-error` header, in \
         the logs, and in the label `reason` of `pillion_refusals_total`. *Safe to repeat*: the application surely processed \
         nothing of the request, and a sidecar may send it elsewhere by itself. Not so where it may have, and where the refusal is \
         meant, by a limit or a fault, which a repetition would defeat.\n\n| reason | HTTP | gRPC | safe to repeat | meaning |\n|---|---|---|---|---|\n",
    );
    for reason in Reason::ALL {
        let safe = if reason.unprocessed() { "yes" } else { "no" };
        let (status, grpc) = (reason.status().as_u16(), reason.grpc());
        let _ = writeln!(
            page,
            "| `{}` | {status} | {} {grpc:?} | {safe} | {} |",
            reason.as_str(),
            grpc as u8,
            reason.text()
        );
    }
    compare("refusals.md", &page);
}

#[test]
fn of_documents() {
    let mut page = String::from(
        "# Documents\n\nMade from the program by `make reference`. Each document has `apiVersion`, `kind`, `metadata` (`name`, \
         `namespace`, `labels`, `annotations`) and `spec`; `status` is the server's. An unknown field is refused. Durations are the \
         Gateway API's (GEP-2257): `500ms`, `10s`, `1m30s`, `2h`.\n",
    );
    for kind in [Kind::Service, Kind::ExternalService, Kind::TrafficPolicy, Kind::MeshConfig] {
        let _ = writeln!(page, "\n## {} (`{}`)\n", kind.name(), kind.api_version());
        page += "| field | type | meaning |\n|---|---|---|\n";
        rows(&mut page, "spec", &schema(kind)["properties"]["spec"]);
    }
    page += ROUTES;
    compare("documents.md", &page);
}

#[tokio::test]
async fn of_the_front_page_the_documents_are_accepted() {
    let readme =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("a README");
    let blocks: Vec<&str> = readme
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().expect("a block ends"))
        .collect();
    assert!(blocks.len() >= 3, "a service, how to shape its traffic, and what is outside");
    let mesh = Mesh::start().await;
    // An indented block is YAML as well: everything in it is indented alike.
    for block in blocks {
        mesh.apply(block).await;
    }
}

/// The Gateway API documents its own fields; what of them works here is checked document by document.
const ROUTES: &str = "
## HTTPRoute and GRPCRoute (`gateway.networking.k8s.io/v1`)

The Gateway API's own kinds, with a `Service` as parent (GAMMA), fields of its experimental channel included. Which rule wins when
several match is what the Gateway API says; what does not work here is refused by name, never ignored. A document is taken whole or not
at all: one with a parent that is no `Service` (a `Gateway`) is refused with all its parents, so write one for each.

| what | here |
|---|---|
| `parentRefs` | Services, by `port` or `sectionName` or as a whole. Of another namespace: a consumer's route, for callers of the route's namespace alone, who then have no producer's routes. |
| both kinds for one port | The `GRPCRoute` is used; the `HTTPRoute` says `Accepted: False`, reason `Conflicted`, or which ports it has lost if others are left to it. |
| `matches` | All of them. A path by `RegularExpression`, of which the Gateway API does not say it, goes after `Exact` and before every `PathPrefix`. The header `host` is the authority. Without any match: 404, for gRPC `UNIMPLEMENTED`. |
| `RequestHeaderModifier`, `ResponseHeaderModifier` | In a rule and with a backend: a backend's are made after the rule's in requests, before them in responses. Not for `host` (see `URLRewrite`), nor what frames a message. A name is in one of `set`, `add` and `remove` only. |
| `RequestRedirect` | Answered by the caller's sidecar. Statuses 301, 302, 303, 307, 308. Not together with `URLRewrite` or `RequestMirror`. |
| `URLRewrite` | Path and hostname. |
| `RequestMirror` | Several to a rule, by `percent` or `fraction`. A mirror gets what the rule makes of a request, its host unchanged; nobody waits for it. One that is 256 KiB behind with a body loses the rest; 256 copies are under way at a time for each worker. |
| `CORS`, `ExternalAuth`, `ExtensionRef` | Refused. |
| `backendRefs` | Services, also of other namespaces (no `ReferenceGrant` is needed, as GEP-1294 says for a mesh); their share of requests is refused with 500 where they do not exist. An `ExternalService` cannot be routed yet. |
| `timeouts`, `retry`, `sessionPersistence` | As GEP-1742, GEP-1731 and GEP-1619 say. A rule's timeout goes before the policy's, and zero lifts it. A session that has no name gets one of its rule's own, `mesh-session-…`. |
| `status.parents` | `Accepted` (`NoMatchingParent`, `Conflicted`), `ResolvedRefs` (`BackendNotFound`), `pillion.dev/Usable` (whether sidecars take it). |
";

/// A row for each field, those of objects inside by their path.
fn rows(page: &mut String, at: &str, schema: &serde_json::Value) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let kind = field["type"].as_str().map_or_else(|| field["type"].to_string(), str::to_owned);
        let (kind, inside, path) = match kind.as_str() {
            "array" => {
                let of = field["items"]["type"].as_str().unwrap_or("object");
                (format!("list of {of}"), &field["items"], format!("{at}.{name}[]"))
            }
            "integer" => ("whole number".into(), field, format!("{at}.{name}")),
            _ => (kind.replace(['[', ']', '"'], "").replace(',', " or "), field, format!("{at}.{name}")),
        };
        let needed = if required.contains(&name.as_str()) { ", required" } else { "" };
        let meaning =
            field["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        let _ = writeln!(page, "| `{path}` | {kind}{needed} | {meaning} |");
        rows(page, &path, inside);
    }
}

/// One command's help, as a section of a page.
async fn section(program: &Path, command: &[&str]) -> String {
    let output = Command::new(program)
        .args(command)
        .arg("--help")
        // The same for everybody: no settings from the environment, and one width.
        .env_clear()
        .env("COLUMNS", "100")
        .output()
        .await
        .expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(output.stdout).expect("help is text");
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    let title = [&[name.as_ref()], command].concat().join(" ");
    format!("\n### {title}\n\n```text\n{}\n```\n", lines.join("\n").trim_end())
}

#[expect(clippy::disallowed_methods, reason = "an order to the test, not a setting of the product")]
pub(crate) fn compare(name: &str, page: &str) {
    let file: PathBuf = [env!("CARGO_MANIFEST_DIR"), "deploy", "reference", name].iter().collect();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(&file, page).expect("the folder is there");
        return;
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(written == page, "{} is not what the programs say: run `make reference`", file.display());
}
