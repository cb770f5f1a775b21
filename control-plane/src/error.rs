//! Why the server cannot start or go on, and whose it is to mend.

use std::fmt;

/// Any error's cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What ends the server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operator's settings: every fault, not only the first.
    #[error("{}", list(.0))]
    Settings(Vec<SettingFault>),
    /// The machine or a file: what was being done, and what came in its way.
    #[error("cannot {what}: {cause}")]
    Failed {
        /// Completes the sentence "cannot …".
        what: String,
        /// What came in its way.
        cause: Cause,
    },
}

impl Error {
    /// An error while doing `what`, which completes the sentence "cannot …".
    pub fn failed(what: impl Into<String>, cause: impl Into<Cause>) -> Self {
        Self::Failed { what: what.into(), cause: cause.into() }
    }
}

/// One fault in the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingFault {
    /// The setting, as it is written in a configuration file.
    pub setting: String,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl fmt::Display for SettingFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.message)
    }
}

fn list(faults: &[SettingFault]) -> String {
    faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
