//! Which requests and connections sidecars write to their access logs, and what of them.

use http::HeaderName;

use super::{Faults, Percent};
use crate::wire;

/// What is written of requests and connections when they have ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// How a line looks.
    pub format: LineFormat,
    /// Of those that did not end well, so many.
    pub errors: Percent,
    /// Of all others.
    pub successes: Percent,
    /// The requests' fields that are written, too.
    pub headers: Vec<HeaderName>,
    /// Whether a path is written with its query, which may hold what is nobody else's business.
    pub query: bool,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// One object a line.
    Json,
    /// For people.
    Text,
}

impl AccessLog {
    /// Header fields that may be asked for, at most.
    pub const MAX_HEADERS: usize = 16;
}

/// All that did not end well, and 1 % of the rest.
impl Default for AccessLog {
    fn default() -> Self {
        let successes = Percent::per_million(Percent::OF / 100).expect("it is less than all");
        Self { format: LineFormat::Json, errors: Percent::ALL, successes, headers: Vec::new(), query: false }
    }
}

impl Faults {
    pub(super) fn access_log(&mut self, it: wire::AccessLog) -> AccessLog {
        use wire::access_log::Format;
        let format = match Format::try_from(it.format) {
            Ok(Format::Json) => LineFormat::Json,
            Ok(Format::Text) => LineFormat::Text,
            Err(_) => {
                self.say("access_log.format", format_args!("{} is not known to this version", it.format));
                LineFormat::Json
            }
        };
        let mut percent = |field: &str, number: u32| {
            Percent::per_million(number).unwrap_or_else(|| {
                self.say(field, format_args!("{number} is above {}", Percent::OF));
                Percent::ALL
            })
        };
        let errors = percent("access_log.errors_per_million", it.errors_per_million);
        let successes = percent("access_log.successes_per_million", it.successes_per_million);
        if it.headers.len() > AccessLog::MAX_HEADERS {
            self.say("access_log.headers", format_args!("more than {}", AccessLog::MAX_HEADERS));
        }
        let headers = (it.headers.iter().enumerate())
            .filter_map(|(i, name)| self.parse(&format!("access_log.headers[{i}]"), name))
            .collect();
        AccessLog { format, errors, successes, headers, query: it.query }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{MeshSettings, Refused};

    #[test]
    fn what_is_told_is_taken_and_every_fault_is_named() {
        let told = wire::AccessLog {
            format: 1,
            errors_per_million: 1_000_000,
            successes_per_million: 2_500,
            headers: vec!["User-Agent".into()],
            query: true,
        };
        let settings = |told| wire::MeshSettings { access_log: Some(told), ..Default::default() };
        let taken = MeshSettings::try_from(settings(told)).expect("valid settings").access_log;
        let taken = taken.expect("it is on");
        assert_eq!((taken.format, taken.errors, taken.query), (LineFormat::Text, Percent::ALL, true));
        assert_eq!(taken.successes.to_string(), "0.25");
        assert_eq!(taken.headers, ["user-agent"]);

        let told = wire::AccessLog {
            format: 9,
            errors_per_million: 1_000_001,
            successes_per_million: 1_000_001,
            headers: vec!["a b".into(); AccessLog::MAX_HEADERS + 1],
            query: false,
        };
        let Refused(faults) = MeshSettings::try_from(settings(told)).expect_err("nothing in it is valid");
        for start in ["format:", "errors_per_million:", "successes_per_million:", "headers:", "headers[0]:"] {
            let start = format!("access_log.{start}");
            assert!(faults.iter().any(|fault| fault.starts_with(&start)), "{start} in {faults:#?}");
        }
    }
}
