//! What the tests share: a mesh of real processes in a folder of its own, applications to put behind its sidecars, and
//! ways to wait for a thing itself, never for a time.

pub(crate) mod apps;
pub(crate) mod http2;
pub(crate) mod load;
pub(crate) mod mesh;
pub(crate) mod nameserver;
pub(crate) mod netns;
pub(crate) mod pair;
pub(crate) mod raw;
pub(crate) mod relay;
pub(crate) mod starved;

use std::time::{Duration, Instant};

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// How long a test waits for what must happen. Generous: only a failing test waits that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Polls until `probe` gives something; fails the test, saying what was awaited, when it never does.
pub(crate) async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The result of `work`; fails the test, saying what hung, when it takes too long.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, Box::pin(work)).await {
        Ok(result) => result,
        Err(_) => panic!("not within {} s: {what}", PATIENCE.as_secs()),
    }
}

/// The value at which a counter has stood still for a second.
pub(crate) async fn stalled(counter: impl Fn() -> u64) -> u64 {
    let mut last = counter();
    let mut still = 0;
    while still < 10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = counter();
        still = if now == last { still + 1 } else { 0 };
        last = now;
    }
    last
}

/// Resident memory of a sidecar, bytes.
pub(crate) fn resident(sidecar: &mesh::Sidecar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", sidecar.process.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says so");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Who may run beside whom.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// A share of the machine, with others.
pub(crate) type Shared = RwLockReadGuard<'static, ()>;

/// Waits while somebody has the machine for himself.
pub(crate) async fn shared() -> Shared {
    MACHINE.read().await
}

/// The machine for one test that judges rates and counts; another's load would decide them.
pub(crate) async fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().await
}
