//! What a check says: one thing each, of how much weight, and what to do about it.

use serde::Serialize;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// As it should be.
    Ok,
    /// Nothing fails for it yet.
    Warning,
    /// Something does not work as somebody wants it.
    Error,
    /// The mesh does not work, or will not tomorrow.
    Critical,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

/// What is looked at, in the order in which it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Topic {
    Installation,
    Versions,
    Certificates,
    Clocks,
    Configuration,
    Faults,
    Sidecars,
    Redirection,
    Telemetry,
    Unmeshed,
}

impl Topic {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Installation => "installation",
            Self::Versions => "versions",
            Self::Certificates => "certificates",
            Self::Clocks => "clocks",
            Self::Configuration => "configuration",
            Self::Faults => "faults",
            Self::Sidecars => "sidecars",
            Self::Redirection => "redirection",
            Self::Telemetry => "telemetry",
            Self::Unmeshed => "unmeshed",
        }
    }
}

/// One thing that a check has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub topic: Topic,
    pub severity: Severity,
    /// In plain words.
    pub text: String,
    /// What to do about it; empty where all is well.
    pub cure: String,
}

/// The worst of them.
pub(super) fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().unwrap_or(Severity::Ok)
}

/// What is found so far.
#[derive(Default)]
pub(super) struct Found(Vec<Finding>);

impl Found {
    pub(super) fn add(
        &mut self,
        topic: Topic,
        severity: Severity,
        text: impl Into<String>,
        cure: impl Into<String>,
    ) {
        self.0.push(Finding { topic, severity, text: text.into(), cure: cure.into() });
    }

    /// Where nothing is wrong, that is said.
    pub(super) fn unless(&mut self, topic: Topic, well: impl Into<String>) {
        if !self.0.iter().any(|finding| finding.topic == topic) {
            self.add(topic, Severity::Ok, well, "");
        }
    }

    /// By topic, the worst first.
    pub(super) fn sorted(mut self) -> Vec<Finding> {
        self.0.sort_by_key(|finding| (finding.topic, std::cmp::Reverse(finding.severity)));
        self.0
    }
}
