//! OpenMetrics 1.0, which scrapers get that ask for it: as Prometheus' text, but for few rules of its own, and with exemplars.
//! <https://github.com/prometheus/OpenMetrics/blob/v1.0.0/specification/OpenMetrics.md>

use http::{HeaderMap, header::ACCEPT};

/// What it is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Units that a family's name may end with.
const UNITS: [&str; 2] = ["seconds", "bytes"];

/// Whether a scraper would rather have it than Prometheus' own text. Only who names it knows it.
pub fn is_asked_for(headers: &HeaderMap) -> bool {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in values.flat_map(|value| value.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
        let (mut quality, mut version) = (1.0, "1.0.0");
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.trim_end().to_ascii_lowercase().as_str() {
                "q" => quality = value.trim_start().parse().unwrap_or(0.0),
                "version" => version = value.trim().trim_matches('"'),
                _ => {}
            }
        }
        match kind.as_str() {
            // What the drafts before it take is another matter.
            "application/openmetrics-text" if version == "1.0.0" => open = open.max(quality),
            "text/plain" => plain = plain.max(quality),
            _ => {}
        }
    }
    open > 0.0 && open >= plain
}

/// From Prometheus' text: a counter's family has no suffix, units are told, no line is empty, and there is an end.
pub(super) fn from_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 16);
    for line in text.lines().filter(|line| !line.is_empty()) {
        let told = line.strip_prefix("# ").and_then(|line| {
            let (keyword, rest) = line.split_once(' ')?;
            let (name, rest) = rest.split_once(' ')?;
            Some((keyword, name.strip_suffix("_total").unwrap_or(name), rest))
        });
        match told {
            Some(("HELP", family, help)) => {
                let help = help.replace('"', "\\\"");
                out.extend(["# HELP ", family, " ", &help]);
            }
            Some((keyword, family, kind)) => {
                out.extend(["# ", keyword, " ", family, " ", kind]);
                let unit = UNITS
                    .iter()
                    .find(|unit| family.strip_suffix(**unit).is_some_and(|before| before.ends_with('_')));
                if let Some(unit) = unit {
                    out.extend(["\n# UNIT ", family, " ", unit]);
                }
            }
            None => out.push_str(line),
        }
        out.push('\n');
    }
    out + "# EOF\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_it_gets_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                          text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        for (accept, expected) in [
            (&[prometheus][..], true),
            (&["application/openmetrics-text"], true),
            (&["text/plain", "Application/OpenMetrics-Text ; Version = \"1.0.0\" ; Q = 1"], true),
            (&["application/openmetrics-text;q=0.4,text/plain;q=0.5"], false),
            (&["application/openmetrics-text;version=0.0.1"], false),
            (&["application/openmetrics-text;q=0"], false),
            (&["application/openmetrics-text;q=x"], false),
            (
                &[
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;q=0.6,text/plain;q=0.3",
                ],
                false,
            ),
            (&["*/*"], false),
            (&["text/html,application/xhtml+xml,*/*;q=0.8"], false),
            (&["\u{7f}"], false),
            (&[], false),
        ] {
            let values = accept.iter().filter_map(|value| Some((ACCEPT, value.parse().ok()?)));
            assert_eq!(is_asked_for(&values.collect()), expected, "{accept:?}");
        }
    }

    #[test]
    fn it_differs_from_prometheus_text_where_it_must() {
        let text = "# HELP a_requests_total Of a \"kind\".\n# TYPE a_requests_total counter\n\
                    a_requests_total{b=\"# TYPE c\"} 2\n\n# HELP process_cpu_seconds_total Time.\n\
                    # TYPE process_cpu_seconds_total counter\nprocess_cpu_seconds_total 1.25\n\
                    # TYPE a_seconds histogram\na_seconds_bucket{le=\"+Inf\"} 0\n\n# TYPE bytes gauge\nbytes 1\n";
        let expected = "# HELP a_requests Of a \\\"kind\\\".\n# TYPE a_requests counter\n\
                    a_requests_total{b=\"# TYPE c\"} 2\n# HELP process_cpu_seconds Time.\n\
                    # TYPE process_cpu_seconds counter\n# UNIT process_cpu_seconds seconds\n\
                    process_cpu_seconds_total 1.25\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\n\
                    a_seconds_bucket{le=\"+Inf\"} 0\n# TYPE bytes gauge\nbytes 1\n# EOF\n";
        assert_eq!(from_text(text), expected);
    }
}
