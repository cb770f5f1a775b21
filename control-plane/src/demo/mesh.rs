//! Starts the demo's processes: a control plane, the sample shop, and a sidecar beside each instance.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::api::{Api, ApiError};
use super::children::{Child, ChildError, Spec};
use super::console::Console;
use super::guard::Guard;
use super::network::{NetworkError, Place};
use super::pods::Pods;
use super::sample::{self, Role, SampleAddress};
use super::sidecar::Addresses;

/// The sample shop's documents.
pub const DOCUMENTS: &str = include_str!("documents.yaml");
/// The namespace they are in.
pub const NAMESPACE: &str = "demo";
/// The mesh port of every sample service.
const PORT: u16 = 8080;
/// Nothing that is started takes longer on a machine that is fit for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// One workload of the demo.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// Such as `payments-3`.
    pub name: &'static str,
    /// Its `app` label and service account.
    pub app: &'static str,
    /// Its `version` label.
    pub version: &'static str,
    /// Which sample service it runs; the traffic generator runs in the demo's own process.
    pub role: Option<Role>,
}

const fn member(name: &'static str, app: &'static str, version: &'static str, role: Role) -> Member {
    Member { name, app, version, role: Some(role) }
}

/// Everyone in the demo.
pub const CAST: [Member; 8] = [
    member("web-1", "web", "v1", Role::Web),
    member("catalog-1", "catalog", "v1", Role::Catalog),
    member("cart-1", "cart", "v1", Role::Cart),
    member("payments-1", "payments", "v1", Role::Payments),
    member("payments-2", "payments", "v1", Role::Payments),
    member("payments-3", "payments", "v1", Role::Payments),
    member("payments-v2-1", "payments", "v2", Role::Payments),
    Member { name: "traffic", app: "traffic", version: "v1", role: None },
];

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A process.
    #[error(transparent)]
    Child(#[from] ChildError),
    /// The control plane's answer.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Files and pipes.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A network of namespaces.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// A workload's traffic cannot be redirected.
    #[error("redirecting the traffic of {workload}: {said}")]
    Redirect {
        /// Whose.
        workload: String,
        /// What `pillion-proxy redirect` says.
        said: String,
    },
    /// Some claims did not hold.
    #[error("{broken} of {of} claims did not hold")]
    Claims {
        /// How many.
        broken: usize,
        /// Of how many.
        of: usize,
    },
    /// Told to stop before there was a result.
    #[error("stopped before it had measured")]
    Stopped,
}

impl DemoError {
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// The two programs.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `pillion`.
    pub pillion: PathBuf,
    /// `pillion-proxy`.
    pub proxy: PathBuf,
}

impl Programs {
    /// `pillion` is the running program; `pillion-proxy` lies beside it, else is found on the PATH.
    pub fn find() -> Result<Self, DemoError> {
        let pillion = std::env::current_exe().map_err(DemoError::system("finding our own program"))?;
        let beside = pillion.with_file_name("pillion-proxy");
        let proxy = if beside.exists() { beside } else { "pillion-proxy".into() };
        Ok(Self { pillion, proxy })
    }
}

/// How the demo is to be.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// For the dashboard; zero: any.
    pub dashboard_port: u16,
    /// How long a certificate lives; half of it is the time to its renewal.
    pub certificate_life: Duration,
    /// How long `payments-3` is failing, slow, and well.
    pub phases: [Duration; 3],
    /// Each workload in a network namespace of its own, with its traffic redirected.
    pub netns: bool,
}

/// `<data folder>/server.json`, written by the server once it listens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServerFile {
    grpc_address: SocketAddr,
    http_address: SocketAddr,
    admin_token_file: PathBuf,
}

/// One workload's processes.
pub struct Workload {
    /// Who it is.
    pub member: Member,
    /// Its application.
    pub application: Option<Child>,
    /// Its sidecar.
    pub sidecar: Child,
    /// Where the sidecar listens.
    pub addresses: Addresses,
    /// Its network namespace, if it has one of its own.
    pub place: Option<Place>,
}

/// All of the demo's processes. Dropping it kills them.
pub struct Mesh {
    /// The control plane.
    pub server: Child,
    /// In the order of [`CAST`].
    pub workloads: Vec<Workload>,
    /// The control plane's REST API.
    pub api: Api,
    /// Holds a token that may change things.
    pub admin_token_file: PathBuf,
    /// What the places of the workloads are plugged in to, if they have any.
    _pods: Option<Pods>,
}

impl Mesh {
    /// Starts everything, and returns once every workload is registered and ready.
    pub async fn start(
        programs: &Programs,
        folder: &Path,
        guard: &Guard,
        setting: &Setting,
        console: &Console,
    ) -> Result<Self, DemoError> {
        let mut starter = Starter { programs, folder, guard, setting, pods: None };
        let mut places: Vec<Option<Place>> = CAST.iter().map(|_| None).collect();
        if setting.netns {
            let what = format!("making {} network namespaces, with redirection", CAST.len());
            places = console.step(&what, async { starter.places() }).await?;
        }
        let port = free_or_any(setting.dashboard_port, console);
        let (server, file) = console.step("starting the control plane", starter.server(port)).await?;
        let token = std::fs::read_to_string(&file.admin_token_file)
            .map_err(DemoError::system(file.admin_token_file.display().to_string()))?;
        let api = Api::new(&format!("http://{}", file.http_address), &token);
        console.step("applying the sample shop's documents", api.apply(DOCUMENTS)).await?;

        let applications = console
            .step(&format!("starting {} sample services", CAST.len() - 1), starter.applications(&places))
            .await?;
        let what = format!("starting {} sidecars, each with a certificate of its own", CAST.len());
        let sidecars = starter.sidecars(&api, file.grpc_address, applications, places);
        let workloads = console.step(&what, sidecars).await?;
        let admin_token_file = file.admin_token_file;
        let mut mesh = Self { server, workloads, api, admin_token_file, _pods: starter.pods };
        console.step("waiting until all are registered and ready", mesh.until_ready()).await?;
        Ok(mesh)
    }

    /// The workload of this name.
    #[must_use]
    pub fn workload(&self, name: &str) -> &Workload {
        self.workloads.iter().find(|w| w.member.name == name).expect("the cast is fixed")
    }

    /// Ends every process: an application together with its sidecar, as a host or a pod does; the control plane last.
    pub async fn stop(mut self) {
        let parts = self.workloads.iter_mut().flat_map(|w| w.application.iter_mut().chain([&mut w.sidecar]));
        futures_util::future::join_all(parts.map(|part| part.stop(Duration::from_secs(8)))).await;
        self.server.stop(Duration::from_secs(6)).await;
    }

    /// Processes that ended by themselves, or by somebody else's hand.
    pub fn casualties(&mut self) -> Vec<(String, String)> {
        let parts = self.workloads.iter_mut().flat_map(|w| w.application.iter_mut().chain([&mut w.sidecar]));
        parts
            .chain([&mut self.server])
            .filter_map(|child| child.ended().map(|status| (child.name().to_owned(), status.to_string())))
            .collect()
    }

    async fn until_ready(&mut self) -> Result<(), DemoError> {
        let api = &self.api;
        let what = "see every workload registered and ready";
        let all_ready = async || {
            let workloads = api.workloads().await.ok()?;
            let ready = workloads.iter().filter(|w| w.connected && w.ready).count();
            (ready == CAST.len()).then_some(())
        };
        Ok(self.server.until(what, PATIENCE, all_ready).await?)
    }
}

/// What starting one process needs to know.
struct Starter<'a> {
    /// Where workloads are, if not on loopback.
    pods: Option<Pods>,
    programs: &'a Programs,
    folder: &'a Path,
    guard: &'a Guard,
    setting: &'a Setting,
}

impl Starter<'_> {
    /// A namespace for everybody.
    fn places(&mut self) -> Result<Vec<Option<Place>>, DemoError> {
        let pods = Pods::start(&self.programs.proxy, self.folder, self.guard)?;
        let places = CAST.iter().map(|member| pods.place(member.name).map(Some)).collect();
        self.pods = Some(pods);
        places
    }

    async fn server(&self, http_port: u16) -> Result<(Child, ServerFile), DemoError> {
        let data = self.folder.join("control-plane");
        let listen = self.pods.as_ref().map_or(Ipv4Addr::LOCALHOST, Pods::host);
        let life = humantime::format_duration(self.setting.certificate_life).to_string();
        let mut server = self.child(
            "control-plane",
            &self.programs.pillion,
            vec![
                "server".into(),
                "--data-dir".into(),
                data.clone().into(),
                "--grpc-listen".into(),
                format!("{listen}:0").into(),
                "--http-listen".into(),
                format!("127.0.0.1:{http_port}").into(),
                "--leaf-ttl".into(),
                life.replace(' ', "").into(),
            ],
        )?;
        let file = server.until_file(&data.join("server.json"), PATIENCE).await?;
        Ok((server, file))
    }

    async fn applications(
        &self,
        places: &[Option<Place>],
    ) -> Result<Vec<Option<(Child, SocketAddr)>>, DemoError> {
        let members = CAST.iter().zip(places);
        futures_util::future::try_join_all(
            members.map(|(member, place)| self.application(member, place.as_ref())),
        )
        .await
    }

    async fn application(
        &self,
        member: &Member,
        place: Option<&Place>,
    ) -> Result<Option<(Child, SocketAddr)>, DemoError> {
        let Some(role) = member.role else { return Ok(None) };
        let address_file = self.folder.join(format!("{}.address.json", member.name));
        let role = clap::ValueEnum::to_possible_value(&role).expect("no role is hidden");
        let mut arguments: Vec<OsString> = vec![
            sample::SUBCOMMAND.into(),
            "--role".into(),
            role.get_name().into(),
            "--name".into(),
            member.name.into(),
            "--app-version".into(),
            member.version.into(),
            "--address-file".into(),
            address_file.clone().into(),
        ];
        // In a place of its own it listens where it likes, and calls others by their names.
        match place {
            Some(_) => arguments.extend(["--listen".into(), format!("127.0.0.1:{PORT}").into()]),
            None => arguments.extend(["--sidecar".into(), self.addresses_file(member).into()]),
        }
        if member.name == super::check::TROUBLED {
            arguments.push("--troubled".into());
            let phases = ["--failing-for", "--slow-for", "--well-for"].iter().zip(self.setting.phases);
            for (flag, length) in phases {
                arguments.extend([flag.into(), format!("{}ms", length.as_millis()).into()]);
            }
        }
        let mut child = match place {
            Some(place) => {
                let (program, arguments) = place.command(&self.programs.pillion, arguments);
                self.child(member.name, Path::new(&program), arguments)?
            }
            None => self.child(member.name, &self.programs.pillion, arguments)?,
        };
        let address: SampleAddress = child.until_file(&address_file, PATIENCE).await?;
        Ok(Some((child, address.address)))
    }

    async fn sidecars(
        &self,
        api: &Api,
        control_plane: SocketAddr,
        applications: Vec<Option<(Child, SocketAddr)>>,
        places: Vec<Option<Place>>,
    ) -> Result<Vec<Workload>, DemoError> {
        let parts = CAST.iter().zip(applications).zip(places);
        futures_util::future::try_join_all(parts.map(async |((member, application), place)| {
            let token = api.join_token(NAMESPACE, member.app).await?;
            let port = application.as_ref().map(|(_, address)| *address);
            let (sidecar, addresses) =
                self.sidecar(member, port, control_plane, &token, place.as_ref()).await?;
            let application = application.map(|(child, _)| child);
            Ok(Workload { member: *member, application, sidecar, addresses, place })
        }))
        .await
    }

    async fn sidecar(
        &self,
        member: &Member,
        application: Option<SocketAddr>,
        control_plane: SocketAddr,
        token: &str,
        place: Option<&Place>,
    ) -> Result<(Child, Addresses), DemoError> {
        // In a file: a command line can be read by anyone on the machine.
        let token_file = self.sidecars_folder().join(format!("{}.token", member.name));
        self.write_secret(&token_file, token)
            .map_err(DemoError::system(format!("writing {}", token_file.display())))?;
        let addresses_file = self.addresses_file(member);
        let mut arguments: Vec<OsString> = vec![
            "--workload".into(),
            member.name.into(),
            "--labels".into(),
            format!("app={},version={}", member.app, member.version).into(),
            "--control-plane".into(),
            control_plane.to_string().into(),
            "--join-token-file".into(),
            token_file.into(),
            "--addresses-file".into(),
            addresses_file.clone().into(),
            "--drain-timeout".into(),
            "3s".into(),
        ];
        if place.is_none() {
            for flag in ["--inbound-listen", "--outbound-listen", "--admin-listen"] {
                arguments.extend([flag.into(), "127.0.0.1:0".into()]);
            }
        }
        arguments.push("--health".into());
        match application {
            Some(address) => arguments.extend([
                format!("http://{address}/healthz").into(),
                "--ports".into(),
                format!("{PORT}={address}").into(),
            ]),
            None => arguments.push("none".into()),
        }
        let name = format!("{}.sidecar", member.name);
        let (Some(pods), Some(place)) = (&self.pods, place) else {
            let mut child = self.child(&name, &self.programs.proxy, arguments)?;
            let addresses = child.until_file(&addresses_file, PATIENCE).await?;
            return Ok((child, addresses));
        };
        let (program, arguments) = pods.sidecar(place, arguments);
        let mut child = self.child(&name, Path::new(&program), arguments)?;
        let addresses = child.until_file(&addresses_file, PATIENCE).await?;
        Ok((child, Pods::reached(place, addresses)))
    }

    fn addresses_file(&self, member: &Member) -> PathBuf {
        self.sidecars_folder().join(format!("{}.sidecar.json", member.name))
    }

    /// For whom the folder belongs to, and nobody else.
    fn write_secret(&self, path: &Path, secret: &str) -> std::io::Result<()> {
        let owner = std::fs::metadata(self.sidecars_folder())?.uid();
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        file.write_all(secret.as_bytes())?;
        fchown(&file, Some(owner), None)
    }

    fn sidecars_folder(&self) -> &Path {
        self.pods.as_ref().map_or(self.folder, Pods::folder)
    }

    fn child(&self, name: &str, program: &Path, arguments: Vec<OsString>) -> Result<Child, ChildError> {
        // In its namespace an application finds nobody where the shell's `http_proxy` is.
        let environment = match self.pods {
            Some(_) => ["no_proxy", "NO_PROXY"].map(|name| (name.into(), "*".into())).into(),
            None => Vec::new(),
        };
        let spec = Spec { name: name.into(), program: program.into(), arguments, environment };
        Child::start(spec, self.folder, self.guard)
    }
}

/// The wanted port if nobody has it; otherwise zero, which is any.
fn free_or_any(wanted: u16, console: &Console) -> u16 {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, wanted)) {
        Ok(_) => wanted,
        Err(error) => {
            console.say(&format!("port {wanted} cannot be had ({error}); the dashboard takes a free one"));
            0
        }
    }
}
