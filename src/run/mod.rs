//! The application, where the sidecar starts it (`pillion-proxy run -- CMD`): one process that is started, hears the
//! signals meant for it, and whose end is waited for, along with that of everything it leaves behind.

mod terminal;

use std::{
    ffi::{OsStr, OsString},
    fmt, io,
    net::SocketAddr,
    os::unix::process::CommandExt,
    process::Command,
    task::Poll,
};

use rustix::process::{self, Pid, WaitOptions, WaitStatus};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

pub use rustix::process::Signal;
pub use terminal::has_heard;

/// Handed to the application as they come. SIGTERM and SIGINT are not among them: they begin a shutdown, which has an
/// order.
const PASSED: [Signal; 5] = [Signal::HUP, Signal::QUIT, Signal::USR1, Signal::USR2, Signal::WINCH];

/// How the environment tells a program to send its HTTP requests to a proxy. There is no standard; of these, every client
/// library heeds one.
const PROXY: [&str; 2] = ["http_proxy", "HTTP_PROXY"];
/// …and what it is not to send there.
const NO_PROXY: [&str; 2] = ["no_proxy", "NO_PROXY"];
/// What is on this host is no matter of the mesh.
const LOCAL: &str = "localhost,127.0.0.1,::1";

/// A secret of the sidecar's.
const JOIN_TOKEN: &str = "PILLION_JOIN_TOKEN";

/// The running application; clones are the same.
#[derive(Debug, Clone)]
pub struct Application {
    pid: Pid,
    ended: watch::Receiver<Option<Ended>>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an exit code.
    Exited(u8),
    /// By a signal of this number.
    Killed(u8),
}

/// It could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {name:?}: {source}")]
pub struct NotStarted {
    name: OsString,
    source: io::Error,
}

impl Application {
    /// Starts the program of this name with these arguments, in our own environment and with our own standard streams;
    /// `proxy` is what it is told to send HTTP requests to, unless it has been told already. To be called in a `LocalSet`
    /// of the main thread, once: from then on, every process that ends as our child is waited for here.
    ///
    /// # Errors
    /// The program is missing, or cannot be run.
    pub fn start(
        name: &OsStr,
        arguments: &[OsString],
        proxy: Option<SocketAddr>,
    ) -> Result<Self, NotStarted> {
        let failed = |source| NotStarted { name: name.to_owned(), source };
        // Before it starts: an application may end at once, and be told anything at once.
        let mut ends = signal(SignalKind::child()).map_err(failed)?;
        let passed = PASSED.map(|passed| (passed, signal(SignalKind::from_raw(passed.as_raw()))));
        // What an application leaves behind when it ends comes to us in any case where we are process 1, as in a
        // container; so it is everywhere the same.
        process::set_child_subreaper(Some(process::getpid())).map_err(|error| failed(error.into()))?;
        let mut command = Command::new(name);
        command.args(arguments).env_remove(JOIN_TOKEN);
        if let Some(proxy) = proxy.filter(|_| !is_set(PROXY)) {
            command.envs(PROXY.map(|name| (name, format!("http://{proxy}"))));
            if !is_set(NO_PROXY) {
                command.envs(NO_PROXY.map(|name| (name, LOCAL)));
            }
        }
        die_with_us(&mut command);
        let child = command.spawn().map_err(failed)?;
        let pid = Pid::from_raw(child.id().cast_signed()).expect("a process has a number");
        let (sender, ended) = watch::channel(None);
        crate::task::start(async move {
            loop {
                reap(pid, &sender);
                if ends.recv().await.is_none() {
                    return;
                }
            }
        });
        let application = Self { pid, ended };
        for (passed, heard) in passed {
            let mut heard = heard.map_err(failed)?;
            let application = application.clone();
            crate::task::start(async move {
                while heard.recv().await.is_some() {
                    if !has_heard(passed) {
                        application.tell(passed);
                    }
                }
            });
        }
        Ok(application)
    }

    /// Its process number.
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends it a signal, unless it has ended.
    pub fn tell(&self, signal: Signal) {
        // Its end is noticed on this same thread, so the number cannot be somebody else's yet.
        if self.ended.borrow().is_none() {
            // It may have ended this moment, or have become another user's: neither can be helped.
            let _ = process::kill_process(self.pid, signal);
        }
    }

    /// Waits for its end.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(ended) => ended.expect("waited for"),
            // Only when everything on this thread ends.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Waits for every child that has ended.
fn reap(application: Pid, ended: &watch::Sender<Option<Ended>>) {
    while let Ok(Some((pid, status))) = process::wait(WaitOptions::NOHANG) {
        if pid == application {
            ended.send_replace(Some(Ended::of(status)));
        } else {
            tracing::debug!(
                pid = pid.as_raw_nonzero(),
                "reaped a process that the application had left behind"
            );
        }
    }
}

/// A sidecar that is killed cannot end its application, which would go on without the mesh: the kernel does. The parent
/// meant by that is the thread that started it, the main thread, which lives for as long as the process.
#[expect(unsafe_code, reason = "there is no safe way to do anything between fork and exec")]
fn die_with_us(command: &mut Command) {
    let parent = process::getpid();
    // SAFETY: only system calls, and no memory is allocated.
    unsafe {
        command.pre_exec(move || {
            process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // It may have been too late for that.
            if process::getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
        });
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "these are no settings of ours, but what the application gets to see"
)]
fn is_set(names: [&str; 2]) -> bool {
    names.iter().any(|name| std::env::var_os(name).is_some())
}

impl Ended {
    fn of(status: WaitStatus) -> Self {
        // Both fit in a byte (wait(2)).
        match status.terminating_signal() {
            Some(signal) => Self::Killed(signal as u8),
            None => Self::Exited(status.exit_status().unwrap_or_default() as u8),
        }
    }

    /// What a shell would give: its own code, or 128 and the signal's number.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => 128 | signal,
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit code {code}"),
            Self::Killed(signal) => write!(f, "signal {signal}"),
        }
    }
}

impl NotStarted {
    /// What a shell would give: 127 where there is no such program, 126 where it cannot be run (POSIX, 2.8.2).
    pub fn exit_code(&self) -> u8 {
        if self.source.kind() == io::ErrorKind::NotFound { 127 } else { 126 }
    }
}

/// SIGTERM and SIGINT, as far as they are meant for us.
#[derive(Debug)]
pub struct Endings {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
    /// There is an application that a terminal's Ctrl-C reaches as well.
    shared: bool,
}

impl Endings {
    /// Listens for them. `shared`: an application runs beside us, which hears what a terminal says by itself.
    ///
    /// # Errors
    /// Those of the system.
    pub fn listen(shared: bool) -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(Self { terminate, interrupt, shared })
    }

    /// Waits for the next one.
    ///
    /// A Ctrl-C that an application has got, too, is its affair: it may mean the end, or only that of what it is doing. We
    /// end when it does.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            loop {
                if self.terminate.poll_recv(cx).is_ready() {
                    return Poll::Ready(Signal::TERM);
                }
                if self.interrupt.poll_recv(cx).is_pending() {
                    return Poll::Pending;
                }
                if !(self.shared && has_heard(Signal::INT)) {
                    return Poll::Ready(Signal::INT);
                }
            }
        })
        .await
    }
}
