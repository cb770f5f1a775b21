//! How both programs declare their metrics: every name once, with what it is, its labels and what it means.

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

impl Kind {
    /// As Prometheus calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// All that is declared of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Declared {
    /// As Prometheus knows it.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// In the order in which values are given.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// Units as Prometheus would have them, at the end of a name; what has none counts something.
const UNITS: [(&str, &str); 4] = [
    ("_timestamp_seconds", "seconds since the Unix epoch"),
    ("_start_time_seconds", "seconds since the Unix epoch"),
    ("_seconds", "seconds"),
    ("_bytes", "bytes"),
];

impl Declared {
    /// Its unit; empty: it counts, or says a state.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        UNITS.iter().find(|(end, _)| name.ends_with(end)).map_or("", |(_, unit)| unit)
    }

    /// One that has no labels, in Prometheus' text format: for counts with a fraction, which the exporter cannot have.
    #[must_use]
    pub fn sample(&self, value: f64) -> String {
        let Self { name, kind, help, .. } = self;
        format!("# HELP {name} {help}\n# TYPE {name} {}\n{name} {value}\n\n", kind.as_str())
    }
}

/// An enum of metrics: `Variant = "name", Kind, ["label", …], "What it means.";`.
#[macro_export]
macro_rules! metrics {
    ($(#[$doc:meta])* pub enum $enum:ident; $($variant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)+) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $enum {
            $(#[doc = $help] $variant,)+
        }

        impl $enum {
            /// Every metric.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// All that is declared of it.
            pub fn declared(self) -> $crate::metric::Declared {
                match self {
                    $(Self::$variant => $crate::metric::Declared {
                        name: $name,
                        kind: $crate::metric::Kind::$kind,
                        labels: &[$($label),*],
                        help: $help,
                    },)+
                }
            }

            /// As Prometheus knows it.
            pub fn name(self) -> &'static str {
                self.declared().name
            }

            /// What it means.
            pub fn help(self) -> &'static str {
                self.declared().help
            }

            /// Counter, gauge or histogram.
            pub fn kind(self) -> $crate::metric::Kind {
                self.declared().kind
            }

            /// Its labels, in order.
            pub fn labels(self) -> &'static [&'static str] {
                self.declared().labels
            }
        }
    };
}

/// Panics where declarations are not as Prometheus and our own habits want them: for the tests of those who declare.
pub fn check(all: impl Iterator<Item = Declared>) {
    let mut seen = std::collections::HashSet::new();
    for metric in all {
        let name = metric.name;
        assert!(seen.insert(name), "{name} twice");
        assert!(name.starts_with("pillion_") || name.starts_with("process_"), "{name}");
        assert_eq!(metric.kind == Kind::Counter, name.ends_with("_total"), "{name}");
        assert!(metric.kind != Kind::Histogram || !metric.unit().is_empty(), "{name} has no unit");
        assert!(metric.help.ends_with('.'), "{name}");
    }
}

/// What the system says of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Memory that is resident, bytes.
    pub resident: Option<u64>,
    /// User and system time, seconds.
    pub cpu: Option<f64>,
}

impl Usage {
    /// From `/proc`, where it is there (proc(5)).
    #[must_use]
    pub fn of_this_process() -> Self {
        let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
        Self::parse(&read("/proc/self/statm"), &read("/proc/self/stat"))
    }

    fn parse(statm: &str, stat: &str) -> Self {
        const PAGE: u64 = 4096;
        const TICKS: f64 = 100.0;
        let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
        // The name before it may hold anything, but ends with the last parenthesis.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok());
        let spent = ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) as f64 / TICKS);
        Self { resident: pages.map(|pages| pages * PAGE), cpu: spent }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_told_by_names() {
        let unit = |name| Declared { name, kind: Kind::Gauge, labels: &[], help: "" }.unit();
        for (name, expected) in [
            ("pillion_request_duration_seconds", "seconds"),
            ("process_cpu_seconds_total", "seconds"),
            ("pillion_opaque_bytes_total", "bytes"),
            ("process_start_time_seconds", "seconds since the Unix epoch"),
            ("pillion_certificate_expiry_timestamp_seconds", "seconds since the Unix epoch"),
            ("pillion_requests_total", ""),
        ] {
            assert_eq!(unit(name), expected, "{name}");
        }
    }

    #[test]
    fn what_the_system_says_is_understood() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 0 0 0 250 125 0 0 20 0 1 0 99 1 2";
        let usage = Usage::parse("100 25 5 1 0 9 0", stat);
        assert_eq!(usage, Usage { resident: Some(25 * 4096), cpu: Some(3.75) });
        assert_eq!(Usage::parse("", ""), Usage::default());
    }
}
