//! The demo, as a newcomer runs it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use pillion::demo::guard::Guard;
use pillion::demo::network::{Hub, Network, Place};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::mesh::pillion;
use crate::support::{alone, eventually};

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(pillion());
    command.arg("demo").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

#[tokio::test]
async fn does_what_it_claims() {
    let _alone = alone().await;
    println!("{}", claims_that_hold(demo(&["--check"]).spawn().expect("it starts")).await);
}

#[tokio::test]
async fn does_what_it_claims_in_network_namespaces() {
    let _alone = alone().await;
    let host = Host::new();
    println!("{}", claims_that_hold(host.spawn(demo(&["--netns", "--check"]))).await);
}

/// The table of a demo that ends well.
async fn claims_that_hold(demo: Child) -> String {
    let run = tokio::time::timeout(Duration::from_secs(120), demo.wait_with_output());
    let output = run.await.expect("it ends").expect("it is our child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().filter(|line| line.ends_with("  yes")).count(), 10, "{text}");
    text.into_owned()
}

/// What a demo in namespaces takes for the host: a namespace itself, so that nothing of ours is touched.
struct Host {
    place: Place,
    _network: Network,
}

impl Host {
    fn new() -> Self {
        let guard = Guard::start(&pillion()).expect("`pillion demo-guard` starts");
        let network = Network::start(Hub::Bridge, &guard).unwrap_or_else(|error| panic!("{error}"));
        let place = network.place("host").unwrap_or_else(|error| panic!("{error}"));
        Self { place, _network: network }
    }

    fn spawn(&self, mut command: Command) -> Child {
        let runtime = tokio::runtime::Handle::current();
        let spawned = self.place.inside(|| {
            let _entered = runtime.enter();
            command.spawn()
        });
        spawned.expect("the place is there").expect("it starts")
    }
}

#[tokio::test]
async fn leaves_nobody_behind_even_when_killed() {
    let _alone = alone().await;
    for signal in [Signal::INT, Signal::KILL] {
        leaves_nobody(demo(&["--dashboard-port", "0"]).spawn().expect("it starts"), signal).await;
    }
}

#[tokio::test]
async fn leaves_no_network_namespace_behind_even_when_killed() {
    let _alone = alone().await;
    for signal in [Signal::INT, Signal::KILL] {
        let host = Host::new();
        let process = host.spawn(demo(&["--netns", "--dashboard-port", "0"]));
        let names = format!("pillion-{}-", process.id().expect("it runs"));
        leaves_nobody(process, signal).await;
        eventually("its namespaces and their files are gone", async || {
            let left =
                ["/run/netns", "/etc/netns"].into_iter().filter_map(|folder| std::fs::read_dir(folder).ok());
            let mut left = left.flatten().flatten().map(|entry| entry.file_name());
            (!left.any(|name| name.to_string_lossy().starts_with(&names))).then_some(())
        })
        .await;
    }
}

async fn leaves_nobody(mut process: Child, signal: Signal) {
    let mut lines = BufReader::new(process.stdout.take().expect("it is piped")).lines();
    let dashboard = tokio::time::timeout(Duration::from_secs(60), async {
        let mut said = Vec::new();
        while let Some(line) = lines.next_line().await.expect("text") {
            if let Some((_, address)) = line.split_once("The dashboard: ") {
                return address.to_owned();
            }
            said.push(line);
        }
        panic!("it ended before it was up:\n{}", said.join("\n"));
    });
    let dashboard = dashboard.await.expect("it comes up");
    assert!(dashboard.starts_with("http://127.0.0.1:"), "{dashboard}");

    let pid = process.id().expect("it runs").cast_signed();
    let family = descendants(pid);
    // A guard, a control plane, seven applications and eight sidecars.
    assert_eq!(family.len(), 17, "{family:?}");
    let folders = data_folders(&family);
    assert_eq!(folders.len(), 1, "{folders:?}");
    for folder in &folders {
        let tokens = tokens(folder);
        assert!(tokens.len() >= 8 && tokens.iter().all(|token| mode(token) == 0o600), "{tokens:?}");
        // Others may go through at most, where the sidecars are another user's.
        assert_eq!(mode(folder) & 0o066, 0, "{folder:?}");
    }
    // Read on, as a terminal would.
    let reader = tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    kill_process(Pid::from_raw(pid).expect("a valid number"), signal).expect("it runs");
    let status = process.wait().await.expect("it is our child");
    assert_eq!(status.success(), signal == Signal::INT, "{status}");
    eventually(&format!("after {signal:?} nobody is left of {family:?}"), async || {
        (!family.iter().copied().any(runs)).then_some(())
    })
    .await;
    eventually("its temporary data is gone", async || folders.iter().all(|f| !f.exists()).then_some(()))
        .await;
    reader.await.expect("no panic");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

/// The files of tokens in a folder and in those in it.
fn tokens(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("it is there").flatten().map(|entry| entry.path());
    let of = |path: PathBuf| match path.extension() {
        Some(extension) if extension == "token" => vec![path],
        _ if path.is_dir() => tokens(&path),
        _ => Vec::new(),
    };
    entries.flat_map(of).collect()
}

/// One that has ended and is not waited for yet does not run: whoever adopts an orphan may take its time.
fn runs(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Children, their children, and so on.
fn descendants(of: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut parents = vec![of];
    while let Some(parent) = parents.pop() {
        let children = std::fs::read_dir(format!("/proc/{parent}/task"))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        for text in children.collect::<Vec<_>>() {
            for child in text.split_whitespace().filter_map(|pid| pid.parse().ok()) {
                if found.insert(child) {
                    parents.push(child);
                }
            }
        }
    }
    found
}

/// The demo's temporary folder, as its children were told it.
fn data_folders(family: &BTreeSet<i32>) -> BTreeSet<std::path::PathBuf> {
    let lines = family.iter().filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok());
    lines
        .flat_map(|line| line.split('\0').map(std::path::PathBuf::from).collect::<Vec<_>>())
        .filter_map(|argument| {
            let parts: Vec<_> = argument.iter().collect();
            let at = parts.iter().position(|part| part.to_string_lossy().starts_with("pillion-demo-"))?;
            Some(parts[..=at].iter().collect())
        })
        .collect()
}
