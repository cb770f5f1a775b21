//! A process that is short of CPU, as in a pod whose limit its neighbour uses up.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pillion::demo::children::Child;
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::AbortHandle;

use super::mesh::{Mesh, Sidecar};

/// Of each so long…
const PERIOD: Duration = Duration::from_millis(200);
/// …the group has a processor for so long.
const QUOTA: Duration = Duration::from_millis(20);
/// Groups are named so, with our process id behind.
const PREFIX: &str = "pillion-starved-";

/// A sidecar is short of CPU until this is dropped.
pub(crate) enum Starved {
    /// By the kernel, in a control group with a process that takes all it can get.
    Limited { group: Group, neighbour: Box<Child> },
    /// Stopped and continued in turn, where no control group can be had: we are not root, or in a container that has none to give.
    Stopped { pid: Pid, turns: AbortHandle },
}

impl Starved {
    pub(crate) fn start(mesh: &Mesh, sidecar: &Sidecar) -> Self {
        let pid = sidecar.process.pid();
        if let Ok(group) = Group::new() {
            let command = ["-c", "while :; do :; done"].map(OsString::from);
            let neighbour = mesh.child("neighbour", "/bin/sh".into(), command.into());
            let joined = [neighbour.pid(), pid].into_iter().try_for_each(|pid| group.take_in(pid));
            if joined.is_ok() {
                return Self::Limited { group, neighbour: Box::new(neighbour) };
            }
        }
        let pid = Pid::from_raw(pid.cast_signed()).expect("a process has a number");
        let turns = tokio::spawn(async move {
            while kill_process(pid, Signal::STOP).is_ok() {
                tokio::time::sleep(PERIOD - QUOTA).await;
                let _ = kill_process(pid, Signal::CONT);
                tokio::time::sleep(QUOTA).await;
            }
        });
        Self::Stopped { pid, turns: turns.abort_handle() }
    }

    /// For whoever reads what was measured.
    pub(crate) fn how(&self) -> String {
        match self {
            Self::Limited { group, neighbour } => {
                format!(
                    "{QUOTA:?} of each {PERIOD:?}, with {} in {}",
                    neighbour.name(),
                    group.folder.display()
                )
            }
            Self::Stopped { .. } => {
                format!("stopped but for {QUOTA:?} of each {PERIOD:?}: no control group can be had")
            }
        }
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        // In a control group there is nothing to do: the group lets the sidecar go when it is dropped.
        if let Self::Stopped { pid, turns } = self {
            turns.abort();
            let _ = kill_process(*pid, Signal::CONT);
        }
    }
}

/// A control group of ours, gone when dropped.
pub(crate) struct Group {
    parent: PathBuf,
    folder: PathBuf,
}

impl Group {
    fn new() -> io::Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let (period, quota) = (PERIOD.as_micros(), QUOTA.as_micros());
        // Version 2 first; a machine with both has its controllers in the other.
        let controllers = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
        if controllers.split_whitespace().any(|controller| controller == "cpu") {
            let group = Self::below(root)?;
            group.set("cpu.max", &format!("{quota} {period}"))?;
            return Ok(group);
        }
        let group = Self::below(&root.join("cpu"))?;
        group.set("cpu.cfs_period_us", &period.to_string())?;
        group.set("cpu.cfs_quota_us", &quota.to_string())?;
        Ok(group)
    }

    fn below(parent: &Path) -> io::Result<Self> {
        // What a test that was killed has left. Those of others have processes in them, and so stay.
        for entry in fs::read_dir(parent)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let _ = fs::remove_dir(entry.path());
            }
        }
        let folder = parent.join(format!("{PREFIX}{}", std::process::id()));
        fs::create_dir(&folder)?;
        Ok(Self { parent: parent.to_owned(), folder })
    }

    fn take_in(&self, pid: u32) -> io::Result<()> {
        self.set("cgroup.procs", &pid.to_string())
    }

    fn set(&self, file: &str, value: &str) -> io::Result<()> {
        fs::write(self.folder.join(file), value)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let members = fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            let _ = fs::write(self.parent.join("cgroup.procs"), pid);
        }
        // Where it still has somebody, it is left to the next test that makes one.
        let _ = fs::remove_dir(&self.folder);
    }
}
