//! Processes that the demo starts: each in its own process group, logging to its own file, ended by its number.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;
use tokio::time::Instant;

use super::guard::Guard;

/// A process could not be started, or did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The program is missing, or the like.
    #[error("cannot start {name} ({program}): {source}", program = program.display())]
    Start {
        /// What we call it.
        name: String,
        /// The program's file.
        program: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It ended although it should run on.
    #[error("{name} ended with {status}; its last words:\n{log}")]
    Ended {
        /// What we call it.
        name: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// What it should have made was not there in time.
    #[error("{name} did not {what} within {seconds} s; its last words:\n{log}", seconds = waited.as_secs_f32())]
    Late {
        /// What we call it.
        name: String,
        /// What it should have done.
        what: String,
        /// How long we waited.
        waited: Duration,
        /// The end of its log.
        log: String,
    },
}

/// One running process. Dropping it kills it and everything in its group.
pub struct Child {
    name: String,
    pid: u32,
    process: tokio::process::Child,
    log: PathBuf,
    guard: Guard,
    ended: Option<ExitStatus>,
}

/// What to start.
pub struct Spec {
    /// What we call it; also the name of its log file.
    pub name: String,
    /// The program's file.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its environment beyond ours.
    pub environment: Vec<(String, OsString)>,
}

impl Child {
    /// Starts `spec` with its output going to `<folder>/<name>.log`.
    pub fn start(spec: Spec, folder: &Path, guard: &Guard) -> Result<Self, ChildError> {
        let Spec { name, program, arguments, environment } = spec;
        let log = folder.join(format!("{name}.log"));
        let failed = |source| ChildError::Start { name: name.clone(), program: program.clone(), source };
        // Appending, so that a process that is started again under its name keeps the story.
        let output = std::fs::OpenOptions::new().create(true).append(true).open(&log).map_err(failed)?;
        let process = Command::new(&program)
            .args(arguments)
            .envs(environment)
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(failed)?)
            .stderr(output)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let pid = process.id().expect("it was not waited for yet");
        guard.watch(pid);
        Ok(Self { name, pid, process, log, guard: guard.clone(), ended: None })
    }

    /// What we call it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none()
            && let Ok(Some(status)) = self.process.try_wait()
        {
            self.note_end(status);
        }
        self.ended
    }

    /// Asks for an orderly end (SIGTERM), insists (SIGKILL) after `patience`, and waits until it is gone.
    pub async fn stop(&mut self, patience: Duration) -> Option<ExitStatus> {
        self.signal(Signal::TERM);
        self.wait(patience).await
    }

    /// Ends it as a crash would (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) -> Option<ExitStatus> {
        self.signal(Signal::KILL);
        self.wait(Duration::from_secs(5)).await
    }

    /// Sends SIGTERM and returns at once.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Waits for its end; kills it after `patience`.
    pub async fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        if self.ended().is_some() {
            return self.ended;
        }
        let status = match tokio::time::timeout(patience, self.process.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.signal(Signal::KILL);
                self.process.wait().await
            }
        };
        if let Ok(status) = status {
            self.note_end(status);
        }
        self.ended
    }

    /// Polls `probe` until it gives something; fails when the process ends or `patience` does.
    pub async fn until<T>(
        &mut self,
        what: &str,
        patience: Duration,
        mut probe: impl AsyncFnMut() -> Option<T>,
    ) -> Result<T, ChildError> {
        let start = Instant::now();
        loop {
            if let Some(found) = probe().await {
                return Ok(found);
            }
            if let Some(status) = self.ended() {
                return Err(ChildError::Ended { name: self.name.clone(), status, log: self.last_words() });
            }
            if start.elapsed() > patience {
                return Err(ChildError::Late {
                    name: self.name.clone(),
                    what: what.into(),
                    waited: patience,
                    log: self.last_words(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for a JSON document in a file that the process writes in one go.
    pub async fn until_file<T: serde::de::DeserializeOwned>(
        &mut self,
        file: &Path,
        patience: Duration,
    ) -> Result<T, ChildError> {
        let what = format!("write {}", file.display());
        self.until(&what, patience, async || serde_json::from_slice(&std::fs::read(file).ok()?).ok()).await
    }

    /// Everything it has written.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The end of what it has written.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Only while it has not been waited for: afterwards its number may be somebody else's.
    fn signal(&mut self, signal: Signal) {
        if self.ended().is_none()
            && let Some(pid) = Pid::from_raw(self.pid.cast_signed())
        {
            let _ = kill_process_group(pid, signal);
        }
    }

    fn note_end(&mut self, status: ExitStatus) {
        self.ended = Some(status);
        self.guard.forget(self.pid);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended().is_none() {
            self.signal(Signal::KILL);
            self.guard.forget(self.pid);
        }
    }
}
