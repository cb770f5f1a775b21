//! `pillion demo-guard`: a process that outlives a killed demo just long enough to end what the demo had started.
//!
//! A parent that is killed with SIGKILL cannot clean up, and "die with my parent" signals exist on Linux only and follow
//! the parent's *thread*. A pipe does it everywhere: the guard reads lines from its standard input and acts when the
//! pipe closes.

use std::collections::BTreeSet;
use std::io::{BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process_group};

use super::network;

/// The hidden subcommand that runs [`watch`].
pub const SUBCOMMAND: &str = "demo-guard";

/// What the guard is told, one line each.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Order {
    /// This process group is to be ended if the pipe closes.
    Watch(i32),
    /// It has ended already; its number may be somebody else's from now on.
    Forget(i32),
    /// This folder is to be removed if the pipe closes.
    Remove(PathBuf),
    /// …or is to be kept.
    Keep,
    /// This network namespace is to be removed if the pipe closes.
    Namespace(String),
    /// It has been removed already.
    ForgetNamespace(String),
}

impl Order {
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            Some(("watch", pid)) => pid.parse().ok().map(Self::Watch),
            Some(("forget", pid)) => pid.parse().ok().map(Self::Forget),
            Some(("remove", folder)) => Some(Self::Remove(folder.into())),
            Some(("namespace", name)) => Some(Self::Namespace(name.into())),
            Some(("forget-namespace", name)) => Some(Self::ForgetNamespace(name.into())),
            None if line == "keep" => Some(Self::Keep),
            _ => None,
        }
    }

    fn to_line(&self) -> String {
        match self {
            Self::Watch(pid) => format!("watch {pid}\n"),
            Self::Forget(pid) => format!("forget {pid}\n"),
            Self::Remove(folder) => format!("remove {}\n", folder.display()),
            Self::Keep => "keep\n".into(),
            Self::Namespace(name) => format!("namespace {name}\n"),
            Self::ForgetNamespace(name) => format!("forget-namespace {name}\n"),
        }
    }
}

/// Reads orders until the pipe closes, then ends every process group still watched and removes folder and namespaces.
pub fn watch(orders: impl BufRead) {
    let mut groups = BTreeSet::new();
    let mut namespaces = BTreeSet::new();
    let mut folder = None;
    for line in orders.lines().map_while(Result::ok) {
        match Order::parse(&line) {
            Some(Order::Watch(pid)) => {
                groups.insert(pid);
            }
            Some(Order::Forget(pid)) => {
                groups.remove(&pid);
            }
            Some(Order::Remove(path)) => folder = Some(path),
            Some(Order::Keep) => folder = None,
            Some(Order::Namespace(name)) => {
                namespaces.insert(name);
            }
            Some(Order::ForgetNamespace(name)) => {
                namespaces.remove(&name);
            }
            None => {}
        }
    }
    for pid in groups.into_iter().filter_map(Pid::from_raw) {
        // It may be gone already, which is what is wanted.
        let _ = kill_process_group(pid, Signal::KILL);
    }
    for name in &namespaces {
        network::remove(name);
    }
    if let Some(folder) = folder {
        remove(&folder);
    }
}

/// Whoever was just killed may have written into it to the last: it is tried until it is gone, for two seconds at most.
#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells when a process that is not ours to wait for is gone"
)]
fn remove(folder: &Path) {
    for _ in 0..100 {
        match std::fs::remove_dir_all(folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            _ => return,
        }
    }
}

/// The demo's side of the pipe. Clones share one guard process, which ends when the last clone is dropped.
#[derive(Clone)]
pub struct Guard(Arc<GuardProcess>);

struct GuardProcess {
    orders: Mutex<Option<ChildStdin>>,
    process: Mutex<Child>,
}

impl Guard {
    /// Starts `<pillion> demo-guard`.
    pub fn start(pillion: &Path) -> std::io::Result<Self> {
        let mut process = Command::new(pillion)
            .arg(SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Its own group: Ctrl-C in the terminal is for the demo, not for its guard.
            .process_group(0)
            .spawn()?;
        let orders = process.stdin.take();
        Ok(Self(Arc::new(GuardProcess { orders: Mutex::new(orders), process: Mutex::new(process) })))
    }

    /// From now on this process group ends with us.
    pub fn watch(&self, pid: u32) {
        self.tell(&Order::Watch(pid.cast_signed()));
    }

    /// The process group has ended and been waited for.
    pub fn forget(&self, pid: u32) {
        self.tell(&Order::Forget(pid.cast_signed()));
    }

    /// From now on this folder goes with us.
    pub fn remove_folder(&self, folder: &Path) {
        self.tell(&Order::Remove(folder.to_owned()));
    }

    /// The folder stays after all.
    pub fn keep_folder(&self) {
        self.tell(&Order::Keep);
    }

    /// From now on this network namespace goes with us.
    pub fn remove_namespace(&self, name: &str) {
        self.tell(&Order::Namespace(name.into()));
    }

    /// The network namespace has been removed.
    pub fn forget_namespace(&self, name: &str) {
        self.tell(&Order::ForgetNamespace(name.into()));
    }

    fn tell(&self, order: &Order) {
        let mut orders = self.0.orders.lock().expect("no panic while telling the guard");
        if let Some(pipe) = orders.as_mut() {
            // A guard that was itself killed costs only the clean-up after another kill.
            let _ = pipe.write_all(order.to_line().as_bytes());
        }
    }
}

impl Drop for GuardProcess {
    fn drop(&mut self) {
        if let Ok(mut orders) = self.orders.lock() {
            orders.take();
        }
        if let Ok(mut process) = self.process.lock() {
            let _ = process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_survive_the_pipe() {
        let orders = [
            Order::Watch(12),
            Order::Forget(12),
            Order::Remove("/tmp/with space".into()),
            Order::Keep,
            Order::Namespace("pillion-1-2-web".into()),
            Order::ForgetNamespace("pillion-1-2-web".into()),
        ];
        for order in orders {
            assert_eq!(Order::parse(order.to_line().trim_end()), Some(order));
        }
        assert_eq!(Order::parse("watch everything"), None);
    }

    #[test]
    fn a_closed_pipe_ends_what_is_watched_and_spares_what_is_forgotten() {
        let start = || Command::new("sleep").arg("60").process_group(0).spawn().expect("sleep is everywhere");
        let (mut watched, mut forgotten) = (start(), start());
        let folder = tempfile::tempdir().expect("a temporary folder").keep();
        let orders = [
            Order::Watch(watched.id().cast_signed()),
            Order::Watch(forgotten.id().cast_signed()),
            Order::Forget(forgotten.id().cast_signed()),
            Order::Remove(folder.clone()),
        ];
        let text: String = orders.iter().map(Order::to_line).collect();

        watch(text.as_bytes());

        assert!(!watched.wait().expect("it is our child").success());
        assert!(forgotten.try_wait().expect("it is our child").is_none());
        assert!(!folder.exists());
        forgotten.kill().expect("it is our child");
        forgotten.wait().expect("it is our child");
    }
}
