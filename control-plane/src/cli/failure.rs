//! Why a command did not do what it was asked, and the exit code that says so to scripts.

use std::{fmt, io, process::ExitCode};

use super::words::counted;
use crate::web::Problem;

/// Shown by `--help`.
pub(super) const EXIT_CODES: &str = "Exit codes: 0 done · 1 refused or failed, nothing was changed unless said · 2 wrong usage · 3, 4, 5 what \
                                     a check found (see check --help) · 69 the \
                                     server cannot be reached · 78 wrong settings";

/// The exit codes, all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is well.
    Done = 0,
    /// The server, or what was to be sent, says no.
    Refused = 1,
    /// The command line is wrong, or names a file that cannot be read.
    Usage = 2,
    /// A check has found nothing worse than warnings.
    Warnings = 3,
    /// A check has found errors.
    Errors = 4,
    /// A check has found that the mesh does not work, or will not tomorrow.
    Critical = 5,
    /// sysexits' `EX_UNAVAILABLE`.
    Unreachable = 69,
    /// sysexits' `EX_CONFIG`.
    Settings = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub enum Failure {
    /// The server said no.
    Refused(Box<Problem>),
    /// What was to be sent is wrong; nothing was sent, or nothing was changed. One line for each fault.
    Faults(Vec<String>),
    /// The command line.
    Usage(String),
    /// No answer.
    Unreachable {
        /// Which server.
        server: String,
        /// What happened instead.
        cause: String,
    },
    /// A check's findings, which are told already.
    Found(Exit),
    /// The server's settings.
    Settings(String),
    /// This machine.
    Local(String),
    /// Standard output.
    Output(io::Error),
}

impl Failure {
    /// What scripts are told.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused(_) | Self::Faults(_) | Self::Local(_) | Self::Output(_) => Exit::Refused,
            Self::Usage(_) => Exit::Usage,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Found(exit) => *exit,
            Self::Settings(_) => Exit::Settings,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(problem) => {
                write!(formatter, "{}", problem.title)?;
                if !problem.detail.is_empty() {
                    write!(formatter, ": {}", problem.detail)?;
                }
                for fault in &problem.faults {
                    write!(formatter, "\n  {fault}")?;
                }
                if let Some(hint) = hint(problem) {
                    write!(formatter, "\n{hint}")?;
                }
                Ok(())
            }
            Self::Faults(lines) => {
                write!(formatter, "{}; nothing was changed", counted(lines.len(), "fault"))?;
                lines.iter().try_for_each(|line| write!(formatter, "\n  {line}"))
            }
            Self::Unreachable { server, cause } => write!(
                formatter,
                "cannot reach {server}: {cause}\nis it running (pillion server), and is --server or PILLION_SERVER right?"
            ),
            Self::Found(_) => formatter.write_str("the check found something"),
            Self::Output(error) => write!(formatter, "cannot write the result: {error}"),
            Self::Usage(message) | Self::Settings(message) | Self::Local(message) => {
                formatter.write_str(message)
            }
        }
    }
}

/// What to do about it, where that is known.
fn hint(problem: &Problem) -> Option<&'static str> {
    match problem.kind.rsplit(':').next()? {
        "token-missing" | "token-malformed" | "token-unknown" | "token-expired" | "token-revoked" => Some(
            "give a token by --token, --token-file or PILLION_TOKEN; the server's first is admin.token in its data directory",
        ),
        _ => None,
    }
}
