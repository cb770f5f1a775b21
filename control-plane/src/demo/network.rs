//! A network of network namespaces, each as alone as a pod: for `pillion demo --netns`, and for the tests.
//!
//! ```text
//!   hub ── bridge ──┬── cable ── place: eth0 10.215.15.2, fd5a:215:15::2
//!     10.215.15.1   ├── cable ── place: eth0 10.215.15.3, fd5a:215:15::3
//!                   └── …
//! ```
//!
//! The bridge has a namespace of its own, so that nothing of the host's network is touched. The hub, which every place's
//! default routes lead to, is that namespace too; or it is the host, by one more cable.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::guard::Guard;

/// Where the `ip` program keeps the namespaces that have a name.
const NAMESPACES: &str = "/run/netns";
/// `/etc/netns/<namespace>/<file>` stands for `/etc/<file>` in what `ip netns exec` starts.
const FILES: &str = "/etc/netns";
/// Before the process id in the names of ours.
const PREFIX: &str = "pillion-";
/// Networks are 10.215.<this>.0/24 and fd5a:215:<this>::/64, from here on: private (RFC 1918, RFC 4193), and neither Docker's
/// nor most households'.
const FIRST_NUMBER: u8 = 15;
/// Hosts in a network, the hub not counted.
const MOST_PLACES: u8 = 250;

/// A namespace could not be made or entered.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// Namespaces are for root.
    #[error("network namespaces need root; try again with sudo")]
    NotRoot,
    /// The program `ip` is missing, or the like.
    #[error("cannot run `ip` (Debian package iproute2): {0}")]
    NoTool(std::io::Error),
    /// `ip` did not do it.
    #[error("`ip {arguments}` failed: {said}")]
    Refused {
        /// How it was called.
        arguments: String,
        /// What it wrote to standard error.
        said: String,
    },
    /// A file, or a system call.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no more room.
    #[error("{0}")]
    Full(&'static str),
}

impl NetworkError {
    fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// Who has the network's first address, and is every place's default route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hub {
    /// The bridge's own namespace: nothing is reachable from the host.
    Bridge,
    /// The host, by an interface `pillion<number>`.
    Host,
}

/// A bridge, and what it takes to plug places in. Dropping it removes the bridge; places live on by themselves.
pub struct Network {
    bridge: Namespace,
    number: u8,
    /// The name of the interface on the host, if there is one.
    host_link: Option<String>,
    used: AtomicU32,
    guard: Guard,
}

impl Network {
    /// A bridge with nobody on it yet. What dead processes have left of theirs is removed first.
    ///
    /// # Errors
    /// Not root, no `ip`, or what the kernel refuses.
    pub fn start(hub: Hub, guard: &Guard) -> Result<Self, NetworkError> {
        if !rustix::process::geteuid().is_root() {
            return Err(NetworkError::NotRoot);
        }
        remove_leftovers();
        let bridge = Namespace::new("bridge", guard)?;
        let mut network = Self {
            bridge,
            number: FIRST_NUMBER,
            host_link: None,
            used: AtomicU32::new(1),
            guard: guard.clone(),
        };
        let bridge = &network.bridge.name;
        ip(
            &["-n", bridge, "-batch", "-"],
            "link set lo up\nlink add bridge type bridge mcast_snooping 0\nlink set bridge up\n",
        )?;
        match hub {
            Hub::Bridge => {
                let (v4, v6) = network.hub();
                ip(
                    &["-n", bridge, "-batch", "-"],
                    &format!("addr add {v4}/24 dev bridge\naddr add {v6}/64 dev bridge nodad\n"),
                )?;
            }
            Hub::Host => {
                network.number = free_number()?;
                let (v4, v6) = network.hub();
                let link = format!("pillion{}", network.number);
                ip(&["link", "add", &link, "type", "veth", "peer", "name", "host", "netns", bridge], "")?;
                ip(&["-n", bridge, "-batch", "-"], "link set host master bridge\nlink set host up\n")?;
                network.host_link = Some(link.clone());
                ip(
                    &["-batch", "-"],
                    &format!(
                        "addr add {v4}/24 dev {link}\naddr add {v6}/64 dev {link} nodad\nlink set {link} up\n"
                    ),
                )?;
            }
        }
        Ok(network)
    }

    /// The hub's addresses.
    #[must_use]
    pub fn hub(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.addresses(1)
    }

    fn addresses(&self, host: u8) -> (Ipv4Addr, Ipv6Addr) {
        // Written in IPv6's hexadecimal digits as in IPv4's decimal ones.
        let alike = |number: u8| {
            u16::from_str_radix(&number.to_string(), 16).expect("decimal digits are hexadecimal, too")
        };
        let v6 = Ipv6Addr::new(0xfd5a, 0x215, alike(self.number), 0, 0, 0, 0, alike(host));
        (Ipv4Addr::new(10, 215, self.number, host), v6)
    }

    /// The bridge's namespace.
    #[must_use]
    pub fn bridge(&self) -> &Namespace {
        &self.bridge
    }

    /// A namespace with a cable to the bridge. `label` is for people who look at `ip netns`.
    ///
    /// # Errors
    /// What the kernel refuses.
    pub fn place(&self, label: &str) -> Result<Place, NetworkError> {
        let host = self.used.fetch_add(1, Ordering::Relaxed) + 1;
        let host = u8::try_from(host).ok().filter(|host| *host <= MOST_PLACES);
        let host = host.ok_or(NetworkError::Full("a network has no room for more than 249 places"))?;
        let (v4, v6) = self.addresses(host);
        let (hub_v4, hub_v6) = self.hub();
        let namespace = Namespace::new(label, &self.guard)?;
        let (bridge, name, cable) = (&self.bridge.name, &namespace.name, format!("cable{host}"));
        ip(
            &["-n", bridge, "link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", name],
            "",
        )?;
        let plug = format!("link set {cable} master bridge\nlink set {cable} up\n");
        ip(&["-n", bridge, "-batch", "-"], &plug)?;
        let mut settings = String::from("link set lo up\nlink set eth0 up\n");
        // Without duplicate address detection, which takes a second in which the address cannot be used.
        let _ = write!(
            settings,
            "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0 nodad\nroute add default via {hub_v4}\nroute add default via {hub_v6}\n"
        );
        ip(&["-n", name, "-batch", "-"], &settings)?;
        Ok(Place { namespace, v4, v6, cable })
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Some(link) = &self.host_link {
            // It would go with the bridge, but only when nobody is left in there.
            let _ = ip(&["link", "del", link], "");
        }
    }
}

/// A namespace with an address of its own.
pub struct Place {
    namespace: Namespace,
    /// Its address.
    pub v4: Ipv4Addr,
    /// Its other address.
    pub v6: Ipv6Addr,
    /// Its cable's end in the bridge's namespace.
    pub cable: String,
}

impl std::ops::Deref for Place {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

/// A network namespace with a name. Dropping it takes the name away; it is gone with the last process and socket in it.
pub struct Namespace {
    name: String,
    guard: Guard,
}

impl Namespace {
    fn new(label: &str, guard: &Guard) -> Result<Self, NetworkError> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{count}-{label}", std::process::id());
        guard.remove_namespace(&name);
        let namespace = Self { name, guard: guard.clone() };
        ip(&["netns", "add", &namespace.name], "")?;
        Ok(namespace)
    }

    /// As `ip netns` knows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What stands for `/etc/<file>` in [`Self::command`].
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_file(&self, file: &str, text: &str) -> Result<(), NetworkError> {
        let folder = Path::new(FILES).join(&self.name);
        let written = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(file), text));
        written.map_err(NetworkError::system(format!("writing {file} of {}", self.name)))
    }

    /// The program `ip` and its arguments, which run `program` in here, as the same process.
    pub fn command(
        &self,
        program: impl Into<OsString>,
        arguments: Vec<OsString>,
    ) -> (OsString, Vec<OsString>) {
        let mut all: Vec<OsString> = ["netns", "exec", &self.name].map(Into::into).into();
        all.push(program.into());
        all.extend(arguments);
        ("ip".into(), all)
    }

    /// A way in, for another thread.
    ///
    /// # Errors
    /// Those of the system.
    pub fn entrance(&self) -> Result<Entrance, NetworkError> {
        let file = File::open(Path::new(NAMESPACES).join(&self.name));
        file.map(Entrance).map_err(NetworkError::system(format!("opening {}", self.name)))
    }

    /// Moves the calling thread in here; see [`Entrance::enter`].
    ///
    /// # Errors
    /// Those of the system.
    pub fn enter(&self) -> Result<(), NetworkError> {
        self.entrance()?.enter()
    }

    /// Does `work` in here, on a thread of its own. A socket stays where it was made, whoever uses it later.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetworkError> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| self.enter().map(|()| work()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
        self.guard.forget_namespace(&self.name);
    }
}

/// A way into a namespace.
pub struct Entrance(File);

impl Entrance {
    /// Moves the calling thread, and the threads and processes that it starts from now on, in there.
    ///
    /// # Errors
    /// Those of the system.
    pub fn enter(&self) -> Result<(), NetworkError> {
        let entered = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network));
        entered.map_err(|error| NetworkError::system("entering a network namespace")(error.into()))
    }
}

/// Takes a namespace's name away, and its files.
pub(super) fn remove(name: &str) {
    // Whoever is there before us has done the same.
    let _ = ip(&["netns", "del", name], "");
    let _ = std::fs::remove_dir_all(Path::new(FILES).join(name));
}

/// Namespaces of processes that are no more, killed together with their guard.
fn remove_leftovers() {
    let names = [NAMESPACES, FILES].into_iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    for name in names.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            remove(&name);
        }
    }
}

/// The first of our networks that the host has no address in.
fn free_number() -> Result<u8, NetworkError> {
    let taken = ip(&["-o", "-4", "addr", "show"], "")?;
    (FIRST_NUMBER..=u8::MAX)
        .find(|number| !taken.contains(&format!(" 10.215.{number}.")))
        .ok_or(NetworkError::Full("all networks from 10.215.15.0/24 on are taken"))
}

/// Runs `ip`, which is done within milliseconds, and gives what it printed. `input` is for `-batch -`.
fn ip(arguments: &[&str], input: &str) -> Result<String, NetworkError> {
    let mut process = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(NetworkError::NoTool)?;
    // Fits into the pipe; if it ends before it has read all, it says why.
    let _ = process.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = process.wait_with_output().map_err(NetworkError::NoTool)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NetworkError::Refused { arguments: arguments.join(" "), said })
}
