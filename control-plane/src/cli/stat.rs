//! `pillion stat`: how services, workloads or edges fared over a window.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{Client, Failure, hops, print, table};
use crate::{
    mesh_api::{
        activity::RepeatsView,
        view::{StatKind, StatRow, StatView},
    },
    resource::duration,
};

/// Whose figures, over what time, and how.
#[derive(Debug, Args)]
#[command(
    after_help = "SUCCESS leaves out what the caller is to blame for: answers of 4xx, so also what a sidecar refuses with \
                  one, as it does what no service is known for."
)]
pub(super) struct StatArgs {
    #[command(flatten)]
    wanted: Wanted,
    /// Over the last so long, up to 30m
    #[arg(long, default_value = "1m", value_parser = parse_window)]
    window: Window,
    /// Show where the time of requests went: each segment's share, in the application, the network and the sidecars
    #[arg(long)]
    hops: bool,
    /// How
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// The same, with what callers' sidecars repeated: how many retries and hedges, and how many requests ended well by them; of
    /// edges also the success that there would be without retries
    Wide,
    /// For programs
    Json,
}

/// Of what.
#[derive(Debug, Clone, Args)]
pub(super) struct Wanted {
    /// Of what: services, workloads, edges (who calls whom), or one service, NAME.NAMESPACE, with its edges
    #[arg(default_value = "services", value_parser = parse_subject, value_name = "KIND|SERVICE")]
    pub(super) subject: Subject,
    /// Only of this namespace
    #[arg(short, long)]
    namespace: Option<String>,
    /// Only what this service or lone workload sends, NAME.NAMESPACE
    #[arg(long, value_name = "NAME.NAMESPACE")]
    from: Option<String>,
    /// Only what is sent to this service, NAME.NAMESPACE
    #[arg(long, value_name = "NAME.NAMESPACE")]
    to: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum What {
    #[value(alias = "service", alias = "svc")]
    Services,
    #[value(alias = "workload")]
    Workloads,
    #[value(alias = "edge")]
    Edges,
}

/// All of a kind, or one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    pub(super) what: What,
    of: Option<String>,
}

fn parse_subject(text: &str) -> Result<Subject, String> {
    Ok(match What::from_str(text, true) {
        Ok(what) => Subject { what, of: None },
        Err(_) => Subject { what: What::Services, of: Some(text.to_owned()) },
    })
}

impl What {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Workloads => "workloads",
            Self::Edges => "edges",
        }
    }
}

/// Whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window(pub(super) u64);

pub(super) fn parse_window(text: &str) -> Result<Window, String> {
    match duration::parse(text)?.as_secs() {
        seconds @ 1..=1800 => Ok(Window(seconds)),
        _ => Err("must be from 1s to 30m".to_owned()),
    }
}

impl Wanted {
    /// Whether it is of some requests only, which is not known of workloads.
    pub(super) fn is_narrowed(&self) -> bool {
        self.subject.of.is_some() || self.from.is_some() || self.to.is_some()
    }

    /// What the server has of it.
    pub(super) async fn figures(&self, client: &Client, Window(window): Window) -> Result<Value, Failure> {
        let window = window.to_string();
        let mut parameters = vec![("kind", self.subject.what.word()), ("window", &window)];
        let of = self.subject.of.as_ref();
        // Of one service, it is where that is.
        let of = of.map(|of| match &self.namespace {
            Some(namespace) if !of.contains('.') => format!("{of}.{namespace}"),
            _ => of.clone(),
        });
        let namespace = self.namespace.as_deref().filter(|_| of.is_none());
        for (name, value) in [
            ("of", of.as_deref()),
            ("namespace", namespace),
            ("from", self.from.as_deref()),
            ("to", self.to.as_deref()),
        ] {
            parameters.extend(value.map(|value| (name, value)));
        }
        client.query(&["v1", "mesh", "stat"].map(str::to_owned), &parameters).await
    }
}

pub(super) async fn run(args: &StatArgs, client: &Client) -> Result<(), Failure> {
    let answer = args.wanted.figures(client, args.window).await?;
    let edges = match args.wanted.subject.of {
        None => None,
        Some(_) => {
            let subject = Subject { what: What::Edges, ..args.wanted.subject.clone() };
            Some(Wanted { subject, ..args.wanted.clone() }.figures(client, args.window).await?)
        }
    };
    if args.output == Output::Json {
        return print(&match edges {
            None => format!("{answer:#}\n"),
            Some(edges) => format!("{:#}\n", json!({ "service": answer, "edges": edges })),
        });
    }
    let table = |answer: Value| -> Result<String, Failure> {
        let view = read(answer)?;
        Ok(match view.rows.is_empty() {
            true => nothing(view.kind),
            false if args.hops => hops::render(&view),
            false => tabulate(&view, args.output == Output::Wide),
        })
    };
    let mut text = table(answer)?;
    if let Some(edges) = edges {
        text = text + "\n" + &table(edges)?;
    }
    print(&text)
}

/// What the server answered, typed.
pub(super) fn read(answer: Value) -> Result<StatView, Failure> {
    serde_json::from_value(answer)
        .map_err(|error| Failure::Local(format!("the server is of another release: {error}")))
}

/// What to say where there is nothing.
pub(super) fn nothing(kind: StatKind) -> String {
    match kind {
        StatKind::Services => "no services\n".to_owned(),
        StatKind::Workloads => "no workloads\n".to_owned(),
        StatKind::Edges => "nobody called anybody\n".to_owned(),
    }
}

/// The table of it.
pub(super) fn render(view: &StatView) -> String {
    tabulate(view, false)
}

fn tabulate(view: &StatView, wide: bool) -> String {
    let rows: Vec<Vec<String>> = view.rows.iter().map(|row| cells(view.kind, row, wide)).collect();
    table::render(&heading(view.kind, wide), &rows)
}

/// The columns that every kind has after its own, and the last; between them, those of the wide table.
const FIGURES: [&str; 6] = ["SUCCESS", "RPS", "P50", "P95", "P99", "TCP-CONN"];
const REPEATS: [&str; 2] = ["RETRIES", "HEDGES"];
/// Of edges: a service's own sidecars count each try, so that its success is that.
const FIRST_TRY: &str = "FIRST-TRY";
const LAST: &str = "REFUSED";

fn heading(kind: StatKind, wide: bool) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        StatKind::Services => &["SERVICE", "READY"],
        StatKind::Workloads => &["WORKLOAD", "SERVICE", "READY"],
        StatKind::Edges => &["FROM", "TO", "SERVED-BY", "SECURED"],
    };
    let repeats: &[&str] = match (wide, kind) {
        (false, _) => &[],
        (true, StatKind::Edges) => &[FIRST_TRY, REPEATS[0], REPEATS[1]],
        (true, _) => &REPEATS,
    };
    [own, &FIGURES, repeats, &[LAST]].concat()
}

/// The share of requests that ended well without a retry.
fn first_try(row: &StatRow) -> Option<f64> {
    let recovered = row.repeats.as_ref().map_or(0, |repeats| repeats.recovered);
    let share = recovered as f64 / row.requests.max(1) as f64;
    Some((row.success_rate? - share).max(0.0))
}

/// How often something was repeated, and for how many requests that was what made them end well.
fn repeats(row: &StatRow) -> [String; 2] {
    let told = |count: u64, well: u64| match count {
        0 => "-".to_owned(),
        _ => format!("{count} ({well} well)"),
    };
    let RepeatsView { retries, recovered, hedges, hedges_won, .. } = row.repeats.clone().unwrap_or_default();
    [told(retries, recovered), told(hedges, hedges_won)]
}

/// How many of all requests some are. Nothing, where they cannot be some of them: connections are refused, too.
fn share_of(count: u64, requests: u64) -> String {
    match requests {
        0 => String::new(),
        _ if count > requests => String::new(),
        _ => match (100 * count + requests / 2) / requests {
            0 => " (< 1 %)".to_owned(),
            percent => format!(" ({percent} %)"),
        },
    }
}

fn cells(kind: StatKind, row: &StatRow, wide: bool) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let count = |count: Option<usize>| count.unwrap_or_default().to_string();
    let ready = match kind {
        StatKind::Workloads if row.ready == Some(1) => "yes".to_owned(),
        StatKind::Workloads => "no".to_owned(),
        _ => format!("{}/{}", count(row.ready), count(row.instances)),
    };
    let mut cells = match kind {
        StatKind::Services => vec![row.name.clone(), ready],
        StatKind::Workloads => vec![row.name.clone(), or_dash(&row.service), ready],
        StatKind::Edges => {
            let secured = match row.mtls {
                Some(true) => "mTLS",
                Some(false) => "no",
                None => "-",
            };
            vec![or_dash(&row.from), row.name.clone(), or_dash(&row.backend), secured.to_owned()]
        }
    };
    let refused = row.refusals.iter();
    let refused =
        refused.map(|(reason, &count)| format!("{reason}: {count}{}", share_of(count, row.requests)));
    let callee = row.backend.as_ref().unwrap_or(&row.name);
    let by_callee = row.refusals_by_callee.iter();
    let by_callee = by_callee.map(|(reason, count)| format!("{reason}: {count} (by {callee}'s sidecar)"));
    let refused: Vec<String> = refused.chain(by_callee).collect();
    cells.extend([
        table::share(row.success_rate),
        format!("{:.1}", row.rps),
        table::milliseconds(row.p50_ms),
        table::milliseconds(row.p95_ms),
        table::milliseconds(row.p99_ms),
        row.connections.to_string(),
    ]);
    if wide {
        if kind == StatKind::Edges {
            cells.push(table::share(first_try(row)));
        }
        cells.extend(repeats(row));
    }
    cells.push(if refused.is_empty() { "-".to_owned() } else { refused.join(", ") });
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_requests() {
        for (count, requests, expected) in
            [(815, 1698, " (48 %)"), (1, 1000, " (< 1 %)"), (5, 5, " (100 %)"), (6, 5, ""), (1, 0, "")]
        {
            assert_eq!(share_of(count, requests), expected, "{count} of {requests}");
        }
    }

    #[test]
    fn what_was_repeated_is_in_the_wide_table() {
        let repeats = RepeatsView { retries: 12, recovered: 9, ..RepeatsView::default() };
        let row = StatRow { name: "pay.demo".to_owned(), repeats: Some(repeats), ..StatRow::default() };
        let view =
            StatView { server_time_ms: 0, kind: StatKind::Services, window_seconds: 60, rows: vec![row] };
        assert_eq!(
            tabulate(&view, true),
            "SERVICE   READY  SUCCESS  RPS  P50  P95  P99  TCP-CONN  RETRIES      HEDGES  REFUSED\n\
             pay.demo  0/0    -        0.0  -    -    -    0         12 (9 well)  -       -\n"
        );
        assert!(!tabulate(&view, false).contains("RETRIES"));
    }

    #[test]
    fn success_without_retries_is_in_the_wide_table_of_edges() {
        for (success_rate, requests, recovered, expected) in [
            (Some(0.99), 100, 9, Some(0.90)),
            (Some(1.0), 100, 0, Some(1.0)),
            // Counted a moment apart.
            (Some(0.0), 1, 2, Some(0.0)),
            (None, 0, 0, None),
        ] {
            let repeats = Some(RepeatsView { recovered, ..RepeatsView::default() });
            let row = StatRow { success_rate, requests, repeats, ..StatRow::default() };
            let without = first_try(&row);
            let same = without.zip(expected).is_none_or(|(left, right)| (left - right).abs() < 1e-9);
            assert!(same && without.is_some() == expected.is_some(), "{without:?}, not {expected:?}");
        }
        let headings = |kind| heading(kind, true).contains(&FIRST_TRY);
        assert_eq!(
            [StatKind::Edges, StatKind::Services, StatKind::Workloads].map(headings),
            [true, false, false]
        );
    }
}
