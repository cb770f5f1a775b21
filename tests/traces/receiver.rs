//! A receiver of spans, as a process of its own: OpenTelemetry's messages by OpenTelemetry's own code, in Python (`receiver.py`).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use pillion::demo::children::Child;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use crate::support::mesh::{Mesh, pillion_proxy};
use crate::support::{PATIENCE, eventually};

/// One that runs, until it is dropped.
pub(super) struct Receiver {
    pub(super) addresses: Addresses,
    spans: PathBuf,
    _process: Child,
}

/// Where it listens.
#[derive(Deserialize)]
pub(super) struct Addresses {
    pub(super) grpc: SocketAddr,
    pub(super) http: SocketAddr,
}

/// A span as it came.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Span {
    /// `grpc` or `http`.
    pub(super) via: String,
    /// The fields of the request that brought it.
    pub(super) fields: BTreeMap<String, String>,
    pub(super) resource: BTreeMap<String, Value>,
    pub(super) scope: String,
    pub(super) trace: String,
    pub(super) id: String,
    pub(super) parent: String,
    pub(super) state: String,
    pub(super) flags: u32,
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) start: u64,
    pub(super) end: u64,
    attributes: BTreeMap<String, Value>,
    pub(super) events: Vec<Event>,
    pub(super) status: String,
}

/// Of a span.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Event {
    pub(super) at: u64,
    pub(super) name: String,
    pub(super) attributes: BTreeMap<String, Value>,
}

impl Span {
    /// An attribute as text; empty where it has none of that name.
    pub(super) fn says(&self, name: &str) -> String {
        match self.attributes.get(name) {
            None => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        }
    }
}

impl Receiver {
    /// One that turns the first `unavailable` batches away, to be sent again.
    pub(super) async fn start(mesh: &Mesh, unavailable: u32) -> Self {
        Self::start_with(mesh, unavailable, None).await
    }

    /// One that proves by a certificate who it is: the files of that and of its key.
    pub(super) async fn start_with(mesh: &Mesh, unavailable: u32, certificate: Option<[PathBuf; 2]>) -> Self {
        let program = python().await;
        let (addresses, spans) = (mesh.file("otlp.json"), mesh.file("spans.jsonl"));
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces/receiver.py");
        let mut arguments: Vec<OsString> = vec![
            script.into(),
            addresses.clone().into(),
            spans.clone().into(),
            unavailable.to_string().into(),
        ];
        arguments.extend(certificate.into_iter().flatten().map(OsString::from));
        let mut process = mesh.child("otlp", program, arguments);
        let addresses = process.until_file(&addresses, PATIENCE).await.expect("the receiver listens");
        Self { addresses, spans, _process: process }
    }

    /// The spans that have come so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        let text = std::fs::read_to_string(&self.spans).unwrap_or_default();
        // The last line may be under way.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(|line| serde_json::from_str(line).expect("a span")).collect()
    }

    /// Waits until there are exactly so many of a trace.
    pub(super) async fn until(&self, trace: &str, count: usize) -> Vec<Span> {
        eventually(&format!("{count} spans of trace {trace}"), async || {
            let mut spans = self.spans();
            spans.retain(|span| span.trace == trace);
            assert!(spans.len() <= count, "more than {count}: {spans:#?}");
            (spans.len() == count).then_some(spans)
        })
        .await
    }
}

/// With what the receiver needs, as `deploy/setup/otlp` installs it once for all tests.
async fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = pillion_proxy();
    let target = program.parent().and_then(Path::parent).expect("it is in a folder of the target's");
    let mut command = Command::new(root.join("deploy/setup/otlp"));
    let output =
        command.arg(target.join("tools")).stdin(Stdio::null()).stderr(Stdio::inherit()).output().await;
    let output = output.expect("the script starts");
    assert!(output.status.success(), "deploy/setup/otlp: {}", output.status);
    String::from_utf8(output.stdout).expect("a path").trim().into()
}
