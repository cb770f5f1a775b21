//! `pillion stat --hops`: where requests' time went, segment by segment.

use super::table;
use crate::mesh_api::{
    hops::HopsView,
    view::{StatKind, StatRow, StatView},
};

/// Of a bar that is all of it.
const WIDTH: f64 = 20.0;

/// The table of it: some lines for each row, one for each segment.
pub(super) fn render(view: &StatView) -> String {
    let rows: Vec<Vec<String>> = view
        .rows
        .iter()
        .filter_map(|row| Some((row, row.hops.as_ref()?)))
        .flat_map(|(row, hops)| lines(view.kind, row, hops))
        .collect();
    if rows.is_empty() {
        return "no request's time was split in that time\n".to_owned();
    }
    let details = table::render(&heading(view.kind, &["SEGMENT", "MEAN", "P50", "P99", "SHARE", ""]), &rows);
    match verdicts(view) {
        Some(verdicts) => verdicts + "\n" + &details,
        None => details,
    }
}

/// The answer of each, before the figures that it is from.
fn verdicts(view: &StatView) -> Option<String> {
    let cells = |row: &StatRow| {
        let verdict = row.hops.as_ref()?.verdict.as_ref()?;
        Some(names(view.kind, row).into_iter().chain([verdict.text.clone()]).collect())
    };
    let rows: Vec<Vec<String>> = view.rows.iter().filter_map(cells).collect();
    (!rows.is_empty()).then(|| table::render(&heading(view.kind, &["WHERE THE TIME GOES"]), &rows))
}

fn heading(kind: StatKind, further: &[&'static str]) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        StatKind::Services => &["SERVICE"],
        StatKind::Workloads => &["WORKLOAD"],
        StatKind::Edges => &["FROM", "TO"],
    };
    [own, further].concat()
}

fn names(kind: StatKind, row: &StatRow) -> Vec<String> {
    let served_by =
        |name: &str| row.backend.as_ref().map_or(name.to_owned(), |backend| format!("{name} ({backend})"));
    match kind {
        StatKind::Services | StatKind::Workloads => vec![row.name.clone()],
        StatKind::Edges => vec![row.from.clone().unwrap_or_default(), served_by(&row.name)],
    }
}

fn lines(kind: StatKind, row: &StatRow, hops: &HopsView) -> Vec<Vec<String>> {
    let own = names(kind, row);
    let most = hops.segments.iter().map(|segment| segment.share).fold(0.0, f64::max);
    let of_segments = hops.segments.iter().map(|segment| {
        let bar = "#".repeat((segment.share * WIDTH).round() as usize);
        let most = if segment.share >= most { " <- most" } else { "" };
        [
            segment.segment.clone(),
            table::milliseconds(Some(segment.mean_ms)),
            table::milliseconds(Some(segment.p50_ms)),
            table::milliseconds(Some(segment.p99_ms)),
            format!("{:.0}%", segment.share * 100.0),
            bar + most,
        ]
    });
    let whole = [
        format!("whole ({} requests)", hops.requests),
        table::milliseconds(Some(hops.mean_ms)),
        table::milliseconds(hops.p50_ms),
        table::milliseconds(hops.p99_ms),
        "100%".to_owned(),
        String::new(),
    ];
    // Whose they are stands at the first only.
    let blank = vec![String::new(); own.len()];
    [whole]
        .into_iter()
        .chain(of_segments)
        .enumerate()
        .map(|(index, cells)| {
            let own = if index == 0 { own.clone() } else { blank.clone() };
            own.into_iter().chain(cells).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh_api::{hops::SegmentView, verdict::VerdictView};

    #[test]
    fn one_look_says_what_takes_the_time() {
        let segment = |segment: &str, mean_ms, share| SegmentView {
            segment: segment.to_owned(),
            mean_ms,
            share,
            p50_ms: mean_ms,
            p99_ms: mean_ms * 2.0,
        };
        let hops = HopsView {
            requests: 7,
            mean_ms: 100.0,
            p50_ms: Some(99.0),
            p99_ms: Some(200.0),
            segments: vec![segment("client-sidecar", 0.4, 0.004), segment("network", 99.6, 0.996)],
            verdict: Some(VerdictView { text: "it is the network".to_owned(), ..VerdictView::default() }),
            workloads: Vec::new(),
        };
        let row = StatRow {
            name: "payments.demo".to_owned(),
            from: Some("web.demo".to_owned()),
            backend: Some("payments-v2.demo".to_owned()),
            hops: Some(hops),
            ..StatRow::default()
        };
        let without = StatRow::default();
        let view = |rows| StatView { server_time_ms: 0, kind: StatKind::Edges, window_seconds: 60, rows };
        let text = render(&view(vec![row, without.clone()]));
        let expected = "\
FROM      TO                                WHERE THE TIME GOES
web.demo  payments.demo (payments-v2.demo)  it is the network

FROM      TO                                SEGMENT             MEAN   P50    P99    SHARE
web.demo  payments.demo (payments-v2.demo)  whole (7 requests)  100ms  99ms   200ms  100%
                                            client-sidecar      0.4ms  0.4ms  0.8ms  0%
                                            network             100ms  100ms  199ms  100%   #################### <- most
";
        assert_eq!(text, expected);
        assert!(render(&view(vec![without])).starts_with("no request"));
    }
}
