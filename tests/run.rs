//! `pillion-proxy run -- CMD`: to whoever starts it, it is the application; to the mesh, one that leaves in good order.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use pillion::demo::sidecar::Addresses;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use crate::support::apps::{HttpApp, Version};
use crate::support::mesh::{Mesh, SidecarSpec, pillion_proxy};
use crate::support::{eventually, raw, soon};

/// A sidecar with an application, and without a control plane: it does not wait for one.
struct Wrapped {
    process: Child,
    folder: tempfile::TempDir,
}

/// What it left.
struct Left {
    code: Option<i32>,
    output: String,
    log: String,
}

/// The command line up to the application's.
fn command(folder: &Path, settings: &[&str]) -> Command {
    let mut command = Command::new(pillion_proxy());
    command.args(["run", "--control-plane", "127.0.0.1:1", "--workload", "app-1"]);
    for name in ["PILLION_INBOUND_LISTEN", "PILLION_OUTBOUND_LISTEN", "PILLION_ADMIN_LISTEN"] {
        command.env(name, "127.0.0.1:0");
    }
    command.arg("--addresses-file").arg(folder.join("addresses.json"));
    command.args(settings).env("PILLION_JOIN_TOKEN", "secret");
    for name in ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    command
}

impl Wrapped {
    fn start(settings: &[&str], application: &[&str]) -> Self {
        Self::start_with(settings, application, |command| command)
    }

    fn start_with(
        settings: &[&str],
        application: &[&str],
        further: impl FnOnce(&mut Command) -> &mut Command,
    ) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut command = command(folder.path(), settings);
        command.arg("--").args(application).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = further(&mut command).spawn().expect("the sidecar starts");
        Self { process, folder }
    }

    /// A shell script as the application.
    fn script(settings: &[&str], script: &str) -> Self {
        Self::start(settings, &["sh", "-c", script])
    }

    fn pid(&self) -> Pid {
        let pid = self.process.id().expect("it was not waited for yet");
        Pid::from_raw(pid.cast_signed()).expect("a process has a number")
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is our child");
    }

    /// The next line that the application says.
    async fn line(&mut self) -> String {
        let output = self.process.stdout.as_mut().expect("it is piped");
        let mut line = Vec::new();
        let reading = async {
            while !line.ends_with(b"\n") {
                line.push(output.read_u8().await.expect("more output"));
            }
        };
        soon("a line of the application", reading).await;
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    async fn addresses(&self) -> Addresses {
        let file = self.folder.path().join("addresses.json");
        eventually("the sidecar listens", async || serde_json::from_slice(&std::fs::read(&file).ok()?).ok())
            .await
    }

    async fn end(self) -> Left {
        let output = soon("the end of the application", self.process.wait_with_output()).await;
        let output = output.expect("it was started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Left { code: output.status.code(), output: text(&output.stdout), log: text(&output.stderr) }
    }
}

#[tokio::test]
async fn to_whoever_starts_it_it_is_the_application() {
    let mut wrapped = Wrapped::start(
        &[],
        &["sh", "-c", "read line; echo \"$0 $1 $line\"; echo complaint >&2; exit 7", "zero", "--one"],
    );
    let mut input = wrapped.process.stdin.take().expect("it is piped");
    input.write_all(b"hello\n").await.expect("it reads");
    let left = wrapped.end().await;
    assert_eq!((left.code, left.output.as_str()), (Some(7), "zero --one hello\n"), "{}", left.log);
    assert!(left.log.contains("complaint\n"), "{}", left.log);
}

#[tokio::test]
async fn without_redirection_it_is_told_of_the_proxy_and_never_of_the_token() {
    const SHOW: &str =
        "echo \"$http_proxy $HTTP_PROXY $no_proxy $NO_PROXY\"; env | grep -c secret; echo $KEPT";
    let shown = async |settings: &[&str], set: &[(&str, &str)]| {
        let wrapped = Wrapped::start_with(settings, &["sh", "-c", SHOW], |command| {
            command.env("KEPT", "kept").envs(set.iter().copied())
        });
        let proxy = format!("http://{}", wrapped.addresses().await.outbound);
        let left = wrapped.end().await;
        let lines: Vec<String> = left.output.lines().map(str::to_owned).collect();
        assert_eq!(lines[1..], ["0", "kept"], "{}", left.log);
        (lines[0].clone(), proxy)
    };
    let local = "localhost,127.0.0.1,::1";
    let (seen, proxy) = shown(&[], &[]).await;
    assert_eq!(seen, format!("{proxy} {proxy} {local} {local}"));
    let (seen, proxy) = shown(&[], &[("no_proxy", "here")]).await;
    assert_eq!(seen, format!("{proxy} {proxy} here "));
    let (seen, _) = shown(&[], &[("HTTP_PROXY", "http://its-own:1")]).await;
    assert_eq!(seen, " http://its-own:1  ");
}

#[tokio::test]
async fn an_application_that_would_bypass_the_mesh_is_not_started() {
    let left = Wrapped::start(&["--redirected"], &["sh", "-c", "echo started"]).end().await;
    assert_eq!((left.code, left.output.as_str()), (Some(125), ""), "{}", left.log);
    assert!(left.log.contains("the application was not started: not ready within 10s"), "{}", left.log);
}

#[tokio::test]
async fn what_keeps_it_from_starting_is_told_by_the_exit_code_and_in_words() {
    let none = Wrapped::start(&[], &["no-such-program"]).end().await;
    assert_eq!(none.code, Some(127));
    assert!(none.log.contains("cannot start \"no-such-program\": No such file"), "{}", none.log);
    let folder = Wrapped::start(&[], &["/"]).end().await;
    assert_eq!(folder.code, Some(126));
    assert!(folder.log.contains("cannot start \"/\": Permission denied"), "{}", folder.log);

    let settings = Wrapped::start(&["--workers", "none"], &["true"]).end().await;
    assert_eq!(settings.code, Some(78), "{}", settings.log);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let in_use = Wrapped::start(&["--admin-listen", &address], &["sh", "-c", "echo started"]).end().await;
    assert_eq!((in_use.code, in_use.output.as_str()), (Some(125), ""), "{}", in_use.log);
    let no_command = command(none_folder().path(), &[]).output().await.expect("it starts");
    assert_eq!(no_command.status.code(), Some(2));
}

fn none_folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[tokio::test]
async fn flags_may_stand_on_either_side_of_the_verb() {
    let folder = none_folder();
    let mut command = Command::new(pillion_proxy());
    command.env("PILLION_WORKLOAD", "of-the-environment").env("PILLION_JOIN_TOKEN", "secret");
    command.args(["--workload", "before", "--admin-listen", "127.0.0.1:0", "run", "--outbound-listen"]);
    command.args(["127.0.0.1:0", "--inbound-listen", "127.0.0.1:0", "--", "true"]).current_dir(&folder);
    let output = command.output().await.expect("it starts");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && log.contains("workload=\"before\""), "{log}");
}

#[tokio::test]
async fn an_end_by_a_signal_is_told_as_a_shell_would() {
    assert_eq!(Wrapped::script(&[], "kill -9 $$").end().await.code, Some(128 + 9));
    let mut sleeping = Wrapped::script(&["--drain-timeout", "1m"], "echo up; exec sleep 1000");
    sleeping.line().await;
    sleeping.signal(Signal::TERM);
    assert_eq!(sleeping.end().await.code, Some(128 + 15));
}

#[tokio::test]
async fn signals_that_mean_something_to_applications_reach_it() {
    let signals = [
        ("HUP", Signal::HUP),
        ("QUIT", Signal::QUIT),
        ("USR1", Signal::USR1),
        ("USR2", Signal::USR2),
        ("WINCH", Signal::WINCH),
    ];
    let traps: String = signals.iter().map(|(name, _)| format!("trap 'echo {name}' {name}; ")).collect();
    let script = format!("{traps} trap 'echo INT; exit 3' INT; echo up; while :; do sleep 0.02; done");
    let mut wrapped = Wrapped::script(&[], &script);
    assert_eq!(wrapped.line().await, "up");
    for (name, signal) in signals {
        wrapped.signal(signal);
        assert_eq!(wrapped.line().await, name);
    }
    wrapped.signal(Signal::INT);
    assert_eq!(wrapped.line().await, "INT");
    assert_eq!(wrapped.end().await.code, Some(3));
}

#[tokio::test]
async fn a_terminals_signals_are_not_passed_on_a_second_time() {
    let folder = none_folder();
    // A read that is interrupted fails; this one goes on until it is given something.
    let script = "trap 'echo heard' INT; echo up; until read line; do :; done; exit 5";
    let mut inside = command(folder.path(), &[]);
    inside.args(["--", "sh", "-c", script]);
    let quoted = |word: &std::ffi::OsStr| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''"));
    let std = inside.as_std();
    let words: Vec<_> = [std.get_program()].into_iter().chain(std.get_args()).map(quoted).collect();
    // script(1) gives it a terminal, whose keys are what we write. It asks the user's shell for it, and not every shell makes
    // way for the one program that it is to run: Ctrl-C would end such a shell, and the terminal with it.
    let line = format!("exec {}", words.join(" "));
    let mut terminal = Command::new("script")
        .args(["--quiet", "--return", "--echo", "never", "--command", &line, "/dev/null"])
        .env("PILLION_JOIN_TOKEN", "secret")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script(1) is on every Debian");
    let mut keys = terminal.stdin.take().expect("it is piped");
    let mut lines = BufReader::new(terminal.stdout.take().expect("it is piped")).lines();
    let mut seen = Vec::new();
    let mut until = async |word: &str| {
        soon(word, async {
            loop {
                let line = lines.next_line().await.expect("text").expect("the terminal is open");
                let line = line.trim().to_owned();
                let found = line.ends_with(word);
                seen.push(line);
                if found {
                    break;
                }
            }
        })
        .await;
        seen.iter().filter(|line| line.ends_with("heard")).count()
    };
    until("up").await;
    keys.write_all(b"\x03").await.expect("it reads");
    until("heard").await;
    // Had the sidecar passed it on, or taken it for the end, that would show before the answer to this.
    keys.write_all(b"done\n").await.expect("it reads");
    let heard = until("nothing left open").await;
    let status = soon("the terminal's end", terminal.wait()).await.expect("it was started");
    assert_eq!((heard, status.code()), (1, Some(5)));
}

#[tokio::test]
async fn an_application_that_does_not_end_is_killed_at_the_deadline_or_by_a_second_signal() {
    const STUBBORN: &str = "trap '' TERM; echo up; while :; do sleep 0.02; done";
    let mut wrapped = Wrapped::script(&["--drain-timeout", "1s"], STUBBORN);
    wrapped.line().await;
    wrapped.signal(Signal::TERM);
    let left = wrapped.end().await;
    assert_eq!(left.code, Some(128 + 9));
    assert!(left.log.contains("it is killed"), "{}", left.log);

    let mut wrapped = Wrapped::script(&["--drain-timeout", "1h"], STUBBORN);
    wrapped.line().await;
    let admin = wrapped.addresses().await.admin;
    wrapped.signal(Signal::TERM);
    eventually("it is unready", async || {
        (raw::status(&raw::exchange(admin, &raw::get("x", "/ready")).await) == 503).then_some(())
    })
    .await;
    wrapped.signal(Signal::TERM);
    let left = wrapped.end().await;
    assert_eq!(left.code, Some(128 + 9), "{}", left.log);
}

#[tokio::test]
async fn a_sidecar_that_is_killed_takes_its_application_along() {
    let mut wrapped = Wrapped::script(&[], "echo $$; exec sleep 1000");
    let application = wrapped.line().await;
    wrapped.signal(Signal::KILL);
    eventually("the application is gone", async || {
        let stat = std::fs::read_to_string(format!("/proc/{application}/stat")).unwrap_or_default();
        // Who adopts it may take a while to look.
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_the_application_leaves_behind_is_waited_for() {
    let mut wrapped = Wrapped::script(&[], "(sh -c 'echo $$; read line <&3' &) 3<&0; exec sleep 1000");
    let orphan = wrapped.line().await;
    let parent = || {
        let stat = std::fs::read_to_string(format!("/proc/{orphan}/stat")).ok()?;
        stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<i32>().ok()
    };
    let sidecar = wrapped.pid().as_raw_nonzero().get();
    eventually("the sidecar has adopted it", async || (parent() == Some(sidecar)).then_some(())).await;
    let mut input = wrapped.process.stdin.take().expect("it is piped");
    input.write_all(b"\n").await.expect("it reads");
    eventually("nothing is left of it", async || parent().is_none().then_some(())).await;
    assert!(wrapped.process.try_wait().expect("it is our child").is_none(), "the application goes on");
}

#[tokio::test]
async fn the_operators_port_ends_it_for_programs_on_this_host() {
    let mut wrapped = Wrapped::script(&[], "trap 'exit 4' TERM; echo up; while :; do sleep 0.02; done");
    wrapped.line().await;
    let admin = wrapped.addresses().await.admin;
    let ask = async |head: &str| raw::status(&raw::exchange(admin, &format!("{head}\r\n\r\n")).await);
    assert_eq!(ask("GET /drain HTTP/1.1\r\nhost: x").await, 405);
    assert_eq!(ask("POST /drain HTTP/1.1\r\nhost: x\r\norigin: http://evil.example").await, 403);
    assert_eq!(ask("GET /ready HTTP/1.1\r\nhost: x").await, 200);
    assert_eq!(ask("POST /drain HTTP/1.1\r\nhost: x").await, 202);
    assert_eq!(wrapped.end().await.code, Some(4));
}

/// A script that notes in a file that it was told to end, and ends.
fn noting(file: &Path) -> String {
    format!("trap 'touch {}; exit 0' TERM; while :; do sleep 0.02; done", file.display())
}

#[tokio::test]
async fn the_application_is_told_to_end_when_all_that_was_asked_of_it_is_answered() {
    let mesh = Mesh::start().await;
    // Behind the port is the test, so that it can see what comes; what is run shows when it is told to end.
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let told = mesh.file("told");
    let spec = SidecarSpec::serving("app-1", "app", app.address()).flags(&["--drain-timeout", "12s"]);
    let mut callee = mesh.sidecar(spec.running(&["sh", "-c", &noting(&told)])).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;

    let slow = tokio::spawn(caller.client().get("http://app.demo.mesh/after-ms/4000").send());
    eventually("the request has reached the application", async || (app.requests() == 1).then_some(())).await;
    callee.terminate();
    eventually("the mesh knows", async || {
        let workloads = mesh.api.workloads().await.ok()?;
        (!workloads.iter().any(|w| w.workload == "app-1" && w.ready)).then_some(())
    })
    .await;
    // Callers may not have heard yet, and what the application asks of others it can ask as ever.
    let late = raw::exchange(caller.outbound(), &raw::get("app.demo.mesh", "/who")).await;
    assert!(raw::status(&late) == 200 || raw::refusal(&late) == "no-endpoints", "{late}");
    let elsewhere = format!("GET http://{}/who HTTP/1.0\r\n\r\n", app.address());
    assert_eq!(raw::status(&raw::exchange(callee.outbound(), &elsewhere).await), 200);

    let response = soon("the slow answer", slow).await.expect("no panic").expect("an answer");
    assert_eq!(response.status(), 200);
    assert!(!told.exists(), "it was told to end while it was answering");
    let status = callee.process.wait(Duration::from_secs(12)).await.expect("it ends");
    assert!(status.success() && told.exists(), "{status}\n{}", callee.process.last_words());
}

#[tokio::test]
async fn an_application_of_long_connections_has_half_of_the_time_to_end_them() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("app-1", Version::Http1).await;
    mesh.apply_service("app", "http").await;
    let told = mesh.file("told");
    let spec = SidecarSpec::serving("app-1", "app", app.address()).flags(&["--drain-timeout", "6s"]);
    let mut callee = mesh.sidecar(spec.running(&["sh", "-c", &noting(&told)])).await;
    let caller = mesh.sidecar(SidecarSpec::caller("client")).await;
    mesh.until_ready(&[&caller, &callee]).await;
    caller.until_endpoints("app", 1).await;
    let outbound: SocketAddr = caller.outbound();
    let endless = raw::begin(outbound, "GET /after-ms/600000 HTTP/1.1\r\nhost: app.demo.mesh\r\n\r\n").await;
    eventually("it has reached the application", async || (app.requests() == 1).then_some(())).await;
    let began = std::time::Instant::now();
    callee.terminate();
    eventually("the application is told", async || told.exists().then_some(())).await;
    let after = began.elapsed();
    assert!(after > Duration::from_secs(3) && after < Duration::from_secs(6), "told after {after:?}");
    drop(endless);
    assert!(callee.process.wait(Duration::from_secs(6)).await.expect("it ends").success());
}
