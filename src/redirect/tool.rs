//! Runs the system's programs that load rules: with a deadline, and with their own words in what went wrong.

use std::{fmt, io, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command};

/// For one run. They take milliseconds, but may wait for each other's lock.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Where they are when the search path does not have them, as for users who are not root.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// Why a program did not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not installed.
    Missing(String),
    /// It ran and failed, or could not be run: which, and its own words.
    Failed(String, String),
}

impl Fault {
    /// It is not installed.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Missing(_))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(program) => write!(f, "{program} is not installed"),
            Self::Failed(program, words) => write!(f, "{program}: {words}"),
        }
    }
}

/// Runs `line`, a program and its arguments, with `input`; gives what it prints.
pub(super) async fn run(line: &[&str], input: &str) -> Result<String, Fault> {
    let (program, arguments) = line.split_first().expect("a command line names a program");
    let shown = line.join(" ");
    let failed = |words: String| Fault::Failed(shown.clone(), words);
    let places = SYSTEM.map(|folder| format!("{folder}/{program}"));
    for place in std::iter::once(*program).chain(places.iter().map(String::as_str)) {
        let spawned = Command::new(place)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error.to_string())),
            Ok(child) => child,
        };
        let mut stdin = child.stdin.take().expect("it is piped");
        let written = async {
            // A program that does not read all of it says why itself.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
        };
        let ended = async { tokio::join!(written, child.wait_with_output()).1 };
        let output = match tokio::time::timeout(TIMEOUT, ended).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(failed(error.to_string())),
            Err(_) => return Err(failed(format!("has not ended within {TIMEOUT:?}"))),
        };
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let words = String::from_utf8_lossy(&output.stderr);
        let words: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        return Err(failed(format!("{}: {}", output.status, words.join(" | "))));
    }
    Err(Fault::Missing((*program).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_programs_say_is_passed_on() {
        assert_eq!(run(&["cat"], "text").await, Ok("text".into()));
        let failed = run(&["sh", "-c", "echo no >&2; exit 3"], "").await.expect_err("it fails").to_string();
        assert!(failed.contains("exit status: 3: no"), "{failed}");
        let missing = run(&["pillion-no-such-program"], "").await.expect_err("it is missing");
        assert!(missing.is_missing());
    }

    #[tokio::test(start_paused = true)]
    async fn a_program_that_hangs_is_given_up() {
        let failed = run(&["sleep", "1000"], "").await.expect_err("it hangs").to_string();
        assert!(failed.contains("has not ended"), "{failed}");
    }
}
