//! Reads the Prometheus text format, strictly: what a scraper would stumble over is an error here.

use std::collections::{BTreeMap, BTreeSet};

/// One sample: a metric's name, its labels and its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The metric's name, with `_bucket`, `_sum` or `_count` where the format adds it.
    pub name: String,
    /// Label names and values.
    pub labels: BTreeMap<String, String>,
    /// As written; may be `NaN` or infinite.
    pub value: f64,
}

impl Sample {
    /// One label's value; empty where there is none, as in Prometheus itself.
    #[must_use]
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// Everything one process exposed at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    samples: Vec<Sample>,
    types: BTreeMap<String, String>,
}

impl Samples {
    /// Parses a whole exposition, or says everything that is wrong with it, line by line.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        let mut parsed = Self::default();
        let mut faults = Vec::new();
        let mut seen = BTreeSet::new();
        for (number, line) in (1..).zip(text.lines()) {
            let mut fault = |what: String| faults.push(format!("line {number}: {what}: {line}"));
            if let Some(comment) = line.strip_prefix('#') {
                let mut words = comment.split_whitespace();
                if words.next() != Some("TYPE") {
                    continue;
                }
                match (words.next(), words.next(), words.next()) {
                    (Some(name), Some(kind), None) if TYPES.contains(&kind) => {
                        if parsed.types.insert(name.into(), kind.into()).is_some() {
                            fault(format!("a second TYPE of {name}"));
                        }
                    }
                    _ => fault("not `# TYPE <name> <type>`".into()),
                }
            } else if !line.trim().is_empty() {
                match parse_sample(line) {
                    Ok(sample) => {
                        if !seen.insert((sample.name.clone(), sample.labels.clone())) {
                            fault("the same series a second time".into());
                        }
                        parsed.samples.push(sample);
                    }
                    Err(what) => fault(what),
                }
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            faults.push("the last line does not end".into());
        }
        if faults.is_empty() { Ok(parsed) } else { Err(faults) }
    }

    /// All samples, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter()
    }

    /// The samples of one name whose labels include all of `labels`.
    pub fn matching<'a>(&'a self, name: &'a str, labels: Labels<'a>) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |s| s.name == name && labels.iter().all(|(key, value)| s.label(key) == *value))
    }

    /// The sum over [`Self::matching`]; zero where nothing matches, as a counter that never counted is not exposed.
    #[must_use]
    pub fn sum(&self, name: &str, labels: Labels<'_>) -> f64 {
        self.matching(name, labels).map(|sample| sample.value).sum()
    }

    /// The greatest of [`Self::matching`].
    #[must_use]
    pub fn max(&self, name: &str, labels: Labels<'_>) -> Option<f64> {
        self.matching(name, labels).map(|sample| sample.value).reduce(f64::max)
    }

    /// Metric names and their types, as declared.
    #[must_use]
    pub fn types(&self) -> &BTreeMap<String, String> {
        &self.types
    }
}

/// Label names and the values they must have.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

const TYPES: [&str; 5] = ["counter", "gauge", "histogram", "summary", "untyped"];

fn parse_sample(line: &str) -> Result<Sample, String> {
    let name_end = line.find(['{', ' ']).ok_or("no value")?;
    let (name, rest) = line.split_at(name_end);
    if !is_metric_name(name) {
        return Err(format!("{name:?} is no metric name"));
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let mut words = rest.split_whitespace();
    let value = words.next().ok_or("no value")?;
    let value = match value {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        number => number.parse().map_err(|_| format!("{number:?} is no number"))?,
    };
    if words.next().is_some_and(|timestamp| timestamp.parse::<i64>().is_err()) || words.next().is_some() {
        return Err("more than a value and a timestamp".into());
    }
    Ok(Sample { name: name.into(), labels, value })
}

/// From after the `{` on; gives the labels and what follows the `}`.
fn parse_labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), String> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let (name, after) = rest.split_once("=\"").ok_or("a label without a quoted value")?;
        if !is_label_name(name) {
            return Err(format!("{name:?} is no label name"));
        }
        let (value, after) = parse_quoted(after)?;
        if labels.insert(name.into(), value).is_some() {
            return Err(format!("label {name} twice"));
        }
        rest = after.strip_prefix(',').unwrap_or(after);
        if !(rest.starts_with('}') || after.starts_with(',')) {
            return Err("labels that are not parted by a comma".into());
        }
    }
}

/// From after the opening quote on; gives the value and what follows the closing quote.
fn parse_quoted(text: &str) -> Result<(String, &str), String> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('"' | '\\'))) => value.push(escaped),
                _ => return Err("an unknown escape in a label's value".into()),
            },
            other => value.push(other),
        }
    }
    Err("a label's value without its closing quote".into())
}

fn is_metric_name(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_' || c == ':')
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn is_label_name(name: &str) -> bool {
    is_metric_name(name) && !name.contains(':')
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{service="payments.demo",code="2xx"} 12
requests_total{service="payments.demo",code="5xx"} 3
requests_total{service="cart \"old\"\\\n",code="2xx",} 1 1700000000000

# TYPE open gauge
open 1.5e1
"#;

    #[test]
    fn sums_what_matches() {
        let samples = Samples::parse(GOOD).expect("it is well formed");
        assert_eq!(samples.sum("requests_total", &[("service", "payments.demo")]), 15.0);
        assert_eq!(samples.sum("requests_total", &[("code", "2xx")]), 13.0);
        assert_eq!(samples.sum("requests_total", &[("code", "4xx")]), 0.0);
        assert_eq!(samples.max("open", &[]), Some(15.0));
        assert_eq!(samples.matching("requests_total", &[("service", "cart \"old\"\\\n")]).count(), 1);
        assert_eq!(samples.types()["open"], "gauge");
    }

    #[test]
    fn every_fault_is_said() {
        let text = "0bad 1\nok{a=\"1\" b=\"2\"} 1\nok{a=\"1\"} one\nok{a=\"1\"} 1\nok{a=\"1\"} 2\n# TYPE ok thing\nok{a=\"1} 3\nlast 1";
        let faults = Samples::parse(text).expect_err("nearly every line is wrong");
        let lines: Vec<&str> = faults.iter().map(|fault| fault.split(':').next().unwrap_or("")).collect();
        assert_eq!(
            lines,
            ["line 1", "line 2", "line 3", "line 5", "line 6", "line 7", "the last line does not end"]
        );
    }
}
