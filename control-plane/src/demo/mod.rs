//! `pillion demo`: a whole mesh on one machine, on loopback, with no privileges: control plane, sample shop, a sidecar beside
//! each instance, and traffic. With `--check` it measures whether the mesh does what it claims.

pub mod api;
pub mod check;
pub mod children;
pub mod console;
pub mod guard;
mod measure;
pub mod mesh;
mod narrate;
pub mod network;
mod pods;
pub mod sample;
pub mod scrape;
pub mod sidecar;
mod traffic;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use console::Console;
use guard::Guard;
use mesh::{DemoError, Mesh, Programs, Setting};
use sample::{client_through, client_to};
use traffic::Tally;

/// Where the dashboard is, unless somebody else is there.
const DASHBOARD_PORT: u16 = 15080;

/// A whole mesh on this machine, with traffic. Ctrl-C ends it.
#[derive(Clone, Debug, clap::Args)]
pub struct DemoArgs {
    /// Measure for a while whether the mesh does what it claims, print the table, and fail if it does not.
    #[arg(long)]
    pub check: bool,
    /// Stop by itself after this many seconds of traffic. [default with --check: 20]
    #[arg(long)]
    pub seconds: Option<u64>,
    /// For the dashboard; 0: any free one. [default: 15080, with --check 0]
    #[arg(long)]
    pub dashboard_port: Option<u16>,
    /// Each workload in a network namespace of its own, with all its traffic redirected to its sidecar; needs root.
    #[arg(long)]
    pub netns: bool,
    /// Keep logs and data when it ends.
    #[arg(long)]
    pub keep_data: bool,
}

/// Runs the demo until it is told to stop, or until it has measured.
///
/// # Errors
/// What kept it from coming up, or the claims that did not hold.
pub async fn run(args: DemoArgs) -> Result<(), DemoError> {
    demo(&args, &Console::new()).await
}

async fn demo(args: &DemoArgs, console: &Console) -> Result<(), DemoError> {
    let system = |what: &'static str| move |source| DemoError::System { what: what.into(), source };
    // First of all, so that no signal can find us with children and without a way to end them.
    let stop = stop_on_signal().map_err(system("listening for signals"))?;
    let programs = Programs::find()?;
    let folder = tempfile::Builder::new()
        .prefix("pillion-demo-")
        .permissions(Permissions::from_mode(0o700))
        .tempdir()
        .map_err(system("making a temporary folder"))?;
    let guard = Guard::start(&programs.pillion).map_err(system("starting the demo's guard"))?;
    guard.remove_folder(folder.path());
    if args.keep_data {
        guard.keep_folder();
        console.say(&format!("logs and data: {}", folder.path().display()));
    }

    let outcome = Box::pin(started(args, console, &programs, folder.path(), &guard, stop)).await;

    if args.keep_data {
        // Forgets about it without removing it.
        let _ = folder.keep();
    }
    outcome
}

async fn started(
    args: &DemoArgs,
    console: &Console,
    programs: &Programs,
    folder: &Path,
    guard: &Guard,
    mut stop: watch::Receiver<bool>,
) -> Result<(), DemoError> {
    let setting = setting(args);
    let mut mesh = tokio::select! {
        mesh = Mesh::start(programs, folder, guard, &setting, console) => mesh?,
        _ = stop.wait_for(|stop| *stop) => return Ok(()),
    };
    let tally = Arc::new(Tally::default());
    let (end_traffic, traffic_ends) = watch::channel(false);
    let traffic = start_traffic(&mesh, Arc::clone(&tally), traffic_ends).await?;
    console.say(&format!("sending {} requests per second", traffic::RATE));

    let outcome = if args.check {
        let length = Duration::from_secs(args.seconds.unwrap_or(20));
        console.say(&format!("measuring for {} s", length.as_secs()));
        tokio::select! {
            measured = measure::measure(&mesh, &tally, length) => {
                measured.map_err(DemoError::from).and_then(|measured| conclude(&measured, &tally, console))
            }
            _ = stop.wait_for(|stop| *stop) => Err(DemoError::Stopped),
        }
    } else {
        introduce(&mesh, programs, folder, console)?;
        let time_is_up = async {
            match args.seconds {
                Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = narrate::narrate(&mut mesh, &tally, console, stop.clone()) => {}
            () = time_is_up => {}
        }
        Ok(())
    };

    console.say("");
    let stopping = async {
        end_traffic.send_replace(true);
        let _ = traffic.await;
        mesh.stop().await;
        Ok::<_, DemoError>(())
    };
    console.step("stopping everything", stopping).await?;
    outcome
}

/// Users, as the workload `traffic`: through its sidecar's port, or in its namespace, where they need not know of a sidecar.
async fn start_traffic(
    mesh: &Mesh,
    tally: Arc<Tally>,
    ends: watch::Receiver<bool>,
) -> Result<tokio::task::JoinHandle<()>, DemoError> {
    let workload = mesh.workload("traffic");
    let Some(place) = &workload.place else {
        let client = client_through(workload.addresses.outbound).expect("an address makes a valid proxy URL");
        return Ok(tokio::spawn(traffic::generate(client, tally, ends)));
    };
    let web = mesh.api.virtual_address(mesh::NAMESPACE, "web").await?;
    let client = client_to("web.demo.mesh", web).expect("nothing in these settings can fail");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(DemoError::system("starting the traffic"))?;
    let entrance = place.entrance()?;
    let (done, ended) = tokio::sync::oneshot::channel();
    // A thread of its own, since it stays in that namespace for good.
    std::thread::spawn(move || {
        match entrance.enter() {
            Ok(()) => runtime.block_on(traffic::generate(client, tally, ends)),
            Err(error) => tally.fail(error.to_string()),
        }
        let _ = done.send(());
    });
    Ok(tokio::spawn(async {
        let _ = ended.await;
    }))
}

fn setting(args: &DemoArgs) -> Setting {
    let seconds = |all: [u64; 3]| all.map(Duration::from_secs);
    let netns = args.netns;
    match args.check {
        // Everything there is to see, within twenty seconds.
        true => Setting {
            dashboard_port: args.dashboard_port.unwrap_or(0),
            certificate_life: Duration::from_secs(30),
            phases: seconds([9, 2, 60]),
            netns,
        },
        false => Setting {
            dashboard_port: args.dashboard_port.unwrap_or(DASHBOARD_PORT),
            certificate_life: Duration::from_secs(60),
            phases: seconds([15, 7, 15]),
            netns,
        },
    }
}

/// Prints the table.
fn conclude(measured: &check::Measured, tally: &Tally, console: &Console) -> Result<(), DemoError> {
    let claims = check::judge(measured);
    console.say(&format!("\n{}", check::table(&claims)));
    if let Some(failure) = tally.last_failure() {
        console.say(&format!("the last failure of a user's request: {failure}"));
    }
    match claims.iter().filter(|claim| !claim.holds).count() {
        0 => Ok(()),
        broken => Err(DemoError::Claims { broken, of: claims.len() }),
    }
}

/// Says what there is to see and to try.
fn introduce(mesh: &Mesh, programs: &Programs, folder: &Path, console: &Console) -> Result<(), DemoError> {
    let write = |name: &str, text: &str| {
        let file = folder.join(name);
        let written = std::fs::write(&file, text);
        written.map(|()| file).map_err(|source| DemoError::System { what: format!("writing {name}"), source })
    };
    write("shop.yaml", mesh::DOCUMENTS)?;
    let half = write("canary-50.yaml", &canary_at(50))?;
    let pillion = programs.pillion.display();
    let base = mesh.api.base();
    let traffic = mesh.workload("traffic");
    let how = match &traffic.place {
        Some(place) => format!("ip netns exec {} curl", place.name()),
        None => format!("curl -x http://{}", traffic.addresses.outbound),
    };
    let token = mesh.admin_token_file.display();
    console.say(&format!(
        "
The dashboard: {base}/

To try in another terminal:
  export PILLION_SERVER={base} PILLION_TOKEN_FILE={token}
  {how} http://catalog.demo.mesh/products
  {pillion} describe service payments -n demo
  {pillion} tap svc/payments.demo --callers
  {pillion} apply -f {half}

What each sidecar knows (/config, /endpoints, /metrics), such as curl http://{cart}/endpoints:
{admin}

The dashboard's page of live requests asks for a token: {token} holds one.
payments-3 is failing, slow and well in turn; Ctrl-C ends everything.
",
        half = half.display(),
        cart = mesh.workload("cart-1").addresses.admin,
        admin = admin_ports(
            mesh.workloads.iter().map(|it| (it.member.name.to_string(), it.addresses.admin.to_string()))
        ),
    ));
    Ok(())
}

/// Some of them on each line.
fn admin_ports(workloads: impl Iterator<Item = (String, String)>) -> String {
    const ON_A_LINE: usize = 3;
    let each: Vec<String> = workloads.map(|(name, address)| format!("{name} {address}")).collect();
    let lines: Vec<String> = each.chunks(ON_A_LINE).map(|some| format!("  {}", some.join(", "))).collect();
    lines.join("\n")
}

/// The route's document with the canary at `percent`.
fn canary_at(percent: u32) -> String {
    let documents = mesh::DOCUMENTS.split("---\n");
    let route = documents.filter(|document| document.contains("kind: HTTPRoute")).collect::<String>();
    route
        .replace("one request in ten goes", &format!("{percent} % of the requests go"))
        .replace("weight: 90", &format!("weight: {}", 100 - percent))
        .replace("weight: 10 ", &format!("weight: {percent} "))
}

/// Turns true at SIGINT or SIGTERM.
fn stop_on_signal() -> std::io::Result<watch::Receiver<bool>> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        sender.send_replace(true);
        // Kept open: a closed channel would say the same as a signal.
        sender.closed().await;
    });
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sidecar_says_where_it_can_be_asked() {
        let workloads = (1..=4).map(|number| (format!("w-{number}"), format!("127.0.0.1:{number}")));
        let expected = "  w-1 127.0.0.1:1, w-2 127.0.0.1:2, w-3 127.0.0.1:3\n  w-4 127.0.0.1:4";
        assert_eq!(admin_ports(workloads), expected);
    }

    #[test]
    fn the_canary_document_is_the_route_with_other_weights() {
        let document = canary_at(50);
        assert_eq!(document.matches("kind: HTTPRoute").count(), 1);
        assert_eq!(document.matches("weight: 50 ").count(), 2);
        assert!(!document.contains("kind: TrafficPolicy"));
    }
}
