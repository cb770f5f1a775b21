//! `pillion diagnose`: all that is known of one workload in one file for a report, without secrets.

mod redact;
mod sidecar;

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;
use serde_json::{Value, json};

use super::{Client, Failure, check, print, words::list};
use crate::resource::{Kind, hint};

/// Of services that one workload calls. A report is for people, too.
const MOST_SERVICES: usize = 64;

/// Which workload, and into what file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
                        pillion diagnose payments-1\n  \
                        pillion diagnose payments-1.demo -o report.json\n  \
                        pillion diagnose payments-1 -o - | jq .findings")]
pub(super) struct DiagnoseArgs {
    /// Which: NAME, NAME.NAMESPACE, or its UID
    workload: String,
    /// Where it goes [default: pillion-diagnose-WORKLOAD-TIME.json, here]
    #[arg(short, long, value_name = "FILE|-")]
    output: Option<PathBuf>,
}

pub(super) async fn run(args: &DiagnoseArgs, client: &Client) -> Result<(), Failure> {
    let now = SystemTime::now();
    let workload = find(client, &args.workload).await?;
    let mut bundle = collect(client, &workload, now).await?;
    redact::redact(&mut bundle, &client.token().into_iter().collect::<Vec<_>>());
    let text = format!("{bundle:#}\n");
    if args.output.as_deref() == Some(Path::new("-")) {
        return print(&text);
    }
    let file = args.output.clone().unwrap_or_else(|| default_file(text_of(&workload["workload"]), now));
    write(&file, &text, args.output.is_some())
        .map_err(|error| Failure::Local(format!("cannot write {}: {error}", file.display())))?;
    print(&told(&file, text.len(), &bundle))
}

/// The one that is meant.
async fn find(client: &Client, asked: &str) -> Result<Value, Failure> {
    let all = client.get(&path(&["mesh", "workloads"])).await?;
    match choose(all.as_array().map_or(&[], Vec::as_slice), asked) {
        Ok(workload) => Ok(workload.clone()),
        Err(why) => Err(Failure::Local(why)),
    }
}

fn choose<'a>(all: &'a [Value], asked: &str) -> Result<&'a Value, String> {
    if let Some(exactly) = all.iter().find(|workload| workload["uid"] == asked) {
        return Ok(exactly);
    }
    let meant = |workload: &&Value| workload["workload"] == asked || full_name(workload) == asked;
    let mut found: Vec<&Value> = all.iter().filter(meant).collect();
    // One that was started anew has a new UID; the old one's lease may run still.
    if found.iter().any(|workload| workload["connected"] == true) {
        found.retain(|workload| workload["connected"] == true);
    }
    match found[..] {
        [one] => Ok(one),
        [] => {
            let hint = hint::did_you_mean(asked, all.iter().map(full_name));
            let of_service = all.iter().filter(|workload| {
                workload["service"].as_str().is_some_and(|service| {
                    service == asked || service.split_once('.').is_some_and(|(name, _)| name == asked)
                })
            });
            let hint = if hint.is_empty() { hint::question(of_service.map(full_name)) } else { hint };
            Err(format!(
                "no workload {asked} is registered{hint}\n`pillion stat workloads` lists those that are"
            ))
        }
        _ => {
            let of_name =
                |workload: &&Value| format!("{} (UID {})", full_name(workload), text_of(&workload["uid"]));
            let names: Vec<String> = found.iter().map(of_name).collect();
            Err(format!("{asked} may be any of {}; say which by NAME.NAMESPACE or UID", names.join(", ")))
        }
    }
}

async fn collect(client: &Client, workload: &Value, now: SystemTime) -> Result<Value, Failure> {
    let uid = text_of(&workload["uid"]);
    // It may have gone just now, or the server may be of an earlier release.
    let details = client.find(&path(&["mesh", "workloads", uid])).await?;
    let workload = details.unwrap_or_else(|| workload.clone());
    let control_plane = client.get(&path(&["mesh", "control-plane"])).await?;
    let mesh = client.get(&path(&["mesh"])).await?;
    let serves: BTreeSet<&str> = list(&workload["services"]).filter_map(Value::as_str).collect();
    let calls = list(&workload["subscribed"]).filter_map(|it| it["service"].as_str());
    let calls: Vec<&str> = calls.filter(|service| !serves.contains(service)).collect();
    let mut notes = Vec::new();
    if calls.len() > MOST_SERVICES {
        notes.push(format!("of {} services that it calls, {MOST_SERVICES} are told", calls.len()));
    }
    let concerned: BTreeSet<&str> =
        serves.iter().copied().chain(calls.into_iter().take(MOST_SERVICES)).collect();
    let mut services = Vec::new();
    for full in &concerned {
        let Some((name, namespace)) = full.split_once('.') else { continue };
        match client.find(&path(&["mesh", "services", namespace, name])).await? {
            Some(view) => services.push(json!({
                "name": full,
                "servedByIt": serves.contains(full),
                "endpoints": view["endpoints"],
                "shapedBy": view["policies"],
                "inForce": view["policy"],
            })),
            None => notes.push(format!("it subscribes to {full}, which there is not")),
        }
    }
    let mut documents = Vec::new();
    for kind in Kind::ALL {
        let listed = client.get(&Client::path(kind, None, None)).await?;
        let about = list(&listed["items"])
            .filter(|document| kind == Kind::MeshConfig || concerns(document, &concerned));
        documents.extend(about.cloned());
    }
    let its_name = text_of(&workload["workload"]);
    let about_it = |event: &&Value| {
        event["workload"] == its_name || event["service"].as_str().is_some_and(|it| serves.contains(it))
    };
    let events: Vec<&Value> = list(&mesh["events"]).filter(about_it).collect();
    let findings = check::of_workload(client, its_name, text_of(&workload["namespace"]), &serves).await?;
    let sidecar = sidecar::ask(text_of(&workload["adminAddress"])).await;
    Ok(json!({
        "about": {
            "what": format!("pillion diagnose of {}", full_name(&workload)),
            "madeAt": humantime::format_rfc3339_seconds(now).to_string(),
            "secrets": format!("values that may be secret are {}; names, addresses and labels are not", redact::REDACTED),
            "notes": notes,
        },
        "versions": {
            "cli": env!("CARGO_PKG_VERSION"),
            "controlPlane": control_plane["version"],
            "sidecar": workload["version"],
        },
        "controlPlane": control_plane,
        "workload": workload,
        "services": services,
        "documents": documents,
        "events": events,
        "findings": findings,
        "sidecar": sidecar,
    }))
}

/// Whether a document is one of these services, or is about one.
fn concerns(document: &Value, services: &BTreeSet<&str>) -> bool {
    let own = text_of(&document["metadata"]["namespace"]);
    let is_one = |of: &Value| {
        let namespace = of["namespace"].as_str().unwrap_or(own);
        services.contains(format!("{}.{namespace}", text_of(&of["name"])).as_str())
    };
    let spec = &document["spec"];
    is_one(&document["metadata"])
        || list(&spec["parentRefs"]).any(is_one)
        || list(&spec["targetRefs"]).any(is_one)
        || list(&spec["rules"]).flat_map(|rule| list(&rule["backendRefs"])).any(is_one)
}

fn default_file(workload: &str, now: SystemTime) -> PathBuf {
    let time = humantime::format_rfc3339_seconds(now).to_string().replace(['-', ':'], "");
    // Names of workloads come from their sidecars.
    let safe =
        |char: char| if char.is_ascii_alphanumeric() || matches!(char, '-' | '_') { char } else { '-' };
    let workload: String = workload.chars().map(safe).collect();
    format!("pillion-diagnose-{workload}-{time}.json").into()
}

/// For its owner only; one that nobody named is never written over.
fn write(file: &Path, text: &str, named: bool) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    if named {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(file)?.write_all(text.as_bytes())
}

/// What it holds, for people.
fn told(file: &Path, length: usize, bundle: &Value) -> String {
    let count = |section: &str| list(&bundle[section]).count();
    let (workload, versions) = (&bundle["workload"], &bundle["versions"]);
    let mut text = format!(
        "{}: {} KiB, secrets taken out; look through it before you share it\n  \
         versions: CLI {}, control plane {}, sidecar {}\n  \
         workload {}: {}\n  \
         {} services with the values in force, {} documents, {} events, {} findings of pillion check\n",
        file.display(),
        length.div_ceil(1024),
        text_of(&versions["cli"]),
        text_of(&versions["controlPlane"]),
        text_of(&versions["sidecar"]),
        full_name(workload),
        match (workload["connected"].as_bool(), workload["ready"].as_bool()) {
            (Some(false), _) => "not connected",
            (_, Some(true)) => "connected and ready",
            _ => "connected, not ready",
        },
        count("services"),
        count("documents"),
        count("events"),
        count("findings"),
    );
    let sidecar = &bundle["sidecar"];
    text += &match sidecar["notRead"].as_str() {
        Some(why) => format!("  sidecar: not read, {why}\n"),
        None => {
            let parts =
                ["ready", "config", "endpoints", "metrics"].map(|part| {
                    match sidecar[part]["notRead"].as_str() {
                        Some(why) => format!("/{part} not read ({why})"),
                        None => format!("/{part}"),
                    }
                });
            format!("  sidecar at {}: {}\n", text_of(&sidecar["address"]), parts.join(", "))
        }
    };
    for note in list(&bundle["about"]["notes"]) {
        text += &format!("  {}\n", text_of(note));
    }
    text
}

fn path(parts: &[&str]) -> Vec<String> {
    ["v1"].iter().chain(parts).map(ToString::to_string).collect()
}

fn full_name(workload: &Value) -> String {
    format!("{}.{}", text_of(&workload["workload"]), text_of(&workload["namespace"]))
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn workload(uid: &str, name: &str, namespace: &str, connected: bool) -> Value {
        let service = format!("pay.{namespace}");
        json!({ "uid": uid, "workload": name, "namespace": namespace, "connected": connected, "service": service })
    }

    #[test]
    fn the_one_that_is_meant() {
        let all = [
            workload("u1", "pay-1", "demo", true),
            workload("u2", "pay-1", "shop", true),
            workload("u3", "web-1", "demo", false),
            workload("u4", "web-1", "demo", true),
        ];
        let uid = |asked: &str| choose(&all, asked).map(|found| text_of(&found["uid"]).to_owned());
        assert_eq!(uid("u3").as_deref(), Ok("u3"));
        assert_eq!(uid("web-1").as_deref(), Ok("u4"));
        assert_eq!(uid("pay-1.shop").as_deref(), Ok("u2"));
        let why = |asked: &str| uid(asked).expect_err("none");
        assert!(
            why("pay-1").contains("pay-1.demo (UID u1), pay-1.shop (UID u2); say which"),
            "{}",
            why("pay-1")
        );
        assert!(
            why("web-1.shop").contains("is registered; did you mean web-1.demo?"),
            "{}",
            why("web-1.shop")
        );
        assert!(why("pay.shop").contains("; did you mean pay-1.shop?"), "{}", why("pay.shop"));
        assert!(why("else").starts_with("no workload else is registered\n"), "{}", why("else"));
    }

    #[test]
    fn documents_that_concern_a_service() {
        let of = |document: Value| concerns(&document, &BTreeSet::from(["pay.demo"]));
        let metadata = |name: &str, namespace: &str| json!({ "name": name, "namespace": namespace });
        assert!(of(json!({ "metadata": metadata("pay", "demo") })));
        assert!(!of(json!({ "metadata": metadata("pay", "shop") })));
        for refs in ["parentRefs", "targetRefs"] {
            let document = |it: Value| json!({ "metadata": metadata("x", "demo"), "spec": { refs: [it] } });
            assert!(of(document(json!({ "name": "pay" }))));
            assert!(!of(document(json!({ "name": "pay", "namespace": "shop" }))));
        }
        let rules = json!([{ "backendRefs": [{ "name": "pay", "namespace": "demo" }] }]);
        assert!(of(json!({ "metadata": metadata("x", "shop"), "spec": { "rules": rules } })));
    }

    #[test]
    fn a_file_is_named_by_workload_and_time() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        assert_eq!(default_file("a/../b", now), Path::new("pillion-diagnose-a----b-20010909T014640Z.json"));
    }
}
