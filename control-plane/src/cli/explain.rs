//! `pillion explain`: what becomes of a request, and why.

use std::fmt::Write as _;

use clap::Args;

use super::{Client, Failure, get::LiveOutput, print, table, words};
use crate::explain::{
    BackendView, CaveatView, DEFAULT, Decided, ExplainRequest, Explanation, FieldView, HeaderField,
    PolicyView, RuleView,
};

/// Tell what becomes of a request, and why, by the code that sidecars run.
#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Who calls: a service, or a workload that belongs to none
    #[arg(long, value_name = "NAME.NAMESPACE")]
    from: String,
    /// Whom it names, as the application would: payments, payments.demo:80, 240.240.0.7
    #[arg(long, value_name = "HOST[:PORT]")]
    to: String,
    /// [default: GET; of a gRPC call: POST]
    #[arg(long)]
    method: Option<String>,
    /// With its query [default: /]
    #[arg(long, conflicts_with = "grpc")]
    path: Option<String>,
    /// A header field of the request; may be given several times
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<HeaderField>,
    /// A gRPC call instead of a method and a path
    #[arg(long, value_name = "SERVICE/METHOD", conflicts_with = "method")]
    grpc: Option<String>,
    /// Every value of the policies, not only those that somebody has written
    #[arg(long)]
    all: bool,
    /// How
    #[arg(short, long, value_enum, default_value_t = LiveOutput::Table)]
    output: LiveOutput,
}

fn parse_header(text: &str) -> Result<HeaderField, String> {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE")?;
    Ok(HeaderField { name: name.trim().to_owned(), value: value.trim().to_owned() })
}

pub(super) async fn run(args: &ExplainArgs, client: &Client) -> Result<(), Failure> {
    let question = ExplainRequest {
        from: args.from.clone(),
        to: args.to.clone(),
        method: args.method.clone(),
        path: args.path.clone(),
        headers: args.headers.clone(),
        grpc: args.grpc.clone(),
    };
    let body = serde_json::to_value(&question).expect("a question has string keys only");
    let answer = client.ask(&["v1", "explain"].map(str::to_owned), &body).await?;
    if args.output == LiveOutput::Json {
        return print(&format!("{answer:#}\n"));
    }
    let explanation: Explanation = serde_json::from_value(answer).map_err(|error| {
        Failure::Local(format!("the server is of another release and explains differently: {error}"))
    })?;
    print(&render(&explanation, args.all))
}

/// A text that grows by numbered steps.
#[derive(Default)]
struct Steps {
    text: String,
    count: usize,
}

impl Steps {
    fn step(&mut self, name: &str, what: &str) {
        self.count += 1;
        writeln!(self.text, "{}. {name}: {what}", self.count).expect("a String takes what is written");
    }

    fn line(&mut self, line: &str) {
        writeln!(self.text, "     {line}").expect("a String takes what is written");
    }

    fn table(&mut self, heading: &[&str], rows: &[Vec<String>]) {
        table::render(heading, rows).lines().for_each(|line| self.line(line));
    }
}

fn render(explanation: &Explanation, all: bool) -> String {
    let Explanation {
        request,
        source,
        target,
        rules,
        decision,
        backends,
        policies,
        authorization,
        verdict,
        notes,
    } = explanation;
    let mut steps = Steps::default();
    writeln!(
        steps.text,
        "{} {} from {} to {}:{}\n",
        request.method, request.path, source.name, target.service, target.port
    )
    .expect("a String takes what is written");
    let workloads: Vec<String> = source
        .workloads
        .iter()
        .map(|it| match it.connected {
            true => it.workload.clone(),
            false => format!("{} (its stream is lost; it goes on with what it has)", it.workload),
        })
        .collect();
    steps.step("Caller", &format!("{}, decided by the sidecar of {}", source.name, workloads.join(", ")));
    steps.step("Name", &target.meaning);
    let port = match target.protocol.as_str() {
        "detected" => "protocol detected from the first bytes",
        declared => declared,
    };
    steps.step("Port", &format!("{} → {} of its workloads, {port}", target.port, target.target_port));
    route(&mut steps, rules, decision);
    steps.step("Backends", if backends.is_empty() { "none" } else { "by weight" });
    backends.iter().for_each(|backend| share(&mut steps, backend));
    for policy in policies {
        values(&mut steps, policy, all);
    }
    for backend in backends.iter().filter(|backend| !backend.endpoints.is_empty()) {
        endpoints(&mut steps, backend);
    }
    steps.step("Authorization", authorization);
    let reasons = match verdict.reasons.as_slice() {
        [] => String::new(),
        reasons => format!(" [{}]", reasons.join(", ")),
    };
    writeln!(steps.text, "\n{}{reasons}: {}", verdict.outcome.to_uppercase(), verdict.text)
        .expect("a String takes what is written");
    for CaveatView { reason, text, .. } in &verdict.caveats {
        let reason = if reason.is_empty() { String::new() } else { format!(" [{reason}]") };
        writeln!(steps.text, "but{reason}: {text}").expect("a String takes what is written");
    }
    for note in notes {
        writeln!(steps.text, "note: {note}").expect("a String takes what is written");
    }
    steps.text
}

fn route(steps: &mut Steps, rules: &[RuleView], decision: &Decided) {
    steps.step("Route", &decision.text);
    for RuleView { route, rule, conditions, taken, why } in rules {
        let conditions = match conditions.as_slice() {
            [] => "any request".to_owned(),
            conditions => conditions.join(" and "),
        };
        let outcome = if *taken { "taken".to_owned() } else { format!("no: {why}") };
        steps.line(&format!(
            "{} {route} rule {rule} ({conditions}): {outcome}",
            if *taken { "✓" } else { "✗" }
        ));
    }
    for effect in &decision.effects {
        steps.line(&format!("→ {effect}"));
    }
}

fn share(steps: &mut Steps, backend: &BackendView) {
    let BackendView { service, port, weight, share_percent, text, effects, .. } = backend;
    steps.line(&format!("{share_percent} % (weight {weight}) {service}:{port}: {text}"));
    for effect in effects {
        steps.line(&format!("  → {effect}"));
    }
}

fn values(steps: &mut Steps, policy: &PolicyView, all: bool) {
    let PolicyView { service, source, called, called_source, fields } = policy;
    let of = source.as_deref().unwrap_or("no TrafficPolicy; all values are defaults");
    steps.step(
        "Policy",
        &match called == service || called.is_empty() {
            true => format!("{service}: {of}"),
            false => {
                let of = source.as_deref().unwrap_or("no TrafficPolicy");
                let of_called = called_source.as_deref().unwrap_or("no TrafficPolicy");
                format!("{service}: {of}; and of {called}, which is called: {of_called}")
            }
        },
    );
    let shown = || fields.iter().filter(|field| all || field.source != DEFAULT);
    let rows: Vec<Vec<String>> = shown().flat_map(value).collect();
    if !rows.is_empty() {
        steps.table(&["FIELD", "VALUE", "FROM"], &rows);
    }
    let hidden = fields.len() - shown().count();
    if hidden > 0 {
        steps.line(&format!("{hidden} values are defaults; --all shows them"));
    }
}

/// The rows of one value: one for each part of it, and for each line of what is long.
fn value(FieldView { field, value, structured, source, .. }: &FieldView) -> Vec<Vec<String>> {
    const WIDTH: usize = 60;
    let parsed = structured.then(|| serde_json::from_str(value).ok()).flatten();
    let parts = match parsed {
        Some(parsed) => words::leaves(field, &parsed),
        None => vec![(field.clone(), value.clone())],
    };
    let lines = parts.into_iter().flat_map(|(field, value)| {
        let lines = words::wrapped(&value, WIDTH).into_iter().enumerate();
        lines.map(move |(line, value)| match line {
            0 => vec![field.clone(), value, source.clone()],
            _ => vec![String::new(), value, String::new()],
        })
    });
    lines.collect()
}

fn endpoints(steps: &mut Steps, backend: &BackendView) {
    steps.step("Endpoints", &format!("{}, as callers' sidecars last reported", backend.service));
    let rows: Vec<Vec<String>> = backend
        .endpoints
        .iter()
        .flat_map(|endpoint| {
            let row =
                move |caller: &str, breaker: &str, share: String, in_flight: String, latency: String| {
                    vec![
                        endpoint.workload.clone(),
                        if endpoint.ready { "yes".to_owned() } else { format!("no: {}", endpoint.reason) },
                        endpoint.address.clone(),
                        if endpoint.zone.is_empty() { "-".to_owned() } else { endpoint.zone.clone() },
                        endpoint.weight.to_string(),
                        caller.to_owned(),
                        breaker.to_owned(),
                        share,
                        in_flight,
                        latency,
                    ]
                };
            let unseen = endpoint.seen_by.is_empty();
            let unseen = unseen.then(|| row("-", "-", "-".to_owned(), "-".to_owned(), "-".to_owned()));
            let seen = endpoint.seen_by.iter().map(move |sight| {
                let latency = table::milliseconds(Some(sight.latency_ms));
                let share = table::share(Some(sight.share));
                row(&sight.workload, &sight.breaker, share, sight.in_flight.to_string(), latency)
            });
            unseen.into_iter().chain(seen)
        })
        .collect();
    let heading = [
        "WORKLOAD",
        "READY",
        "ADDRESS",
        "ZONE",
        "WEIGHT",
        "SEEN-BY",
        "BREAKER",
        "SHARE",
        "IN-FLIGHT",
        "LATENCY",
    ];
    steps.table(&heading, &rows);
}
