//! The demo's workloads in network namespaces, as in pods: each with an address of its own, and with all its traffic redirected
//! to its sidecar. Its application knows nothing of that.

use std::ffi::OsString;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::guard::Guard;
use super::mesh::DemoError;
use super::network::{Hub, Network, Place};
use super::sidecar::Addresses;

/// The user whose traffic is not redirected: the sidecars'.
const SIDECAR_USER: u32 = 15000;
/// Where the workloads are.
pub(super) struct Pods {
    network: Network,
    /// The sidecar's program, where its user may run it.
    proxy: PathBuf,
    /// What sidecars read and write.
    folder: PathBuf,
}

impl Pods {
    /// A network that the host is on, too. `folder` is the demo's.
    pub(super) fn start(proxy: &Path, folder: &Path, guard: &Guard) -> Result<Self, DemoError> {
        let network = Network::start(Hub::Host, guard)?;
        let own = folder.join("sidecars");
        let open = |mode| Permissions::from_mode(mode);
        // Others may go through, to the program and to what is theirs; the control plane closes its own folder.
        std::fs::set_permissions(folder, open(0o711))
            .and_then(|()| std::fs::create_dir(&own))
            .and_then(|()| std::fs::set_permissions(&own, open(0o700)))
            .and_then(|()| chown(&own, Some(SIDECAR_USER), Some(SIDECAR_USER)))
            .map_err(DemoError::system(format!("making {}", own.display())))?;
        // Where it is, it may be closed to other users, as root's home is. One that is found on the PATH is not.
        let mut runnable = proxy.to_owned();
        if proxy.exists() {
            runnable = folder.join("pillion-proxy");
            let linked =
                std::fs::hard_link(proxy, &runnable).or_else(|_| std::fs::copy(proxy, &runnable).map(drop));
            linked.map_err(DemoError::system(format!("copying {}", proxy.display())))?;
        }
        Ok(Self { network, proxy: runnable, folder: own })
    }

    /// The host's address, which the control plane listens on.
    pub(super) fn host(&self) -> Ipv4Addr {
        self.network.hub().0
    }

    /// Where sidecars may read and write, and nobody else but root.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A namespace for one workload, with everything redirected to a sidecar that is yet to come.
    pub(super) fn place(&self, workload: &str) -> Result<Place, DemoError> {
        let place = self.network.place(workload)?;
        // Mesh DNS is asked, whoever is named: port 53 is redirected, too.
        place.write_file("resolv.conf", &format!("nameserver {}\n", self.host()))?;
        place.write_file("nsswitch.conf", "hosts: files dns\n")?;
        let arguments = vec!["redirect".into(), "--redirect-dns".into()];
        let (program, arguments) = place.command(&self.proxy, arguments);
        let redirect = Command::new(program).args(arguments).stdin(Stdio::null()).output();
        let redirect = redirect.map_err(DemoError::system("running `pillion-proxy redirect`"))?;
        if !redirect.status.success() {
            let said = String::from_utf8_lossy(&redirect.stderr).trim().to_owned();
            return Err(DemoError::Redirect { workload: workload.into(), said });
        }
        Ok(place)
    }

    /// What runs the sidecar of a place with these arguments and further ones of ours.
    pub(super) fn sidecar(&self, place: &Place, mut arguments: Vec<OsString>) -> (OsString, Vec<OsString>) {
        let as_user: [OsString; 4] = [
            format!("--reuid={SIDECAR_USER}").into(),
            format!("--regid={SIDECAR_USER}").into(),
            "--clear-groups".into(),
            self.proxy.clone().into(),
        ];
        arguments.splice(0..0, as_user);
        let settings = [
            ("--redirected", "true"),
            ("--dns-listen", "127.0.0.1:15053"),
            ("--admin-listen", "0.0.0.0:15020"),
        ];
        arguments.extend(settings.into_iter().flat_map(|(flag, value)| [flag.into(), value.into()]));
        place.command("setpriv", arguments)
    }

    /// Where a sidecar that listens on `addresses` is reached from the host.
    pub(super) fn reached(place: &Place, mut addresses: Addresses) -> Addresses {
        addresses.admin.set_ip(place.v4.into());
        addresses.inbound.set_ip(place.v4.into());
        addresses
    }
}
